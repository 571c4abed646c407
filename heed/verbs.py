"""What the command line and Python share: one function for each verb, from run folders to results."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from heed.evaluation import compare_runs, evaluate_run, score_lines
from heed.report import write_report
from heed.run import Run, read_config
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
    return _conclude(run, _sayer(quiet))


def resume(folder: str | Path, *, quiet: bool = False) -> Run:
    """Go on exactly where a run stopped, and conclude as `train` does; raises HeedError."""
    return _conclude(fit_on(Path(folder), quiet=quiet), _sayer(quiet))


def evaluate(folder: Path, source: str, pairs: Sequence[str] = ()) -> dict[str, Any]:
    """Score a run on data, keep the result in its folder and refresh its report."""
    scores = evaluate_run(Run.load(folder), source, pairs)
    write_report(folder)
    return scores


def compare(folder_a: Path, folder_b: Path, source: str, pairs: Sequence[str] = ()) -> dict[str, Any]:
    """Test on the same examples whether two runs differ."""
    return compare_runs(Run.load(folder_a), Run.load(folder_b), source, pairs)


def conclusion(run: Run) -> list[str]:
    """Return what a person wants to know when training has ended, as lines for a terminal."""
    lines = []
    for name in ("valid", "test"):
        path = run.folder / "evaluations" / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            lines += [f"{name}: {content['data']}", *(f"  {line}" for line in score_lines(content))]
    return [*lines, f"run folder: {run.folder}", f"report: {run.folder / 'report.html'}"]


def _conclude(run: Run, say: Callable[[str], None]) -> Run:
    data = read_config(run.folder).data
    for name, source in (("valid", data.valid), ("test", data.test)):
        if source is not None:
            say(f"scoring {source}")
            evaluate_run(run, source, name=name)
    write_report(run.folder)
    return run


def _sayer(quiet: bool) -> Callable[[str], None]:
    return (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))  # noqa: T201 (progress)
