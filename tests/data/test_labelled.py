"""What is found in labelled texts, held against definitions that go through all rows again for each of them."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.labelled import LabelSurvey, labels_of, survey_labelled
from heed.data.quality import MAX_EXAMPLES, SHOWN_CHARACTERS, FaultSurvey
from heed.data.text import clean

Row = dict[str, Any]

FAULTS = ["empty", "duplicates", "contradictions", "leaks"]
TEXTS = ["good", " good ", "<b>good</b>", "Good", "not good", "bad", "", "<br>", "\u200b"]  # the first three are one text, the last none
rows_of_texts = st.lists(st.builds(lambda text, label: {"text": text, "label": label}, st.sampled_from(TEXTS), st.sampled_from("xy")))
some_rows = rows_of_texts.filter(bool)


def faults_of(row: int, rows: list[Row], others: list[list[Row]]) -> set[str]:
    """Look at one row against all others."""
    texts, labels = [clean(one["text"]) for one in rows], [one["label"] for one in rows]
    if not texts[row]:
        return {"empty"}
    same = [i for i, text in enumerate(texts) if text == texts[row]]
    found = {
        "duplicates": any(i < row and labels[i] == labels[row] for i in same),
        "contradictions": any(labels[i] != labels[row] for i in same),
        "leaks": any(clean(one["text"]) == texts[row] for split in others for one in split),
    }
    return {name for name, holds in found.items() if holds}


def names(survey: FaultSurvey) -> list[set[str]]:
    """Return the faults of each row."""
    return [{name for name, rows in survey.faults.items() if rows[row]} for row in range(len(survey.keep))]


@given(some_rows, rows_of_texts, rows_of_texts)
def test_every_flag_is_set_by_its_definition(rows: list[Row], valid: list[Row], test: list[Row]) -> None:
    survey = survey_labelled(rows, {"valid": valid, "test": test})
    expected = [faults_of(row, rows, [valid, test]) for row in range(len(rows))]
    assert names(survey) == expected
    assert survey.keep.tolist() == [not found for found in expected]
    assert survey.counts == {name: sum(name in found for found in expected) for name in FAULTS}
    for name, split in (("valid", valid), ("test", test)):
        assert survey.leaks[name] == sum("leaks" in faults_of(row, rows, [split]) for row in range(len(rows)))


@given(some_rows, rows_of_texts)
def test_the_first_rows_of_each_flag_are_shown_with_their_numbers(rows: list[Row], valid: list[Row]) -> None:
    survey = survey_labelled(rows, {"valid": valid})
    for fault, shown in survey.examples.items():
        flagged = [row for row in range(len(rows)) if fault in faults_of(row, rows, [valid])]
        assert [one["row"] for one in shown] == [row + 1 for row in flagged[:MAX_EXAMPLES]]
        assert [one["text"] for one in shown] == [clean(rows[row]["text"]) for row in flagged[:MAX_EXAMPLES]]


def survey_of(*texts: tuple[str, str], **others: list[Row]) -> LabelSurvey:
    return survey_labelled([{"text": text, "label": label} for text, label in texts], others)


def test_a_contradiction_flags_all_rows_of_the_text_and_no_other() -> None:
    survey = survey_of(("a b", "x"), ("c", "x"), ("a  b", "y"), ("a b", "x"), ("a b c", "y"))
    assert names(survey) == [
        {"contradictions"},
        set(),
        {"contradictions"},
        {"contradictions", "duplicates"},
        set(),
    ]


def test_leaks_are_counted_for_each_split_and_refused_with_the_first_row_and_what_to_do() -> None:
    valid, test = [{"text": "b", "label": "y"}, {"text": "c", "label": "x"}], [{"text": "c ", "label": "x"}, {"text": "z", "label": "x"}]
    survey = survey_of(("a", "x"), ("b", "x"), ("c", "x"), ("c", "x"), valid=valid, test=test)
    assert survey.leaks == {"valid": 3, "test": 2}
    assert survey.shared == {"valid and test": 1}
    refused = survey.refused
    assert refused is not None
    assert "3 of them stand in data.valid too and 2 of them stand in data.test too" in refused
    assert "row 2, 'b'" in refused
    assert "data.filter=true" in refused
    assert "data.allow_leaks=true" in refused


def test_without_leaks_nothing_is_refused_whatever_else_is_found() -> None:
    survey = survey_of(("a", "x"), ("a", "y"), ("", "x"), ("a", "x"), valid=[{"text": "z", "label": "x"}, {"text": "", "label": "x"}])
    assert survey.refused is None
    assert survey.leaks == {"valid": 0}
    assert survey_of(("a", "x")).refused is None


def test_a_split_without_leaks_is_not_named() -> None:
    refused = survey_of(("a", "x"), valid=[{"text": "z", "label": "x"}], test=[{"text": "a", "label": "x"}]).refused
    assert refused is not None
    assert "data.test" in refused
    assert "data.valid" not in refused


@given(rows_of_texts, rows_of_texts, rows_of_texts)
def test_what_other_splits_share_is_counted_by_rows_of_the_second(first: list[Row], second: list[Row], third: list[Row]) -> None:
    survey = survey_labelled([{"text": "good", "label": "x"}], {"a": first, "b": second, "c": third})
    splits = {"a": first, "b": second, "c": third}
    for names, n in survey.shared.items():
        before, after = splits[names[0]], splits[names[-1]]
        texts = {clean(row["text"]) for row in before} - {""}
        assert n == sum(clean(row["text"]) in texts for row in after)
    assert list(survey.shared) == ["a and b", "a and c", "b and c"]


def test_two_texts_are_judged_together() -> None:
    rows = [
        {"text": "a", "text_pair": "b", "label": "x"},
        {"text": "a", "text_pair": "c", "label": "y"},  # another pair
        {"text": "a b", "text_pair": "", "label": "y"},  # the same letters, divided otherwise
        {"text": " a", "text_pair": "b ", "label": "x"},
        {"text": "b", "text_pair": "a", "label": "y"},  # the other way round
        {"text": "", "text_pair": "<p>", "label": "y"},
    ]
    other = [{"text": "a", "text_pair": "c", "label": "x"}, {"text": "c", "text_pair": "c", "label": "x"}]
    survey = survey_labelled(rows, {"valid": other}, texts=("text", "text_pair"))
    assert names(survey) == [set(), {"leaks"}, set(), {"duplicates"}, set(), {"empty"}]
    assert survey.examples["duplicates"] == [{"row": 4, "text": "a | b", "label": "x"}]


def test_the_order_of_several_labels_does_not_matter() -> None:
    rows = [
        {"text": "a", "label": ["x", "y"]},
        {"text": "a", "label": ["y", "x"]},
        {"text": "b", "label": []},
        {"text": "b", "label": ["x"]},
        {"text": "c", "label": ["y"]},
    ]
    survey = survey_labelled(rows, {})
    found = [set(), {"duplicates"}, {"contradictions"}, {"contradictions"}, set()]
    assert names(survey) == found
    assert survey.classes == {"x": 3, "y": 3}
    assert survey.examples["duplicates"][0]["label"] == "y, x"


def test_one_label_counts_as_a_list_of_one() -> None:
    assert labels_of("x y") == ["x y"]
    assert labels_of(["x", "y"]) == ["x", "y"]
    single, listed = ([{"text": text, "label": wrap(label)} for text, label in (("a", "x"), ("a", "y"))] for wrap in (str, lambda x: [x]))
    assert survey_labelled(single, {}).to_json() == survey_labelled(listed, {}).to_json()


def test_classes_are_counted_in_every_split_the_most_frequent_first() -> None:
    valid = [{"text": "v", "label": "y"}, {"text": "w", "label": "z"}, {"text": "u", "label": "z"}]
    survey = survey_of(("a", "x"), ("b", "y"), ("c", "y"), ("", "y"), valid=valid)
    assert list(survey.classes.items()) == [("y", 3), ("x", 1)]
    assert list(survey.classes_others["valid"].items()) == [("z", 2), ("y", 1)]


def test_lengths_are_those_of_cleaned_texts_that_are_not_empty() -> None:
    survey = survey_of(("<i>one</i>  two", "x"), ("", "x"), ("three", "x"), ("a b c d", "y"))
    assert survey.lengths["text_characters"]["min"] == len("three")
    assert survey.lengths["text_characters"]["median"] == survey.lengths["text_characters"]["max"] == len("one two") == len("a b c d")
    assert (survey.lengths["text_words"]["min"], survey.lengths["text_words"]["max"]) == (1, 4)
    assert survey_of(("", "x")).lengths == {"text_characters": {}, "text_words": {}}


def test_words_are_counted_where_spaces_divide_them() -> None:
    chinese = [("送餐时间太长 差评！", "x"), ("很好吃", "y"), ("加热一下就更好吃了。", "y")]
    assert survey_of(*chinese).lengths["text_words"] == {}
    assert survey_of(*chinese).lengths["text_characters"]["max"] == 10
    spaced = [(" ".join(text), label) for text, label in chinese]  # as somebody leaves them who has cut them into words
    assert survey_of(*spaced).lengths["text_words"]["max"] == 10
    mixed = [*chinese, ("not good", "x"), ("it came late", "x"), ("좋아요 맛있어요", "y")]
    assert survey_of(*mixed).lengths["text_words"] == {"min": 2, "p5": 2, "median": 2, "p95": 3, "max": 3}


def test_a_shown_text_is_cut() -> None:
    shown = survey_of(("a" * 999, "x"), ("a" * 999, "x")).examples["duplicates"][0]["text"]
    assert shown == "a" * SHOWN_CHARACTERS


@given(some_rows, rows_of_texts)
def test_findings_are_plain_json(rows: list[Row], valid: list[Row]) -> None:
    survey = survey_labelled(rows, {"valid": valid})
    content = survey.to_json()
    assert json.loads(json.dumps(content)) == content
    assert content["rows"] == len(rows)
    assert content["clean"] == survey.keep.sum()
    assert content["counts"].keys() == content["examples"].keys() == set(FAULTS)


@pytest.mark.parametrize("rows", [[("a", "x"), ("b", "x")], [("a", "x"), ("a", "x"), ("b", "x"), ("c", "y")]])
def test_rows_are_read_again_only_as_far_as_examples_are_shown(rows: list[tuple[str, str]]) -> None:
    n_read: list[int] = []

    class Rows:
        def __iter__(self) -> Iterator[Row]:
            n_read.append(0)
            for text, label in rows:
                n_read[-1] += 1
                yield {"text": text, "label": label}

    survey = survey_labelled(Rows(), {})
    flagged = [row for row, faults in enumerate(names(survey), start=1) if faults]
    assert n_read == [len(rows), *([flagged[-1]] if flagged else [])]
