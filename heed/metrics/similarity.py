"""Scores for vectors of texts: whether the right partner is found among all, and how cosines follow what people judged.

Retrieval: the text of each pair asks for its partner among the partners of all pairs. Accuracy is the share that finds it first; the
mean reciprocal rank is the mean of 1 / rank (Voorhees 1999). A tie counts as wrong, so that a model that gives all texts one vector finds
nothing. Candidates that are the right text again, or the question, or stand beside the same question elsewhere, are no wrong answers.
Intervals draw questions; the candidates stay.

Correlation: Pearson's r of cosines and scores, and Spearman's rho, which is that of their ranks (equal values share the mean of theirs).
Where either does not vary there is none, which counts 0. Intervals draw pairs, and rank anew in every resample.

Left out: nDCG and recall at k, which need graded or several right answers.

Shapes: `N` pairs, `D` features, `R` resamples, `r` of them at a time.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from heed.errors import DataError
from heed.metrics.intervals import Comparison, Floats, Numbers, Score, compared, interval, paired_bootstrap, resampled_sums
from heed.metrics.ratios import divide, mean_score
from heed.metrics.rows import Rows

Vectors = npt.NDArray[np.float32]

RETRIEVAL_SCORES = ("accuracy", "mean_reciprocal_rank")
CORRELATION_SCORES = ("spearman", "pearson")
BLOCK_CELLS = 1 << 22  # cosines, or draws, held at a time
NO_SPREAD = 1e-14  # of a product of two standard deviations: what rounding leaves of values that are all equal
TIE = 1e-6  # cosines this close are equal; that is their rounding in float32


@dataclass(frozen=True)
class SimilarityScores:
    """The scores of one model on `n` pairs; of retrieval also among how many different texts partners were looked for."""

    scores: Mapping[str, Score]
    n: int
    candidates: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and n and candidates."""
        counts = {"n": self.n} | ({} if self.candidates is None else {"candidates": self.candidates})
        return {**{name: score.to_json() for name, score in self.scores.items()}, **counts}


