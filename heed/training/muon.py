"""Muon: momentum whose direction is made orthogonal for matrices, and AdamW for everything else.

An update of a matrix usually has a few large singular values and many small ones; setting all of them to about one lets every direction
learn at the same pace, which takes fewer steps at batches of some thousand tokens. Source: Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon, whose five iterations are three here; the scale that lets AdamW's learning rates be used as
they are: Liu et al. 2025, https://arxiv.org/abs/2502.16982, eq. 4.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Three odd quintics a s + b s^3 + c s^5, each the nearest to 1 on the interval that the one before leaves of [0.01, 1] (Amsel et al. 2025,
# https://arxiv.org/abs/2505.16932), the first two for s / 1.01, so that bfloat16's rounding cannot leave the interval.
QUINTICS = ((8.0132, -22.9258, 16.5994), (3.6006, -2.6419, 0.5105), (2.6613, -1.9772, 0.4526))
MOMENTUM = 0.95
ADAMW_RMS = 0.2  # root mean square of AdamW's updates, which an orthogonal update is scaled to (Liu et al. 2025)


class Muon(torch.optim.AdamW):
    """AdamW whose groups marked `orthogonal` hold matrices and are updated by orthogonalised momentum instead."""

    def __init__(self, groups: Sequence[dict[str, Any]], *, precision: torch.dtype, **adamw: Any) -> None:
        super().__init__(groups, **adamw)
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: the loop calls backward itself
        """Update every parameter that has a gradient."""
        groups = self.param_groups
        for group in groups:
            if group.get("orthogonal"):
                self._step_matrices(group)
        self.param_groups = [group for group in groups if not group.get("orthogonal")]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def _step_matrices(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.shape].append(parameter)
        for shape, parameters in alike.items():
            directions = orthogonalise(torch.stack([self._momentum(parameter) for parameter in parameters]), self.precision)
            rate = group["lr"] * ADAMW_RMS * max(shape) ** 0.5
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction.to(parameter.dtype), alpha=-rate)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        """Return the gradient with Nesterov momentum, and remember the momentum."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"]
        assert parameter.grad is not None
        momentum.lerp_(parameter.grad, 1 - MOMENTUM)
        return parameter.grad.lerp(momentum, MOMENTUM)


def orthogonalise(matrices: Tensor, precision: torch.dtype) -> Tensor:
    """Set the singular values of matrices (N, A, B) to about 1, between 0.7 and 1.3 but for the smallest, by Newton-Schulz iteration.

    The iteration starts from singular values of at most 1. The norm that sees to it is the root of the Gram matrix's, which costs nothing
    as that matrix is the iteration's first product, and lies up to three times nearer to the largest singular value than the matrix's own:
    one iteration less.
    """
    tall = matrices.size(1) > matrices.size(2)
    x = (matrices.mT if tall else matrices).to(precision)
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]  # no product leaves the range of the type
    gram = x @ x.mT
    square = gram.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    x, gram = x / square.sqrt(), gram / square
    for i, (a, b, c) in enumerate(QUINTICS):
        if i > 0:
            gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
