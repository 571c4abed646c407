"""Training curves as inline SVG, drawn by matplotlib in colours that follow the page's scheme.

matplotlib draws lines and numbers only: titles and legends are HTML, so no text from a file meets its fonts or its formulas.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from heed.report.sources import Json, RunFiles, task_of
from heed.report.wording import figure, is_number, label, tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 400  # of a line; more are averaged in groups
LOG_FROM = 50.0  # a panel whose largest value is this many times its smallest is drawn on a logarithmic scale
SPEED = "tokens_per_second"
TITLES = {
    "loss": "Loss",
    "accuracy": "Accuracy",
    "lr": "Learning rate",
    "grad_norm": "Gradient norm",
    SPEED: "Tokens per second",
    "padding": "Share of padding",
}
UNTITLED = frozenset({"perplexity", "units", "units_per_second"})  # the same curves as others, on other scales
# Colours that matplotlib is given -> what stands for them in the page.
COLOURS = {"#010101": "var(--soft)", "#020202": "var(--rule)", "#030303": "var(--train)", "#040404": "var(--valid)"}
INK, RULE, TRAIN, VALID = COLOURS
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "heed",  # ids that do not change from run to run
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True)
class Line:
    """One curve: what it is of (train or valid), and its points."""

    kind: str
    steps: list[float]
    values: list[float]

    @property
    def last(self) -> str:
        """The value at the end, as text."""
        return figure(float(self.values[-1]))


@dataclass(frozen=True)
class Panel:
    """A figure of one or two curves with a title and a note."""

    title: str
    note: str
    lines: list[Line]
    svg: Markup


def panels(files: RunFiles) -> list[Panel]:
    """Draw every figure that training logged."""
    best = best_step(files.validation)
    validated = {name for line in files.validation for name in line["valid"]}
    names = [*TITLES, *sorted(validated - set(TITLES) - UNTITLED)]
    found = {name: _lines(name, files) for name in names}
    titles = {**TITLES, SPEED: _speed_title(files.config)}
    return [_panel(name, titles.get(name) or label(name), lines, best) for name, lines in found.items() if lines]


def best_step(validation: Sequence[Json]) -> float | None:
    """Return the step of the last validation that was the best so far."""
    return next((line["step"] for line in reversed(validation) if line.get("best") is True), None)


def _lines(name: str, files: RunFiles) -> list[Line]:
    logged = {
        "train": [(line["step"], line.get(name)) for line in files.training],
        "valid": [(line["step"], line["valid"].get(name)) for line in files.validation],
    }
    drawn = {kind: [(step, value) for step, value in points if is_number(value)] for kind, points in logged.items()}
    return [_thinned(kind, points) for kind, points in drawn.items() if points]


def _thinned(kind: str, points: Sequence[tuple[float, float]]) -> Line:
    """Average neighbouring points where there are too many to see."""
    group = -(-len(points) // MOST_POINTS)
    groups = [points[i : i + group] for i in range(0, len(points), group)]
    means = [tuple(sum(column) / len(some) for column in zip(*some, strict=True)) for some in groups]
    return Line(kind, [step for step, _ in means], [value for _, value in means])


def _speed_title(config: Json) -> str:
    """Name what is counted as the run's task does."""
    task = task_of(config)
    return TITLES[SPEED] if task is None else f"{task.token_name.capitalize()} per second"


def _panel(name: str, title: str, lines: list[Line], best: float | None) -> Panel:
    valid = next((line for line in lines if line.kind == "valid"), None)
    marked = best if valid is not None else None
    note = "" if marked is None else f"the dotted line is the best step, {marked:,.0f}"
    return Panel(title, note, lines, Markup(_inline(_drawn(lines, marked), name)))


def _drawn(lines: Sequence[Line], marked: float | None) -> str:
    """Return the SVG file of a panel."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):  # a user's own matplotlibrc has no say in the page
        canvas = Figure(figsize=(4.4, 2.3))
        axes = canvas.add_axes((0.12, 0.12, 0.85, 0.83))
        for line in lines:
            _draw_line(axes, line)
        if marked is not None:
            axes.axvline(marked, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        _set_scale(axes, [value for line in lines for value in line.values])
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def _draw_line(axes: "Axes", line: Line) -> None:
    few = len(line.steps) < 30 and line.kind == "valid"
    colour = TRAIN if line.kind == "train" else VALID
    axes.plot(line.steps, line.values, color=colour, linewidth=1.6, marker="o" if few or len(line.steps) == 1 else None, markersize=3)


def _set_scale(axes: "Axes", values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if min(values) > 0 and max(values) / min(values) > LOG_FROM:
        axes.set_yscale("log")
        axes.minorticks_off()
    elif not any(values):  # shares that are all 0 would stand in the middle between others below and above it
        axes.set_ylim(-0.05, 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.tick_params(length=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _inline(svg: str, name: str) -> str:
    """Make an SVG file a part of an HTML page: no header, no outside names, ids of its own, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    opening, _, rest = svg.partition(">")
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", opening) + ">" + rest
    prefix = re.sub(r"\W", "", name)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    for colour, variable in COLOURS.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", svg)


def summary(files: RunFiles) -> dict[str, Any]:
    """Return how long training took and where it got: `seconds`, `steps`, `best_step` and the best validation `figures`."""
    lines = [*files.training, *files.validation]
    best = best_step(files.validation)
    figures: Json = next((line["valid"] for line in reversed(files.validation) if line["step"] == best), {})
    return {
        "seconds": max((line["seconds"] for line in lines if is_number(line.get("seconds"))), default=None),
        "steps": max((line["step"] for line in lines), default=None),
        "best_step": best,
        "figures": {name: value for name, value in figures.items() if is_number(value)},
    }
