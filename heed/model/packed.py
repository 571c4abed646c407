"""A model's weights arranged for answering: no gradients, joint matrices joined once, products in the type the hardware is fastest at.

A packed model shares its original's parameters and computes what its original does: in float32 to the last bits, in bfloat16 and int8
to their rounding.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.attention import Attention
from heed.model.block import FeedForward, Stack
from heed.model.conformer import ConvolutionModule
from heed.model.heads import VocabularyHead
from heed.model.linear import joint_bias, weight_of
from heed.model.stems import AudioStem

Packable = TypeVar("Packable", bound=nn.Module)


def pack(model: Packable, precision: torch.dtype) -> Packable:
    """Return a copy of a model for answering with its present weights; changing them later leaves the copy undefined.

    Args:
        precision: type of the matrix products, float32 or bfloat16, or int8 (CPU only); convolutions and LSTMs stay in float32.
    """
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    packed = copy.deepcopy(model, shared).eval()
    join: Callable[..., nn.Module] = partial(PackedLinear, precision=precision)
    if precision == torch.int8:
        join = _quantize_stacks(packed)
    for module in list(packed.modules()):
        if isinstance(module, VocabularyHead):
            module.product = join(module)
        elif isinstance(module, Attention):
            module.joint = join(module.query, module.key, module.value)
            module.source = join(module.key, module.value)
            module.query, module.output = join(module.query), join(module.output)
        elif isinstance(module, FeedForward):
            module.up, module.down = join(module.up), join(module.down)
            module.gate = None if module.gate is None else join(module.gate)
        elif isinstance(module, ConvolutionModule):
            module.enter, module.leave = join(module.enter), join(module.leave)
        elif isinstance(module, AudioStem):
            module.output = None if module.output is None else join(module.output)
    return packed


def _quantize_stacks(packed: nn.Module) -> Callable[..., nn.Module]:
    """Replace the stacks that have an int8 form of their own, and return what rounds the linear maps of all others."""
    from heed.model.quantized import QuantizedLinear, QuantizedStack  # with numba, which not everybody needs

    for name, module in list(packed.named_modules()):
        if isinstance(module, Stack) and QuantizedStack.knows(module.config):
            packed.set_submodule(name, QuantizedStack(module))
    return QuantizedLinear


class PackedLinear(nn.Module):
    """Linear maps of the same input as one, whose weights were converted once.

    In bfloat16 a row's product does not depend on the rows beside it. A CPU would multiply few rows faster in float32; they are not, so
    that a sentence alone is answered as in any batch.
    """

    def __init__(self, *linears: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        weights = [weight_of(linear).detach().to(precision) for linear in linears]
        self.weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        bias = joint_bias(linears)
        self.bias = None if bias is None else bias.detach().to(precision)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., F), in the type of the product."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)
