"""What is found in tagged sentences, held against definitions that go through all rows again for each of them."""

from hypothesis import given
from hypothesis import strategies as st

from heed.data.quality import MAX_EXAMPLES, SHOWN_CHARACTERS
from heed.data.tagged import survey_tagged

Row = dict[str, str | list[str]]

rows_of = st.lists(
    st.builds(
        lambda words, tags: {"tokens": words, "tags": tags},
        st.sampled_from(["Ada ran", ["Ada", "ran"], "Ada  fell"]),
        st.sampled_from(["B-PER O", ["B-PER", "O"], "O O", "B-LOC I-LOC"]),
    ),
    max_size=9,
)


def words(row: Row, column: str) -> list[str]:
    value = row[column]
    return value.split() if isinstance(value, str) else value


def sentence(row: Row) -> list[str]:
    return words(row, "tokens")


def whole(row: Row) -> list[list[str]]:
    return [sentence(row), words(row, "tags")]


@given(rows_of, rows_of)
def test_every_fault_is_counted_and_its_first_rows_are_shown(rows: list[Row], valid: list[Row]) -> None:
    survey = survey_tagged(rows, {"valid": valid}, scheme="bio")
    faults = {
        "duplicates": [whole(row) in [whole(one) for one in rows[:i]] for i, row in enumerate(rows)],
        "contradictions": [any(sentence(row) == sentence(one) and whole(row) != whole(one) for one in rows) for row in rows],
        "leaks": [sentence(row) in [sentence(one) for one in valid] for row in rows],
    }
    told = survey.to_json()
    assert told["counts"] == {name: sum(found) for name, found in faults.items()}
    assert survey.keep.tolist() == [not any(of_row) for of_row in zip(*faults.values(), strict=True)]
    for name, found in faults.items():
        expected = [{"row": i + 1, "text": " ".join(sentence(row)), "label": " ".join(words(row, "tags"))} for i, row in enumerate(rows)]
        assert told["examples"][name] == [one for one, faulty in zip(expected, found, strict=True) if faulty][:MAX_EXAMPLES]
    assert told["leaks"] == {"valid": sum(faults["leaks"])}
    assert survey.refused is None


def test_long_sentences_are_shown_cut() -> None:
    row: Row = {"tokens": ["word"] * 300, "tags": ["O"] * 300}
    (shown,) = survey_tagged([row, row], {}).examples["duplicates"]
    assert (len(shown["text"]), shown["row"]) == (SHOWN_CHARACTERS, 2)
