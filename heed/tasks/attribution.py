"""How much each word of a text spoke for an answer: integrated gradients (Sundararajan et al. 2017).

Gradient times input alone says little here: layer norms hide the scale of an input, so that what it says hardly goes with what becomes of
the answer when a word is left out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heed.data.foreign import ForeignTokenizer
from heed.data.text import Tokenizer
from heed.data.words import Words
from heed.model.models import Encoder
from heed.model.stems import TokenStem
from heed.model.windows import Windows

PATH_STEPS = 16  # places between the average word of a text and each word itself where gradients are taken


def token_weights(model: Encoder, windows: Windows, ids: Tensor, *, n_tokens: int, label: int, alone: bool) -> Tensor:
    """Return how much each token of a text (S,) added to the lead of a class, summed over its windows.

    That is what is gained on the way from the average word of the text to the token itself, while the others go the same way.
    What the n-grams of model.n_grams say, one half of the answer, is added as it is: a linear score needs no gradient to be divided.

    Args:
        windows: of one text, on the model's device; what frames them has the place -1.
        ids: (1, S), what is read of the text.
        n_tokens: of the text.
        alone: the class is judged by its own logit, rather than by how far that is above the mean of the others.
    """
    shares = [(step + 0.5) / PATH_STEPS for step in range(PATH_STEPS)]
    told = torch.stack([_gain(model, windows, share, label=label, alone=alone) for share in shares]).mean(0)
    places, told = windows.places.cpu(), told.cpu()  # (N, W) each
    real = places >= 0
    weights = torch.zeros(n_tokens).index_add(0, places[real], told[real].float())
    if model.n_grams is None:
        return weights
    by_n_grams = _lead(model.n_grams.by_token(ids)[0].detach().float().cpu(), label, alone)
    return (weights + F.pad(by_n_grams, (0, n_tokens - len(by_n_grams)))) / 2


def _gain(model: Encoder, windows: Windows, share: float, *, label: int, alone: bool) -> Tensor:
    """Return for each token (N, W) how fast the lead of a class grows at a share of the way from the average word, times the whole way."""
    assert isinstance(model.stem, TokenStem)
    reached: list[Tensor] = []
    way: list[Tensor] = []

    def go(module: torch.nn.Module, arguments: Any, out: Tensor) -> Tensor:
        average = _average(model, windows, out.detach())
        way.append(out.detach() - average)
        reached.append((average + share * way[0]).requires_grad_())
        return reached[0]

    hook = model.stem.embedding.register_forward_hook(go)
    try:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN's LSTMs have no gradient when answering
            lead = _lead(model.eval().classify(windows.ids, windows.mask).float(), label, alone).mean()
    finally:
        hook.remove()
    (gradient,) = torch.autograd.grad(lead, reached[0])
    return (gradient * way[0]).sum(-1).detach()


def _average(model: Encoder, windows: Windows, embedded: Tensor) -> Tensor:
    """Return the mean of a text's embedded tokens (D,); that of the vocabulary where they are all the same."""
    assert isinstance(model.stem, TokenStem)
    real = windows.places >= 0
    ids = windows.ids[real]
    return (embedded[real] if (ids != ids[0]).any() else model.stem.embedding.weight.detach()).mean(0)


def _lead(scores: Tensor, label: int, alone: bool) -> Tensor:
    """Return how far the scores (..., C) of a class are above the mean of the others; where it is judged alone, they themselves."""
    own = scores[..., label]
    return own if alone else own - (scores.sum(-1) - own) / (scores.size(-1) - 1)


def word_weights(
    tokenizer: Tokenizer | Words | ForeignTokenizer, texts: Sequence[str], ids: Sequence[int], weights: Sequence[float]
) -> Iterator[tuple[str, float]]:
    """Yield the words of a text, or of two, with the sums of their tokens' weights.

    One that the vocabulary does not know is told as it stands in the text; what is no text, such as the end between two, is left out.
    """
    starts = tokenizer.word_starts(ids).nonzero()[0].tolist()
    written = _written(tokenizer, texts) if tokenizer.unk_id in ids else []
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        unknown = tokenizer.unk_id in ids[start:end]
        word = ("".join(written[start:end]) if unknown else tokenizer.decode(ids[start:end])).strip()
        if word:
            yield word, sum(weights[start:end])


def _written(tokenizer: Tokenizer | Words | ForeignTokenizer, texts: Sequence[str]) -> list[str]:
    """Return what each token (S,) of texts stands for in them; the end between two stands for nothing."""
    first, *others = (_pieces(tokenizer, text) for text in texts)
    return [*first, *(piece for side in others for piece in ("", *side))]


def _pieces(tokenizer: Tokenizer | Words | ForeignTokenizer, text: str) -> list[str]:
    if isinstance(tokenizer, Words):
        return tokenizer.split(text)
    ((_, places),) = tokenizer.with_places([text])
    return [text[start:end] for start, end in places]
