"""The command line of evaluating and comparing."""

import json
import shutil
from pathlib import Path

from toy_runs import Command, ToyData

from heed.run import Run

pytest_plugins = ["toy_runs"]


def test_json_of_an_evaluation_is_one_object_on_stdout_and_nothing_else(command: Command, run_copy: Path, toy_data: ToyData) -> None:
    done = command("evaluate", run_copy, toy_data.test, "--json", "decode.beams=1")
    assert done.out.count("\n") == 1
    scores = json.loads(done.out)
    for name in ("bleu", "chrf", "ter"):
        assert scores[name].keys() == {"value", "low", "high"}
    assert scores["decode"]["beams"] == 1
    assert scores["cost"]["examples"] == 12


def test_an_evaluation_shows_scores_on_stdout(command: Command, run_copy: Path, toy_data: ToyData) -> None:
    done = command("evaluate", run_copy, toy_data.test)
    assert done.out.startswith("bleu ")
    assert "95 % interval" in done.out
    assert "report.html" in done.err


def test_evaluating_on_faulty_data_or_settings_is_one_clear_line(command: Command, run_copy: Path, toy_data: ToyData) -> None:
    assert "no such file" in command("evaluate", run_copy, "no.tsv").complaint
    assert "only data.* and decode.* settings" in command("evaluate", run_copy, toy_data.test, "train.lr=1").complaint


def test_comparing_prints_differences_or_one_json_object(command: Command, toy_run: Run, run_copy: Path, toy_data: ToyData) -> None:
    done = command("compare", toy_run.folder, run_copy, toy_data.test, "--json")
    assert json.loads(done.out)["bleu"]["difference"]["value"] == 0
    assert done.out.count("\n") == 1
    assert "no difference shown" in command("compare", toy_run.folder, run_copy, toy_data.test).out


def test_a_run_folder_that_may_not_be_written_is_one_clear_line(command: Command, run_copy: Path, toy_data: ToyData) -> None:
    shutil.rmtree(run_copy / "evaluations")
    (run_copy / "evaluations").write_text("in the way")
    assert "evaluations" in command("evaluate", run_copy, toy_data.test).complaint


def test_evaluating_counts_the_bad_rows_it_skips(run_copy: Path, tmp_path: Path, command: Command) -> None:
    data = tmp_path / "data.tsv"
    data.write_text("source\ttarget\nthe dog\tder Hund\nthe cat\t\n", encoding="utf-8")
    done = command("evaluate", run_copy, data, "data.bad_rows=skip", "--json")
    assert json.loads(done.out)["bad_rows"]["skipped"] == 1


def test_evaluating_refuses_data_settings_that_it_would_ignore(run_copy: Path, toy_data: ToyData, command: Command) -> None:
    assert "data.max_length: would be ignored" in command("evaluate", run_copy, toy_data.test, "data.max_length=3").complaint
