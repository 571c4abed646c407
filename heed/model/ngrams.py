"""Scores of classes straight from the n-grams of a text, beside a network: the wide half of wide & deep learning (Cheng et al. 2016).

A network of attention forgets rare words and phrases, on which a linear classifier decides well. The two learn the answer each for itself
and answer together: learning it together, the table would soon know every training text by its rare n-grams, and nothing would be left to
learn from. N-grams are hashed to rows of scores (Weinberger et al. 2009), so that no list of them is kept. Two that meet in a row share
its scores. Left out: n-grams of letters inside words.
"""

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.dropout import Dropout

# Odd constants of 64 bits whose products spread over all bits, from SplitMix64 (Steele et al. 2014).
FIRST_MIX, SECOND_MIX = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
SHIFT = 32

# The squares of the weights of a text's n-grams add up to 1, so that each is small: rates that suit a network need scores so much larger.
GAIN = 8.0
FEWEST_TEXTS = 2  # an n-gram of a single training text would only help to learn that text by heart


class NGramScores(nn.Module):
    """Scores of classes for texts: those of their n-grams, each weighed by how rare it is (TF-IDF).

    An n-gram counts once, however often it stands in a text. Its weight is its rarity, which `learn_rarity` sets, divided by the root of
    the sum of the squares of all rarities of the text: long texts say more, but not many times more.
    """

    def __init__(self, longest: int, n_classes: int, n_rows: int, dropout: float) -> None:
        """Build the table, all zeros.

        Args:
            longest: tokens of the longest n-grams; shorter ones count too.
            dropout: share of the n-grams of a text that are left out in training.
        """
        super().__init__()
        self.longest = longest
        self.weight = nn.Parameter(torch.zeros(n_rows, n_classes))
        self.rarity = nn.Parameter(torch.zeros(n_rows), requires_grad=False)  # counted, not learned by descent
        self.dropout = Dropout(dropout)

    @torch.no_grad()
    def learn_rarity(self, texts: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the rarity of n-grams from the training texts, given as batches of ids (B, S) with masks (B, S), True = real.

        That is 1 + ln((1 + texts) / (1 + texts that hold it)), as in scikit-learn's TfidfTransformer, and 0 for those that a single text
        holds. N-grams whose rarity is known, from a run that these weights come from, keep it; of a table that is not trained, all do.
        """
        if not self.weight.requires_grad:
            return
        n_texts, holding = 0, torch.zeros(self.weight.size(0), dtype=torch.long)
        for ids, mask in texts:
            rows, whole = self._n_grams(ids, mask)
            held = _distinct(rows, whole, len(holding))[0]
            holding += torch.bincount(held.cpu(), minlength=len(holding))
            n_texts += len(ids)
        rarity = 1 + math.log(1 + n_texts) - (1.0 + holding).log()
        rarity = torch.where(holding < FEWEST_TEXTS, 0.0, rarity).to(self.rarity)
        self.rarity.copy_(torch.where(self.rarity > 0, self.rarity, rarity))

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score texts given as ids (B, S) with their mask (B, S), True = real; returns (B, C)."""
        rows, weights = (part.transpose(0, 1).flatten(1) for part in self._weighed(ids, mask))  # (B, N * S)
        kept: Tensor = self.dropout(weights)
        return (F.embedding(rows, self.weight) * kept[..., None]).sum(1)  # the gradient of embedding_bag takes twenty times as long

    def by_token(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what every token adds to the scores, (B, S, C): its share of each n-gram it stands in; summed over S, `forward`."""
        rows, weights = self._weighed(ids, mask)
        total = torch.zeros(())
        for n, found in enumerate(F.embedding(rows, self.weight) * weights[..., None], start=1):
            for back in range(n):
                total = total + F.pad(found[:, back:], (0, 0, 0, back)) / n
        return total

    @torch.no_grad()
    def _weighed(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the rows of the n-grams that end at each token, and what each of them counts there, (N, B, S) each."""
        rows, whole = self._n_grams(ids, mask)
        _, times = _distinct(rows, whole, self.weight.size(0))
        share = torch.where(whole, self.rarity[rows], 0.0) / times  # of an n-gram that stands there twice, half at either place
        squares = (share * self.rarity[rows]).sum((0, 2))  # (B,)
        return rows, GAIN * share * squares.clamp(min=torch.finfo(squares.dtype).tiny).rsqrt()[:, None]

    def _n_grams(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the rows of the n-grams that end at each token, and whether there is one that long, (N, B, S) each."""
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        whole = [F.pad(real, (n, 0))[:, : ids.size(1)] & real for n in range(self.longest)]  # the tokens between are real too
        return torch.stack(list(self.rows(ids))), torch.stack(whole)

    def rows(self, ids: Tensor) -> Iterator[Tensor]:
        """Yield for n = 1, 2 ... the rows of the n-grams that end at each token of ids (B, S), (B, S)."""
        key = torch.zeros_like(ids)
        for n in range(self.longest):
            before = F.pad(ids, (n, 0))[:, : ids.size(1)]
            key = _mixed(key + before + 1)  # the token n places back
            yield key % self.weight.size(0)


def _distinct(rows: Tensor, whole: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Return the rows (M,) that each text holds, one text after the other, and how often the one at each place (N, B, S) stands in it."""
    text = torch.arange(rows.size(1), device=rows.device)[:, None]
    keys, places, times = torch.unique(torch.where(whole, text * n_rows + rows, -1), return_inverse=True, return_counts=True)
    return keys[keys >= 0] % n_rows, times[places]


def _mixed(keys: Tensor) -> Tensor:
    """Spread whole numbers of 64 bits, so that those beside each other come to lie anywhere; products wrap around."""
    keys = (keys ^ (keys >> SHIFT)) * FIRST_MIX
    keys = (keys ^ (keys >> SHIFT)) * SECOND_MIX
    return keys ^ (keys >> SHIFT)
