"""Scores of hidden tokens, against their definitions."""

import math

import numpy as np
import pytest

from heed.errors import DataError
from heed.metrics import bootstrap, paired_bootstrap
from heed.metrics.masked import SCORE_FUNCTIONS, MaskedMetrics

RIGHT, LOG_P, HIDDEN = [1, 0, 2, 5], [-1.5, -4.0, -2.25, -9.0], [2, 1, 2, 7]


def counted(right: list[int], log_p: list[float], hidden: list[int]) -> MaskedMetrics:
    metrics = MaskedMetrics()
    metrics.add(right[:1], log_p[:1], hidden[:1])
    metrics.add(right[1:], log_p[1:], hidden[1:])
    return metrics


def test_scores_are_shares_and_perplexity_of_all_hidden_tokens_with_intervals_over_texts() -> None:
    content = counted(RIGHT, LOG_P, HIDDEN).scores().to_json()
    assert content["accuracy"]["value"] == round(8 / 12, 4)
    assert content["perplexity"]["value"] == round(math.exp(16.75 / 12), 4)
    assert (content["n"], content["hidden_tokens"]) == (4, 12)
    rows = {"accuracy": [RIGHT, HIDDEN], "perplexity": [[-p for p in LOG_P], HIDDEN]}
    for name, columns in rows.items():
        assert content[name] == bootstrap(np.array(columns).T, SCORE_FUNCTIONS[name]).to_json()


def test_two_models_are_compared_in_pairs_on_the_same_hidden_tokens() -> None:
    better = [2, 1, 2, 6]
    found = counted(RIGHT, LOG_P, HIDDEN).compare(counted(better, LOG_P, HIDDEN))
    a, b = (np.array([right, HIDDEN]).T for right in (RIGHT, better))
    assert found["accuracy"] == paired_bootstrap(a, b, SCORE_FUNCTIONS["accuracy"])
    assert found["perplexity"].difference.value == 0
    with pytest.raises(DataError, match="hid different tokens"):
        counted(RIGHT, LOG_P, HIDDEN).compare(counted(RIGHT, LOG_P, [2, 1, 2, 6]))


def test_qualities_rank_texts_by_the_mean_log_p_of_their_hidden_tokens() -> None:
    assert counted(RIGHT, LOG_P, HIDDEN).qualities().tolist() == [p / n for p, n in zip(LOG_P, HIDDEN, strict=True)]


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="text 2 has log p nan"):
        MaskedMetrics().add([0, 0], [-1.0, math.nan], [1, 1])
    with pytest.raises(DataError, match="no hidden tokens"):
        MaskedMetrics().scores()
    with pytest.raises(DataError, match="no hidden tokens"):
        counted([0, 0], [0.0, 0.0], [0, 0]).scores()
