"""Scores for answers that are parts of a text: exact match and F1 by the rules of SQuAD's scripts (Rajpurkar et al. 2016, 2018).

Texts are compared in lower case, without ASCII punctuation, without the words a, an and the, with single spaces. An answer matches when it
is then equal to a reference; its F1 is that of the words both hold, repeated ones counted as often as both have them; the best of all
references counts. The script of version 2.0 holds questions without an answer besides: there, an answer is right when it is empty.
It differs in small ways, so that the rules of 1.1 hold where every question has an answer and those of 2.0 otherwise. Values are
shares; the scripts print 100 times as much.

Where a text holds characters of a script without spaces, each such character is a word of its own, as CMRC 2018 (Cui et al. 2019) cuts
Chinese, and punctuation beyond ASCII goes too; the scripts would take a whole clause for a word.

Intervals draw contexts, because questions about one paragraph are not independent. Only numbers are kept, never the texts.
"""

import re
import string
import unicodedata
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from heed.errors import DataError
from heed.metrics.intervals import Comparison, Floats, Score, interval, paired_bootstrap, resampled_sums
from heed.metrics.ratios import mean_score
from heed.metrics.rows import Rows

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
# Thai, Lao, Tibetan, Myanmar, Khmer; Chinese and Japanese with their punctuation and forms of full width.
SPACELESS = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u2e80-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff]"
)

SCORES = ("exact_match", "f1")
PARTS = ("has_answer_exact_match", "has_answer_f1", "no_answer_exact_match")  # where some questions have no answer
# A question's row: exact match and F1 by the rules of 1.1, both by those of 2.0, both had the likeliest part been answered (by 2.0), 1 for
# a question with an answer, how far the log p of no answer leads that of the likeliest part, and how sure the answer is.
N_COLUMNS = 9
OF_V1, OF_V2, OF_LIKELIEST, HAS_ANSWER, LEAD, SURE = slice(0, 2), slice(2, 4), slice(4, 6), 6, 7, 8


class Match(NamedTuple):
    """How well an answer agrees with the best of its references, from 0 to 1."""

    exact_match: float
    f1: float


@lru_cache(maxsize=64)  # a reference is compared several times, then never again
def normalised(text: str) -> str:
    """Return a text as answers are compared."""
    text = text.lower().translate(PUNCTUATION)
    if SPACELESS.search(text):
        text = "".join(char for char in text if unicodedata.category(char)[0] != "P")
    return " ".join(ARTICLES.sub(" ", text).split())


def words_of(text: str) -> list[str]:
    """Return the words of a normalised text; a character of a script without spaces is one."""
    return SPACELESS.sub(r" \g<0> ", text).split()


def match_v1(answer: str, references: Sequence[str]) -> Match:
    """Compare an answer with its references, one at least, as the script of SQuAD 1.1 does."""
    found = normalised(answer)
    wanted = [normalised(reference) for reference in references]
    return Match(float(found in wanted), max(_f1(found, one) for one in wanted))


def match_v2(answer: str, references: Sequence[str]) -> Match:
    """Compare an answer with its references, of which there may be none, as the script of SQuAD 2.0 does.

    References of which nothing is left do not count; where none counts, only an answer of which nothing is left is right.
    """
    found = normalised(answer)
    wanted = [one for one in map(normalised, references) if one] or [""]
    f1 = max(_f1(found, one) if found and one else float(found == one) for one in wanted)
    return Match(float(found in wanted), f1)


