"""Cross-validation: a run for each fold of the training data, everything fitted anew inside it and the fold scored once at the end."""

import datetime
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heed import verbs
from heed.device import describe_machine
from heed.errors import CheckpointError, ConfigError
from heed.experiments.records import Json, check_begin, check_data, experiment, has_begun, record_of
from heed.files import parse_json, read_metrics, replacing
from heed.metrics.intervals import scores_in
from heed.report.folds import folds_page
from heed.run import RunConfig, resolve
from heed.terminal import sayer
from heed.training.folds import USUAL_FOLDS


def crossvalidate(recipe: str | Mapping[str, Any], settings: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Train on all folds but one and score on that one, for each; what is there already from an earlier call is kept.

    The weights and the temperature of a run are chosen on rows held out of the folds that it is trained on.

    Args:
        settings: data.folds (default 5) and data.group among them.
    Returns:
        the content of crossvalidation.json: `folds` with their scores and run folders, `summary` with mean and standard deviation.
    Raises:
        ConfigError: validation or test data or a single fold are named, training data are not, or `folder` holds something else.
        DataError: the data changed since an earlier call.
        TrainingError: another process is at work in `folder`.
    """
    config = resolve(recipe, settings, base={"data": {"folds": USUAL_FOLDS}})
    assert config.data.folds is not None
    if config.data.fold != 1:
        raise ConfigError(
            f"data.fold={config.data.fold} would be ignored: every fold is the test data in turn; leave it out, or train on a single one "
            f"with heed train ... data.folds={config.data.folds} data.fold={config.data.fold}"
        )
    check_begin(config)
    record = record_of(config)
    with experiment(folder, record):
        folds = [_fold(config, number, folder / f"fold-{number}", record, quiet=quiet) for number in range(1, config.data.folds + 1)]
        content = {
            "recipe": recipe if isinstance(recipe, str) else config.task["name"],
            "data": config.data.train,
            "date": datetime.date.today().isoformat(),
            "machine": describe_machine(),
            "group": config.data.group,
            "folds": folds,
            "summary": _summary([fold["scores"] for fold in folds]),
        }
        with replacing(folder / "crossvalidation.json") as draft:
            draft.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        with replacing(folder / "report.html") as draft:
            draft.write_text(folds_page(content), encoding="utf-8")
    return content


def _fold(config: RunConfig, number: int, place: Path, record: Json, *, quiet: bool) -> dict[str, Any]:
    """Train and score one fold, or go on with it, or take what is there."""
    sayer(quiet)(f"fold {number} of {config.data.folds}: {place}")
    scored = place / "evaluations" / "test.json"
    if not has_begun(place):
        fold = config.replace(data={**config.data.model_dump(), "fold": number})
        verbs.train_with(fold.model_dump(), {}, to=place, quiet=quiet)
    elif not scored.is_file():
        verbs.resume(place, quiet=quiet)
    check_data(place, record)
    content = parse_json(scored.read_text(encoding="utf-8"))
    scores = scores_in(content)
    return {"fold": number, "run": str(place), "n": content["cost"]["examples"], "scores": scores, "seconds": _seconds(place)}


def _seconds(place: Path) -> float:
    found = [line.get("seconds", 0.0) for line in read_metrics(place)]
    if not found:
        raise CheckpointError(f"{place / 'metrics.jsonl'}: holds no steps; remove the fold and start again")
    return float(max(found))


def _summary(folds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation (over folds, n - 1) of the scores that all folds have."""
    names = [name for name in folds[0] if all(name in fold for fold in folds)]
    values = {name: [fold[name]["value"] for fold in folds] for name in names}
    return {name: {"mean": statistics.fmean(found), "sd": statistics.stdev(found)} for name, found in values.items()}


def fold_lines(content: Mapping[str, Any]) -> list[str]:
    """Return a cross-validation as lines for a terminal."""
    names = list(content["summary"])
    means = {name: f"{found['mean']:.4g} ± {found['sd']:.2g}" for name, found in content["summary"].items()}
    width, wide = max(map(len, names)), max(map(len, means.values()))
    lines = [f"{len(content['folds'])} folds of {content['data']}" + (f", grouped by {content['group']}" if content["group"] else "")]
    for name in names:
        values = "  ".join(f"{fold['scores'][name]['value']:.4g}" for fold in content["folds"])
        lines.append(f"{name:<{width}}  {means[name]:<{wide}}  by fold: {values}")
    return lines
