import json
import random
import tracemalloc

import numpy as np
import pytest

from heed.data.quality import MAX_EXAMPLES, RATIO_MIN_ROWS, PairFlag, ShownPair, survey_pairs
from heed.data.read import read_examples
from heed.errors import DataError

WORDS = [
    "a",
    "man",
    "and",
    "a",
    "dog",
    "walk",
    "along",
    "the",
    "river",
    "while",
    "it",
    "rains",
    "in",
    "the",
    "early",
    "evening",
    "of",
    "a",
    "long",
    "day",
]


def pairs(*rows):
    return [{"source": source, "target": target} for source, target in rows]


def ordinary(n, ratio=1.0, seed=0):
    draw = random.Random(seed)
    for number in range(n):
        source = " ".join([f"{number}", *draw.choices(WORDS, k=draw.randint(4, 12))])
        yield {"source": source, "target": f"{number}".ljust(round(len(source) * ratio * draw.uniform(0.8, 1.25)), "x")}


def rows_with(survey, flag):
    return [row + 1 for row in np.flatnonzero(survey.flags & flag)]


def test_each_fault_sets_its_flag():
    survey = survey_pairs(
        pairs(
            ("A dog.", "Ein Hund."),
            ("<br>", "x"),
            ("x", "\u200b "),
            ("OK  then", "ok <b>THEN</b>"),
            ("A dog.", "Ein  Hund."),
            ("A dog.", "Ein Tier."),
            ("A cat.", "Eine Katze."),
        ),
        other_splits={"valid": iter(pairs(("A cat.", "Eine Katze."), ("A dog.", "Kein Hund."))), "test": []},
    )
    assert survey.n_rows == 7
    assert survey.flags.dtype == np.uint8
    assert rows_with(survey, PairFlag.EMPTY) == [2, 3]
    assert rows_with(survey, PairFlag.COPY) == [4]
    assert rows_with(survey, PairFlag.DUPLICATE) == [5]
    assert rows_with(survey, PairFlag.LEAK) == [7]
    assert rows_with(survey, PairFlag.RATIO) == []
    assert survey.keep.tolist() == [True, False, False, False, False, True, False]
    assert survey.counts == {
        PairFlag.EMPTY: 2,
        PairFlag.COPY: 1,
        PairFlag.DUPLICATE: 1,
        PairFlag.RATIO: 0,
        PairFlag.LEAK: 1,
    }
    assert (survey.leaks, survey.source_overlap) == ({"valid": 1, "test": 0}, {"valid": 4, "test": 0})
    assert survey.examples[PairFlag.COPY] == [ShownPair(4, "OK then", "ok THEN")]


def test_a_pair_may_have_several_faults():
    survey = survey_pairs(pairs(("a", "A"), ("a", "A")), other_splits={"test": pairs(("a", "A"))})
    assert survey.flags.tolist() == [PairFlag.COPY | PairFlag.LEAK, PairFlag.COPY | PairFlag.LEAK | PairFlag.DUPLICATE]


def test_where_a_side_ends_matters():
    assert survey_pairs(pairs(("a b", "c"), ("a", "b c"), ("c", "a b"))).keep.all()


def test_every_split_counts_its_leaks():
    row = pairs(("A dog.", "Ein Hund."))
    survey = survey_pairs(row, other_splits={"valid": row, "test": row})
    assert survey.leaks == survey.source_overlap == {"valid": 1, "test": 1}


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.2])
def test_length_ratios_are_judged_by_what_is_usual_in_the_corpus(ratio):
    usual = list(ordinary(200, ratio))
    odd = pairs(("s" * 40, "t" * round(40 * ratio * 6)), ("s" * 200, "t" * max(1, round(200 * ratio / 6))))
    short = pairs(("Hi!", "t" * max(1, round(3 * ratio * 3))), ("Wait", "t"), ("好", "Good!"))
    survey = survey_pairs([*usual, *odd, *short])
    assert rows_with(survey, PairFlag.RATIO) == [201, 202]
    assert {pair.row for pair in survey.examples[PairFlag.RATIO]} == {201, 202}
    assert survey.typical_ratio == pytest.approx(ratio, rel=0.1)


def test_a_corpus_with_one_ratio_allows_for_a_factor():
    usual = pairs(*((f"{n:020}", f"{n:030}") for n in range(50)))
    survey = survey_pairs([*usual, *pairs(("s" * 20, "t" * 55), ("s" * 20, "t" * 500))])
    assert rows_with(survey, PairFlag.RATIO) == [52]
    assert survey.typical_ratio == 1.5


def test_few_pairs_do_not_show_what_is_usual():
    rows = [*ordinary(RATIO_MIN_ROWS - 2), *pairs(("s", "t" * 1000))]
    assert survey_pairs(rows).counts[PairFlag.RATIO] == 0
    assert survey_pairs([*rows, *pairs(("one more", "noch eins"))]).counts[PairFlag.RATIO] == 1


