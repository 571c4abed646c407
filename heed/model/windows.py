"""Long sequences in windows of a length the model sees at once, which overlap so that no token stands only at an edge."""

from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """Windows of several sequences: ids (N, W), their mask (N, W), the sequence each is of (N,), and its tokens' places there (N, W)."""

    ids: Tensor
    mask: Tensor
    rows: Tensor
    places: Tensor


def starts_of(length: int, size: int, overlap: int) -> list[int]:
    """Return where the windows of a sequence start; the last one ends where the sequence does."""
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def cut_windows(ids: Tensor, mask: Tensor, *, size: int, overlap: int, most: int | None = None) -> Windows:
    """Cut sequences into windows.

    Args:
        ids: (B, S); mask: (B, S), True = real, on the left.
        size: tokens of a window; overlap: those it shares with the next, fewer than `size`.
        most: windows of a sequence; of more, so many are drawn at random from torch's generator. None keeps all.
    """
    rows: list[int] = []
    starts: list[int] = []
    lengths: list[int] = mask.sum(1).tolist()
    for row, length in enumerate(lengths):
        found = starts_of(length, size, overlap)
        if most is not None and len(found) > most:
            found = [found[i] for i in torch.randperm(len(found))[:most].sort().values.tolist()]
        rows += [row] * len(found)
        starts += found
    width = max(1, min(size, max(lengths)))
    of_row, first = torch.tensor(rows, device=ids.device), torch.tensor(starts, device=ids.device)
    places = first[:, None] + torch.arange(width, device=ids.device)
    real = places < mask.sum(1)[of_row, None]
    places = places.clamp(max=max(0, ids.size(1) - 1))
    found_ids = ids[of_row[:, None], places] if ids.size(1) else ids.new_zeros(places.shape)
    return Windows(found_ids.masked_fill(~real, 0), real, of_row, places)


def mean_of_windows(values: Tensor, rows: Tensor, n_sequences: int) -> Tensor:
    """Average values of windows (N, C) over those of each sequence: (B, C)."""
    total = values.new_zeros(n_sequences, values.size(1)).index_add(0, rows, values)
    counts = torch.bincount(rows, minlength=n_sequences).clamp(min=1)
    return total / counts[:, None].to(values.dtype)
