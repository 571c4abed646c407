"""Which row is held out when: every row once, classes evenly, and never apart what belongs together."""

import json
import shutil
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_runs import TINY, TINY_TEXTS, toy_pairs, toy_texts, write_pairs, write_rows

from heed.config import merge
from heed.data.rows import Example
from heed.data.store import Store
from heed.errors import ConfigError, DataError
from heed.run import resolve
from heed.tasks import Task
from heed.tasks.question_answering import QuestionAnswering, QuestionAnsweringSettings
from heed.tasks.text_classification import TextClassification, TextClassificationSettings
from heed.tasks.translation import Translation, TranslationSettings
from heed.training.division import held_out_share
from heed.training.folds import Folds
from heed.training.prepare import prepare, reopen

ROWS: list[Example] = [
    {"text": f"text {i}", "label": label, "author": f"author {i % 9}"} for i, label in enumerate(["x"] * 17 + ["y"] * 11 + ["z"] * 5)
]


def classifier(**settings: Any) -> TextClassification:
    return TextClassification(TextClassificationSettings(**{"pair": False, **settings}))


def folds_of(rows: list[Example], folds: int = 3, *, group: str | None = None, seed: int = 1, task: Task | None = None) -> list[int]:
    found: list[int] = Folds(rows, task or classifier(), folds=folds, group=group, seed=seed).numbers.tolist()
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
    with pytest.raises(DataError, match="there is only 1 different input; that cannot be divided"):
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
    with pytest.raises(DataError, match=r"data\.folds=3: only 1 different input has the label 'rare'"):
        folds_of(rows)
    with pytest.raises(DataError, match=r"data\.folds=6: only 5 different inputs have the label 'z'.*at most 5 folds"):
        folds_of(ROWS, 6)


def test_rows_with_equal_inputs_count_as_one_of_their_class() -> None:
    rows = [*ROWS, *[{"text": "again and again", "label": "rare"}] * 5]
    with pytest.raises(DataError, match="'rare'"):
        folds_of(rows)


def test_too_few_articles_are_refused_as_such() -> None:
    rows = [{"question": f"q{i}", "context": f"c{i}", "title": f"t{i % 2}", "answers": []} for i in range(9)]
    with pytest.raises(DataError, match=r"data\.folds=3: there are only 2 articles or contexts; use fewer folds"):
        folds_of(rows, task=QuestionAnswering(QuestionAnsweringSettings()))


def test_too_few_different_inputs_or_groups_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.folds=5: there are only 4 different inputs; use fewer folds"):
        folds_of([{"text": str(i % 4), "label": "xy"[i % 2]} for i in range(20)], 5)
    with pytest.raises(DataError, match=r"data\.folds=10: there are only 9 values of 'author'; use fewer folds"):
        folds_of([{**row, "label": "x"} for row in ROWS], 10, group="author")


@pytest.mark.parametrize(("n_authors", "expected"), [(1, r"only 1 value of 'author' has the"), (2, r"only 2 values of 'author' have the")])
def test_a_class_of_fewer_groups_than_folds_is_refused_however_many_rows_it_has(n_authors: int, expected: str) -> None:
    rows = [{"text": f"text {i}", "label": "rare" if i % 9 < n_authors else "often", "author": f"author {i % 9}"} for i in range(72)]
    with pytest.raises(DataError, match=rf"data\.folds=3: {expected} label 'rare', so some folds would lack it"):
        folds_of(rows, group="author")


def test_a_class_that_stands_only_in_rows_with_equal_inputs_is_refused() -> None:
    rows = [*ROWS, *[{"text": "text 0", "label": "contradicting"}] * 4]
    with pytest.raises(DataError, match=r"would hold all rows with the label 'contradicting', because their inputs are equal"):
        folds_of(rows)


