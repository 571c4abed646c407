"""Batch: examples laid side by side, padded and masked; and `collate`, the one place where anything is padded."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from heed.data.store import Encoded


class Batch:
    """Tensors by key, (B, L, ...) padded with 0 or (B,) scalars; `mask(key)` is (B, L), True = real."""

    def __init__(self, tensors: dict[str, Tensor], masks: dict[str, Tensor], rows: list[int] | None = None) -> None:
        self.tensors = tensors
        self.masks = masks
        self.rows = rows or []  # which rows of the data these are, for messages

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def __len__(self) -> int:
        return next(iter(self.tensors.values())).size(0)

    def mask(self, key: str) -> Tensor:
        """Return which places of a sequence are real, (B, L)."""
        return self.masks[key]

    def to(self, device: torch.device) -> Self:
        """Move everything to a device."""
        if device.type == "cpu":
            return self
        move: dict[str, Any] = {"device": device, "non_blocking": True}
        tensors = {key: value.to(**move) for key, value in self.tensors.items()}
        return type(self)(tensors, {key: value.to(**move) for key, value in self.masks.items()}, self.rows)

    @property
    def n_tokens(self) -> int:
        """Real places over all sequences."""
        return sum(int(mask.sum()) for mask in self.masks.values())

    @property
    def n_padded(self) -> int:
        """Places over all sequences, padding included."""
        return sum(mask.numel() for mask in self.masks.values())


def collate(examples: Sequence[Encoded], rows: Sequence[int] | None = None) -> Batch:
    """Lay encoded examples side by side: scalars are stacked, sequences padded with 0 to the longest."""
    tensors, masks = {}, {}
    for key, first in examples[0].items():
        values = [example[key] for example in examples]
        if first.dim() == 0:
            tensors[key] = torch.stack(values)
        else:
            tensors[key], masks[key] = _pad(values)
    return Batch(tensors, masks, list(rows or []))


def _pad(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([value.size(0) for value in values])
    longest = int(lengths.max())
    padded = values[0].new_zeros(len(values), longest, *values[0].shape[1:])
    for row, value in zip(padded, values, strict=True):
        row[: value.size(0)] = value
    return padded, torch.arange(longest) < lengths[:, None]
