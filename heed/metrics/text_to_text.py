"""Scores for one model that does several tasks: of all answers, and of those to each prefix, by the same measures.

BLEU and chrF are sacreBLEU's (heed.metrics.translation), ROUGE that of heed.metrics.rouge; accuracy is the share of answers that equal
their reference, which is what a class written as a word is scored by. Only numbers are kept, never the texts.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heed.errors import DataError
from heed.metrics.intervals import Comparison, Floats, Score, ScoreFunction, bootstrap, paired_bootstrap
from heed.metrics.ratios import mean_score
from heed.metrics.rouge import ROUGE, Rouge
from heed.metrics.translation import TranslationMetrics, bleu_score, chrf_score, effective_bleu_score

OF_PAIRS: dict[str, str] = {"bleu": "bleu", "chrf": "chrf", "accuracy": "exact_match"}  # our name -> that of TranslationMetrics
SCORE_FUNCTIONS: dict[str, ScoreFunction] = {
    "bleu": bleu_score,
    "chrf": chrf_score,
    "accuracy": mean_score,
    "rouge1": mean_score,
    "rouge2": mean_score,
    "rougeL": mean_score,
}
# Of the answers to one prefix, which may all be shorter than a 4-gram: one-word classes that are all right have a BLEU of 100, not 0.
OF_PREFIXES: dict[str, ScoreFunction] = {**SCORE_FUNCTIONS, "bleu": effective_bleu_score}


@dataclass(frozen=True)
class PrefixScores:
    """The scores of the `n` answers to one prefix, as a corpus of their own; its BLEU is of effective order, whatever signatures say."""

    prefix: str
    n: int
    scores: Mapping[str, Score]

    def to_json(self) -> dict[str, Any]:
        """Return prefix, n and every score by its name."""
        return {"prefix": self.prefix, "n": self.n, **{name: score.to_json() for name, score in self.scores.items()}}


@dataclass(frozen=True)
class TextToTextScores:
    """The scores of one model on `n` examples; bleu and chrf from 0 to 100, the others from 0 to 1.

    `by_prefix` are in the order in which prefixes came; with fewer than two there are none.
    """

    scores: Mapping[str, Score]
    by_prefix: Sequence[PrefixScores]
    signatures: Mapping[str, str]
    n: int
    n_cut: int = 0  # examples whose source was not read to its end

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and n, signatures, sources_cut and by_prefix."""
        told: dict[str, Any] = {"n": self.n, "signatures": dict(self.signatures)}
        told |= {"sources_cut": self.n_cut} if self.n_cut else {}
        told |= {"by_prefix": [one.to_json() for one in self.by_prefix]} if self.by_prefix else {}
        return {**{name: score.to_json() for name, score in self.scores.items()}, **told}


class TextToTextMetrics:
    """Gather answers batch by batch, keeping numbers only.

    Args:
        names: of SCORE_FUNCTIONS, what to score by.
        language: of the answers, which picks BLEU's tokenizer; None finds it out from the first references.
    Raises:
        MissingExtra: a name is one of ROUGE, and rouge-score is not installed.
    """

    def __init__(self, names: Sequence[str], language: str | None = None) -> None:
        self.names = list(names)
        of_rouge = [name for name in self.names if name in ROUGE]
        self._rouge = Rouge(of_rouge) if of_rouge else None
        self._pairs = TranslationMetrics(language, ter=False) if len(of_rouge) < len(self.names) else None
        self._f1 = array("d")
        self._n_cut = 0
        self._prefixes: dict[str, int] = {}
        self._numbers = array("I")  # of the prefix of each example

    def add(
        self, prefixes: Sequence[str], sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str], *, n_cut: int = 0
    ) -> None:
        """Count a batch: a prefix ("" for none), a source, an answer and a reference for each example; n_cut sources were cut."""
        self._n_cut += n_cut
        self._numbers.extend(self._prefixes.setdefault(prefix, len(self._prefixes)) for prefix in prefixes)
        if self._pairs is not None:
            self._pairs.add(sources, hypotheses, references)
        if self._rouge is not None:
            for hypothesis, reference in zip(hypotheses, references, strict=True):
                self._f1.extend(self._rouge.f1(hypothesis, reference))

    @property
    def statistics(self) -> dict[str, Floats]:
        """The counts behind every score, name -> (N, K): what `bootstrap` takes with `SCORE_FUNCTIONS[name]`."""
        found: dict[str, Floats] = {}
        if self._rouge is not None:
            f1 = np.array(self._f1, dtype=np.float64).reshape(-1, len(self._rouge.names))
            found |= {name: np.stack([column, np.ones(len(f1))], axis=1) for name, column in zip(self._rouge.names, f1.T, strict=True)}
        if self._pairs is not None:
            counts = self._pairs.statistics
            found |= {name: counts[OF_PAIRS[name]].astype(np.float64) for name in self.names if name in OF_PAIRS}
        return {name: found[name] for name in self.names}

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> TextToTextScores:
        """Score what was added, each score with its 95 % bootstrap interval.

        Raises:
            DataError: nothing was added.
        """
        if not self._numbers:
            raise DataError("text-to-text metrics: there is nothing to score; expected at least one example; check the data file")
        statistics, numbers = self.statistics, np.array(self._numbers)

        def scored(rows: Any, functions: Mapping[str, ScoreFunction]) -> dict[str, Score]:
            return {name: bootstrap(some[rows], functions[name], resamples=resamples, seed=seed) for name, some in statistics.items()}

        chosen = {prefix: numbers == number for prefix, number in self._prefixes.items()} if len(self._prefixes) > 1 else {}
        by_prefix = [PrefixScores(prefix, int(rows.sum()), scored(rows, OF_PREFIXES)) for prefix, rows in chosen.items()]
        return TextToTextScores(scored(slice(None), SCORE_FUNCTIONS), by_prefix, self._signatures(), len(numbers), self._n_cut)

    def compare(self, other: "TextToTextMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same examples whether another system (b) differs from this one (a), score by score."""
        ours, theirs = self.statistics, other.statistics
        return {
            name: paired_bootstrap(ours[name], theirs[name], SCORE_FUNCTIONS[name], resamples=resamples, seed=seed)
            for name in ours
            if name in theirs
        }

    def qualities(self) -> Floats:
        """Return how good each answer is (N,): the F1 of the last ROUGE that is scored by, otherwise its chrF."""
        if self._rouge is not None:
            return self.statistics[self._rouge.names[-1]][:, 0]
        assert self._pairs is not None
        return self._pairs.qualities()

    def _signatures(self) -> dict[str, str]:
        named = {} if self._pairs is None else self._pairs.signatures
        found = {name: text for name, text in named.items() if name in self.names}
        return found if self._rouge is None else found | {"rouge": self._rouge.signature}