def test_only_the_first_rows_of_a_fault_are_shown_and_long_ones_cut():
    survey = survey_pairs(pairs(*((f"{'x' * 5000}{n % 2}", "y") for n in range(20))))
    shown = survey.examples[PairFlag.DUPLICATE]
    assert [pair.row for pair in shown] == list(range(3, 3 + MAX_EXAMPLES))
    assert {len(pair.source) for pair in shown} == {200}


def test_lengths_are_those_of_cleaned_text():
    survey = survey_pairs(pairs(*((" ".join(["ab"] * n), "好" * n) for n in range(1, 102)), ("", "x")))
    assert survey.lengths["source_words"] == {"min": 1, "p5": 6, "median": 51, "p95": 96, "max": 101}
    assert survey.lengths["source_characters"] == {"min": 2, "p5": 17, "median": 152, "p95": 287, "max": 302}
    assert survey.lengths["target_characters"]["max"] == 101
    assert survey.lengths["target_words"] == {}  # between which there are no spaces


def test_nothing_is_surveyed_as_nothing():
    survey = survey_pairs([])
    assert (survey.n_rows, survey.keep.tolist(), survey.typical_ratio) == (0, [], 0.0)
    assert survey.to_json()["lengths"]["source_words"] == {}


def test_the_report_is_plain_json():
    report = survey_pairs(pairs(("a", "A"), ("b", "c")), other_splits={"test": pairs(("b", "d"))}).to_json()
    assert json.loads(json.dumps(report)) == report
    assert (report["rows"], report["clean"], report["source_overlap"]) == (2, 1, {"test": 1})
    assert report["counts"] == {"empty": 0, "copies": 1, "duplicates": 0, "odd_ratios": 0, "leaks": 0}
    assert report["examples"]["copies"] == [{"row": 1, "source": "a", "target": "A"}]


def test_columns_can_have_other_names():
    rows = [{"document": "a b", "summary": "a"}, {"document": "a b", "summary": "a"}]
    survey = survey_pairs(rows, source="document", target="summary")
    assert survey.counts[PairFlag.DUPLICATE] == 1
    report = survey.to_json()
    assert report["examples"]["duplicates"] == [{"row": 2, "document": "a b", "summary": "a"}]
    assert list(report["lengths"]) == ["document_characters", "document_words", "summary_characters", "summary_words"]
    assert report["lengths"]["document_words"] == survey.lengths["source_words"]


@pytest.mark.parametrize("row", [{"source": "a"}, {"source": "a", "target": None}, {"source": 3, "target": "b"}])
def test_a_row_without_text_is_refused(row):
    with pytest.raises(DataError, match=r"data, row 1: column .* expected text"):
        survey_pairs([row])
    with pytest.raises(DataError, match="valid, row 1"):
        survey_pairs([], other_splits={"valid": [row]})


def test_many_duplicates_and_leaks_are_all_found():
    draw = random.Random(1)
    rows = [(str(draw.randrange(3000)), str(draw.randrange(3))) for _ in range(20_000)]
    other = [(str(draw.randrange(3000)), str(draw.randrange(3))) for _ in range(2000)]
    survey = survey_pairs(pairs(*rows), other_splits={"test": pairs(*other)})
    seen = set()
    first = [not (row in seen or seen.add(row)) for row in rows]
    assert (survey.flags & PairFlag.DUPLICATE == 0).tolist() == first
    leaking, known = set(other), {source for source, _ in other}
    assert (survey.flags & PairFlag.LEAK != 0).tolist() == [row in leaking for row in rows]
    assert survey.source_overlap["test"] == sum(source in known for source, _ in rows)


def test_memory_does_not_hold_the_texts():
    n_rows = 1000
    tracemalloc.start()
    survey_pairs({"source": f"{n} " + "s" * 3000, "target": f"{n} " + "t" * 3000} for n in range(n_rows))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n_rows * 600


@pytest.fixture
def shared(shared_data):
    return lambda spec: read_examples(f"{shared_data}/{spec}", required=["source", "target"])


def test_multi30k_is_clean_but_for_known_rows(shared):
    survey = survey_pairs(
        shared("multi30k/val.{en,de}"),
        other_splits={"train": shared("multi30k/train.{en,de}"), "test": shared("multi30k/test_2016_flickr.{en,de}")},
    )
    assert survey.source_overlap == {"train": 1, "test": 0}
    assert survey.leaks == {"train": 0, "test": 0}
    train = survey_pairs(shared("multi30k/train.{en,de}"))
    assert train.counts == {PairFlag.EMPTY: 0, PairFlag.COPY: 0, PairFlag.DUPLICATE: 3, PairFlag.RATIO: 2, PairFlag.LEAK: 0}
    assert {pair.target for pair in train.examples[PairFlag.RATIO]} == {"@@"}


def test_tatoeba_shares_no_pair_between_its_splits(shared):
    survey = survey_pairs(shared("tatoeba_zh_en/train.tsv"), other_splits={"valid": shared("tatoeba_zh_en/val.tsv")})
    assert survey.n_rows == 27_155
    assert survey.leaks == survey.source_overlap == {"valid": 0}
    assert survey.counts[PairFlag.RATIO] < 10
    assert survey.keep.mean() > 0.99
