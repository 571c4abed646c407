"""The hygiene of texts without labels: lengths, duplicates and leaks between splits.

Left out: near duplicates, and which language a text is in.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heed.data.quality import SHOWN_CHARACTERS, FaultSurvey, count_words, first_rows, hashed, in_any, quantiles, word_quantiles
from heed.data.rows import Example

EMPTY = 0  # in place of the hash of an empty text, which `hashed` leaves free


@dataclass
class TextSurvey(FaultSurvey):
    """What was found in the texts of one split, of which examples are {row, text}: "duplicates" stand further up, "leaks" in another split.

    Duplicates are not refused, for texts recur for good reasons, such as licences and songs; but one that is scored on should be new.

    Attributes:
        lengths: quantiles of text_characters and text_words, as word_quantiles has them.
    """

    lengths: dict[str, dict[str, int]]

    @property
    def refused(self) -> str | None:
        """Say which leaks forbid training on all rows; None when there are none."""
        return self.leaking("texts", lambda row: repr(row["text"][:60]))


def survey_texts(examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> TextSurvey:
    """Look for texts that stand twice, in one split or in several; compared without white space at the ends, by 8-byte hashes.

    Nothing leaks of an empty text.
    Memory grows by some 20 bytes a row, whatever the length of the texts.

    Args:
        examples: rows with a text, which can be iterated twice.
        others: the other splits, by name.
    """
    hashes, n_characters, n_words = array("Q"), array("Q"), array("Q")
    for example in examples:
        hashes.append(_hashed(example))
        n_characters.append(len(example["text"]))
        n_words.append(count_words(example["text"]))
    found = np.array(hashes, dtype=np.uint64)
    full = found != EMPTY
    leaking = {name: full & np.isin(found, np.fromiter(map(_hashed, split), np.uint64)) for name, split in others.items()}
    faults = {"duplicates": _repeats(found), "leaks": in_any(leaking, len(found))}
    return TextSurvey(
        faults=faults,
        examples=first_rows(examples, faults, lambda example: {"text": example["text"].strip()[:SHOWN_CHARACTERS]}),
        lengths={
            "text_characters": quantiles(np.array(n_characters, np.int64)),
            "text_words": word_quantiles(np.array(n_words, np.int64)),
        },
        leaks={name: int(rows.sum()) for name, rows in leaking.items()},
    )


def _hashed(example: Example) -> int:
    text = example["text"].strip()
    return hashed(text) if text else EMPTY


def _repeats(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Find rows that stand further up."""
    repeats = np.ones(len(hashes), dtype=bool)
    repeats[np.unique(hashes, return_index=True)[1]] = False
    return repeats
