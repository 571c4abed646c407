"""The hygiene of labelled texts: classes and their balance, lengths, duplicates, contradicting labels and leaks between splits.

Texts are compared as `clean` leaves them, by 8-byte hashes; memory grows by some 30 bytes a row, whatever the length of the texts.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from heed.data.quality import SHOWN_CHARACTERS, FaultSurvey, count_words, first_rows, in_any, quantiles, row_hash, word_quantiles
from heed.data.rows import Example
from heed.data.text import clean


@dataclass
class LabelSurvey(FaultSurvey):
    """What was found in the labelled texts of one split, of which examples are {row, text, label}.

    Its faults: nothing is left of "empty" texts after cleaning, "duplicates" stand further up with the same label, "contradictions"
    elsewhere with another, and "leaks" in another split.

    Attributes:
        classes: rows of each label, most frequent first; classes_others the same by other split.
        lengths: quantiles of text_characters and text_words (as word_quantiles has them), over the rows that are not empty.
        shared: for each two other splits, such as "valid and test", how many rows of the second stand in the first.
    """

    classes: dict[str, int]
    classes_others: dict[str, dict[str, int]]
    lengths: dict[str, dict[str, int]]
    shared: dict[str, int]

    @property
    def refused(self) -> str | None:
        """Say which leaks forbid training on all rows; None when there are none."""
        return self.leaking("texts", lambda row: repr(row["text"][:60]))


def survey_labelled(
    examples: Iterable[Example], others: Mapping[str, Iterable[Example]], *, texts: Sequence[str] = ("text",), label: str = "label"
) -> LabelSurvey:
    """Look for faults in labelled texts.

    Args:
        examples: rows, which can be iterated twice.
        others: the splits no text of `examples` should stand in, by name.
        texts: the columns that together are a row's text.
        label: the column of the label: a text, or a list of texts.
    """
    rows = _Rows.read(examples, texts, label)
    others_read = {name: _Rows.read(split, texts, label) for name, split in others.items()}
    hashes, labels = np.array(rows.hashes, dtype=np.uint64), np.array(rows.labels, dtype=np.uint64)
    n_characters = np.array(rows.characters, dtype=np.int64)
    full = n_characters > 0
    leaking = {name: full & np.isin(hashes, other.texts) for name, other in others_read.items()}
    faults = {
        "empty": ~full,
        "duplicates": full & repeats(hashes, labels),
        "contradictions": full & contradicts(hashes, labels),
        "leaks": in_any(leaking, len(hashes)),
    }
    return LabelSurvey(
        faults=faults,
        examples=first_rows(examples, faults, lambda example: _told(example, texts, label)),
        classes=dict(rows.classes.most_common()),
        classes_others={name: dict(other.classes.most_common()) for name, other in others_read.items()},
        lengths={
            "text_characters": quantiles(n_characters[full]),
            "text_words": word_quantiles(np.array(rows.words, dtype=np.int64)[full]),
        },
        leaks={name: int(found.sum()) for name, found in leaking.items()},
        shared={
            f"{first} and {second}": int(np.isin(others_read[second].texts, others_read[first].texts).sum())
            for first, second in combinations(others_read, 2)
        },
    )


class _Rows:
    """Hashes and lengths of the texts of a split, and its classes."""

    def __init__(self) -> None:
        self.hashes, self.labels = array("Q"), array("Q")
        self.characters, self.words = array("Q"), array("Q")
        self.classes: Counter[str] = Counter()

    @classmethod
    def read(cls, examples: Iterable[Example], texts: Sequence[str], label: str) -> "_Rows":
        """Read a split once."""
        rows = cls()
        for example in examples:
            cleaned = [clean(example[column]) for column in texts]
            labels = labels_of(example[label])
            rows.hashes.append(row_hash(*cleaned))
            rows.labels.append(row_hash(*sorted(labels)))
            rows.characters.append(sum(map(len, cleaned)))
            rows.words.append(sum(map(count_words, cleaned)))
            rows.classes.update(labels)
        return rows

    @property
    def texts(self) -> NDArray[np.uint64]:
        """The hashes of the texts that are not empty."""
        return np.array(self.hashes, dtype=np.uint64)[np.array(self.characters, dtype=np.int64) > 0]


def labels_of(value: str | list[str]) -> list[str]:
    """Return the labels of a row that has one or several."""
    return [value] if isinstance(value, str) else value


def repeats(hashes: NDArray[np.uint64], labels: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Find rows whose text and label stand further up together."""
    _, first = np.unique(np.stack([hashes, labels], axis=1), axis=0, return_index=True)
    repeats = np.ones(len(hashes), dtype=bool)
    repeats[first] = False
    return repeats


def contradicts(hashes: NDArray[np.uint64], labels: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Find rows whose text stands with several labels."""
    distinct = np.unique(np.stack([hashes, labels], axis=1), axis=0)[:, 0]
    texts, n_labels = np.unique(distinct, return_counts=True)
    return np.isin(hashes, texts[n_labels > 1])


def _told(example: Example, texts: Sequence[str], label: str) -> dict[str, str]:
    text = " | ".join(clean(example[column]) for column in texts)[:SHOWN_CHARACTERS]
    return {"text": text, "label": ", ".join(labels_of(example[label]))}
