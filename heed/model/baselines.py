"""What Transformers are compared with, on the same contract (x, mask) -> x: convolutions, bidirectional LSTMs, and a hybrid.

Norms, residuals and dropout are those of the Transformer's block, so that only what mixes the tokens differs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from heed.model.block import ACTIVATIONS, Block, Residual, Stack, build_blocks, build_norm
from heed.model.config import ModelConfig
from heed.model.conformer import ConformerBlock


class Convolution(nn.Module):
    """Two convolutions over neighbouring tokens with a non-linearity between; padding counts as zeros."""

    def __init__(self, config: ModelConfig, n_convolutions: int) -> None:
        super().__init__()
        D, k = config.d_model, config.kernel_size
        self.layers = nn.ModuleList(nn.Conv1d(D, D, k, padding=k // 2, bias=config.bias) for _ in range(n_convolutions))
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, T, D) to (B, T, D); mask (B, T), True = real."""
        for i, layer in enumerate(self.layers):
            x = self.activation(x) if i else x
            x = x if mask is None else x * mask[..., None]
            x = layer(x.transpose(1, 2)).transpose(1, 2)
        return x


class BidirectionalLSTM(nn.Module):
    """An LSTM from the left and one from the right, of half the width each (Hochreiter & Schmidhuber 1997)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.d_model, config.d_model // 2, batch_first=True, bidirectional=True, bias=config.bias)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, T, D) to (B, T, D); mask (B, T), True = real, on the left."""
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 loses what hundreds of steps add up
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            if mask is None:
                mixed: Tensor = self.lstm(wide)[0]
                return mixed
            lengths = mask.sum(1).clamp(min=1).cpu()
            packed = pack_padded_sequence(wide, lengths, batch_first=True, enforce_sorted=False)
            mixed, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.size(1))
            return mixed


class MixingBlock(nn.Module):
    """One of these in the surroundings of a sub-layer; the hybrid's is followed by the Transformer's block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.residual = Residual(config)
        self.mixer = BidirectionalLSTM(config) if config.mixer == "lstm" else Convolution(config, 1 if config.mixer == "hybrid" else 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, T, D) to (B, T, D); mask (B, T), True = real."""
        return self.residual.leave(x, self.mixer(self.residual.enter(x), mask))


class BaselineStack(nn.Module):
    """Convolutional or recurrent blocks one after the other, and the last norm."""

    def __init__(self, config: ModelConfig, n_layers: int) -> None:
        super().__init__()
        self.config = config
        self.blocks = build_blocks(config, n_layers, lambda: MixingBlock(config))
        self.norm = build_norm(config) if config.norm_place == "before" else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pass x (B, T, D) with its mask (B, T), True = real, through all blocks."""
        for block in self.blocks:
            x = block(x, mask)
        return x if self.norm is None else self.norm(x)


class HybridBlock(nn.Module):
    """A convolution for what is near, then attention for what is far, then the feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.near = MixingBlock(config)
        self.far = Block(config)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, *others: Any, **more: Any) -> Tensor:
        """Map (B, T, D) to (B, T, D), as `Block.forward` does."""
        mask = None if attn_mask is None else attn_mask[:, 0, 0]
        mixed: Tensor = self.far(self.near(x, mask), attn_mask, *others, **more)
        return mixed


def build_stack(config: ModelConfig, n_layers: int) -> Stack | BaselineStack:
    """Return the stack of an encoder, of the kind `model.mixer` names."""
    if config.mixer in ("convolution", "lstm"):
        return BaselineStack(config, n_layers)
    if config.mixer == "conformer":
        stack = Stack(config, 0)
        stack.blocks = build_blocks(config, n_layers, lambda: ConformerBlock(config))
        return stack
    stack = Stack(config, n_layers)
    if config.mixer == "hybrid":
        stack.blocks = build_blocks(config, n_layers, lambda: HybridBlock(config))
    return stack
