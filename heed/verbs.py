"""What the command line and Python share: one function for each verb, from run folders to results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from heed.errors import DataError
from heed.evaluation import calibrate, compare_runs, evaluate_run, score_lines
from heed.files import parse_json
from heed.report import write_report
from heed.run import Run, read_config
from heed.terminal import sayer
from heed.training.division import scored_rows, tested_rows, validation_rows
from heed.training.plan import Plan, make_plan
from heed.training.train import fit_on, fit_recipe


def train(recipe: str | Mapping[str, Any], *, to: str | Path, force: bool = False, quiet: bool = False, **settings: Any) -> Run:
    """Train a model, score it on its validation data (and test data, if given), and write its report.

    Args:
        recipe: a YAML file, the name of one that ships, a task's name, or settings as a mapping.
        to: the run folder to make; one that exists is refused unless `force`.
        quiet: no progress on stderr.
        settings: groups of settings laid over the recipe, such as data={"train": "pairs.tsv"}, seed=2.
    Raises:
        HeedError: a setting, the data or the folder is at fault, or training could not go on.
    """
    return train_with(recipe, settings, to=to, force=force, quiet=quiet)


def train_with(
    recipe: str | Mapping[str, Any], settings: Mapping[str, Any], *, to: str | Path, force: bool = False, quiet: bool = False
) -> Run:
    """Do what `train` does, with the settings as one mapping, so that no name of a setting meets an argument's."""
    run = fit_recipe(recipe, settings, Path(to), force=force, quiet=quiet)
    return conclude(run, quiet=quiet)


def resume(folder: str | Path, *, quiet: bool = False, trust: bool = False, allow_changed_data: bool = False) -> Run:
    """Go on exactly where a run stopped, and conclude as `train` does; raises HeedError.

    Args:
        trust: whether a task that is not part of heed may be imported.
        allow_changed_data: whether to go on when a data file changed meanwhile; the run remembers it.
    """
    return conclude(fit_on(Path(folder), quiet=quiet, trust=trust, allow_changed_data=allow_changed_data), quiet=quiet)


def plan(recipe: str | Mapping[str, Any], settings: Mapping[str, Any]) -> Plan:
    """Say what training would take, by making a few of its steps in a folder that is thrown away; raises HeedError."""
    return make_plan(recipe, settings)


def evaluate(folder: Path, source: str, pairs: Sequence[str] = (), *, trust: bool = False, robust: bool = False) -> dict[str, Any]:
    """Score a run on data (and on it with disturbances such as noise, if that is asked for), keep the result and refresh its report."""
    scores = evaluate_run(Run.load(folder, trust=trust), source, pairs, robust=robust)
    write_report(folder)
    return scores


def compare(folder_a: Path, folder_b: Path, source: str, pairs: Sequence[str] = (), *, trust: bool = False) -> dict[str, Any]:
    """Test on the same examples whether two runs differ."""
    return compare_runs(Run.load(folder_a, trust=trust), Run.load(folder_b, trust=trust), source, pairs)


def conclusion(run: Run) -> list[str]:
    """Return what a person wants to know when training has ended, as lines for a terminal."""
    lines = []
    for name in ("valid", "test"):
        path = run.folder / "evaluations" / f"{name}.json"
        if path.is_file():
            content = parse_json(path.read_text(encoding="utf-8"))
            lines += [f"{name}: {content['data']}", *(f"  {line}" for line in score_lines(content))]
    return [*lines, f"run folder: {run.folder}", f"report: {run.folder / 'report.html'}"]


def conclude(run: Run, *, quiet: bool = False, test: bool = True) -> Run:
    """Calibrate a trained run, score it on its validation data and, unless that is not to be looked at, its test data; write its report."""
    say = sayer(quiet)
    data = read_config(run.folder).data
    _calibrate(run, say)
    held_out = {"valid": (f"held out of {data.train}", scored_rows(run))}
    if test:
        held_out["test"] = f"fold {data.fold} of {data.folds} of {data.train}", tested_rows(run)
    for name, (words, examples) in held_out.items():
        if examples is not None:
            say(f"scoring the {name} examples: {words}")
            evaluate_run(run, words, name=name, examples=examples)
    for name, source in (("valid", data.valid), ("test", data.test if test else None)):
        if source is not None:
            say(f"scoring {source}")
            _score_if_there(run, source, name, say)
    write_report(run.folder)
    return run


def _calibrate(run: Run, say: Callable[[str], None]) -> None:
    """Fit what is fitted on validation data, if they are still there."""
    if not run.task.calibrates:
        return
    try:
        calibrate(run, validation_rows(run))
    except DataError as error:
        say(f"not calibrated: {error}")


def _score_if_there(run: Run, source: str, name: str, say: Callable[[str], None]) -> None:
    """Score data that was named before training; when it has gone meanwhile, say so and keep what was trained."""
    try:
        evaluate_run(run, source, name=name)
    except DataError as error:
        say(f"not scored: {error}")
