"""In which batches the examples come: filled to a token budget with examples of like length, in an order known from (seed, epoch).

Nothing is remembered between epochs, so a run resumes from two integers: the epoch and how many batches of it are done.
"""

from typing import Any

import numpy as np

Lengths = np.ndarray[Any, np.dtype[np.int32]]  # (examples, sequence keys)
Rows = np.ndarray[Any, np.dtype[np.int64]]
BATCHES_IN_ORDER = 32  # among which neighbours of like length are found


def batches(lengths: Lengths, budget: int, *, seed: int, epoch: int, curriculum: bool = False) -> list[Rows]:
    """Divide all examples into batches whose longest side, padded, holds at most `budget` tokens.

    Examples are drawn at random, then laid beside others of their shape. Batch composition and batch order both change from epoch to
    epoch. An example longer than the budget is a batch alone.

    Args:
        curriculum: the first epoch goes through the examples as they stand, only neighbours among some BATCHES_IN_ORDER batches change
            places (Bengio et al. 2009).
    """
    draw = np.random.default_rng([seed, epoch])
    parts = blocks(lengths, budget, in_order=curriculum and epoch == 0)
    return [rows for block in parts for rows in _divided(lengths, block, budget, draw)]


def blocks(lengths: Lengths, budget: int, *, in_order: bool) -> list[Rows]:
    """Return the parts of the data that come one after the other: all of it, or `in_order` some BATCHES_IN_ORDER batches each."""
    n_blocks = max(1, int(lengths.max(axis=1).sum()) // (BATCHES_IN_ORDER * budget)) if in_order and len(lengths) else 1
    return np.array_split(np.arange(len(lengths)), n_blocks)


def _divided(lengths: Lengths, rows: Rows, budget: int, draw: np.random.Generator) -> list[Rows]:
    """Divide rows (n,) of all examples into batches, in an order drawn at random."""
    shuffled = draw.permutation(rows)
    order = shuffled[_by_length(lengths[shuffled])]
    groups = _fill(lengths[order].max(axis=1), budget)
    return [order[groups[i] : groups[i + 1]] for i in draw.permutation(len(groups) - 1)]


def sequential_batches(lengths: Lengths, budget: int) -> list[Rows]:
    """Divide examples into batches by length alone, longest first, for evaluation and prediction."""
    order = _by_length(lengths)[::-1]
    groups = _fill(lengths[order].max(axis=1), budget)
    return [order[groups[i] : groups[i + 1]] for i in range(len(groups) - 1)]


def padding_share(lengths: Lengths, division: list[Rows]) -> float:
    """Return which share of the computed tokens, over all sides, is padding."""
    padded = sum(len(rows) * int(lengths[rows].max(axis=0).sum()) for rows in division)
    return 1 - int(lengths.sum()) / padded if padded else 0.0


def _by_length(lengths: Lengths) -> Rows:
    """Sort by the longest side, then by which side that is and how far the other falls behind.

    The second direction alternates from one length to the next, so that the last of one length resembles the first of the next.
    """
    longest = lengths.max(axis=1)
    tilt = lengths[:, 0] - lengths[:, -1]
    return np.lexsort([np.where(longest % 2 == 0, tilt, -tilt), longest])


def _fill(longest: Lengths, budget: int) -> Rows:
    """Cut a sorted list of lengths into runs that fit the budget; returns the bounds, from 0 to len(longest)."""
    bounds = [0]
    widest = 1  # an example without any token still takes a row
    for i, length in enumerate(longest.tolist()):
        widest = max(widest, length)
        if i > bounds[-1] and widest * (i + 1 - bounds[-1]) > budget:
            bounds.append(i)
            widest = max(1, length)
    return np.array([*bounds, len(longest)] if len(longest) else bounds, dtype=np.int64)
