"""Attention: every query takes a mixture of values, weighted by how well it matches the keys.

The formula is `attention_weights(q, k) @ v`; `attend` computes the same along the fastest path for the shape.
Self-attention, causal self-attention, cross-attention and grouped heads are one module, `Attention`.
This is the only file that builds masks over pairs. Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heed.model.cache import KVCache
from heed.model.linear import build_linear, joint_bias, weight_of
from heed.model.positions import rotate

# In bfloat16, scores up to this many per head are cheaper as two batched products than in torch's fused kernel (heed bench attention);
# beyond, the fused kernel's linear memory wins. In float32 the fused kernel is never slower.
PRODUCTS_UP_TO = {torch.bfloat16: 512 * 512}
# Where several texts stand in a row, a CPU mixes so many queries at a time, with the runs of keys that any of them may look at: of rows of
# 1,024 tokens with texts of 22, a model of four layers and d_model 128 then learns 7,200 tokens a second, and 3,500 with all pairs.
RUN = 64

# q, k, v (B, H, T, E), the mask of the tokens (B, 1, 1, T) or None, and the factor on the scores -> (B, H, T, E)
Mix = Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]


def padding_mask(mask: Tensor) -> Tensor:
    """Let every query look at the real tokens only: (B, S), True = real -> (B, 1, 1, S)."""
    return mask[:, None, None, :]


def causal_mask(n_queries: int, n_keys: int, device: torch.device | None = None) -> Tensor:
    """Let the last `n_queries` of `n_keys` positions look at themselves and all earlier ones: (T, S), True = may look."""
    query_pos = torch.arange(n_keys - n_queries, n_keys, device=device)
    return torch.arange(n_keys, device=device) <= query_pos[:, None]


def same_text_mask(texts: Tensor) -> Tensor:
    """Let every token look at those of its own text only: (B, S), the number of each token's text -> (B, 1, S, S), True = may look."""
    return texts[:, None, :, None] == texts[:, None, None, :]


def attention_weights(
    q: Tensor, k: Tensor, attn_mask: Tensor | None = None, *, bias: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Return how much each query looks at each key: softmax(q k^T * scale + bias) over the allowed keys.

    Args:
        q: (B, H, T, E); k: (B, H, S, E).
        attn_mask: True where a query may look; broadcastable to (B, H, T, S). None means everywhere.
        bias: added to the scores; broadcastable to (B, H, T, S).
        scale: factor on the scores; default 1 / sqrt(E) (Vaswani et al. 2017, eq. 1), 1 leaves them unscaled.
    Returns:
        (B, H, T, S) in float32. A row sums to 1, or is all zero where nothing may be looked at.
    """
    scores = (q @ k.transpose(-1, -2)).float() * _scale(q, scale)
    if bias is not None:
        scores = scores + bias.float()
    if attn_mask is None:
        return scores.softmax(-1)
    weights = scores.masked_fill(~attn_mask, torch.finfo(torch.float32).min).softmax(-1)
    return weights.masked_fill(~attn_mask, 0.0)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Mix the values by how well each query matches the keys (Vaswani et al. 2017, eq. 1).

    Args:
        q: (B, H, T, E); k and v: (B, H', S, E) with H' = H, or a divisor of H whose heads are shared (Ainslie et al. 2023).
        attn_mask: True where a query may look; broadcastable to (B, H, T, S). None means everywhere.
        causal: the queries are the last T of the S positions and look at no later one.
        bias: added to the scores; broadcastable to (B, H, T, S).
        scale: factor on the scores; default 1 / sqrt(E).
    Returns:
        (B, H, T, E). A query that may look nowhere gets zeros.
    """
    if k.size(1) != q.size(1):
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    products = _products_pay(q, k)
    causal = causal and q.size(2) > 1
    if causal and attn_mask is not None and _runs_pay(q, attn_mask):
        return _in_runs(q, k, v, attn_mask & causal_mask(q.size(2), k.size(2), q.device), bias=bias, scale=scale)
    if causal and (products or attn_mask is not None or bias is not None or q.size(2) != k.size(2)):
        allowed = causal_mask(q.size(2), k.size(2), q.device)
        attn_mask = allowed if attn_mask is None else attn_mask & allowed
        causal = False
    blind = None if attn_mask is None else _blind_queries(attn_mask)
    if attn_mask is not None and blind is not None:
        attn_mask = attn_mask | blind  # an empty softmax has neither value nor gradient: let it look, then blank what it saw
    bias = _score_bias(q.dtype, attn_mask, bias)
    if products:
        mixed = _batched_products(q, k, v, bias, _scale(q, scale))
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=causal, scale=_scale(q, scale))
    return mixed if blind is None else mixed.masked_fill(blind, 0.0)


def _scale(q: Tensor, scale: float | None) -> float:
    return q.size(-1) ** -0.5 if scale is None else scale


def _products_pay(q: Tensor, k: Tensor) -> bool:
    return q.device.type == "cpu" and q.size(2) * k.size(2) <= PRODUCTS_UP_TO.get(q.dtype, 0)