def test_rows_that_are_not_kept_have_no_fold_and_no_say_in_what_is_refused() -> None:
    rows = [*ROWS, {"text": "alone", "label": "rare"}]
    keep = np.array([row["label"] != "rare" for row in rows])
    keep[5] = False
    numbers = Folds(rows, classifier(), folds=3, group=None, seed=1, keep=keep).numbers
    assert np.flatnonzero(numbers == 0).tolist() == [5, len(rows) - 1]
    assert numbers[keep].tolist() == folds_of([row for row, kept in zip(rows, keep, strict=True) if kept])
    with pytest.raises(DataError, match="'rare'"):
        folds_of(rows)


def dealt_or_refused(rows: list[Example], folds: int, **options: Any) -> tuple[list[int], str]:
    """Return the folds, or why there are none."""
    try:
        return folds_of(rows, folds, **options), ""
    except DataError as error:
        return [], str(error)


def test_of_several_labels_every_one_of_as_many_rows_as_folds_is_learned_in_every_run_or_named() -> None:
    refusals = []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        rows = [{"text": f"text {i}", "label": [name for name in "abcd" if draw.random() < 0.4]} for i in range(14)]
        for i in (3, 11):
            rows[i]["label"].append("twice")
        counts = Counter(label for row in rows for label in row["label"])
        for folds in (2, 3):
            numbers, refused = dealt_or_refused(rows, folds, seed=seed, task=classifier(multi_label=True))
            refusals.append(refused)
            for fold in set(numbers):
                learned = {label for number, row in zip(numbers, rows, strict=True) if number != fold for label in row["label"]}
                assert learned >= {name for name, n in counts.items() if n >= folds}
    said = [f"the label 'twice', by chance of seed={seed}; try another seed" in refusals[2 * seed] for seed in range(12)]
    assert 0 < sum(said) < 12  # two rows fall into one of two folds about every other time


def test_a_rare_one_of_several_labels_may_stand_in_a_single_fold() -> None:
    rows = [{"text": f"text {i}", "label": ["often", *(["once"] if i == 7 else [])]} for i in range(12)]
    assert set(folds_of(rows, 3, task=classifier(multi_label=True))) == {1, 2, 3}


def test_several_labels_of_one_group_are_refused_with_the_reason() -> None:
    rows = [{"text": f"text {i}", "label": ["often", *(["rare"] if i % 4 == 1 else [])], "author": str(i % 4)} for i in range(20)]
    with pytest.raises(
        DataError, match=r"fold [123] would hold all rows with the label 'rare', because they all have one value of 'author'"
    ):
        folds_of(rows, group="author", task=classifier(multi_label=True))


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


def sides_of(
    rows: list[Example], fold: int, share: float, *, group: str | None = None, seed: int = 1, folds: int = 3
) -> dict[str, list[int]]:
    """Return the rows of each side."""
    sides = Folds(rows, classifier(), folds=folds, group=group, seed=seed).sides(fold, share=share)
    return {name: np.flatnonzero(side).tolist() for name, side in sides.items()}


@pytest.mark.parametrize("fold", [1, 2, 3])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_what_is_validated_on_is_a_share_of_the_rows_outside_the_fold_that_is_tested(fold: int, share: float) -> None:
    sides = sides_of(ROWS, fold, share)
    numbers = np.array(folds_of(ROWS))
    assert sides["test"] == np.flatnonzero(numbers == fold).tolist()
    assert sorted(sides["train"] + sides["valid"]) == np.flatnonzero(numbers != fold).tolist()
    assert len(sides["valid"]) == int(np.ceil(share * np.count_nonzero(numbers != fold)))
    assert sides == sides_of(ROWS, fold, share)
    assert any(sides["valid"] != sides_of(ROWS, fold, share, seed=seed)["valid"] for seed in (2, 3))


