"""Stems: what turns a modality into `(x: (B, S, D), mask: (B, S))`. Behind them no layer knows what the data was."""

import math

from torch import Tensor, nn

from heed.model.config import ModelConfig
from heed.model.dropout import Dropout
from heed.model.positions import LearnedPositions, SinusoidalPositions

PAD = 0


class TokenStem(nn.Module):
    """Token ids -> embeddings with positions. The row of the padding id starts at zero and the look-up never trains it."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.d_model, padding_idx=PAD)
        self.scale = math.sqrt(config.d_model) if config.embedding_scale else 1.0
        self.positions: nn.Module | None = None
        if config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(config.d_model, config.max_length)
        elif config.positions == "learned":
            self.positions = LearnedPositions(config.d_model, config.max_length)
        self.dropout = Dropout(config.dropout)

    def forward(self, ids: Tensor, first: int = 0, positions: Tensor | None = None) -> Tensor:
        """Look up ids (B, T) and add their positions (B, T), all below first + T; by default first, first + 1 ...; returns (B, T, D)."""
        x: Tensor = self.embedding(ids) * self.scale
        if self.positions is not None:
            x = self.positions(x, first, positions)
        return self.dropout(x) if self.training else x
