"""What surveys of data have in common; and that of sentence pairs, which counts empty sides, copies, duplicates, odd length ratios and
leaks between splits in one pass.

Left out: whether two sentences mean the same, and which language they are in; both need a model.
"""

import heapq
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import IntFlag
from hashlib import blake2b
from itertools import islice
from math import log
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heed.data.rows import Example
from heed.data.text import SPACELESS, clean
from heed.errors import DataError

Bools = NDArray[np.bool_]

QUANTILES = {"min": 0.0, "p5": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
MAX_EXAMPLES = 5  # rows shown for each flag
SHOWN_CHARACTERS = 200  # of a side of such a row

UNSPACED = re.compile(f"[{SPACELESS}]")
SPACED_CHARACTERS = 2  # of these to a word, at the most, where somebody has put spaces between Chinese or Thai words

# A pair's length ratio is odd when it differs from the corpus' own by this many robust standard deviations, and by a factor.
RATIO_DEVIATIONS = 4.0
RATIO_FACTOR = 2.5
# Characters (in the target's measure) added to both sides, so that the ratio of a few characters to a few others says little.
RATIO_PRIOR = 10.0
RATIO_MIN_ROWS = 20  # fewer pairs do not show what is usual
NORMAL_MAD = 0.6745  # median absolute deviation of a normal distribution, in standard deviations
RATIO_CANDIDATES = 100  # pairs of extreme ratio kept on each side until it is known which are odd


@dataclass
class FaultSurvey:
    """What was found in the rows of one split; what else there is to tell of them is for its children.

    Attributes:
        faults: by the name of each fault, which rows have it, (n_rows,).
        examples: the first rows of each fault as a report shows them, with their numbers from 1.
        leaks: for each other split, how many rows of this one stand in it.
    """

    faults: dict[str, Bools]
    examples: dict[str, list[dict[str, Any]]]
    leaks: dict[str, int]

    @property
    def keep(self) -> Bools:
        """Rows without a fault, (n_rows,)."""
        return np.asarray(~np.any(list(self.faults.values()), axis=0))

    @property
    def counts(self) -> dict[str, int]:
        """Rows with each fault; a row may have several."""
        return {name: int(rows.sum()) for name, rows in self.faults.items()}

    @property
    def refused(self) -> str | None:
        """Return None: what is found is counted and reported, and training may go on."""
        return None

    def leaking(self, what: str, tell: Callable[[Mapping[str, Any]], str], *, stand: str = "stand") -> str | None:
        """Say which leaks forbid training on all rows, given what rows are and what is to be told of the first; None without leaks.

        Args:
            stand: what leaking rows do in the other split.
        """
        leaking = {name: n for name, n in self.leaks.items() if n}
        if not leaking:
            return None
        found = " and ".join(f"{n:,} of them {stand} in data.{name} too" for name, n in leaking.items())
        first = self.examples["leaks"][0]
        return (
            f"the training {what} leak: {found} (the first is row {first['row']}, {tell(first)}), so scores would be too good; "
            "leave such rows out with data.filter=true, or train all the same with data.allow_leaks=true"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values: `rows`, `clean` (rows without a fault), `counts`, and the other attributes by name."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "faults"}
        return {"rows": len(self.keep), "clean": int(self.keep.sum()), "counts": self.counts, **told}


def in_any(leaking: Mapping[str, Bools], n_rows: int) -> Bools:
    """Return which rows stand in any other split, given those that stand in each, (n_rows,)."""
    return np.asarray(np.any([np.zeros(n_rows, dtype=bool), *leaking.values()], axis=0))


def first_rows(
    examples: Iterable[Example], faults: Mapping[str, Bools], tell: Callable[[Example], dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Read the first rows of each fault again; return what is to be told of each, with its number."""
    wanted = {name: np.flatnonzero(rows)[:MAX_EXAMPLES].tolist() for name, rows in faults.items()}
    n_read = max((row + 1 for rows in wanted.values() for row in rows), default=0)
    shown: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for row, example in enumerate(islice(examples, n_read)):
        for name in (name for name, rows in wanted.items() if row in rows):
            shown[name].append({"row": row + 1, **tell(example)})
    return shown


class PairFlag(IntFlag):
    """What can be wrong with a pair; one bit each."""

    EMPTY = 1  # nothing is left of a side after cleaning
    COPY = 2  # both sides are the same but for case
    DUPLICATE = 4  # the same pair stands further up
    RATIO = 8  # one side is far too long for the other
    LEAK = 16  # the same pair stands in another split


FLAG_NAMES = {
    PairFlag.EMPTY: "empty",
    PairFlag.COPY: "copies",
    PairFlag.DUPLICATE: "duplicates",
    PairFlag.RATIO: "odd_ratios",
    PairFlag.LEAK: "leaks",
}


class ShownPair(NamedTuple):
    """A pair as an example in the report; `row` counts the rows read, from 1."""

    row: int
    source: str
    target: str


@dataclass
class PairSurvey:
    """What was found in the pairs of one split.

    Attributes:
        flags: (n_rows,) uint8, the PairFlags of each row.
        keep: (n_rows,) bool, True where no flag is set.
        examples: the first rows of each flag; of odd ratios, the oddest.
        lengths: quantiles (QUANTILES) of "source_characters", "source_words", "target_characters" and "target_words" (as
            word_quantiles has them), over the rows that are not empty.
        typical_ratio: target characters for each source character, median over rows; 0 without rows.
        leaks: for each other split, how many rows of this one stand in it as a pair.
        source_overlap: the same for the source side alone; not a fault in itself, so it sets no flag.
        columns: what JSON calls source and target: the columns they were read from.
    """

    flags: NDArray[np.uint8]
    keep: NDArray[np.bool_]
    examples: dict[PairFlag, list[ShownPair]]
    lengths: dict[str, dict[str, int]]
    typical_ratio: float
    leaks: dict[str, int]
    source_overlap: dict[str, int]
    columns: tuple[str, str] = ("source", "target")

    @property
    def n_rows(self) -> int:
        """Rows read."""
        return len(self.flags)

    @property
    def counts(self) -> dict[PairFlag, int]:
        """Rows with each flag; a row may have several."""
        return {flag: int(np.count_nonzero(self.flags & flag)) for flag in PairFlag}

    @property
    def refused(self) -> str | None:
        """Return None: what is found here is counted and reported, and training may go on."""
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values.

        Keys: `rows`, `clean` (rows without a flag), `counts` and `examples` (by flag: empty, copies, duplicates, odd_ratios, leaks; an
        example has row and, by their columns, source and target), `lengths` (by column and unit, then min, p5, median, p95 and max),
        `typical_ratio`, `leaks` and `source_overlap` (by split).
        """
        source, target = self.columns
        column = {"source": source, "target": target}
        lengths = {name: name.split("_") for name in self.lengths}
        return {
            "rows": self.n_rows,
            "clean": int(self.keep.sum()),
            "counts": {FLAG_NAMES[flag]: count for flag, count in self.counts.items()},
            "examples": {
                FLAG_NAMES[flag]: [{"row": pair.row, source: pair.source, target: pair.target} for pair in pairs]
                for flag, pairs in self.examples.items()
            },
            "lengths": {f"{column[side]}_{unit}": self.lengths[name] for name, (side, unit) in lengths.items()},
            "typical_ratio": self.typical_ratio,
            "leaks": self.leaks,
            "source_overlap": self.source_overlap,
        }


def survey_pairs(
    examples: Iterable[Example],
    *,
    other_splits: Mapping[str, Iterable[Example]] = MappingProxyType({}),
    source: str = "source",
    target: str = "target",
    ratios: bool = True,
) -> PairSurvey:
    """Look for faults in pairs, reading each split once.

    Texts are compared as `clean` leaves them, by 8-byte hashes: among ten million pairs two different ones are taken for the same
    with a chance of about one in 400,000. Memory grows by less than 100 bytes a row, whatever the length of the texts. An odd
    ratio is one that differs from the median by RATIO_DEVIATIONS robust standard deviations and by RATIO_FACTOR; short pairs are
    judged mildly (RATIO_PRIOR), and none among fewer than RATIO_MIN_ROWS.

    Args:
        examples: rows that hold text in both columns.
        other_splits: the splits no pair of `examples` should stand in, by name.
        source: column of the source text.
        target: column of the target text.
        ratios: whether odd length ratios are looked for; not where rows are of several tasks.
    Raises:
        DataError: a row lacks a column, or holds no text in it.
    """
    others = {name: _Others.read(_pairs(split, name, source, target)) for name, split in other_splits.items()}
    survey = _Survey(others)
    for row, (left, right) in enumerate(_pairs(examples, "data", source, target), 1):
        survey.add(row, left, right)
    return survey.finished(ratios=ratios, columns=(source, target))


def _pairs(examples: Iterable[Example], name: str, source: str, target: str) -> Iterator[tuple[str, str]]:
    """Return the cleaned sides of each row."""
    for row, example in enumerate(examples, 1):
        for column in (source, target):
            if not isinstance(example.get(column), str):
                raise DataError(f"{name}, row {row}: column {column!r} holds {example.get(column)!r}; expected text")
        yield clean(example[source]), clean(example[target])


def hashed(text: str) -> int:
    """Return 8 bytes of BLAKE2b as a number; 0 is left free."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") or 1


def row_hash(*values: Any) -> int:
    """Return the hash of what rows are compared by: values as `as_compared` leaves them, and a seed where a draw hangs on it."""
    return hashed(json.dumps(values, ensure_ascii=False))


def as_compared(value: Any) -> Any:
    """Return an input as duplicates are found: text as it is once cleaned."""
    return clean(value) if isinstance(value, str) else value


def _hashed_pair(source: str, target: str) -> int:
    return hashed(f"{source}\0{target}")  # no cleaned text holds NUL


class _HashSet:
    """A set of 8-byte hashes at 16 to 32 bytes each (open addressing, linear probing); a set of int objects takes some 100."""

    def __init__(self) -> None:
        self.slots = array("Q", bytes(8 * 1024))
        self.n_used = 0

    def _slot(self, value: int) -> int:
        """Return where the value is, or the free slot where it belongs."""
        slots, last = self.slots, len(self.slots) - 1
        at = value & last
        while slots[at] and slots[at] != value:
            at = (at + 1) & last
        return at

    def __contains__(self, value: int) -> bool:
        return self.slots[self._slot(value)] == value

    def add(self, value: int) -> bool:
        """Add a value; returns whether it is new."""
        at = self._slot(value)
        if self.slots[at]:
            return False
        self.slots[at] = value
        self.n_used += 1
        if 2 * self.n_used > len(self.slots):
            self._grow()
        return True

    def _grow(self) -> None:
        values = self.slots
        self.slots = array("Q", bytes(2 * 8 * len(values)))
        for value in values:
            if value:
                self.slots[self._slot(value)] = value


@dataclass
class _Others:
    """The pairs and sources of another split, and how many rows of this one stand among them."""

    pairs: _HashSet = field(default_factory=_HashSet)
    sources: _HashSet = field(default_factory=_HashSet)
    n_pairs: int = 0
    n_sources: int = 0

    @classmethod
    def read(cls, pairs: Iterable[tuple[str, str]]) -> "_Others":
        others = cls()
        for source, target in pairs:
            if source and target:
                others.pairs.add(_hashed_pair(source, target))
                others.sources.add(hashed(source))
        return others

    def count(self, source: str, pair: int) -> bool:
        """Count a row; returns whether its pair is here too."""
        leaks = pair in self.pairs
        self.n_pairs += leaks
        self.n_sources += hashed(source) in self.sources
        return leaks


class _Extremes:
    """The pairs of highest score so far."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, ShownPair]] = []

    def add(self, score: float, pair: ShownPair) -> None:
        if len(self.heap) < RATIO_CANDIDATES:
            heapq.heappush(self.heap, (score, pair))
        elif score > self.heap[0][0]:
            heapq.heapreplace(self.heap, (score, pair))


LENGTHS = ("source_characters", "source_words", "target_characters", "target_words")


class _Survey:
    """What is gathered row by row."""

    def __init__(self, others: dict[str, _Others]) -> None:
        self.others = others
        self.seen = _HashSet()
        self.flags = array("B")
        self.lengths = {name: array("I") for name in LENGTHS}  # 0 for rows with an empty side
        self.examples: dict[PairFlag, list[ShownPair]] = {flag: [] for flag in PairFlag}
        self.long_sources, self.long_targets = _Extremes(), _Extremes()

    def add(self, row: int, source: str, target: str) -> None:
        """Take in one cleaned pair."""
        flags = self._flags(source, target)
        self.flags.append(flags)
        shown = ShownPair(row, source[:SHOWN_CHARACTERS], target[:SHOWN_CHARACTERS])
        for flag in flags:
            if len(self.examples[flag]) < MAX_EXAMPLES:
                self.examples[flag].append(shown)
        empty = bool(flags & PairFlag.EMPTY)
        sides = (0, 0, 0, 0) if empty else (len(source), count_words(source), len(target), count_words(target))
        for name, length in zip(LENGTHS, sides, strict=True):
            self.lengths[name].append(length)
        if not empty:
            ratio = log((len(target) + RATIO_PRIOR) / (len(source) + RATIO_PRIOR))
            self.long_targets.add(ratio, shown)
            self.long_sources.add(-ratio, shown)

    def _flags(self, source: str, target: str) -> PairFlag:
        """Return what can be told of a pair before all rows are read."""
        if not source or not target:
            return PairFlag.EMPTY
        pair = _hashed_pair(source, target)
        flags = PairFlag(0)
        if source.casefold() == target.casefold():
            flags |= PairFlag.COPY
        if not self.seen.add(pair):
            flags |= PairFlag.DUPLICATE
        if [name for name, others in self.others.items() if others.count(source, pair)]:
            flags |= PairFlag.LEAK
        return flags

    def finished(self, *, ratios: bool, columns: tuple[str, str]) -> PairSurvey:
        """Judge the ratios, if they say anything, and sum up."""
        flags = np.array(self.flags, dtype=np.uint8)
        lengths = {name: np.array(values, dtype=np.int64) for name, values in self.lengths.items()}
        full = np.flatnonzero(lengths["source_characters"])
        oddness, typical = ratio_oddness(lengths["source_characters"][full], lengths["target_characters"][full])
        oddness = oddness if ratios else np.zeros(len(full))
        odd = {int(row) + 1: float(by) for row, by in zip(full[oddness > 1], oddness[oddness > 1], strict=True)}
        flags[full[oddness > 1]] |= np.uint8(PairFlag.RATIO)
        return PairSurvey(
            flags=flags,
            keep=flags == 0,
            examples=self.examples | {PairFlag.RATIO: self._oddest(odd)},
            lengths={name: quantiles_of(name, values[full]) for name, values in lengths.items()},
            typical_ratio=round(typical, 4),
            leaks={name: others.n_pairs for name, others in self.others.items()},
            source_overlap={name: others.n_sources for name, others in self.others.items()},
            columns=columns,
        )

    def _oddest(self, odd: Mapping[int, float]) -> list[ShownPair]:
        """Return the oddest of the pairs kept for their ratio; `odd` gives how odd a row is."""
        kept = {pair.row: pair for _, pair in self.long_sources.heap + self.long_targets.heap if pair.row in odd}
        return sorted(kept.values(), key=lambda pair: (-odd[pair.row], pair.row))[:MAX_EXAMPLES]


def ratio_oddness(source: NDArray[np.int64], target: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Return how far each pair's length ratio is from the usual one, 1 being the limit, and the median of target / source.

    Args:
        source: (n,) characters of each source, none of them 0; target likewise.
    """
    if len(source) < RATIO_MIN_ROWS:
        return np.zeros(len(source)), float(np.median(target / source)) if len(source) else 0.0
    typical = float(np.median(target / source))
    ratios = np.log((target + RATIO_PRIOR) / (source * typical + RATIO_PRIOR))
    distances = np.abs(ratios - np.median(ratios))
    limit = max(RATIO_DEVIATIONS * float(np.median(distances)) / NORMAL_MAD, log(RATIO_FACTOR))
    return distances / limit, typical


def quantiles(lengths: NDArray[np.int64]) -> dict[str, int]:
    """Return the quantiles of lengths that occur; none of nothing."""
    if not len(lengths):
        return {}
    values = np.quantile(lengths, list(QUANTILES.values()), method="nearest")
    return dict(zip(QUANTILES, map(int, values), strict=True))


def quantiles_of(name: str, lengths: NDArray[np.int64]) -> dict[str, int]:
    """Return the quantiles of lengths, given what they are lengths of: of words, as count_words counts them, or of something else."""
    return word_quantiles(lengths) if name.endswith("words") else quantiles(lengths)


def count_words(text: str) -> int:
    """Count the words between white space; 0 where there is none between words, as in Chinese, Japanese and Thai."""
    words = text.split()
    n_unspaced = 0 if text.isascii() else len(UNSPACED.findall(text))
    unspaced = 2 * n_unspaced > sum(map(len, words)) and n_unspaced > SPACED_CHARACTERS * len(words)
    return 0 if unspaced else len(words)


def word_quantiles(counts: NDArray[np.int64]) -> dict[str, int]:
    """Return the quantiles of what count_words found, over the texts that have words; none where most have none."""
    spaced = counts[counts > 0]
    return quantiles(spaced) if 2 * len(spaced) >= len(counts) else {}
