"""Stems: what turns a modality into `(x: (B, S, D), mask: (B, S))`. Behind them no layer knows what the data was."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from heed.model.block import ACTIVATIONS
from heed.model.config import ModelConfig
from heed.model.dropout import Dropout
from heed.model.positions import LearnedPositions, SinusoidalPositions

PAD = 0
CHANNELS = 32  # of convolutions over time and frequency; the 64 of Dong et al. take three to four times as long, as long as a whole block


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


class AudioStem(nn.Module):
    """Frames of audio -> fewer vectors, with positions: convolutions with stride 2 over time and frequency (Dong et al. 2018).

    Each halves the number of frames, rounded up, so that T frames become exactly ceil(T / subsampling) places. The place s sees frames up
    to s * subsampling and, unless attention is chunked and nothing may be seen of what comes later, subsampling - 1 more.
    """

    def __init__(self, config: ModelConfig, n_features: int) -> None:
        super().__init__()
        self.subsampling = config.subsampling
        self.causal = config.attention == "chunked"
        n_halvings = config.subsampling.bit_length() - 1
        channels = [1, *[min(CHANNELS, config.d_model)] * n_halvings]
        padding = (2 if self.causal else 1, 1)  # torch pads both ends: a causal layer has one place too many at its end
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=padding, bias=config.bias) for before, after in pairwise(channels)
        )
        self.activation = ACTIVATIONS[config.activation]
        n_bands = -(-n_features // config.subsampling)
        self.output: nn.Module = nn.Linear(channels[-1] * n_bands, config.d_model, bias=config.bias)
        self.positions = build_positions(config)
        self.dropout = Dropout(config.dropout)
        for layer in self.layers:  # keeps the size of its input through the non-linearity (He et al. 2015)
            nn.init.kaiming_uniform_(layer.get_parameter("weight"), nonlinearity="relu")

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn frames (B, T, F) with their mask (B, T), True = real, into vectors (B, S, D) whose mask is `shortened(mask)`."""
        x = self.heard(features, mask)
        if self.positions is not None:
            x = self.positions(x)
        return self.dropout(x) if self.training else x

    def heard(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn frames (B, T, F) into vectors (B, S, D) without positions, in float32 whatever the type of the products."""
        x = features[:, None]  # (B, 1, T, F)
        for layer in self.layers:
            if mask is not None:
                x, mask = x * mask[:, None, :, None], mask[:, ::2]
            x = self.activation(layer(x))  # (B, C, T / 2, F / 2)
            x = x[:, :, :-1] if self.causal else x
        heard: Tensor = self.output(x.transpose(1, 2).flatten(2))
        return heard.to(torch.promote_types(heard.dtype, torch.float32))

    def shortened(self, mask: Tensor) -> Tensor:
        """Return which places are real: (B, T), True = real frame -> (B, S)."""
        return mask[:, :: self.subsampling].contiguous()
