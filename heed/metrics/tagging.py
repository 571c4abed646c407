"""Scores for tagged words: precision, recall and F1 of whole spans, over all types and for each, and the share of words tagged right.

A span is right if its type and both its ends are, as the CoNLL-2003 script and seqeval count; what there is nothing to divide by is 0. The
macro average is over the types that occur among right spans or answered ones. Intervals draw sentences.

Shapes: `N` sentences, `T` types, `R` resamples.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heed.errors import DataError
from heed.metrics.classification import ClassScore
from heed.metrics.intervals import Comparison, Floats, Score, ScoreFunction, interval, paired_bootstrap, resampled_sums
from heed.metrics.ratios import divide, f1_score, mean_score

AnySpan = tuple[str, int, int]  # type, first word, the word behind the last

N_WORDS = 2  # columns of words: those tagged right, and all


def precision_score(sums: Floats) -> Floats:
    """Compute precision from right, answered and true spans; (..., 3) -> (...)."""
    return divide(sums[..., 0], sums[..., 1], nothing=0.0)


def recall_score(sums: Floats) -> Floats:
    """Compute recall from right, answered and true spans; (..., 3) -> (...)."""
    return divide(sums[..., 0], sums[..., 2], nothing=0.0)


SPAN_SCORES: dict[str, ScoreFunction] = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
SCORES = ("f1", "precision", "recall", "f1_macro", "accuracy")


@dataclass(frozen=True)
class TaggingScores:
    """The scores of one system on `n` sentences; `per_class` those of each type that occurs."""

    scores: Mapping[str, Score]
    per_class: Mapping[str, ClassScore]
    n: int
    n_words: int

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and n, words and per_class, as plain JSON."""
        counts = {"n": self.n, "words": self.n_words}
        types = {name: score.to_json() for name, score in self.per_class.items()}
        return {**{name: score.to_json() for name, score in self.scores.items()}, **counts, "per_class": types}


class TaggingMetrics:
    """Gather the spans of sentences, keeping for each three numbers a type: spans found right, found, and true."""

    def __init__(self, types: Sequence[str]) -> None:
        """Begin; spans of a type that is not among `types` count in the averages over all spans alone."""
        self.types = tuple(types)
        self._places = {name: place for place, name in enumerate(self.types)}
        self._rows = array("i")

    @property
    def _width(self) -> int:
        return 3 * (len(self.types) + 1) + N_WORDS

    def add(self, true: Iterable[AnySpan], found: Iterable[AnySpan], *, n_right: int, n_words: int) -> None:
        """Count a sentence: its true spans, those answered, and of its words how many were tagged right, and all."""
        right, answered = set(true), set(found)
        row = [0] * self._width
        for column, spans in enumerate((right & answered, answered, right)):
            for name, n in Counter(span[0] for span in spans).items():
                row[3 * self._places.get(name, len(self.types)) + column] += n
        row[-N_WORDS:] = n_right, n_words
        self._rows.extend(row)

    @property
    def _table(self) -> Floats:
        """The counts so far, (N, 3 (T + 1) + 2)."""
        return np.array(self._rows, dtype=np.float64).reshape(-1, self._width)

    @property
    def statistics(self) -> dict[str, Floats]:
        """The counts behind every score but the macro average, name -> (N, 3), or (N, 2) for accuracy."""
        table = self._table
        over_all = _by_type(table).sum(-2)
        return {**dict.fromkeys(SPAN_SCORES, over_all), "accuracy": table[:, -N_WORDS:]}

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> TaggingScores:
        """Score what was added, each score with its 95 % bootstrap interval; raises DataError where nothing was."""
        table = self._table
        if not len(table):
            raise DataError("tagging metrics: there are no sentences to score; expected at least one; check the data file and its filters")
        sums = resampled_sums(table, resamples=resamples, seed=seed)
        by_type = _by_type(sums)  # (1 + R, T + 1, 3)
        found = {name: function(by_type.sum(1)) for name, function in SPAN_SCORES.items()}
        occurs = by_type[:, :, 1:].sum(-1) > 0
        found["f1_macro"] = divide((f1_score(by_type) * occurs).sum(1), occurs.sum(1), nothing=0.0)
        found["accuracy"] = mean_score(sums[:, -N_WORDS:])
        per_class = {name: _of_type(by_type[:, place]) for name, place in self._places.items() if occurs[0, place]}
        scores = {name: interval(found[name]) for name in SCORES}
        return TaggingScores(scores, per_class, len(table), int(sums[0, -1]))

    def compare(self, other: "TaggingMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same sentences whether another system (b) differs from this one (a), score by score."""
        ours, theirs = self.statistics, other.statistics
        functions = {**SPAN_SCORES, "accuracy": mean_score}
        return {
            name: paired_bootstrap(ours[name], theirs[name], function, resamples=resamples, seed=seed)
            for name, function in functions.items()
        }

    def qualities(self) -> Floats:
        """Return the share of the words of each sentence (N,) that is tagged right."""
        return mean_score(self.statistics["accuracy"])


def _by_type(counts: Floats) -> Floats:
    """Return the counts of spans (..., T + 1, 3) in rows (..., 3 (T + 1) + 2)."""
    return counts[..., :-N_WORDS].reshape(*counts.shape[:-1], -1, 3)


def _of_type(sums: Floats) -> ClassScore:
    parts = {name: interval(function(sums)) for name, function in SPAN_SCORES.items()}
    return ClassScore(**parts, support=int(sums[0, 2]))
