"""Scores for classes and labels: accuracy, precision, recall, F1, ROC-AUC, average precision, log-loss and calibration, with intervals.

All are defined as scikit-learn defines them. Ranking scores of several classes are those of each class against the rest, averaged over the
classes that have one: scikit-learn gives no ROC-AUC, and counts an average precision of 0, where a class is not among the targets.

Left out: costs of errors, hierarchies of classes, and scores that only order matters for (top-k accuracy).

Shapes: `N` examples, `C` classes, `R` resamples, `K` counts per example.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from heed.errors import ConfigError, DataError
from heed.metrics.calibration import (
    Bools,
    Targets,
    calibration_bins,
    calibration_score,
    calibration_statistics,
    decide,
    decisions,
    given_to_truth,
    log_losses,
    rescaled,
)
from heed.metrics.intervals import Comparison, Floats, Score, ScoreFunction, interval, paired_bootstrap, resampled_sums
from heed.metrics.ranking import precision_recall_curve, rank_codes, rank_counts, ranking_areas, roc_curve
from heed.metrics.ratios import divide

Counts = npt.NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)

PARTS = ("precision", "recall", "f1")
AVERAGED = tuple(f"{part}_{kind}" for kind in ("macro", "micro", "weighted") for part in ("f1", "precision", "recall"))
SCORE_NAMES = (
    "accuracy",
    *AVERAGED,
    "roc_auc",
    "average_precision",
    "log_loss",
    "calibration_error",
    "calibration_error_before",
    "coverage",
    "accuracy_when_answered",
)
COMPARED = ("accuracy", "f1_macro", "f1_weighted", "log_loss")

ZERO_DIVISION = 0.0  # a precision, recall or F1 of nothing
CLASS_BLOCK = 64  # classes whose counts are resampled at once; with the blocks of rows it bounds the memory whatever C is
RANKING_DRAWS = 2**27  # draws these may take in all, examples x classes x resamples (some seconds); beyond it there are fewer resamples …
RANKING_FEWEST = 200  # … but never fewer than these
CURVE_LABELS = 12


@dataclass(frozen=True)
class ClassScore:
    """How well one class is found; `support` is the number of its examples."""

    precision: Score
    recall: Score
    f1: Score
    support: int

    def to_json(self) -> dict[str, Any]:
        """Return the scores and the support as plain JSON."""
        return {**{part: getattr(self, part).to_json() for part in PARTS}, "support": self.support}


@dataclass(frozen=True)
class ClassificationScores:
    """The scores of one system on one set of `n` examples.

    `scores` has those of `SCORE_NAMES` that are defined for the set, all from 0 to 1 but log_loss (nats, from 0 to 36.04); less is better
    of log_loss and of the calibration errors. A precision, recall or F1 counts 0 where there is no answer, or no example, to divide by.
    `details` are plain JSON: confusion (rows are the true classes) or confusion_per_label (label: [[true negatives, false positives],
    [false negatives, true positives]], in the order of the labels), calibration, calibration_before, curves ([x, y] points) and abstain.
    """

    scores: Mapping[str, Score]
    per_class: Mapping[str, ClassScore]
    details: Mapping[str, Any]
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and what explains them, as plain JSON without NaN."""
        return {
            **{name: score.to_json() for name, score in self.scores.items()},
            "n": self.n,
            "labels": list(self.per_class),
            "zero_division": ZERO_DIVISION,
            "per_class": {label: score.to_json() for label, score in self.per_class.items()},
            **self.details,
        }


