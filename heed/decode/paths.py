"""The likeliest path through tags of which not all may follow each other (Viterbi 1967).

Without learned transitions: a path's score is the sum of its tags' log p, and illegal steps are forbidden.
"""

import torch
from torch import Tensor

FORBIDDEN = -1e6  # finite, so that a path is found where none is allowed


def best_paths(log_p: Tensor, mask: Tensor, *, begins: Tensor, follows: Tensor, ends: Tensor) -> Tensor:
    """Find the path of highest sum for each row.

    Args:
        log_p: (B, W, C); mask: (B, W), True = real, on the left.
        begins: (C,), which tags may stand first; ends: (C,), which last.
        follows: (C, C), whether the second of two tags may follow the first.
    Returns:
        tags (B, W), 0 where nothing is real.
    """
    best = log_p[:, :0].sum(1) + _cost(begins)  # (B, C), of the paths so far that end with each tag
    cost = _cost(follows)
    back = []
    for place in range(log_p.size(1)):
        if place:
            scores, came_from = (best[:, :, None] + cost).max(1)
            real = mask[:, place, None]
            best = torch.where(real, scores + log_p[:, place], best)
            back.append(torch.where(real, came_from, torch.arange(best.size(1), device=best.device)))
        else:
            best = best + log_p[:, 0]
    last = (best + _cost(ends)).argmax(1)
    path = [last]
    for came_from in reversed(back):
        path.append(came_from.gather(1, path[-1][:, None])[:, 0])
    found = torch.stack(path[::-1], 1)[:, : log_p.size(1)]
    return found.masked_fill(~mask, 0)


def _cost(allowed: Tensor) -> Tensor:
    return torch.where(allowed, 0.0, FORBIDDEN)
