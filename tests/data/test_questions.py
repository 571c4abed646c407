"""What is found in questions, held against definitions that go through all rows again for each of them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heed.data.questions import survey_questions
from heed.data.text import clean

Row = dict[str, Any]

rows_of = st.lists(
    st.builds(
        lambda question, context, title, answers: {"question": question, "context": context, "answers": answers} | title,
        st.sampled_from(["who", " who ", "when"]),
        st.sampled_from(["one fish", "one  fish", "two fish", "red"]),
        st.sampled_from([{}, {"title": "Fish"}, {"title": "Bird"}]),
        st.sampled_from([[], [{"text": "one", "start": 0}]]),
    ),
    max_size=6,
)


def asked(row: Row) -> tuple[str, str]:
    return clean(row["question"]), clean(row["context"])


@given(rows_of.filter(bool), rows_of, rows_of)
def test_every_fault_is_counted_by_its_definition(rows: list[Row], valid: list[Row], test: list[Row]) -> None:
    survey = survey_questions(rows, {"valid": valid, "test": test})
    contexts = {name: {asked(row)[1] for row in split} for name, split in (("valid", valid), ("test", test))}
    duplicates = [asked(row) in [asked(one) for one in rows[:i]] for i, row in enumerate(rows)]
    leaks = [asked(row)[1] in contexts["valid"] | contexts["test"] for row in rows]
    assert survey.counts == {"duplicates": sum(duplicates), "leaks": sum(leaks)}
    assert survey.keep.tolist() == [not (one or other) for one, other in zip(duplicates, leaks, strict=True)]
    assert survey.leaks == {name: sum(asked(row)[1] in found for row in rows) for name, found in contexts.items()}
    assert survey.shared == {"valid and test": sum(asked(row)[1] in contexts["valid"] for row in test)}
    assert survey.without_answer == sum(not row["answers"] for row in rows)
    assert survey.contexts == len({asked(row)[1] for row in rows})
    assert survey.titles == len({row["title"] for row in rows if "title" in row})
    assert [one["row"] for one in survey.examples["leaks"]] == [i + 1 for i, leaks_too in enumerate(leaks) if leaks_too][:5]
    assert (survey.refused is None) == (not any(leaks))


def test_a_refusal_says_that_contexts_leak_and_which_question_is_the_first() -> None:
    rows = [{"question": f"who {i}", "context": f"c{i // 2}", "answers": []} for i in range(6)]
    refused = survey_questions(rows, {"valid": [rows[3]], "test": [rows[5]]}).refused
    assert refused is not None
    assert "2 of them ask about a context that stands in data.valid too and 2 of them" in refused
    assert "(the first is row 3, 'who 2')" in refused


def test_articles_on_both_sides_are_warned_of() -> None:
    rows = [{"question": "who", "context": f"c{i}", "title": f"Article {i // 2}", "answers": []} for i in range(8)]
    survey = survey_questions(rows[:5], {"valid": rows[5:]})
    assert survey.refused is None
    assert survey.warnings == [
        "1 article has paragraphs in the training data and in data.valid: scores may be too good for articles never seen"
    ]
    assert survey_questions(rows[:4], {"valid": rows[4:]}).warnings == []
