"""Batch: examples laid side by side, padded and masked; and `collate`, the one place where anything is padded."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from heed.data.store import Encoded


class Batch:
    """Tensors by key, (B, L, ...) padded with 0 or (B,) scalars; `mask(key)` is (B, L), True = real."""

    def __init__(self, tensors: dict[str, Tensor], masks: dict[str, Tensor], rows: Sequence[int] = ()) -> None:
        self.tensors = tensors
        self.masks = masks
        self.rows = [int(row) for row in rows]  # which rows of the data these are, for messages

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
        if all(value.device == device for value in [*self.tensors.values(), *self.masks.values()]):
            return self
        move: dict[str, Any] = {"device": device, "non_blocking": device.type != "cpu"}  # on a CPU it would be read before it is there
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


def collate(examples: Sequence[Encoded], rows: Sequence[int] = ()) -> Batch:
    """Lay encoded examples side by side: scalars are stacked, sequences padded with 0 to the longest.

    Args:
        examples: at least one; all with the same keys.
        rows: which rows of the data they are, for messages.
    """
    tensors, masks = {}, {}
    for key, first in examples[0].items():
        values = [example[key] for example in examples]
        if first.dim() == 0:
            tensors[key] = torch.stack(values)
        else:
            tensors[key], masks[key] = _pad(values)
    return Batch(tensors, masks, rows)


def _pad(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([value.size(0) for value in values])
    padded = pad_sequence(list(values), batch_first=True)  # (B, L, ...)
    return padded, torch.arange(padded.size(1)) < lengths[:, None]
