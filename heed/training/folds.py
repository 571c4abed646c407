"""Folds: each row's fold follows from the data, the settings and the seed, so that any can be trained again alone.

A run tests on one fold, validates on some rows of the others, and trains on the rest. Rows with equal inputs, or of one group, make a
unit that stands on one side; classes are spread evenly over folds where a row has one.
"""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from heed.data.labelled import labels_of
from heed.data.quality import as_compared, row_hash
from heed.data.rows import Example
from heed.errors import DataError
from heed.tasks import Task

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

USUAL_FOLDS = 5
LABEL_KINDS = ("label", "labels")
MOST_SHARES = 3  # a group that is more times larger than what validation is to have is not spared for it


@dataclass(frozen=True)
class Rows:
    """What dividing needs to know of the m rows that are kept, of n that were read.

    Attributes:
        n_read: n.
        places: (m,) where each stands among the rows read.
        units: (m,) the number of each row's unit.
        first: (u,) a row of each unit.
        strata: what is to be spread evenly; None for each where the task has nothing of the kind.
        labels: all labels of each.
    """

    n_read: int
    places: Numbers
    units: Numbers
    first: Numbers
    strata: list[str | None]
    labels: list[tuple[str, ...]]

    @classmethod
    def read(cls, examples: Iterable[Example], task: Task, group: str | None, keep: Bools | None) -> "Rows":
        """Read examples once; raises DataError where one lacks the column of the groups."""
        columns = [name for name, kind in task.columns.items() if kind in LABEL_KINDS]
        places, keys, n_read = array("q"), array("Q"), 0
        strata: list[str | None] = []
        labels: list[tuple[str, ...]] = []
        for place, example in enumerate(examples):
            n_read += 1
            if keep is None or keep[place]:
                places.append(place)
                keys.append(_key(example, place, task, group))
                strata.append(task.stratum(example))
                labels.append(tuple(label for column in columns for label in labels_of(example[column])))
        _, first, units = np.unique(np.array(keys, dtype=np.uint64), return_index=True, return_inverse=True)
        return cls(n_read, np.array(places, dtype=np.int64), units, first, strata, labels)

    @property
    def stratified(self) -> bool:
        """Whether every row has a class."""
        return bool(self.strata) and self.strata[0] is not None

    @cached_property
    def classes(self) -> Numbers:
        """The number of each row's class, (m,)."""
        names: dict[str | None, int] = {}
        return np.array([names.setdefault(stratum, len(names)) for stratum in self.strata], dtype=np.int64)

    @cached_property
    def _by_unit(self) -> tuple[Numbers, Numbers]:
        """The rows in the order of their units, (m,), and where each unit ends among them, (u,)."""
        return np.argsort(self.units, kind="stable"), np.cumsum(np.bincount(self.units, minlength=len(self.first)))

    def members(self, unit: int) -> list[int]:
        """Return the rows of a unit."""
        order, ends = self._by_unit
        members: list[int] = order[0 if unit == 0 else ends[unit - 1] : ends[unit]].tolist()
        return members


def _key(example: Example, place: int, task: Task, group: str | None) -> int:
    """Return a hash of what may not be torn apart."""
    if group is None:
        shared = task.together(example)
        return row_hash(*(as_compared(example[key]) for key in task.wanted)) if shared is None else row_hash(shared)
    if group not in example:
        raise DataError(f"data.group={group}: row {place + 1} has no such column among {', '.join(example)}")
    return row_hash(example[group])


