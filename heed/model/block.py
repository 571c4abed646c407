"""The block: attention, (cross-attention,) feed-forward, each with a norm, a residual and dropout; and the stack of them.

By its config alone it is the block of the Transformer of 2017, BERT, GPT-2, Llama, T5, Marian or ViT.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from heed.model.approximations import build_mix
from heed.model.attention import Attention, Mix, padding_mask, same_text_mask
from heed.model.cache import LayerCache
from heed.model.config import ModelConfig
from heed.model.dropout import Dropout
from heed.model.linear import build_linear
from heed.model.positions import RelativeBias, RotaryPositions

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def build_norm(config: ModelConfig) -> nn.Module:
    """Return layer norm (Ba et al. 2016) or RMS norm (Zhang & Sennrich 2019) over d_model."""
    if config.norm == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_epsilon)
    return nn.LayerNorm(config.d_model, eps=config.norm_epsilon, bias=config.bias)


class FeedForward(nn.Module):
    """Two linear maps with a non-linearity between, applied to each position alone (Vaswani et al. 2017, eq. 2).

    `gated` multiplies a second projection into the activation (Shazeer 2020).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        shapes: dict[str, Any] = {
            name: {"bias": config.bias and name not in config.unbiased, "rank": config.weight_rank} for name in ("up", "gate", "down")
        }
        self.up: nn.Module = build_linear(config.d_model, config.d_ff, **shapes["up"])
        self.gate: nn.Module | None = build_linear(config.d_model, config.d_ff, **shapes["gate"]) if config.gated else None
        self.down: nn.Module = build_linear(config.d_ff, config.d_model, **shapes["down"])
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        inner = self.activation(self.up(x)) if self.gate is None else self.activation(self.gate(x)) * self.up(x)
        down: Tensor = self.down(inner)
        return down


def build_attention(config: ModelConfig, *, mix: Mix | None = None) -> Attention:
    """Return an attention layer; `mix` is how the tokens of x look at each other, where not all pairs do."""
    return Attention(
        config.d_model,
        config.n_heads,
        n_kv_heads=config.n_kv_heads,
        d_head=config.d_kv,
        scaled=config.scaled,
        bias=config.bias,
        unbiased=config.unbiased,
        rank=config.weight_rank,
        adaptive=config.adaptive,
        mix=mix,
    )


