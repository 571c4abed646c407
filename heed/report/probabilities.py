"""What an evaluation tells about probabilities: whether they mean what they say, what a threshold on them costs, and what is withheld."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from heed.report.drawing import Axis, Drawing, Plot, Point, colour
from heed.report.sources import listed, mapping, mappings
from heed.report.wording import figure, is_number, is_score, percent

MOST_RADIUS = 11.0  # of the dot of the fullest bin
LEAST_RADIUS = 1.0  # so that no bin is invisible
MOST_LINES = 12
MOST_POINTS = 200  # of a curve
PERCENT_TICKS = [(float(value), str(value)) for value in range(0, 101, 20)]
SHARE_TICKS = [(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")]
# Curves by name: title, what lies along the x axis, what along the y axis.
CURVES = {
    "roc": ("ROC curve", "false positive rate", "true positive rate"),
    "precision_recall": ("Precision and recall", "recall", "precision"),
}


@dataclass(frozen=True)
class Bin:
    """Answers of about the same probability: how many, their mean probability, and the share of them that is right."""

    n: float
    confidence: float
    accuracy: float

    @property
    def words(self) -> str:
        """The bin in words."""
        return f"{figure(self.n)} answers: probability {percent(self.confidence)}, right {percent(self.accuracy)}"


def calibration(content: Mapping[str, Any]) -> Drawing | None:
    """Draw how far the probabilities of an evaluation can be trusted; None without bins.

    Args:
        content: holds "calibration" and perhaps "calibration_before", each {"temperature", "bins": [{"n", "confidence", "accuracy", …}]}.
    """
    told = mapping(content.get("calibration"))
    after, before = _bins(told), _bins(mapping(content.get("calibration_before")))
    if not after:
        return None
    plot = Plot(Axis("probability, %", 0, 100, PERCENT_TICKS), Axis("right, %", 0, 100, PERCENT_TICKS), square=True)
    fullest = max(one.n for one in (*after, *before))
    marks = [plot.line([(0, 0), (100, 100)], "guide"), *_dots(plot, before, "grey", fullest), *_dots(plot, after, "accent", fullest)]
    keys = [("accent", "calibrated"), ("grey", "before")] if before else []
    words = _calibration_words(after, before, told.get("temperature"))
    return Drawing("Do the probabilities hold?", plot.svg(marks, f"Reliability diagram. {words}"), keys, words)


def _bins(content: Mapping[str, Any]) -> list[Bin]:
    """Return the bins that hold an answer."""
    found = [(one.get("n"), one.get("confidence"), one.get("accuracy")) for one in mappings(content.get("bins"))]
    return [Bin(n, sure, right) for n, sure, right in found if is_number(n) and n > 0 and is_number(sure) and is_number(right)]


def _dots(plot: Plot, bins: Sequence[Bin], look: str, fullest: float) -> Iterator[Markup]:
    for one in bins:
        radius = max(LEAST_RADIUS, MOST_RADIUS * (one.n / fullest) ** 0.5)  # so that the area follows n
        yield plot.dot(Point(100 * one.confidence, 100 * one.accuracy, about=one.words), f"see-through {look}", radius)


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: how far probability and share of right answers lie apart, averaged over answers."""
    return sum(one.n * abs(one.confidence - one.accuracy) for one in bins) / sum(one.n for one in bins)


def _calibration_words(after: Sequence[Bin], before: Sequence[Bin], temperature: object) -> str:
    scaled = f" with the temperature {figure(float(temperature))}" if is_number(temperature) else ""
    words = f"Probability and share of right answers lie {_apart(after)} apart on average{scaled}"
    if before:
        words += f", {_apart(before)} {'without it' if scaled else 'before calibration'}"
    n_answers = sum(one.n for one in after)
    sure = sum(one.n * one.confidence for one in after) / n_answers
    right = sum(one.n * one.accuracy for one in after) / n_answers
    return f"{words}. On average an answer claims {percent(sure)}, and {percent(right)} are right. The area of a dot follows its answers."


def _apart(bins: Sequence[Bin]) -> str:
    return f"{100 * calibration_error(bins):.2f} points"


@dataclass(frozen=True)
class Curves:
    """Curves of several labels in one or two plots."""

    drawings: list[Drawing]
    note: str


def threshold_curves(content: object) -> Curves | None:
    """Draw the curves of CURVES that an evaluation holds; None without any.

    Args:
        content: {name of a curve: {label: [[x, y], …]}}, x and y between 0 and 1.
    """
    found = {name: _lines(lines) for name, lines in mapping(content).items() if name in CURVES}
    names = list(dict.fromkeys(label for lines in found.values() for label in lines))
    if not names:
        return None
    looks = {label: colour(number) for number, label in enumerate(names[:MOST_LINES])}
    drawings = [_curve(name, lines, looks) for name, lines in found.items() if lines]
    left_out = len(names) - MOST_LINES
    note = f"The first {MOST_LINES} of {len(names):,} labels are drawn." if left_out > 0 else ""
    return Curves(drawings, note)


def _lines(content: object) -> dict[str, list[tuple[float, float]]]:
    lines = {str(label): _line(points) for label, points in mapping(content).items()}
    return {label: points for label, points in lines.items() if points}


def _line(points: object) -> list[tuple[float, float]]:
    """Return the points of a curve, thinned out where there are more than can be seen."""
    pairs = [pair for pair in listed(points) if isinstance(pair, list) and len(pair) == 2]
    found = [(x, y) for x, y in pairs if is_number(x) and is_number(y)]
    return [*found[: -1 : -(-len(found) // MOST_POINTS)], found[-1]] if found else []


def _curve(name: str, lines: Mapping[str, Sequence[tuple[float, float]]], looks: Mapping[str, str]) -> Drawing:
    title, across, up = CURVES[name]
    plot = Plot(Axis(across, 0, 1, SHARE_TICKS), Axis(up, 0, 1, SHARE_TICKS), square=True)
    guide = [plot.line([(0, 0), (1, 1)], "guide")] if name == "roc" else []
    keys = [(looks[label], label) for label in lines if label in looks]
    drawn = [plot.line(lines[label], look) for look, label in keys]
    return Drawing(title, plot.svg([*guide, *drawn], f"{title} of {', '.join(label for _, label in keys)}"), keys)


def abstention(content: Mapping[str, Any]) -> str:
    """Say which answers an evaluation would withhold, and what is gained by it; "" if it holds no threshold."""
    abstain = mapping(content.get("abstain"))
    threshold, wanted = abstain.get("threshold"), abstain.get("wanted_precision")
    if not is_number(threshold):
        return ""
    coverage, accuracy = content.get("coverage"), content.get("accuracy_when_answered")
    found = f": {percent(coverage['value'])} are answered" if is_score(coverage) else ""
    found += f", {percent(accuracy['value'])} of them right" if found and is_score(accuracy) else ""
    asked = f" (asked for: {percent(wanted)})" if is_number(wanted) else ""
    return f"Answers with a probability below {figure(float(threshold))} would be withheld{found}{asked}."
