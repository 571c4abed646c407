"""Quotients of sums, with an answer where there is nothing to divide by: what most scores come down to."""

from typing import Any

import numpy as np
import numpy.typing as npt

from heed.metrics.intervals import Floats


def divide(over: npt.NDArray[Any], under: npt.NDArray[Any], *, nothing: float) -> Floats:
    """Divide, with `nothing` where there is nothing to divide by."""
    over, under = np.broadcast_arrays(over, under)
    quotient: Floats = np.divide(over, under, out=np.full(over.shape, nothing), where=under > 0)
    return quotient


def mean_score(sums: Floats) -> Floats:
    """Divide what was summed by how much there was of it, 0 where there was nothing; (..., 2) -> (...)."""
    return divide(sums[..., 0], sums[..., 1], nothing=0.0)


def f1_score(sums: Floats) -> Floats:
    """Compute F1 from what is right, what was answered and what was true, 0 where both are nothing; (..., 3) -> (...)."""
    return divide(2 * sums[..., 0], sums[..., 1] + sums[..., 2], nothing=0.0)
