"""Dropout whose random numbers cost an eighth of torch's on a CPU.

torch draws one number per activation on one thread, a quarter of a training step. Here one 64-bit draw of torch's own generator
(so `torch.manual_seed` governs it) decides eight activations, one byte each. The rate is therefore a multiple of 1/256, and
survivors are scaled by the exact inverse, so the expectation is unchanged. On other devices torch's fused kernel is used.
Source of the idea of dropout: Srivastava et al. 2014.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_mask(shape: torch.Size, rate: float, dtype: torch.dtype) -> Tensor:
    """Draw a CPU mask with the values 0 (dropped, about `rate` of them) and 1 / (share kept)."""
    n = shape.numel()
    drawn = torch.empty((n + 7) // 8, dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:n].view(shape)
    n_dropped = drop_count(rate)
    return (drawn >= n_dropped).to(dtype).mul_(256 / (256 - n_dropped))


def drop_count(rate: float) -> int:
    """Return how many of the 256 values of a byte mean dropped."""
    return min(255, max(1, round(rate * 256))) if rate > 0 else 0


class Dropout(nn.Module):
    """Zero a share of the activations while training and scale up the rest."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return x with activations dropped in training; any shape."""
        if not self.training or self.rate == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        return x * keep_mask(x.shape, self.rate, x.dtype)

    def extra_repr(self) -> str:
        """Show the rate in a printed model."""
        return str(self.rate)
