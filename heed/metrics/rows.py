"""What metrics keep of examples: a few numbers of each, batch by batch in one block of memory."""

from array import array

import numpy as np
import numpy.typing as npt

from heed.metrics.intervals import Floats


class Rows:
    """Numbers of examples, `n_columns` of each; any split into batches gives the same table."""

    def __init__(self, n_columns: int) -> None:
        self.n_columns = n_columns
        self._numbers = array("d")

    def __len__(self) -> int:
        return len(self._numbers) // self.n_columns

    def add(self, rows: npt.ArrayLike) -> None:
        """Append the rows of a batch, (n, n_columns)."""
        self._numbers.frombytes(np.ascontiguousarray(rows, dtype=np.float64).tobytes())

    @property
    def table(self) -> Floats:
        """All so far, (N, n_columns)."""
        return np.array(self._numbers, dtype=np.float64).reshape(-1, self.n_columns)
