"""The page of a cross-validation: the scores of every fold, and how far they lie apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heed.metrics import LESS_IS_BETTER
from heed.report.drawing import Drawing, Strip, score_axis, strips
from heed.report.facts import Facts, machine_words
from heed.report.sources import mapping, mappings
from heed.report.template import fill
from heed.report.wording import (
    NARROW,
    counted,
    date,
    duration,
    figure,
    in_unit,
    is_number,
    is_score,
    label,
    score_words,
    shown_score,
    unit,
)

HEADLINES = 4  # scores in large print

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Headline:
    """The mean of a score in large print, and what stands below it."""

    label: str
    brief: str
    unit: str
    note: str
    less_is_better: bool


def folds_page(content: Json) -> str:
    """Return the page that `heed crossvalidate` writes.

    Args:
        content: recipe, data, date, machine, folds, summary and group; what is absent or of another shape is left out.
    """
    folds, summary = mappings(content.get("folds")), mapping(content.get("summary"))
    every = list(dict.fromkeys(name for fold in folds for name, value in mapping(fold.get("scores")).items() if is_score(value)))
    alike = _alike(every, folds)
    names = [name for name in every if name not in alike]
    told = [name for name in names if _is_summary(summary.get(name))]
    return fill(
        "folds.html",
        {
            "title": figure(content.get("recipe", "Cross-validation")),
            "about": _about(content, len(folds)),
            "headlines": [_headline(name, mapping(summary[name]), len(folds)) for name in told[:HEADLINES]],
            "facts": _head_facts(content, folds),
            "heads": [figure(fold.get("fold", "")) for fold in folds],
            "scores": [_score_row(name, folds, mapping(summary.get(name))) for name in names],
            "alike": list(_alike_words(alike)),
            "runs": [_run_row(fold) for fold in folds],
            "strips": [_drawing(name, folds, mapping(summary.get(name))) for name in names],
        },
    )


def _about(content: Json, n_folds: int) -> str:
    """Say in a line what was divided, and how."""
    group, data = content.get("group"), content.get("data")
    told = counted(n_folds, "fold") + (f" of {figure(data)}" if data else "")
    return told + (f" · rows with the same {figure(group)} stay together" if group is not None else "")


def _head_facts(content: Json, folds: Sequence[Json]) -> Facts:
    times = [fold["seconds"] for fold in folds if is_number(fold.get("seconds"))]
    counts = [fold["n"] for fold in folds if is_number(fold.get("n"))]
    machine = machine_words(content.get("machine"))
    found = [("Date", date(content["date"]))] if "date" in content else []
    found += [("Examples scored", figure(sum(counts)))] if counts else []
    found += [("Training time, all folds", duration(sum(times)))] if times else []
    return [*found, *([("Machine", machine)] if machine else [])]


def _alike(names: Sequence[str], folds: Sequence[Json]) -> dict[str, str]:
    """Return the scores that have the values of an earlier one in every fold, such as micro averages of single labels, with that one."""
    found: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name in names:
        scores = [mapping(fold.get("scores")).get(name) for fold in folds]
        key = (unit(name), name in LESS_IS_BETTER, *(score["value"] if is_score(score) else None for score in scores))
        if first.setdefault(key, name) != name:
            found[name] = first[key]
    return found


def _alike_words(alike: Mapping[str, str]) -> Iterator[str]:
    for first in dict.fromkeys(alike.values()):
        others = ", ".join(label(name) for name, same in alike.items() if same == first)
        yield f"The same as {label(first)} in every fold: {others}."


def _is_summary(content: object) -> bool:
    return is_number(mapping(content).get("mean")) and is_number(mapping(content).get("sd"))


def mean_words(name: str, summary: Json) -> str:
    """Word the mean of a score over folds with its standard deviation."""
    mean = score_words(name, summary["mean"]).removesuffix(f"{NARROW}%")
    return f"{mean} ± {_deviation(name, summary)}" + (f"{NARROW}%" if unit(name) else "")


def _deviation(name: str, summary: Json) -> str:
    """Word a standard deviation in as many decimals as its mean."""
    mean, deviation = (score_words(name, summary[key]).removesuffix(f"{NARROW}%") for key in ("mean", "sd"))
    return deviation if "e" in mean else f"{in_unit(name, summary['sd']):,.{len(mean.partition('.')[2])}f}"


def _headline(name: str, summary: Json, n_folds: int) -> Headline:
    mean = float(summary["mean"])
    shown = shown_score(name, {"value": mean, "low": mean, "high": mean})
    note = f"± {_deviation(name, summary)}, mean of {counted(n_folds, 'fold')}"
    return Headline(shown.label, shown.brief, shown.unit, note, shown.less_is_better)


def _score_row(name: str, folds: Sequence[Json], summary: Json) -> dict[str, Any]:
    return {
        "label": label(name),
        "less_is_better": name in LESS_IS_BETTER,
        "mean": mean_words(name, summary) if _is_summary(summary) else "",
        "folds": [_score_cell(name, mapping(fold.get("scores")).get(name)) for fold in folds],
    }


def _score_cell(name: str, score: object) -> tuple[str, str]:
    return (score_words(name, score["value"]), shown_score(name, score).interval) if is_score(score) else ("–", "")


def _run_row(fold: Json) -> dict[str, str]:
    seconds = fold.get("seconds")
    return {
        "fold": figure(fold.get("fold", "")),
        "n": figure(fold.get("n", "")),
        "time": duration(seconds) if is_number(seconds) else "",
        "run": figure(fold.get("run") or ""),
    }


def _drawing(name: str, folds: Sequence[Json], summary: Json) -> Drawing:
    """Draw a score of every fold as a dot over one axis, with the mean and the standard deviation around it."""
    found = [(figure(fold.get("fold", "")), mapping(fold.get("scores")).get(name)) for fold in folds]
    dots = [(in_unit(name, one["value"]), f"fold {fold}: {score_words(name, one['value'])}") for fold, one in found if is_score(one)]
    row = Strip(counted(len(dots), "fold"), "", "accent", dots)
    if _is_summary(summary):
        middle, deviation = in_unit(name, summary["mean"]), in_unit(name, summary["sd"])
        row = replace(row, words=mean_words(name, summary), span=(middle - deviation, middle + deviation), middle=middle)
    axis = score_axis(name, [*(value for value, _ in dots), *(row.span or ())])
    note = "Less is better." if name in LESS_IS_BETTER else ""
    return Drawing(label(name), strips(axis, [row], f"{label(name)} by fold: {row.words}"), note=note)
