"""What the scores of texts whose tokens are foretold have in common: a few numbers of each text, and ratios of their sums."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from heed.errors import DataError
from heed.metrics.intervals import Floats, Score, ScoreFunction, interval, resampled_sums
from heed.metrics.rows import Rows


class ForetoldMetrics:
    """Gather the rows of texts.

    Attributes:
        what: of which scores errors speak.
        functions: compute each score from the sums of its numbers.
        columns: where the numbers of each score stand in a row of `n_columns`.
    """

    what: ClassVar[str]
    functions: ClassVar[Mapping[str, ScoreFunction]]
    columns: ClassVar[Mapping[str, list[int]]]
    n_columns: ClassVar[int]

    def __init__(self) -> None:
        self._rows = Rows(self.n_columns)

    def _add(self, log_p: Sequence[float], numbers: Sequence[Sequence[float]]) -> None:
        """Add texts by their numbers (n_columns, n); raises DataError where one is not finite, which is its log p."""
        rows = np.array(numbers, dtype=np.float64).T
        if not np.isfinite(rows).all():
            row = int(np.argmin(np.isfinite(rows).all(axis=1)))
            raise DataError(f"{self.what} metrics: text {self.n + row + 1} has log p {log_p[row]}; the weights are damaged or diverged")
        self._rows.add(rows)

    @property
    def n(self) -> int:
        """Texts so far."""
        return len(self._rows)

    @property
    def statistics(self) -> dict[str, Floats]:
        """The numbers behind every score, name -> (N, 2): what `bootstrap` takes with `functions[name]`."""
        table = self._rows.table
        return {name: table[:, places] for name, places in self.columns.items()}

    def _intervals(self, table: Floats, *, resamples: int, seed: int) -> dict[str, Score]:
        """Return every score of a table (N, n_columns) with its 95 % bootstrap interval over texts."""
        sums = resampled_sums(table, resamples=resamples, seed=seed)
        return {name: interval(function(sums[:, self.columns[name]])) for name, function in self.functions.items()}
