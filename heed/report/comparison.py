"""The page of a comparison of several models on the same data: what it comes to, a table, and plots of scores and costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heed.metrics import LESS_IS_BETTER
from heed.report.bars import balance
from heed.report.drawing import Axis, Drawing, Plot, Point, Series, Strip, categories, colour, logarithmic, score_axis, strips
from heed.report.facts import Facts, machine_words
from heed.report.sources import listed, mapping, mappings
from heed.report.template import fill
from heed.report.wording import (
    date,
    duration,
    figure,
    in_unit,
    is_number,
    is_score,
    label,
    percent,
    score_words,
    shown_score,
    size,
)

FAR = 3.0  # times the width of all other scores with their intervals
LEAST_TO_LEAVE_OUT = 3  # models; of two, both are drawn
APART = 0.09  # between the dots of neighbouring models at one place, in places
LENGTH_NOTE = "Bars are 95 % intervals; n is the number of texts. Of scripts without spaces between words, every character counts."
CHANCE = "guide"  # the look of the line of what guessing would score

Json = Mapping[str, Any]
Value = tuple[float | None, str, str]  # a number (None: there is none), its words, and what stands below them
NONE: Value = (None, "–", "")


def comparison_page(content: Json) -> str:
    """Return the page that `heed compare-models` writes.

    Args:
        content: title, date, machine, data, models, verdict, notes, recall, costs and settings; what is absent or of another shape is
            left out.
    """
    models = [model for model in mappings(content.get("models")) if "name" in model]
    data = mapping(content.get("data"))
    return fill(
        "comparison.html",
        {
            "title": figure(content.get("title", "Comparison of models")),
            "verdict": [line for line in listed(content.get("verdict")) if isinstance(line, str)],
            "notes": [line for line in listed(content.get("notes")) if isinstance(line, str)],
            "head_facts": _head_facts(content, data),
            "tables": [table for table in (_scores_table(models), _costs_table(models)) if table.rows and table.heads],
            "folders": [(_name(model), figure(model["run"])) for model in models if model.get("run")],
            "scores": _score_drawings(models),
            "recall": _recall(mapping(content.get("recall")), [_name(model) for model in models]),
            "costs": _cost_drawings(mapping(content.get("costs"))),
            "abouts": {name: _about(mapping(content.get(name))) for name in ("recall", "costs")},
            "balance": balance(data.get("classes")),
            "settings": [(figure(name), figure(value)) for name, value in mapping(content.get("settings")).items()],
        },
    )


def _about(measured: Json) -> str:
    """Return what is said of how something was measured; "" where nothing is."""
    return measured["about"] if isinstance(measured.get("about"), str) else ""


def _name(model: Json) -> str:
    return figure(model["name"])


def _head_facts(content: Json, data: Json) -> Facts:
    facts = [("Date", date(content["date"]))] if "date" in content else []
    machine = content.get("machine")
    words = machine_words(machine) if isinstance(machine, Mapping) else figure(machine or "")
    facts += [("Machine", words)] if words else []
    return facts + [(label(name), figure(value)) for name, value in data.items() if not isinstance(value, Mapping)]


@dataclass(frozen=True)
class Cell:
    """What a table shows of a model: a value, what stands below it in small print, and whether it is the best of its column."""

    text: str
    note: str
    best: bool


@dataclass(frozen=True)
class Column:
    """A column of the table, with a value for each model."""

    head: str
    less_is_better: bool
    values: Sequence[Value]

    @property
    def is_told(self) -> bool:
        """Whether any model has a value."""
        return any(number is not None for number, _, _ in self.values)

    @property
    def cells(self) -> list[Cell]:
        """The cells, the best ones marked where models differ."""
        numbers = [number for number, _, _ in self.values if number is not None]
        best = None if len(set(numbers)) < 2 else min(numbers) if self.less_is_better else max(numbers)
        return [Cell(text, note, best is not None and number == best) for number, text, note in self.values]


@dataclass(frozen=True)
class Compared:
    """A table with a row for each model: its title, the heads of its columns, and the name and the cells of each row."""

    title: str
    heads: list[str]
    rows: list[tuple[str, list[Cell]]]
    note: str


@dataclass(frozen=True)
class Cost:
    """What a model costs: a heading, where it stands, and how it is worded."""

    head: str
    path: tuple[str, ...]
    words: Callable[[float], str]
    less_is_better: bool = True


def _milliseconds(value: float) -> str:
    return f"{figure(float(value))} ms"


def _mebibytes(value: float) -> str:
    return size(value * 2**20)


COSTS = (
    Cost("Parameters", ("parameters",), figure),
    Cost("Training time", ("train_seconds",), duration),
    Cost("Training tokens per second", ("train_tokens_per_second",), figure, less_is_better=False),
    Cost("Time of an answer, median", ("latency_ms", "median"), _milliseconds),
    Cost("Time of an answer, 95th percentile", ("latency_ms", "p95"), _milliseconds),
    Cost("Peak memory", ("peak_memory_mib",), _mebibytes),
)


def _scores_table(models: Sequence[Json]) -> Compared:
    columns = [_score_column(name, models) for name in _score_names(models)]
    return _table("Scores", models, columns, "★ best of its column. Below scores: 95 % intervals.")


def _costs_table(models: Sequence[Json]) -> Compared:
    columns = [column for column in (_cost_column(cost, models) for cost in COSTS) if column.is_told]
    return _table("What they cost", models, columns, "★ best of its column; of parameters, times and memory the least.")


def _table(title: str, models: Sequence[Json], columns: Sequence[Column], note: str) -> Compared:
    """Lay out a row for each model."""
    cells = [column.cells for column in columns]
    rows = [(_name(model), [some[i] for some in cells]) for i, model in enumerate(models)]
    return Compared(title, [column.head for column in columns], rows, note)


def _score_names(models: Sequence[Json]) -> list[str]:
    return list(dict.fromkeys(name for model in models for name, value in mapping(model.get("scores")).items() if is_score(value)))


def _score_column(name: str, models: Sequence[Json]) -> Column:
    found = [mapping(model.get("scores")).get(name) for model in models]
    return Column(label(name), name in LESS_IS_BETTER, [_score_value(name, score) for score in found])


def _score_value(name: str, score: object) -> Value:
    return (score["value"], score_words(name, score["value"]), shown_score(name, score).interval) if is_score(score) else NONE


def _cost_column(cost: Cost, models: Sequence[Json]) -> Column:
    found = [_at(model, cost.path) for model in models]
    return Column(cost.head, cost.less_is_better, [(value, cost.words(value), "") if is_number(value) else NONE for value in found])


def _at(model: Json, path: Sequence[str]) -> object:
    """Return what stands at a path of keys; None if nothing does."""
    value: object = model
    for key in path:
        value = mapping(value).get(key)
    return value


def _score_drawings(models: Sequence[Json]) -> list[Drawing]:
    """Draw the main score of each model, and a score by length, of all that lie near enough to each other."""
    far = _far_off(models)
    found = [_main_score(models, far), _by_length(models, far)]
    return [drawing for drawing in found if drawing is not None]


def _far_off(models: Sequence[Json]) -> int | None:
    """Return the place of a model whose main score is so much worse that an axis that reaches it tells the others no more apart."""
    names = _score_names(models)
    found = {place: mapping(model.get("scores")).get(names[0]) for place, model in enumerate(models)} if names else {}
    scores = {place: score for place, score in found.items() if is_score(score)}
    if len(scores) < LEAST_TO_LEAVE_OUT:
        return None
    pick = max if names[0] in LESS_IS_BETTER else min
    worst = pick(scores, key=lambda place: scores[place]["value"])
    near = [score for place, score in scores.items() if place != worst]
    return worst if _width(list(scores.values())) > FAR * _width(near) else None


def _width(scores: Sequence[Mapping[str, float]]) -> float:
    return max(score["high"] for score in scores) - min(score["low"] for score in scores)


def _main_score(models: Sequence[Json], far: int | None) -> Drawing | None:
    """Draw the first score that models have, with its intervals, but for the model that is far off."""
    names = _score_names(models)
    if not names:
        return None
    name = names[0]
    rows: list[Strip] = []
    values: list[float] = []
    for number, model in enumerate(models):
        score = mapping(model.get("scores")).get(name)
        if is_score(score) and number != far:
            value, low, high = (in_unit(name, score[key]) for key in ("value", "low", "high"))
            words = f"{score_words(name, score['value'])} ({shown_score(name, score).interval})"
            rows.append(Strip(_name(model), words, colour(number), [(value, words)], (low, high)))
            values += [value, low, high]
    note = "Bars are 95 % intervals." + (" Less is better." if name in LESS_IS_BETTER else "")
    if far is not None:
        note += f" Not drawn, for it lies far off: {_name(models[far])}, {score_words(name, models[far]['scores'][name]['value'])}."
    about = f"{label(name)} by model: " + "; ".join(f"{row.name} {row.words}" for row in rows)
    return Drawing(label(name), strips(score_axis(name, values), rows, about), note=note)


def _by_length(models: Sequence[Json], far: int | None) -> Drawing | None:
    """Draw a score of each model in buckets of length, each bucket at its place, but for the model that is far off."""
    buckets = [[] if place == far else mappings(model.get("by_length")) for place, model in enumerate(models)]
    every = [bucket for several in buckets for bucket in several]
    name = next((key for bucket in every for key, value in bucket.items() if is_score(value)), None)
    if name is None:
        return None
    sizes = {figure(bucket.get("length", "")): figure(bucket.get("n", "")) for bucket in every if is_score(bucket.get(name))}
    places = {length: float(place) for place, length in enumerate(sizes)}
    series = [
        Series(_name(model), colour(i), _bucket_points(name, several, places, APART * (i - (len(models) - 1) / 2)))
        for i, (model, several) in enumerate(zip(models, buckets, strict=True))
    ]
    across = categories("length in words", list(sizes), [f"n {n}" if n else "" for n in sizes.values()])
    return _lines_drawing(f"{label(name)} by length", Plot(across, _score_axis_of(name, series)), series, LENGTH_NOTE)


def _bucket_points(name: str, buckets: Sequence[Json], places: Mapping[str, float], aside: float) -> list[Point]:
    found = [(figure(bucket.get("length", "")), bucket.get(name)) for bucket in buckets]
    return [_score_point(name, places[length] + aside, score, f"length {length}") for length, score in found if is_score(score)]


def _score_point(name: str, x: float, score: Mapping[str, float], what: str) -> Point:
    value, low, high = (in_unit(name, score[key]) for key in ("value", "low", "high"))
    return Point(x, value, low, high, f"{what}: {score_words(name, score['value'])} ({shown_score(name, score).interval})")


def _score_axis_of(name: str, series: Sequence[Series], further: Sequence[float] = ()) -> Axis:
    ends = [end for one in series for point in one.points for end in (point.y, point.low, point.high) if end is not None]
    return score_axis(name, [*ends, *further])


def _lines_drawing(title: str, plot: Plot, series: Sequence[Series], note: str, chance: float | None = None) -> Drawing:
    """Draw lines with a legend, and the level that guessing reaches."""
    drawn = [one for one in series if one.points]
    keys = [(one.look, one.name) for one in drawn]
    marks = list(plot.series(drawn))
    if chance is not None:
        marks.insert(0, plot.line([(plot.x.low, chance), (plot.x.high, chance)], CHANCE))
        keys.append((CHANCE, "chance"))
    return Drawing(title, plot.svg(marks, f"{title}: {', '.join(one.name for one in drawn)}"), keys, note)


def _recall(recall: Json, names: Sequence[str]) -> Drawing | None:
    """Draw how well models recall what stands so many tokens back.

    Args:
        recall: {"distances": [n], "models": {name: [{"distance": n, score}]}, "chance": share, "about": what was tried}.
        names: of all models, which give them their colours.
    """
    found = {figure(name): mappings(points) for name, points in mapping(recall.get("models")).items()}
    score = next((key for points in found.values() for point in points for key, value in point.items() if is_score(value)), None)
    if score is None:
        return None
    known = list(dict.fromkeys([*names, *found]))
    series = [Series(name, colour(known.index(name)), _recall_points(score, points)) for name, points in found.items()]
    distances = [point.x for one in series for point in one.points]
    if not distances:
        return None
    chance = in_unit(score, recall["chance"]) if is_number(recall.get("chance")) else None
    across = logarithmic("distance in tokens", distances, [n for n in listed(recall.get("distances")) if is_number(n)])
    up = _score_axis_of(score, series, [] if chance is None else [chance])
    note = "Bars are 95 % intervals." if chance is None else f"Bars are 95 % intervals; guessing scores {percent(recall['chance'])}."
    return _lines_drawing("Recall at a distance", Plot(across, up), series, note, chance)


def _recall_points(name: str, points: Sequence[Json]) -> list[Point]:
    found = [(point.get("distance"), point.get(name)) for point in points]
    drawn = [(n, score) for n, score in found if is_number(n) and n > 0 and is_score(score)]
    return [_score_point(name, n, score, f"distance {figure(n)}") for n, score in sorted(drawn, key=lambda pair: pair[0])]


# Costs over length by their keys: title, unit, key of the slope, and how a value is worded.
MEASURES: tuple[tuple[str, str, str, str, Callable[[float], str]], ...] = (
    ("seconds", "Time over length", "seconds", "slope_time", lambda value: f"{figure(float(value))} s"),
    ("mib", "Memory over length", "MiB", "slope_memory", lambda value: f"{figure(float(value))} MiB"),
)


def _cost_drawings(costs: Json) -> list[Drawing]:
    """Draw time and memory over length on logarithmic axes, where a slope of 1 is a cost in proportion to the length."""
    lengths, kinds = listed(costs.get("lengths")), mapping(costs.get("kinds"))
    drawings = []
    for key, title, unit, slope, words in MEASURES:
        series = [
            Series(_with_slope(kind, mapping(found).get(slope)), colour(i), _cost_points(lengths, mapping(found).get(key), words))
            for i, (kind, found) in enumerate(kinds.items())
        ]
        points = [point for one in series for point in one.points]
        if points:
            x = logarithmic("tokens, logarithmic", [point.x for point in points], [point.x for point in points])
            y = logarithmic(f"{unit}, logarithmic", [point.y for point in points])
            drawings.append(_lines_drawing(title, Plot(x, y), series, "A slope of 1 grows with the length, one of 2 with its square."))
    return drawings


def _with_slope(kind: object, slope: object) -> str:
    return f"{figure(kind)} (slope {slope:.2f})" if is_number(slope) else figure(kind)


def _cost_points(lengths: Sequence[object], values: object, words: Callable[[float], str]) -> list[Point]:
    """Pair lengths with values; a length that could not be measured has none."""
    pairs = zip(lengths, listed(values), strict=False)
    drawn = [(n, value) for n, value in pairs if is_number(n) and is_number(value) and n > 0 and value > 0]
    return [Point(n, value, about=f"{figure(n)} tokens: {words(value)}") for n, value in sorted(drawn)]
