"""The Conformer's block: attention for what is far, then a convolution for what is near, between two half-steps of feed-forward.

Source: Gulati et al. 2020, https://arxiv.org/abs/2005.08100. Three things differ. A layer norm stands where the paper has a batch norm: a
batch norm would let the rows of a padded batch change each other, and would need other statistics for a stream than for training.
There is one norm behind all blocks rather than one behind each, so that a path without any leads to every block: six blocks on AN4
learn nothing but the frequencies of letters in their first 200 updates otherwise (CTC loss 3.0 a letter, against 1.6).
Positions are those of the other blocks (rotary by default) rather than Transformer-XL's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.approximations import build_mix
from heed.model.block import FeedForward, Residual, build_attention, build_norm
from heed.model.cache import LayerCache
from heed.model.config import ModelConfig

HALF = 0.5  # of what a feed-forward says is added: "half-step" (Gulati et al. 2020, eq. 1)


@dataclass
class ConformerCache(LayerCache):
    """The memory of one block over a stream: keys and values, and the last places (B, k - 1, D) that its convolution was given."""

    near: Tensor | None = None


class ConvolutionModule(nn.Module):
    """A gated map, a convolution over time of each feature alone, norm, SiLU, and a map (Gulati et al. 2020, figure 2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, k = config.d_model, config.kernel_size
        self.causal = config.attention == "chunked"
        self.reach = k - 1
        self.enter: nn.Module = nn.Linear(D, 2 * D, bias=config.bias)
        # Over (B, T, D) seen as a picture of T lines with D channels, which has to be copied nowhere. On a CPU, forward and backward
        # of (16, 200, 256) with k = 15 take 9 ms in float32 and 10 in bfloat16; torch's conv1d takes 24 and 26, sums of shifted
        # copies 30 and 48, unfolded windows 190 and 120.
        self.depthwise = nn.Conv2d(D, D, (k, 1), groups=D, padding=(0 if self.causal else k // 2, 0), bias=config.bias)
        self.norm = build_norm(config)
        self.leave: nn.Module = nn.Linear(D, D, bias=config.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: ConformerCache | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D); mask (B, T), True = real; the cache is of the places before x, and is given those of x."""
        dtype = self.depthwise.weight.dtype
        inner = F.glu(self.enter(x), dim=-1).to(dtype)
        inner = inner if mask is None else inner * mask[..., None]
        inner = self._after_earlier(inner, cache) if self.causal else inner
        inner = self.depthwise(inner.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
        left: Tensor = self.leave(F.silu(self.norm(inner.to(dtype))))
        return left

    def _after_earlier(self, x: Tensor, cache: ConformerCache | None) -> Tensor:
        """Put the k - 1 places before x (B, T, D) in front of it, zeros where nothing was: (B, k - 1 + T, D)."""
        if cache is None:
            return F.pad(x, (0, 0, self.reach, 0))
        near = x.new_zeros(x.size(0), self.reach, x.size(2)) if cache.near is None else cache.near
        x = torch.cat([near, x], dim=1)
        cache.near = x[:, x.size(1) - self.reach :].clone()
        return x


class ConformerBlock(nn.Module):
    """Half a feed-forward, self-attention, convolution, half a feed-forward, each with a norm before it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.first_feed_forward = FeedForward(config)
        self.first_residual = Residual(config)
        self.attention = build_attention(config, mix=build_mix(config))
        self.attention_residual = Residual(config)
        self.convolution = ConvolutionModule(config)
        self.convolution_residual = Residual(config)
        self.last_feed_forward = FeedForward(config)
        self.last_residual = Residual(config)

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        bias: Tensor | None = None,
        rotation: Tensor | None = None,
        cache: ConformerCache | None = None,
    ) -> Tensor:
        """Map (B, T, D) to (B, T, D), as `Block.forward` does; there is no memory to look at.

        Args:
            attn_mask: (B, 1, 1, S), True = real, over x and the cached places before it.
        """
        mask = None if attn_mask is None else attn_mask[:, 0, 0, -x.size(1) :]
        past = None if cache is None else cache.past
        x = self._half_step(x, self.first_feed_forward, self.first_residual)
        mixed = self.attention(self.attention_residual.enter(x), None, attn_mask, bias=bias, rotation=rotation, cache=past)
        x = self.attention_residual.leave(x, mixed)
        x = self.convolution_residual.leave(x, self.convolution(self.convolution_residual.enter(x), mask, cache))
        return self._half_step(x, self.last_feed_forward, self.last_residual)

    def _half_step(self, x: Tensor, feed_forward: nn.Module, residual: Residual) -> Tensor:
        return residual.leave(x, HALF * feed_forward(residual.enter(x)))
