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
from heed.metrics.foretold import ForetoldMetrics
from heed.metrics.intervals import Comparison, Floats, Score, ScoreFunction, paired_bootstrap
from heed.metrics.language import perplexity_score
from heed.metrics.ratios import mean_score

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


class MaskedMetrics(ForetoldMetrics):
    """Gather how hidden tokens were foretold, keeping three numbers for each text."""

    what, functions, columns, n_columns = "masked", SCORE_FUNCTIONS, COLUMNS, N_COLUMNS

    def add(self, right: Sequence[int], log_p: Sequence[float], hidden: Sequence[int]) -> None:
        """Count texts: how many hidden tokens of each were named right, the natural log p of all, and how many there are.

        Raises:
            DataError: a log p is not finite.
        """
        self._add(log_p, [right, [-p for p in log_p], hidden])

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> MaskedScores:
        """Score what was added, each score with its 95 % bootstrap interval over texts.

        Raises:
            DataError: no token was hidden.
        """
        table = self._rows.table
        n_hidden = round(float(table[:, 2].sum()))
        if not n_hidden:
            raise DataError("masked metrics: there are no hidden tokens to score; expected texts that hold some; check the data file")
        return MaskedScores(self._intervals(table, resamples=resamples, seed=seed), len(table), n_hidden)

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
