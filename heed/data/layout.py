"""How examples become rows of the batches that are learned and validated on: one each, or several behind one another in a row.

A batch is a list of examples either way. Of a packed one, those of a row follow one another, and an example that the row before has no
room for begins the next: so any part of a batch can be laid out by itself, and is where memory runs out.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from heed.data.batch import Batch, collate
from heed.data.order import Lengths, Rows, batches, blocks, padding_share, sequential_batches
from heed.data.store import Encoded
from heed.errors import ConfigError


class Layout:
    """Every example is a row of its own, beside others of its length."""

    def check_budget(self, budget: int) -> None:
        """Refuse a train.batch_tokens into which no row fits; raises ConfigError."""

    def batches(self, lengths: Lengths, budget: int, *, seed: int, epoch: int, curriculum: bool = False) -> list[Rows]:
        """Divide all examples into batches for an epoch; see `heed.data.order.batches`."""
        return batches(lengths, budget, seed=seed, epoch=epoch, curriculum=curriculum)

    def sequential_batches(self, lengths: Lengths, budget: int) -> list[Rows]:
        """Divide all examples into batches by length alone."""
        return sequential_batches(lengths, budget)

    def n_places(self, lengths: Lengths, rows: Rows) -> int:
        """Return how many places the batch of these examples has, padding included."""
        return len(rows) * int(lengths[rows].max(axis=0).sum())

    def padding_share(self, lengths: Lengths, division: list[Rows]) -> float:
        """Return which share of the computed tokens is padding."""
        return padding_share(lengths, division)

    def collate(self, examples: Sequence[Encoded], rows: Sequence[int] = ()) -> Batch:
        """Lay examples into a batch; `rows` says which rows of the data they are."""
        return collate(examples, rows)


class TextLayout(Layout):
    """Texts side by side; an n-gram half reads them "as_it_is" (B, L), ids from 1 and 0 for padding, where "text" was changed."""

    def collate(self, examples: Sequence[Encoded], rows: Sequence[int] = ()) -> Batch:
        """Lay examples into a batch in which each text is counted once."""
        laid = collate(examples, rows)
        return Batch(laid.tensors, {"text": laid.mask("text")}, rows)


class Packing(Layout):
    """Several texts stand behind one another in a row of at most `size` tokens, so that almost no place is padding.

    A text is n + 1 ids: n that are read, and behind each the one that is foretold from it. A batch has "text" (B, L), what is read;
    "wanted" (B, L), what is foretold; and "places" (B, L), the place of each token in its text: 0 where one begins.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def check_budget(self, budget: int) -> None:
        """Refuse a budget below a single row."""
        if budget < self.size:
            raise ConfigError(
                f"train.batch_tokens={budget} holds no packed row of data.max_length={self.size} tokens; raise it to {self.size} at "
                "least, lower data.max_length, or set task.packed=false"
            )

    def batches(self, lengths: Lengths, budget: int, *, seed: int, epoch: int, curriculum: bool = False) -> list[Rows]:
        """Divide all examples into batches of full rows; what stands beside what changes from epoch to epoch."""
        draw = np.random.default_rng([seed, epoch])
        parts = blocks(lengths, budget, in_order=curriculum and epoch == 0)
        return [batch for part in parts for batch in self._drawn(lengths, part, budget, draw)]

    def _drawn(self, lengths: Lengths, part: Rows, budget: int, draw: np.random.Generator) -> list[Rows]:
        """Divide some examples (n,) into batches of as many rows each, or one fewer."""
        shuffled = draw.permutation(part)
        shuffled = shuffled[np.argsort(-np.frexp(lengths[shuffled, 0] - 1)[1], kind="stable")]  # by powers of two, the short into gaps
        row_of = best_fit(_n_read(lengths[shuffled]), self.size)
        n_rows = int(row_of.max(initial=-1)) + 1
        n_batches = -(-n_rows // self._rows_at_once(budget))
        return [shuffled[one] for one in _gathered(row_of, draw.permutation(np.arange(n_rows) % max(1, n_batches)))]

    def sequential_batches(self, lengths: Lengths, budget: int) -> list[Rows]:
        """Divide all examples into batches of full rows by length alone, longest first."""
        order = np.argsort(-lengths[:, 0], kind="stable")
        row_of = best_fit(_n_read(lengths[order]), self.size)
        n_rows = int(row_of.max(initial=-1)) + 1
        return [order[one] for one in _gathered(row_of, np.arange(n_rows) // self._rows_at_once(budget))]

    def _rows_at_once(self, budget: int) -> int:
        return max(1, budget // self.size)

    def n_places(self, lengths: Lengths, rows: Rows) -> int:
        """Return how many places the rows have into which these examples are laid."""
        laid = in_turn(_n_read(lengths[rows]), self.size)
        return len(laid) * max(map(sum, laid))

    def padding_share(self, lengths: Lengths, division: list[Rows]) -> float:
        """Return which share of the places is padding."""
        padded = sum(self.n_places(lengths, batch) for batch in division)
        return 1 - sum(_n_read(lengths)) / padded if padded else 0.0

    def collate(self, examples: Sequence[Encoded], rows: Sequence[int] = ()) -> Batch:
        """Lay texts behind one another, in their order."""
        left = iter(examples)
        sizes = [one["text"].size(0) - 1 for one in examples]
        laid = collate([_joined([next(left) for _ in row]) for row in in_turn(sizes, self.size)])
        return Batch(laid.tensors, {"text": laid.mask("text")}, rows)  # a single mask, so that each place is counted once


def _n_read(lengths: Lengths) -> list[int]:
    """Return how many tokens of each text are read: (n, 1) -> n numbers."""
    n_read: list[int] = (lengths[:, 0] - 1).tolist()
    return n_read


def _joined(texts: Sequence[Encoded]) -> Encoded:
    """Return the row of texts behind one another, none of whose last tokens is read."""
    ids = [one["text"] for one in texts]
    return {
        "text": torch.cat([one[:-1] for one in ids]),
        "wanted": torch.cat([one[1:] for one in ids]),
        "places": torch.cat([torch.arange(one.size(0) - 1) for one in ids]),
    }


def best_fit(sizes: Iterable[int], capacity: int) -> Rows:
    """Put items into rows one by one, each where it leaves the least room, and into a new row where it fits into none (Johnson 1974).

    A bit for every room that some row has finds the least that is enough at once, however many rows are open.

    Returns:
        the row of each item, (n,). Rows are numbered as they were begun, so that the first item of one fits into none before it.
    """
    row_of: list[int] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows that have so much room left
    rooms, n_rows = 0, 0
    for size in sizes:
        enough = rooms >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            row = with_room[room].pop()
            rooms ^= 0 if with_room[room] else 1 << room
        else:
            room, row, n_rows = capacity, n_rows, n_rows + 1
        row_of.append(row)
        if room > size:
            with_room[room - size].append(row)
            rooms |= 1 << room - size
    return np.array(row_of, dtype=np.int64)


def in_turn(sizes: Iterable[int], capacity: int) -> list[list[int]]:
    """Lay items into rows in their order, and begin the next row where one does not fit; returns the sizes in each row."""
    rows: list[list[int]] = []
    room = 0
    for size in sizes:
        if size > room or not rows:
            rows.append([])
            room = capacity
        rows[-1].append(size)
        room -= size
    return rows


def _gathered(row_of: Rows, batch_of_row: Rows) -> list[Rows]:
    """Gather the items (n,) of each batch, row after row, given the row of each item and the batch of each row."""
    if not len(row_of):
        return []
    batch_of = batch_of_row[row_of]
    return np.split(np.lexsort([row_of, batch_of]), np.bincount(batch_of).cumsum()[:-1])
