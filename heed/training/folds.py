"""Folds for cross-validation: each row's fold follows from the data, the settings and the seed, so that any can be trained again alone.

Rows with equal inputs, or of one group, stand in one fold; classes are spread evenly where the task has any.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from heed.data.read import Example
from heed.data.text import clean
from heed.errors import DataError
from heed.tasks import Task

Numbers = np.ndarray[Any, np.dtype[np.int64]]


def fold_numbers(examples: Iterable[Example], task: Task, *, folds: int, group: str | None, seed: int) -> Numbers:
    """Return the fold of every example (n,), from 1.

    Raises:
        DataError: there are too few groups, an example lacks the column of the groups, or a class would be missing from a fold.
    """
    keys, strata = array("Q"), []
    for row, example in enumerate(examples, start=1):
        keys.append(_key(example, row, task, group))
        strata.append(task.stratum(example))
    units, first, unit_of = np.unique(np.array(keys, dtype=np.uint64), return_index=True, return_inverse=True)
    if len(units) < folds:
        raise DataError(
            f"data.folds={folds}: there are only {len(units)} {f'values of {group!r}' if group else 'different inputs'}; use fewer folds"
        )
    codes = np.unique([stratum or "" for stratum in strata], return_inverse=True)[1]
    stratified = strata[0] is not None
    if stratified:
        _check_classes(strata if group else [strata[row] for row in first], folds)
    numbers = _grouped(codes, unit_of, folds, seed, stratified) if group else _dealt(codes[first], folds, seed, stratified)[unit_of]
    if stratified:
        _check_training_sides(np.array(strata), numbers, group)
    return numbers


def _key(example: Example, row: int, task: Task, group: str | None) -> int:
    """Return a hash of what may not be torn apart."""
    if group is not None and group not in example:
        raise DataError(f"data.group={group}: row {row} has no such column among {', '.join(example)}")
    content = json.dumps(example[group] if group is not None else [as_compared(example[key]) for key in task.wanted], ensure_ascii=False)
    return int.from_bytes(hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def as_compared(value: Any) -> Any:
    """Return an input as duplicates are found: text as it is once cleaned."""
    return clean(value) if isinstance(value, str) else value


def _check_classes(strata: list[str | None], folds: int) -> None:
    rare = min(Counter(strata).items(), key=lambda item: item[1])
    if rare[1] < folds:
        raise DataError(
            f"data.folds={folds}: only {rare[1]} {'row has' if rare[1] == 1 else 'rows have'} the label {rare[0]!r}, so some folds would "
            f"lack it; {f'use at most {rare[1]} folds, or ' if rare[1] > 1 else ''}leave the label out or merge it with another"
        )


def _dealt(codes: Numbers, folds: int, seed: int, stratified: bool) -> Numbers:
    """Deal units, given the class of each, into folds from 1."""
    splitter = (StratifiedKFold if stratified else KFold)(folds, shuffle=True, random_state=seed % 2**32)
    numbers = np.zeros(len(codes), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(codes, codes), start=1):
        numbers[held_out] = fold
    return numbers


def _grouped(codes: Numbers, groups: Numbers, folds: int, seed: int, stratified: bool) -> Numbers:
    """Deal rows, given the class and the group of each, into folds from 1."""
    splitter = (StratifiedGroupKFold if stratified else GroupKFold)(folds, shuffle=True, random_state=seed % 2**32)
    numbers = np.zeros(len(codes), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(codes, codes, groups), start=1):
        numbers[held_out] = fold
    return numbers


def _check_training_sides(strata: np.ndarray[Any, Any], numbers: Numbers, group: str | None) -> None:
    """Refuse folds that hold all rows of a class, which could not be learned then."""
    for stratum in np.unique(strata).tolist():
        folds = np.unique(numbers[strata == stratum])
        if len(folds) == 1:
            why = f"because they all have one value of {group!r}" if group else "because their inputs are equal"
            raise DataError(f"fold {folds[0]} would hold all rows with the label {stratum!r}, {why}; merge the label, or divide otherwise")
