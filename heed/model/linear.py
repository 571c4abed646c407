"""Linear maps of a block: full, or of low rank, where a thin product of two matrices stands for the weight.

A matrix (F, D) of rank r takes r (D + F) numbers instead of D F, and is any matrix at r = min(D, F).
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """x -> W x + b with W = up down, up (F, r) and down (r, D)."""

    def __init__(self, d_in: int, d_out: int, rank: int, *, bias: bool = True) -> None:
        super().__init__()
        self.down = nn.Linear(d_in, rank, bias=False)
        self.up = nn.Linear(rank, d_out, bias=bias)

    @property
    def weight(self) -> Tensor:
        """The full matrix (F, D)."""
        return self.up.weight @ self.down.weight

    @property
    def bias(self) -> Tensor | None:
        """The bias (F,), if there is one."""
        return self.up.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., F)."""
        mapped: Tensor = self.up(self.down(x))
        return mapped


AnyLinear = nn.Linear | LowRankLinear


def build_linear(d_in: int, d_out: int, *, bias: bool = True, rank: int | None = None) -> AnyLinear:
    """Return a linear map, of low rank where that takes fewer numbers than the full matrix."""
    if rank is None or rank * (d_in + d_out) >= d_in * d_out:
        return nn.Linear(d_in, d_out, bias=bias)
    return LowRankLinear(d_in, d_out, rank, bias=bias)


def weight_of(module: nn.Module) -> Tensor:
    """Return the matrix (F, D) a linear map multiplies with."""
    return cast(Tensor, module.weight)


def bias_of(module: nn.Module) -> Tensor | None:
    """Return the bias (F,) of a linear map, None when it has none."""
    return cast(Tensor | None, getattr(module, "bias", None))


def joint_bias(linears: Sequence[nn.Module]) -> Tensor | None:
    """Return the biases (sum of F,) of maps that are applied as one, zeros for those that have none; None when no map has one."""
    biases = [bias_of(linear) for linear in linears]
    if all(bias is None for bias in biases):
        return None
    weights = map(weight_of, linears)
    return torch.cat([weight.new_zeros(weight.size(0)) if bias is None else bias for weight, bias in zip(weights, biases, strict=True)])
