"""The hygiene of tagged sentences: spans of each type, lengths, duplicates, sentences with several taggings, and leaks between splits.

Sentences are compared word by word, by 8-byte hashes; memory grows by some 30 bytes a row.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from heed.data.labelled import contradicts, repeats
from heed.data.quality import SHOWN_CHARACTERS, FaultSurvey, first_rows, in_any, quantiles, row_hash
from heed.data.rows import Example
from heed.data.tags import Scheme, scheme_of, spans_of, split_words


@dataclass
class TaggedSurvey(FaultSurvey):
    """What was found in the tagged sentences of one split, of which examples are {row, text, label}.

    Its faults: "duplicates" stand further up with the same tags, "contradictions" elsewhere with others, "leaks" in another split. None
    of them forbids training, because short sentences recur by nature.

    Attributes:
        classes: spans of each type, most frequent first; classes_others the same by other split.
        lengths: quantiles of text_words.
    """

    classes: dict[str, int]
    classes_others: dict[str, dict[str, int]]
    lengths: dict[str, dict[str, int]]


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
    faults = {
        "duplicates": repeats(words, tags),
        "contradictions": contradicts(words, tags),
        "leaks": in_any(leaking, len(words)),
    }
    return TaggedSurvey(
        faults=faults,
        examples=first_rows(examples, faults, _told),
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


def _told(example: Example) -> dict[str, str]:
    text, label = (" ".join(split_words(example[column]))[:SHOWN_CHARACTERS] for column in ("tokens", "tags"))
    return {"text": text, "label": label}
