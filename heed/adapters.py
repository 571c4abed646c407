"""What is kept of adapters (`lora`) in a run folder: what they belong to, and, unless they are folded into the weights, their numbers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import safetensors
import safetensors.torch
from torch import Tensor, nn

from heed.errors import CheckpointError
from heed.files import parse_json, replacing
from heed.model.lora import adapt, learned_names, plain_name

DESCRIPTION, NUMBERS = "adapter.json", "adapter.safetensors"


@dataclass(frozen=True)
class Adapters:
    """What adapters belong to, and what learns beside them.

    Attributes:
        base_sha256: of the file of weights they were learned beside.
        rank, alpha, targets: as in the settings.
        new: names of parameters that the base did not have.
    """

    base_sha256: str
    rank: int
    alpha: float
    targets: list[str]
    new: list[str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote; raises CheckpointError."""
        path = folder / DESCRIPTION
        try:
            found = cls(**parse_json(path.read_text(encoding="utf-8")))
            found._check()
            return found
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); restore it from a copy") from error

    def _check(self) -> None:
        """Raise ValueError for a value that `write` never writes."""
        fitting = {
            "base_sha256": isinstance(self.base_sha256, str),
            "rank": type(self.rank) is int and self.rank > 0,
            "alpha": type(self.alpha) in (int, float) and 0 < self.alpha < float("inf"),
            "targets": _are_names(self.targets),
            "new": _are_names(self.new),
        }
        wrong = next((name for name, fits in fitting.items() if not fits), None)
        if wrong is not None:
            raise ValueError(f"{wrong}={getattr(self, wrong)!r}")

    def write(self, folder: Path) -> None:
        """Write adapter.json."""
        with replacing(folder / DESCRIPTION) as draft:
            draft.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    def put_into(self, model: nn.Module) -> None:
        """Freeze a plain model and put adapters without effect into it."""
        adapt(model, rank=self.rank, alpha=self.alpha, targets=self.targets, new=self.new)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def save_adapters(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path, *, new: list[str]) -> None:
    """Write the adapters of a model and what learned beside them, of all its tensors by name."""
    names = learned_names(model, new)
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items() if name in names}
    with replacing(folder / NUMBERS) as draft:
        safetensors.torch.save_file(kept, draft)


def adapted_weights(expected: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return the tensors of an adapted model, by its names: those of the base, and over them what was learned; raises CheckpointError."""
    files = []
    for path in (folder / "model.safetensors", folder / NUMBERS):
        try:
            files.append(safetensors.torch.load_file(path))
        except (OSError, safetensors.SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); restore it from a copy") from error
    base, learned = files
    return {name: base[plain_name(name)] for name in expected if plain_name(name) in base and name not in learned} | learned
