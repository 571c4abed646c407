import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from heed.training.log import TrainingLog

FIGURES = {"loss": 2.5, "accuracy": 0.25, "tokens_per_second": 1234.0, "padding": 0.125, "seconds": 3.0}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_record_is_one_line_of_json(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, tensorboard=False, quiet=True) as log:
        log.record({"step": 1, "loss": 2.0})
        log.record({"step": 2, "valid": {"loss": 1.5}})
    assert lines_of(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.0}, {"step": 2, "valid": {"loss": 1.5}}]


def test_rewinding_drops_what_a_checkpoint_does_not_know_of(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, tensorboard=False, quiet=True)
    kept: list[dict[str, Any]] = [{"step": 1, "loss": 2.0}, {"step": 5, "loss": 1.0}, {"step": 5, "valid": {"loss": 1.0}}]
    for line in [*kept, {"step": 6, "loss": 0.5}, {"step": 5, "average": {"checkpoints": 2, "loss": 0.9}}]:
        log.record(line)
    with log.path.open("ab") as file:
        file.write(b'{"step": 2, "lo\xff')  # torn by a crash
    log.rewind(5)
    assert lines_of(log.path) == kept


def test_rewinding_drops_lines_that_cannot_be_read(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, tensorboard=False, quiet=True) as log:
        log.record({"step": 1})
        with log.path.open("a") as file:
            file.write("[" * 100_000 + "\n" + '{"step": 2')
        log.rewind(5)
        assert log.path.read_text() == '{"step": 1}\n'


def test_rewinding_before_anything_was_written_is_no_error(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, tensorboard=False, quiet=True)
    log.rewind(5)
    assert not log.path.exists()


def test_what_is_counted_is_called_by_its_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(tmp_path, tensorboard=False) as log:
        log.progress(3, 10, FIGURES, plain=True, token_name="labels")
    assert " 1,234 labels/s " in capfd.readouterr().err


def test_away_from_a_terminal_progress_is_plain_lines_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(tmp_path, tensorboard=False) as log:
        log.progress(3, 10, FIGURES, plain=False)
        log.progress(4000, 10_000, FIGURES, plain=True)
        log.progress(5000, None, FIGURES, plain=True)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "step 4,000/10,000  loss 2.500  acc 0.250  1,234 tokens/s  pad 12.5%  3 s",
        "step 5,000  loss 2.500  acc 0.250  1,234 tokens/s  pad 12.5%  3 s",
    ]


def test_the_bar_of_a_terminal_can_be_drawn_before_the_number_of_steps_is_known(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, tensorboard=False)
    screen = io.StringIO()
    log.console = Console(file=screen, force_terminal=True, width=120)
    with log:
        for total in (None, 10):
            log.progress(3, total, FIGURES, plain=False)
            assert log.bar is not None
            log.bar.refresh()
    assert "step 3 " in screen.getvalue()
    assert "step 3/10" in screen.getvalue()


def test_a_task_without_accuracy_can_be_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(tmp_path, tensorboard=False) as log:
        log.progress(4, 10, {key: value for key, value in FIGURES.items() if key != "accuracy"}, plain=True)
    assert "loss 2.500  1,234 tokens/s" in capfd.readouterr().err


def test_quiet_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingLog(tmp_path, tensorboard=False, quiet=True) as log:
        log.say("hello")
        log.progress(4, 10, FIGURES, plain=True)
    assert capfd.readouterr() == ("", "")


def test_text_is_said_as_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text = "[bold]a[/bold] :smile: " + "long " * 40
    with TrainingLog(tmp_path, tensorboard=False) as log:
        log.say(text)
    assert capfd.readouterr().err == f"{text}\n"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_is_given_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with TrainingLog(tmp_path, tensorboard=True, quiet=True) as log:
        log.record({"step": 7, "loss": 2.0, "valid": {"loss": 1.5}, "best": True})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {"loss": [(7, 2.0)], "valid/loss": [(7, 1.5)], "best": [(7, 1.0)]}
