"""Kills a training process again and again, and compares what it comes to with a run that nobody touched.

Run: python tests/training/violence.py KILLS SEED DATA FOLDER [MIB]; prints a JSON object. Every attempt is a process of its own, forked
from one that has imported everything, and dies by SIGKILL: at a random moment of training, or in the middle of writing a checkpoint.
With MIB the encoded examples are twice that large, and a process is given no more than so much memory beyond what it starts with.
"""

import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import heed.training.checkpoint as checkpoint_module
import heed.training.trainer as trainer_module
from heed.config import merge
from heed.data.store import write_store
from heed.files import sha256
from heed.run import resolve
from heed.training.log import TrainingLog
from heed.training.prepare import prepare
from heed.training.train import fit_on, fit_recipe
from heed.training.trainer import Trainer

SETTINGS: dict[str, Any] = {
    "task": {"name": "translation", "vocab_size": 300},
    "model": {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24, "dropout": 0.2},
    "train": {
        "steps": 480,
        "batch_tokens": 120,
        "accumulate": 2,
        "warmup": 20,
        "average": 2,
        "evaluate_every": 20,
        "checkpoint_every": 6,
        "log_every": 1,
        "precision": "float32",
        "tensorboard": False,
    },
}
# What writing a checkpoint does, in its order and again and again; death comes before one of these.
SAVING = ("save_weights", "flush", "sha256")


def train(folder: Path, data: Path) -> None:
    """Train, or go on."""
    if (folder / "config.yaml").exists():
        fit_on(folder, quiet=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)  # killed before there was anything to go on with
        fit_recipe(merge(SETTINGS, {"data": {"train": str(data)}}), {}, folder, force=False, quiet=True)


def enlarge(folder: Path, data: Path, mib: int) -> None:
    """Begin a run, and put examples in the place of its own that take twice so much memory."""
    log = TrainingLog(folder, tensorboard=False, quiet=True)
    config = resolve(merge(SETTINGS, {"data": {"train": str(data)}, "train": {"batch_tokens": 2000, "steps": 30}}))
    trainer = Trainer(prepare(config, folder, log.say), log)
    checkpoint_module.save_checkpoint(trainer.folder, trainer.model, trainer.optimizer, trainer.progress)
    length, draw = 1000, np.random.default_rng(1)
    n_examples = 2 * (mib << 20) // (2 * 4 * length)  # two sides, four bytes a token

    def examples() -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        for row in range(n_examples):
            yield row, {side: torch.from_numpy(draw.integers(5, 250, length)) for side in ("source", "target")}

    write_store(folder / "store" / "train", examples())


def limit_memory(mib: int) -> None:
    """Refuse this process more than so much memory beyond what it has."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    present = next(int(line.split()[1]) for line in lines if line.startswith("VmData")) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (present + (mib << 20), resource.RLIM_INFINITY))


def attempt(folder: Path, data: Path, draw: random.Random | None, mib: int | None = None) -> tuple[int, str]:
    """Train in a process of its own, which is killed as `draw` says (None: let be); returns its exit status and how it was to die."""
    how = "let be" if draw is None else draw.choice(("while training", "while training", "while saving"))
    delay = 0.0 if draw is None else draw.uniform(0, 0.2)
    operation, count = ("", 0) if draw is None else (draw.choice(SAVING), draw.randint(1, 12))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            if mib is not None:
                limit_memory(mib)
            announce(writer)
            if how == "while saving":
                die_in(operation, count)
            train(folder, data)
            status = 0
        except BaseException:  # reported by the exit status
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    if how == "while training":
        select.select([reader], [], [], 60)  # the first step, or the end
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    return os.waitpid(child, 0)[1], how


def announce(writer: int) -> None:
    """Write a byte when the first step begins."""
    fit = trainer_module.Trainer.fit

    def announced(trainer: trainer_module.Trainer, stop: trainer_module.Stop | None = None) -> None:
        os.write(writer, b"!")
        fit(trainer, stop)

    trainer_module.Trainer.fit = announced  # type: ignore[method-assign]


def die_in(operation: str, count: int) -> None:
    """Let the process be killed before it does an operation of saving for the count-th time."""
    done: Callable[..., Any] = getattr(checkpoint_module, operation)
    left = count

    def deadly(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done(*arguments)

    setattr(checkpoint_module, operation, deadly)


def outcome(folder: Path) -> dict[str, Any]:
    """Return what must be equal: weights, metrics without the clock, and the best checkpoint."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    newest = checkpoint_module.checkpoints(folder / "checkpoints")[0]
    progress = json.loads((newest / "state.json").read_text())["progress"]
    best = checkpoint_module.place_of(folder / "checkpoints", progress["best_step"])
    return {
        "weights": sha256(folder / "model.safetensors"),
        "metrics": [
            {key: value for key, value in line.items() if key not in ("seconds", "units_per_second", "tokens_per_second")} for line in lines
        ],
        "best": [progress["best_step"], progress["best_value"], sha256(best / "model.safetensors")],
    }


def main() -> None:
    """Kill and compare."""
    kills, seed, data, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    mib = int(sys.argv[5]) if len(sys.argv) > 5 else None
    draw = random.Random(seed)
    if mib is not None:
        enlarge(folder / "untouched", data, mib)
        shutil.copytree(folder / "untouched", folder / "killed")
    assert attempt(folder / "untouched", data, None, mib)[0] == 0
    died = {"while training": 0, "while saving": 0}
    ended = False
    while sum(died.values()) < kills and not ended:
        status, how = attempt(folder / "killed", data, draw, mib)
        if os.WIFSIGNALED(status):
            died[how] += 1
        else:
            assert status == 0, f"going on failed after {died}"
            ended = True
    if not ended:
        assert attempt(folder / "killed", data, None, mib)[0] == 0
    expected, found = outcome(folder / "untouched"), outcome(folder / "killed")
    print(json.dumps({"kills": died, "equal": {key: found[key] == expected[key] for key in expected}, "lines": len(expected["metrics"])}))


if __name__ == "__main__":
    main()
