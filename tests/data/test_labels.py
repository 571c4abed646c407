"""The classes of a classifier: their order, their numbers, and what is said about a label that is none of them."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.labels import SHOWN_LABELS, Labels
from heed.data.parts import load_parts, save_parts
from heed.errors import CheckpointError, ConfigError, DataError


def fitted(*values, given=None):
    return Labels.fit(values, given=given)


@pytest.mark.parametrize(
    ("values", "order"),
    [
        (["b", "a", "c", "a"], ("a", "b", "c")),
        (["10", "9", "-1", "10"], ("-1", "9", "10")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["01", "1", "0"], ("0", "01", "1")),
        (["1.5", "10", "9"], ("1.5", "10", "9")),
        (["负", "正"], tuple(sorted("负正"))),
        ([["news", "sport"], [], ["art"]], ("art", "news", "sport")),
        ([["only"], []], ("only",)),
    ],
)
def test_whole_numbers_are_sorted_by_number_and_all_else_by_text(values, order):
    assert Labels.fit(values, given=None).labels == order
    assert Labels.fit(iter(reversed(values)), given=None).labels == order


@given(st.lists(st.integers(-(10**17), 10**17), min_size=2, unique=True))
def test_numbers_keep_their_order(numbers):
    assert Labels.fit(map(str, numbers), given=None).labels == tuple(map(str, sorted(numbers)))


@given(st.lists(st.lists(st.sampled_from(["p", "q", "r", "s"]), unique=True), min_size=1))
def test_each_label_has_its_number_and_its_rows(rows):
    counts = Counter(label for row in rows for label in row)
    if not counts:
        with pytest.raises(DataError, match=f"none of the {len(rows)} rows has a label"):
            Labels.fit(rows, given=None)
        return
    labels = Labels.fit(rows, given=None)
    assert labels.counts == counts
    assert [labels.index(label) for label in labels.labels] == list(range(len(counts)))


def test_given_labels_keep_their_order_and_may_have_no_rows():
    labels = fitted("low", "high", "low", given=["low", "middle", "high"])
    assert labels.labels == ("low", "middle", "high")
    assert labels.counts == {"low": 2, "middle": 0, "high": 1}
    assert labels.index("high") == 2


def test_a_label_that_is_not_given_is_refused():
    with pytest.raises(DataError, match=r"label 'hgih' is not one of task.labels \(low, high\); add it there"):
        fitted("low", "hgih", given=["low", "high"])


@pytest.mark.parametrize(("names", "fault"), [([], "task.labels is empty"), (["a", "b", "a"], "task.labels names 'a' twice")])
def test_labels_that_are_given_wrongly_are_refused(names, fault):
    with pytest.raises(ConfigError, match=fault):
        fitted("a", "b", given=names)


def test_one_class_is_enough_only_where_a_row_may_have_none():
    with pytest.raises(DataError, match="every training row has the label 'x'; a classifier needs at least two"):
        fitted("x", "x", "x")
    with pytest.raises(DataError, match=r"\(for class folders, a folder of another name.* column of a table .*data\.columns\.label=NAME"):
        fitted("pos", "pos")
    with pytest.raises(DataError, match="every training row has the label 'x'"):
        fitted("x", "x", given=["x", "y"])
    with pytest.raises(DataError, match="none of the 0 rows has a label"):
        fitted()
    assert fitted(["x"], []).labels == ("x",)


@pytest.mark.parametrize(
    ("known", "label", "said"),
    [
        (
            ["negative", "positive"],
            "pozitive",
            "label 'pozitive' is not one of negative, positive; did you mean 'positive'?",
        ),
        (["negative", "positive"], " POSITIVE", "label ' POSITIVE' is not one of negative, positive; did you mean 'positive'?"),
        (["negative", "positive"], "x", "label 'x' is not one of negative, positive"),
        (
            ["0", "1"],
            "positive",
            "label 'positive' is not one of 0, 1: the training data name their labels by numbers; use the same names in both files",
        ),
        (
            ["negative", "positive"],
            "1",
            "label '1' is not one of negative, positive: the training data name their labels by words; use the same names in both files",
        ),
        (["0", "1"], "7", "label '7' is not one of 0, 1"),
        (["0", "one"], "7", "label '7' is not one of 0, one"),
    ],
)
def test_an_unknown_label_is_explained(known, label, said):
    labels = fitted(*known)
    assert labels.explain(label) == said
    with pytest.raises(DataError) as caught:
        labels.index(label)
    assert str(caught.value) == said


def test_long_lists_and_long_labels_are_shortened():
    labels = fitted(*(f"class {chr(ord('a') + n)}" for n in range(SHOWN_LABELS + 5)))
    assert labels.explain("?") == f"label '?' is not one of {', '.join(labels.labels[:SHOWN_LABELS])} and 5 more"
    assert len(labels.explain("word " * 100_000)) < 300


def test_labels_come_back_from_their_file(tmp_path: Path):
    labels = fitted("b", "a", "b", given=["b", "c", "a"])
    save_parts(tmp_path, {"labels": labels})
    loaded = load_parts(tmp_path)["labels"]
    assert isinstance(loaded, Labels)
    assert (loaded.labels, loaded.counts) == (labels.labels, labels.counts)
    assert loaded.to_json() == labels.to_json()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"labels": ["a", "b"]},
        {"labels": [], "counts": {}},
        {"labels": "ab", "counts": {"a": 1, "b": 1}},
        {"labels": ["a", 1], "counts": {"a": 1, "1": 1}},
        {"labels": ["a", "a"], "counts": {"a": 1}},
        {"labels": ["a", "b"], "counts": {"a": 1}},
        {"labels": ["a", "b"], "counts": [1, 1]},
        {"labels": ["a", "b"], "counts": {"a": 1, "b": True}},
        {"labels": ["a", "b"], "counts": {"a": 1, "b": -1}},
        {"labels": ["a", "b"], "counts": {"a": 1, "b": 0.5}},
    ],
)
def test_a_spoiled_file_is_refused(content):
    with pytest.raises(CheckpointError, match=r"not labels.*restore the run folder"):
        Labels.from_json(content)