class RetrievalMetrics:
    """Gather pairs of vectors; finding partners takes time quadratic in their number, in memory that is linear."""

    def __init__(self) -> None:
        self._vectors: tuple[list[Vectors], list[Vectors]] = ([], [])
        self._texts = (array("q"), array("q"))  # a hash of each, to know equal ones again
        self._ranks: npt.NDArray[np.int64] | None = None

    def add(self, first: npt.ArrayLike, second: npt.ArrayLike, texts: Sequence[tuple[str, str]]) -> None:
        """Count pairs: their vectors (n, D), of any length, and the texts themselves.

        Raises:
            DataError: the three are not of one length, or a vector is not finite or zero.
        """
        sides = [np.asarray(vectors, dtype=np.float32) for vectors in (first, second)]
        if not len(sides[0]) == len(sides[1]) == len(texts):
            raise DataError(f"similarity: {len(sides[0])} and {len(sides[1])} vectors for {len(texts)} pairs; give one of each per pair")
        for kept, vectors in zip(self._vectors, sides, strict=True):
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            if not (np.isfinite(lengths) & (lengths > 0)).all():
                raise DataError("similarity: a vector is zero or not finite; the weights are damaged or diverged")
            kept.append(vectors / lengths)
        for hashes, side in zip(self._texts, zip(*texts, strict=True), strict=False):
            hashes.extend(map(hash, side))
        self._ranks = None

    @property
    def ranks(self) -> npt.NDArray[np.int64]:
        """The rank of the partner of each text (N,), from 1."""
        if self._ranks is None:
            self._ranks = self._found()
        return self._ranks

    def _found(self) -> npt.NDArray[np.int64]:
        if not self._vectors[0]:
            return np.zeros(0, dtype=np.int64)
        asked, given = map(np.concatenate, self._vectors)
        questions, answers = (np.array(side, dtype=np.int64) for side in self._texts)
        ranks = np.zeros(len(asked), dtype=np.int64)
        step = max(1, BLOCK_CELLS // max(1, len(given)))
        for start in range(0, len(asked), step):
            rows = slice(start, start + step)
            cosines = asked[rows] @ given.T  # (r, N)
            own = cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))]
            asking = questions[rows, None]
            wrong = (answers != answers[rows, None]) & (questions != asking) & (answers != asking)
            ranks[rows] = 1 + (wrong & (cosines >= own[:, None] - TIE)).sum(1)
        return ranks

    @property
    def statistics(self) -> dict[str, Floats]:
        """The counts behind every score, name -> (N, 2): what it is a mean of, and 1."""
        ones = np.ones(len(self.ranks))
        return {"accuracy": np.stack([self.ranks == 1, ones], 1), "mean_reciprocal_rank": np.stack([1 / self.ranks, ones], 1)}

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> SimilarityScores:
        """Score what was added; raises DataError where nothing was."""
        if not len(self.ranks):
            raise _nothing()
        sums = {name: resampled_sums(rows, resamples=resamples, seed=seed) for name, rows in self.statistics.items()}
        found = {name: interval(mean_score(rows)) for name, rows in sums.items()}
        return SimilarityScores(found, len(self.ranks), len(set(self._texts[1])))

    def compare(self, other: "RetrievalMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same pairs whether another model (b) differs from this one (a), score by score."""
        theirs = other.statistics
        return {
            name: paired_bootstrap(rows, theirs[name], mean_score, resamples=resamples, seed=seed) for name, rows in self.statistics.items()
        }

    def qualities(self) -> Floats:
        """Return 1 / rank of the partner of each text (N,)."""
        return 1 / self.ranks


class CorrelationMetrics:
    """Gather cosines and the scores they should follow, two numbers a pair."""

    def __init__(self) -> None:
        self._rows = Rows(2)

    def add(self, cosines: Sequence[float], scores: Sequence[float]) -> None:
        """Count pairs; raises DataError where there is not one of each, or one is not finite."""
        if len(cosines) != len(scores):
            raise DataError(f"similarity: {len(cosines)} cosines for {len(scores)} scores; give one of each per pair")
        rows = np.array([cosines, scores], dtype=np.float64).T
        if not np.isfinite(rows).all():
            raise DataError("similarity: a cosine or a score is not finite; the weights are damaged or diverged")
        self._rows.add(rows)

    @property
    def statistics(self) -> dict[str, Floats]:
        """The cosine and the score of each pair, (N, 2), from which both scores are computed."""
        return dict.fromkeys(CORRELATION_SCORES, self._rows.table)

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> SimilarityScores:
        """Score what was added; raises DataError where nothing was."""
        table = self._rows.table
        if not len(table):
            raise _nothing()
        found = correlations(table[:, 0], table[:, 1], resamples=resamples, seed=seed)
        return SimilarityScores({name: interval(values) for name, values in found.items()}, len(table))

    def compare(self, other: "CorrelationMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same pairs whether another model (b) differs from this one (a), score by score."""
        ours, theirs = self._rows.table, other._rows.table
        if not np.array_equal(ours[:, 1], theirs[:, 1]):
            raise DataError("similarity: the two were judged by different scores; score both on the same pairs")
        a, b = (correlations(table[:, 0], table[:, 1], resamples=resamples, seed=seed) for table in (ours, theirs))
        return {name: compared(a[name], b[name]) for name in a}

    def qualities(self) -> Floats:
        """Return minus the distance of each cosine from its score (N,)."""
        table = self._rows.table
        return -np.abs(table[:, 0] - table[:, 1])


def correlations(x: Floats, y: Floats, *, resamples: int, seed: int) -> dict[str, Floats]:
    """Compute Spearman's and Pearson's correlation of the set and of its resamples, (1 + R,) each; x, y (N,)."""
    n = len(x)
    draw = np.random.default_rng(seed)
    step = max(1, BLOCK_CELLS // n)
    blocks = [_correlated(x, y, np.ones((1, n)))]
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        cells = draw.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        blocks.append(_correlated(x, y, np.bincount(cells.ravel(), minlength=size * n).reshape(size, n)))
    return dict(zip(CORRELATION_SCORES, np.concatenate(blocks, axis=1), strict=True))


def _correlated(x: Floats, y: Floats, counts: Numbers) -> Floats:
    """Return Spearman's and Pearson's correlation, (2, r), of rows that stand as often as `counts` (r, N) says."""
    return np.stack([_pearson(_ranks(x, counts), _ranks(y, counts), counts), _pearson(x[None], y[None], counts)])


def _ranks(values: Floats, counts: Numbers) -> Floats:
    """Return the rank of each value, (N,) -> (r, N); equal ones share the mean of theirs, and each stands as often as counted."""
    _, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    firsts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    totals = np.add.reduceat(counts[:, order], firsts, axis=1)
    middle: Floats = np.cumsum(totals, axis=1) - (totals - 1) / 2
    return middle[:, codes]


def _pearson(x: Floats, y: Floats, counts: Numbers) -> Floats:
    """Return the correlation of x and y, (1 or r, N), weighed by counts (r, N): (r,), 0 where one does not vary."""
    n = counts.sum(1, keepdims=True)
    dx, dy = (values - (values * counts).sum(1, keepdims=True) / n for values in (x, y))
    spread = np.sqrt((counts * dx**2).sum(1) * (counts * dy**2).sum(1))
    return divide((counts * dx * dy).sum(1), np.where(spread > NO_SPREAD * n[:, 0], spread, 0.0), nothing=0.0)


def _nothing() -> DataError:
    return DataError("similarity: there are no pairs to score; expected at least one; check the data file and its filters")
