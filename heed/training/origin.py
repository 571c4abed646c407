"""The run that another starts from (`init`): its parts, and its weights where their names and shapes are those of the new model.

A head that judges (classes, tags) is taken over only between runs of one task with the same labels: two labels have nothing in common by
standing in the same place.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from heed.adapters import NUMBERS
from heed.config import read_yaml
from heed.data.labels import Labels
from heed.data.parts import load_parts
from heed.errors import CheckpointError, ConfigError
from heed.files import sha256
from heed.model.lora import fold
from heed.model.models import Model
from heed.run import Run, distinct, read_config, verify
from heed.tasks import Task

JUDGING = ("head", "tag_head", "n_grams")  # modules whose rows or columns stand for labels, where a model judges texts or tokens
MILLION = 10**6
WEIGHTS = "model.safetensors"
OF_ORIGIN = ("folder", "config_sha256", "family", "class", "dtype", "generation")  # what an import remembers of where it came from


@dataclass(frozen=True)
class Origin:
    """A run that is started from.

    Attributes:
        source: its folder, as `init` says it.
        task: its task with its parts.
        weights: its tensors by name; adapters that it keeps apart are added to them.
        path, sha256: of the file they stand in, or of those adapters.
    """

    source: str
    task: Task
    weights: Mapping[str, Tensor]
    path: Path
    sha256: str

    @classmethod
    def open(cls, source: str, *, own_task: str) -> Self:
        """Read a run folder whose files fit its manifest.

        Args:
            own_task: the name of the task that starts from it; of others that are not part of heed no code is run.
        Raises:
            CheckpointError: there is no run, it was changed, or its training has written no weights yet.
        """
        folder = Path(source).expanduser()
        try:
            verify(folder)
            config = read_config(folder)
            trust = config.task["name"] == own_task
            if config.lora.rank and not config.lora.merge:
                return cls._adapted(source, Run.open(folder, trust=trust))
            task = config.build_task(trust=trust)
            task.parts = load_parts(folder / "parts")
            path = folder / WEIGHTS
            return cls(source, task, safetensors.torch.load_file(path), path, sha256(path))
        except (CheckpointError, ConfigError) as error:
            raise type(error)(f"init={source}: {error}") from error
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"init={source}: its weights cannot be read ({error}); restore the folder from a copy") from error

    @classmethod
    def _adapted(cls, source: str, run: Run) -> Self:
        """Return a run that keeps its adapters apart."""
        run.restore()
        fold(run.model)
        weights = {name: tensor.detach() for name, tensor in distinct(run.model).items()}
        path = run.folder / NUMBERS
        return cls(source, run.task, weights, path, sha256(path))

    def remembered(self) -> dict[str, Any]:
        """Return what config.yaml of the new run says of the other: its SHA-256, and whose model it was, which exporting asks for."""
        imported = read_yaml(self.path.parent / "config.yaml").get("imported")
        kept = {} if not isinstance(imported, dict) else {name: imported[name] for name in OF_ORIGIN if name in imported}
        return {"init_sha256": self.sha256, **({"imported": kept} if kept else {})}

    def write(self, path: Path) -> str:
        """Write the weights to a file of their own, and return its SHA-256."""
        if self.path.name == WEIGHTS:
            shutil.copyfile(self.path, path)
            return self.sha256
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in self.weights.items()}, path)
        return sha256(path)

    def lend(self, model: Model, task: Task) -> dict[str, Any]:
        """Copy every weight that fits into a model with fresh ones.

        Returns:
            what the data report says: `source`, `sha256`, `tensors` and `numbers` as [taken, in the model], and the names of the
            `new` ones and of those of the other run that were `left`.
        Raises:
            ConfigError: a weight that is no head's has another shape.
        """
        mine = distinct(model)
        judging = () if self._judges_alike(task) else _judging(model)
        taken = [name for name in mine if name in self.weights and self._fits(name, mine[name], judging)]
        with torch.no_grad():
            for name in taken:
                mine[name].copy_(self.weights[name])
        return {
            "source": self.source,
            "sha256": self.sha256,
            "tensors": [len(taken), len(mine)],
            "numbers": [sum(mine[name].numel() for name in taken), sum(tensor.numel() for tensor in mine.values())],
            "new": [name for name in mine if name not in taken],
            "left": [name for name in self.weights if name not in taken],
        }

    def _judges_alike(self, task: Task) -> bool:
        """Return whether rows of a judging head mean the same for both tasks."""
        return self.task.name == task.name and _labels(self.task) == _labels(task)

    def _fits(self, name: str, tensor: Tensor, judging: tuple[str, ...]) -> bool:
        """Return whether a tensor is taken over."""
        if name.partition(".")[0] in judging:
            return False
        found = self.weights[name].shape
        if found != tensor.shape:
            raise ConfigError(
                f"init={self.source}: {name} is {tuple(found)} there and {tuple(tensor.shape)} here; the settings of the two runs differ "
                "in what cuts their examples or in the sizes of their models"
            )
        return True


def _judging(model: Model) -> tuple[str, ...]:
    """Return the modules of a model whose rows stand for labels; what is called head writes words in other models."""
    return tuple(name for name in JUDGING if model.config.architecture == "encoder" and getattr(model, name, None) is not None)


def _labels(task: Task) -> list[list[str]]:
    return [list(part.labels) for part in task.parts.values() if isinstance(part, Labels)]


def inheritance_line(report: Mapping[str, Any]) -> str:
    """Say in one line what `Origin.lend` found."""
    (n_taken, n_tensors), (taken, numbers) = report["tensors"], report["numbers"]
    return (
        f"took {n_taken:,} of {n_tensors:,} tensors ({_spelled(taken)} of {_spelled(numbers)} numbers) from {report['source']}; "
        f"new: {_modules(report['new'])}; left: {_modules(report['left'])}"
    )


def _modules(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in names)) or "none"


def _spelled(n: int) -> str:
    return f"{n / MILLION:.1f} M" if n >= MILLION else f"{n:,}"
