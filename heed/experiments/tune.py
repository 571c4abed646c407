"""Tuning: a search over settings with Optuna, tree-structured Parzen estimators and successive halving (Akiba et al. 2019).

A recipe names what may vary under `search`: a list of values, or {low, high} with log: true where a factor counts rather than a difference.
Every trial is a run folder, whose config.yaml makes the same run again. Test data are never looked at.
"""

import datetime
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from heed import verbs
from heed.config import Settings, find_recipe, merge, read_yaml, validate
from heed.device import describe_machine
from heed.errors import ConfigError, HeedError, MissingExtra, TrainingError
from heed.experiments.records import Json, check_begin, check_data, experiment, record_of
from heed.files import read_metrics, replacing
from heed.metrics import LESS_IS_BETTER
from heed.report.trials import trials_page
from heed.run import Run, RunConfig, resolve
from heed.terminal import sayer
from heed.training.train import fit_recipe

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
    """Return what may vary, by dotted path: a list of values or a `Range`; what heed suggests when nothing is said.

    A setting with a value of its own in `settings` no longer varies.
    Raises:
        ConfigError: a setting has a value and a search in `settings`, or nothing is left that varies.
    """
    content: Any = recipe
    if isinstance(recipe, str):
        file = find_recipe(recipe)
        content = {} if file is None else read_yaml(file)
    asked = dict(_flat(settings.get("search") or {}))
    for path in asked:
        if (given := _value_at(settings, path)) is not None:
            raise ConfigError(f"{path}={given} and search.{path} exclude each other: a setting has one value, or varies")
    suggested = dict(_flat(content.get("search") or {})) or (dict(_flat(USUAL_SEARCH)) if not asked else {})
    found = {path: choices for path, choices in {**suggested, **asked}.items() if _value_at(settings, path) is None}
    if not found:
        raise ConfigError(f"search: nothing is left that varies: {', '.join(suggested)} given as values; name another setting in search")
    return found


def _value_at(settings: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path of nested settings; None when it has none."""
    value: Any = settings
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


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
        ConfigError: the space holds an unknown setting or a value that does not fit, or `folder` holds something else.
        DataError: the data changed since an earlier call.
        TrainingError: another process is at work in `folder`.
    """
    optuna = _optuna()
    space = search_space(recipe, settings)
    fixed = {name: value for name, value in settings.items() if name != "search"}
    fixed = merge(fixed, {"data": {"test": None}})
    config = _check(recipe, fixed, space)
    record = record_of(config, search=_told(space))
    record["data_sha256"] = {split: files for split, files in record["data_sha256"].items() if f"data.{split}" not in space}
    with experiment(folder, record):
        study = _study(optuna, folder, config)
        search = _Search(optuna, study, recipe, fixed, space, folder, record, config.train.best_metric, sayer(quiet))
        search.take_up_again()
        for _ in range(trials - search.n_done):
            search.try_one()
            search.write()
        content = search.write()
        if content["best"] is not None:
            verbs.conclude(Run.load(content["best_run"]), quiet=quiet, test=False)
    return content


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtra("optuna", "tune", "heed tune") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: Any, folder: Path, config: RunConfig) -> Any:
    """Begin a study, or open the one that is there."""
    study = optuna.create_study(
        study_name="heed",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))),
        load_if_exists=True,
        direction="minimize" if config.train.best_metric in LESS_IS_BETTER else "maximize",
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
    )
    # Another seed for every call, or a search that goes on would draw the same again.
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    return study


def _check(recipe: str | Mapping[str, Any], fixed: Mapping[str, Any], space: Mapping[str, Any]) -> RunConfig:
    """Refuse a space that holds settings no run could have, before any trial."""
    for path, choices in space.items():
        values = choices if isinstance(choices, list) else [choices.low, choices.high]
        for value in values:
            resolve(recipe, merge(fixed, _nested(path, value)))
    config = resolve(recipe, fixed)
    check_begin(config, varied=space)
    return config


def _nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def _told(space: Mapping[str, Any]) -> dict[str, Any]:
    return {path: choices if isinstance(choices, list) else choices.model_dump() for path, choices in space.items()}


