"""Cross-validation: a run for each fold of the training data, everything fitted anew inside it."""

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heed import verbs
from heed.errors import CheckpointError, ConfigError
from heed.files import parse_json, replacing
from heed.report.folds import folds_page
from heed.run import RunConfig, read_config, resolve

USUAL_FOLDS = 5


def crossvalidate(recipe: str | Mapping[str, Any], settings: Mapping[str, Any], folder: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Train on all folds but one and score on that one, for each; what is there already from an earlier call is kept.

    Args:
        settings: data.folds (default 5) and data.group among them.
    Returns:
        the content of crossvalidation.json: `folds` with their scores and run folders, `summary` with mean and standard deviation.
    Raises:
        ConfigError: validation or test data are named, or `folder` holds folds of other settings.
    """
    config = resolve(recipe, settings, base={"data": {"folds": USUAL_FOLDS}})
    if config.data.test is not None:
        raise ConfigError("data.test is not looked at by crossvalidate; leave it out, and evaluate the model you choose on it")
    assert config.data.folds is not None
    folds = [_fold(config, number, folder / f"fold-{number}", quiet=quiet) for number in range(1, config.data.folds + 1)]
    content = {
        "recipe": recipe if isinstance(recipe, str) else config.task["name"],
        "data": config.data.train,
        "group": config.data.group,
        "folds": folds,
        "summary": _summary([fold["scores"] for fold in folds]),
    }
    with replacing(folder / "crossvalidation.json") as draft:
        draft.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    with replacing(folder / "report.html") as draft:
        draft.write_text(folds_page(content), encoding="utf-8")
    return content


def _fold(config: RunConfig, number: int, place: Path, *, quiet: bool) -> dict[str, Any]:
    """Train and score one fold, or go on with it, or take what is there."""
    wanted = config.replace(data={**config.data.model_dump(), "fold": number})
    if not quiet:
        print(f"fold {number} of {config.data.folds}: {place}", file=sys.stderr)  # noqa: T201 (progress)
    scored = place / "evaluations" / "valid.json"
    if (place / "config.yaml").is_file():
        _check_same(place, wanted)
        if not scored.is_file():
            verbs.resume(place, quiet=quiet)
    else:
        verbs.train_with(wanted.model_dump(), {}, to=place, quiet=quiet)
    content = parse_json(scored.read_text(encoding="utf-8"))
    scores = {name: value for name, value in content.items() if isinstance(value, dict) and {"value", "low", "high"} <= value.keys()}
    return {"fold": number, "run": str(place), "n": content["cost"]["examples"], "scores": scores, "seconds": _seconds(place)}


def _check_same(place: Path, wanted: RunConfig) -> None:
    """Refuse a fold that was made with other settings; sizes and what was left to the data are filled in meanwhile."""
    there, asked = (content.model_dump() for content in (read_config(place), wanted))
    for group in ("data", "train", "decode", "seed"):
        if there[group] != asked[group]:
            raise ConfigError(f"{place}: was made with other settings ({group}.*); choose another --to, or remove it")
    for group in ("task", "model"):
        for name, value in asked[group].items():
            if value is not None and there[group][name] not in (value, None) and not _filled_in(group, name):
                raise ConfigError(f"{place}: was made with {group}.{name}={there[group][name]}; choose another --to, or remove it")


def _filled_in(group: str, name: str) -> bool:
    return group == "model" and name in ("embedding_scale", "frozen_embedding")


def _seconds(place: Path) -> float:
    lines = (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [parse_json(line).get("seconds", 0.0) for line in lines]
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
    width = max(map(len, names))
    lines = [f"{len(content['folds'])} folds of {content['data']}" + (f", grouped by {content['group']}" if content["group"] else "")]
    for name in names:
        values = "  ".join(f"{fold['scores'][name]['value']:.4g}" for fold in content["folds"])
        found = content["summary"][name]
        lines.append(f"{name:<{width}}  {found['mean']:.4g} ± {found['sd']:.2g}   by fold: {values}")
    return lines
