"""Which share of training goes into writing checkpoints, at the default interval.

Run: heed bench saving "DIR/train.{en,de}" [epochs]
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import heed.training.trainer as trainer_module
from heed.training.train import fit_recipe


def main(arguments: list[str]) -> None:
    """Train recipe multi30k for some epochs, with a clock around every checkpoint."""
    source, epochs = arguments[0], float(arguments[1]) if len(arguments) > 1 else 2.0
    spent: list[float] = []
    save: Callable[..., Any] = trainer_module.save_checkpoint

    def timed(*given: Any) -> Any:
        begun = time.perf_counter()
        place = save(*given)
        spent.append(time.perf_counter() - begun)
        return place

    trainer_module.save_checkpoint = timed
    with tempfile.TemporaryDirectory() as folder:
        run = fit_recipe("multi30k", {"data": {"train": source}, "train": {"epochs": epochs}}, Path(folder) / "run", force=False)
        seconds = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])["seconds"]
    print(f"{len(spent)} checkpoints took {sum(spent):.2f} s of {seconds:.0f} s of training: {sum(spent) / seconds:.2%}", file=sys.stdout)
