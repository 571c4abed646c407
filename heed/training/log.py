"""What training says while it runs: metrics.jsonl, TensorBoard events, and a progress bar or plain lines on stderr."""

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from heed.errors import MissingExtra
from heed.files import explain_full_disk, parse_json, replacing


class TrainingLog:
    """Writes one line per logged step and per evaluation, everywhere at once."""

    def __init__(self, folder: Path, *, tensorboard: bool | None, quiet: bool = False) -> None:
        self.path = folder / "metrics.jsonl"
        self.console = Console(stderr=True, quiet=quiet)
        self.events = _open_events(folder, tensorboard)
        self.bar: Progress | None = None
        self.bar_task = TaskID(0)

    def __enter__(self) -> Self:
        if self.console.is_terminal and not self.console.quiet:
            columns = [
                TextColumn("{task.fields[place]}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
            ]
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar_task = self.bar.add_task("train", total=None, place="", figures="", visible=False)
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()
        if self.events is not None:
            self.events.close()

    def say(self, text: str) -> None:
        """Print a line for the person watching."""
        self.console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def record(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl and its numbers to TensorBoard."""
        with explain_full_disk(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.events is not None:
            for name, value in _flat(line):
                self.events.add_scalar(name, value, line["step"])

    def progress(self, step: int, total: int | None, line: dict[str, Any], *, plain: bool, token_name: str = "tokens") -> None:
        """Show a step's figures: on the bar at every call, as a plain line when `plain`; tokens are called by the name that is given."""
        accuracy = f"acc {line['accuracy']:.3f}  " if "accuracy" in line else ""
        speed = f"{line['tokens_per_second']:,.0f} {token_name}/s"
        figures = f"loss {line['loss']:.3f}  {accuracy}{speed}  pad {line['padding']:.1%}"
        place = f"step {step:,}/{total:,}" if total else f"step {step:,}"  # how many fit into train.minutes is not known at first
        if self.bar is not None:
            self.bar.update(self.bar_task, completed=step, total=total, place=place, figures=figures, visible=True)
        elif plain:
            self.say(f"{place}  {figures}  {line['seconds']:.0f} s")

    def rewind(self, step: int) -> None:
        """Drop what was written after the checkpoint of `step`, from which training goes on: later steps, and the average at the end."""
        if not self.path.is_file():
            return
        with (
            replacing(self.path) as draft,
            self.path.open(encoding="utf-8", errors="replace") as old,
            draft.open("w", encoding="utf-8") as new,
        ):
            new.writelines(line for line in old if _step_of(line) <= step)


def _step_of(line: str) -> float:
    try:
        content = parse_json(line)
        return math.inf if "average" in content else float(content["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line torn by a crash


def _flat(line: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    flat = []
    for key, value in line.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "step":
            flat.append((f"{prefix}{key}", float(value)))
    return flat


def _open_events(folder: Path, wanted: bool | None) -> Any:
    if wanted is False:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if wanted:
            raise MissingExtra("tensorboard", "tensorboard", "train.tensorboard=true") from error
        return None
    return SummaryWriter(str(folder / "tensorboard"))
