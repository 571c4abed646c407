"""Scores for language models: how well they foretell a text, in perplexity (Jelinek et al. 1977) and in bits per byte.

Perplexity is exp of the mean of -log p over tokens, so it depends on what a text is cut into; bits per byte, -log2 p of all tokens over the
bytes of the text in UTF-8, compares models of different vocabularies. Both are of the whole set; intervals draw texts.
Left out: scores of what a model writes by itself, such as its diversity or repetition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np

from heed.errors import DataError
from heed.metrics.foretold import ForetoldMetrics
from heed.metrics.intervals import Comparison, Floats, Score, ScoreFunction, paired_bootstrap
from heed.metrics.ratios import mean_score

# Where a text's counts stand in its row: -log p (natural), tokens, bytes, unknown tokens.
COLUMNS: dict[str, list[int]] = {"perplexity": [0, 1], "bits_per_byte": [0, 2]}
N_COLUMNS = 4


def perplexity_score(sums: Floats) -> Floats:
    """Compute perplexity from summed -log p and tokens; (..., 2) -> (...)."""
    scores: Floats = np.exp(mean_score(sums))
    return scores


def bits_score(sums: Floats) -> Floats:
    """Compute bits per byte from summed -log p and bytes; (..., 2) -> (...)."""
    return mean_score(sums) / log(2)


SCORE_FUNCTIONS: dict[str, ScoreFunction] = {"perplexity": perplexity_score, "bits_per_byte": bits_score}


@dataclass(frozen=True)
class LanguageScores:
    """The scores of one model on `n` texts.

    `n_unknown` tokens stand for characters that the model does not know; which ones they are was not foretold, so that with many of them
    both scores are too good.
    """

    scores: Mapping[str, Score]
    n: int
    n_tokens: int
    n_bytes: int
    n_unknown: int

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and n, tokens, bytes and unknown_tokens."""
        counts = {"n": self.n, "tokens": self.n_tokens, "bytes": self.n_bytes, "unknown_tokens": self.n_unknown}
        return {**{name: score.to_json() for name, score in self.scores.items()}, **counts}


def unknown_remarks(scores: Mapping[str, Any]) -> list[str]:
    """Return what is to be said beside scores (as plain JSON) of a model that does not know all characters of the texts."""
    n = scores.get("unknown_tokens", 0)
    if not n:
        return []
    stand = "1 token stands for a character" if n == 1 else f"{n:,} of {scores['tokens']:,} tokens stand for characters"
    return [f"{stand} unknown to the model, which need not foretell which one: perplexity and bits per byte are too good"]


class LanguageMetrics(ForetoldMetrics):
    """Gather how likely texts are, keeping four numbers for each."""

    what, functions, columns, n_columns = "language", SCORE_FUNCTIONS, COLUMNS, N_COLUMNS

    def add(self, log_p: Sequence[float], tokens: Sequence[int], n_bytes: Sequence[int], unknown: Sequence[int]) -> None:
        """Count texts: the natural log p of each, its tokens, its bytes in UTF-8, and how many of the tokens are unknown.

        Raises:
            DataError: a log p is not finite.
        """
        self._add(log_p, [[-p for p in log_p], tokens, n_bytes, unknown])

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> LanguageScores:
        """Score what was added, each score with its 95 % bootstrap interval over texts.

        Raises:
            DataError: nothing was added.
        """
        table = self._rows.table
        if not len(table):
            raise DataError("language metrics: there are no texts to score; expected at least one; check the data file and its filters")
        scores = self._intervals(table, resamples=resamples, seed=seed)
        _, n_tokens, n_bytes, n_unknown = (round(float(total)) for total in table.sum(axis=0))
        return LanguageScores(scores, len(table), n_tokens, n_bytes, n_unknown)

    def compare(self, other: "LanguageMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same texts whether another model (b) differs from this one (a), score by score.

        Perplexities are left out where the two cut texts into different tokens, because they are then of different things.
        """
        ours, theirs = self.statistics, other.statistics
        alike = np.array_equal(ours["perplexity"][:, 1], theirs["perplexity"][:, 1])
        names = [name for name in SCORE_FUNCTIONS if alike or name != "perplexity"]
        return {name: paired_bootstrap(ours[name], theirs[name], SCORE_FUNCTIONS[name], resamples=resamples, seed=seed) for name in names}

    def qualities(self) -> Floats:
        """Return minus the bits per byte of every text (N,), by which a report finds the best and the worst."""
        return -bits_score(self.statistics["bits_per_byte"])
