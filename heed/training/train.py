"""`heed.train`: from a recipe to a finished run folder."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heed.device import keep_memory
from heed.model.describe import count_parameters
from heed.run import Run, claim_folder, resolve
from heed.training.log import TrainingLog
from heed.training.prepare import Prepared, prepare, reopen
from heed.training.trainer import Trainer


def train(recipe: str | Mapping[str, Any], *, to: str | Path, force: bool = False, quiet: bool = False, **settings: Any) -> Run:
    """Train a model and return its run.

    Args:
        recipe: a YAML file, the name of one that ships, a task's name, or settings as a mapping.
        to: the run folder to make; one that exists is refused unless `force`.
        settings: groups of settings laid over the recipe, such as data={"train": "pairs.tsv"}, seed=2.
    Raises:
        HeedError: a setting, the data or the folder is at fault, or training could not go on.
    """
    config = resolve(recipe, settings)
    folder = Path(to)
    claim_folder(folder, force=force)
    config.build_task()
    folder.mkdir(parents=True, exist_ok=True)
    with TrainingLog(folder, tensorboard=config.train.tensorboard, quiet=quiet) as log:
        if keep_memory():
            log.say("allocator: freed memory is kept for the next step (mallopt)")
        try:
            prepared = prepare(config, folder, log.say)
        except BaseException:
            shutil.rmtree(folder)  # nothing was trained: leave the name free for the next try
            raise
        return _fit(prepared, log, resumed=False)


def resume(folder: str | Path, *, quiet: bool = False) -> Run:
    """Go on exactly where a run stopped."""
    folder = Path(folder)
    with TrainingLog(folder, tensorboard=None, quiet=quiet) as log:
        keep_memory()
        return _fit(reopen(folder, log.say), log, resumed=True)


def _fit(prepared: Prepared, log: TrainingLog, *, resumed: bool) -> Run:
    trainer = Trainer(prepared, log)
    log.say(
        f"{count_parameters(trainer.model):,} parameters, {str(trainer.precision).removeprefix('torch.')} on {trainer.device}, "
        f"{trainer.progress.total_steps or 'as many as fit'} steps"
    )
    if resumed:
        trainer.resume()
    trainer.fit()
    return trainer.run

