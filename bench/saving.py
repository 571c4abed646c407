"""Which share of training goes into writing checkpoints, at the default interval.

Run: heed bench saving "DIR/train.{en,de}" [epochs]
"""

import json
import tempfile
import time
from pathlib import Path

from heed.training.train import fit_recipe
from heed.training.trainer import Trainer


def main(arguments: list[str]) -> None:
    """Train recipe multi30k for some epochs, with a clock around every checkpoint."""
    source, epochs = arguments[0], float(arguments[1]) if len(arguments) > 1 else 2.0
    spent: list[float] = []
    save = Trainer._checkpoint

    def timed(trainer: Trainer) -> Path:
        begun = time.perf_counter()
        place = save(trainer)
        spent.append(time.perf_counter() - begun)
        return place

    Trainer._checkpoint = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        settings = {"data": {"train": source}, "train": {"epochs": epochs}}
        run = fit_recipe("multi30k", settings, Path(folder) / "run", force=False, quiet=False)
        seconds = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
    print(f"{len(spent)} checkpoints took {sum(spent):.2f} s of {seconds:.0f} s of training: {sum(spent) / seconds:.2%}")
