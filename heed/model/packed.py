"""A model's weights arranged for answering: no gradients, joint matrices joined once, products in the type that is fastest for their size.

A packed model is the same modules around other linear maps, shares its original's parameters, and computes what its original does:
in float32 to the last bits, in bfloat16 and int8 to their rounding.
"""

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.attention import Attention
from heed.model.block import FeedForward
from heed.model.heads import VocabularyHead

Packable = TypeVar("Packable", bound=nn.Module)
INT8_STRIDE = 32  # the kernel of int8 weights reads a row's features in strides, also beyond its end
FEW_ROWS = 5  # up to as many rows reading the weights takes longer than multiplying, and int8 weights are read fastest
LEVELS = 127  # of int8, on each side of zero


def pack(model: Packable, precision: torch.dtype) -> Packable:
    """Return a copy of a model for answering with its present weights; changing them later leaves the copy undefined.

    Args:
        precision: type of the matrix products, float32 or bfloat16; int8 (CPU only) also rounds the weights, to 255 levels in each row.
    """
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    packed = copy.deepcopy(model, shared).eval()
    for module in list(packed.modules()):
        if isinstance(module, Attention):
            module.joint = _join((module.query, module.key, module.value), precision)
            module.source = _join((module.key, module.value), precision)
            module.query, module.output = _join((module.query,), precision), _join((module.output,), precision)
        elif isinstance(module, FeedForward):
            module.up, module.down = _join((module.up,), precision), _join((module.down,), precision)
            module.gate = None if module.gate is None else _join((module.gate,), precision)
        elif isinstance(module, VocabularyHead):
            module.product = PackedLinear(module.weight.detach(), None, precision)
    return packed


def _join(linears: Sequence[nn.Module], precision: torch.dtype) -> "PackedLinear":
    """Make one linear map of those that have the same input."""
    weights = [linear.get_parameter("weight").detach() for linear in linears]
    biases = [bias.detach() for linear in linears if (bias := dict(linear.named_parameters()).get("bias")) is not None]
    return PackedLinear(weights[0] if len(weights) == 1 else torch.cat(weights), torch.cat(biases) if biases else None, precision)


class PackedLinear(nn.Module):
    """A linear map whose weights were converted once.

    In bfloat16 a row's product does not depend on the rows beside it. A CPU would multiply few rows faster in float32; they are not, so
    that a sentence alone is answered as in any batch.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: torch.dtype) -> None:
        super().__init__()
        self.rounded: tuple[Tensor, Tensor] | None = None
        if precision == torch.int8:
            levels, scales = _rounded(weight)
            weight = levels.float() * scales.float()[:, None]
            self.rounded = (levels, scales) if weight.size(1) % INT8_STRIDE == 0 else None
        self.weight, self.bias = weight, bias
        self.converted = None if precision == torch.float32 else (weight.bfloat16(), None if bias is None else bias.bfloat16())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., F), in the type of the product."""
        n_rows = x.numel() // x.size(-1)
        if self.rounded is not None and n_rows <= FEW_ROWS:
            product: Tensor = torch.ops.aten._weight_int8pack_mm(x.reshape(n_rows, -1).bfloat16(), *self.rounded)
            return (product if self.bias is None else product + self.bias).view(*x.shape[:-1], -1)
        if self.converted is None:
            return F.linear(x.float(), self.weight, self.bias)
        return F.linear(x.bfloat16(), *self.converted)


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix (F, D) to int8 levels, and return them with the step between them in each row (F,)."""
    scales = (weight.abs().amax(1) / LEVELS).clamp(min=torch.finfo(torch.float32).tiny).bfloat16()
    levels = (weight / scales.float()[:, None]).round().clamp(-LEVELS, LEVELS).to(torch.int8)
    return levels, scales
