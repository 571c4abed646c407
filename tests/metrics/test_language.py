"""Scores of language models, against their definitions over plain lists."""

import math
from dataclasses import astuple

import numpy as np
import pytest

from heed.errors import DataError
from heed.metrics.intervals import bootstrap
from heed.metrics.language import SCORE_FUNCTIONS, LanguageMetrics, unknown_remarks

# Of three texts: log p of every token, bytes, unknown tokens.
TEXTS = [([-0.5, -2.0, -0.1], 7, 0), ([-3.0], 2, 1), ([-0.7, -0.2, -1.1, -0.4, -0.9], 11, 0)]


def counted(texts: list[tuple[list[float], int, int]]) -> LanguageMetrics:
    metrics = LanguageMetrics()
    for log_p, n_bytes, n_unknown in texts:
        metrics.add([sum(log_p)], [len(log_p)], [n_bytes], [n_unknown])
    return metrics


def test_perplexity_is_exp_of_the_mean_over_all_tokens_not_over_texts() -> None:
    scores = counted(TEXTS).scores().scores
    every = [p for log_p, _, _ in TEXTS for p in log_p]
    assert scores["perplexity"].value == pytest.approx(math.exp(-sum(every) / len(every)))
    by_text = [math.exp(-sum(log_p) / len(log_p)) for log_p, _, _ in TEXTS]
    assert scores["perplexity"].value != pytest.approx(sum(by_text) / 3, rel=0.01)


def test_bits_per_byte_are_bits_of_all_tokens_over_bytes_of_all_texts() -> None:
    total = sum(p for log_p, _, _ in TEXTS for p in log_p)
    assert counted(TEXTS).scores().scores["bits_per_byte"].value == pytest.approx(-total / math.log(2) / (7 + 2 + 11))


def test_a_model_that_knows_nothing_of_bytes_needs_eight_bits_for_each() -> None:
    metrics = LanguageMetrics()
    metrics.add([-5 * math.log(256), -3 * math.log(256)], [5, 3], [5, 3], [0, 0])
    found = metrics.scores().scores
    assert found["bits_per_byte"].value == pytest.approx(8)
    assert found["perplexity"].value == pytest.approx(256)


def test_intervals_are_those_of_drawing_texts() -> None:
    metrics = counted(TEXTS * 9)
    scores = metrics.scores(resamples=200, seed=3)
    for name, function in SCORE_FUNCTIONS.items():
        expected = bootstrap(metrics.statistics[name], function, resamples=200, seed=3)
        assert astuple(scores.scores[name]) == pytest.approx(astuple(expected))
        assert scores.scores[name].low < scores.scores[name].value < scores.scores[name].high


def test_texts_are_counted_alike_in_any_batches() -> None:
    together = LanguageMetrics()
    log_p, n_bytes, n_unknown = zip(*TEXTS, strict=True)
    together.add([sum(one) for one in log_p], [len(one) for one in log_p], n_bytes, n_unknown)
    assert together.scores() == counted(TEXTS).scores()
    content = together.scores().to_json()
    assert (content["n"], content["tokens"], content["bytes"], content["unknown_tokens"]) == (3, 9, 20, 1)


def test_qualities_are_higher_for_texts_that_were_foretold_in_fewer_bits() -> None:
    expected = [sum(log_p) / math.log(2) / n_bytes for log_p, n_bytes, _ in TEXTS]
    np.testing.assert_allclose(counted(TEXTS).qualities(), expected)


def test_of_models_with_different_tokens_only_bits_are_compared() -> None:
    ours, alike = counted(TEXTS), counted([([2 * p for p in log_p], n_bytes, 0) for log_p, n_bytes, _ in TEXTS])
    other = counted([([sum(log_p) / 2, sum(log_p) / 2], n_bytes, 0) for log_p, n_bytes, _ in TEXTS])
    assert ours.compare(alike).keys() == {"perplexity", "bits_per_byte"}
    assert ours.compare(alike)["bits_per_byte"].difference.value == pytest.approx(ours.scores().scores["bits_per_byte"].value)
    compared = ours.compare(other)
    assert compared.keys() == {"bits_per_byte"}
    assert compared["bits_per_byte"].difference.value == pytest.approx(0)


def test_unknown_characters_are_told_beside_scores_that_they_make_too_good() -> None:
    metrics = LanguageMetrics()
    metrics.add([-3.0, -4.0], [5, 6], [7, 8], [2, 1])
    (remark,) = unknown_remarks(metrics.scores(resamples=1).to_json())
    assert remark.startswith("3 of 11 tokens stand for characters unknown to the model")
    known = LanguageMetrics()
    known.add([-3.0], [5], [7], [0])
    assert unknown_remarks(known.scores(resamples=1).to_json()) == []


def test_nothing_to_score_and_log_p_that_is_no_number_are_told() -> None:
    with pytest.raises(DataError, match="no texts to score"):
        LanguageMetrics().scores()
    metrics = counted(TEXTS)
    with pytest.raises(DataError, match=r"text 5 has log p -inf"):
        metrics.add([-1.0, -math.inf], [1, 1], [1, 1], [0, 0])
