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
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)  # by shape, lying and upright ones together
        for place, parameter in enumerate(parameters):
            alike[tuple(sorted(parameter.shape))].append(place)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        momenta = self._momenta(parameters)
        for shape, places in alike.items():
            lying = orthogonalise(torch.stack([_lying(momenta[place]) for place in places]), self.precision)
            changed = [_lying(parameters[place]) for place in places]
            torch._foreach_add_(changed, list(lying.to(changed[0].dtype)), alpha=-group["lr"] * ADAMW_RMS * shape[-1] ** 0.5)

    def _momenta(self, parameters: list[nn.Parameter]) -> Sequence[Tensor]:
        """Return the gradients with Nesterov momentum, and remember the momentum."""
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        nesterov: Sequence[Tensor] = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        return nesterov


def _lying(matrix: Tensor) -> Tensor:
    """Return a matrix or its transpose, whichever has no more lines than columns."""
    return matrix.mT if matrix.size(0) > matrix.size(1) else matrix


def orthogonalise(matrices: Tensor, precision: torch.dtype) -> Tensor:
    """Set the singular values of matrices (N, A, B), A <= B, to about 1 by Newton-Schulz iteration: 0.7 to 1.3 but for the smallest.

    The iteration starts from singular values of at most 1. The norm that sees to it is the root of the Gram matrix's, which costs nothing
    as that matrix is the iteration's first product, and lies up to three times nearer to the largest singular value than the matrix's own:
    one iteration less.
    """
    x = matrices.to(precision)
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]  # no product leaves the range of the type
    gram = x @ x.mT
    square = gram.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    x, gram = x / square.sqrt(), gram / square
    for i, (a, b, c) in enumerate(QUINTICS):
        if i > 0:
            gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
