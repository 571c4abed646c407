"""Stems: what turns a modality into `(x: (B, S, D), mask: (B, S))`. Behind them no layer knows what the data was."""

import math

from torch import Tensor, nn

from heed.model.config import ModelConfig
from heed.model.dropout import Dropout
from heed.model.positions import LearnedPositions, SinusoidalPositions

PAD = 0


def build_positions(config: ModelConfig) -> nn.Module | None:
    """Return what adds positions to embeddings; None where order is known otherwise, or not at all."""
    if config.positions == "sinusoidal":
        return SinusoidalPositions(config.d_model, config.max_length)
    return LearnedPositions(config.d_model, config.max_length) if config.positions == "learned" else None


class TokenStem(nn.Module):
    """Token ids -> embeddings with positions. The row of the padding id starts at zero and the look-up never trains it."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        width = config.d_embedding or config.d_model
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=PAD)
        self.embedding.weight.requires_grad_(not config.frozen_embedding)
        self.widen = nn.Linear(width, config.d_model, bias=False) if width != config.d_model else None
        self.scale = math.sqrt(config.d_model) if config.embedding_scale else 1.0
        self.positions = build_positions(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, ids: Tensor, first: int = 0, positions: Tensor | None = None) -> Tensor:
        """Look up ids (B, T) and add their positions (B, T), all below first + T; by default first, first + 1 ...; returns (B, T, D)."""
        x: Tensor = self.embedding(ids) * self.scale
        if self.widen is not None:
            x = self.widen(x)
        if self.positions is not None:
            x = self.positions(x, first, positions)
        return self.dropout(x) if self.training else x
