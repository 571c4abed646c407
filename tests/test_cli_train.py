"""The command line of training: what it prints, refuses and leaves behind when it is stopped."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_runs import TINY, Command, ToyData, as_arguments, toy_pairs, write_pairs

from heed import cli
from heed.data.batch import Batch
from heed.data.parts import Part
from heed.data.rows import Example
from heed.errors import DataError
from heed.files import sha256
from heed.model.losses import LossSum
from heed.model.models import Model
from heed.run import verify
from heed.tasks.translation import Translation
from heed.training.trainer import Trainer

pytest_plugins = ["toy_runs"]

SETTINGS = as_arguments(TINY)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "translation"],
        ["train", "--to", "x"],
        ["train", "--resume", "r", "train.steps=5"],
        ["train", "--resume", "r", "--force"],
    ],
)
def test_half_a_training_command_says_what_is_missing(command: Command, arguments: list[str]) -> None:
    complaint = command(*arguments).complaint
    assert "heed train translation data.train=pairs.tsv --to runs/mine" in complaint or "--resume goes on with the settings" in complaint


def test_training_ends_with_scores_and_the_way_to_the_run_on_stdout_and_progress_on_stderr(
    command: Command, toy_data: ToyData, tmp_path: Path
) -> None:
    done = command("train", "translation", *SETTINGS, *as_arguments({"data": toy_data.both}), "--to", tmp_path / "run")
    assert done.code == 0
    assert done.out.splitlines()[-2:] == [f"run folder: {tmp_path / 'run'}", f"report: {tmp_path / 'run' / 'report.html'}"]
    assert "bleu" in done.out
    assert "step 1/12  loss" in done.err
    assert "loss" not in done.out
    assert "200 training and 30 validation examples" in done.err


def bad_data(kind: str, folder: Path) -> tuple[str, str]:
    """Write data with a fault; return it and what the complaint has to say."""
    good = write_pairs(folder / "pairs.tsv", toy_pairs(30))
    if kind == "missing file":
        return str(folder / "pair.tsv"), rf"pair.tsv: no such file; did you mean {re.escape(str(good))}\?"
    if kind == "missing folder":
        return str(folder / "no" / "pairs.tsv"), "no such file"
    if kind == "unknown column":
        good.write_text(good.read_text().replace("source\ttarget", "english\ttarget"))
        return str(good), "no column 'source'.*data.columns.source="
    if kind == "one side missing":
        good.write_text(good.read_text() + "only english\n")
        return str(good), r"pairs.tsv:32: .*data.bad_rows=skip"
    if kind == "empty side":
        good.write_text(good.read_text() + "only english\t \n")
        return str(good), r"pairs.tsv:32: .*target.* is empty"
    if kind == "sides of different length":
        (folder / "p.en").write_text("a\nb\nc\n")
        (folder / "p.de").write_text("a\nb\n")
        return str(folder / "p.{en,de}"), r"p.{en,de}.* 3 .* 2 "
    if kind == "no text":
        good.write_bytes(bytes(range(256)) * 40)
        return str(good), "pairs.tsv: .*UTF-8"
    if kind == "empty file":
        good.write_bytes(b"")
        return str(good), "pairs.tsv: is empty"
    if kind == "header only":
        good.write_text("source\ttarget\n")
        return str(good), "holds no rows"
    assert kind == "no data format"
    return str(Path(__file__)), "expected .tsv, .csv and .jsonl"


KINDS = ["missing file", "missing folder", "unknown column", "one side missing", "empty side", "sides of different length", "no text"]


@pytest.mark.parametrize("kind", [*KINDS, "empty file", "header only", "no data format"])
def test_faulty_data_is_one_clear_line_and_leaves_no_folder(command: Command, tmp_path: Path, kind: str) -> None:
    source, expected = bad_data(kind, tmp_path)
    done = command("train", "translation", *SETTINGS, f"data.train={source}", "--to", tmp_path / "run")
    assert re.search(expected, done.complaint)
    assert done.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.stepps=5", r"train.stepps: unknown setting.*; did you mean train.steps\?"),
        ("traln.steps=5", "traln.*: unknown setting"),
        ("task.vocabulary=5", r"task.vocabulary: unknown setting.*task.vocab"),
        ("train.steps=ten", r"train.steps: .*found 'ten'"),
        ("train.steps=0", r"train.steps: .*found 0"),
        ("train.lr=-1", r"train.lr: .*found -1"),
        ("model.n_heads=3", "model.n_heads=3 does not divide model.d_model=16"),
        ("data.bad_rows=ignore", r"data.bad_rows: .*'error' or 'skip'.*found 'ignore'"),
        ("train.device=gpu", "train.device: 'gpu' is not a device"),
        ("to=elsewhere", "to: unknown setting"),
        ("quiet=true", "quiet: unknown setting"),
        ("train.steps", "expected key=value"),
        ("task.name=null", r"task.name: expected .*speech_recognition or .*text_classification or"),
    ],
)
def test_a_wrong_setting_is_one_clear_line_and_leaves_no_folder(
    command: Command, toy_data: ToyData, tmp_path: Path, setting: str, expected: str
) -> None:
    done = command("train", "translation", *SETTINGS, f"data.train={toy_data.train}", setting, "--to", tmp_path / "run")
    assert re.search(expected, done.complaint)
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_names_those_that_ship(command: Command, tmp_path: Path) -> None:
    assert "translation" in command("train", "translate", "--to", tmp_path / "run").complaint


def test_debug_shows_where_an_error_comes_from(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["heed", "--debug", "train", "translation", "data.train=no.tsv", "--to", str(tmp_path / "run")])
    with pytest.raises(DataError, match=r"no\.tsv"):
        cli.main()
    done = subprocess.run(
        [sys.executable, "-m", "heed.cli", "predict", "nowhere", "x", "--debug"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "CheckpointError: nowhere" in done.stderr


def test_a_run_that_is_there_is_refused_until_force_replaces_it(command: Command, toy_data: ToyData, run_copy: Path) -> None:
    before = sha256(run_copy / "manifest.json")
    train = ["train", "translation", *SETTINGS, f"data.train={toy_data.train}", "--to", run_copy]
    assert "exists already and is never overwritten" in command(*train).complaint
    assert sha256(run_copy / "manifest.json") == before
    assert "no such file" in command(*train, "data.train=typo.tsv", "--force").complaint
    assert sha256(run_copy / "manifest.json") == before
    assert command(*train, "--force").code == 0
    assert sha256(run_copy / "manifest.json") != before


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Return a function after whose call no file may grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_is_one_clear_line_and_the_last_checkpoint_stays(
    command: Command, toy_data: ToyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Callable[[int], None]
) -> None:
    update = Trainer.update

    def fill_disk(trainer: Trainer, group: list[Any]) -> None:
        update(trainer, group)
        if trainer.progress.step == 7:
            small_disk(6000)

    monkeypatch.setattr(Trainer, "update", fill_disk)
    run = tmp_path / "run"
    done = command("train", "translation", *SETTINGS, f"data.train={toy_data.train}", "train.evaluate_every=4", "--to", run)
    assert "the disk is full" in done.complaint
    assert "heed train --resume" in done.complaint
    verify(run)
    assert [path.name for path in run.rglob(".*")] == [".lock"]  # no drafts


@pytest.mark.parametrize("n_bytes", [100, 8000])  # of the parts, and of the encoded examples
def test_a_disk_too_full_to_begin_is_one_clear_line_and_leaves_no_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Callable[[int], None], n_bytes: int
) -> None:
    data = write_pairs(tmp_path / "pairs.tsv", toy_pairs(900))
    learn = Translation.prepare

    def fill_disk(task: Translation, examples: Iterable[Example]) -> dict[str, Part]:
        small_disk(n_bytes)
        return learn(task, examples)

    monkeypatch.setattr(Translation, "prepare", fill_disk)
    assert "the disk is full" in command("train", "translation", *SETTINGS, f"data.train={data}", "--to", tmp_path / "run").complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_says_how_to_go_on_and_goes_on(
    command: Command, toy_data: ToyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    loss = Translation.loss

    def interrupted(task: Translation, model: Model, batch: Batch) -> LossSum:
        if model.training:
            monkeypatch.setattr(Translation, "loss", loss)
            os.kill(os.getpid(), number)
        return loss(task, model, batch)

    monkeypatch.setattr(Translation, "loss", interrupted)
    run = tmp_path / "my run"
    done = command("train", "translation", *SETTINGS, f"data.train={toy_data.train}", "--to", run)
    assert done.code == 128 + number
    assert done.err.splitlines()[-1].endswith(f"heed train --resume {run}")
    assert "Traceback" not in done.err
    assert done.out == ""
    resumed = command("train", "--resume", run)
    assert resumed.code == 0
    assert "resuming after step 1" in resumed.err
    assert "run folder" in resumed.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_preparations_leaves_nothing_behind(
    command: Command, toy_data: ToyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(Translation, "prepare", lambda task, examples: os.kill(os.getpid(), number))
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs deaf to it
    try:
        done = command("train", "translation", *SETTINGS, f"data.train={toy_data.train}", "--to", tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, ours)
    assert done.code == 128 + number
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_too_long_examples_are_counted_and_said(command: Command, toy_data: ToyData, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "p.tsv", [*toy_pairs(40), {"source": "dog " * 99, "target": "Hund"}])
    data = [f"data.train={path}", f"data.valid={toy_data.valid}", "data.max_length=40"]
    done = command("train", "translation", *SETTINGS, *data, "--to", tmp_path / "run")
    assert done.code == 0
    assert "1 training example longer than data.max_length=40 tokens: left out" in done.err


def test_a_diverging_training_is_one_clear_line(command: Command, toy_data: ToyData, tmp_path: Path) -> None:
    wild = ["train.lr=1e18", "train.warmup=0", "train.clip=0", "train.schedule=constant", "train.steps=100"]
    done = command("train", "translation", *SETTINGS, *wild, f"data.train={toy_data.train}", "--to", tmp_path / "run")
    assert re.search(r"step \d+: the .* is (nan|inf).*training examples \d+.*learning rate", done.complaint)


def test_training_without_validation_data_scores_the_examples_it_held_out(toy_data: ToyData, tmp_path: Path, command: Command) -> None:
    done = command("train", "translation", *as_arguments(TINY), f"data.train={toy_data.train}", "--to", tmp_path / "run")
    assert done.code == 0, done.err
    assert "valid: held out of" in done.out
    assert "bleu" in done.out
    scored = json.loads((tmp_path / "run" / "evaluations" / "valid.json").read_text())
    assert scored["n"] == json.loads((tmp_path / "run" / "data_report.json").read_text())["examples"]["valid"]
