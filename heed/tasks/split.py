"""A split of the data as a task reads it."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from heed.config import DataConfig
from heed.data.read import ReadLog, read_examples
from heed.data.rows import Example
from heed.tasks.base import Task


class Split:
    """A stream of examples of one split, which can be read again and again."""

    def __init__(self, source: str, data: DataConfig, task: Task, chosen: Callable[[int, Example], bool] | None = None) -> None:
        self.source, self.data, self.task, self.chosen = source, data, task, chosen
        self.log = ReadLog()

    def numbered(self) -> Iterator[tuple[int, Example]]:
        """Yield (row number, example), numbers counting every usable row of the source."""
        log = ReadLog()
        stream = read_examples(
            self.source,
            required=self.task.columns,
            rename=self.data.columns,
            header=self.data.header,
            bad_rows=self.data.bad_rows,
            check=self.task.fault,
            log=log,
        )
        for number, example in enumerate(chain.from_iterable(map(self.task.divided, stream))):
            if self.chosen is None or self.chosen(number, example):
                yield number, example
        self.log = log  # of a reading that came to the end

    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self.numbered())

    def only(self, rows: np.ndarray[Any, np.dtype[np.bool_]]) -> "Split":
        """Return some of the rows of the source, given which of all of them, (n,)."""
        return Split(self.source, self.data, self.task, lambda number, _: bool(rows[number]))


class Joined:
    """Examples of several splits, one after the other, again and again."""

    def __init__(self, splits: Sequence[Split]) -> None:
        self.splits = splits

    def __iter__(self) -> Iterator[Example]:
        return chain.from_iterable(self.splits)
