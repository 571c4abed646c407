"""Answers that quote an input are marked where they stand in it."""

import math
from typing import Any

import pytest

from heed.report.examples import MOST_CHARACTERS, Keys, example_keys, groups, label_differences, tag_differences

KEYS = Keys(("question", "context"), ("answers",))


def texts(context: str, answer: dict[str, Any], answers: object = ()) -> dict[str, str]:
    """Return what is shown of an example, by its label."""
    example = {"question": "who?", "context": context, "answers": answers}
    (group,) = groups({"examples": {"best": [{"example": example, "answer": answer, "quality": 1.0}]}}, KEYS)
    return {text.label: str(text.html) for text in group.shown[0].texts}


def test_an_answer_is_marked_in_its_context_and_references_are_told_once() -> None:
    references = [{"text": "a <cat>", "start": 4}, {"text": "a <cat>", "start": 4}, {"text": "cat", "start": 7}]
    shown = texts("see a <cat> run", {"text": "a <cat>", "start": 4, "end": 11}, references)
    assert shown["context"] == "see <mark>a &lt;cat&gt;</mark> run"
    assert "a &lt;cat&gt;" in shown["reference"]
    assert "start" not in shown["reference"]
    assert shown["question"] == "who?"


def test_of_a_long_context_what_stands_around_the_answer_is_shown() -> None:
    context = "x" * 3 * MOST_CHARACTERS + "cat" + "y" * 3 * MOST_CHARACTERS
    shown = texts(context, {"text": "cat", "start": 3 * MOST_CHARACTERS, "end": 3 * MOST_CHARACTERS + 3})["context"]
    assert "x<mark>cat</mark>y" in shown
    assert shown.startswith("… x")
    assert shown.endswith("y …")
    assert len(shown) < MOST_CHARACTERS + 50


def test_places_that_are_none_mark_nothing() -> None:
    for start, end in ((4, 5), (None, 3), (-3, 3), (0, 10**40), ("0", 3), (3, 0)):
        assert "<mark>" not in texts("cat and dog", {"text": "cat", "start": start, "end": end}, [])["context"]


def test_a_text_that_is_empty_is_said_to_be_nothing() -> None:
    shown = texts("cat and dog", {"text": "", "abstained": True, "likeliest": "cat"}, [])
    assert (shown["reference"], shown["answer"]) == ("<i>nothing</i>", "<i>nothing</i>")
    assert texts("cat", {"text": "dog"}, [])["answer"] == "<ins>dog</ins>"


def card(answer: dict[str, Any], qualities: tuple[float, ...] = (0.5,)) -> Any:
    """Return what is shown of the answer to a text that has no reference."""
    entries = [{"example": {"text": "a cat"}, "answer": answer, "quality": quality} for quality in qualities]
    return groups({"examples": {"best": entries}}, Keys(("text",), ()))[0].shown[0]


def test_how_well_a_text_was_foretold_stands_below_it_and_no_empty_answer() -> None:
    shown = card({"text": "", "log_likelihood": -20 * math.log(7), "tokens": 20, "unknown": 0})
    assert [text.label for text in shown.texts] == ["text"]
    assert shown.notes == ["20 tokens, perplexity 7."]
    hidden = card({"text": "", "log_likelihood": -5 * math.log(3), "right": 4, "hidden": 5})
    assert hidden.notes == ["4 of 5 hidden tokens foretold rightly; perplexity 3."]
    for odd in ({"tokens": 0}, {"tokens": None}, {"log_likelihood": "x"}, {"log_likelihood": float("nan")}):
        assert card({"text": "", "log_likelihood": -3.0, "tokens": 4, **odd}).notes == []


def test_qualities_are_told_apart_in_their_unit() -> None:
    assert card({"text": "x"}, (-1.84, -1.92)).quality == "-1.84"
    assert card({"text": "x"}, (0.25, 58.3)).quality == "0.2"


@pytest.mark.parametrize(
    ("task", "written"),
    [
        ("translation", True),
        ("speech_recognition", True),
        ("text_to_text", True),
        ("text_classification", False),
        ("question_answering", False),
        ("tagging", False),
        ("masked_lm", False),
        ("sentence_similarity", False),
        ("text_generation", False),
    ],
)
def test_options_of_decoding_matter_to_scores_of_what_is_written_token_by_token(task: str, written: bool) -> None:
    assert example_keys({"task": {"name": task}}).written is written


def test_words_and_their_tags_are_read_as_texts() -> None:
    keys = example_keys({"task": {"name": "tagging"}})
    entry = {"example": {"tokens": ["in", "Rome"], "tags": ["O", "B-LOC"]}, "answer": {"text": "in Rome", "tags": ["O", "O"]}}
    shown = groups({"examples": {"worst": [entry]}}, keys)[0].shown[0]
    found = {text.label: str(text.html) for text in shown.texts}
    assert found["tokens"] == "in Rome"
    assert found["reference"] == "O <del>B-LOC</del>"
    assert found["answer"] == "O <ins>O</ins>"


def test_a_tag_is_compared_with_that_of_the_same_word() -> None:
    left, right = tag_differences(["B-<x>", "O", "O", "B-y"], ["O", "O", "B-y"])
    assert left == "<del>B-&lt;x&gt;</del> O <del>O</del> <del>B-y</del>"
    assert right == "<ins>O</ins> O <ins>B-y</ins>"


def test_labels_are_compared_one_by_one_in_whatever_order_they_stand() -> None:
    assert label_differences(["sport", "a <b>"], ["a <b>", "sport"]) == ("sport, a &lt;b&gt;", "a &lt;b&gt;, sport")
    assert label_differences(["sport", "food"], ["art", "food"]) == ("<del>sport</del>, food", "<ins>art</ins>, food")
    entry = {"example": {"text": "x", "label": ["sport", "food"]}, "answer": {"text": "food, sport", "labels": ["food", "sport"]}}
    (group,) = groups({"examples": {"best": [entry]}}, Keys(("text",), ("label",)))
    assert [str(text.html) for text in group.shown[0].texts] == ["x", "sport, food", "food, sport"]
