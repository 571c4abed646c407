"""The command line of crossvalidate, tune and compare-models."""

import json
import re
from pathlib import Path

import pytest
from toy_runs import TINY, TINY_TEXTS, Command, ToyData, as_arguments, toy_texts, write_rows

pytest_plugins = ["toy_runs"]


@pytest.mark.parametrize("verb", ["crossvalidate", "tune", "compare-models"])
def test_an_experiment_without_a_recipe_or_with_an_unknown_one_is_one_clear_line(command: Command, tmp_path: Path, verb: str) -> None:
    assert "heed --help" in command(verb).complaint
    assert "heed --help" in command(verb, "text_classification", "--nope").complaint
    assert "text_classfication: no such recipe file" in command(verb, "text_classfication", "--to", tmp_path / "x").complaint
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("verb", "arguments", "expected"),
    [
        ("crossvalidate", ["folds=1"], r"data\.folds: .*found 1"),
        ("crossvalidate", ["folds=many"], r"data\.folds: .*found 'many'"),
        ("crossvalidate", ["fold=2"], r"fold: unknown setting.*data\.fold"),
        ("crossvalidate", ["folds"], "expected key=value"),
        ("crossvalidate", ["data.test=test.tsv"], r"data\.test=test\.tsv: data\.folds=5 holds out a part"),
        ("crossvalidate", ["data.valid=valid.tsv"], r"data\.valid=valid\.tsv: data\.folds=5 holds out a part"),
        ("crossvalidate", ["folds=3", "group=author"], r"data\.group=author: row 1 has no such column among text, label"),
        ("crossvalidate", ["folds=12"], r"data\.folds=12: only \d+ different inputs have the label"),
        ("tune", ["trials=0"], "trials=0: expected a whole number from 1"),
        ("tune", ["trials=some"], "trials=some: expected a whole number from 1"),
        ("tune", ["--trials", "0"], "heed --help"),
        ("tune", ["search.train.lrr=[1,2]"], r"train\.lrr: unknown setting.*did you mean train\.lr\?"),
        ("tune", ["search.model.n_layers=2"], r"search\.model\.n_layers: expected a list of values, or low and high, found 2"),
        ("tune", ["search.train.lr={low: 1}"], r"search\.train\.lr\.high: is not given"),
        ("tune", ["search.model.d_model=[16, 17]"], r"model\.d_model=16 and search\.model\.d_model exclude each other"),
        ("tune", ["search.model.n_kv_heads=[2, 3]"], r"model\.n_kv_heads=3"),
        ("compare-models", ["task.tokens=letters"], r"task\.tokens: .*found 'letters'"),
        ("compare-models", ["folds=3"], r"folds: unknown setting.*data\.folds"),
    ],
)
def test_an_experiment_that_cannot_be_made_is_one_clear_line(
    command: Command, tmp_path: Path, verb: str, arguments: list[str], expected: str
) -> None:
    if verb == "tune":
        pytest.importorskip("optuna")
    train = write_rows(tmp_path / "rows.tsv", toy_texts(24))
    settings = [*as_arguments(TINY_TEXTS), f"data.train={train}"]
    done = command(verb, "text_classification", *settings, *arguments, "--to", tmp_path / "experiment")
    assert re.search(expected, done.complaint)
    assert done.out == ""
    assert not (tmp_path / "experiment").exists()


def test_only_text_classifiers_are_compared_and_never_over_what_is_there(command: Command, tmp_path: Path, toy_data: ToyData) -> None:
    data = f"data.train={toy_data.train}"
    compared = command("compare-models", "translation", *as_arguments(TINY), data, "--to", tmp_path / "kinds")
    assert "compares text classifiers, found task translation" in compared.complaint
    (tmp_path / "kinds").mkdir(exist_ok=True)
    (tmp_path / "kinds" / "notes.txt").write_text("mine")
    compared = command("compare-models", "text_classification", data, "--to", tmp_path / "kinds")
    assert "exists already and is never overwritten" in compared.complaint


def test_folds_are_told_on_stdout_and_progress_on_stderr(command: Command, tmp_path: Path) -> None:
    settings = [*as_arguments(TINY_TEXTS), f"data.train={write_rows(tmp_path / 'rows.tsv', toy_texts(24))}", "folds=2"]
    arguments = ["crossvalidate", "text_classification", *settings, "--to", tmp_path / "folds"]
    done = command(*arguments)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("2 folds of ")
    assert done.out.splitlines()[-1] == f"report: {tmp_path / 'folds' / 'report.html'}"
    assert "fold 1 of 2" in done.err
    found = json.loads(command(*arguments, "--json").out)
    assert [fold["fold"] for fold in found["folds"]] == [1, 2]
    assert {"mean", "sd"} == found["summary"]["accuracy"].keys()
