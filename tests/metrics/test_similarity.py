"""Scores of similarity, against their definitions over plain loops and against scipy."""

import numpy as np
import pytest
from scipy import stats

from heed.errors import DataError
from heed.metrics.intervals import Floats
from heed.metrics.similarity import CorrelationMetrics, RetrievalMetrics, correlations

DRAW = np.random.default_rng(7)
N, D = 23, 6
ASKED = DRAW.normal(size=(N, D))
GIVEN = ASKED + 1.2 * DRAW.normal(size=(N, D))
TEXTS = [(f"question {i}", f"answer {i}") for i in range(N)]


def retrieval(asked: Floats = ASKED, given: Floats = GIVEN, texts: list[tuple[str, str]] = TEXTS) -> RetrievalMetrics:
    metrics = RetrievalMetrics()
    metrics.add(asked[:9], given[:9], texts[:9])
    metrics.add(asked[9:], given[9:], texts[9:])
    return metrics


def cosine(one: Floats, other: Floats) -> float:
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def test_the_rank_of_a_partner_counts_the_wrong_texts_that_are_nearer() -> None:
    expected = [1 + sum(cosine(ASKED[i], GIVEN[j]) > cosine(ASKED[i], GIVEN[i]) for j in range(N)) for i in range(N)]
    assert retrieval().ranks.tolist() == expected
    assert 1 < max(expected) < N
    scores = retrieval().scores(resamples=200).scores
    assert scores["accuracy"].value == pytest.approx(sum(rank == 1 for rank in expected) / N)
    assert scores["mean_reciprocal_rank"].value == pytest.approx(sum(1 / rank for rank in expected) / N)
    assert all(score.low < score.value < score.high for score in scores.values())


def test_the_length_of_vectors_does_not_matter() -> None:
    assert retrieval(ASKED * DRAW.uniform(0.1, 9, (N, 1)), 5 * GIVEN).ranks.tolist() == retrieval().ranks.tolist()


def test_the_right_text_again_the_question_and_what_stands_beside_it_elsewhere_are_no_wrong_answers() -> None:
    given = GIVEN.copy()
    given[5:8] = ASKED[0]  # nearer to the first question than anything
    alone = retrieval().ranks[0]
    assert retrieval(given=given).ranks[0] == alone + 3 - sum(cosine(ASKED[0], GIVEN[j]) > cosine(ASKED[0], GIVEN[0]) for j in range(5, 8))
    texts = [*TEXTS]
    texts[5], texts[6], texts[7] = ("question 0", "other"), ("another", "answer 0"), ("third", "question 0")
    without = [j for j in range(1, N) if j not in (5, 6, 7)]
    expected = 1 + sum(cosine(ASKED[0], GIVEN[j]) > cosine(ASKED[0], GIVEN[0]) for j in without)
    assert retrieval(given=given, texts=texts).ranks[0] == expected
    assert retrieval(given=given, texts=texts).scores(resamples=2).to_json()["candidates"] == N - 1


def test_one_vector_for_all_texts_finds_nothing() -> None:
    same = np.ones((N, D))
    assert set(retrieval(same, same).ranks.tolist()) == {N}


def test_a_better_model_is_told_from_a_worse_one() -> None:
    near = retrieval(given=ASKED + 0.01 * DRAW.normal(size=(N, D)))
    test = retrieval().compare(near)["accuracy"]
    assert test.difference.value == pytest.approx(1 - np.mean(retrieval().ranks == 1))
    assert test.p_value < 0.05
    assert retrieval().compare(retrieval())["mean_reciprocal_rank"].p_value == 1


def test_qualities_are_reciprocal_ranks() -> None:
    assert retrieval().qualities().tolist() == pytest.approx([1 / rank for rank in retrieval().ranks])


def test_correlations_are_those_of_scipy_ties_included() -> None:
    x, y = DRAW.normal(size=40).round(1), DRAW.integers(4, size=40) / 3
    found = correlations(x, y, resamples=50, seed=3)
    rows = np.random.default_rng(3).integers(40, size=(50, 40))
    for drawn, at in ((np.arange(40), 0), (rows[0], 1), (rows[49], 50)):
        assert found["pearson"][at] == pytest.approx(stats.pearsonr(x[drawn], y[drawn]).statistic)
        assert found["spearman"][at] == pytest.approx(stats.spearmanr(x[drawn], y[drawn]).statistic)


def correlated(x: Floats, y: Floats) -> CorrelationMetrics:
    metrics = CorrelationMetrics()
    metrics.add(x[:7].tolist(), y[:7].tolist())
    metrics.add(x[7:].tolist(), y[7:].tolist())
    return metrics


def test_scores_have_intervals_and_are_compared_on_the_same_draws() -> None:
    y = DRAW.uniform(size=60)
    near, far = y + 0.1 * DRAW.normal(size=60), y + 2 * DRAW.normal(size=60)
    scores = correlated(near, y).scores().scores
    assert 0.5 < scores["spearman"].low < scores["spearman"].value < scores["spearman"].high < 1
    assert correlated(far, y).compare(correlated(near, y))["pearson"].p_value < 0.05
    assert correlated(near, y).compare(correlated(near, y))["spearman"].p_value == 1
    assert correlated(near, y).qualities().tolist() == pytest.approx((-abs(near - y)).tolist())


def test_where_nothing_varies_there_is_no_correlation() -> None:
    scores = correlated(np.full(12, 0.3), np.arange(12) / 12).scores().scores
    assert {score.value for score in scores.values()} == {0.0}


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(DataError, match="no pairs"):
        RetrievalMetrics().scores()
    with pytest.raises(DataError, match="no pairs"):
        CorrelationMetrics().scores()
    with pytest.raises(DataError, match="zero or not finite"):
        RetrievalMetrics().add([[0.0, 0.0]], [[1.0, 0.0]], [("a", "b")])
    with pytest.raises(DataError, match="not finite"):
        CorrelationMetrics().add([float("nan")], [1.0])
    with pytest.raises(DataError, match="2 and 1 vectors for 1 pairs"):
        RetrievalMetrics().add([[1.0], [1.0]], [[1.0]], [("a", "b")])
    with pytest.raises(DataError, match="judged by different scores"):
        correlated(np.arange(9.0), np.arange(9.0)).compare(correlated(np.arange(9.0), np.arange(9.0)[::-1]))