class Folds:
    """A division of rows.

    Attributes:
        numbers: (n,) the fold of every row, from 1; 0 for those that are not kept.
    """

    def __init__(
        self, examples: Iterable[Example], task: Task, *, folds: int, group: str | None, seed: int, keep: Bools | None = None
    ) -> None:
        """Divide.

        Args:
            keep: (n,) which rows count; all of them by default.
        Raises:
            DataError: there are too few units, an example lacks the column of the groups, a class has too few units for every fold to
                hold it, or a fold would hold all rows of a label.
        """
        self.rows = Rows.read(examples, task, group, keep)
        self.folds, self.group, self.seed = folds, group, seed
        self._unit_words = (f"value of {group!r}", f"values of {group!r}") if group else task.undivided
        if (n := len(self.rows.first)) < folds:
            hint = "use fewer folds" if n > 1 else "that cannot be divided"
            raise DataError(f"data.folds={folds}: there {'is' if n == 1 else 'are'} only {self._units(n)}; {hint}")
        if self.rows.stratified:
            self._check_classes()
        self._dealt = self._deal()
        self._check_training_sides()
        self.numbers: Numbers = np.zeros(self.rows.n_read, dtype=np.int64)
        self.numbers[self.rows.places] = self._dealt

    def _units(self, n: int) -> str:
        """Count what is not torn apart, in words."""
        return f"{n} {self._unit_words[0 if n == 1 else 1]}"

    def _check_classes(self) -> None:
        """Refuse a class of fewer units than folds."""
        rows = self.rows
        if self.group is None:
            counts = Counter(rows.strata[row] for row in rows.first)
        else:
            counts = Counter(stratum for _, stratum in set(zip(rows.units.tolist(), rows.strata, strict=True)))
        stratum, n = min(counts.items(), key=lambda item: item[1])
        if n < self.folds:
            raise DataError(
                f"data.folds={self.folds}: only {self._units(n)} {'has' if n == 1 else 'have'} the label {stratum!r}, so some folds would "
                f"lack it; {f'use at most {n} folds, or ' if n > 1 else ''}leave the label out or merge it with another"
            )

    def _deal(self) -> Numbers:
        """Deal the rows into folds from 1, (m,)."""
        rows = self.rows
        options: dict[str, Any] = {"n_splits": self.folds, "shuffle": True, "random_state": self.seed % 2**32}
        if self.group is not None:
            grouped = (StratifiedGroupKFold if rows.stratified else GroupKFold)(**options)
            return _numbered(grouped.split(rows.classes, rows.classes, rows.units), len(rows.units))
        classes = rows.classes[rows.first]
        single = (StratifiedKFold if rows.stratified else KFold)(**options)
        return _numbered(single.split(classes, classes), len(classes))[rows.units]

    def _check_training_sides(self) -> None:
        """Refuse folds that hold all rows of a label, which could not be learned then; of several labels a row, rare ones may be."""
        least = 1 if self.rows.stratified else self.folds
        found: dict[str, Counter[int]] = {}
        for fold, labels in zip(self._dealt.tolist(), self.rows.labels, strict=True):
            for label in labels:
                found.setdefault(label, Counter())[fold] += 1
        for label, folds in sorted(found.items()):
            if len(folds) == 1 and folds.total() >= least:
                raise DataError(f"fold {next(iter(folds))} would hold all rows with the label {label!r}, {self._why(label)}")

    def _why(self, label: str) -> str:
        """Say why the rows of a label stand in one fold, and what to do."""
        units = {unit for unit, labels in zip(self.rows.units.tolist(), self.rows.labels, strict=True) if label in labels}
        if len(units) > 1:
            return f"by chance of seed={self.seed}; try another seed, or merge the label"
        why = f"because they all have one value of {self.group!r}" if self.group else "because their inputs are equal"
        return f"{why}; merge the label, or divide otherwise"

    def sides(self, fold: int, *, share: float) -> dict[str, Bools]:
        """Return which rows a run trains on, validates on and tests on, (n,) each, by the names train, valid and test.

        Args:
            fold: the one that is tested on.
            share: of the other rows, which is validated on: whole units, of which the last may pass it; single rows where groups are so few
                that one of them would be many times the share, and training would miss it more than validation needs it.
        Raises:
            DataError: no unit can be held out for validation.
        """
        test = self._dealt == fold
        valid = np.zeros(len(test), dtype=np.bool_)
        valid[self._validation(np.flatnonzero(~test), fold, share)] = True
        sides = {"train": ~test & ~valid, "valid": valid, "test": test}
        return {name: self._among_all(side) for name, side in sides.items()}

    def _validation(self, rest: Numbers, fold: int, share: float) -> list[int]:
        """Draw units of the rows in `rest` until they hold a share of these; no more than half, and never all that are left of a label."""
        left = Counter(label for row in rest.tolist() for label in self.rows.labels[row])
        whole = self.validates_on_groups(fold, share)
        units = np.unique(self.rows.units[rest]) if whole else rest
        taken: list[int] = []
        for unit in np.random.default_rng([self.seed, fold]).permutation(units).tolist():
            if len(taken) >= share * len(rest):
                break
            members = self.rows.members(unit) if whole else [unit]
            labels = Counter(label for row in members for label in self.rows.labels[row])
            if 2 * (len(taken) + len(members)) <= len(rest) and all(left[label] > n for label, n in labels.items()):
                taken += members
                left.subtract(labels)
        if not taken:
            raise DataError(
                f"data.folds={self.folds}: of {self._units(len(units)) if whole else f'{len(units)} rows'} outside fold {fold} none can be "
                "held out for validation: each has more than half of the rows, or all that are left of a label; use more folds, or add rows"
            )
        return taken

    def validates_on_groups(self, fold: int, share: float) -> bool:
        """Return whether the rows that `sides` validates on are whole units: always, but for groups that are few and large."""
        rest = np.flatnonzero(self._dealt != fold)
        _, sizes = np.unique(self.rows.units[rest], return_counts=True)
        return self.group is None or (len(sizes) > 1 and bool(sizes.mean() <= MOST_SHARES * share * len(rest)))

    def _among_all(self, side: Bools) -> Bools:
        """Turn what is said of the rows that are kept, (m,), into the same of all rows, (n,)."""
        found = np.zeros(self.rows.n_read, dtype=np.bool_)
        found[self.rows.places] = side
        return found


def _numbered(splits: Iterable[tuple[Numbers, Numbers]], n: int) -> Numbers:
    """Number what each split holds out, from 1; (n,)."""
    numbers = np.zeros(n, dtype=np.int64)
    for fold, (_, held_out) in enumerate(splits, start=1):
        numbers[held_out] = fold
    return numbers
