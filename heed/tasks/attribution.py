"""How much each word of a text spoke for an answer: gradient times input (Simonyan et al. 2013; Denil et al. 2014)."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from heed.data.foreign import ForeignTokenizer
from heed.data.text import Tokenizer
from heed.data.words import Words
from heed.model.models import Encoder
from heed.model.stems import TokenStem
from heed.model.windows import Windows


def token_weights(model: Encoder, windows: Windows, *, n_tokens: int, label: int) -> Tensor:
    """Return gradient times input of one class's logit for each token of a text (S,), summed over its windows.

    What the n-grams of model.n_grams say is added as it is: a linear score needs no gradient to be divided.

    Args:
        windows: of one text, on the model's device; what frames them has the place -1.
    """
    assert isinstance(model.stem, TokenStem)
    embedded: list[Tensor] = []

    def keep(module: torch.nn.Module, arguments: Any, out: Tensor) -> Tensor:
        embedded.append(out.detach().requires_grad_())
        return embedded[-1]

    hook = model.stem.embedding.register_forward_hook(keep)
    try:
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN's LSTMs have no gradient when answering
            logit = model.eval().classify(windows.ids, windows.mask)[:, label].mean()
    finally:
        hook.remove()
    (gradient,) = torch.autograd.grad(logit, embedded[0])
    told = (gradient * embedded[0]).sum(-1).detach()
    if model.n_grams is not None:
        told = told + model.n_grams.by_token(windows.ids, windows.mask)[..., label].detach() / len(told)
    places, told = windows.places.cpu(), told.cpu()  # (N, W) each
    real = places >= 0
    return torch.zeros(n_tokens).index_add(0, places[real], told[real].float())


def word_weights(
    tokenizer: Tokenizer | Words | ForeignTokenizer, ids: Sequence[int], weights: Sequence[float]
) -> Iterator[tuple[str, float]]:
    """Yield the words of a text with the sums of their tokens' weights; what is no text, such as the end between two, is left out."""
    starts = tokenizer.word_starts(ids).nonzero()[0].tolist()
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        word = tokenizer.decode(ids[start:end]).strip()
        if word:
            yield word, sum(weights[start:end])
