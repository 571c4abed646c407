import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from heed.errors import ConfigError
from heed.metrics import expected_calibration_error, fit_temperature, fit_threshold, rescaled
from heed.metrics.calibration import (
    MIN_ROWS,
    N_BINS,
    TEMPERATURES,
    Bools,
    Targets,
    best_precision,
    calibration_bins,
    calibration_score,
    calibration_statistics,
    decide,
    decisions,
    log_losses,
)
from heed.metrics.intervals import Floats


def softmax(logits: Floats) -> Floats:
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))


def honest_classes(n: int, n_classes: int, seed: int) -> tuple[Floats, Targets]:
    """Draw logits and, with the probabilities they stand for, the right classes."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, n_classes))
    return logits, (softmax(logits).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)


def honest_labels(n: int, n_classes: int, seed: int) -> tuple[Floats, Targets]:
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, n_classes))
    return logits, rng.random((n, n_classes)) < sigmoid(logits)


def error_by_definition(confidence: Floats, right: Bools) -> float:
    """Go through the bins (0, 1/15], (1/15, 2/15] … one by one."""
    error = 0.0
    for i in range(N_BINS):
        inside = (confidence > i / N_BINS) & (confidence <= (i + 1) / N_BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def test_the_calibration_error_is_that_of_its_definition() -> None:
    logits, targets = honest_classes(300, 4, seed=1)
    probabilities = softmax(2 * logits)
    answers = probabilities.argmax(axis=1)
    expected = error_by_definition(probabilities.max(axis=1), answers == targets)
    assert expected > 0.05
    assert expected_calibration_error(probabilities, targets) == pytest.approx(expected, abs=1e-12)


def test_the_decisions_on_all_labels_are_pooled() -> None:
    logits, targets = honest_labels(90, 4, seed=2)
    probabilities = sigmoid(3 * logits)
    answers = probabilities >= 0.5
    confidence = np.where(answers, probabilities, 1 - probabilities)
    expected = error_by_definition(confidence.ravel(), (answers == targets).ravel())
    assert expected_calibration_error(probabilities, targets, multi_label=True) == pytest.approx(expected, abs=1e-12)


def test_confidence_that_comes_true_has_no_calibration_error() -> None:
    probabilities = np.array([[0.75, 0.25]] * 8)
    assert expected_calibration_error(probabilities, np.array([0, 0, 0, 1] * 2)) == 0.0
    assert expected_calibration_error(probabilities, np.zeros(8, dtype=np.int64)) == 0.25


def test_calibration_statistics_add_up_to_the_error_of_any_part() -> None:
    logits, targets = honest_classes(60, 3, seed=3)
    probabilities = softmax(logits)
    statistics = calibration_statistics(*decisions(probabilities, targets))
    for part in (slice(0, 17), slice(17, 60)):
        found = calibration_score(statistics[part].sum(axis=0))
        assert found == pytest.approx(expected_calibration_error(probabilities[part], targets[part]), abs=1e-12)


def test_bins_say_what_is_in_them_and_empty_ones_are_left_out() -> None:
    logits, targets = honest_classes(70, 3, seed=4)
    confidence, right = decisions(softmax(logits), targets)
    bins = calibration_bins(confidence, right)
    assert sum(one["n"] for one in bins) == 70
    assert all(one["high"] > 0.33 for one in bins)  # of three probabilities the highest is at least a third
    for one in bins:
        edge = round(one["low"] * N_BINS)  # the edges are rounded
        inside = (confidence > edge / N_BINS) & (confidence <= (edge + 1) / N_BINS)
        assert one["n"] == inside.sum()
        assert one["confidence"] == pytest.approx(confidence[inside].mean(), abs=1e-4)
        assert one["accuracy"] == pytest.approx(right[inside].mean(), abs=1e-4)


def test_an_edge_belongs_to_the_bin_below_it() -> None:
    bins = calibration_bins(np.array([[0.0], [0.2], [1.0]]), np.array([[False], [True], [True]]))
    assert [(one["low"], one["high"]) for one in bins] == [(0.0, 0.0667), (0.1333, 0.2), (0.9333, 1.0)]


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    logits, targets = honest_classes(4000, 5, seed=5)
    assert fit_temperature(softmax(logits * temperature), targets) == pytest.approx(temperature, rel=0.1)
    logits, labels = honest_labels(2000, 3, seed=6)
    # The standard error is about 2 %.
    assert fit_temperature(sigmoid(logits * temperature), labels, multi_label=True) == pytest.approx(temperature, rel=0.1)


def test_no_other_temperature_has_less_log_loss() -> None:
    logits, targets = honest_classes(200, 3, seed=7)
    probabilities = softmax(2.5 * logits)

    def loss(temperature: float) -> float:
        return float(sklearn_metrics.log_loss(targets, softmax(2.5 * logits / temperature), labels=[0, 1, 2]))

    fitted = fit_temperature(probabilities, targets)
    assert fitted > 1.5
    assert loss(fitted) <= min(loss(temperature) for temperature in np.geomspace(0.5, 20, 200)) + 1e-7


def test_too_few_rows_and_nothing_to_gain_leave_the_temperature_at_one() -> None:
    logits, targets = honest_classes(MIN_ROWS - 1, 3, seed=8)
    assert fit_temperature(softmax(5 * logits), targets) == 1.0
    assert fit_temperature(np.full((40, 4), 0.25), np.arange(40) % 4) == 1.0
    assert fit_temperature(np.full((40, 2), 0.5), np.ones((40, 2), dtype=np.bool_), multi_label=True) == 1.0


def test_a_temperature_stays_within_its_bounds_and_zeros_and_ones_do_no_harm() -> None:
    certain = np.eye(3)[np.arange(30) % 3]
    right, wrong = np.arange(30) % 3, np.arange(1, 31) % 3
    assert fit_temperature(certain * 0.8 + 0.2 / 3, right) == 1.0  # all right: every smaller one is better
    assert fit_temperature(certain, wrong) == pytest.approx(TEMPERATURES[1], rel=1e-3)
    assert fit_temperature(certain, certain == 0, multi_label=True) == pytest.approx(TEMPERATURES[1], rel=1e-3)


def test_rescaling_divides_the_logits_and_the_inverse_takes_it_back() -> None:
    logits = np.random.default_rng(9).normal(size=(7, 4))
    for multi_label, function in ((False, softmax), (True, sigmoid)):
        scaled = rescaled(function(logits), 2.5, multi_label=multi_label)
        np.testing.assert_allclose(scaled, function(logits / 2.5), rtol=1e-9)
        np.testing.assert_allclose(rescaled(scaled, 1 / 2.5, multi_label=multi_label), function(logits), rtol=1e-9)


def test_rescaling_keeps_certain_answers_finite() -> None:
    certain = np.array([[0.0, 1.0, 0.0]])
    for multi_label in (False, True):
        for temperature in TEMPERATURES:
            scaled = rescaled(certain, temperature, multi_label=multi_label)
            assert np.isfinite(scaled).all()
            assert scaled.argmax() == 1


def test_log_losses_average_to_those_of_scikit_learn() -> None:
    logits, targets = honest_classes(50, 3, seed=10)
    probabilities = softmax(logits)
    probabilities[:3] = np.eye(3)[[1, 2, 0]]
    expected = sklearn_metrics.log_loss(targets, probabilities, labels=[0, 1, 2])
    assert log_losses(probabilities, targets).mean() == pytest.approx(expected, abs=1e-12)
    logits, labels = honest_labels(50, 3, seed=11)
    probabilities = sigmoid(logits)
    probabilities[0] = (0.0, 1.0, 1.0)
    expected = np.mean([sklearn_metrics.log_loss(labels[:, i].astype(int), probabilities[:, i], labels=[0, 1]) for i in range(3)])
    assert log_losses(probabilities, labels, multi_label=True).mean() == pytest.approx(expected, abs=1e-12)


def test_the_first_class_wins_a_tie_and_a_half_gives_a_label() -> None:
    assert decide(np.array([[0.2, 0.4, 0.4]])).tolist() == [1]
    assert decide(np.array([[0.5, 0.49]]), multi_label=True).tolist() == [[True, False]]


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9, 1.0])
@pytest.mark.parametrize("seed", [12, 13])
def test_the_threshold_is_the_lowest_that_keeps_the_wanted_rate(wanted: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.multinomial(10, rng.dirichlet((0.5, 0.5, 0.5), size=120)) / 10  # tenths, so that many confidences are equal
    confidence, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    targets = np.where(rng.random(120) < confidence, answers, (answers + 1) % 3)
    good = [
        threshold
        for threshold in np.unique(confidence)
        if (confidence >= threshold).sum() >= MIN_ROWS and (answers == targets)[confidence >= threshold].mean() >= wanted
    ]
    assert fit_threshold(probabilities, targets, wanted) == (min(good) if good else None)


def test_there_is_no_threshold_for_wrong_answers_and_for_too_few() -> None:
    probabilities = np.array([[0.7, 0.3]] * 20)
    assert fit_threshold(probabilities, np.ones(20, dtype=np.int64), 0.5) is None
    assert fit_threshold(probabilities, np.zeros(20, dtype=np.int64), 0.5) == 0.7
    assert fit_threshold(probabilities[: MIN_ROWS - 1], np.zeros(MIN_ROWS - 1, dtype=np.int64), 0.5) is None
    assert fit_threshold(probabilities[:0], np.zeros(0, dtype=np.int64), 0.5) is None


@pytest.mark.parametrize("seed", [14, 15])
def test_the_best_precision_is_the_highest_that_any_threshold_reaches_and_no_threshold_keeps_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.multinomial(10, rng.dirichlet((0.5, 0.5, 0.5), size=120)) / 10
    confidence, answers = probabilities.max(axis=1), probabilities.argmax(axis=1)
    targets = np.where(rng.random(120) < 0.7 * confidence, answers, (answers + 1) % 3)
    reached = [
        ((answers == targets)[confidence >= level].mean(), (confidence >= level).mean())
        for level in np.unique(confidence)
        if (confidence >= level).sum() >= MIN_ROWS
    ]
    assert best_precision(probabilities, targets) == pytest.approx(max(reached))
    best, share = max(reached)
    found = fit_threshold(probabilities, targets, best)
    assert found is not None
    assert (confidence >= found).mean() == share
    assert fit_threshold(probabilities, targets, best + 1e-6) is None


def test_too_few_examples_have_no_best_precision() -> None:
    probabilities = np.array([[0.7, 0.3]] * MIN_ROWS)
    assert best_precision(probabilities, np.zeros(MIN_ROWS, dtype=np.int64)) == (1.0, 1.0)
    assert best_precision(probabilities[1:], np.zeros(MIN_ROWS - 1, dtype=np.int64)) is None
    assert best_precision(probabilities[:0], np.zeros(0, dtype=np.int64)) is None


@pytest.mark.parametrize("wanted", [0.0, 1.5, float("nan")])
def test_a_wanted_precision_that_is_no_share_is_refused(wanted: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and up to 1"):
        fit_threshold(np.full((20, 2), 0.5), np.zeros(20, dtype=np.int64), wanted)
