"""Bootstrap intervals and paired tests for corpus scores (Efron and Tibshirani 1993; Koehn 2004).

A corpus score such as BLEU or an error rate is no mean of sentence scores: it is a function of counts summed over the examples. So a metric
hands over one row of counts per example, and a resample draws rows with replacement, adds them up and applies that function to the sums.

Left out: bias-corrected (BCa) intervals, which need N further scores, and corrections for testing many systems at once.

Shapes: `N` examples, `K` counts per example, `R` resamples.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from heed.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.number]
ScoreFunction = Callable[[Floats], Floats]  # (R, K) sums -> (R,) scores, one score per row

PERCENTILES = (2.5, 97.5)  # the ends of a 95 % interval
NORMAL_QUANTILE = 1.959964  # between minus and plus this lie 95 % of a standard normal distribution
BLOCK_ROWS = 2**16  # examples drawn from at a time
BLOCK_CELLS = 2**20  # row counts held at a time; with BLOCK_ROWS it bounds the memory whatever N and R are
TIE = 1e-9  # relative; differences this close count as equal, so that rounding does not decide


@dataclass(frozen=True)
class Score:
    """A value and its 95 % percentile bootstrap interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return value, low and high, rounded to 4 decimals."""
        return {"value": _rounded(self.value), "low": _rounded(self.low), "high": _rounded(self.high)}


def scores_in(content: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return those entries of an evaluation's JSON that `Score.to_json` wrote, by name."""
    return {name: found for name, found in content.items() if isinstance(found, dict) and {"value", "low", "high"} <= found.keys()}


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same examples: each score, the difference b - a with its interval, and a two-sided p-value."""

    a: Score
    b: Score
    difference: Score
    p_value: float

    def to_json(self) -> dict[str, dict[str, float] | float]:
        """Return the three scores and the p-value as plain JSON, rounded to 4 decimals."""
        scores = {"a": self.a.to_json(), "b": self.b.to_json(), "difference": self.difference.to_json()}
        return {**scores, "p_value": _rounded(self.p_value)}


def bootstrap(
    statistics: Numbers,
    score: ScoreFunction,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[Hashable] | Numbers | None = None,
) -> Score:
    """Score the whole set and say between which values the score would lie on other sets like it.

    Args:
        statistics: (N, K), one row of additive counts per example.
        score: turns sums of rows, (R, K), into scores, (R,).
        resamples: how many resamples the interval rests on.
        seed: the same seed gives the same interval.
        groups: N labels; examples with the same label (one speaker, one document) are drawn together, because they are not independent.
    Raises:
        ConfigError: `resamples` is below 1.
        DataError: there are no rows, a count is not finite, or there is not one group label per row.
    """
    return interval(score(resampled_sums(statistics, resamples=resamples, seed=seed, groups=groups)))


def paired_bootstrap(
    stats_a: Numbers,
    stats_b: Numbers,
    score: ScoreFunction,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[Hashable] | Numbers | None = None,
) -> Comparison:
    """Test whether system b scores differently from system a on the same examples (paired bootstrap, Koehn 2004).

    Both systems are scored on the same resamples. With d the observed difference b - a and d* that of a resample,

        p = (1 + number of resamples with |d* - d| >= |d|) / (1 + resamples),

    the two-sided shift method (Noreen 1989; Riezler and Maxwell 2005): d* is centred, as under the hypothesis of no difference.
    sacreBLEU's paired bootstrap counts |d*| - mean|d*| > |d| instead; for a clear difference that is one tail, half of this p, and it calls
    10 % of the pairs that do not differ significant at the 5 % level. sacreBLEU's approximate randomisation agrees with this p.
    Of a single example (or group) every resample is the same, which shows nothing: p is 1.

    Args:
        stats_a: (N, K), one row of additive counts per example.
        stats_b: (N, K), of the same examples in the same order.
        score: turns sums of rows, (R, K), into scores, (R,).
        resamples, seed, groups: as for `bootstrap`.
    Raises:
        DataError: the two do not have the same shape, and as for `bootstrap`.
    """
    if stats_a.shape != stats_b.shape:
        raise DataError(
            f"paired test: system a has statistics of shape {stats_a.shape}, system b of {stats_b.shape}; score both on the same examples"
        )
    # The same seed draws the same rows for both, which is what pairs them.
    scores_a = score(resampled_sums(stats_a, resamples=resamples, seed=seed, groups=groups))
    scores_b = score(resampled_sums(stats_b, resamples=resamples, seed=seed, groups=groups))
    comparison = compared(scores_a, scores_b)
    n_units = len(stats_a) if groups is None else len({*np.asarray(groups).tolist()})
    return comparison if n_units > 1 else replace(comparison, p_value=1.0)


def compared(scores_a: Floats, scores_b: Floats) -> Comparison:
    """Compare scores on the same resamples, (1 + R,) each with the set's own first, as `paired_bootstrap` does."""
    difference = scores_b - scores_a
    return Comparison(interval(scores_a), interval(scores_b), interval(difference), _two_sided_p(difference))


