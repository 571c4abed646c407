"""The hygiene of texts without labels."""

import json

from heed.data.unlabelled import survey_texts

TEXTS = ["one text", "another\n", "one text", "  another ", "a third of them", "One text"]


def rows(texts: list[str]) -> list[dict[str, str]]:
    return [{"text": text} for text in texts]


def test_texts_that_stand_further_up_and_in_other_splits_are_counted_and_shown() -> None:
    found = survey_texts(rows(TEXTS), {"valid": rows(["another", "new"]), "test": rows(["One text", "a third of them", "newer"])})
    assert found.counts == {"duplicates": 2, "leaks": 4}
    assert found.leaks == {"valid": 2, "test": 2}
    assert found.keep.tolist() == [True, False, False, False, False, False]
    assert found.examples["duplicates"] == [{"row": 3, "text": "one text"}, {"row": 4, "text": "another"}]
    assert [row["row"] for row in found.examples["leaks"]] == [2, 4, 5, 6]
    assert found.refused == (
        "the training texts leak: 2 of them stand in data.valid too and 2 of them stand in data.test too (the first is row 2, 'another'), "
        "so scores would be too good; leave such rows out with data.filter=true, or train all the same with data.allow_leaks=true"
    )


def test_duplicates_and_empty_texts_are_no_leaks() -> None:
    found = survey_texts(rows(["one", "one", " ", "other"]), {"valid": rows(["new", "", "\n"])})
    assert (found.counts, found.leaks, found.refused) == ({"duplicates": 1, "leaks": 0}, {"valid": 0}, None)


def test_lengths_are_quantiles_over_all_texts() -> None:
    found = survey_texts(rows(["a", "b c", "d e f"]), {})
    assert found.lengths["text_characters"] == {"min": 1, "p5": 1, "median": 3, "p95": 5, "max": 5}
    assert found.lengths["text_words"]["median"] == 2
    assert found.counts == {"duplicates": 0, "leaks": 0}
    assert found.keep.all()


def test_findings_are_plain_json() -> None:
    content = survey_texts(rows(TEXTS), {"valid": rows(["another"])}).to_json()
    assert json.loads(json.dumps(content)) == content
    assert (content["rows"], content["clean"]) == (6, 3)
