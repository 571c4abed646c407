"""Checkpoints: a folder each with weights, optimizer and progress, written beside its place and renamed, checked by hashes.

Nothing random needs saving: every draw of a step follows from (seed, step), every batch from (seed, epoch).
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from heed.device import describe_machine
from heed.errors import CheckpointError
from heed.files import explain_full_disk, flush, parse_json, sha256
from heed.run import distinct, load_weights, save_weights


@dataclass
class Progress:
    """How far training has come; with the seed and the data, all that resuming needs besides tensors."""

    step: int = 0
    epoch: int = 0
    group: int = 0  # updates done in this epoch
    seconds: float = 0.0
    total_steps: int | None = None
    evaluation_seconds: float | None = None  # what the last validation and its checkpoint took
    best_value: float | None = None
    best_loss: float | None = None  # the validation loss of the best weights; None too in checkpoints of before it was kept
    best_step: int | None = None
    n_evaluations: int = 0
    evaluations_without_better: int = 0
    halvings: int = 0  # how often micro-batches were divided in two, because they did not fit into memory
    skipped: int = 0  # updates that were not applied, because something in them was not finite
    evaluated: list[int] = field(default_factory=list)  # steps of the last evaluations, as many as may be averaged

    @classmethod
    def from_json(cls, content: dict[str, object]) -> Self:
        """Build from plain values; raises TypeError for unknown ones."""
        return cls(**content)  # type: ignore[arg-type]


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
    """Write `folder/step-N`, whole or not at all; raises TrainingError on a full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    place = place_of(folder, progress.step)
    draft, old = folder / f".{place.name}.draft", folder / f".{place.name}.old"
    for left in (draft, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with explain_full_disk(place):
            draft.mkdir()
            save_weights(model, draft / "model.safetensors")
            safetensors.torch.save_file(_optimizer_tensors(model, optimizer), draft / "optimizer.safetensors")
            hashes = {name: sha256(draft / name) for name in ("model.safetensors", "optimizer.safetensors")}
            state = {
                "progress": asdict(progress),
                "sha256": hashes,
                "machine": describe_machine(),
            }
            (draft / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
            for path in draft.iterdir():
                flush(path)
            flush(draft)
            if place.exists():  # of the same step; moved, which takes no time in which a kill would find neither
                os.replace(place, old)
            os.replace(draft, place)
            flush(folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return place


def load_checkpoint(place: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progress:
    """Fill model and optimizer from a checkpoint that is whole."""
    load_weights(model, place / "model.safetensors")
    _fill_optimizer(model, optimizer, safetensors.torch.load_file(place / "optimizer.safetensors"))
    return Progress.from_json(parse_json((place / "state.json").read_text(encoding="utf-8"))["progress"])


def other_machine(place: Path) -> list[str]:
    """Say what differs between here and where a checkpoint was written, as far as it may change the last bits of the results."""
    then = parse_json((place / "state.json").read_text(encoding="utf-8")).get("machine", {})
    now = describe_machine()
    return [f"{name} was {then[name]}, is {now[name]}" for name in now if name in then and then[name] != now[name]]


def fault(place: Path) -> str | None:
    """Say what is wrong with a checkpoint; None when it is whole."""
    try:
        state = parse_json((place / "state.json").read_text(encoding="utf-8"))
        Progress.from_json(state["progress"])
        for name, expected in state["sha256"].items():
            if sha256(place / name) != expected:
                return f"{name} was changed or damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"state.json or a file it names cannot be read ({error})"
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest_whole(folder: Path) -> tuple[Path, list[str]]:
    """Return the newest checkpoint that is whole, and what was wrong with newer ones; raises CheckpointError when there is none."""
    faults: list[str] = []
    for place in checkpoints(folder):
        problem = fault(place)
        if problem is None:
            return place, faults
        faults.append(f"{place}: {problem}")
    raise CheckpointError(f"{folder}: no whole checkpoint to resume from" + "".join(f"; {line}" for line in faults))


def place_of(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is or will be."""
    return folder / f"step-{step:08d}"


def forget_old(folder: Path, *, keep: int, steps: Collection[int | None]) -> None:
    """Delete all checkpoints but the newest `keep` and those of `steps`."""
    spared = {place_of(folder, step) for step in steps if step is not None}
    for place in checkpoints(folder)[keep:]:
        if place not in spared:
            shutil.rmtree(place)


def average_weights(places: list[Path]) -> dict[str, Tensor]:
    """Return the mean of the weights of several checkpoints."""
    total: dict[str, Tensor] = {}
    for place in places:
        for name, tensor in safetensors.torch.load_file(place / "model.safetensors").items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    return {name: (tensor / len(places)).float() for name, tensor in total.items()}


def _named_states(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in distinct(model).items():
        if parameter in optimizer.state:
            yield name, parameter


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, parameter in _named_states(model, optimizer)
        for key, value in optimizer.state[parameter].items()
    }


def _fill_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = distinct(model)
    for full_name, value in tensors.items():
        name, _, key = full_name.partition("|")
        if name not in parameters:
            raise CheckpointError(f"optimizer state for {name!r}, which the model does not have; the checkpoint is of another run")
        # AdamW keeps its step counter in float32 on the parameter's device when fused.
        optimizer.state[parameters[name]][key] = value.to(parameters[name].device)
