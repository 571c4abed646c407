"""The page of a search over settings: how the best value came down or up, each setting against the value, and all trials in order."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from heed.metrics import LESS_IS_BETTER
from heed.report.bars import shares
from heed.report.drawing import Axis, Drawing, Plot, Point, categories, linear, logarithmic, score_axis
from heed.report.facts import Facts, machine_words
from heed.report.sources import listed, mapping, mappings
from heed.report.template import fill
from heed.report.wording import counted, date, duration, figure, in_unit, is_number, label, score_words, shortened

LOG_FROM = 30.0  # a setting whose largest value is this many times its smallest is drawn on a logarithmic axis
MOST_ROWS = 200
LONGEST_PATH = 40  # characters of a setting's name at an axis
STATES = ("complete", "pruned", "failed")

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One trial: its number, how it ended, its value in the unit that is shown (None: it has none) and its settings."""

    number: float
    state: str
    value: float | None
    words: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""
    run: str = ""
    error: str = ""

    @property
    def counts(self) -> bool:
        """Whether it ran to its end and has a value, so that it may be the best."""
        return self.state == "complete" and self.value is not None


@dataclass(frozen=True)
class Search:
    """A search: the metric's name, whether less of it is better, the trials in the order they were begun, and the best one."""

    metric: str
    less_is_better: bool
    trials: Sequence[Trial]
    best: Trial | None
    space: Mapping[str, Any] = field(default_factory=dict)  # path -> the values there were to choose from, or {low, high, log}

    @property
    def settings(self) -> list[str]:
        """The paths of all settings that were tried."""
        return list(dict.fromkeys(path for trial in self.trials for path in trial.settings))

    def ordered(self) -> list[Trial]:
        """Return the trials, the best first, those without a value last."""
        sign = 1.0 if self.less_is_better else -1.0
        return sorted(self.trials, key=lambda trial: (not trial.counts, math.inf if trial.value is None else sign * trial.value))


def trials_page(content: Json) -> str:
    """Return the page that `heed tune` writes.

    Args:
        content: recipe, data, date, machine, metric, direction, space, trials, best and importance; what is absent or of another
            shape is left out.
    """
    search = _search(content)
    drawings = [drawing for drawing in (_scatter(path, search) for path in search.settings) if drawing is not None]
    return fill(
        "trials.html",
        {
            "title": figure(content.get("recipe", "Search over settings")),
            "metric": label(_plain(search.metric)),
            "less_is_better": search.less_is_better,
            "best": search.best,
            "best_settings": _best_settings(search),
            "states": _states(search.trials),
            "facts": _head_facts(content),
            "n_complete": sum(trial.counts for trial in search.trials),
            "progress": _progress(search),
            "importance": shares(content.get("importance")),
            "drawings": drawings,
            "paths": search.settings,
            "rows": [_row(trial, search) for trial in search.ordered()[:MOST_ROWS]],
            "n_left_out": max(0, len(search.trials) - MOST_ROWS),
        },
    )


def _search(content: Json) -> Search:
    metric = figure(content.get("metric", "value"))
    trials = sorted((_trial(_plain(metric), one) for one in mappings(content.get("trials")) if is_number(one.get("number"))), key=_number)
    best = next((trial for trial in trials if trial.number == content.get("best")), None)
    usual = "minimize" if _plain(metric) in LESS_IS_BETTER else "maximize"
    less_is_better = figure(content.get("direction", usual)).lower().startswith("min")
    return Search(metric, less_is_better, trials, best, mapping(content.get("space")))


def _number(trial: Trial) -> float:
    return trial.number


def _plain(metric: str) -> str:
    """Return the name of a metric without where it was measured: valid.accuracy is an accuracy."""
    return metric.rpartition(".")[2]


def _trial(metric: str, content: Json) -> Trial:
    value, seconds = content.get("value"), content.get("seconds")
    return Trial(
        number=content["number"],
        state=figure(content.get("state", "")),
        value=in_unit(metric, value) if is_number(value) else None,
        words=score_words(metric, value) if is_number(value) else "–",
        settings={str(path): setting for path, setting in mapping(content.get("settings")).items()},
        time=duration(seconds) if is_number(seconds) else "",
        run=figure(content.get("run") or ""),
        error=figure(content.get("error") or ""),
    )


def _head_facts(content: Json) -> Facts:
    """Return the data, the date, the machine and the time that all trials took."""
    machine = machine_words(content.get("machine"))
    times = [trial["seconds"] for trial in mappings(content.get("trials")) if is_number(trial.get("seconds"))]
    found = [("Data", figure(content["data"]))] if content.get("data") else []
    found += [("Date", date(content["date"]))] if "date" in content else []
    found += [("Training time, all trials", duration(sum(times)))] if times else []
    return [*found, *([("Machine", machine)] if machine else [])]


def _best_settings(search: Search) -> Facts:
    return [] if search.best is None else [(path, figure(value)) for path, value in search.best.settings.items()]


