"""How well scores rank the examples of one class before all others: ROC-AUC and average precision, and the curves that are their areas.

Both are defined as scikit-learn defines them.

Shapes: `N` examples, `R` resamples, `r` of them at a time; `G` ranks, the distinct scores from the highest down.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from heed.metrics.calibration import Bools
from heed.metrics.intervals import Floats
from heed.metrics.ratios import divide

Places = npt.NDArray[np.integer]

BLOCK = 2**18  # draws held at a time
CURVE_POINTS = 101


def ranking_areas(scores: Floats, positive: Bools, *, resamples: int, seed: int) -> Floats:
    """Compute ROC-AUC and average precision of the set and of its resamples, (2, 1 + R), NaN where undefined; scores, positive (N,)."""
    if not positive.any():
        return np.full((2, 1 + resamples), math.nan)
    codes, n_codes = rank_codes(scores, positive)
    blocks = [_areas(rank_counts(codes, n_codes)), *map(_areas, _resampled_rank_counts(codes, n_codes, resamples, seed))]
    return np.concatenate(blocks, axis=1)


def rank_codes(scores: Floats, positive: Bools) -> tuple[Places, int]:
    """Number each example by its rank and whether it is positive: 2 rank + positive, (N,), and how many numbers there are.

    Sorted once, a resample is a count of these numbers; equal scores share a rank, so that ties need no care afterwards.
    """
    values, ranks = np.unique(-scores, return_inverse=True)
    return 2 * ranks.astype(np.int64) + positive, 2 * len(values)


def rank_counts(codes: Places, n_codes: int) -> Places:
    """Count negatives and positives per rank, (r, N) or (N,) -> (r, G, 2)."""
    rows = np.atleast_2d(codes)
    cells = rows + n_codes * np.arange(len(rows))[:, None]
    return np.bincount(cells.ravel(), minlength=len(rows) * n_codes).reshape(len(rows), -1, 2)


def _resampled_rank_counts(codes: Places, n_codes: int, resamples: int, seed: int) -> Iterator[Places]:
    """Yield the counts of resamples, (r, G, 2) at a time; the draws depend on the seed and N alone, so that classes share them."""
    rng = np.random.default_rng(seed)
    n = len(codes)
    step = max(1, BLOCK // n)
    for start in range(0, resamples, step):
        drawn = rng.integers(n, size=(min(step, resamples - start), n))
        yield rank_counts(codes[drawn], n_codes)


def _areas(counts: Places) -> Floats:
    """Compute ROC-AUC and average precision from negatives and positives per rank, (r, G, 2) -> (2, r); NaN where undefined.

    ROC-AUC is the share of pairs of a negative and a positive in which the positive ranks higher, ties counting half; average precision is
    the precision at each rank averaged over the positives.
    """
    found = np.cumsum(counts, axis=1)
    misses, hits = counts[..., 0], counts[..., 1]
    n_misses, n_hits = found[:, -1].T
    ordered = (misses * (found[..., 1] - hits / 2)).sum(axis=1)
    precision = divide(found[..., 1], found.sum(axis=2), nothing=0.0)
    roc_auc = divide(ordered, n_hits * n_misses, nothing=math.nan)
    average_precision = divide((hits * precision).sum(axis=1), n_hits, nothing=math.nan)
    return np.stack([roc_auc, average_precision])


def roc_curve(counts: Places) -> list[list[float]]:
    """Return the points [false positive rate, true positive rate] of a ranking, (G, 2) negatives and positives per rank."""
    rates = np.cumsum(counts, axis=0) / counts.sum(axis=0)
    rates = np.concatenate([np.zeros((1, 2)), rates])
    return _thinned(rates, rates.sum(axis=1))


def precision_recall_curve(counts: Places) -> list[list[float]]:
    """Return the points [recall, precision] of a ranking, (G, 2) negatives and positives per rank; it starts level, at recall 0."""
    found = np.cumsum(counts, axis=0)
    points = np.stack([found[:, 1] / found[-1, 1], found[:, 1] / found.sum(axis=1)], axis=1)
    points = np.concatenate([np.array([[0.0, points[0, 1]]]), points])
    return _thinned(points, points[:, 0])


def _thinned(points: Floats, travelled: Floats) -> list[list[float]]:
    """Choose at most CURVE_POINTS of points (P, 2) at even steps of `travelled`, (P,) and never falling; the first is always there."""
    places = np.unique(np.searchsorted(travelled, np.linspace(travelled[0], travelled[-1], CURVE_POINTS)))
    chosen: list[list[float]] = points[places].round(4).tolist()
    return chosen