class ClassificationMetrics:
    """Gather probabilities and right answers batch by batch; any split into batches gives the same scores.

    The answer is the class of the highest probability, or every label of probability 0.5 and more when `multi_label`. Macro averages are
    over the classes that occur among targets or answers, as in scikit-learn; when multi_label, over all labels, as there too.

    Args:
        labels: the C classes in their order.
        multi_label: an example may have any number of labels.
        temperature: what the logits were divided by for the probabilities that will be added; those before it are recovered.
        threshold: an example whose highest probability is below it counts as not answered, in coverage and accuracy_when_answered only.
        wanted_precision: the rate of right answers the threshold was fitted for; reported with it.
    Raises:
        ConfigError: there are no labels or one is there twice, a number is out of its range, or multi_label is given a threshold.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
        temperature: float = 1.0,
        threshold: float | None = None,
        wanted_precision: float | None = None,
    ) -> None:
        _check_labels(labels)
        _check_settings(multi_label, temperature, threshold)
        self.labels = tuple(labels)
        self.multi_label = multi_label
        self.temperature = temperature
        self.threshold = threshold
        self.wanted_precision = wanted_precision
        no_targets: Targets = np.zeros((0, len(labels)), dtype=np.bool_) if multi_label else np.zeros(0, dtype=np.int64)
        self._probabilities: list[Floats] = [np.zeros((0, len(labels)))]
        self._targets: list[Targets] = [no_targets]

    def add(self, probabilities: npt.ArrayLike, targets: npt.ArrayLike) -> None:
        """Count a batch of n examples.

        Args:
            probabilities: (n, C), from 0 to 1.
            targets: (n,) class ids from 0, or (n, C) with true for every label of an example when multi_label.
        Raises:
            DataError: a shape is another, a probability is not from 0 to 1, or a target is none of the classes.
        """
        rows = self._checked_probabilities(np.array(probabilities, dtype=np.float64))
        self._targets.append(self._checked_targets(np.array(targets), len(rows)))
        self._probabilities.append(rows)

    @property
    def probabilities(self) -> Floats:
        """The probabilities added so far, (N, C)."""
        return _joined(self._probabilities)

    @property
    def uncalibrated(self) -> Floats:
        """The probabilities before they were given a temperature, (N, C): what `fit_temperature` takes."""
        if self.temperature == 1:
            return self.probabilities
        return rescaled(self.probabilities, 1 / self.temperature, multi_label=self.multi_label)

    @property
    def targets(self) -> Targets:
        """The right answers added so far, (N,) class ids, or (N, C) bool when multi_label."""
        return _joined(self._targets)

    @property
    def statistics(self) -> dict[str, Counts | Floats]:
        """The counts behind every additive score, name -> (N, K): what `paired_bootstrap` takes with `functions[name]`."""
        counts = self._class_counts(slice(None))
        return {**dict.fromkeys(AVERAGED, counts), **self._row_statistics()}

    @property
    def functions(self) -> dict[str, ScoreFunction]:
        """What turns sums of `statistics` into scores, by the same names."""
        averaged = {name: partial(_one_average, name=name, every=self.multi_label) for name in AVERAGED}
        calibration = dict.fromkeys(("calibration_error", "calibration_error_before"), calibration_score)
        shares = dict.fromkeys(("accuracy", "log_loss", "coverage", "accuracy_when_answered"), share_score)
        return {**averaged, **calibration, **shares}

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> ClassificationScores:
        """Score what was added, each score with its 95 % bootstrap interval.

        Raises:
            DataError: nothing was added.
        """
        n = len(self.probabilities)
        if not n:
            raise DataError(
                "classification metrics: there are no examples to score; expected at least one; check the data file and its filters"
            )
        sums = self._class_sums(resamples, seed)
        found = {
            **average_scores(sums, every=self.multi_label),
            **self._row_scores(resamples, seed),
            **self._ranking_scores(resamples, seed),
        }
        intervals = {name: _defined_interval(found[name]) for name in SCORE_NAMES if name in found}
        scores = {name: score for name, score in intervals.items() if score is not None}
        return ClassificationScores(scores, _class_scores(self.labels, sums), self._details(sums[0]), n)

    def compare(self, other: "ClassificationMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same examples whether another system (b) differs from this one (a), score by score.

        Raises:
            DataError: the two do not have the same labels or number of examples.
        """
        if (self.labels, self.multi_label) != (other.labels, other.multi_label):
            raise DataError(
                f"paired test: system a answers with {', '.join(self.labels)}, system b with {', '.join(other.labels)}, "
                "or one of them with several labels at once; compare systems that answer alike"
            )
        ours, theirs, functions = self.statistics, other.statistics, self.functions
        return {name: paired_bootstrap(ours[name], theirs[name], functions[name], resamples=resamples, seed=seed) for name in COMPARED}

    def qualities(self) -> Floats:
        """Return 100 x the probability each right answer was given, (N,), when multi_label averaged over the labels."""
        given = given_to_truth(self.probabilities, self.targets, multi_label=self.multi_label)
        qualities: Floats = 100 * given.mean(axis=1)
        return qualities

    def mistakes(self) -> npt.NDArray[np.intp]:
        """Return which examples were answered wrongly, the most confident answer first; of several labels the surest wrong one counts.

        Answers that a threshold withholds are taken as given.
        """
        confidence, right = self._decisions(self.probabilities)
        wrong: Floats = np.where(right, -1.0, confidence).max(axis=1)  # (N,), -1 where nothing is wrong
        order = np.argsort(-wrong, kind="stable")
        return order[wrong[order] >= 0]

    def _checked_probabilities(self, rows: Floats) -> Floats:
        """Refuse probabilities that are not (n, C) numbers from 0 to 1."""
        C = len(self.labels)
        if rows.ndim != 2 or rows.shape[1] != C:
            raise DataError(f"classification metrics: probabilities have shape {rows.shape}; expected (n, {C}), a column for each label")
        bad = ~((rows >= 0) & (rows <= 1)).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise DataError(f"classification metrics: row {row} of a batch has the probabilities {rows[row].tolist()}; expected 0 to 1")
        return rows

    def _checked_targets(self, targets: npt.NDArray[Any], n: int) -> Targets:
        """Refuse targets that are not one class id per example, or one truth value per example and label."""
        expected = (n, len(self.labels)) if self.multi_label else (n,)
        if targets.shape != expected:
            raise DataError(f"classification metrics: targets have shape {targets.shape}; expected {expected}, as of the probabilities")
        highest, kind = (1, "truth value") if self.multi_label else (len(self.labels) - 1, "class id")
        bad = targets[~np.isin(targets, np.arange(highest + 1))]
        if bad.size:
            raise DataError(f"classification metrics: target {bad[0]} is no {kind}; expected a whole number from 0 to {highest}")
        checked: Targets = targets.astype(np.bool_) if self.multi_label else targets.astype(np.int64)
        return checked

    def _class_counts(self, classes: slice) -> Counts:
        """Return whether each class of a block of k was rightly answered, answered, and true, (N, 3 k)."""
        answered, actual = (self._indicators(claims, classes) for claims in (self._answers(), self.targets))
        return np.concatenate([answered & actual, answered, actual], axis=1).view(np.uint8)

    def _indicators(self, claims: Targets, classes: slice) -> Bools:
        """Return for each example and class of a block of k whether the class is claimed, (N, k)."""
        if self.multi_label:
            return claims[:, classes].astype(np.bool_)
        indicators: Bools = claims[:, None] == np.arange(len(self.labels))[classes]
        return indicators

    def _answers(self) -> Targets:
        return decide(self.probabilities, multi_label=self.multi_label)

    def _class_sums(self, resamples: int, seed: int) -> Floats:
        """Add up right answers, answers and examples of every class in the set and its resamples, (1 + R, 3, C)."""
        blocks = [slice(start, start + CLASS_BLOCK) for start in range(0, len(self.labels), CLASS_BLOCK)]
        # The draws depend on the seed and N alone, so that all blocks are of the same resamples.
        sums = [resampled_sums(self._class_counts(block), resamples=resamples, seed=seed) for block in blocks]
        return np.concatenate([part.reshape(1 + resamples, 3, -1) for part in sums], axis=2)

    def _row_statistics(self) -> dict[str, Floats]:
        """Return the counts of the scores that are not made of counts per class, name -> (N, K)."""
        probabilities, targets = self.probabilities, self.targets
        confidence, right = self._decisions(probabilities)
        exact: npt.NDArray[np.bool_] = np.asarray(right.all(axis=1))
        ones = np.ones(len(probabilities))
        statistics = {
            "accuracy": _columns(exact, ones),
            "log_loss": _columns(log_losses(probabilities, targets, multi_label=self.multi_label), ones),
            "calibration_error": calibration_statistics(confidence, right),
        }
        if self.temperature != 1:
            statistics["calibration_error_before"] = calibration_statistics(*self._decisions(self.uncalibrated))
        if self.threshold is not None:
            answered = probabilities.max(axis=1) >= self.threshold
            statistics["coverage"] = _columns(answered, ones)
            statistics["accuracy_when_answered"] = _columns(exact & answered, answered)
        return statistics

    def _row_scores(self, resamples: int, seed: int) -> dict[str, Floats]:
        """Score the set and its resamples by `_row_statistics`, name -> (1 + R,)."""
        statistics = self._row_statistics()
        sums = resampled_sums(np.concatenate(list(statistics.values()), axis=1), resamples=resamples, seed=seed)
        ends = np.cumsum([columns.shape[1] for columns in statistics.values()])
        parts = np.split(sums, ends[:-1], axis=1)
        functions = self.functions
        return {name: functions[name](part) for name, part in zip(statistics, parts, strict=True)}

    def _ranking_scores(self, resamples: int, seed: int) -> dict[str, Floats]:
        """Compute ROC-AUC and average precision of the set and of resamples, name -> (1 + R,), NaN where undefined."""
        classes = self._ranked_classes()
        draws = len(self.probabilities) * len(classes)
        resamples = min(resamples, max(RANKING_FEWEST, RANKING_DRAWS // draws))
        values = np.stack([ranking_areas(*self._of_class(i), resamples=resamples, seed=seed) for i in classes])  # (classes, 2, 1 + R)
        roc_auc, average_precision = _mean_of_defined(values)
        return {"roc_auc": roc_auc, "average_precision": average_precision}

    def _ranked_classes(self) -> list[int]:
        """Return the classes that are ranked: with two classes to choose from, the last says it all."""
        C = len(self.labels)
        return [C - 1] if C == 2 and not self.multi_label else list(range(C))

    def _of_class(self, index: int) -> tuple[Floats, Bools]:
        """Return the probabilities of a class, (N,), and whether it is true, (N,)."""
        return self.probabilities[:, index], self._indicators(self.targets, slice(index, index + 1))[:, 0]

    def _decisions(self, probabilities: Floats) -> tuple[Floats, Bools]:
        return decisions(probabilities, self.targets, multi_label=self.multi_label)

    def _details(self, sums: Floats) -> dict[str, Any]:
        """Return what explains the scores, as plain JSON; sums (3, C) are those of the classes."""
        details = {
            **(_label_confusions(self.labels, sums, len(self.probabilities)) if self.multi_label else self._confusion()),
            "calibration": self._calibration(self.temperature, self.probabilities),
        }
        if self.temperature != 1:
            details["calibration_before"] = self._calibration(1.0, self.uncalibrated)
        details["curves"] = self._curves(sums[2])
        if self.threshold is not None:
            details["abstain"] = {"threshold": self.threshold, "wanted_precision": self.wanted_precision}
        return details

    def _confusion(self) -> dict[str, Any]:
        """Count the examples of each true class, the rows, and answered class, the columns."""
        C = len(self.labels)
        counts = np.zeros((C, C), dtype=np.int64)
        np.add.at(counts, (self.targets, self._answers()), 1)
        return {"confusion": {"labels": list(self.labels), "counts": counts.tolist()}}

    def _calibration(self, temperature: float, probabilities: Floats) -> dict[str, Any]:
        return {"temperature": temperature, "bins": calibration_bins(*self._decisions(probabilities))}

    def _curves(self, support: Floats) -> dict[str, dict[str, list[list[float]]]]:
        """Return the ROC and precision-recall curves of the most frequent labels that have one; support is (C,)."""
        ranked = np.array(self._ranked_classes())
        chosen = ranked[np.argsort(-support[ranked], kind="stable")][:CURVE_LABELS].tolist()
        curves: dict[str, dict[str, list[list[float]]]] = {"roc": {}, "precision_recall": {}}
        for i in chosen:
            counts = rank_counts(*rank_codes(*self._of_class(i)))[0]
            misses, hits = counts.sum(axis=0)
            if hits and misses:
                curves["roc"][self.labels[i]] = roc_curve(counts)
            if hits:
                curves["precision_recall"][self.labels[i]] = precision_recall_curve(counts)
        return curves


def share_score(sums: Floats) -> Floats:
    """Divide the first sum by the second, NaN where that is 0; (..., 2) -> (...)."""
    return divide(sums[..., 0], sums[..., 1], nothing=math.nan)


def class_scores(sums: Floats) -> Floats:
    """Compute precision, recall and F1 from right answers, answers and examples; (..., 3, C) -> (..., 3, C)."""
    hits, answered, actual = (sums[..., i, :] for i in range(3))
    pairs = ((hits, answered), (hits, actual), (2 * hits, answered + actual))
    return np.stack([divide(over, under, nothing=ZERO_DIVISION) for over, under in pairs], axis=-2)


def average_scores(sums: Floats, *, every: bool) -> dict[str, Floats]:
    """Average precision, recall and F1 over the classes, (..., 3, C) -> name in AVERAGED -> (...).

    Args:
        sums: right answers, answers and examples of every class.
        every: whether macro averages take in classes that occur neither in answers nor in examples.
    """
    actual = sums[..., 2, :]
    occurs = ((sums[..., 1, :] + actual > 0) | every).astype(np.float64)
    each = class_scores(sums)
    averages = {
        "macro": _weighted_mean(each, occurs),
        "micro": class_scores(sums.sum(axis=-1, keepdims=True))[..., 0],
        "weighted": _weighted_mean(each, actual),
    }
    return {f"{part}_{kind}": values[..., i] for kind, values in averages.items() for i, part in enumerate(PARTS)}


def _class_scores(labels: Sequence[str], sums: Floats) -> dict[str, ClassScore]:
    """Score every class by (1 + R, 3, C) sums."""
    values = class_scores(sums)
    found = {}
    for i, label in enumerate(labels):
        precision, recall, f1 = (interval(values[:, part, i]) for part in range(3))
        found[label] = ClassScore(precision, recall, f1, int(sums[0, 2, i]))
    return found


def _label_confusions(labels: Sequence[str], sums: Floats, n: int) -> dict[str, Any]:
    """Count true and false negatives and positives of every label from (3, C) sums."""
    hits, answered, actual = sums.astype(np.int64)
    cells = np.stack([n - answered - actual + hits, answered - hits, actual - hits, hits], axis=1)
    return {"confusion_per_label": dict(zip(labels, cells.reshape(-1, 2, 2).tolist(), strict=True))}


def _one_average(sums: Floats, *, name: str, every: bool) -> Floats:
    """Compute one of AVERAGED from sums of class counts, (..., 3 C) -> (...)."""
    return average_scores(sums.reshape(*sums.shape[:-1], 3, -1), every=every)[name]


def _weighted_mean(values: Floats, weights: Floats) -> Floats:
    """Average (..., 3, C) values with (..., C) weights over the classes, (..., 3); ZERO_DIVISION where all weights are 0."""
    weights = weights[..., None, :]
    return divide((values * weights).sum(axis=-1), weights.sum(axis=-1), nothing=ZERO_DIVISION)


def _mean_of_defined(values: Floats) -> Floats:
    """Average over the first axis what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return divide(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0), nothing=math.nan)


def _defined_interval(scores: Floats) -> Score | None:
    """Return the interval of the resamples that have a score, (1 + R,) with the set's own first; None when the set has none."""
    if np.isnan(scores[0]):
        return None
    drawn = scores[1:][~np.isnan(scores[1:])]
    return interval(np.append(scores[:1], drawn if drawn.size else scores[:1]))


def _joined(chunks: list[npt.NDArray[Number]]) -> npt.NDArray[Number]:
    """Return the chunks as one array, and leave them so."""
    if len(chunks) > 1:
        chunks[:] = [np.concatenate(chunks)]
    return chunks[0]


def _columns(*columns: npt.NDArray[Any]) -> Floats:
    """Put (N,) columns side by side."""
    return np.stack(columns, axis=1).astype(np.float64)


def _check_labels(labels: Sequence[str]) -> None:
    """Raise ConfigError unless there are labels and all differ."""
    twice = sorted({label for label in labels if list(labels).count(label) > 1})
    if twice or not labels:
        found = f"the labels {', '.join(twice)} are there more than once" if twice else "there are no labels"
        raise ConfigError(f"classification metrics: {found}; give every class once, in the order of the probabilities")


def _check_settings(multi_label: bool, temperature: float, threshold: float | None) -> None:
    """Raise ConfigError for numbers out of range and for a threshold that would be ignored."""
    if not 0 < temperature < math.inf:
        raise ConfigError(f"classification metrics: temperature is {temperature}; expected a number above 0, 1 for none")
    if threshold is None:
        return
    if multi_label:
        raise ConfigError("classification metrics: a threshold goes with a single label per example; leave it out for several labels")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"classification metrics: threshold is {threshold}; expected a probability from 0 to 1")
