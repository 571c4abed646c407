"""Spans: the best parts of a text, given how likely each place is as their first and as their last."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

NEVER = float("-inf")


class Spans(NamedTuple):
    """The best spans of N texts, best first: the sum of both log p (N, K), first place (N, K) and last place (N, K).

    Where a text has fewer, the sum is -inf.
    """

    log_p: Tensor
    firsts: Tensor
    lasts: Tensor


def best_spans(log_p: Tensor, allowed: Tensor, *, longest: int, n_best: int) -> Spans:
    """Find the spans of highest log p(first) + log p(last) that end no earlier than they start (Devlin et al. 2019, section 4.2).

    Args:
        log_p: (N, S, 2), of each place as the first and as the last.
        allowed: (N, S), True where a span may start and end.
        longest: places of a span at most.
        n_best: K; fewer where N texts of S places cannot have as many.
    """
    first, last = log_p.masked_fill(~allowed[..., None], NEVER).unbind(-1)  # (N, S) each
    ending = F.pad(last, (0, longest - 1), value=NEVER).unfold(1, longest, 1)  # (N, S, longest): l places behind the first
    sums = (first[..., None] + ending).flatten(1)
    best = sums.topk(min(n_best, sums.size(1)), dim=1)
    firsts = best.indices // longest
    return Spans(best.values, firsts, firsts + best.indices % longest)
