"""A stack of blocks for answering on a CPU: int8 weights, int8 activations, and few, large operators.

Weights are rounded once, to 255 levels with a step of their own for every output; activations are rounded on the way, with a step of
their own for every row (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339, section 2.1, without its outliers). Sums of products are
exact integers, and everything between two products works row by row, so a row's answer does not depend on the rows beside it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from heed.model import kernels
from heed.model.attention import Attention, attend, padding_mask
from heed.model.block import Block, FeedForward, Residual, Stack
from heed.model.cache import BranchingCache, LayerCache
from heed.model.config import ModelConfig
from heed.model.linear import joint_bias, weight_of
from heed.model.positions import rotate

Array = np.ndarray[Any, Any]
LEVELS = 127  # of int8, on each side of zero
SHORT = 64  # tokens of a sequence up to which a loop over its heads is no slower than torch's attention


class QuantizedLinear(nn.Module):
    """Linear maps of the same input as one, with int8 weights."""

    def __init__(self, *linears: nn.Module) -> None:
        super().__init__()
        weight = torch.cat([weight_of(linear).detach().float() for linear in linears])
        levels, step = round_weights(weight)
        # For a single row the kernel wants an output's weights in one piece; for more, where features are many, those of a feature.
        self.by_output = levels.t()  # (D, F)
        self.by_feature = self.by_output.contiguous() if weight.size(1) > weight.size(0) else self.by_output
        bias = joint_bias(linears)
        self.columns: Array = torch.stack([step, torch.zeros_like(step) if bias is None else bias.detach().float()]).numpy()  # (2, F)
        self.width = weight.size(0)

    def product(self, levels: Tensor, out: Tensor) -> None:
        """Write the integer sums (R, F) of rows of levels (R, D)."""
        if levels.size(1) == 1:  # where torch 2.13 multiplies wrongly
            torch.mul(levels.int(), self.by_output, out=out)
        else:
            torch._int_mm(levels, self.by_output if levels.size(0) == 1 else self.by_feature, out=out)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., F) in float32."""
        rows = x.reshape(-1, x.size(-1)).float().contiguous()
        levels, steps = torch.empty(rows.shape, dtype=torch.int8), np.empty(rows.size(0), np.float32)
        kernels.round_rows(rows.numpy(), levels.numpy(), steps)
        sums = torch.empty(rows.size(0), self.width, dtype=torch.int32)
        self.product(levels, sums)
        return self.expand(sums.numpy(), steps).view(*x.shape[:-1], -1)

    def expand(self, sums: Array, steps: Array) -> Tensor:
        """Turn integer sums (R, F) of rows with these steps (R,) into numbers."""
        out = torch.empty(sums.shape)
        kernels.expand_rows(sums, steps, self.columns, out.numpy())
        return out


def round_weights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a matrix (F, D) to int8 levels, and return them with the step between them in each row (F,)."""
    step = (weight.abs().amax(1) / LEVELS).clamp(min=1e-30)
    return (weight / step[:, None]).round().clamp(-LEVELS, LEVELS).to(torch.int8), step


class Rows:
    """The rows of a batch on their way through a stack: the residual stream, what a sub-layer is given of it, and sums of products."""

    def __init__(self, x: Tensor) -> None:
        self.x = x  # (R, D) in float32, changed in place
        self.state: Array = x.numpy()
        self.steps: Array = np.empty(x.size(0), np.float32)
        self.stores: dict[tuple[int, torch.dtype], tuple[Tensor, Array]] = {}

    def room(self, width: int, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Array]:
        """Return room for so many numbers in every row, as a tensor and as an array; asked for again, it is the same."""
        found = self.stores.get((width, dtype))
        if found is None:
            store = torch.empty(self.x.size(0), width, dtype=dtype)
            found = self.stores[width, dtype] = store, store.numpy()
        return found

    def sums(self, linear: QuantizedLinear, levels: Tensor) -> Array:
        """Return the integer sums (R, F) of levels (R, D)."""
        store, sums = self.room(linear.width, torch.int32)
        linear.product(levels, store)
        return sums


class QuantizedResidual:
    """What stands around a sub-layer: a norm before it, or its output times a gate added to the stream, and a norm after."""

    def __init__(self, residual: Residual) -> None:
        norm = norm_of(residual.norm)
        none = np.empty((0, norm.weights.shape[1]), np.float32)
        self.before = norm.weights if residual.place == "before" else none
        self.after = norm.weights if residual.place == "after" else none
        self.epsilon, self.rms = norm.epsilon, norm.rms
        self.gate = np.float32(1.0 if residual.gate is None else residual.gate.item())

    def enter(self, rows: Rows) -> Tensor:
        """Return the levels (R, D) that the sub-layer is given; their steps go to rows.steps."""
        levels, view = rows.room(rows.state.shape[1])
        kernels.enter(rows.state, self.before, self.epsilon, self.rms, view, rows.steps)
        return levels

    def leave(self, rows: Rows, linear: QuantizedLinear, levels: Tensor) -> None:
        """Add what the sub-layer's last map makes of its levels to the stream."""
        sums = rows.sums(linear, levels)
        kernels.leave(sums, rows.steps, linear.columns, self.gate, self.after, self.epsilon, self.rms, rows.state)