def _f1(found: str, wanted: str) -> float:
    """Return the F1 of the words of two normalised texts; 0 where they share none."""
    said, right = words_of(found), words_of(wanted)
    n_common = (Counter(said) & Counter(right)).total()
    if not n_common:
        return 0.0
    precision, recall = n_common / len(said), n_common / len(right)
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class AnswerScores:
    """The scores of one system on `n` questions, of which `n_without_answer` have none, by the rules of a version of SQuAD."""

    scores: Mapping[str, Score]
    n: int
    n_without_answer: int
    n_contexts: int

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and n, without_answer, contexts and rules."""
        rules = "SQuAD 2.0" if self.n_without_answer else "SQuAD 1.1"
        about = {"n": self.n, "without_answer": self.n_without_answer, "contexts": self.n_contexts, "rules": rules}
        return {**{name: score.to_json() for name, score in self.scores.items()}, **about}


class AnswerMetrics:
    """Gather how well questions are answered."""

    def __init__(self) -> None:
        self._rows, self._contexts = Rows(N_COLUMNS), array("Q")

    def add(  # what an answer is judged by
        self, answer: str, references: Sequence[str], *, context: int, likeliest: str | None = None, lead: float = -inf, sure: float = 0.0
    ) -> None:
        """Count the answer to a question.

        Args:
            answer: "" for no answer.
            references: the texts of the right answers; none for a question without.
            context: a number that questions about the same context share, such as its hash.
            likeliest: the answer if there had to be one; by default the answer.
            lead: how far the log p of no answer leads that of the likeliest one; by default none was possible.
            sure: the probability of what was answered.
        """
        v2 = match_v2(answer, references)
        v1 = match_v1(answer, references) if references else v2
        likely = match_v2(answer if likeliest is None else likeliest, references)
        lead = max(-1e300, min(1e300, lead))  # sums of rows stay finite
        self._rows.add([[*v1, *v2, *likely, float(bool(references)), lead, sure]])
        self._contexts.append(context)

    @property
    def n(self) -> int:
        """Questions so far."""
        return len(self._contexts)

    @property
    def n_without_answer(self) -> int:
        """Questions so far that have none."""
        return int((self._rows.table[:, HAS_ANSWER] == 0).sum())

    @property
    def statistics(self) -> dict[str, Floats]:
        """Per score and question the value and whether it counts, name -> (N, 2): what `bootstrap` takes with `mean_score`."""
        table = self._rows.table
        has_answer = table[:, HAS_ANSWER]
        values = table[:, OF_V1 if has_answer.all() else OF_V2]
        every = np.ones(len(table))
        found = {name: np.stack([values[:, i], every], axis=1) for i, name in enumerate(SCORES)}
        if not has_answer.all():
            parts = ((0, has_answer), (1, has_answer), (0, 1 - has_answer))
            found |= {name: np.stack([values[:, i] * of, of], axis=1) for name, (i, of) in zip(PARTS, parts, strict=True) if of.any()}
        return found

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> AnswerScores:
        """Score what was added, each score with its 95 % bootstrap interval over contexts.

        Raises:
            DataError: nothing was added.
        """
        if not self.n:
            raise DataError("answer metrics: there are no questions to score; expected at least one; check the data file and its filters")
        statistics = self.statistics
        sums = resampled_sums(np.concatenate(list(statistics.values()), axis=1), resamples=resamples, seed=seed, groups=self._contexts)
        scores = {name: interval(mean_score(sums[:, 2 * i : 2 * i + 2])) for i, name in enumerate(statistics)}
        return AnswerScores(scores, self.n, self.n_without_answer, len(set(self._contexts)))

    def compare(self, other: "AnswerMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same questions whether another system (b) differs from this one (a), score by score."""
        ours, theirs = self.statistics, other.statistics
        return {
            name: paired_bootstrap(ours[name], theirs[name], mean_score, resamples=resamples, seed=seed, groups=self._contexts)
            for name in ours
        }

    def qualities(self) -> Floats:
        """Return the F1 of every answer (N,), by which a report finds the best and the worst."""
        return self.statistics["f1"][:, 0]

    def mistakes(self) -> npt.NDArray[np.intp]:
        """Return which answers share nothing with any reference, the surest first."""
        sure = np.where(self.qualities() > 0, -1.0, self._rows.table[:, SURE])
        order = np.argsort(-sure, kind="stable")
        return order[sure[order] >= 0]

    def best_threshold(self) -> float:
        """Return how far the log p of no answer has to lead for it to be given, so that F1 is highest on what was added.

        As in SQuAD 2.0's script all thresholds are tried; the one returned lies in the middle between two questions.
        """
        table = self._rows.table
        order = np.argsort(table[:, LEAD], kind="stable")  # those that are answered first as the threshold rises
        leads = table[order, LEAD]
        gain = table[order, OF_LIKELIEST][:, 1] - (1 - table[order, HAS_ANSWER])  # of answering, over not answering
        totals = np.append(0.0, np.cumsum(gain))  # (N + 1,), of answering so many
        between = np.append(np.append(True, leads[1:] > leads[:-1]), True)  # equal leads are answered together
        n_answered = int(np.argmax(np.where(between, totals, -np.inf)))
        ends = [leads[0] - 2.0, *leads.tolist(), leads[-1] + 2.0]
        return float((ends[n_answered] + ends[n_answered + 1]) / 2)