def wilson_interval(n_right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of so many (Wilson 1927), which is one for few and for none or all of them too."""
    if n == 0:
        return 0.0, 1.0
    share, spread = n_right / n, NORMAL_QUANTILE**2 / n
    middle = share + spread / 2
    half = (spread * (share * (1 - share) + spread / 4)) ** 0.5
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))


def interval(scores: Floats) -> Score:
    """Turn scores as from `resampled_sums`, (1 + R,) with the set's own score first, into that score and its interval.

    The percentiles of very few examples can miss the score itself (BLEU is no mean); the interval is then widened to reach it.
    """
    value = float(scores[0])
    low, high = np.percentile(scores[1:], PERCENTILES)
    return Score(value, min(float(low), value), max(float(high), value))


def resampled_sums(
    statistics: Numbers,
    *,
    resamples: int = 1000,
    seed: int = 0,
    groups: Sequence[Hashable] | Numbers | None = None,
) -> Floats:
    """Add up the rows of the whole set and of every resample.

    The draws depend on the seed and on the number of rows (or groups) alone, so metrics over the same examples share their resamples.
    Rows are drawn block by block: first how many of a resample's draws fall into each block, then which rows these are. That is the same
    distribution as drawing from all rows at once, in memory that grows with neither N nor R.

    Args:
        statistics: (N, K).
        resamples, seed, groups: as for `bootstrap`.
    Returns:
        (1 + R, K) float64; row 0 is the sum of the set itself.
    Raises:
        ConfigError: `resamples` is below 1.
        DataError: there are no rows, a count is not finite, or there is not one group label per row.
    """
    if resamples < 1:
        raise ConfigError(f"bootstrap: resamples is {resamples}; at least 1 is needed, 1000 is usual")
    total = _total(statistics)
    units = statistics if groups is None else _group_sums(statistics, groups)
    rng = np.random.default_rng(seed)
    starts = np.arange(0, len(units), BLOCK_ROWS)
    sizes = np.diff(starts, append=len(units))
    draws = rng.multinomial(len(units), sizes / len(units), size=resamples)  # (R, blocks)
    sums = np.zeros((1 + resamples, statistics.shape[1]))
    sums[0] = total
    for start, size, drawn in zip(starts, sizes, draws.T, strict=True):
        _add_draws(sums[1:], units[start : start + size].astype(np.float64), drawn, rng)
    return sums


def _add_draws(sums: Floats, rows: Floats, draws: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
    """Add to sums[i], (R, K), the sum of draws[i] rows taken with replacement from `rows`, (n, K)."""
    step = max(1, BLOCK_CELLS // len(rows))
    for start in range(0, len(sums), step):
        part = slice(start, start + step)
        sums[part] += _row_counts(draws[part], len(rows), rng) @ rows


def _row_counts(draws: npt.NDArray[np.int64], n_rows: int, rng: np.random.Generator) -> Floats:
    """Draw draws[i] rows with replacement and count how often each came up; (r,) -> (r, n_rows)."""
    cells = rng.integers(n_rows, size=draws.sum())
    cells += np.repeat(np.arange(len(draws)) * n_rows, draws)
    return np.bincount(cells, minlength=len(draws) * n_rows).reshape(-1, n_rows).astype(np.float64)


def _total(statistics: Numbers) -> Floats:
    """Sum the rows, (N, K) -> (K,), refusing what no score can be made of."""
    if statistics.ndim != 2 or not len(statistics):
        raise DataError(f"bootstrap: statistics have shape {statistics.shape}; expected one row per example and at least one example")
    total: Floats = statistics.sum(axis=0, dtype=np.float64)
    if not np.isfinite(total).all():
        row = int(np.argmin(np.isfinite(statistics).all(axis=1)))
        raise DataError(f"bootstrap: row {row} of the statistics holds {statistics[row].tolist()}; every count must be finite")
    return total


def _group_sums(statistics: Numbers, groups: Sequence[Hashable] | Numbers) -> Floats:
    """Add up the rows of each group, (N, K) -> (number of groups, K), in order of first appearance."""
    if len(groups) != len(statistics):
        raise DataError(f"bootstrap: {len(groups)} group labels for {len(statistics)} examples; give one label per example")
    places: dict[Hashable, int] = {}
    member = np.fromiter((places.setdefault(group, len(places)) for group in groups), dtype=np.intp, count=len(groups))
    return np.stack([np.bincount(member, weights=column) for column in statistics.T], axis=1)


def _two_sided_p(differences: Floats) -> float:
    """Return the share of resamples at least as far from the observed difference as that is from zero; (1 + R,), observed first."""
    observed, drawn = differences[0], differences[1:]
    extreme = np.abs(drawn - observed) >= abs(observed) * (1 - TIE)
    return float((1 + extreme.sum()) / (1 + len(drawn)))


def _rounded(value: float) -> float:
    """Round to 4 decimals; adding zero turns -0.0 into 0.0."""
    return round(value, 4) + 0.0