class Residual(nn.Module):
    """One sub-layer's surroundings: norm before, after, or a gate that opens from zero (ReZero, Bachlechner et al. 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.place = config.norm_place
        self.dropout = Dropout(config.dropout)
        self.norm = build_norm(config) if self.place != "rezero" else None
        self.gate = nn.Parameter(torch.zeros(())) if self.place == "rezero" else None

    def enter(self, x: Tensor) -> Tensor:
        """Return what the sub-layer is given, (B, T, D)."""
        return self.norm(x) if self.norm is not None and self.place == "before" else x

    def leave(self, x: Tensor, change: Tensor) -> Tensor:
        """Add what the sub-layer made of it, (B, T, D)."""
        change = self.dropout(change) if self.training else change
        if self.gate is not None:
            return x + self.gate * change
        return self.norm(x + change) if self.norm is not None and self.place == "after" else x + change


class Block(nn.Module):
    """Self-attention, cross-attention if there is a memory to look at, and feed-forward."""

    def __init__(self, config: ModelConfig, *, causal: bool = False, cross: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.attention = build_attention(config, mix=build_mix(config))
        self.attention_residual = Residual(config)
        self.cross_attention = build_attention(config) if cross else None
        self.cross_residual = Residual(config) if cross else None
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        rotation: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """Pass x (B, T, D) through the block.

        Args:
            attn_mask: which of x's tokens (and cached ones) each may look at; broadcastable to (B, H, T, S).
            memory: (B, S, D), the encoder's output, in a decoder block; not read when the cache holds its keys and values.
            memory_mask: (B, 1, 1, S), True = real.
            bias, rotation: relative and rotary positions.
            cache: of the tokens before x.
        Returns:
            (B, T, D).
        """
        past = None if cache is None else cache.past
        mixed = self.attention(
            self.attention_residual.enter(x), None, attn_mask, causal=self.causal, bias=bias, rotation=rotation, cache=past
        )
        x = self.attention_residual.leave(x, mixed)
        if self.cross_attention is not None and self.cross_residual is not None:
            asked = self.cross_residual.enter(x)
            source = None if cache is None else cache.source
            if source is not None:
                mixed = self.cross_attention.look(asked, *source, memory_mask)
            else:
                mixed = self.cross_attention(asked, memory, memory_mask)
            x = self.cross_residual.leave(x, mixed)
        return self.feed_forward_residual.leave(x, self.feed_forward(self.feed_forward_residual.enter(x)))


def build_blocks(config: ModelConfig, n_layers: int, build: Callable[[], nn.Module]) -> nn.ModuleList:
    """Return the blocks of a stack; with model.share_layers all are one, as in the Universal Transformer (Dehghani et al. 2019)."""
    return nn.ModuleList([build()] * n_layers if config.share_layers else (build() for _ in range(n_layers)))


def _rotary(config: ModelConfig) -> RotaryPositions:
    return RotaryPositions(config.d_head, config.rotary_base, factor=config.rotary_factor, context=config.rotary_context)


class Stack(nn.Module):
    """Blocks one after the other, with what they share: relative and rotary positions, and the last norm."""

    def __init__(self, config: ModelConfig, n_layers: int, *, causal: bool = False, cross: bool = False) -> None:
        super().__init__()
        self.config = config
        self.causal = causal
        self.rotary = _rotary(config) if config.positions == "rotary" else None
        self.relative = RelativeBias(config.n_heads, causal=causal) if config.positions == "relative" else None
        self.blocks = build_blocks(config, n_layers, lambda: Block(config, causal=causal, cross=cross))
        self.norm = build_norm(config) if config.norm_place == "before" else None
        self.recompute = False  # keep only the input of each block for the backward pass, and compute the rest again (Chen et al. 2016)

    def new_caches(self, memory: Tensor | None = None) -> list[LayerCache]:
        """Return an empty cache for each time a block is applied; with a memory (B, S, D), its keys and values are in them."""
        if memory is None:
            return [LayerCache() for _ in self.blocks]
        crossed = [block.cross_attention for block in self.blocks if isinstance(block.cross_attention, Attention)]
        return [LayerCache(source=attention.keys_values(memory)) for attention in crossed]

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        texts: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
    ) -> Tensor:
        """Pass x (B, T, D) through all blocks.

        Args:
            mask: (B, S), True = real, over x and the cached tokens before it; None means all real.
            memory: (B, S', D), looked at by the cross-attention of a decoder.
            memory_mask: (B, S'), True = real.
            positions: (B, T), places of the tokens, read by rotary positions; default those after the cached ones.
            texts: (B, T), the number of the text that each token is of, where texts that do not see each other stand behind one another;
                for attention over all pairs, without caches.
            caches: one per block, of the tokens before x.
        Returns:
            (B, T, D).
        """
        n_past = 0 if caches is None else caches[0].past.length
        attn_mask = None if mask is None else padding_mask(mask)
        if texts is not None:
            attn_mask = same_text_mask(texts) if attn_mask is None else attn_mask & same_text_mask(texts)
        cross_mask = None if memory_mask is None else padding_mask(memory_mask)
        turn = None if self.rotary is None else self.rotary(n_past, n_past + x.size(1), positions, x.device)
        bias = None if self.relative is None else self.relative.of_span(n_past, n_past + x.size(1), x.device)
        for i, block in enumerate(self.blocks):
            if self.recompute and self.training:
                x = checkpoint(block, x, attn_mask, memory, cross_mask, bias=bias, rotation=turn, use_reentrant=False)
                continue
            cache = None if caches is None else caches[i]
            x = block(x, attn_mask, memory, cross_mask, bias=bias, rotation=turn, cache=cache)
        return x if self.norm is None else self.norm(x)
