"""The optimizer with its parameter groups, and the learning-rate schedules."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from heed.config import TrainConfig
from heed.model.heads import VocabularyHead
from heed.model.ngrams import NGramScores
from heed.training.muon import Muon


def build_optimizer(model: nn.Module, config: TrainConfig, precision: torch.dtype = torch.float32) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019) that decays matrices, but not embeddings, heads of vocabularies, norms, biases and gates.

    With train.optimizer=muon those matrices are Muon's.

    Args:
        precision: type of Muon's matrix products.
    """
    # Rows of these belong to words or n-grams, most of which a batch does not hold: neither decayed nor orthogonalised.
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | VocabularyHead | NGramScores)}
    matrices: list[nn.Parameter] = []
    convolutions: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
        decayed = parameter.dim() >= 2 and id(parameter) not in embeddings
        (others if not decayed else matrices if parameter.dim() == 2 else convolutions).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay, "orthogonal": config.optimizer == "muon"},
        {"params": convolutions, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    options: dict[str, Any] = {"lr": config.lr, "betas": (config.beta1, config.beta2), "eps": 1e-9, "fused": True}
    return Muon(groups, precision=precision, **options) if config.optimizer == "muon" else torch.optim.AdamW(groups, **options)


def learning_rate(step: int, config: TrainConfig, *, d_model: int, total_steps: int | None) -> float:
    """Return the rate of update `step`, counted from 1.

    `transformer` is lr * d_model^-0.5 * min(step^-0.5, step * warmup^-1.5) (Vaswani et al. 2017, eq. 3), with lr a plain factor;
    the others rise linearly to `lr` over the warm-up and then follow their shape.
    """
    warmup = max(1, config.warmup)
    if config.schedule == "transformer":
        return float(config.lr * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5))
    if step <= config.warmup:
        return config.lr * step / warmup
    shapes: dict[str, Callable[[], float]] = {
        "constant": lambda: 1.0,
        "inverse_sqrt": lambda: (warmup / step) ** 0.5,
        "cosine": lambda: 1.0 if total_steps is None else _cosine(step - config.warmup, total_steps - config.warmup, config.final_lr),
    }
    return config.lr * shapes[config.schedule]()


def _cosine(step: int, n_steps: int, final: float) -> float:
    """Fall from 1 to `final` along half a cosine (Loshchilov & Hutter 2017)."""
    progress = min(1.0, step / max(1, n_steps))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
