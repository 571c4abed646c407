"""The page of a cross-validation: the scores of every fold, and how far they lie apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from heed.metrics import LESS_IS_BETTER
from heed.report.drawing import Drawing, Strip, score_axis, strips
from heed.report.sources import mapping, mappings
from heed.report.template import fill
from heed.report.wording import (
    NARROW,
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

Json = Mapping[str, Any]


def folds_page(content: Json) -> str:
    """Return the page that `heed crossvalidate` writes.

    Args:
        content: recipe, folds, summary and group; what is absent or of another shape is left out.
    """
    folds, summary = mappings(content.get("folds")), mapping(content.get("summary"))
    names = list(dict.fromkeys(name for fold in folds for name, value in mapping(fold.get("scores")).items() if is_score(value)))
    group = content.get("group")
    return fill(
        "folds.html",
        {
            "title": figure(content.get("recipe", "Cross-validation")),
            "n_folds": len(folds),
            "group": "" if group is None else figure(group),
            "summary": [(label(name), mean_words(name, found)) for name, found in summary.items() if _is_summary(found)],
            "heads": [label(name) for name in names],
            "rows": [_row(fold, names) for fold in folds],
            "means": [mean_words(name, mapping(summary.get(name))) if _is_summary(summary.get(name)) else "" for name in names],
            "strips": [_drawing(name, folds, mapping(summary.get(name))) for name in names],
        },
    )


def _is_summary(content: object) -> bool:
    return is_number(mapping(content).get("mean")) and is_number(mapping(content).get("sd"))


def mean_words(name: str, summary: Json) -> str:
    """Word the mean of a score over folds with its standard deviation."""
    mean, deviation = (score_words(name, summary[key]).removesuffix(f"{NARROW}%") for key in ("mean", "sd"))
    return f"{mean} ± {deviation}" + (f"{NARROW}%" if unit(name) else "")


def _row(fold: Json, names: Sequence[str]) -> dict[str, Any]:
    scores, seconds = mapping(fold.get("scores")), fold.get("seconds")
    return {
        "fold": figure(fold.get("fold", "")),
        "n": figure(fold.get("n", "")),
        "scores": [_score_cell(name, scores.get(name)) for name in names],
        "time": duration(seconds) if is_number(seconds) else "",
        "run": figure(fold.get("run") or ""),
    }


def _score_cell(name: str, score: object) -> tuple[str, str]:
    return (score_words(name, score["value"]), shown_score(name, score).interval) if is_score(score) else ("–", "")


def _drawing(name: str, folds: Sequence[Json], summary: Json) -> Drawing:
    """Draw a score of every fold as a dot over one axis, with the mean and the standard deviation around it."""
    found = [(figure(fold.get("fold", "")), mapping(fold.get("scores")).get(name)) for fold in folds]
    dots = [(in_unit(name, one["value"]), f"fold {fold}: {score_words(name, one['value'])}") for fold, one in found if is_score(one)]
    row = Strip(f"{len(dots)} folds", "", "accent", dots)
    if _is_summary(summary):
        middle, deviation = in_unit(name, summary["mean"]), in_unit(name, summary["sd"])
        row = replace(row, words=mean_words(name, summary), span=(middle - deviation, middle + deviation), middle=middle)
    axis = score_axis(name, [*(value for value, _ in dots), *(row.span or ())])
    note = "Less is better." if name in LESS_IS_BETTER else ""
    return Drawing(label(name), strips(axis, [row], f"{label(name)} by fold: {row.words}"), note=note)
