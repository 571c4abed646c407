"""What a decoder remembers between steps: keys and values of the tokens so far, and of the source.

Caches are allocated once and grow by doubling, so a step writes one row and never copies the past.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


class KVCache:
    """Keys and values of all tokens so far, for one attention layer.

    On a CPU they are kept in float32, in which the products of a single query are faster than in bfloat16.
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None  # (R, H, capacity, E)
        self.values: Tensor | None = None
        self.length = 0

    @property
    def n_rows(self) -> int:
        """Rows that are remembered, R."""
        return 0 if self.keys is None else self.keys.size(0)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of new tokens (R, H, T, E) and return those of all tokens so far (R, H, S, E)."""
        end = self.length + k.size(2)
        keys, values = self.room_for(k.shape, k)
        keys[:, :, self.length : end] = k
        values[:, :, self.length : end] = v
        self.length = end
        return keys[:, :, :end], values[:, :, :end]

    def room_for(self, shape: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stores (R, H, capacity, E) with room behind the first `length` places for new tokens of this shape (R, H, T, E)."""
        if self.keys is None or self.values is None or self.keys.size(2) < self.length + shape[2]:
            self.keys, self.values = self._grown(self.keys, shape, like), self._grown(self.values, shape, like)
        return self.keys, self.values

    def _grown(self, store: Tensor | None, shape: Sequence[int], like: Tensor) -> Tensor:
        dtype = torch.float32 if like.dtype == torch.bfloat16 and like.device.type == "cpu" else like.dtype
        R, H, T, E = shape
        grown = like.new_empty(R if store is None else store.size(0), H, max(16, 2 * (self.length + T)), E, dtype=dtype)
        if store is not None:
            grown[:, :, : self.length] = store[:, :, : self.length]
        return grown

    def select(self, rows: Tensor) -> None:
        """Keep the given rows (R',), in that order; a row may be repeated."""
        if self.keys is not None and self.values is not None:
            self.keys = _selected(self.keys, rows, self.length)
            self.values = _selected(self.values, rows, self.length)


def _selected(store: Tensor, rows: Tensor, length: int) -> Tensor:
    """Copy rows of a store, of their places only those written; no gradient is kept."""
    chosen = store.new_empty(rows.numel(), *store.shape[1:])
    torch.index_select(store.detach()[:, :, :length], 0, rows, out=chosen[:, :, :length])
    return chosen


class BranchingCache(KVCache):
    """Keys and values of hypotheses that branch: none is copied when a beam is reordered.

    A token's key and value stay in the row where they were written; `trail` says for every hypothesis in which row each of its tokens
    lies. Places from `length` on are its own row, where its next token will lie. The layers of a stack share one trail, the first's.
    """

    def __init__(self, first: BranchingCache | None = None) -> None:
        """Start without tokens; `first` is the cache of the stack's first layer, None for that itself."""
        super().__init__()
        self._first = first
        self._others: list[weakref.ref[BranchingCache]] = []  # of the first; weak, so that a batch's memory is free when it is answered
        self._trail = torch.empty(0, 0, dtype=torch.long)
        if first is not None:
            first._others.append(weakref.ref(self))

    @property
    def trail(self) -> Tensor:
        """In which row each token of a hypothesis lies, (R, capacity)."""
        return self._trail if self._first is None else self._first._trail

    @property
    def n_rows(self) -> int:
        """Hypotheses; there may be more rows in the stores."""
        return self.trail.size(0)

    def room_for(self, shape: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stores with room for new tokens, as `KVCache.room_for`; the trail reaches as far."""
        stores = super().room_for(shape, like)
        if self._first is None and self.trail.size(1) < stores[0].size(2):
            own_rows = torch.arange(shape[0])[:, None].repeat(1, stores[0].size(2) - self.length)
            self._trail = torch.cat([self.trail[:, : self.length], own_rows], dim=1) if self.length else own_rows
        return stores

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of new tokens (R, H, T, E) and return those of all tokens so far (R, H, S, E)."""
        if self._first is None and self.length:
            self._gather(torch.arange(self.n_rows))
        return super().append(k, v)

    def select(self, rows: Tensor) -> None:
        """Continue with the given hypotheses (R',), in that order; one may be repeated. The first layer does it for all."""
        if self.keys is None or self._first is not None:
            return
        if rows.numel() > self.keys.size(0):
            self._gather(rows)
            return
        self._trail = self.trail[rows]
        self._trail[:, self.length :] = torch.arange(rows.numel())[:, None]

    def _gather(self, rows: Tensor) -> None:
        """Copy the tokens of some hypotheses (R',) into rows of their own, in all layers."""
        trail, places = self.trail[rows, : self.length], torch.arange(self.length)

        def gathered(store: Tensor | None) -> Tensor | None:
            if store is None:
                return None
            chosen = store.new_empty(rows.numel(), *store.shape[1:])
            chosen[:, :, : self.length] = store[trail, :, places].movedim(1, 2)  # (R', length, H, E) -> (R', H, length, E)
            return chosen

        for layer in (self, *(other() for other in self._others)):
            if layer is not None:
                layer.keys, layer.values = gathered(layer.keys), gathered(layer.values)
        self._trail = torch.arange(rows.numel())[:, None].repeat(1, self.trail.size(1))


@dataclass
class LayerCache:
    """The memory of one decoder block: its own past, and the source's keys and values (B, H, S, E)."""

    past: KVCache = field(default_factory=KVCache)
    source: tuple[Tensor, Tensor] | None = None


@dataclass
class DecoderState:
    """Everything `model.step` needs to continue R = B x group rows.

    The rows of one source stand side by side and share its keys and values, which are stored once per source.
    """

    layers: list[LayerCache]
    source_mask: Tensor | None = None  # (B, S), True = real
    prefix_mask: Tensor | None = None  # (R, P), True = real: prompts of unequal length, padded on the left
    whole: bool = False  # nothing in the source is padding, so its mask need not be looked at
    group: int = 1
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Continue with the given old rows (R',): after a beam was reordered or finished sources have left.

        Rows of one source must stay side by side, `group` of them each.
        """
        for layer in self.layers:
            layer.past.select(rows)
        if self.prefix_mask is not None:
            self.prefix_mask = self.prefix_mask[rows]
        self._select_sources(rows[:: self.group] // self.group)

    def expand(self, group: int) -> None:
        """Repeat every row `group` times, side by side; the source's keys and values are not copied."""
        n_rows = self.n_rows
        rows = torch.arange(n_rows, device=self.device).repeat_interleave(group)
        for layer in self.layers:
            layer.past.select(rows)
        if self.prefix_mask is not None:
            self.prefix_mask = self.prefix_mask[rows]
        self.group *= group

    @property
    def n_rows(self) -> int:
        """Rows being decoded, R."""
        if self.layers[0].past.keys is not None:
            return self.layers[0].past.n_rows
        if self.source_mask is not None:
            return self.source_mask.size(0) * self.group
        return 0 if self.prefix_mask is None else self.prefix_mask.size(0)

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        for tensor in (self.source_mask, self.prefix_mask, self.layers[0].past.keys):
            if tensor is not None:
                return tensor.device
        return torch.device("cpu")

    def _select_sources(self, sources: Tensor) -> None:
        if self.source_mask is None or _is_identity(sources, self.source_mask.size(0)):
            return
        self.source_mask = self.source_mask[sources]
        for layer in self.layers:
            if layer.source is not None:
                k, v = layer.source
                layer.source = k[sources], v[sources]


def _is_identity(rows: Tensor, n: int) -> bool:
    return rows.numel() == n and bool((rows == torch.arange(n, device=rows.device)).all())