def _runs_pay(q: Tensor, attn_mask: Tensor) -> bool:
    """Return whether a mask tells queries apart, as that of several texts in a row does, and there are many of them."""
    return q.device.type == "cpu" and q.size(2) > RUN and attn_mask.dim() > 1 and attn_mask.size(-2) > 1


def _in_runs(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, *, bias: Tensor | None, scale: float | None) -> Tensor:
    """Do what `attend` does, RUN queries at a time, given a mask (..., T, S): pairs of runs that never meet are not computed.

    Keys are divided and joined, not indexed, or the gradient of every run would be as long as the row.
    """
    bias = None if bias is None else bias.expand(*bias.shape[:-2], q.size(2), k.size(2))
    keys, values = torch.split(k, RUN, dim=2), torch.split(v, RUN, dim=2)
    mixed = []
    for first, some in zip(range(0, q.size(2), RUN), torch.split(q, RUN, dim=2), strict=True):
        rows = slice(first, first + RUN)
        begin, end = _seen_runs(attn_mask[..., rows, :])
        columns = slice(begin * RUN, end * RUN)
        near_k, near_v = torch.cat(keys[begin:end], dim=2), torch.cat(values[begin:end], dim=2)
        added = None if bias is None else bias[..., rows, columns]
        mixed.append(attend(some, near_k, near_v, attn_mask[..., rows, columns], bias=added, scale=scale))
    return torch.cat(mixed, dim=2)


def _seen_runs(attn_mask: Tensor) -> tuple[int, int]:
    """Return the first of the runs of keys that some query may look at, and the one behind the last, given a mask (..., T, S)."""
    seen = attn_mask.flatten(0, -2).any(0).nonzero()[:, 0].tolist() or [0]
    return seen[0] // RUN, seen[-1] // RUN + 1


def _blind_queries(attn_mask: Tensor) -> Tensor | None:
    """Find queries that may look nowhere, (..., T, 1); None when a look at the mask is cheap and finds none."""
    sighted = attn_mask.any(-1, keepdim=True)
    if sighted.device.type == "cpu" and bool(sighted.all()):
        return None
    return ~sighted


