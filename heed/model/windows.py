"""Long sequences in windows of a length the model sees at once, which overlap so that no token stands only at an edge.

Two texts that are judged together are read side by side: every window holds a part of both, or all of the shorter one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Drawn = TypeVar("Drawn")

WINDOW_TOKENS = 1 << 14  # tokens of windows in the model at once when answering


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


def cut_behind(ids: Tensor, mask: Tensor, heads: Tensor, *, size: int, overlap: int, tail: int = 0) -> Windows:
    """Cut sequences into windows that all begin with their sequence's head, and end with its tail: a question before every part of a text.

    Args:
        ids: (B, S); mask: (B, S), True = real, on the left.
        heads: (B,), tokens at the start of each that every window repeats.
        size: tokens of a window, those of head and tail among them; overlap: those behind the head that it shares with the next, fewer
            than there is room for.
        tail: tokens at the end of each that every window repeats.
    """
    lengths, firsts = mask.sum(1), heads.tolist()
    starts = [
        starts_of(length - first - tail, size - first - tail, overlap) for length, first in zip(lengths.tolist(), firsts, strict=True)
    ]
    rows = torch.tensor([row for row, found in enumerate(starts) for _ in found], device=ids.device)
    start = torch.tensor([place for found in starts for place in found], device=ids.device)[:, None]
    length, head = lengths[rows, None], heads[rows, None]
    end = length.clamp(max=size)  # of the window, (N, 1)
    place = torch.arange(int(end.max()), device=ids.device)
    places = torch.where(place < head, place, torch.where(place < end - tail, place + start, place + length - end))
    return _gathered(ids, rows, places, place < end)


def framed(ids: Tensor, mask: Tensor, *, begin: int, end: int | None) -> tuple[Tensor, Tensor]:
    """Put a begin token before sequences (B, S) and, if there is one, an end token behind their last real token.

    Args:
        mask: (B, S), True = real, on the left.
    Returns:
        ids and mask, (B, S + 1), or (B, S + 2) with an end token.
    """
    ids, mask = F.pad(ids, (1, 0), value=begin), F.pad(mask, (1, 0), value=True)
    if end is None:
        return ids, mask
    behind = mask.sum(1, keepdim=True)  # (B, 1)
    return F.pad(ids, (0, 1)).scatter(1, behind, end), F.pad(mask, (0, 1)).scatter(1, behind, True)


def framed_windows(windows: Windows, *, begin: int, end: int | None, separator: int | None = None) -> Windows:
    """Put begin (and end) tokens around windows, and where there is a `separator` repeat it between two texts; places of these are -1."""
    places = windows.places.masked_fill(~windows.mask, -1)
    ids, mask = windows.ids, windows.mask
    if separator is not None:
        column = torch.arange(ids.size(1) + 1, device=ids.device)
        between = (ids == separator).int().argmax(1, keepdim=True)  # (N, 1)
        index = column.where(column <= between, column - 1)  # (N, W + 1)
        ids, mask, places = ids.gather(1, index), mask.gather(1, index), places.gather(1, index).masked_fill(column == between, -1)
    ids, mask = framed(ids, mask, begin=begin, end=end)
    return Windows(ids, mask, windows.rows, F.pad(places, (1, ids.size(1) - places.size(1) - 1), value=-1))


def first_windows(windows: Windows) -> Windows:
    """Return the first window of each sequence, where windows stand in order: what truncating leaves."""
    first = torch.ones_like(windows.rows, dtype=torch.bool)
    first[1:] = windows.rows[1:] != windows.rows[:-1]
    return Windows(*(values[first] for values in windows))


def in_parts(windows: Windows) -> Iterator[Windows]:
    """Divide windows so that few tokens are in the model at once; all stay together where gradients need them anyway.

    A text of millions of tokens is as many windows as memory would not hold.
    """
    at_once = len(windows.ids) if torch.is_grad_enabled() else max(1, WINDOW_TOKENS // windows.ids.size(1))
    return (Windows(*(values[start : start + at_once] for values in windows)) for start in range(0, len(windows.ids), at_once))


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


def most_context(windows: Windows, lengths: Tensor, *, head: int, tail: int) -> Tensor:
    """Choose for each token of sequences the window in which it stands farthest from where its neighbours are cut off.

    Args:
        windows: as from `cut_behind`; lengths: (B,), tokens of each sequence.
        head, tail: tokens at the start and at the end of a sequence that every window repeats.
    Returns:
        (N, W), True where a token is to be judged; once for each token of a sequence.
    """
    n_windows, width = windows.ids.shape
    first = windows.places[:, min(head, width - 1), None]
    last = windows.places.gather(1, (windows.mask.sum(1, keepdim=True) - tail - 1).clamp(min=0))
    whole = int(lengths.max())  # more than any distance
    left = torch.where(first <= head, whole, windows.places - first)
    right = torch.where(last >= lengths[windows.rows, None] - tail - 1, whole, last - windows.places)
    order = torch.arange(n_windows, device=lengths.device)[:, None]
    rank = (torch.minimum(left, right) * n_windows - order).masked_fill(~windows.mask, torch.iinfo(torch.long).min)
    token = windows.rows[:, None] * whole + windows.places.clamp(max=whole - 1)
    best = rank.new_full((len(lengths) * whole,), torch.iinfo(torch.long).min).scatter_reduce(0, token.flatten(), rank.flatten(), "amax")
    return windows.mask & (rank == best[token])


def mean_of_windows(values: Tensor, rows: Tensor, n_sequences: int) -> Tensor:
    """Average values of windows (N, C) over those of each sequence: (B, C)."""
    total = values.new_zeros(n_sequences, values.size(1)).index_add(0, rows, values)
    counts = torch.bincount(rows, minlength=n_sequences).clamp(min=1)
    return total / counts[:, None].to(values.dtype)
