"""The hygiene of labelled texts: classes and their balance, lengths, duplicates, contradicting labels and leaks between splits.

Texts are compared as `clean` leaves them, by 8-byte hashes; memory grows by some 30 bytes a row, whatever the length of the texts.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.data.quality import MAX_EXAMPLES, SHOWN_CHARACTERS, quantiles, row_hash
from heed.data.read import Example
from heed.data.text import clean


class TextFlag(IntFlag):
    """What can be wrong with a labelled text; one bit each."""

    EMPTY = 1  # nothing is left after cleaning
    DUPLICATE = 2  # the same text stands further up with the same label
    CONTRADICTION = 4  # the same text stands elsewhere with another label
    LEAK = 8  # the same text stands in another split


FLAG_NAMES = {
    TextFlag.EMPTY: "empty",
    TextFlag.DUPLICATE: "duplicates",
    TextFlag.CONTRADICTION: "contradictions",
    TextFlag.LEAK: "leaks",
}


@dataclass
class LabelSurvey:
    """What was found in the labelled texts of one split.

    Attributes:
        flags: (n_rows,) uint8, the TextFlags of each row.
        keep: (n_rows,) bool, True where no flag is set.
        examples: the first rows of each flag, as {row, text, label}; rows count from 1.
        classes: rows of each label, most frequent first; classes_others the same by other split.
        lengths: quantiles of text_characters and text_words, white-space separated, over the rows that are not empty.
        leaks: for each other split, how many rows of this one stand in it.
        shared: for each two other splits, such as "valid and test", how many rows of the second stand in the first.
    """

    flags: NDArray[np.uint8]
    keep: NDArray[np.bool_]
    examples: dict[TextFlag, list[dict[str, Any]]]
    classes: dict[str, int]
    classes_others: dict[str, dict[str, int]]
    lengths: dict[str, dict[str, int]]
    leaks: dict[str, int]
    shared: dict[str, int]

    @property
    def counts(self) -> dict[TextFlag, int]:
        """Rows with each flag; a row may have several."""
        return {flag: int(np.count_nonzero(self.flags & flag)) for flag in TextFlag}

    @property
    def refused(self) -> str | None:
        """Say which leaks forbid training on all rows; None when there are none."""
        leaking = {name: n for name, n in self.leaks.items() if n}
        if not leaking:
            return None
        found = " and ".join(f"{n:,} of them stand in data.{name} too" for name, n in leaking.items())
        first = self.examples[TextFlag.LEAK][0]
        return (
            f"the training texts leak: {found} (the first is row {first['row']}, {first['text'][:60]!r}), so scores would be too good; "
            "leave such rows out with data.filter=true, or train all the same with data.allow_leaks=true"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values: `rows`, `clean` (rows without a flag), and the attributes by name."""
        return {
            "rows": len(self.flags),
            "clean": int(self.keep.sum()),
            "counts": {FLAG_NAMES[flag]: count for flag, count in self.counts.items()},
            "examples": {FLAG_NAMES[flag]: rows for flag, rows in self.examples.items()},
            "classes": self.classes,
            "classes_others": self.classes_others,
            "lengths": self.lengths,
            "leaks": self.leaks,
            "shared": self.shared,
        }


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
    flags = np.zeros(len(hashes), dtype=np.uint8)
    flags[~full] |= np.uint8(TextFlag.EMPTY)
    flags[full & repeats(hashes, labels)] |= np.uint8(TextFlag.DUPLICATE)
    flags[full & contradicts(hashes, labels)] |= np.uint8(TextFlag.CONTRADICTION)
    for found in leaking.values():
        flags[found] |= np.uint8(TextFlag.LEAK)
    return LabelSurvey(
        flags=flags,
        keep=flags == 0,
        examples=_shown(examples, flags, texts, label),
        classes=dict(rows.classes.most_common()),
        classes_others={name: dict(other.classes.most_common()) for name, other in others_read.items()},
        lengths={
            "text_characters": quantiles(n_characters[full]),
            "text_words": quantiles(np.array(rows.words, dtype=np.int64)[full]),
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
            rows.words.append(sum(len(text.split()) for text in cleaned))
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


def _shown(examples: Iterable[Example], flags: NDArray[np.uint8], texts: Sequence[str], label: str) -> dict[TextFlag, list[dict[str, Any]]]:
    """Read the first rows of each flag again."""
    wanted = {flag: set(np.flatnonzero(flags & flag)[:MAX_EXAMPLES].tolist()) for flag in TextFlag}
    last = max((row for rows in wanted.values() for row in rows), default=-1)
    shown: dict[TextFlag, list[dict[str, Any]]] = {flag: [] for flag in TextFlag}
    for row, example in _first(examples, last + 1):
        for flag in (flag for flag in TextFlag if row in wanted[flag]):
            text = " | ".join(clean(example[column]) for column in texts)[:SHOWN_CHARACTERS]
            shown[flag].append({"row": row + 1, "text": text, "label": ", ".join(labels_of(example[label]))})
    return shown


def _first(examples: Iterable[Example], n: int) -> Iterator[tuple[int, Example]]:
    return zip(range(n), examples, strict=False) if n else iter(())