def _score_bias(dtype: torch.dtype, attn_mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Turn a mask into what is added to the scores: 0 where allowed, the lowest finite number elsewhere."""
    if attn_mask is None:
        return None if bias is None else bias.to(dtype)
    allowed = torch.zeros((), dtype=dtype, device=attn_mask.device) if bias is None else bias.to(dtype)
    return torch.where(attn_mask, allowed, torch.finfo(dtype).min)


def _batched_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    (B, H, T, E), S = q.shape, k.size(2)
    q, k, v = q.reshape(B * H, T, E), k.reshape(B * H, S, E), v.reshape(B * H, S, E)
    start = q.new_zeros(()) if bias is None else bias.expand(B, H, T, S).reshape(B * H, T, S)
    scores = torch.baddbmm(start, q, k.transpose(1, 2), beta=0.0 if bias is None else 1.0, alpha=scale)
    return torch.bmm(scores.softmax(-1), v).view(B, H, T, E)


class Attention(nn.Module):
    """Multi-head attention with its four projections (Vaswani et al. 2017, section 3.2.2).

    Every head sees the whole sequence through its own d_model -> d_head projections of query, key and value.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        scaled: bool = True,
        bias: bool = True,
        unbiased: Collection[str] = (),
        rank: int | None = None,
        adaptive: bool = False,
        mix: Mix | None = None,
    ) -> None:
        """Build the projections.

        Args:
            n_kv_heads: heads of keys and values; a divisor of n_heads, which is the default.
            d_head: features of one head; default d_model / n_heads.
            scaled: divide the scores by sqrt(d_head).
            unbiased: projections that have no bias although others have.
            rank: of the projections; default full.
            adaptive: each head has a factor on its scores that is learned, 1 at the start.
            mix: how all tokens of x look at each other, where that is not attention over all pairs.
        """
        super().__init__()
        if (d_head is None and d_model % n_heads) or n_heads % (n_kv_heads or n_heads):
            raise ValueError(f"n_heads={n_heads} must divide d_model={d_model}, and n_kv_heads={n_kv_heads} must divide n_heads")
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads or n_heads
        self.d_head = d_head = d_head or d_model // n_heads
        self.scale = d_head**-0.5 if scaled else 1.0
        has_bias = {name: bias and name not in unbiased for name in ("query", "key", "value", "output")}
        query = build_linear(d_model, n_heads * d_head, bias=has_bias["query"], rank=rank)
        key, value = (build_linear(d_model, self.n_kv_heads * d_head, bias=has_bias[name], rank=rank) for name in ("key", "value"))
        self.query: nn.Module = query
        self.key, self.value = key, value
        self.output: nn.Module = build_linear(n_heads * d_head, d_model, bias=has_bias["output"], rank=rank)
        self.sharpness = nn.Parameter(torch.zeros(n_heads)) if adaptive else None  # logarithm of the factor
        self.mix = mix
        self.joint: Callable[[Tensor], Tensor] = JointLinear(query, key, value)
        self.source: Callable[[Tensor], Tensor] = JointLinear(key, value)
        self.recorded: list[Tensor] | None = None

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        attn_mask: Tensor | None = None,
        *,
        causal: bool = False,
        bias: Tensor | None = None,
        rotation: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Let the tokens of x look at each other, or at `memory`.

        Args:
            x: (B, T, D), the tokens that ask.
            memory: (B, S, D), the tokens looked at; None means x itself.
            attn_mask: True where a query may look; broadcastable to (B, H, T, S).
            causal: no token looks at a later one.
            bias: added to the scores, for relative positions; broadcastable to (B, H, T, S).
            rotation: rotary positions of the T tokens, applied to queries and keys.
            cache: holds the keys and values of earlier tokens, and is given those of x.
        Returns:
            (B, T, D).
        """
        if memory is None:
            q, k, v = self._split(self.joint(x))
        else:
            k, v = self.keys_values(memory)
            q = self._heads(self.query(x)).to(k.dtype)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            earlier = cache.length
            past = cache.append(k, v)
            if earlier:  # the first tokens attend to each other at full speed, before the cache rounds or widens them
                q, (k, v) = q.to(past[0].dtype), past
        if self.mix is not None and memory is None:
            return self._joined(self.mix(self._sharpened(q), k, v, attn_mask, self.scale))
        return self._mix(q, k, v, attn_mask, causal=causal, bias=bias)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is looked at: (B, S, D) -> keys and values (B, H, S, E)."""
        k, v = self.source(memory).chunk(2, dim=-1)
        return self._heads(k), self._heads(v)

    def look(self, x: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Let x (R, T, D) look at keys and values (B, H, S, E) made earlier; the R / B rows of one source stand side by side."""
        q = self._heads(self.query(x)).to(k.dtype)
        group = q.size(0) // k.size(0)
        if group == 1:
            return self._mix(q, k, v, attn_mask)
        (R, H, T, E) = q.shape
        q = q.view(-1, group, H, T, E).transpose(1, 2).reshape(-1, H, group * T, E)  # the rows of one source as its queries
        mixed = self._mix(q, k, v, attn_mask)  # (B, group * T, D)
        return mixed.reshape(R, T, -1)

    def _split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d_kv = self.n_kv_heads * self.d_head
        q, k, v = torch.split(projected, [self.n_heads * self.d_head, d_kv, d_kv], dim=-1)
        return self._heads(q), self._heads(k), self._heads(v)

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (-1, self.d_head)).transpose(1, 2)  # (B, T, D) -> (B, H, T, E)

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, *, causal: bool = False, bias: Tensor | None = None
    ) -> Tensor:
        q = self._sharpened(q)
        if self.recorded is not None:
            self.recorded.append(self._weights(q, k, attn_mask, causal=causal, bias=bias))
        return self._joined(attend(q, k, v, attn_mask, causal=causal, bias=bias, scale=self.scale))

    def _sharpened(self, q: Tensor) -> Tensor:
        return q if self.sharpness is None else q * self.sharpness.exp().to(q.dtype)[:, None, None]

    def _joined(self, mixed: Tensor) -> Tensor:
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # (B, H, T, E) -> (B, T, D)
        return joined

    def _weights(self, q: Tensor, k: Tensor, attn_mask: Tensor | None, *, causal: bool, bias: Tensor | None) -> Tensor:
        if causal:
            allowed = causal_mask(q.size(2), k.size(2), q.device)
            attn_mask = allowed if attn_mask is None else attn_mask & allowed
        if k.size(1) != q.size(1):
            k = k.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1)
        return attention_weights(q, k, attn_mask, bias=bias, scale=self.scale)


class JointLinear:
    """Applies several linear maps to the same x as one product; owns no parameters."""

    def __init__(self, *linears: nn.Module) -> None:
        self.linears = linears

    def __call__(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., sum of the maps' widths)."""
        if not all(isinstance(linear, nn.Linear) for linear in self.linears):  # thin products are cheaper than the full matrix
            return torch.cat([linear(x) for linear in self.linears], dim=-1)
        weight = torch.cat([weight_of(linear) for linear in self.linears])
        return F.linear(x, weight, joint_bias(self.linears))


@contextmanager
def record_attention(model: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the attention weights of every forward inside the `with` block, without changing what the model computes.

    Yields:
        module name -> one (B, H, T, S) float32 tensor for each time that the module ran; none of modules whose tokens look at each
        other by a `mix` of their own.
    """
    modules = {name: module for name, module in model.named_modules() if isinstance(module, Attention)}
    recorded: dict[str, list[Tensor]] = {name: [] for name in modules}
    for name, module in modules.items():
        module.recorded = recorded[name]
    try:
        yield recorded
    finally:
        for module in modules.values():
            module.recorded = None
