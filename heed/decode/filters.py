"""What may change a model's scores before a token is chosen. Each filter maps logits (R, V) to logits (R, V)."""

import math

import torch
from torch import Tensor

from heed.errors import TrainingError

NEVER = float("-inf")
NO_TOKEN = -1  # what a past holds before its first token, where it is shorter than others


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log softmax in float32; NEVER throughout a row in which no token is possible.

    Raises:
        TrainingError: a score is NaN or plus infinity.
    """
    log_p = logits.log_softmax(-1, dtype=torch.float32)
    undefined = log_p[:, 0].isnan()  # one such score makes its whole row NaN, and so does a row of NEVER alone
    if not bool(undefined.any()):
        return log_p
    check_scores(bool((logits[undefined] == NEVER).all()))
    return log_p.masked_fill(undefined[:, None], NEVER)


def check_scores(sound: bool) -> None:
    """Raise TrainingError unless a model's scores are numbers."""
    if not sound:
        raise TrainingError(
            "decoding: the model's scores are NaN or infinite, so training diverged or the weights are damaged; "
            "train again with a lower train.lr or train.precision=float32, or restore the run folder from a copy"
        )


def forbid(logits: Tensor, ids: Tensor) -> Tensor:
    """Make some tokens (n,) impossible, in place: a step's scores belong to whoever asked for them."""
    return logits.index_fill_(1, ids, NEVER)


def forbid_repeats(logits: Tensor, past: Tensor, n: int, *, end: int) -> Tensor:
    """Make impossible, in place, what would end a run of n tokens that `past` (R, T) holds already; n = 0 forbids nothing.

    The end writes nothing and is no repetition, even where it also begins texts; an answer that is cut off needs it.

    Source: Paulus et al. 2018, section 2.5, for n = 3.
    """
    if not 0 < n <= past.size(1):
        return logits
    runs = past.unfold(1, n, 1)  # (R, T - n + 1, n)
    last = runs[..., -1]
    # Only such a run can come again as starts like the last n - 1 tokens; for n = 1 that is every one.
    repeated = (runs[..., :-1] == past[:, None, past.size(1) - n + 1 :]).all(-1) & (last != NO_TOKEN) & (last != end)
    rows, places = repeated.nonzero(as_tuple=True)
    logits[rows, last[rows, places]] = NEVER
    return logits


def discourage(logits: Tensor, past: Tensor, penalty: float) -> Tensor:
    """Make tokens that stand in `past` (R, T) less likely: a score above 0 is divided by the penalty, one below multiplied.

    Source: Keskar et al. 2019, section 4.1, for scores above 0; for those below 0 as it has been used since.
    """
    if penalty == 1:
        return logits
    past = torch.where(past == NO_TOKEN, past[:, -1:], past)  # a token that stands there anyway
    scores = logits.gather(1, past)
    return logits.scatter(1, past, torch.where(scores > 0, scores / penalty, scores * penalty))


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharpen (below 1) or flatten (above 1) the distribution."""
    # The highest becomes 0, so that not even the smallest temperature turns a difference into infinity minus infinity.
    return (logits - logits.amax(-1, keepdim=True)) / max(temperature, torch.finfo(logits.dtype).tiny)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens of each row (Fan et al. 2018); ties with the k-th stay."""
    if k <= 0 or k >= logits.size(-1):
        return logits
    lowest = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < lowest, NEVER)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens that holds probability p (Holtzman et al. 2020); at least one token."""
    if p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # held by the tokens likelier than this one
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, NEVER)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens that are at least p times as likely as the likeliest (Nguyen et al. 2024)."""
    if p <= 0:
        return logits
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), NEVER)
