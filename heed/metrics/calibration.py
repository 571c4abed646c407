"""Calibration of a classifier: how far its confidence is from its accuracy, and what is fitted on validation answers to mend that.

Expected calibration error: Naeini et al. 2015, with the 15 bins of Guo et al. 2017. Temperature scaling: Guo et al. 2017, section 4.2. Not
answering below a confidence: Chow 1970.

Left out: calibration of every class on its own (Platt scaling, isotonic and vector scaling), which needs far more validation data.

Shapes: `N` examples, `C` classes, `M` decisions per example: 1, or C when an example may have several labels (`multi_label`).
"""

import math

import numpy as np
import numpy.typing as npt

from heed.errors import ConfigError
from heed.metrics.intervals import Floats

Bools = npt.NDArray[np.bool_]
Targets = npt.NDArray[np.int64 | np.bool_]  # (N,) class ids, or (N, C) with True for every label of an example when multi_label

N_BINS = 15
EDGES: Floats = np.arange(N_BINS + 1) / N_BINS  # of the bins; the upper edge belongs to a bin, the lower one to its neighbour
DECIDED = 0.5  # the probability from which a label is given, when multi_label
MIN_ROWS = 10  # examples below which nothing is fitted
TEMPERATURES = (0.05, 20.0)  # ends of the search
MIN_STEP = 1e-4  # of log T, where the search ends
MIN_GAIN = 1e-6  # nats of log-loss per decision below which a temperature is not worth having
SMALLEST = 2.0**-149  # the smallest positive float32: what the zeros of a float32 softmax stand for
NEAREST = 2.0**-24  # a float32 sigmoid comes no nearer to 1 without being 1
EPSILON = float(np.finfo(np.float64).eps)  # log-loss clips probabilities to [EPSILON, 1 - EPSILON], as scikit-learn does


def decide(probabilities: Floats, *, multi_label: bool = False) -> Targets:
    """Turn probabilities (N, C) into class ids (N,), or into labels (N, C) when multi_label; the first class wins a tie."""
    decided: Targets = probabilities >= DECIDED if multi_label else probabilities.argmax(axis=1)
    return decided


def decisions(probabilities: Floats, targets: Targets, *, multi_label: bool = False) -> tuple[Floats, Bools]:
    """Return the confidence of every decision, (N, M), and whether it was right, (N, M)."""
    right: Bools = decide(probabilities, multi_label=multi_label) == targets
    if multi_label:
        return np.maximum(probabilities, 1 - probabilities), right
    confidence: Floats = probabilities.max(axis=1, keepdims=True)
    return confidence, right[:, None]


def given_to_truth(probabilities: Floats, targets: Targets, *, multi_label: bool = False) -> Floats:
    """Return the probability that every right decision was given, (N, M)."""
    if multi_label:
        given: Floats = np.where(targets, probabilities, 1 - probabilities)
    else:
        given = probabilities[np.arange(len(targets)), targets][:, None]
    return given


def log_losses(probabilities: Floats, targets: Targets, *, multi_label: bool = False) -> Floats:
    """Return each example's log-loss in nats, (N,): scikit-learn's log_loss; multi_label: that of every label, averaged over the labels."""
    given = given_to_truth(probabilities, targets, multi_label=multi_label)
    losses: Floats = -np.log(np.clip(given, EPSILON, 1 - EPSILON)).mean(axis=1)
    return losses


def rescaled(probabilities: Floats, temperature: float, *, multi_label: bool = False) -> Floats:
    """Divide the logits behind probabilities, (N, C), by a temperature; 1 / T takes back what T did.

    The logits of a softmax are known from its probabilities up to a constant, which changes nothing.
    """
    logits = _logits(probabilities, multi_label) / temperature
    if multi_label:
        scaled: Floats = np.exp(-np.logaddexp(0.0, -logits))
    else:
        weights: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
        scaled = weights / weights.sum(axis=1, keepdims=True)
    return scaled


def calibration_statistics(confidence: Floats, right: Bools) -> Floats:
    """Sum up each example's decisions, (N, M) -> (N, N_BINS + 1): per bin confidence less accuracy, and last the number of decisions."""
    n, n_decisions = confidence.shape
    cells = _bins(confidence) + N_BINS * np.arange(n)[:, None]
    gaps = np.bincount(cells.ravel(), weights=(confidence - right).ravel(), minlength=n * N_BINS)
    return np.concatenate([gaps.reshape(n, N_BINS), np.full((n, 1), float(n_decisions))], axis=1)


def calibration_score(sums: Floats) -> Floats:
    """Compute the expected calibration error, 0 for perfect, from sums of `calibration_statistics`; (..., N_BINS + 1) -> (...).

    It is a sum of absolute values, so chance pushes it up, in a resample once more: an interval's lower end often lies at the value itself.
    """
    error: Floats = np.abs(sums[..., :-1]).sum(axis=-1) / sums[..., -1]
    return error


def expected_calibration_error(probabilities: Floats, targets: Targets, *, multi_label: bool = False) -> float:
    """Compute the mean distance of confidence from accuracy over bins of confidence, each weighted by its decisions.

    Args:
        probabilities: (N, C), N at least 1.
        targets: (N,) class ids, or (N, C) bool when multi_label; then the decisions on all labels are pooled.
    """
    statistics = calibration_statistics(*decisions(probabilities, targets, multi_label=multi_label))
    return float(calibration_score(statistics.sum(axis=0)))


