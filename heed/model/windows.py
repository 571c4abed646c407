"""Long sequences in windows of a length the model sees at once, which overlap so that no token stands only at an edge.

Two texts that are judged together are read side by side: every window holds a part of both, or all of the shorter one.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Drawn = TypeVar("Drawn")


class Windows(NamedTuple):
    """Windows of several sequences: ids (N, W), their mask (N, W), the sequence each is of (N,), and its tokens' places there (N, W)."""

    ids: Tensor
    mask: Tensor
    rows: Tensor
    places: Tensor


class PairWindow(NamedTuple):
    """What a window holds of two texts: so many tokens of each, from where on."""

    first: int
    n_first: int
    second: int
    n_second: int


def starts_of(length: int, size: int, overlap: int) -> list[int]:
    """Return where the windows of a sequence start; the last one ends where the sequence does."""
    if length <= size:
        return [0]
    return [*range(0, length - size, size - overlap), length - size]


def shortened(n_first: int, n_second: int, room: int) -> tuple[int, int]:
    """Return how many tokens two texts keep when the longer is cut, then both alike, until they fit into `room` together."""
    first = min(n_first, max(room - n_second, room - room // 2))
    return first, min(n_second, room - first)


def pair_windows(n_first: int, n_second: int, *, size: int, overlap: int) -> list[PairWindow]:
    """Lay windows of `size` tokens, 3 or more, over two texts and the separator between them.

    A text that fits into half of a window stands in every window whole, and windows slide over the other. Of two longer texts a window
    holds half of each, and both are read from beginning to end at one pace: the text that has fewer parts shows some of them again.
    Parts overlap by the share of their length that windows of a single text overlap by, so that every token is read.
    """
    sizes = shortened(n_first, n_second, size - 1)
    first, second = (starts_of(length, part, overlap * part // size) for length, part in zip((n_first, n_second), sizes, strict=True))
    n = max(len(first), len(second))
    return [PairWindow(a, sizes[0], b, sizes[1]) for a, b in zip(_paced(first, n), _paced(second, n), strict=True)]


def _paced(starts: Sequence[int], n: int) -> list[int]:
    """Spread starts evenly over n windows, as many or more; the first and the last keep their places, and none is left out."""
    return [starts[round(i * (len(starts) - 1) / max(1, n - 1))] for i in range(n)]


def cut_windows(ids: Tensor, mask: Tensor, *, size: int, overlap: int, most: int | None = None) -> Windows:
    """Cut sequences into windows.

    Args:
        ids: (B, S); mask: (B, S), True = real, on the left.
        size: tokens of a window; overlap: those it shares with the next, fewer than `size`.
        most: windows of a sequence; of more, so many are drawn at random from torch's generator. None keeps all.
    """
    lengths = mask.sum(1)
    rows, starts = _drawn([starts_of(length, size, overlap) for length in lengths.tolist()], most)
    of_row, start = (torch.tensor(values, device=ids.device) for values in (rows, starts))
    places = start[:, None] + torch.arange(max(1, min(size, int(lengths.max()))), device=ids.device)
    return _gathered(ids, of_row, places, places < lengths[of_row, None])


def cut_pairs(ids: Tensor, mask: Tensor, ends: Tensor, *, size: int, overlap: int, most: int | None = None) -> Windows:
    """Cut pairs of texts into windows that hold a part of both, with the separator between: see `pair_windows`.

    Args:
        ids: (B, S), a text, its separator and another text; mask: (B, S), True = real, on the left.
        ends: (B,), where the separator stands.
        size, overlap, most: as for `cut_windows`.
    """
    lengths = zip(ends.tolist(), mask.sum(1).tolist(), strict=True)
    found = [pair_windows(end, length - end - 1, size=size, overlap=overlap) for end, length in lengths]
    rows, windows = _drawn(found, most)
    of_row = torch.tensor(rows, device=ids.device)
    first, n_first, second, n_second = torch.tensor(windows, device=ids.device).T[..., None]  # (N, 1) each
    place = torch.arange(int((n_first + n_second).max()) + 1, device=ids.device)
    behind, end = place - n_first, ends[of_row, None]  # 0 at the separator
    places = torch.where(behind < 0, first + place, torch.where(behind == 0, end, end + second + behind))
    return _gathered(ids, of_row, places, behind <= n_second)


def first_windows(windows: Windows) -> Windows:
    """Return the first window of each sequence, where windows stand in order: what truncating leaves."""
    first = torch.ones_like(windows.rows, dtype=torch.bool)
    first[1:] = windows.rows[1:] != windows.rows[:-1]
    return Windows(*(values[first] for values in windows))


def _drawn(windows: Sequence[Sequence[Drawn]], most: int | None) -> tuple[list[int], list[Drawn]]:
    """Return the row and the windows of all rows, of each row at most so many."""
    rows: list[int] = []
    chosen: list[Drawn] = []
    for row, found in enumerate(windows):
        if most is not None and len(found) > most:
            found = [found[i] for i in torch.randperm(len(found))[:most].sort().values.tolist()]
        rows += [row] * len(found)
        chosen += found
    return rows, chosen


def _gathered(ids: Tensor, rows: Tensor, places: Tensor, real: Tensor) -> Windows:
    """Look up the tokens at places (N, W) of their rows (N,); those that are not real (N, W) become padding."""
    places = places.clamp(max=max(0, ids.size(1) - 1))
    found = ids[rows[:, None], places] if ids.size(1) else ids.new_zeros(places.shape)
    return Windows(found.masked_fill(~real, 0), real, rows, places)


def mean_of_windows(values: Tensor, rows: Tensor, n_sequences: int) -> Tensor:
    """Average values of windows (N, C) over those of each sequence: (B, C)."""
    total = values.new_zeros(n_sequences, values.size(1)).index_add(0, rows, values)
    counts = torch.bincount(rows, minlength=n_sequences).clamp(min=1)
    return total / counts[:, None].to(values.dtype)
