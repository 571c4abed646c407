"""What a decoder remembers between steps: keys and values of the tokens so far, and of the source.

Caches are allocated once and grow by doubling, so a step writes one row and never copies the past.
"""

from __future__ import annotations

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

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of new tokens (R, H, T, E) and return those of all tokens so far (R, H, S, E)."""
        end = self.length + k.size(2)
        self.keys = self._room(self.keys, k, end)
        self.values = self._room(self.values, v, end)
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _room(self, store: Tensor | None, new: Tensor, end: int) -> Tensor:
        if store is not None and store.size(2) >= end:
            return store
        dtype = torch.float32 if new.dtype == torch.bfloat16 and new.device.type == "cpu" else new.dtype
        grown = new.new_empty(new.size(0), new.size(1), max(16, 2 * end), new.size(3), dtype=dtype)
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
        keys = self.layers[0].past.keys
        if keys is not None:
            return keys.size(0)
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
