import json
import math
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from heed.errors import ConfigError, DataError
from heed.metrics import ClassificationMetrics, Score, classification, expected_calibration_error, intervals, ranking
from heed.metrics.calibration import Bools, Targets
from heed.metrics.classification import AVERAGED, COMPARED, CURVE_LABELS, SCORE_NAMES
from heed.metrics.intervals import Floats
from heed.metrics.ranking import CURVE_POINTS

Places = np.ndarray[Any, np.dtype[np.int64]]


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))


def drawn_classes(n: int, n_classes: int, seed: int) -> tuple[Floats, Places]:
    """Draw logits that are somewhat higher at the right class, and the right classes."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes))
    logits[np.arange(n), targets] += 1.2
    return logits, targets


def drawn_labels(n: int, n_classes: int, seed: int) -> tuple[Floats, Bools]:
    rng = np.random.default_rng(seed)
    targets = rng.random((n, n_classes)) < np.linspace(0.2, 0.6, n_classes)
    return rng.normal(size=(n, n_classes)) + 1.5 * targets - 0.7, targets


def names(n: int) -> list[str]:
    return [f"class {i}" for i in range(n)]


def counted(probabilities: Floats, targets: Targets, **options: Any) -> ClassificationMetrics:
    metrics = ClassificationMetrics(names(probabilities.shape[1]), multi_label=targets.ndim == 2, **options)
    metrics.add(probabilities, targets)
    return metrics


def values_of(metrics: ClassificationMetrics) -> dict[str, float]:
    return {name: score.value for name, score in metrics.scores(resamples=3).scores.items()}


def averages_of_scikit_learn(targets: Targets, answers: Targets) -> dict[str, float]:
    found = {"accuracy": float(sklearn_metrics.accuracy_score(targets, answers))}
    for kind in ("macro", "micro", "weighted"):
        three = sklearn_metrics.precision_recall_fscore_support(targets, answers, average=kind, zero_division=0)[:3]
        found |= {f"{part}_{kind}": float(value) for part, value in zip(("precision", "recall", "f1"), three, strict=True)}
    return found


def two_classes() -> tuple[Floats, Places]:
    logits, targets = drawn_classes(61, 2, seed=1)
    return softmax(logits), targets


def five_classes() -> tuple[Floats, Places]:
    logits, targets = drawn_classes(97, 5, seed=2)
    return softmax(logits), targets


def one_absent_from_targets() -> tuple[Floats, Places]:
    logits, targets = drawn_classes(83, 4, seed=3)
    return softmax(logits), np.where(targets == 2, 3, targets)


def one_never_answered() -> tuple[Floats, Places]:
    logits, targets = drawn_classes(83, 4, seed=4)
    return softmax(logits - [0, 30, 0, 0]), targets


def one_in_neither() -> tuple[Floats, Places]:
    logits, targets = drawn_classes(83, 4, seed=5)
    return softmax(logits - [30, 0, 0, 0]), np.where(targets == 0, 1, targets)


def tied() -> tuple[Floats, Places]:
    rng = np.random.default_rng(6)
    targets = rng.integers(3, size=90)
    likely = np.full((90, 3), 0.25)
    likely[np.arange(90), targets] = 0.5
    return rng.multinomial(8, likely) / 8, targets


SINGLE = [two_classes, five_classes, one_absent_from_targets, one_never_answered, one_in_neither, tied]


@pytest.mark.parametrize("data", SINGLE)
def test_scores_of_single_labels_are_those_of_scikit_learn(data: Callable[[], tuple[Floats, Places]]) -> None:
    probabilities, targets = data()
    C = probabilities.shape[1]
    ranked = [1] if C == 2 else [i for i in range(C) if (targets == i).any()]
    expected = averages_of_scikit_learn(targets, probabilities.argmax(axis=1)) | {
        "roc_auc": np.mean([sklearn_metrics.roc_auc_score(targets == i, probabilities[:, i]) for i in ranked]),
        "average_precision": np.mean([sklearn_metrics.average_precision_score(targets == i, probabilities[:, i]) for i in ranked]),
        "log_loss": sklearn_metrics.log_loss(targets, probabilities, labels=list(range(C))),
        "calibration_error": expected_calibration_error(probabilities, targets),
    }
    assert values_of(counted(probabilities, targets)) == pytest.approx(expected, abs=1e-12)


def test_ranking_scores_of_several_classes_are_the_macro_averages_of_scikit_learn() -> None:
    probabilities, targets = five_classes()
    values = values_of(counted(probabilities, targets))
    assert values["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(targets, probabilities, multi_class="ovr"), abs=1e-12)
    assert values["average_precision"] == pytest.approx(sklearn_metrics.average_precision_score(targets, probabilities), abs=1e-12)


def test_scores_of_several_labels_are_those_of_scikit_learn() -> None:
    logits, targets = drawn_labels(120, 4, seed=7)
    probabilities = sigmoid(logits).round(1)  # with ties
    losses = [sklearn_metrics.log_loss(targets[:, i].astype(int), probabilities[:, i], labels=[0, 1]) for i in range(4)]
    expected = averages_of_scikit_learn(targets.astype(int), (probabilities >= 0.5).astype(int)) | {
        "roc_auc": sklearn_metrics.roc_auc_score(targets, probabilities),
        "average_precision": sklearn_metrics.average_precision_score(targets, probabilities),
        "log_loss": np.mean(losses),
        "calibration_error": expected_calibration_error(probabilities, targets, multi_label=True),
    }
    assert values_of(counted(probabilities, targets)) == pytest.approx(expected, abs=1e-12)


def test_a_label_that_never_occurs_counts_zero_among_several_labels_as_in_scikit_learn() -> None:
    logits, targets = drawn_labels(50, 3, seed=8)
    logits[:, 1], targets[:, 1] = -3, False
    expected = averages_of_scikit_learn(targets.astype(int), (logits >= 0).astype(int))
    values = values_of(counted(sigmoid(logits), targets))
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    ranked = [sklearn_metrics.roc_auc_score(targets[:, i], logits[:, i]) for i in (0, 2)]
    assert values["roc_auc"] == pytest.approx(np.mean(ranked), abs=1e-12)


@pytest.mark.parametrize("data", SINGLE)
def test_every_class_has_its_own_scores_and_row_of_confusions(data: Callable[[], tuple[Floats, Places]]) -> None:
    probabilities, targets = data()
    C, answers = probabilities.shape[1], probabilities.argmax(axis=1)
    expected = sklearn_metrics.precision_recall_fscore_support(targets, answers, labels=list(range(C)), zero_division=0)
    content = counted(probabilities, targets).scores(resamples=3).to_json()
    assert list(content["per_class"]) == content["labels"] == content["confusion"]["labels"] == names(C)
    for i, found in enumerate(content["per_class"].values()):
        values = [found[part]["value"] for part in ("precision", "recall", "f1")]
        assert values == pytest.approx([row[i] for row in expected[:3]], abs=1e-4)
        assert found["support"] == expected[3][i]
    confusion = sklearn_metrics.confusion_matrix(targets, answers, labels=list(range(C)))
    assert content["confusion"]["counts"] == confusion.tolist()


def test_every_label_has_its_own_confusion() -> None:
    logits, targets = drawn_labels(40, 3, seed=9)
    content = counted(sigmoid(logits), targets).scores(resamples=3).to_json()
    confusions = sklearn_metrics.multilabel_confusion_matrix(targets.astype(int), (logits >= 0).astype(int))
    assert list(content["confusion_per_label"].values()) == confusions.tolist()
    assert list(content["confusion_per_label"]) == content["labels"]
    assert "confusion" not in content
    assert [found["support"] for found in content["per_class"].values()] == targets.sum(axis=0).tolist()


def index_bootstrap(score: Callable[[Places], float], n: int, resamples: int) -> list[float]:
    """Score resamples by the definition and return the ends of the 95 % interval."""
    rng = np.random.default_rng(99)
    found: list[float] = np.percentile([score(rng.integers(n, size=n)) for _ in range(resamples)], (2.5, 97.5)).tolist()
    return found


def macro_f1_by_definition(targets: Places, answers: Places) -> float:
    found = []
    for label in {*targets.tolist(), *answers.tolist()}:
        hits = ((targets == label) & (answers == label)).sum()
        found.append(2 * hits / ((targets == label).sum() + (answers == label).sum()))
    return float(np.mean(found))


def test_the_interval_of_an_additive_score_is_that_of_resampled_examples() -> None:
    logits, targets = drawn_classes(40, 3, seed=10)
    answers = logits.argmax(axis=1)
    found = counted(softmax(logits), targets).scores(resamples=3000).scores["f1_macro"]
    low, high = index_bootstrap(lambda rows: macro_f1_by_definition(targets[rows], answers[rows]), 40, 3000)
    # The standard error of a 2.5 % point of 3000 draws is 0.05 standard deviations of the score, here 0.004.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.025)


def share_of_ordered_pairs(scores: Floats, positive: Bools) -> float:
    above = scores[positive][:, None] - scores[~positive]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def test_the_interval_of_a_ranking_score_is_that_of_resampled_examples() -> None:
    logits, targets = drawn_classes(40, 2, seed=11)
    probabilities = sigmoid(logits[:, 1] - logits[:, 0]).round(1)  # with ties
    pairs = np.stack([1 - probabilities, probabilities], axis=1)
    found = counted(pairs, targets).scores(resamples=3000).scores["roc_auc"]
    low, high = index_bootstrap(lambda rows: share_of_ordered_pairs(probabilities[rows], targets[rows] == 1), 40, 3000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.025)


def test_the_interval_of_roc_auc_covers_the_truth_at_about_its_nominal_rate() -> None:
    truth = 0.5 * (1 + math.erf(1.2 / 2))  # two normals 1.2 apart are told apart by their draws with probability Phi(1.2 / sqrt 2)
    rng = np.random.default_rng(12)
    covered = 0
    for trial in range(200):
        targets = np.arange(120) % 3 == 0
        scores = sigmoid(rng.normal(1.2 * targets, 1.0, size=120))
        found = counted(scores[:, None], targets[:, None]).scores(resamples=200, seed=trial).scores["roc_auc"]
        covered += found.low <= truth <= found.high
    assert 0.88 <= covered / 200 <= 0.99  # standard error 0.015; 40 positives and 200 resamples lose about 0.01


def test_intervals_hold_their_values_and_narrow_with_more_examples() -> None:
    def scores(n: int) -> Mapping[str, Score]:
        logits, targets = drawn_classes(n, 3, seed=13)
        return counted(softmax(logits), targets, temperature=1.5, threshold=0.5).scores(resamples=200).scores

    few, many = scores(60), scores(2000)
    assert tuple(few) == tuple(many) == SCORE_NAMES
    for name, score in few.items():
        assert score.low <= score.value <= score.high
        assert many[name].high - many[name].low < 0.6 * (score.high - score.low)  # about sqrt(60 / 2000) = 0.17


@pytest.mark.parametrize("n_labels", [0, 3])
def test_any_split_into_batches_gives_the_same_scores(n_labels: int) -> None:
    logits, targets = drawn_labels(30, 3, seed=14) if n_labels else drawn_classes(30, 3, seed=14)
    probabilities = sigmoid(logits) if n_labels else softmax(logits)
    whole = counted(probabilities, targets, temperature=2.0)
    split = ClassificationMetrics(names(3), multi_label=bool(n_labels), temperature=2.0)
    for start, end in ((0, 1), (1, 1), (1, 17), (17, 30)):
        split.add(probabilities[start:end].tolist() if end > start else np.zeros((0, 3)), targets[start:end])
        assert len(split.qualities()) == end
    assert split.scores(resamples=20).to_json() == whole.scores(resamples=20).to_json()
    np.testing.assert_array_equal(split.qualities(), whole.qualities())


def test_later_changes_of_a_batch_change_nothing() -> None:
    probabilities, targets = two_classes()
    metrics = counted(probabilities, targets)
    before = metrics.qualities().tolist()
    probabilities[:] = 0.5
    targets[:] = 0
    assert metrics.qualities().tolist() == before


def test_blocks_of_classes_and_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = counted(*five_classes())
    whole = metrics.scores(resamples=2000)
    monkeypatch.setattr(classification, "CLASS_BLOCK", 2)
    monkeypatch.setattr(ranking, "BLOCK", 200)
    blocks = metrics.scores(resamples=2000)
    assert blocks.per_class == whole.per_class
    assert blocks.scores["f1_weighted"] == whole.scores["f1_weighted"]
    for name in ("roc_auc", "average_precision"):
        assert blocks.scores[name].value == whole.scores[name].value
        assert blocks.scores[name].low == pytest.approx(whole.scores[name].low, abs=0.02)


def test_large_sets_get_fewer_resamples_of_ranking_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = counted(*five_classes())
    few, many = metrics.scores(resamples=30), metrics.scores(resamples=300)
    monkeypatch.setattr(classification, "RANKING_DRAWS", 1)
    monkeypatch.setattr(classification, "RANKING_FEWEST", 30)
    limited = metrics.scores(resamples=300)
    assert limited.scores["roc_auc"] == few.scores["roc_auc"] != many.scores["roc_auc"]
    assert limited.scores["log_loss"] == many.scores["log_loss"] != few.scores["log_loss"]


def test_memory_does_not_grow_with_examples_times_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "BLOCK_CELLS", 2**14)
    monkeypatch.setattr(ranking, "BLOCK", 2**14)
    logits, targets = drawn_classes(2000, 3, seed=15)
    metrics = counted(softmax(logits), targets)

    def peak(resamples: int) -> int:
        tracemalloc.start()
        metrics.scores(resamples=resamples)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(250) - peak(50) < 2000 * (250 - 50)  # a byte for each would be more


def test_statistics_add_up_to_the_scores() -> None:
    logits, targets = drawn_classes(50, 3, seed=16)
    metrics = counted(softmax(logits), targets, temperature=1.3, threshold=0.6)
    values, statistics = values_of(metrics), metrics.statistics
    assert statistics.keys() == values.keys() - {"roc_auc", "average_precision"}
    assert statistics.keys() == metrics.functions.keys()
    for name, rows in statistics.items():
        assert len(rows) == 50
        assert metrics.functions[name](rows.sum(axis=0, dtype=np.float64)) == pytest.approx(values[name], abs=1e-12)


@pytest.mark.parametrize("n_labels", [0, 3])
def test_a_system_does_not_differ_from_itself(n_labels: int) -> None:
    logits, targets = drawn_labels(30, 3, seed=17) if n_labels else drawn_classes(30, 3, seed=17)
    metrics = counted(sigmoid(logits) if n_labels else softmax(logits), targets)
    comparisons = metrics.compare(metrics, resamples=50)
    assert tuple(comparisons) == COMPARED
    for name, comparison in comparisons.items():
        assert comparison.p_value == 1.0
        assert comparison.difference == Score(0.0, 0.0, 0.0)
        found = metrics.scores(resamples=50).scores[name]
        assert (comparison.a.value, comparison.a.low, comparison.a.high) == pytest.approx((found.value, found.low, found.high), abs=1e-12)


def test_a_better_system_is_found_better() -> None:
    logits, targets = drawn_classes(300, 4, seed=18)
    better = logits.copy()
    better[np.arange(300), targets] += 1.0
    comparisons = counted(softmax(logits), targets).compare(counted(softmax(better), targets))
    assert all(comparison.p_value < 0.01 for comparison in comparisons.values())
    assert comparisons["f1_macro"].difference.low > 0
    assert comparisons["log_loss"].difference.high < 0


def test_systems_of_other_labels_or_examples_are_refused() -> None:
    probabilities, targets = five_classes()
    metrics = counted(probabilities, targets)
    with pytest.raises(DataError, match="system b with class 0, class 1"):
        metrics.compare(counted(*two_classes()))
    with pytest.raises(DataError, match="same examples"):
        metrics.compare(counted(probabilities[:9], targets[:9]))


def test_quality_is_the_probability_of_the_right_answer_in_percent() -> None:
    metrics = counted(np.array([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [0.4, 0.3, 0.3]]), np.array([0, 2, 1]))
    assert metrics.qualities().tolist() == pytest.approx([70, 5, 30])
    labels = counted(np.array([[0.8, 0.1], [0.8, 0.9]]), np.array([[True, False], [False, True]]))
    assert labels.qualities().tolist() == pytest.approx([85, 55])


def test_mistakes_are_the_wrong_answers_alone_the_surest_first() -> None:
    """Which is not the order of the qualities: there the second would come before the first."""
    probabilities = np.array([[0.1, 0.8, 0.1], [0.02, 0.49, 0.49], [0.3, 0.4, 0.3], [0.9, 0.05, 0.05], [0.98, 0.01, 0.01]])
    metrics = counted(probabilities, np.array([0, 0, 1, 1, 0]))
    assert metrics.mistakes().tolist() == [3, 0, 1]
    assert np.argsort(metrics.qualities(), kind="stable")[:2].tolist() == [1, 3]


def test_of_several_labels_the_surest_wrong_decision_counts() -> None:
    probabilities = np.array([[0.9, 0.9, 0.4], [0.9, 0.7, 0.4], [0.9, 0.9, 0.05]])
    targets = np.array([[True, True, True], [True, False, False], [True, True, True]])
    assert counted(probabilities, targets).mistakes().tolist() == [2, 1, 0]  # 0.95 sure that the last does not apply, 0.7, 0.6


@pytest.mark.parametrize("n_labels", [0, 3])
def test_mistakes_are_as_many_as_the_accuracy_says(n_labels: int) -> None:
    logits, targets = drawn_labels(50, 3, seed=18) if n_labels else drawn_classes(50, 3, seed=18)
    metrics = counted(sigmoid(logits) if n_labels else softmax(logits), targets)
    found = metrics.mistakes()
    assert len(set(found.tolist())) == len(found) == 50 - round(50 * values_of(metrics)["accuracy"])
    perfect = np.eye(3)[[0, 2]]
    assert counted(perfect, perfect.astype(bool) if n_labels else np.array([0, 2])).mistakes().tolist() == []


def test_the_probabilities_before_calibration_are_recovered() -> None:
    for function, (logits, targets) in ((softmax, drawn_classes(40, 3, seed=19)), (sigmoid, drawn_labels(40, 3, seed=19))):
        plain, metrics = counted(function(logits), targets), counted(function(logits / 2.5), targets, temperature=2.5)
        np.testing.assert_allclose(metrics.uncalibrated, function(logits), rtol=1e-9)
        found, expected = metrics.scores(resamples=3).to_json(), plain.scores(resamples=3).to_json()
        assert found["calibration_error_before"]["value"] == expected["calibration_error"]["value"]
        assert found["calibration_before"] == expected["calibration"]
        assert found["calibration"]["temperature"] == 2.5
        assert not {"calibration_before", "calibration_error_before"} & expected.keys()


def test_examples_below_the_threshold_are_not_answered() -> None:
    probabilities, targets = five_classes()
    answered = probabilities.max(axis=1) >= 0.5
    content = counted(probabilities, targets, threshold=0.5, wanted_precision=0.9).scores(resamples=20).to_json()
    assert content["coverage"]["value"] == pytest.approx(answered.mean(), abs=1e-4)
    expected = (probabilities.argmax(axis=1) == targets)[answered].mean()
    assert content["accuracy_when_answered"]["value"] == pytest.approx(expected, abs=1e-4)
    assert content["accuracy"]["value"] == pytest.approx((probabilities.argmax(axis=1) == targets).mean(), abs=1e-4)
    assert content["abstain"] == {"threshold": 0.5, "wanted_precision": 0.9}


def test_nothing_answered_leaves_the_accuracy_of_answers_out() -> None:
    content = counted(np.full((5, 2), 0.5), np.array([0, 1, 0, 1, 1]), threshold=0.9).scores(resamples=20).to_json()
    assert content["coverage"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert "accuracy_when_answered" not in content


def test_a_single_class_in_the_data_has_no_roc_auc() -> None:
    content = counted(np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([0, 0])).scores(resamples=20).to_json()
    assert not {"roc_auc", "average_precision"} & content.keys()
    assert content["curves"] == {"roc": {}, "precision_recall": {}}
    content = counted(np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([1, 1])).scores(resamples=20).to_json()
    assert "roc_auc" not in content
    assert content["average_precision"]["value"] == 1.0


@given(st.integers(1, 6), st.integers(1, 4), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_plain_json_without_nan_comes_of_every_small_set(n: int, n_classes: int, multi_label: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.integers(3, size=(n, n_classes)) / 2 if multi_label else rng.multinomial(3, [1 / n_classes] * n_classes, size=n) / 3
    targets: Targets = rng.integers(2, size=(n, n_classes)) == 1 if multi_label else rng.integers(n_classes, size=n)
    scores = counted(probabilities, targets, temperature=float(rng.choice([0.5, 1.0]))).scores(resamples=9)
    content = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert content == scores.to_json()
    assert content["n"] == n
    assert set(AVERAGED) <= content.keys()
    assert all(score.low <= score.value <= score.high for score in scores.scores.values())


def test_curves_lie_on_those_of_scikit_learn() -> None:
    logits, targets = drawn_classes(700, 2, seed=20)
    probabilities = softmax(logits)
    curves = counted(probabilities, targets).scores(resamples=3).to_json()["curves"]
    assert list(curves["roc"]) == list(curves["precision_recall"]) == ["class 1"]
    roc, trade = curves["roc"]["class 1"], curves["precision_recall"]["class 1"]
    assert len(roc) <= CURVE_POINTS
    assert len(trade) <= CURVE_POINTS
    assert (roc[0], roc[-1]) == ([0.0, 0.0], [1.0, 1.0])
    assert (trade[0][0], trade[-1][0]) == (0.0, 1.0)
    x, y, _ = sklearn_metrics.roc_curve(targets, probabilities[:, 1], drop_intermediate=False)
    assert all(point in np.stack([x, y], axis=1).round(4).tolist() for point in roc)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(targets, probabilities[:, 1])
    assert all(point in np.stack([recall, precision], axis=1).round(4).tolist() for point in trade[1:])
    area = np.trapezoid([point[1] for point in roc], [point[0] for point in roc])
    assert area == pytest.approx(sklearn_metrics.roc_auc_score(targets, probabilities[:, 1]), abs=0.01)


def test_only_the_most_frequent_labels_have_curves() -> None:
    n_classes = CURVE_LABELS + 3
    targets = np.repeat(np.arange(n_classes), np.arange(1, n_classes + 1))
    probabilities = softmax(np.random.default_rng(21).normal(size=(len(targets), n_classes)))
    curves = counted(probabilities, targets).scores(resamples=3).to_json()["curves"]
    assert set(curves["roc"]) == set(curves["precision_recall"]) == set(names(n_classes)[3:])


@pytest.mark.parametrize(
    ("probabilities", "targets", "found"),
    [
        (np.full((2, 2), 0.5), [0, 1], r"shape \(2, 2\); expected \(n, 3\)"),
        (np.full(3, 0.3), [0, 1, 2], r"shape \(3,\); expected \(n, 3\)"),
        (np.full((2, 3), 0.3), [0, 1, 2], r"targets have shape \(3,\); expected \(2,\)"),
        (np.full((2, 3), 0.3), np.eye(3)[:2], r"targets have shape \(2, 3\); expected \(2,\)"),
        (np.full((2, 3), 0.3), [0, 3], "target 3 is no class id; expected a whole number from 0 to 2"),
        (np.full((2, 3), 0.3), [0, -1], "target -1 is no class id"),
        (np.full((2, 3), 0.3), [0, 0.5], "target 0.5 is no class id"),
        (np.array([[0.2, 0.3, 0.5], [0.2, 0.3, np.nan]]), [0, 1], "row 1 of a batch has the probabilities"),
        (np.array([[0.2, 0.3, 1.5]]), [0], "row 0 of a batch has the probabilities"),
    ],
)
def test_what_cannot_be_counted_is_refused(probabilities: Floats, targets: Any, found: str) -> None:
    metrics = ClassificationMetrics(names(3))
    with pytest.raises(DataError, match=found):
        metrics.add(probabilities, targets)
    assert len(metrics.probabilities) == len(metrics.targets) == 0


def test_targets_of_several_labels_are_truth_values_in_the_shape_of_the_probabilities() -> None:
    metrics = ClassificationMetrics(names(3), multi_label=True)
    metrics.add(np.full((2, 3), 0.3), np.eye(3)[:2])
    assert metrics.targets.tolist() == [[True, False, False], [False, True, False]]
    with pytest.raises(DataError, match=r"targets have shape \(2,\); expected \(2, 3\)"):
        metrics.add(np.full((2, 3), 0.3), [0, 1])
    with pytest.raises(DataError, match="target 2 is no truth value"):
        metrics.add(np.full((1, 3), 0.3), [[0, 1, 2]])


def test_no_examples_are_refused() -> None:
    with pytest.raises(DataError, match="no examples to score"):
        ClassificationMetrics(names(2)).scores()


@pytest.mark.parametrize(
    ("labels", "options", "found"),
    [
        ([], {}, "there are no labels"),
        (["a", "b", "a"], {}, "the labels a are there more than once"),
        (["a", "b"], {"temperature": 0.0}, "temperature is 0.0"),
        (["a", "b"], {"temperature": float("nan")}, "temperature is nan"),
        (["a", "b"], {"threshold": 1.5}, "threshold is 1.5"),
        (["a", "b"], {"threshold": 0.5, "multi_label": True}, "a single label per example"),
    ],
)
def test_settings_that_make_no_sense_are_refused(labels: list[str], options: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        ClassificationMetrics(labels, **options)