def _states(trials: Sequence[Trial]) -> str:
    """Count the trials by how they ended."""
    told = [*STATES, *sorted({trial.state for trial in trials} - set(STATES))]
    counts = {state: sum(trial.state == state for trial in trials) for state in told}
    return f"{counted(len(trials), 'trial')}: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n) if trials else "no trials"


def _row(trial: Trial, search: Search) -> dict[str, Any]:
    return {
        "number": figure(trial.number),
        "value": trial.words,
        "state": trial.state,
        "settings": [figure(trial.settings[path]) if path in trial.settings else "" for path in search.settings],
        "time": trial.time,
        "run": trial.run,
        "error": trial.error,
        "best": trial is search.best,
    }


def _progress(search: Search) -> Drawing | None:
    """Draw every trial's value by its number, and the best value up to there as a line."""
    valued = [trial for trial in search.trials if trial.value is not None]
    if not valued:
        return None
    numbers = [trial.number for trial in valued]
    plot = Plot(linear("trial", numbers, whole=True), _value_axis(search))
    marks = [plot.line(_best_so_far(search, numbers), "accent"), *_dots(plot, search, {trial.number: trial.number for trial in valued})]
    keys = [("accent", "best so far")]
    return Drawing("Value of each trial", plot.svg(marks, f"Value of each trial; {_best_words(search)}"), keys, _looks_note(search))


def _best_so_far(search: Search, numbers: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Yield the corners of the line of the best value up to each trial; trials that did not run to their end do not count."""
    best: float | None = None
    for trial in search.trials:
        if not trial.counts or trial.value is None:
            continue
        if best is not None:
            yield trial.number, best
        best = trial.value if best is None else min(best, trial.value) if search.less_is_better else max(best, trial.value)
        yield trial.number, best
    if best is not None:
        yield max(numbers), best


def _value_axis(search: Search) -> Axis:
    return score_axis(_plain(search.metric), [trial.value for trial in search.trials if trial.value is not None])


def _best_words(search: Search) -> str:
    return "no best one" if search.best is None else f"the best is trial {figure(search.best.number)} with {search.best.words}"


def _looks_note(search: Search) -> str:
    hollow = any(trial.value is not None and not trial.counts for trial in search.trials)
    stopped = "; hollow ones were stopped early, doing worse than others had by then" if hollow else ""
    return f"Full dots ran to their end{stopped}. The large orange dot is the best."


def _dots(plot: Plot, search: Search, places: Mapping[float, float]) -> Iterator[Markup]:
    """Draw the trials that have a place (by their numbers) along the x axis, the best one last and largest."""
    shown = [trial for trial in search.trials if trial.number in places]
    for trial in sorted(shown, key=lambda trial: trial is search.best):
        if trial.value is not None:
            point = Point(places[trial.number], trial.value, about=_about(trial))
            if trial is search.best:
                yield plot.dot(point, "c1", 5.0)
            else:
                yield plot.dot(point, "accent see-through" if trial.counts else "accent hollow", 3.2)


def _about(trial: Trial) -> str:
    settings = ", ".join(f"{path}={figure(value)}" for path, value in trial.settings.items())
    return f"trial {figure(trial.number)}, {trial.state}: {trial.words}; {settings}"


def _scatter(path: str, search: Search) -> Drawing | None:
    """Draw the value of every trial by one of its settings."""
    given = {trial.number: trial.settings[path] for trial in search.trials if path in trial.settings and trial.value is not None}
    if not given:
        return None
    axis, places = _places(shortened(path, LONGEST_PATH), given, search.space.get(path))
    plot = Plot(axis, _value_axis(search))
    return Drawing(path, plot.svg(_dots(plot, search, places), f"Value by {path}"))


def _places(title: str, given: Mapping[float, object], space: object) -> tuple[Axis, dict[float, float]]:
    """Return an axis for the values of a setting and the place of each trial on it, by its number.

    Numbers have an axis of their own over all that was searched, logarithmic where the search was or they span more than LOG_FROM;
    anything else stands in order of appearance.
    """
    numbers = {trial: value for trial, value in given.items() if is_number(value)}
    if len(numbers) < len(given):
        names = list(dict.fromkeys(figure(value) for value in given.values()))
        return categories(title, names), {trial: float(names.index(figure(value))) for trial, value in given.items()}
    values = [*numbers.values(), *_limits(space)]
    by_factors = mapping(space).get("log") is True or max(values) > LOG_FROM * min(values)
    if min(values) > 0 and by_factors:
        return logarithmic(f"{title}, logarithmic", values), numbers
    return linear(title, values, whole=all(isinstance(value, int) for value in values)), numbers


def _limits(space: object) -> list[float]:
    """Return the numbers between which a setting was searched."""
    ends = [mapping(space).get("low"), mapping(space).get("high"), *listed(space)]
    return [end for end in ends if is_number(end)]
