"""Scores of classes straight from the n-grams of a text, beside a network: the wide half of wide & deep learning (Cheng et al. 2016).

A network of attention forgets rare words and phrases, on which a linear classifier decides well; the sum of both does at least as well as
either. N-grams are hashed to rows of scores (Weinberger et al. 2009), so that no list of them is kept. Two that meet in a row share
its scores. Left out: n-grams of letters inside words.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.dropout import Dropout

# Odd constants of 64 bits whose products spread over all bits, from SplitMix64 (Steele et al. 2014).
FIRST_MIX, SECOND_MIX = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
SHIFT = 32


class NGramScores(nn.Module):
    """Scores of classes for texts: those of all their n-grams added, divided by the square root of how many there are.

    The root does what the length of the vector of counts does to a linear classifier: long texts say more, but not many times more.
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
        self.dropout = Dropout(dropout)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Score texts given as ids (B, S) with their mask (B, S), True = real; returns (B, C)."""
        scores = torch.stack([found.sum(1) for found in self._found(ids, mask)])  # (N, B, C)
        return scores.sum(0)

    def by_token(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what every token adds to the scores, (B, S, C): its share of each n-gram it stands in; summed over S, `forward`."""
        total = torch.zeros(())
        for n, found in enumerate(self._found(ids, mask), start=1):
            for back in range(n):
                total = total + F.pad(found[:, back:], (0, 0, 0, back)) / n
        return total

    def _found(self, ids: Tensor, mask: Tensor | None) -> Iterator[Tensor]:
        """Yield for each length what the n-grams that end at each token add to the scores, (B, S, C)."""
        real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        n_tokens = real.sum(1, keepdim=True)
        n_grams = sum((n_tokens - n).clamp(min=0) for n in range(self.longest))  # (B, 1)
        weight = torch.as_tensor(n_grams, device=ids.device).clamp(min=1).rsqrt()
        for n, rows in enumerate(self.rows(ids)):
            whole = F.pad(real, (n, 0))[:, : ids.size(1)] & real  # the tokens before it are real too, as padding stands behind
            kept = self.dropout(whole * weight) if self.training else whole * weight
            yield F.embedding(rows, self.weight) * kept[..., None]

    def rows(self, ids: Tensor) -> Iterator[Tensor]:
        """Yield for n = 1, 2 ... the rows of the n-grams that end at each token of ids (B, S), (B, S)."""
        key = torch.zeros_like(ids)
        for n in range(self.longest):
            before = F.pad(ids, (n, 0))[:, : ids.size(1)]
            key = _mixed(key + before + 1)  # the token n places back
            yield key % self.weight.size(0)


def _mixed(keys: Tensor) -> Tensor:
    """Spread whole numbers of 64 bits, so that those beside each other come to lie anywhere; products wrap around."""
    keys = (keys ^ (keys >> SHIFT)) * FIRST_MIX
    keys = (keys ^ (keys >> SHIFT)) * SECOND_MIX
    return keys ^ (keys >> SHIFT)