def calibration_bins(confidence: Floats, right: Bools) -> list[dict[str, float]]:
    """Return for every bin with decisions in it their number, mean confidence and accuracy, as plain JSON; both (N, M)."""
    places = _bins(confidence).ravel()
    counts = np.bincount(places, minlength=N_BINS)
    confidences = np.bincount(places, weights=confidence.ravel(), minlength=N_BINS)
    rights = np.bincount(places, weights=right.ravel(), minlength=N_BINS)
    return [
        {
            "low": round(float(EDGES[i]), 4),
            "high": round(float(EDGES[i + 1]), 4),
            "n": int(counts[i]),
            "confidence": round(float(confidences[i] / counts[i]), 4),
            "accuracy": round(float(rights[i] / counts[i]), 4),
        }
        for i in np.flatnonzero(counts).tolist()
    ]


def fit_temperature(probabilities: Floats, targets: Targets, *, multi_label: bool = False) -> float:
    """Find the temperature that gives the least log-loss when the logits are divided by it (Guo et al. 2017).

    Probabilities that are all right have no best temperature, as a smaller one is always better: the answer is then near the lower end.

    Args:
        probabilities: (N, C) as the model gives them, without a temperature.
        targets: (N,) class ids, or (N, C) bool when multi_label.
    Returns:
        A temperature within TEMPERATURES; 1 for fewer than MIN_ROWS examples, when all answers are right, or when no temperature is better.
    """
    if len(probabilities) < MIN_ROWS or bool((decide(probabilities, multi_label=multi_label) == targets).all()):
        return 1.0
    logits = _logits(probabilities, multi_label)

    def loss(log_temperature: float) -> float:
        return _mean_loss(logits / math.exp(log_temperature), targets, multi_label)

    from scipy.optimize import minimize_scalar  # here, because it takes a while to import

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    best = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": MIN_STEP}).x)
    return math.exp(best) if loss(best) < loss(0.0) - MIN_GAIN else 1.0


def fit_threshold(probabilities: Floats, targets: Targets, wanted_precision: float) -> float | None:
    """Find the lowest confidence at and above which answers are right at least at the wanted rate.

    Args:
        probabilities: (N, C).
        targets: (N,) class ids.
        wanted_precision: share of the answered examples that is to be right, above 0 and up to 1.
    Returns:
        One of the highest probabilities that occur; None when none of them keeps the rate with MIN_ROWS examples answered.
    Raises:
        ConfigError: `wanted_precision` is no such share.
    """
    if not 0 < wanted_precision <= 1:
        raise ConfigError(f"wanted precision: {wanted_precision} is no share of right answers; give a number above 0 and up to 1")
    levels, n_answered, precision = _levels(probabilities, targets)
    good = (n_answered >= MIN_ROWS) & (precision >= wanted_precision)
    return float(levels[good][-1]) if good.any() else None


def best_precision(probabilities: Floats, targets: Targets) -> tuple[float, float] | None:
    """Return the highest rate of right answers at and above any confidence, with MIN_ROWS or more examples answered, and their share.

    Args:
        probabilities: (N, C); targets: (N,) class ids.
    Returns:
        the rate and the largest share of examples that are answered at it; None for fewer than MIN_ROWS examples.
    """
    _, n_answered, precision = _levels(probabilities, targets)
    enough = n_answered >= MIN_ROWS
    if not enough.any():
        return None
    best = float(precision[enough].max())
    return best, float(n_answered[enough & (precision == best)].max() / len(targets))


def _levels(probabilities: Floats, targets: Targets) -> tuple[Floats, npt.NDArray[np.intp], Floats]:
    """Return the confidences that occur, the highest first, how many answers are as confident, and the rate of right ones; (L,) each."""
    confidence, right = decisions(probabilities, targets)
    order = np.argsort(-confidence[:, 0], kind="stable")
    levels: Floats = confidence[order, 0]
    ends = np.flatnonzero(np.diff(levels, append=-1.0))  # examples of one confidence are answered together
    return levels[ends], ends + 1, np.cumsum(right[order, 0])[ends] / (ends + 1)


def _bins(confidence: Floats) -> npt.NDArray[np.intp]:
    """Return the bin of every confidence, same shape."""
    return np.searchsorted(EDGES[1:-1], confidence, side="left")


def _logits(probabilities: Floats, multi_label: bool) -> Floats:
    """Recover the logits, (N, C), of a softmax up to a constant, or of a sigmoid; always finite."""
    if multi_label:
        inner = np.clip(probabilities, NEAREST, 1 - NEAREST)
        logits: Floats = np.log(inner) - np.log1p(-inner)
    else:
        logits = np.log(np.maximum(probabilities, SMALLEST))
    return logits


def _mean_loss(logits: Floats, targets: Targets, multi_label: bool) -> float:
    """Average the log-loss of logits (N, C), without the clipping of `log_losses`: that would leave the search on a plain."""
    if multi_label:
        return float(np.logaddexp(0.0, np.where(targets, -logits, logits)).mean())
    top: Floats = logits.max(axis=1)
    normalizer = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float((normalizer - logits[np.arange(len(targets)), targets]).mean())
