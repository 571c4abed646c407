"""The hygiene of texts without labels: lengths, duplicates and leaks between splits.

Left out: near duplicates, and which language a text is in.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.data.quality import MAX_EXAMPLES, SHOWN_CHARACTERS, hashed, quantiles
from heed.data.read import Example


@dataclass
class TextSurvey:
    """What was found in the texts of one split.

    Attributes:
        keep: (n_rows,) bool, True for rows without a fault.
        counts: rows with each fault: "duplicates" stand further up too, "leaks" in another split.
        examples: the first rows of each fault, as {row, text}; rows count from 1.
        lengths: quantiles of text_characters and text_words, white-space separated.
        leaks: for each other split, how many rows of this one stand in it.
    """

    keep: NDArray[np.bool_]
    counts: dict[str, int]
    examples: dict[str, list[dict[str, Any]]]
    lengths: dict[str, dict[str, int]]
    leaks: dict[str, int]

    @property
    def refused(self) -> str | None:
        """Return None: texts recur for good reasons, such as licences and songs, so what is found is counted and reported."""
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values: `rows`, `clean` (rows without a fault), and the attributes by name."""
        about = {"rows": len(self.keep), "clean": int(self.keep.sum())}
        return about | {"counts": self.counts, "examples": self.examples, "lengths": self.lengths, "leaks": self.leaks}


def survey_texts(examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> TextSurvey:
    """Look for texts that stand twice, in one split or in several; compared without white space at the ends, by 8-byte hashes.

    Memory grows by some 20 bytes a row, whatever the length of the texts.

    Args:
        examples: rows with a text, which can be iterated twice.
        others: the other splits, by name.
    """
    hashes, n_characters, n_words = array("Q"), array("Q"), array("Q")
    for example in examples:
        hashes.append(_hashed(example))
        n_characters.append(len(example["text"]))
        n_words.append(len(example["text"].split()))
    found = np.array(hashes, dtype=np.uint64)
    leaking = {name: np.isin(found, np.fromiter(map(_hashed, split), np.uint64)) for name, split in others.items()}
    faults = {"duplicates": _repeats(found), "leaks": np.any([np.zeros(len(found), bool), *leaking.values()], axis=0)}
    return TextSurvey(
        keep=~np.any(list(faults.values()), axis=0),
        counts={name: int(rows.sum()) for name, rows in faults.items()},
        examples=_shown(examples, faults),
        lengths={"text_characters": quantiles(np.array(n_characters, np.int64)), "text_words": quantiles(np.array(n_words, np.int64))},
        leaks={name: int(rows.sum()) for name, rows in leaking.items()},
    )


def _hashed(example: Example) -> int:
    return hashed(example["text"].strip())


def _repeats(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Find rows that stand further up."""
    repeats = np.ones(len(hashes), dtype=bool)
    repeats[np.unique(hashes, return_index=True)[1]] = False
    return repeats


def _shown(examples: Iterable[Example], faults: Mapping[str, NDArray[np.bool_]]) -> dict[str, list[dict[str, Any]]]:
    """Read the first rows of each fault again."""
    wanted = {name: np.flatnonzero(rows)[:MAX_EXAMPLES].tolist() for name, rows in faults.items()}
    n_read = max((row + 1 for rows in wanted.values() for row in rows), default=0)
    shown: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for row, example in enumerate(islice(examples, n_read)):
        for name in (name for name, rows in wanted.items() if row in rows):
            shown[name].append({"row": row + 1, "text": example["text"].strip()[:SHOWN_CHARACTERS]})
    return shown
