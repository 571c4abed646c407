"""The hygiene of questions about contexts: lengths, questions without an answer, duplicates, and contexts that stand in two splits.

A context that was learned from makes questions about it easier, even others, so that a context in two splits is a leak; a title, of an
article that was divided between them, is worth a warning. Texts are compared as `clean` leaves them, by 8-byte hashes; memory grows by some
60 bytes a row, whatever the length of the texts. Left out: whether an answer is right.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from heed.data.quality import SHOWN_CHARACTERS, FaultSurvey, count_words, first_rows, in_any, quantiles_of, row_hash
from heed.data.rows import Example
from heed.data.text import clean

Hashes = NDArray[np.uint64]
LENGTHS = ("question_words", "context_words", "context_characters", "answer_characters")


@dataclass
class QuestionSurvey(FaultSurvey):
    """What was found in the questions of one split, of which examples are {row, text, context}.

    Its faults: "duplicates" ask the same of the same context further up, "leaks" have a context that stands in another split.

    Attributes:
        without_answer: rows without any.
        contexts, titles: how many different ones there are.
        lengths: quantiles of LENGTHS; words as word_quantiles has them, and answers the first of each row.
        shared: for each two other splits, such as "valid and test", how many rows of the second have a context of the first.
        warnings: what else is worth saying.
    """

    without_answer: int
    contexts: int
    titles: int
    lengths: dict[str, dict[str, int]]
    shared: dict[str, int]
    warnings: list[str]

    @property
    def refused(self) -> str | None:
        """Say which leaks forbid training on all rows; None when there are none."""
        return self.leaking("questions", lambda row: repr(row["text"][:60]), stand="ask about a context that stands")


def survey_questions(examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> QuestionSurvey:
    """Look for faults in questions with their contexts and answers.

    Args:
        examples: rows, which can be iterated twice.
        others: the splits no context of `examples` should stand in, by name.
    """
    rows = _Rows.read(examples)
    read = {name: _Rows.read(split) for name, split in others.items()}
    leaking = {name: np.isin(rows.contexts, other.contexts) for name, other in read.items()}
    faults = {"duplicates": _repeats(rows), "leaks": in_any(leaking, rows.n)}
    return QuestionSurvey(
        faults=faults,
        examples=first_rows(examples, faults, _told),
        without_answer=rows.without_answer,
        contexts=len(np.unique(rows.contexts)),
        titles=len(np.unique(rows.titles)),
        lengths={name: quantiles_of(name, np.array(values, np.int64)) for name, values in rows.lengths.items()},
        leaks={name: int(found.sum()) for name, found in leaking.items()},
        shared={
            f"{first} and {second}": int(np.isin(read[second].contexts, read[first].contexts).sum())
            for first, second in combinations(read, 2)
        },
        warnings=[_warning(name, n) for name, other in read.items() if (n := len(np.intersect1d(rows.titles, other.titles)))],
    )


def _warning(name: str, n_titles: int) -> str:
    articles = "1 article has" if n_titles == 1 else f"{n_titles:,} articles have"
    return f"{articles} paragraphs in the training data and in data.{name}: scores may be too good for articles never seen"


@dataclass
class _Rows:
    """Hashes and lengths of the questions of a split."""

    questions: "array[int]" = field(default_factory=lambda: array("Q"))
    context_hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    title_hashes: "array[int]" = field(default_factory=lambda: array("Q"))
    lengths: "dict[str, array[int]]" = field(default_factory=lambda: {name: array("Q") for name in LENGTHS})
    without_answer: int = 0
    last: tuple[str, int, int] = ("", 0, 0)  # a context with its hash and words; the next row mostly has the same

    @classmethod
    def read(cls, examples: Iterable[Example]) -> "_Rows":
        """Read a split once."""
        rows = cls()
        for example in examples:
            rows.add(example)
        return rows

    def add(self, example: Example) -> None:
        """Take in a row."""
        question, context, answers = clean(example["question"]), example["context"], example.get("answers", [])
        if context != self.last[0]:
            cleaned = clean(context)
            self.last = context, row_hash(cleaned), count_words(cleaned)
        self.questions.append(row_hash(question))
        self.context_hashes.append(self.last[1])
        if isinstance(example.get("title"), str):
            self.title_hashes.append(row_hash(example["title"]))
        self.lengths["question_words"].append(count_words(question))
        self.lengths["context_words"].append(self.last[2])
        self.lengths["context_characters"].append(len(context))
        self.lengths["answer_characters"].extend(len(answer["text"]) for answer in answers[:1])
        self.without_answer += not answers

    @property
    def n(self) -> int:
        """Rows read."""
        return len(self.questions)

    @property
    def contexts(self) -> Hashes:
        """The hash of each row's context, (n,)."""
        return np.array(self.context_hashes, dtype=np.uint64)

    @property
    def titles(self) -> Hashes:
        """The hashes of the titles of rows that have one."""
        return np.unique(np.array(self.title_hashes, dtype=np.uint64))


def _repeats(rows: _Rows) -> NDArray[np.bool_]:
    """Find rows whose question and context stand further up together."""
    both = np.stack([np.array(rows.questions, dtype=np.uint64), rows.contexts], axis=1)
    repeats = np.ones(rows.n, dtype=bool)
    repeats[np.unique(both, axis=0, return_index=True)[1]] = False
    return repeats


def _told(example: Example) -> dict[str, str]:
    texts = {"text": example["question"], "context": example["context"]}
    return {key: " ".join(text.split())[:SHOWN_CHARACTERS] for key, text in texts.items()}
