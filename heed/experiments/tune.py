"""Tuning: a search over settings with Optuna, tree-structured Parzen estimators and successive halving (Akiba et al. 2019).

A recipe names what may vary under `search`: a list of values, or {low, high} with log: true where a factor counts rather than a difference.
Every trial is a run folder, whose config.yaml makes the same run again. Test data are never looked at.
"""

import json
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from heed import verbs
from heed.config import Settings, find_recipe, merge, read_yaml, validate
from heed.errors import ConfigError, HeedError, MissingExtra, TrainingError
from heed.files import parse_json, replacing
from heed.report.trials import trials_page
from heed.run import Run, RunConfig, resolve
from heed.training.train import fit_recipe
from heed.training.trainer import LOWER_IS_BETTER

USUAL_SEARCH: dict[str, Any] = {"train.lr": {"low": 5e-4, "high": 8e-3, "log": True}, "model.dropout": {"low": 0.0, "high": 0.4}}
REDUCTION = 3  # of the trials at a rung, the best third goes on


class Range(Settings):
    """Numbers from low to high; whole ones when both ends are."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} is not below high={self.high}; name a span, or a list of values")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log=true needs low above 0, and no step; found low={self.low}, step={self.step}")
        return self


def search_space(recipe: str | Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what may vary, by dotted path: a list of values or a `Range`; what heed suggests when nothing is said."""
    content: Any = recipe
    if isinstance(recipe, str):
        path = find_recipe(recipe)
        content = {} if path is None else read_yaml(path)
    found = dict(_flat(merge(content.get("search") or {}, settings.get("search") or {})))
    return found or dict(_flat(USUAL_SEARCH))