@given(st.integers(2, 4), st.integers(0, 99), st.floats(0.01, 0.5))
def test_no_group_and_no_input_stands_on_two_sides(folds: int, seed: int, share: float) -> None:
    again = [dict(ROWS[i]) for i in (0, 0, 7, 20, 30)]
    for group, rows in (("author", ROWS), ("text", ROWS + again), (None, ROWS + again)):
        for fold in range(1, folds + 1):
            sides = sides_of(rows, fold, share, group=group, seed=seed, folds=folds)
            values = {name: {rows[row][group or "text"] for row in side} for name, side in sides.items()}
            whole = Folds(rows, classifier(), folds=folds, group=group, seed=seed).validates_on_groups(fold, share)
            assert whole or group is not None
            assert not (whole and values["train"] & values["valid"])
            assert not values["test"] & (values["train"] | values["valid"])
            assert sorted(chain.from_iterable(sides.values())) == list(range(len(rows)))
            assert all(sides.values())
            assert {rows[row]["label"] for row in sides["train"]} == set("xyz")  # every class can be learned
            assert 2 * len(sides["valid"]) <= len(sides["train"]) + len(sides["valid"])


def test_where_no_input_can_be_held_out_for_validation_the_error_says_so() -> None:
    rows = [{"text": f"text {i % 2}", "label": "xy"[i // 2 % 2]} for i in range(8)]
    with pytest.raises(DataError, match=r"data\.folds=2: of 1 different input outside fold 2 none can be held out for validation"):
        sides_of(rows, 2, 0.2, folds=2)


@pytest.mark.parametrize(("n_groups", "whole"), [(5, False), (40, True)])
def test_groups_that_are_few_are_not_spared_for_validation(n_groups: int, whole: bool) -> None:
    rows = [{"text": f"text {i}", "label": "xy"[i % 2], "author": f"author {i // 2 % n_groups}"} for i in range(400)]
    division = Folds(rows, classifier(), folds=5, group="author", seed=1)
    sides = division.sides(2, share=0.06)
    authors = {name: {rows[row]["author"] for row in np.flatnonzero(side)} for name, side in sides.items()}
    assert division.validates_on_groups(2, 0.06) == whole
    assert bool(authors["train"] & authors["valid"]) != whole
    assert not authors["test"] & (authors["train"] | authors["valid"])
    assert len(authors["train"]) == (n_groups - n_groups // 5 if not whole else n_groups - n_groups // 5 - len(authors["valid"]))
    assert 0.06 * 320 <= sides["valid"].sum() <= 0.06 * 320 + 400 / n_groups


@pytest.mark.parametrize("fold", [1, 3])
def test_a_run_tests_on_its_fold_and_validates_on_whole_groups_of_the_others(tmp_path: Path, fold: int) -> None:
    rows = [{**row, "author": str(i // 2)} for i, row in enumerate(toy_texts(30))]
    data = {"train": str(write_rows(tmp_path / "rows.tsv", rows)), "folds": 3, "fold": fold, "group": "author"}
    config = resolve(merge(TINY_TEXTS, {"data": data}))
    said: list[str] = []
    prepared = prepare(config, tmp_path / "run", said.append)
    expected = sides_of(rows, fold, held_out_share(20, config.data.valid_share), group="author", seed=config.seed)
    sides = {"train": prepared.train.rows, "valid": prepared.valid.rows, "test": Store(tmp_path / "run" / "store" / "test").rows}
    assert {name: side.tolist() for name, side in sides.items()} == expected
    report = json.loads((tmp_path / "run" / "data_report.json").read_text(encoding="utf-8"))
    assert report["examples"] == {name: len(side) for name, side in expected.items()}
    (line,) = [line for line in said if line.startswith("held out ")]
    assert line == f"held out {report['held_out']}"
    assert f"10 of the 20 examples outside fold {fold} of 3, drawn in whole values of author by seed 1" in line
    assert f"fold {fold}, 10 examples, is the test data" in line


def test_stores_that_were_deleted_are_made_again_with_the_same_sides(tmp_path: Path) -> None:
    rows = [{**row, "author": str(i // 2)} for i, row in enumerate(toy_texts(30))]
    data = {"train": str(write_rows(tmp_path / "rows.tsv", rows)), "folds": 3, "fold": 2, "group": "author", "filter": True}
    before = prepare(resolve(merge(TINY_TEXTS, {"data": data})), tmp_path / "run", lambda text: None)
    test = Store(tmp_path / "run" / "store" / "test").rows.tolist()
    for gone in ("store", "store/test"):
        shutil.rmtree(tmp_path / "run" / gone)
        again = reopen(tmp_path / "run", lambda text: None)
        assert again.train.rows.tolist() == before.train.rows.tolist()
        assert again.valid.rows.tolist() == before.valid.rows.tolist()
        assert Store(tmp_path / "run" / "store" / "test").rows.tolist() == test


def test_folds_hold_faulty_rows_on_neither_side_when_they_are_left_out(tmp_path: Path) -> None:
    rows = toy_texts(30)
    rows += [{**row, "label": "warm"} for row in rows[:4]]  # the first of them stands there already, the others contradict
    data = {"train": str(write_rows(tmp_path / "rows.tsv", rows)), "folds": 3, "filter": True}
    prepared = prepare(resolve(merge(TINY_TEXTS, {"data": data})), tmp_path / "run", lambda text: None)
    faulty = {row for row in range(34) if _is_faulty(rows, row)}
    test = Store(tmp_path / "run" / "store" / "test").rows
    assert sorted([*prepared.train.rows.tolist(), *prepared.valid.rows.tolist(), *test.tolist()]) == sorted(set(range(34)) - faulty)


def test_faulty_rows_that_are_left_out_do_not_make_a_class_too_rare_or_frequent_enough(tmp_path: Path) -> None:
    rows = [*toy_texts(30), *[{"text": "once and again", "label": "rare"}] * 3]
    data = {"train": str(write_rows(tmp_path / "rows.tsv", rows)), "folds": 3}
    rare = {"text": f"word {len(rows)}", "label": "rare"}
    rows += [{**rare, "text": "word one"}, {**rare, "text": "word two"}, {**rare, "text": "word two", "label": "warm"}]
    write_rows(tmp_path / "rows.tsv", rows)
    prepare(resolve(merge(TINY_TEXTS, {"data": data})), tmp_path / "all", lambda text: None)
    with pytest.raises(DataError, match=r"only 2 different inputs have the label 'rare'"):
        prepare(resolve(merge(TINY_TEXTS, {"data": {**data, "filter": True}})), tmp_path / "run", lambda text: None)


def _is_faulty(rows: list[dict[str, str]], row: int) -> bool:
    labels = {other["label"] for other in rows if other["text"] == rows[row]["text"]}
    return len(labels) > 1 or any(other == rows[row] for other in rows[:row])


def test_translations_can_be_held_out_by_folds_too(tmp_path: Path) -> None:
    pairs = toy_pairs(40)
    settings = {"data": {"train": str(write_pairs(tmp_path / "pairs.tsv", pairs)), "folds": 4, "fold": 2}}
    prepared = prepare(resolve(merge(TINY, settings)), tmp_path / "run", lambda text: None)
    train, valid, test = (store.rows.tolist() for store in (prepared.train, prepared.valid, Store(tmp_path / "run" / "store" / "test")))
    assert sorted(train + valid + test) == list(range(40))
    assert not {pairs[row]["source"] for row in train} & {pairs[row]["source"] for row in valid + test}
    assert not {pairs[row]["source"] for row in valid} & {pairs[row]["source"] for row in test}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"fold": 2}, "data.fold and data.group would be ignored without data.folds"),
        ({"group": "author"}, "data.fold and data.group would be ignored without data.folds"),
        ({"folds": 3, "fold": 4}, "data.fold=4 is more than data.folds=3"),
        ({"folds": 3, "valid": "v.tsv"}, "data.valid=v.tsv: data.folds=3 holds out a part of data.train instead"),
        ({"folds": 3, "test": "t.tsv"}, "data.test=t.tsv: data.folds=3 holds out a part of data.train instead"),
        ({"folds": 1}, "data.folds: .*found 1"),
        ({"folds": 3, "fold": 0}, "data.fold: .*found 0"),
    ],
)
def test_settings_of_folds_that_do_not_fit_are_refused(data: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        resolve(merge(TINY_TEXTS, {"data": {"train": "t.tsv", **data}}))
