"""A loss over pairs of texts that belong together, in which the other pairs of the batch are what each is told from.

InfoNCE in both directions (van den Oord et al. 2018; symmetric as in Radford et al. 2021). Unlike the other losses it is no sum over rows:
what a pair is told from depends on the batch it stands in, so that a batch divided into micro-batches is another, easier task.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from heed.model.losses import LossSum


def contrastive_loss(first: Tensor, second: Tensor, same: Tensor, *, temperature: float) -> LossSum:
    """Sum -log p(partner) over the texts of both sides, p being the softmax of cosine / temperature over the batch.

    Args:
        first, second: (B, D), vectors of any length; row i of one belongs to row i of the other.
        same: (B, B), True where texts i and j may not be told apart, so that neither is a wrong answer for the other.
        temperature: what cosines are divided by.
    Returns:
        the sum, 2 B units, and for how many of them no wrong answer was nearer.
    """
    with torch.autocast(first.device.type, enabled=False):  # a cosine in bfloat16, over a temperature of 0.05, would be off by 0.1
        scores = cosines(first, second) / temperature
        others = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(same & others, -torch.inf)
        targets = torch.arange(len(scores), device=scores.device)
        total = sum(F.cross_entropy(way, targets, reduction="sum") for way in (scores, scores.T))
        right = sum((way.diagonal() >= way.amax(-1)).sum() for way in (scores, scores.T))
    return LossSum(torch.as_tensor(total), torch.tensor(2 * len(scores), device=scores.device), torch.as_tensor(right))


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of every row of one with every row of the other, in float32: (B, D), (C, D) -> (B, C)."""
    return F.normalize(first.float(), dim=-1) @ F.normalize(second.float(), dim=-1).T
