"""Scores for transcripts: word and character error rates, right sentences, and what the errors are.

The word error rate (WER) is the fewest substitutions, insertions and deletions that turn the references into the answers, divided by the
words of the references; all utterances are added up first. Answers with many words too many take it above 1. Where no reference holds a
word there is nothing to divide by, and the rate is the number of words inserted, as jiwer has it. The character error rate (CER) is the
same for characters, spaces among them.

A Chinese or Japanese character is a word of its own; words of other scripts are what white space parts. Only counts are kept, and the
pairs of words that are confused, never the texts.

Left out: what an error costs (all cost the same), and when a word was said.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from heed.errors import DataError, MissingExtra
from heed.metrics.intervals import Comparison, Floats, Numbers, Score, ScoreFunction, bootstrap, interval, paired_bootstrap, resampled_sums
from heed.metrics.ratios import mean_score
from heed.metrics.translation import LENGTH_UNITS

if TYPE_CHECKING:
    from jiwer import AlignmentChunk, WordOutput

Counts = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

EDITS = ("substitute", "insert", "delete", "equal")  # the order of an utterance's counts, of words and then of characters
N_COLUMNS = 2 * len(EDITS)
CHUNK_ROWS = 256  # utterances aligned at once

BUCKETS = ("0", "1-2", "3-5", "6-10", "11-20", "21+")
BUCKET_ENDS = (0, 2, 5, 10, 20)  # the longest reference of each bucket but the last, in words

COMPARED = ("wer", "cer", "sentence_accuracy")
LEAST_SPEAKERS = 5  # fewer do not show how far speakers differ, so utterances are resampled instead
MOST_SPEAKERS = 30  # whose error rate is told, the worst
MOST_CONFUSED = 20
PAIRS_KEPT = 100_000  # different errors held; beyond it the rarer half goes, so the counts of very rare ones may come out too low


@dataclass(frozen=True)
class Portion:
    """The word error rate of `n` utterances that have something in common: a speaker, or a length."""

    name: str
    n: int
    wer: Score

    def to_json(self, by: str) -> dict[str, Any]:
        """Return the portion as plain JSON, its name under the key `by`."""
        return {by: self.name, "n": self.n, "wer": self.wer.to_json()}


@dataclass(frozen=True)
class SpeechScores:
    """The scores of one system on one set of `n` utterances.

    Attributes:
        scores: wer and cer from 0 up, less is better; recognition_accuracy, which is 1 - WER and may fall below 0; sentence_accuracy,
            the share of utterances without a word error.
        errors: substitutions, insertions and deletions of words, and the words of the references.
        confused: (word of the reference, word of the answer, how often), most often first; "" where a word was inserted or deleted.
        by_speaker: the speakers of highest word error rate, worst first.
        buckets: in order of the reference's length in words; empty ones are left out.
        normalisation: what was done to both texts.
        intervals_by: what the intervals rest on resamples of, "speakers" or "utterances". A portion's rest on its own speakers, where
            it has enough of them.
        seconds: of audio; None if that was not told.
    """

    scores: Mapping[str, Score]
    errors: Mapping[str, int]
    confused: Sequence[tuple[str, str, int]]
    by_speaker: Sequence[Portion]
    buckets: Sequence[Portion]
    normalisation: str
    intervals_by: str
    n: int
    seconds: float | None

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and what explains them, as plain JSON."""
        return {
            **{name: score.to_json() for name, score in self.scores.items()},
            "n": self.n,
            **({} if self.seconds is None else {"seconds": round(self.seconds, 3)}),
            "normalisation": self.normalisation,
            "intervals_by": self.intervals_by,
            "errors": dict(self.errors),
            "confused": [{"reference": said, "hypothesis": heard, "count": count} for said, heard, count in self.confused],
            "by_speaker": [portion.to_json("speaker") for portion in self.by_speaker],
            "buckets": [portion.to_json("length") for portion in self.buckets],
        }