class Norm:
    """Weight and bias of a layer norm or RMS norm, (2, D); (0, 1) for none."""

    def __init__(self, weights: Array, epsilon: float, *, rms: bool) -> None:
        self.weights, self.epsilon, self.rms = weights, np.float32(epsilon), rms


def norm_of(module: nn.Module | None) -> Norm:
    """Return what a norm computes with."""
    if module is None:
        return Norm(np.empty((0, 1), np.float32), 1.0, rms=False)
    weight, bias = module.get_parameter("weight").detach().float(), getattr(module, "bias", None)
    bias = torch.zeros_like(weight) if bias is None else bias.detach().float()
    return Norm(torch.stack([weight, bias]).numpy(), float(module.eps), rms=isinstance(module, nn.RMSNorm))  # type: ignore[arg-type]


class QuantizedAttention:
    """Attention whose four projections are rounded; the mixing itself is in float32."""

    def __init__(self, attention: Attention, residual: Residual, *, cross: bool) -> None:
        self.residual = QuantizedResidual(residual)
        self.entry = QuantizedLinear(attention.query) if cross else QuantizedLinear(attention.query, attention.key, attention.value)
        self.source = QuantizedLinear(attention.key, attention.value) if cross else None
        self.output = QuantizedLinear(attention.output)
        self.n_kv, self.d_head, self.factor = attention.n_kv_heads, attention.d_head, np.float32(attention.scale)
        self.width = attention.n_heads * attention.d_head

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is looked at: (B, S, D) -> keys and values (B, H', S, E)."""
        assert self.source is not None
        k, v = self.source(memory).chunk(2, dim=-1)
        return self.heads(k).contiguous(), self.heads(v).contiguous()

    def heads(self, x: Tensor) -> Tensor:
        """Divide the features: (B, T, F) -> (B, H, T, E)."""
        return torch.unflatten(x, -1, (-1, self.d_head)).transpose(1, 2)

    def step_back(self, rows: Rows, rotation: Array, cache: LayerCache) -> None:
        """Let the newest token of every row look at itself and at all before it."""
        sums = rows.sums(self.entry, self.residual.enter(rows))
        past = cache.past
        assert isinstance(past, BranchingCache)
        keys, values = (store.numpy() for store in past.room_for((rows.x.size(0), self.n_kv, 1, self.d_head), rows.x))
        levels, view = rows.room(self.width)
        arguments = (sums, rows.steps, self.entry.columns, rotation, keys, values, past.trail.numpy(), past.length)
        kernels.look_back(*arguments, self.factor, view, rows.steps)
        past.length += 1
        self.residual.leave(rows, self.output, levels)

    def step_across(self, rows: Rows, source: tuple[Tensor, Tensor], mask: Array) -> None:
        """Let one token of every row look at its source."""
        sums = rows.sums(self.entry, self.residual.enter(rows))
        keys, values = (store.numpy() for store in source)
        levels, view = rows.room(self.width)
        kernels.look_across(sums, rows.steps, self.entry.columns, keys, values, mask, self.factor, view, rows.steps)
        self.residual.leave(rows, self.output, levels)

    def look_around(self, rows: Rows, rotation: Array, mask: Array) -> None:
        """Let all tokens of every sequence look at each other; mask (B, T) or (B, 0), rotation (T, E / 2, 2) or (T, 0, 2)."""
        sums = rows.sums(self.entry, self.residual.enter(rows))
        levels, view = rows.room(self.width)
        arguments = (sums, rows.steps, self.entry.columns, rotation, mask)
        kernels.look_around(*arguments, self.n_kv, self.d_head, self.factor, view, rows.steps)
        self.residual.leave(rows, self.output, levels)

    def look(
        self,
        rows: Rows,
        n_sequences: int,
        attn_mask: Tensor | None,
        *,
        source: tuple[Tensor, Tensor] | None = None,
        causal: bool = False,
        bias: Tensor | None = None,
        rotation: Tensor | None = None,
        cache: LayerCache | None = None,
    ) -> None:
        """Let several tokens of every sequence look at each other, or at keys and values made earlier."""
        sums = rows.sums(self.entry, self.residual.enter(rows))
        projected = self.entry.expand(sums, rows.steps).view(n_sequences, -1, sums.shape[1])
        if source is None:
            d_kv = self.n_kv * self.d_head
            q, k, v = (self.heads(x) for x in torch.split(projected, [self.width, d_kv, d_kv], dim=-1))
            if rotation is not None:
                q, k = rotate(q, rotation), rotate(k, rotation)
            if cache is not None:
                k, v = cache.past.append(k, v)
        else:
            q, (k, v) = self.heads(projected), source
            if q.size(0) != k.size(0):  # several hypotheses of every source
                group = q.size(0) // k.size(0)
                k, v = (x.repeat_interleave(group, dim=0) for x in (k, v))
                attn_mask = None if attn_mask is None else attn_mask.repeat_interleave(group, dim=0)
        mixed = attend(q, k, v, attn_mask, causal=causal, bias=bias, scale=float(self.factor))
        levels, view = rows.room(self.width)
        kernels.round_rows(mixed.transpose(1, 2).reshape(-1, self.width).numpy(), view, rows.steps)
        self.residual.leave(rows, self.output, levels)


class QuantizedFeedForward:
    """A feed-forward whose maps are rounded."""

    def __init__(self, feed_forward: FeedForward, residual: Residual, activation: str) -> None:
        self.residual = QuantizedResidual(residual)
        self.gated = feed_forward.gate is not None
        self.up = QuantizedLinear(feed_forward.up, *([] if feed_forward.gate is None else [feed_forward.gate]))
        self.down = QuantizedLinear(feed_forward.down)
        self.width = self.down.by_output.size(0)
        self.code = kernels.ACTIVATION_CODES[activation]

    def __call__(self, rows: Rows) -> None:
        """Apply it to every row."""
        sums = rows.sums(self.up, self.residual.enter(rows))
        levels, view = rows.room(self.width)
        kernels.activate(sums, rows.steps, self.up.columns, self.code, self.gated, view, rows.steps)
        self.residual.leave(rows, self.down, levels)


class QuantizedBlock:
    """Self-attention, cross-attention if there is a memory to look at, and feed-forward."""

    def __init__(self, block: Block, activation: str) -> None:
        self.attention = QuantizedAttention(block.attention, block.attention_residual, cross=False)
        self.cross_attention = None
        if block.cross_attention is not None and block.cross_residual is not None:
            self.cross_attention = QuantizedAttention(block.cross_attention, block.cross_residual, cross=True)
        self.feed_forward = QuantizedFeedForward(block.feed_forward, block.feed_forward_residual, activation)


class QuantizedStack(nn.Module):
    """A stack whose products are int8; to its callers a `Stack`, for answering only."""

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        activation = stack.config.activation
        self.causal, self.rotary, self.relative = stack.causal, stack.rotary, stack.relative
        quantized = {block: QuantizedBlock(block, activation) for block in stack.blocks if isinstance(block, Block)}
        self.blocks = [quantized[block] for block in stack.blocks if isinstance(block, Block)]
        self.norm = norm_of(stack.norm)

    @staticmethod
    def knows(config: ModelConfig) -> bool:
        """Return whether stacks of such a model have this form."""
        return config.mixer == "attention" and config.attention == "full" and not config.adaptive

    def new_caches(self, memory: Tensor | None = None) -> list[LayerCache]:
        """Return an empty cache for each block; with a memory (B, S, D), its keys and values are in them."""
        caches: list[LayerCache] = []
        for block in self.blocks:
            first = caches[0].past if caches else None
            assert first is None or isinstance(first, BranchingCache)
            source = None if memory is None or block.cross_attention is None else block.cross_attention.keys_values(memory)
            caches.append(LayerCache(BranchingCache(first), source))
        return caches

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
    ) -> Tensor:
        """Pass x (B, T, D) through all blocks, as `Stack.forward` does."""
        B, T, D = x.shape
        rows = Rows(x.reshape(B * T, D).to(torch.float32, copy=True))
        alike = mask is None and self.relative is None  # nothing differs between rows but their content
        if caches is not None and T == 1 and alike:
            self._step(rows, memory_mask, caches)
        elif caches is None and T <= SHORT and not self.causal and self.relative is None and positions is None:
            self._look_around(rows, B, mask)
        else:
            self._read(rows, x.shape, mask, memory=memory, memory_mask=memory_mask, positions=positions, caches=caches)
        if self.norm.weights.shape[0]:
            kernels.normalise(rows.state, self.norm.weights, self.norm.epsilon, self.norm.rms)
        return rows.x.view(B, T, D)

    def _rotation(self, first: int, end: int) -> Array:
        """Return cosine and sine of the places first ... end - 1 for each pair of features, (T, E / 2, 2); (T, 0, 2) for none."""
        if self.rotary is None:
            return np.empty((end - first, 0, 2), np.float32)
        turn: Array = torch.view_as_real(self.rotary(first, end, None, torch.device("cpu"))).numpy()
        return turn

    def _step(self, rows: Rows, memory_mask: Tensor | None, caches: Sequence[LayerCache]) -> None:
        """Add one token to every row."""
        place = caches[0].past.length
        rotation = self._rotation(place, place + 1)[0]
        for block, cache in zip(self.blocks, caches, strict=True):
            block.attention.step_back(rows, rotation, cache)
            if block.cross_attention is not None and cache.source is not None:
                mask = np.empty((cache.source[0].size(0), 0), np.bool_) if memory_mask is None else memory_mask.numpy()
                block.cross_attention.step_across(rows, cache.source, mask)
            block.feed_forward(rows)

    def _look_around(self, rows: Rows, n_sequences: int, mask: Tensor | None) -> None:
        """Pass short sequences whose tokens all see each other."""
        rotation = self._rotation(0, rows.x.size(0) // n_sequences)
        real = np.empty((n_sequences, 0), np.bool_) if mask is None else mask.numpy()
        for block in self.blocks:
            block.attention.look_around(rows, rotation, real)
            block.feed_forward(rows)

    def _read(
        self,
        rows: Rows,
        shape: torch.Size,
        mask: Tensor | None,
        *,
        memory: Tensor | None,
        memory_mask: Tensor | None,
        positions: Tensor | None,
        caches: Sequence[LayerCache] | None,
    ) -> None:
        """Pass any tokens, with torch's attention."""
        B, T = shape[:2]
        n_past = 0 if caches is None else caches[0].past.length
        attn_mask = None if mask is None else padding_mask(mask)
        cross_mask = None if memory_mask is None else padding_mask(memory_mask)
        turn = None if self.rotary is None else self.rotary(n_past, n_past + T, positions, rows.x.device)
        bias = None if self.relative is None else self.relative.of_span(n_past, n_past + T, rows.x.device)
        for i, block in enumerate(self.blocks):
            cache = None if caches is None else caches[i]
            block.attention.look(rows, B, attn_mask, causal=self.causal, bias=bias, rotation=turn, cache=cache)
            if block.cross_attention is not None:
                source = None if cache is None else cache.source
                if source is None and memory is not None:
                    source = block.cross_attention.keys_values(memory)
                block.cross_attention.look(rows, B, cross_mask, source=source)
            block.feed_forward(rows)
