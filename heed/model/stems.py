"""Stems: what turns a modality into `(x: (B, S, D), mask: (B, S))`. Behind them no layer knows what the data was."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.block import ACTIVATIONS, build_norm
from heed.model.config import ModelConfig
from heed.model.dropout import Dropout
from heed.model.positions import LearnedPositions, SinusoidalPositions

PAD = 0
END = 2  # the id that ends a sentence, or a part of a text
CHANNELS = 32  # of convolutions over time and frequency; the 64 of Dong et al. take three to four times as long, as long as a whole block


def build_positions(config: ModelConfig, *, of_source: bool = False) -> nn.Module | None:
    """Return what adds positions to embeddings, or to a source's; None where order is known otherwise, or not at all."""
    if config.positions in ("sinusoidal", "sinusoidal_halves"):
        return SinusoidalPositions(config.d_model, config.max_length, halves=config.positions == "sinusoidal_halves")
    if config.positions != "learned":
        return None
    if of_source and config.max_source_length is not None:
        return LearnedPositions(config.d_model, config.max_source_length, config.first_position, setting="max_source_length")
    return LearnedPositions(config.d_model, config.max_length, config.first_position)


def segments(ids: Tensor, n_segments: int) -> Tensor:
    """Number the parts of every row of ids (B, T), each ended by END: those behind the last count as the last; returns (B, T)."""
    ends = (ids == END).long()
    return (ends.cumsum(-1) - ends).clamp(max=n_segments - 1)


class TokenStem(nn.Module):
    """Token ids -> embeddings with positions. The row of the padding id starts at zero and the look-up never trains it.

    With model.n_segments, what tells the parts of a text apart is added too (Devlin et al. 2019, figure 2).
    """

    def __init__(self, config: ModelConfig, vocab_size: int, *, of_source: bool = False) -> None:
        super().__init__()
        width = config.d_embedding or config.d_model
        self.embedding = nn.Embedding(vocab_size, width, padding_idx=PAD)
        self.embedding.weight.requires_grad_(not config.frozen_embedding)
        self.widen = nn.Linear(width, config.d_model, bias=False) if width != config.d_model else None
        self.scale = math.sqrt(config.d_model) if config.embedding_scale else 1.0
        self.segments = None if config.n_segments is None else nn.Embedding(config.n_segments, config.d_model)
        self.positions = build_positions(config, of_source=of_source)
        self.norm = build_norm(config) if config.embedding_norm else None
        self.dropout = Dropout(config.dropout)

    def forward(self, ids: Tensor, first: int = 0, positions: Tensor | None = None) -> Tensor:
        """Look up ids (B, T) and add their positions (B, T), all below first + T; by default first, first + 1 ...; returns (B, T, D)."""
        x: Tensor = self.embedding(ids) * self.scale
        if self.widen is not None:
            x = self.widen(x)
        if self.segments is not None:
            x = x + self.segments(segments(ids, self.segments.num_embeddings))
        if self.positions is not None:
            x = self.positions(x, first, positions)
        if self.norm is not None:
            x = self.norm(x)
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
        self.layers, self.output = self.build(config, n_features)
        self.activation = ACTIVATIONS[config.activation]
        self.positions = build_positions(config, of_source=True)
        self.dropout = Dropout(config.dropout)
        for layer in self.layers:  # keeps the size of its input through the non-linearity (He et al. 2015)
            nn.init.kaiming_uniform_(layer.get_parameter("weight"), nonlinearity="relu")

    def build(self, config: ModelConfig, n_features: int) -> tuple[nn.ModuleList, nn.Module | None]:
        """Return the convolutions and the map behind them, if there is one."""
        n_halvings = config.subsampling.bit_length() - 1
        channels = [1, *[min(CHANNELS, config.d_model)] * n_halvings]
        padding = (2 if self.causal else 1, 1)  # torch pads both ends: a causal layer has one place too many at its end
        layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=padding, bias=config.bias) for before, after in pairwise(channels)
        )
        n_bands = -(-n_features // config.subsampling)
        return layers, nn.Linear(channels[-1] * n_bands, config.d_model, bias=config.bias)

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
        assert self.output is not None
        heard: Tensor = self.output(x.transpose(1, 2).flatten(2))
        return _wide(heard)

    def shortened(self, mask: Tensor) -> Tensor:
        """Return which places are real: (B, T), True = real frame -> (B, S)."""
        return mask[:, :: self.subsampling].contiguous()


class TimeStem(AudioStem):
    """Frames of audio -> half as many vectors: two convolutions over time alone, the second with stride 2 (Radford et al. 2023)."""

    def build(self, config: ModelConfig, n_features: int) -> tuple[nn.ModuleList, nn.Module | None]:
        """Return the convolutions, whose channels are features at first and then the width of the stream."""
        D = config.d_model
        first = nn.Conv1d(n_features, D, 3, padding=1, bias=config.bias)
        return nn.ModuleList([first, nn.Conv1d(D, D, 3, stride=2, padding=1, bias=config.bias)]), None

    def heard(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn frames (B, T, F) into vectors (B, T / 2, D) without positions, in float32 whatever the type of the products."""
        x = features.transpose(1, 2)  # (B, F, T)
        for layer in self.layers:
            x = F.gelu(layer(x if mask is None else x * mask[:, None]))  # (B, D, T), then (B, D, T / 2)
        return _wide(x.transpose(1, 2))


def build_audio_stem(config: ModelConfig, n_features: int) -> AudioStem:
    """Return the stem that `model.audio_stem` names."""
    return TimeStem(config, n_features) if config.audio_stem == "frames1d" else AudioStem(config, n_features)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
