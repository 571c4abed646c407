"""Heads: what turns the last hidden vectors into scores."""

import torch.nn.functional as F
from torch import Tensor, nn


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
