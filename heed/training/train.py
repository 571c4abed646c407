"""From a recipe to trained weights in a run folder, and on from where a run stopped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heed.device import choose_device, keep_memory
from heed.files import explain_full_disk, held
from heed.model.describe import count_parameters
from heed.run import Run, new_folder, read_config, resolve
from heed.training.checkpoint import checkpoints
from heed.training.log import TrainingLog
from heed.training.prepare import Prepared, prepare, reopen
from heed.training.trainer import Stop, Trainer


def fit_recipe(
    recipe: str | Mapping[str, Any], settings: Mapping[str, Any], folder: Path, *, force: bool, quiet: bool, stop: Stop | None = None
) -> Run:
    """Train what a recipe and the settings laid over it describe; `verbs.train` and `Trainer.fit` say more."""
    config = resolve(recipe, settings)
    choose_device(config.train.device)  # refused before any work is done rather than after
    with (
        new_folder(folder, force=force) as keep,
        explain_full_disk(folder),
        held(folder),
        TrainingLog(folder, tensorboard=config.train.tensorboard, quiet=quiet) as log,
    ):
        if keep_memory():
            log.say("allocator: freed memory is kept for the next step (mallopt)")
        prepared = prepare(config, folder, log.say)
        keep()
        return _fit(prepared, log, resumed=False, stop=stop)


def fit_on(folder: Path, *, quiet: bool, trust: bool = False, allow_changed_data: bool = False) -> Run:
    """Go on exactly where a run stopped, which may have been before its first step.

    Args:
        allow_changed_data: go on when a data file is no longer what it was, with its present examples.
    """
    config = read_config(folder)
    begun = bool(checkpoints(folder / "checkpoints")) or (folder / "manifest.json").exists()
    with explain_full_disk(folder), held(folder), TrainingLog(folder, tensorboard=config.train.tensorboard, quiet=quiet) as log:
        keep_memory()
        if not begun:
            return _fit(prepare(config, folder, log.say), log, resumed=False)
        return _fit(reopen(folder, log.say, trust=trust, allow_changed_data=allow_changed_data), log, resumed=True)


def _fit(prepared: Prepared, log: TrainingLog, *, resumed: bool, stop: Stop | None = None) -> Run:
    trainer = Trainer(prepared, log)
    log.say(
        f"{count_parameters(trainer.model):,} parameters, {str(trainer.precision).removeprefix('torch.')} on {trainer.device}, "
        f"{f'{steps:,}' if (steps := trainer.progress.total_steps) else 'as many as fit'} steps"
    )
    if resumed:
        trainer.resume()
    if prepared.changed:
        log.record({"step": trainer.progress.step, "changed_data": prepared.changed})
    trainer.fit(stop)
    return trainer.run