class SpeechMetrics:
    """Gather transcripts batch by batch; any split into batches gives the same scores.

    Args:
        normalisation: the name of what is done to both texts before they are compared; it is told with the scores.
        normalise: what does it, `heed.data.transcripts.NORMALISATIONS[normalisation]`: metrics know of no data.
    Raises:
        MissingExtra: jiwer is not installed.
    """

    def __init__(self, normalisation: str, normalise: Callable[[str], str]) -> None:
        if find_spec("jiwer") is None:
            raise MissingExtra("jiwer", "speech", "scoring transcripts")
        self.normalisation = normalisation
        self._normalise = normalise
        self._rows = array("i")
        self._confused: Counter[tuple[str, str]] = Counter()
        self._speakers: dict[str, int] = {}
        self._spoken_by = array("i")  # the number of each utterance's speaker; -1 for an unknown one
        self._seconds: float | None = None

    def add(
        self,
        hypotheses: Sequence[str],
        references: Sequence[str],
        *,
        groups: Sequence[str] | None = None,
        seconds: Sequence[float] | None = None,
    ) -> None:
        """Count a batch: one hypothesis and one reference per utterance.

        Args:
            groups: the speaker of each utterance, "" for an unknown one; None if all are unknown.
            seconds: how long each utterance is.
        Raises:
            DataError: these do not have the same length.
        """
        speakers = [""] * len(references) if groups is None else groups
        lengths = [0.0] * len(references) if seconds is None else seconds
        if not len(hypotheses) == len(references) == len(speakers) == len(lengths):
            found = f"{len(hypotheses)} hypotheses, {len(references)} references, {len(speakers)} speakers and {len(lengths)} lengths"
            raise DataError(f"speech metrics: {found}; give one of each per utterance")
        for start in range(0, len(references), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            self._count([self._normalise(text) for text in hypotheses[part]], [self._normalise(text) for text in references[part]])
        self._spoken_by.extend(self._speakers.setdefault(name, len(self._speakers)) if name else -1 for name in speakers)
        if seconds is not None:
            for length in seconds:
                self._seconds = (self._seconds or 0.0) + length

    @property
    def statistics(self) -> dict[str, Counts]:
        """The counts behind every score, name -> (N, K): what `bootstrap` and `paired_bootstrap` take with `SPEECH_FUNCTIONS[name]`."""
        table = np.array(self._rows, dtype=np.int32).reshape(-1, N_COLUMNS)
        words, characters = np.split(table, 2, axis=1)
        right = np.stack([_errors(words) == 0, np.ones(len(table))], axis=1).astype(np.int32)
        return {"wer": words, "cer": characters, "recognition_accuracy": words, "sentence_accuracy": right}

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> SpeechScores:
        """Score what was added, each score with its 95 % bootstrap interval.

        Raises:
            DataError: nothing was added.
        """
        statistics = self.statistics
        words = statistics["wer"]
        if not len(words):
            raise DataError("speech metrics: there are no utterances to score; expected at least one; check the data file and its filters")
        groups = self._groups(np.ones(len(words), dtype=np.bool_))
        sums = resampled_sums(np.concatenate(list(statistics.values()), axis=1), resamples=resamples, seed=seed, groups=groups)
        ends = np.cumsum([rows.shape[1] for rows in statistics.values()])
        parts = np.split(sums, ends[:-1], axis=1)
        return SpeechScores(
            scores={name: interval(SPEECH_FUNCTIONS[name](part)) for name, part in zip(statistics, parts, strict=True)},
            errors=_error_counts(words),
            confused=[(*pair, count) for pair, count in self._confused.most_common(MOST_CONFUSED)],
            by_speaker=self._by_speaker(words, resamples, seed),
            buckets=self._buckets(words, resamples, seed),
            normalisation=self.normalisation,
            intervals_by="utterances" if groups is None else "speakers",
            n=len(words),
            seconds=self._seconds,
        )

    def compare(self, other: "SpeechMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same utterances whether another system (b) differs from this one (a), score by score.

        Raises:
            DataError: the two do not have the same normalisation, or number of utterances.
        """
        if self.normalisation != other.normalisation:
            raise DataError(
                f"paired test: the texts of system a are normalised as {self.normalisation!r}, those of system b as "
                f"{other.normalisation!r}; normalise both alike"
            )
        ours, theirs = self.statistics, other.statistics
        groups = self._groups(np.ones(len(ours["wer"]), dtype=np.bool_))
        return {
            name: paired_bootstrap(ours[name], theirs[name], SPEECH_FUNCTIONS[name], resamples=resamples, seed=seed, groups=groups)
            for name in COMPARED
        }

    def qualities(self) -> Floats:
        """Return 100 x (1 - WER) of every utterance, (N,): 100 for a right one, and below 0 where more is wrong than was said."""
        return 100 * recognition_accuracy(self.statistics["wer"].astype(np.float64))

    def _count(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Align a few utterances, and append a row of counts for each."""
        from jiwer import process_characters, process_words

        words = process_words([_spaced(text) for text in references], [_spaced(text) for text in hypotheses])
        characters = process_characters(list(references), list(hypotheses))
        for by_word, by_character in zip(words.alignments, characters.alignments, strict=True):
            self._rows.extend([*_edit_counts(by_word), *_edit_counts(by_character)])
        for pair in _confusions(words):
            self._confused[pair] += 1
            if len(self._confused) > PAIRS_KEPT:
                self._confused = Counter(dict(self._confused.most_common(PAIRS_KEPT // 2)))

    def _groups(self, chosen: Bools) -> Numbers | None:
        """Return a number for the speaker of each chosen utterance, another for each whose speaker is unknown; None for few speakers."""
        speakers = np.array(self._spoken_by)[chosen]
        if len(np.unique(speakers[speakers >= 0])) < LEAST_SPEAKERS:
            return None
        return np.where(speakers >= 0, speakers, len(self._speakers) + np.arange(len(speakers)))

    def _by_speaker(self, words: Counts, resamples: int, seed: int) -> list[Portion]:
        """Score the speakers of highest word error rate."""
        speakers = np.array(self._spoken_by, dtype=np.int64)
        sums = np.zeros((len(self._speakers), len(EDITS)))
        np.add.at(sums, speakers[speakers >= 0], words[speakers >= 0])
        worst = np.argsort(-error_rate(sums), kind="stable")[:MOST_SPEAKERS]
        names = list(self._speakers)
        return [self._portion(names[number], words, speakers == number, resamples, seed) for number in worst]

    def _buckets(self, words: Counts, resamples: int, seed: int) -> list[Portion]:
        """Score the utterances of each length."""
        place = np.searchsorted(BUCKET_ENDS, _reference_lengths(words))
        return [self._portion(BUCKETS[index], words, place == index, resamples, seed) for index in np.unique(place)]

    def _portion(self, name: str, words: Counts, chosen: Bools, resamples: int, seed: int) -> Portion:
        groups = self._groups(chosen)
        return Portion(name, int(chosen.sum()), bootstrap(words[chosen], error_rate, resamples=resamples, seed=seed, groups=groups))


def error_rate(sums: Floats) -> Floats:
    """Compute errors per word (or character) of the reference, the errors themselves where it has none; (..., 4) -> (...)."""
    rates: Floats = _errors(sums) / np.maximum(_reference_lengths(sums), 1)
    return rates


def recognition_accuracy(sums: Floats) -> Floats:
    """Compute 1 - WER, which falls below 0 where there are more errors than words; (..., 4) -> (...)."""
    return 1 - error_rate(sums)


SPEECH_FUNCTIONS: dict[str, ScoreFunction] = {
    "wer": error_rate,
    "cer": error_rate,
    "recognition_accuracy": recognition_accuracy,
    "sentence_accuracy": mean_score,
}


def _errors(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Add up substitutions, insertions and deletions, (..., 4) -> (...)."""
    total: npt.NDArray[Any] = counts[..., :3].sum(axis=-1)
    return total


def _reference_lengths(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Add up what of the reference was substituted, deleted and found, (..., 4) -> (...)."""
    total: npt.NDArray[Any] = counts[..., [0, 2, 3]].sum(axis=-1)
    return total


def _error_counts(words: Counts) -> dict[str, int]:
    """Sum up the errors of all utterances, and the words of their references."""
    substitutions, insertions, deletions, _ = words.sum(axis=0, dtype=np.int64).tolist()
    n_words = int(_reference_lengths(words).sum(dtype=np.int64))
    return {"substitutions": substitutions, "insertions": insertions, "deletions": deletions, "words": n_words}


def _spaced(text: str) -> str:
    """Return the words of a text with a space between any two, Chinese and Japanese characters being words."""
    return " ".join(LENGTH_UNITS.findall(text))


def _edit_counts(chunks: "Sequence[AlignmentChunk]") -> list[int]:
    """Count an utterance's substitutions, insertions, deletions and hits, in the order of EDITS."""
    counts = dict.fromkeys(EDITS, 0)
    for chunk in chunks:
        counts[chunk.type] += max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
    return list(counts.values())


def _confusions(aligned: "WordOutput") -> Iterator[tuple[str, str]]:
    """Yield every error as (word of the reference, word of the hypothesis), with "" for what is not there."""
    for said, heard, chunks in zip(aligned.references, aligned.hypotheses, aligned.alignments, strict=True):
        for chunk in chunks:
            if chunk.type != "equal":
                meant, answered = said[chunk.ref_start_idx : chunk.ref_end_idx], heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
                yield from zip_longest(meant, answered, fillvalue="")