@dataclass(frozen=True)
class _Search:
    """A search that is under way.

    Attributes:
        recipe, fixed: what all trials share: the recipe, and the settings laid over it.
        space: what varies.
        record: what the folder remembers of the experiment.
        metric: which validation figure is searched by.
        say: tells of progress.
    """

    optuna: Any
    study: Any
    recipe: str | Mapping[str, Any]
    fixed: Mapping[str, Any]
    space: Mapping[str, Any]
    folder: Path
    record: Json
    metric: str
    say: Callable[[str], None]

    def place(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.folder / f"trial-{number:03}"

    @property
    def n_done(self) -> int:
        """Trials that have come to an end of their own."""
        states = (self.optuna.trial.TrialState.COMPLETE, self.optuna.trial.TrialState.PRUNED)
        return len(self.study.get_trials(states=states))

    def take_up_again(self) -> None:
        """Give trials that were cut off back to the queue."""
        for trial in self.study.get_trials(states=(self.optuna.trial.TrialState.RUNNING,)):
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            shutil.rmtree(self.place(trial.number), ignore_errors=True)
            self.study.enqueue_trial(trial.params)

    def try_one(self) -> None:
        """Make one trial; raises DataError when it found other data than the search was begun with."""
        trial = self.study.ask()
        chosen = {path: _suggest(trial, path, choices) for path, choices in self.space.items()}
        self.say(f"trial {trial.number}: " + "  ".join(f"{path}={_short(value)}" for path, value in chosen.items()))
        place = self.place(trial.number)
        try:
            pruned = self._train(trial, chosen, place)
        except (TrainingError, ConfigError) as error:
            self._failed(trial, error)
            return
        check_data(place, self.record)
        value, seconds = _outcome(place, self.metric)
        trial.set_user_attr("seconds", seconds)
        trial.set_user_attr("value", value)
        states = self.optuna.trial.TrialState
        self.study.tell(trial, None if pruned else value, state=states.PRUNED if pruned else states.COMPLETE)
        shutil.rmtree(place / "checkpoints", ignore_errors=True)
        self.say(f"  {'pruned' if pruned else 'complete'}: {value:.4g} after {seconds:.0f} s")

    def _train(self, trial: Any, chosen: Mapping[str, Any], place: Path) -> bool:
        """Train with the settings that were chosen; returns whether it was stopped for doing worse than others."""
        settings: dict[str, Any] = dict(self.fixed)
        for path, value in chosen.items():
            settings = merge(settings, _nested(path, value))
        pruned = False

        def stop(n_evaluations: int, value: float) -> bool:
            nonlocal pruned
            trial.report(value, n_evaluations)
            pruned = bool(trial.should_prune())
            return pruned

        fit_recipe(self.recipe, settings, place, force=False, quiet=True, stop=stop)
        return pruned

    def _failed(self, trial: Any, error: HeedError) -> None:
        """Note a trial that could not be trained; raises HeedError when none of the first ones could."""
        states = self.optuna.trial.TrialState
        trial.set_user_attr("error", str(error))
        self.study.tell(trial, state=states.FAIL)
        if not any(done.state == states.COMPLETE for done in self.study.trials) and trial.number >= 2:
            raise HeedError(f"tune: no trial could be trained; the last one: {error}") from error

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield what there is to tell of every trial that has ended."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        for trial in self.study.trials:
            told = trial.user_attrs
            if trial.state.name in names and (trial.state.name != "FAIL" or "error" in told):
                yield {
                    "number": trial.number,
                    "state": names[trial.state.name],
                    "value": told.get("value"),
                    "settings": trial.params,
                    "seconds": told.get("seconds"),
                    "run": str(self.place(trial.number)),
                    "error": told.get("error"),
                }

    def write(self) -> dict[str, Any]:
        """Write tuning.json and the page."""
        rows = list(self._rows())
        n_complete = sum(row["state"] == "complete" for row in rows)
        content: dict[str, Any] = {
            "recipe": self.recipe if isinstance(self.recipe, str) else "settings",
            "data": self.record["settings"]["data"]["train"],
            "date": datetime.date.today().isoformat(),
            "machine": describe_machine(),
            "metric": self.metric,
            "direction": self.study.direction.name.lower(),
            "space": _told(self.space),
            "trials": rows,
            "best": None,
            "importance": _importance(self.optuna, self.study) if n_complete > 3 else None,
        }
        if n_complete:
            best = self.study.best_trial.number
            content |= {"best": best, "best_run": str(self.place(best)), "best_settings": self.study.best_params}
        with replacing(self.folder / "tuning.json") as draft:
            draft.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        with replacing(self.folder / "report.html") as draft:
            draft.write_text(trials_page(content), encoding="utf-8")
        return content


def _suggest(trial: Any, path: str, choices: Any) -> Any:
    if isinstance(choices, list):
        return trial.suggest_categorical(path, choices)
    if isinstance(choices.low, int) and isinstance(choices.high, int):
        return trial.suggest_int(path, choices.low, choices.high, step=int(choices.step or 1), log=choices.log)
    return trial.suggest_float(path, choices.low, choices.high, log=choices.log, step=choices.step)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _outcome(place: Path, metric: str) -> tuple[float, float]:
    """Return the best validation value of a run, and its seconds."""
    lines = list(read_metrics(place))
    best = next(line for line in reversed(lines) if line.get("best"))
    return float(best["valid"][metric]), max(line.get("seconds", 0.0) for line in lines)


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