def _flat(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and choices of a search space, whose paths may be dotted or nested."""
    for name, value in space.items():
        path = f"{prefix}{name}"
        if isinstance(value, list):
            if not value:
                raise ConfigError(f"search.{path}: no values to choose from")
            yield path, value
        elif isinstance(value, Mapping) and {"low", "high"} & value.keys():
            yield path, _range(value, f"search.{path}")
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{path}.")
        else:
            raise ConfigError(f"search.{path}: expected a list of values, or low and high, found {value!r}")


def _range(value: Mapping[str, Any], path: str) -> Range:
    try:
        return validate(Range, value, path)
    except ConfigError as error:
        message = str(error)
        raise ConfigError(message if message.startswith(path) else f"{path}: {message}") from error


def tune(recipe: str | Mapping[str, Any], settings: Mapping[str, Any], folder: Path, *, trials: int, quiet: bool = False) -> dict[str, Any]:
    """Search, or go on searching where an earlier call stopped, until `trials` trials are done.

    Returns:
        the content of tuning.json: the trials, and the number, settings and run folder of the best.
    Raises:
        MissingExtra: Optuna is not installed.
        ConfigError: the space holds an unknown setting or a value that does not fit.
    """
    optuna = _optuna()
    space = search_space(recipe, settings)
    fixed = {name: value for name, value in settings.items() if name != "search"}
    fixed = merge(fixed, {"data": {"test": None}})
    config = _check(recipe, fixed, space)
    folder.mkdir(parents=True, exist_ok=True)
    metric = config.train.best_metric
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.journal")))
    study = optuna.create_study(
        study_name="heed",
        storage=storage,
        load_if_exists=True,
        direction="minimize" if metric in LOWER_IS_BETTER else "maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
    )
    about = {"metric": metric, "space": _told(space), "data": config.data.train, "seed": config.seed, "settings": fixed}
    _check_same_study(study, json.loads(json.dumps(about, default=str)))
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))  # or a search that goes on would draw the same again
    _take_up_again(optuna, study, folder)
    for _ in range(trials - _n_done(optuna, study)):
        _try(study, recipe, fixed, space, folder, quiet=quiet)
        _write(optuna, study, recipe, metric, folder)
    content = _write(optuna, study, recipe, metric, folder)
    if content["best"] is not None:
        verbs.conclude(Run.load(content["best_run"]), quiet=quiet)
    return content


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "tune", "heed tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _check(recipe: str | Mapping[str, Any], fixed: Mapping[str, Any], space: Mapping[str, Any]) -> RunConfig:
    """Refuse a space that holds settings no run could have, before any trial."""
    for path, choices in space.items():
        values = choices if isinstance(choices, list) else [choices.low, choices.high]
        for value in values:
            resolve(recipe, merge(fixed, _nested(path, value)))
    return resolve(recipe, fixed)


def _nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def _told(space: Mapping[str, Any]) -> dict[str, Any]:
    return {path: choices if isinstance(choices, list) else choices.model_dump() for path, choices in space.items()}


def _check_same_study(study: Any, about: dict[str, Any]) -> None:
    """Refuse to go on with a search for something else."""
    before = study.user_attrs.get("about")
    if before is None:
        study.set_user_attr("about", about)
    elif before != about:
        name = next(key for key in about if before.get(key) != about[key])
        raise ConfigError(f"tune: this folder holds a search with another {name} ({before.get(name)}); choose another --to")


def _take_up_again(optuna: Any, study: Any, folder: Path) -> None:
    """Give trials that were cut off back to the queue."""
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        shutil.rmtree(_place(folder, trial.number), ignore_errors=True)
        study.enqueue_trial(trial.params)


def _place(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:03}"


def _n_done(optuna: Any, study: Any) -> int:
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return len(study.get_trials(states=states))


def _try(
    study: Any, recipe: str | Mapping[str, Any], fixed: Mapping[str, Any], space: Mapping[str, Any], folder: Path, *, quiet: bool
) -> None:
    """Make one trial."""
    optuna = _optuna()
    trial = study.ask()
    chosen = {path: _suggest(trial, path, choices) for path, choices in space.items()}
    settings: dict[str, Any] = dict(fixed)
    for path, value in chosen.items():
        settings = merge(settings, _nested(path, value))
    if not quiet:
        print(f"trial {trial.number}: " + "  ".join(f"{path}={_short(value)}" for path, value in chosen.items()), file=sys.stderr)  # noqa: T201
    pruned = False

    def stop(n_evaluations: int, value: float) -> bool:
        nonlocal pruned
        trial.report(value, n_evaluations)
        pruned = bool(trial.should_prune())
        return pruned

    place = _place(folder, trial.number)
    try:
        fit_recipe(recipe, settings, place, force=False, quiet=True, stop=stop)
    except (TrainingError, ConfigError) as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if not any(done.state == optuna.trial.TrialState.COMPLETE for done in study.trials) and trial.number >= 2:
            raise HeedError(f"tune: no trial could be trained; the last one: {error}") from error
        return
    value, seconds = _outcome(place)
    trial.set_user_attr("seconds", seconds)
    trial.set_user_attr("value", value)
    study.tell(trial, None if pruned else value, state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE)
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    if not quiet:
        print(f"  {study.trials[trial.number].state.name.lower()}: {value:.4g} after {seconds:.0f} s", file=sys.stderr)  # noqa: T201


def _suggest(trial: Any, path: str, choices: Any) -> Any:
    if isinstance(choices, list):
        return trial.suggest_categorical(path, choices)
    if isinstance(choices.low, int) and isinstance(choices.high, int):
        return trial.suggest_int(path, choices.low, choices.high, step=int(choices.step or 1), log=choices.log)
    return trial.suggest_float(path, choices.low, choices.high, log=choices.log, step=choices.step)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _outcome(place: Path) -> tuple[float, float]:
    """Return the best validation value of a run, and its seconds."""
    config = read_yaml(place / "config.yaml")
    metric = config["train"]["best_metric"]
    lines = [parse_json(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    best = next(line for line in reversed(lines) if line.get("best"))
    return float(best["valid"][metric]), max(line.get("seconds", 0.0) for line in lines)


def _write(optuna: Any, study: Any, recipe: str | Mapping[str, Any], metric: str, folder: Path) -> dict[str, Any]:
    """Write tuning.json and the page, and the report of the best run."""
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    rows = [
        {
            "number": trial.number,
            "state": names[trial.state.name],
            "value": trial.user_attrs.get("value"),
            "settings": trial.params,
            "seconds": trial.user_attrs.get("seconds"),
            "run": str(_place(folder, trial.number)),
            "error": trial.user_attrs.get("error"),
        }
        for trial in study.trials
        if trial.state.name in names and not (trial.state.name == "FAIL" and "error" not in trial.user_attrs)
    ]
    complete = [row for row in rows if row["state"] == "complete"]
    content: dict[str, Any] = {
        "recipe": recipe if isinstance(recipe, str) else "settings",
        "metric": metric,
        "direction": study.direction.name.lower(),
        "trials": rows,
        "best": None,
        "importance": _importance(optuna, study) if len(complete) > 3 else None,
    }
    if complete:
        content["best"] = study.best_trial.number
        content["best_run"] = str(_place(folder, study.best_trial.number))
        content["best_settings"] = study.best_params
    with replacing(folder / "tuning.json") as draft:
        draft.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    with replacing(folder / "report.html") as draft:
        draft.write_text(trials_page(content), encoding="utf-8")
    return content


def _importance(optuna: Any, study: Any) -> dict[str, float] | None:
    """Return how much of the differences each setting explains; None where Optuna cannot tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of trials that are equally good
            found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    except (RuntimeError, ValueError):
        return None
    return {path: float(share) for path, share in found.items()}


def trial_lines(content: Mapping[str, Any]) -> list[str]:
    """Return a search as lines for a terminal."""
    done = [row for row in content["trials"] if row["value"] is not None]
    if content["best"] is None:
        return [f"no trial has ended yet; {len(content['trials'])} failed or were cut off"]
    better = sorted(done, key=lambda row: row["value"] if content["direction"] == "minimize" else -row["value"])
    lines = [f"{len(done)} trials, best by {content['metric']}:"]
    for row in better[:10]:
        settings = "  ".join(f"{path}={_short(value)}" for path, value in row["settings"].items())
        lines.append(f"  {row['value']:.4g}  trial {row['number']} ({row['state']}): {settings}")
    return [*lines, f"the best run: {content['best_run']}", f"made again by: heed train {content['best_run']}/config.yaml --to FOLDER"]
