"""Which row is held out when: every row once, classes evenly, and never apart what belongs together."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import TINY, TINY_TEXTS, toy_pairs, toy_texts, write_pairs, write_rows

from heed.config import merge
from heed.data.read import Example
from heed.errors import ConfigError, DataError
from heed.run import resolve
from heed.tasks import Task
from heed.tasks.text_classification import TextClassification, TextClassificationSettings
from heed.tasks.translation import Translation, TranslationSettings
from heed.training.folds import fold_numbers
from heed.training.prepare import prepare

ROWS: list[Example] = [
    {"text": f"text {i}", "label": label, "author": f"author {i % 9}"} for i, label in enumerate(["x"] * 17 + ["y"] * 11 + ["z"] * 5)
]


def classifier(**settings: Any) -> TextClassification:
    return TextClassification(TextClassificationSettings(**{"pair": False, **settings}))


def folds_of(rows: list[Example], folds: int = 3, *, group: str | None = None, seed: int = 1, task: Task | None = None) -> list[int]:
    found: list[int] = fold_numbers(rows, task or classifier(), folds=folds, group=group, seed=seed).tolist()
    return found


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_a_partition_that_spreads_every_class_evenly(folds: int) -> None:
    numbers = folds_of(ROWS, folds)
    assert len(numbers) == len(ROWS)
    assert set(numbers) == set(range(1, folds + 1))
    for label in "xyz":
        counts = Counter(number for number, row in zip(numbers, ROWS, strict=True) if row["label"] == label)
        assert max(counts.values()) - min(counts[fold] for fold in range(1, folds + 1)) <= 1
    sizes = Counter(numbers).values()
    assert max(sizes) - min(sizes) <= 3  # a row of each class


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_the_same_seed_gives_the_same_folds(folds: int, seed: int) -> None:
    assert folds_of(ROWS, folds, seed=seed) == folds_of(list(ROWS), folds, seed=seed)


def test_another_seed_gives_other_folds() -> None:
    assert len({tuple(folds_of(ROWS, seed=seed)) for seed in range(9)}) == 9
    assert len({tuple(folds_of(ROWS, group="author", seed=seed)) for seed in range(9)}) > 1


def test_any_seed_that_a_run_may_have_divides_rows() -> None:
    assert set(folds_of(ROWS, seed=2**40)) == {1, 2, 3}


def test_rows_with_equal_inputs_stand_in_one_fold_whatever_their_labels() -> None:
    rows = [dict(row) for row in ROWS]
    again = [{**rows[i], "label": label} for i, label in ((0, "x"), (0, "y"), (20, "y"), (30, "x"), (0, "z"))]
    numbers = folds_of(rows + again)
    by_text: dict[str, set[int]] = {}
    for number, row in zip(numbers, rows + again, strict=True):
        by_text.setdefault(row["text"], set()).add(number)
    assert all(len(found) == 1 for found in by_text.values())


def test_two_texts_are_equal_inputs_only_together() -> None:
    rows = [{"text": "same", "text_pair": f"pair {i % 12}", "label": "xy"[i % 2]} for i in range(24)]
    numbers = folds_of(rows, task=classifier(pair=True))
    assert numbers[:12] == numbers[12:]
    assert set(numbers) == {1, 2, 3}
    with pytest.raises(DataError, match="there are only 1 different inputs"):
        folds_of(rows)


@pytest.mark.parametrize("folds", [2, 3, 4])
def test_groups_are_never_torn(folds: int) -> None:
    numbers = folds_of(ROWS, folds, group="author")
    assert set(numbers) == set(range(1, folds + 1))
    by_author: dict[str, set[int]] = {}
    for number, row in zip(numbers, ROWS, strict=True):
        by_author.setdefault(row["author"], set()).add(number)
    assert all(len(found) == 1 for found in by_author.values())
    for label in "xyz":  # as evenly as groups allow: every class is to be learned in each fold
        assert len({number for number, row in zip(numbers, ROWS, strict=True) if row["label"] == label}) > 1


def test_too_few_rows_of_a_class_are_refused_with_the_label_and_a_number_that_fits() -> None:
    rows = [*ROWS, {"text": "alone", "label": "rare"}]
    with pytest.raises(DataError, match=r"data\.folds=3: only 1 row has the label 'rare'"):
        folds_of(rows)
    with pytest.raises(DataError, match=r"data\.folds=6: only 5 rows have the label 'z'.*at most 5 folds"):
        folds_of(ROWS, 6)


def test_rows_with_equal_inputs_count_as_one_of_their_class() -> None:
    rows = [*ROWS, *[{"text": "again and again", "label": "rare"}] * 5]
    with pytest.raises(DataError, match="'rare'"):
        folds_of(rows)


def test_too_few_different_inputs_or_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.folds=5: there are only 4 different inputs; use fewer folds"):
        folds_of([{"text": str(i % 4), "label": "xy"[i % 2]} for i in range(20)], 5)
    with pytest.raises(DataError, match=r"data\.folds=10: there are only 9 values of 'author'; use fewer folds"):
        folds_of([{**row, "label": "x"} for row in ROWS], 10, group="author")


def test_a_class_that_only_one_group_has_is_refused() -> None:
    rows = [{"text": f"text {i}", "label": "rare" if i % 9 == 4 else "often", "author": f"author {i % 9}"} for i in range(36)]
    with pytest.raises(
        DataError, match=r"fold [123] would hold all rows with the label 'rare', because they all have one value of 'author'"
    ):
        folds_of(rows, group="author")


def test_a_row_without_the_column_of_the_groups_is_named() -> None:
    rows = [*ROWS[:7], {"text": "new", "label": "x"}]
    with pytest.raises(DataError, match=r"data\.group=author: row 8 has no such column among text, label"):
        folds_of(rows, group="author")


def test_rows_with_several_labels_are_divided_although_hardly_two_have_the_same() -> None:
    rows = [{"text": f"text {i}", "label": [name for bit, name in enumerate("abcde") if i >> bit & 1]} for i in range(32)]
    numbers = folds_of(rows, 4, task=classifier(multi_label=True))
    assert set(numbers) == {1, 2, 3, 4}
    sizes = Counter(numbers).values()
    assert max(sizes) - min(sizes) <= 1


def test_tasks_without_classes_are_divided_evenly() -> None:
    task = Translation(TranslationSettings())
    pairs = [{"source": f"source {i}", "target": "target"} for i in range(23)]
    numbers = folds_of(pairs, 5, task=task)
    sizes = Counter(numbers)
    assert set(sizes) == {1, 2, 3, 4, 5}
    assert max(sizes.values()) - min(sizes.values()) <= 1


@pytest.mark.parametrize("fold", [1, 3])
def test_a_run_holds_out_its_fold_and_trains_on_all_others(tmp_path: Path, fold: int) -> None:
    rows = [{**row, "author": str(i // 2)} for i, row in enumerate(toy_texts(30))]
    data = {"train": str(write_rows(tmp_path / "rows.tsv", rows)), "folds": 3, "fold": fold, "group": "author"}
    config = resolve(merge(TINY_TEXTS, {"data": data}))
    said: list[str] = []
    prepared = prepare(config, tmp_path / "run", said.append)
    numbers = np.array(folds_of(rows, group="author", seed=config.seed))
    assert prepared.valid.rows.tolist() == np.flatnonzero(numbers == fold).tolist()
    assert prepared.train.rows.tolist() == np.flatnonzero(numbers != fold).tolist()
    assert f"held out fold {fold} of 3, grouped by author, divided by seed 1" in said


def test_folds_hold_faulty_rows_on_neither_side_when_they_are_left_out(tmp_path: Path) -> None:
    rows = toy_texts(30)
    rows += [{**row, "label": "warm"} for row in rows[:4]]  # the first of them stands there already, the others contradict
    data = {"train": str(write_rows(tmp_path / "rows.tsv", rows)), "folds": 3, "filter": True}
    prepared = prepare(resolve(merge(TINY_TEXTS, {"data": data})), tmp_path / "run", lambda text: None)
    faulty = {row for row in range(34) if _is_faulty(rows, row)}
    assert sorted([*prepared.train.rows.tolist(), *prepared.valid.rows.tolist()]) == sorted(set(range(34)) - faulty)


def _is_faulty(rows: list[dict[str, str]], row: int) -> bool:
    labels = {other["label"] for other in rows if other["text"] == rows[row]["text"]}
    return len(labels) > 1 or any(other == rows[row] for other in rows[:row])


def test_translations_can_be_held_out_by_folds_too(tmp_path: Path) -> None:
    pairs = toy_pairs(40)
    settings = {"data": {"train": str(write_pairs(tmp_path / "pairs.tsv", pairs)), "folds": 4, "fold": 2}}
    prepared = prepare(resolve(merge(TINY, settings)), tmp_path / "run", lambda text: None)
    train, valid = (store.rows.tolist() for store in (prepared.train, prepared.valid))
    assert sorted(train + valid) == list(range(40))
    assert not {pairs[row]["source"] for row in train} & {pairs[row]["source"] for row in valid}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"fold": 2}, "data.fold and data.group would be ignored without data.folds"),
        ({"group": "author"}, "data.fold and data.group would be ignored without data.folds"),
        ({"folds": 3, "fold": 4}, "data.fold=4 is more than data.folds=3"),
        ({"folds": 3, "valid": "v.tsv"}, "data.valid=v.tsv: data.folds=3 holds out a part of data.train instead"),
        ({"folds": 1}, "data.folds: .*found 1"),
        ({"folds": 3, "fold": 0}, "data.fold: .*found 0"),
    ],
)
def test_settings_of_folds_that_do_not_fit_are_refused(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve(merge(TINY_TEXTS, {"data": {"train": "t.tsv", **data}}))
