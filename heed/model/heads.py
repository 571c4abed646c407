"""Heads: what turns the last hidden vectors into scores."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.block import ACTIVATIONS, build_norm
from heed.model.config import ModelConfig
from heed.model.dropout import Dropout


class VocabularyHead(nn.Module):
    """One score per word of the vocabulary: a linear map whose matrix may be the embedding's (Press & Wolf 2017).

    Args:
        absent: ids that stand for nothing; their scores are minus infinity.
    """

    absent: Tensor | None

    def __init__(
        self, d_model: int, vocab_size: int, tied: nn.Embedding | None = None, *, bias: bool = False, absent: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.weight = (
            tied.weight if tied is not None else nn.Parameter(nn.init.xavier_uniform_(nn.Linear(d_model, vocab_size, bias=False).weight))
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if bias else None
        self.register_buffer("absent", torch.tensor(absent) if absent else None, persistent=False)
        self.product: nn.Module | None = None  # of a packed model

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (..., D) to logits (..., V)."""
        logits = F.linear(hidden, self.weight, self.bias) if self.product is None else self.product(hidden).float()
        return logits if self.absent is None else logits.index_fill(-1, self.absent, float("-inf"))


class MaskedHead(VocabularyHead):
    """One score per word at a place whose token is hidden (Devlin et al. 2019, section 3.1): a layer with a norm, and the embeddings.

    A bias learns how frequent words are.
    """

    def __init__(self, config: ModelConfig, embedding: nn.Embedding) -> None:
        super().__init__(config.d_model, embedding.num_embeddings, embedding if config.tied else None, bias=True)
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.norm = build_norm(config)
        self.activation = ACTIVATIONS[config.activation]

    def hidden(self, x: Tensor) -> Tensor:
        """Map an encoder's vectors (..., D) to those that are compared with the embeddings (..., D), as `vocabulary_loss` wants them."""
        hidden: Tensor = self.norm(self.activation(self.transform(x)))
        return hidden

    def forward(self, hidden: Tensor) -> Tensor:
        """Map an encoder's vectors (..., D) to logits (..., V)."""
        return super().forward(self.hidden(hidden))


class LabelHead(VocabularyHead):
    """One score per label at every place, for CTC (Graves et al. 2006); a bias learns how often nothing new is said."""

    def __init__(self, d_model: int, n_labels: int) -> None:
        super().__init__(d_model, n_labels, bias=True)


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


class TagHead(nn.Module):
    """One score per tag for a vector."""

    def __init__(self, config: ModelConfig, n_tags: int) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)
        self.scores = nn.Linear(config.d_model, n_tags)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., C)."""
        scores: Tensor = self.scores(self.dropout(x))
        return scores


class ClassHead(TagHead):
    """One score per class for a vector; model.class_hidden puts a layer before them, as BERT has."""

    def __init__(self, config: ModelConfig, n_classes: int) -> None:
        super().__init__(config, n_classes)
        self.hidden = None if config.class_hidden == "none" else nn.Linear(config.d_model, config.d_model)
        self.activation = None if config.class_hidden == "none" else ACTIVATIONS[config.class_hidden]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, D) to (B, C)."""
        return super().forward(x if self.hidden is None or self.activation is None else self.activation(self.hidden(x)))
