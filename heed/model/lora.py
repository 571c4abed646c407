"""Adapters: thin matrices learned beside frozen weights, which they can be folded into (Hu et al. 2021).

Source: https://arxiv.org/abs/2106.09685, section 4.1. A map of F x D numbers learns r (D + F); its W stays as it was found.
"""

import copy
import math
from collections.abc import Collection
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.errors import ConfigError
from heed.model.attention import Attention, JointLinear
from heed.model.block import FeedForward

TARGETS: dict[type[nn.Module], tuple[str, ...]] = {
    Attention: ("query", "key", "value", "output"),
    FeedForward: ("up", "gate", "down"),
}
FROZEN = "frozen"  # what stands in the names of weights that are kept as they were found

Adapted = TypeVar("Adapted", bound=nn.Module)


class LoraLinear(nn.Module):
    """x -> W x + b + (alpha / r) up(down x), where only up (F, r), zeros at the start, and down (r, D) learn."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.frozen = linear.requires_grad_(False)
        like = linear.weight
        self.down = nn.Linear(linear.in_features, rank, bias=False, device=like.device, dtype=like.dtype)
        self.up = nn.Linear(rank, linear.out_features, bias=False, device=like.device, dtype=like.dtype)
        self.factor = alpha / rank
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    @property
    def weight(self) -> Tensor:
        """The matrix (F, D) that the map multiplies with."""
        return self.frozen.weight + self.factor * (self.up.weight @ self.down.weight)

    @property
    def bias(self) -> Tensor | None:
        """The bias (F,), if there is one."""
        return self.frozen.bias

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., F)."""
        learned: Tensor = self.up(self.down(x))
        return F.linear(x, self.frozen.weight, self.frozen.bias) + self.factor * learned

    def folded(self) -> nn.Linear:
        """Return the same map as one matrix."""
        linear = copy.deepcopy(self.frozen).requires_grad_(True)
        with torch.no_grad():
            linear.weight.copy_(self.weight)
        return linear


def adapt(model: nn.Module, *, rank: int, alpha: float, targets: Collection[str], new: Collection[str]) -> None:
    """Freeze a model but for some parameters, and put adapters beside its linear maps, in place.

    Args:
        targets: which maps of attention and feed-forward have adapters, by the names they have there.
        new: names of parameters that were not found but drawn, and train fully.
    Raises:
        ConfigError: no map is left to adapt, or one is of low rank itself.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in new and parameter.requires_grad)
    found = [(f"{path}.{name}", module, name) for path, module in model.named_modules() for name in _names(module) if name in targets]
    found = [(path, module, name) for path, module, name in found if f"{path}.weight" not in new and getattr(module, name) is not None]
    if not found:
        raise ConfigError(f"lora.targets={sorted(targets)}: this model has none of them; leave lora out, or name others")
    for path, module, name in found:
        linear = getattr(module, name)
        if not isinstance(linear, nn.Linear):
            raise ConfigError(f"lora: {path} is of low rank already (model.weight_rank); leave lora out")
        setattr(module, name, LoraLinear(linear, rank, alpha))
    _join_again(model)


def is_adapted(model: nn.Module) -> bool:
    """Return whether a model has adapters."""
    return any(isinstance(module, LoraLinear) for module in model.modules())


def fold(model: nn.Module) -> None:
    """Add adapters to the weights beside them, in place: what is left is a plain model."""
    for module in list(model.modules()):
        for name in _names(module):
            linear = getattr(module, name)
            if isinstance(linear, LoraLinear):
                setattr(module, name, linear.folded())
    _join_again(model)


def folded(model: Adapted) -> Adapted:
    """Return a model without adapters that computes the same: itself, or a copy."""
    if not is_adapted(model):
        return model
    plain = copy.deepcopy(model)
    fold(plain)
    return plain


def plain_name(name: str) -> str:
    """Return the name a frozen parameter has in a model without adapters."""
    return name.replace(f".{FROZEN}.", ".")


def learned_names(model: nn.Module, new: Collection[str]) -> set[str]:
    """Return the names of what learns in an adapted model: adapters, and what was drawn anew."""
    adapters = [path for path, module in model.named_modules() if isinstance(module, LoraLinear)]
    return {f"{path}.{part}.weight" for path in adapters for part in ("down", "up")} | set(new)


def _names(module: nn.Module) -> tuple[str, ...]:
    """Return the maps of a module that may have adapters."""
    return next((names for kind, names in TARGETS.items() if isinstance(module, kind)), ())


def _join_again(model: nn.Module) -> None:
    """Let joint products of attention know the maps that stand there now."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.joint = JointLinear(module.query, module.key, module.value)
            module.source = JointLinear(module.key, module.value)
