"""Interrupting real processes: whatever ends them, the run that was resumed is the run that was not interrupted."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_runs import TINY, ToyData, Train, as_arguments

from heed.errors import CheckpointError
from heed.files import held, sha256
from heed.run import verify
from heed.training.checkpoint import checkpoints
from heed.training.train import fit_on

pytest_plugins = ["toy_runs"]

# Runs the command line, and sends the process a signal in the middle of an update.
DRIVER = """
import os, sys
from heed import cli
from heed.training.trainer import Trainer

number, at = int(os.environ["SIGNAL"]), int(os.environ["AT"])
scale = Trainer._scale_gradients

def struck(trainer, units):
    if trainer.progress.step + 1 == at:
        os.kill(os.getpid(), number)
    return scale(trainer, units)

Trainer._scale_gradients = struck
cli.main()
"""
SETTINGS = {
    **TINY,
    "train": {**TINY["train"], "steps": 23, "accumulate": 2, "evaluate_every": 5, "checkpoint_every": 4, "average": 2, "precision": "auto"},
    "model": {**TINY["model"], "dropout": 0.2},
}


def heed_process(folder: Path, *arguments: str, signal: int | None = None, at: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run a command in `folder`, in a process of its own."""
    start = ["-m", "heed.cli"] if signal is None else ["-c", DRIVER]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SIGNAL": str(signal or 0), "AT": str(at)}
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def repeatable(folder: Path) -> list[dict[str, Any]]:
    """Return metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "units_per_second", "tokens_per_second")} for line in lines
    ]


def test_a_run_that_was_killed_and_interrupted_ends_with_the_bits_of_one_that_was_not(tmp_path: Path, toy_data: ToyData) -> None:
    train = ["train", "translation", *as_arguments(SETTINGS), f"data.train={toy_data.train}", "--to", "run"]
    straight = heed_process(tmp_path / "straight", *train)
    assert straight.returncode == 0, straight.stderr

    killed = heed_process(tmp_path / "broken", *train, signal=9, at=10)
    assert killed.returncode == -9
    interrupted = heed_process(tmp_path / "broken", "train", "--resume", "run", signal=2, at=17)
    assert interrupted.returncode == 130
    assert "resuming after step 8" in interrupted.stderr
    assert "heed train --resume run" in interrupted.stderr.splitlines()[-1]
    assert "Traceback" not in interrupted.stderr
    resumed = heed_process(tmp_path / "broken", "train", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after step 17" in resumed.stderr

    expected, found = tmp_path / "straight" / "run", tmp_path / "broken" / "run"
    epochs = [line["epoch"] for line in repeatable(expected) if "epoch" in line]
    assert epochs[7] % 1 > 0  # both stops are in the middle of an epoch, the second beyond the first
    assert epochs[16] % 1 > 0
    assert epochs[16] > 1
    assert sha256(found / "model.safetensors") == sha256(expected / "model.safetensors")
    assert sha256(found / "manifest.json") == sha256(expected / "manifest.json")
    assert repeatable(found) == repeatable(expected)


def test_a_run_killed_before_its_first_checkpoint_starts_over(train: Train, tmp_path: Path) -> None:
    whole = train("whole")
    folder = shutil.copytree(whole.folder, tmp_path / "early")
    for name in ("checkpoints", "store", "evaluations"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("model.safetensors", "manifest.json", "metrics.jsonl", "data_report.json"):
        (folder / name).unlink()
    fit_on(folder, quiet=True)
    assert sha256(folder / "model.safetensors") == sha256(whole.folder / "model.safetensors")
    assert (folder / "data_report.json").is_file()
    verify(folder)


def test_resuming_a_finished_run_changes_nothing(train: Train) -> None:
    run = train(train={"average": 2, "evaluate_every": 5})
    before = {name: sha256(run.folder / name) for name in ("model.safetensors", "manifest.json")}
    lines = repeatable(run.folder)
    fit_on(run.folder, quiet=True)
    assert {name: sha256(run.folder / name) for name in before} == before
    assert repeatable(run.folder) == lines


def test_a_damaged_newest_checkpoint_costs_its_steps_only(train: Train, capfd: pytest.CaptureFixture[str]) -> None:
    run = train(train={"checkpoint_every": 4, "steps": 24, "keep": 4})
    expected = sha256(run.folder / "model.safetensors")
    newest, before, *_ = checkpoints(run.folder / "checkpoints")
    (newest / "optimizer.safetensors").write_bytes(b"torn")
    fit_on(run.folder, quiet=False)
    said = capfd.readouterr().err
    assert f"not used: {newest}: optimizer.safetensors was changed or damaged" in said
    assert f"resuming after step {int(before.name[5:])}" in said
    assert sha256(run.folder / "model.safetensors") == expected


def test_resuming_on_another_machine_says_what_may_differ(train: Train, capfd: pytest.CaptureFixture[str]) -> None:
    run = train()
    fit_on(run.folder, quiet=False)
    assert "may differ" not in capfd.readouterr().err
    place = checkpoints(run.folder / "checkpoints")[0] / "state.json"
    state = json.loads(place.read_text())
    place.write_text(json.dumps(state | {"machine": {**state["machine"], "threads": 64}}))
    fit_on(run.folder, quiet=False)
    assert "may differ in their last bits" in (said := capfd.readouterr().err)
    assert "threads was 64, is 1" in said


def test_weights_torn_from_their_manifest_are_mended_by_resuming(train: Train) -> None:
    run = train()
    expected = sha256(run.folder / "model.safetensors")
    (run.folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="was changed or damaged"):
        verify(run.folder)
    fit_on(run.folder, quiet=True)
    verify(run.folder)
    assert sha256(run.folder / "model.safetensors") == expected


def test_a_run_whose_checkpoints_were_deleted_is_not_trained_over(train: Train) -> None:
    run = train()
    before = sha256(run.folder / "model.safetensors")
    shutil.rmtree(run.folder / "checkpoints")
    with pytest.raises(CheckpointError, match="no whole checkpoint to resume from"):
        fit_on(run.folder, quiet=True)
    assert sha256(run.folder / "model.safetensors") == before


def test_a_run_that_is_being_trained_is_refused_to_a_second_process(train: Train, tmp_path: Path) -> None:
    run = train()
    with held(run.folder):
        second = heed_process(tmp_path, "train", "--resume", str(run.folder))
        assert second.returncode == 1
        assert f"process {os.getpid()} is training in this folder" in second.stderr
        assert "Traceback" not in second.stderr
        forced = heed_process(tmp_path, "train", "translation", "data.train=x.tsv", "--to", str(run.folder), "--force")
        assert f"process {os.getpid()} is training in this folder" in forced.stderr
        verify(run.folder)
    fit_on(run.folder, quiet=True)


def test_changed_data_is_allowed_when_asked_and_noted_in_the_metrics(train: Train, toy_data: ToyData, tmp_path: Path) -> None:
    data = Path(shutil.copy(toy_data.train, tmp_path / "mine.tsv"))
    run = train(data={"train": str(data)}, train={"steps": 4})
    with data.open("a", encoding="utf-8") as file:
        file.write("the dog\tder Hund\n")
    refused = heed_process(tmp_path, "train", "--resume", str(run.folder))
    assert refused.returncode == 1
    assert "mine.tsv: changed since this run was started" in refused.stderr
    allowed = heed_process(tmp_path, "train", "--resume", str(run.folder), "--allow-changed-data")
    assert allowed.returncode == 0, allowed.stderr
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["changed_data"] for line in lines if "changed_data" in line] == [["train"]]


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match="not a run folder"):
            fit_on(folder, quiet=True)
    assert list(tmp_path.iterdir()) == []
