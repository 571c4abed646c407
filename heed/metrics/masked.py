"""Scores for models that foretell hidden tokens: how many of them they name, and how probable they find them.

Perplexity here is exp of the mean of -log p over hidden tokens, each given all that is not hidden around it. It is far below the perplexity
of a model that sees only what stands before, and not comparable with that. Both scores depend on what a text is cut into, and on which
tokens were hidden. They are of the whole set; intervals draw texts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heed.errors import DataError
from heed.metrics.intervals import Comparison, Floats, Score, ScoreFunction, interval, paired_bootstrap, resampled_sums
from heed.metrics.language import perplexity_score
from heed.metrics.ratios import mean_score
from heed.metrics.rows import Rows

# Where a text's counts stand in its row: tokens named right, -log p (natural), hidden tokens.
COLUMNS: dict[str, list[int]] = {"accuracy": [0, 2], "perplexity": [1, 2]}
N_COLUMNS = 3


SCORE_FUNCTIONS: dict[str, ScoreFunction] = {"accuracy": mean_score, "perplexity": perplexity_score}


@dataclass(frozen=True)
class MaskedScores:
    """The scores of one model on `n` texts, of which so many tokens were hidden."""

    scores: Mapping[str, Score]
    n: int
    n_hidden: int

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and n and hidden_tokens."""
        return {**{name: score.to_json() for name, score in self.scores.items()}, "n": self.n, "hidden_tokens": self.n_hidden}


class MaskedMetrics:
    """Gather how hidden tokens were foretold, keeping three numbers for each text."""

    def __init__(self) -> None:
        self._rows = Rows(N_COLUMNS)

    def add(self, right: Sequence[int], log_p: Sequence[float], hidden: Sequence[int]) -> None:
        """Count texts: how many hidden tokens of each were named right, the natural log p of all, and how many there are.

        Raises:
            DataError: a log p is not finite.
        """
        rows = np.array([right, [-p for p in log_p], hidden], dtype=np.float64).T
        if not np.isfinite(rows).all():
            row = int(np.argmin(np.isfinite(rows).all(axis=1)))
            raise DataError(f"masked metrics: text {self.n + row + 1} has log p {log_p[row]}; the weights are damaged or diverged")
        self._rows.add(rows)

    @property
    def n(self) -> int:
        """Texts so far."""
        return len(self._rows)

    @property
    def statistics(self) -> dict[str, Floats]:
        """The counts behind every score, name -> (N, 2): what `bootstrap` takes with `SCORE_FUNCTIONS[name]`."""
        table = self._rows.table
        return {name: table[:, columns] for name, columns in COLUMNS.items()}

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> MaskedScores:
        """Score what was added, each score with its 95 % bootstrap interval over texts.

        Raises:
            DataError: no token was hidden.
        """
        table = self._rows.table
        n_hidden = round(float(table[:, 2].sum()))
        if not n_hidden:
            raise DataError("masked metrics: there are no hidden tokens to score; expected texts that hold some; check the data file")
        sums = resampled_sums(table, resamples=resamples, seed=seed)
        scores = {name: interval(function(sums[:, COLUMNS[name]])) for name, function in SCORE_FUNCTIONS.items()}
        return MaskedScores(scores, len(table), n_hidden)

    def compare(self, other: "MaskedMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same texts whether another model (b) differs from this one (a), score by score.

        Raises:
            DataError: the two cut the texts into different tokens, so that what was hidden is not the same.
        """
        ours, theirs = self.statistics, other.statistics
        if not np.array_equal(ours["accuracy"][:, 1], theirs["accuracy"][:, 1]):
            raise DataError(
                "the two runs hid different tokens, because they cut texts differently; compare runs that share a vocabulary and "
                "data.max_length, such as two that start from one (init)"
            )
        return {
            name: paired_bootstrap(ours[name], theirs[name], function, resamples=resamples, seed=seed)
            for name, function in SCORE_FUNCTIONS.items()
        }

    def qualities(self) -> Floats:
        """Return the mean log p of the hidden tokens of every text (N,), by which a report finds the best and the worst."""
        return -mean_score(self.statistics["perplexity"])
