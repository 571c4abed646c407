"""Heads: what turns the last hidden vectors into scores."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.config import ModelConfig
from heed.model.dropout import Dropout


class VocabularyHead(nn.Module):
    """One score per word of the vocabulary: a linear map without bias, whose matrix may be the embedding's (Press & Wolf 2017)."""

    def __init__(self, d_model: int, vocab_size: int, tied: nn.Embedding | None = None) -> None:
        super().__init__()
        self.weight = (
            tied.weight if tied is not None else nn.Parameter(nn.init.xavier_uniform_(nn.Linear(d_model, vocab_size, bias=False).weight))
        )
        self.product: nn.Module | None = None  # of a packed model

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to logits (..., V)."""
        return F.linear(hidden, self.weight) if self.product is None else self.product(hidden).float()


class LabelHead(VocabularyHead):
    """One score per label at every place, for CTC (Graves et al. 2006); a bias learns how often nothing new is said."""

    def __init__(self, d_model: int, n_labels: int) -> None:
        super().__init__(d_model, n_labels)
        self.bias = nn.Parameter(torch.zeros(n_labels))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to logits (..., V)."""
        return F.linear(hidden, self.weight, self.bias) if self.product is None else self.product(hidden).float()


class Pooling(nn.Module):
    """Many vectors to one: their mean, a mean whose weights are learned (Yang et al. 2016, eq. 8 to 10), or the first of them."""

    def __init__(self, d_model: int, kind: Literal["mean", "attention", "first"]) -> None:
        super().__init__()
        self.kind = kind
        self.inner = nn.Linear(d_model, d_model) if kind == "attention" else None
        self.query = nn.Linear(d_model, 1, bias=False) if kind == "attention" else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool x (B, S, D) over the real places of mask (B, S) into (B, D); rows without any give zeros."""
        if self.kind == "first":
            return x[:, 0] if mask is None else x[:, 0] * mask[:, :1]
        real = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        if self.inner is None or self.query is None:
            weights = real / real.sum(-1, keepdim=True).clamp(min=1)  # (B, S)
        else:
            scores = self.query(torch.tanh(self.inner(x)))[..., 0].float()
            weights = scores.masked_fill(~real, torch.finfo(torch.float32).min).softmax(-1) * real
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * weights[..., None].to(wide.dtype)).sum(1)


class ClassHead(nn.Module):
    """One score per class for a vector."""

    def __init__(self, config: ModelConfig, n_classes: int) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.scores = nn.Linear(config.d_model, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D) to (B, C)."""
        scores: Tensor = self.scores(self.dropout(x))
        return scores
