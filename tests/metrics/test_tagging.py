"""Scores of spans, against seqeval."""

import random

import numpy as np
import pytest
from seqeval.metrics import accuracy_score, classification_report, f1_score, precision_score, recall_score

from heed.errors import DataError
from heed.metrics.intervals import bootstrap
from heed.metrics.tagging import SPAN_SCORES, TaggingMetrics

TYPES = ["PER", "LOC", "MISC"]
Tags = list[list[str]]


def drawn(n: int, seed: int) -> Tags:
    """Return sentences in BIO, some without a span."""
    draw = random.Random(seed)
    sentences = []
    for _ in range(n):
        tags: list[str] = []
        while len(tags) < draw.randint(1, 8):
            of = draw.choice(["PER", "PER", "LOC"])
            tags += draw.choice([["O"], ["O", "O"], [f"B-{of}"], [f"B-{of}", f"I-{of}"]])
        sentences.append(tags)
    return sentences


def disturbed(sentences: Tags, seed: int) -> Tags:
    draw = random.Random(seed)
    return [tags if draw.random() < 0.6 else (drawn(1, draw.randrange(999))[0] + ["O"] * len(tags))[: len(tags)] for tags in sentences]


def spans(tags: list[str]) -> list[tuple[str, int, int]]:
    """Return the spans of a sentence in BIO."""
    starts = [i for i, tag in enumerate(tags) if tag[0] == "B"]
    return [(tags[i][2:], i, next((j for j in range(i + 1, len(tags)) if tags[j][0] != "I"), len(tags))) for i in starts]


def counted(true: Tags, found: Tags) -> TaggingMetrics:
    metrics = TaggingMetrics(TYPES)
    for right, answered in zip(true, found, strict=True):
        n_right = sum(a == b for a, b in zip(right, answered, strict=True))
        metrics.add(spans(right), spans(answered), n_right=n_right, n_words=len(right))
    return metrics


TRUE = drawn(60, 1)
FOUND = disturbed(TRUE, 2)


def test_scores_are_those_of_seqeval() -> None:
    scores = counted(TRUE, FOUND).scores(resamples=200)
    expected = {"precision": precision_score, "recall": recall_score, "f1": f1_score, "accuracy": accuracy_score}
    for name, function in expected.items():
        assert 0.3 < scores.scores[name].value < 1
        assert scores.scores[name].value == pytest.approx(function(TRUE, FOUND))
        assert scores.scores[name].low < scores.scores[name].value < scores.scores[name].high
    report = classification_report(TRUE, FOUND, output_dict=True, zero_division=0)
    assert scores.scores["f1_macro"].value == pytest.approx(report["macro avg"]["f1-score"])
    assert scores.per_class.keys() == {"PER", "LOC"}
    for name, one in scores.per_class.items():
        found = {"precision": one.precision.value, "recall": one.recall.value, "f1-score": one.f1.value, "support": one.support}
        assert found == pytest.approx(report[name])


def test_a_type_that_is_answered_but_never_true_counts_in_the_macro_average() -> None:
    true, found = [["B-PER", "O"]], [["B-PER", "B-LOC"]]
    report = classification_report(true, found, output_dict=True, zero_division=0)
    assert counted(true, found).scores().scores["f1_macro"].value == pytest.approx(report["macro avg"]["f1-score"])


def test_a_type_that_nobody_named_counts_in_the_averages_over_all() -> None:
    metrics = TaggingMetrics(["PER"])
    metrics.add([("PER", 0, 1)], [("PER", 0, 1), ("XYZ", 1, 2)], n_right=1, n_words=2)
    found = metrics.scores()
    assert (found.scores["precision"].value, found.scores["recall"].value) == (0.5, 1.0)
    assert found.per_class.keys() == {"PER"}


def test_sentences_without_spans_score_0_and_no_sentences_are_refused() -> None:
    assert counted([["O", "O"]], [["O", "O"]]).scores().scores["f1"].value == 0 == f1_score([["O", "O"]], [["O", "O"]], zero_division=0)
    with pytest.raises(DataError, match="no sentences"):
        TaggingMetrics(TYPES).scores()


def test_intervals_are_those_of_drawing_sentences() -> None:
    metrics = counted(TRUE, FOUND)
    expected = bootstrap(metrics.statistics["f1"], SPAN_SCORES["f1"], resamples=100, seed=5)
    assert metrics.scores(resamples=100, seed=5).scores["f1"] == expected


def test_a_better_system_is_told_from_a_worse_one() -> None:
    tests = counted(TRUE, FOUND).compare(counted(TRUE, TRUE))
    assert tests["f1"].b.value == 1
    assert all(test.p_value < 0.05 for test in tests.values())


def test_qualities_are_shares_of_words() -> None:
    expected = [np.mean([a == b for a, b in zip(*pair, strict=True)]) for pair in zip(TRUE, FOUND, strict=True)]
    assert counted(TRUE, FOUND).qualities().tolist() == pytest.approx(expected)
