"""Augmentation of texts as ids: words left out, words that change places, words replaced by synonyms (Wei & Zou 2019)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from heed.data.encodings import read_lines
from heed.errors import DataError

Ids = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Word = tuple[int, ...]


def read_synonyms(path: str) -> list[list[str]]:
    """Read groups of words that may stand for each other, one a line, separated by tabs or commas; raises DataError."""
    groups = [[word.strip() for word in line.replace("\t", ",").split(",") if word.strip()] for line in read_lines(path)]
    lonely = next((place for place, group in enumerate(groups) if len(group) == 1), None)
    if lonely is not None or not any(groups):
        where, found = (path, "no words") if lonely is None else (f"{path}:{lonely + 1}", f"{groups[lonely][0]!r} alone on its line")
        raise DataError(f"{where}: expected a group of synonyms on each line, separated by tabs or commas; found {found}")
    return [group for group in groups if group]


class Augmenter:
    """Changes training texts.

    Args:
        starts: tells of the ids (S,) of a text which start a word, (S,).
        synonyms: groups of words as their ids; what is one synonym may be several words.
        drop, swap, replace: shares of words that are left out, change places with the next, and are replaced by a synonym.
    """

    def __init__(
        self, starts: Callable[[Ids], Bools], synonyms: Sequence[Sequence[Sequence[int]]], drop: float, swap: float, replace: float
    ) -> None:
        self.starts, self.drop, self.swap, self.replace = starts, drop, swap, replace
        self.others: dict[Word, list[Word]] = {}
        for group in synonyms:
            words = [tuple(word) for word in group]
            for word in words:
                self.others.setdefault(word, []).extend(other for other in words if other != word)
        self.longest = max((len(self._words(np.array(word, dtype=np.int64))) for word in self.others), default=1)

    def __call__(self, ids: Ids, draw: np.random.Generator) -> Ids:
        """Return a changed copy of a text (S,); at least one word stays."""
        words = self._words(ids)
        if self.replace:
            words = self._with_synonyms_whole(words)
            chosen = draw.random(len(words)) < self.replace
            words = [self._synonym(word, draw) if change else word for word, change in zip(words, chosen, strict=True)]
        for i in np.flatnonzero(draw.random(len(words) - 1) < self.swap):
            words[i], words[i + 1] = words[i + 1], words[i]
        kept = draw.random(len(words)) >= self.drop
        kept[draw.integers(len(words))] = True
        return np.array([token for word, keep in zip(words, kept, strict=True) if keep for token in word], dtype=np.int64)

    def _words(self, ids: Ids) -> list[Word]:
        bounds = np.flatnonzero(self.starts(ids))
        return [tuple(word.tolist()) for word in np.split(ids, bounds[bounds > 0])]

    def _with_synonyms_whole(self, words: list[Word]) -> list[Word]:
        """Join words that together are one of the synonyms, such as "New York", the longest first."""
        joined: list[Word] = []
        place = 0
        while place < len(words):
            n = next((n for n in range(self.longest, 1, -1) if sum(words[place : place + n], ()) in self.others), 1)
            joined.append(sum(words[place : place + n], ()))
            place += n
        return joined

    def _synonym(self, word: Word, draw: np.random.Generator) -> Word:
        others = self.others.get(word)
        return word if not others else others[draw.integers(len(others))]
