"""What a training run would take: some of its updates are made, in a folder that is thrown away, and measured."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from heed.data.order import Rows
from heed.device import choose_device, keep_memory, peak_memory_mib
from heed.model.describe import count_parameters
from heed.run import resolve
from heed.tasks.split import Split
from heed.training.checkpoint import save_checkpoint
from heed.training.log import TrainingLog
from heed.training.prepare import prepare
from heed.training.trainer import Trainer

WARM, MOST_TIMED, LONGEST = 2, 60, 45.0  # updates, updates, seconds: memory in use still grows over the first hundred of them
ANSWERED = 512  # validation examples, answered as after training


@dataclass(frozen=True)
class Plan:
    """What was found."""

    parameters: int
    examples: int
    steps: int | None  # None: as many as fit into train.minutes
    seconds_per_step: float
    peak_memory_mib: float
    checkpoint_mib: float
    device: str

    def lines(self) -> list[str]:
        """Return it as lines for a terminal."""
        seconds = None if self.steps is None else self.steps * self.seconds_per_step
        took = "as many steps as fit into train.minutes" if seconds is None else f"{self.steps:,} steps in about {spell_time(seconds)}"
        return [
            f"parameters        {self.parameters:,}",
            f"training examples {self.examples:,}",
            f"a step            {self.seconds_per_step:.3g} s on {self.device}",
            f"training          {took}, without reading and scoring the data",
            f"peak memory       {self.peak_memory_mib:,.0f} MiB",
            f"a checkpoint      {self.checkpoint_mib:,.1f} MiB on disk",
        ]


def make_plan(recipe: str | Mapping[str, Any], settings: Mapping[str, Any]) -> Plan:
    """Make a few steps of what a recipe and the settings laid over it describe, and measure them; raises what training would."""
    config = resolve(recipe, settings)
    device = choose_device(config.train.device)
    with tempfile.TemporaryDirectory(prefix="heed-plan-") as name:
        folder = Path(name)
        with TrainingLog(folder, tensorboard=False) as log:
            keep_memory()
            trainer = Trainer(prepare(config, folder, log.say), log)
            largest, groups = _groups(trainer)
            log.say(f"trying up to {1 + WARM + MOST_TIMED} updates in a folder that is thrown away")
            with trainer.threads():
                trainer.update(largest)  # which needs most memory, and warms up
                seconds = _timed(trainer, cycle(groups))
                trainer.validate()
            place = save_checkpoint(folder / "checkpoints", trainer.model, trainer.optimizer, trainer.progress)
            _answer(trainer)
        size = sum(path.stat().st_size for path in place.iterdir()) / 2**20
        return Plan(
            count_parameters(trainer.model),
            len(trainer.train_data),
            trainer.progress.total_steps,
            seconds,
            peak_memory_mib(device),
            size,
            str(device),
        )


def _timed(trainer: Trainer, groups: Iterator[list[Rows]]) -> float:
    """Return how many seconds an update takes, once some were made."""
    for group in islice(groups, WARM):
        trainer.update(group)
    begun, n_timed = time.perf_counter(), 0
    while not n_timed or (n_timed < MOST_TIMED and time.perf_counter() - begun < LONGEST):
        trainer.update(next(groups))
        n_timed += 1
    return (time.perf_counter() - begun) / n_timed


def _groups(trainer: Trainer) -> tuple[list[Rows], list[list[Rows]]]:
    """Return the update of the epoch with the most tokens in a micro-batch, and a fair sample of all updates."""
    groups = trainer.epoch(0)
    n_places, lengths = trainer.task.layout.n_places, trainer.lengths
    largest = max(groups, key=lambda group: max(n_places(lengths, rows) for rows in group))
    return largest, groups[: WARM + MOST_TIMED]  # they come in no order


def _answer(trainer: Trainer) -> None:
    """Answer some validation examples, as is done when training has ended."""
    run = trainer.run
    trainer.model.eval()
    data = run.config.data
    source = Split(str(data.valid or data.train), data, run.task)
    list(replace(run, task=run.task.examiner).answers(islice(source, ANSWERED), run.config.decode))


def spell_time(seconds: float) -> str:
    """Return a duration as a person would say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
