"""The hygiene of tagged sentences: spans of each type, lengths, duplicates, sentences with several taggings, and leaks between splits.

Sentences are compared word by word, by 8-byte hashes; memory grows by some 30 bytes a row.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.data.labelled import contradicts, repeats
from heed.data.quality import MAX_EXAMPLES, SHOWN_CHARACTERS, quantiles, row_hash
from heed.data.read import Example
from heed.data.tags import Scheme, scheme_of, spans_of, split_words

FAULTS = ("duplicates", "contradictions", "leaks")


@dataclass
class TaggedSurvey:
    """What was found in the tagged sentences of one split.

    Attributes:
        keep: (n_rows,) bool, True for rows without a fault.
        counts: rows with each fault: "duplicates" stand further up with the same tags, "contradictions" elsewhere with others, "leaks" in
            another split.
        examples: the first rows of each fault, as {row, text, label}; rows count from 1.
        classes: spans of each type, most frequent first; classes_others the same by other split.
        lengths: quantiles of text_words.
        leaks: for each other split, how many rows of this one stand in it.
    """

    keep: NDArray[np.bool_]
    counts: dict[str, int]
    examples: dict[str, list[dict[str, Any]]]
    classes: dict[str, int]
    classes_others: dict[str, dict[str, int]]
    lengths: dict[str, dict[str, int]]
    leaks: dict[str, int]

    @property
    def refused(self) -> str | None:
        """Return None: short sentences recur by nature, so what is found is counted and reported."""
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values: `rows`, `clean` (rows without a fault), and the attributes by name."""
        about = {"rows": len(self.keep), "clean": int(self.keep.sum()), "counts": self.counts, "examples": self.examples}
        return about | {"classes": self.classes, "classes_others": self.classes_others, "lengths": self.lengths, "leaks": self.leaks}


def survey_tagged(examples: Iterable[Example], others: Mapping[str, Iterable[Example]], *, scheme: Scheme | None = None) -> TaggedSurvey:
    """Look for faults in sentences with tags.

    Args:
        examples: rows, which can be iterated twice.
        others: the splits no sentence of `examples` should stand in, by name.
        scheme: of the tags; None guesses it for each sentence.
    """
    rows = _Rows(examples, scheme)
    others_read = {name: _Rows(split, scheme) for name, split in others.items()}
    words, tags = np.array(rows.words, dtype=np.uint64), np.array(rows.tags, dtype=np.uint64)
    leaking = {name: np.isin(words, np.array(other.words, dtype=np.uint64)) for name, other in others_read.items()}
    leaks = np.any([np.zeros(len(words), bool), *leaking.values()], axis=0)
    faults = dict(zip(FAULTS, (repeats(words, tags), contradicts(words, tags), leaks), strict=True))
    return TaggedSurvey(
        keep=~np.any(list(faults.values()), axis=0),
        counts={name: int(found.sum()) for name, found in faults.items()},
        examples=_shown(examples, faults),
        classes=dict(rows.types.most_common()),
        classes_others={name: dict(other.types.most_common()) for name, other in others_read.items()},
        lengths={"text_words": quantiles(np.array(rows.lengths, dtype=np.int64))},
        leaks={name: int(found.sum()) for name, found in leaking.items()},
    )


class _Rows:
    """Hashes and lengths of the sentences of a split, and its spans."""

    def __init__(self, examples: Iterable[Example], scheme: Scheme | None) -> None:
        self.words, self.tags, self.lengths = array("Q"), array("Q"), array("Q")
        self.types: Counter[str] = Counter()
        for example in examples:
            words, tags = split_words(example["tokens"]), split_words(example["tags"])
            self.words.append(row_hash(*words))
            self.tags.append(row_hash(*tags))
            self.lengths.append(len(words))
            self.types.update(span.type for span in spans_of(tags, scheme or scheme_of(tags)))


def _shown(examples: Iterable[Example], faults: Mapping[str, NDArray[np.bool_]]) -> dict[str, list[dict[str, Any]]]:
    """Read the first rows of each fault again."""
    wanted = {name: np.flatnonzero(rows)[:MAX_EXAMPLES].tolist() for name, rows in faults.items()}
    n_read = max((row + 1 for rows in wanted.values() for row in rows), default=0)
    shown: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for row, example in enumerate(islice(examples, n_read)):
        for name in (name for name, rows in wanted.items() if row in rows):
            text, label = (" ".join(split_words(example[column]))[:SHOWN_CHARACTERS] for column in ("tokens", "tags"))
            shown[name].append({"row": row + 1, "text": text, "label": label})
    return shown
