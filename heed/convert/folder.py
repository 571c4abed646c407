"""A folder as Hugging Face's libraries write it: config.json, safetensors (whole or in shards), and the files of a tokenizer."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from heed.errors import CheckpointError, ConfigError
from heed.files import parse_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
OTHER_WEIGHTS = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
OLD_NAMES = ((re.compile(r"\.gamma$"), ".weight"), (re.compile(r"\.beta$"), ".bias"))  # of norms, in files made before 2019
NOTHING: Any = object()


def read_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; raises CheckpointError."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected an object of settings, found {type(content).__name__}; fetch it again")
    return content


def read_if_there(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; an empty one where there is no file."""
    return read_object(path) if path.is_file() else {}


class Settings:
    """What config.json says, asked for by name, so that an answer of the wrong type is refused where it stands."""

    def __init__(self, content: Mapping[str, Any], where: str = "config.json") -> None:
        self.content, self.where = dict(content), where

    def get(self, name: str, default: Any = NOTHING) -> Any:
        """Return a value of any type; null is as good as nothing. Raises CheckpointError where there is neither it nor a default."""
        value = self.content.get(name)
        if value is None and default is NOTHING:
            raise CheckpointError(f"{self.where}: has no {name}, which this architecture needs; fetch the file again")
        return default if value is None else value

    def whole(self, name: str, default: Any = NOTHING) -> int:
        """Return a whole number."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, value, "a whole number")
        return value

    def count(self, name: str, default: Any = NOTHING) -> int:
        """Return a whole number from 1."""
        value = self.whole(name, default)
        if value < 1:
            raise self._wrong(name, value, "a whole number from 1")
        return value

    def whole_or_none(self, name: str) -> int | None:
        """Return a whole number, None where there is none."""
        return None if self.get(name, None) is None else self.whole(name)

    def wholes(self, name: str, default: Any = NOTHING) -> list[int]:
        """Return a list of whole numbers."""
        value = self.get(name, default)
        if not isinstance(value, list) or not all(type(one) is int for one in value):
            raise self._wrong(name, value, "a list of whole numbers")
        return value

    def number(self, name: str, default: Any = NOTHING) -> float:
        """Return a number."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, value, "a number")
        return float(value)

    def truth(self, name: str, default: Any = NOTHING) -> bool:
        """Return true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def one_of(self, name: str, known: Mapping[str, str], default: Any = NOTHING) -> str:
        """Return what a word stands for in heed; raises ConfigError for one that heed knows nothing like."""
        value = self.get(name, default)
        if not isinstance(value, str) or value not in known:
            raise ConfigError(f"{self.where}: {name}={value!r} is not one of {', '.join(known)}; heed cannot compute it")
        return known[value]

    def only(self, name: str, *allowed: Any, why: str = "") -> None:
        """Raise ConfigError where a setting is given that heed cannot do; null and nothing are allowed."""
        value = self.content.get(name)
        if value is None or any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            return
        expected = " or ".join(map(repr, allowed)) if allowed else "nothing"
        raise ConfigError(f"{self.where}: {name}={value!r}, expected {expected}; {why or 'heed cannot compute it'}")

    def _wrong(self, name: str, value: Any, expected: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: {name}={value!r}, expected {expected}; fetch the file again")


class Weights:
    """The tensors of safetensors files, read when they are asked for.

    Args:
        paths: the file of each tensor, by the tensor's name in it.
    """

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._stored = {_modern(name): (name, path) for name, path in paths.items()}
        self.dtypes: set[torch.dtype] = set()

    @property
    def names(self) -> set[str]:
        """The names of all tensors."""
        return set(self._stored)

    def n_numbers(self) -> int:
        """Return how many numbers all tensors together have; raises CheckpointError for a file that cannot be read."""
        n = 0
        for path in {path for _, path in self._stored.values()}:
            with _opened(path) as file:
                n += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - it is no mapping
        return n

    def stored_names(self, names: Iterable[str]) -> list[str]:
        """Return the names of tensors as they stand in the file, in order."""
        return sorted(self._stored[name][0] for name in names)

    def under(self, prefix: str) -> None:
        """Put a prefix before all names where none has it: a body that was saved without a head lacks it."""
        if not any(name.startswith(prefix) for name in self._stored):
            self._stored = {f"{prefix}{name}": place for name, place in self._stored.items()}

    def read(self, name: str) -> Tensor:
        """Return a tensor in float32; raises CheckpointError where it is none of floating point, or damaged."""
        stored, path = self._stored[name]
        with _opened(path) as file:
            tensor: Tensor = file.get_tensor(stored)
        if tensor.dtype not in FLOATS:
            raise CheckpointError(
                f"{path}: {stored} is {tensor.dtype}, expected numbers of floating point; import a file that is not quantised"
            )
        self.dtypes.add(tensor.dtype)
        return tensor.float()


def _modern(name: str) -> str:
    for old, new in OLD_NAMES:
        name = old.sub(new, name)
    return name


def find_weights(folder: Path) -> Weights:
    """Return the weights of a folder.

    Raises:
        CheckpointError: there are none, a shard is missing, or they are pickled, which reading would execute.
    """
    if (folder / WEIGHTS).is_file():
        return Weights(dict.fromkeys(_names_in(folder / WEIGHTS), folder / WEIGHTS))
    if (folder / INDEX).is_file():
        return Weights(_of_shards(folder))
    pickled = next((name for name in PICKLED if (folder / name).is_file()), None)
    if pickled is not None:
        raise CheckpointError(
            f"{folder / pickled}: is a pickle, which runs whatever program it holds when it is read, so heed does not; where transformers "
            "is installed and you trust the file, AutoModel's from_pretrained(DIR).save_pretrained(OTHER) of the class that "
            "config.json names writes safetensors"
        )
    other = next((f"; {name} is of another framework" for name in OTHER_WEIGHTS if (folder / name).is_file()), "")
    raise CheckpointError(f"{folder}: has no {WEIGHTS} and no {INDEX}{other}; fetch the safetensors of this model")


def _names_in(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(file.keys())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file of safetensors; raises CheckpointError where it, or what is asked of it, cannot be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); fetch it again") from error


def _of_shards(folder: Path) -> dict[str, Path]:
    """Return the shard of each tensor that the index names; raises CheckpointError where one is not there."""
    places = read_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{folder / INDEX}: has no weight_map, which says where each tensor is; fetch it again")
    held: dict[str, set[str]] = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise CheckpointError(f"{folder / INDEX}: {name} is in {shard!r}, expected the name of a file in this folder; fetch it again")
        if shard not in held:
            if not (folder / shard).is_file():
                raise CheckpointError(f"{folder / shard}: is not there, although {INDEX} names it; fetch it too")
            held[shard] = set(_names_in(folder / shard))
        if name not in held[shard]:
            raise CheckpointError(f"{folder / shard}: has no {name}, which {INDEX} says it holds; fetch both again")
    return {name: folder / shard for name, shard in places.items()}


OTHER_FOLDERS = {  # a file that such folders have -> what to do with one
    "adapter.json": "these are adapters of heed: name the run they were learned beside with --base RUN",
    "config.yaml": "this is a run folder already",
    "adapter_config.json": "these are adapters of peft: load them there, and save_pretrained what merge_and_unload() gives",
}


def _hint(path: Path) -> str:
    """Return what to do with a folder of another kind, behind a semicolon; nothing where it is of none."""
    return next((f"; {hint}" for name, hint in OTHER_FOLDERS.items() if (path / name).is_file()), "")


class Folder:
    """A foreign folder: its settings, its weights and the files of its tokenizer.

    Raises:
        CheckpointError: the folder or its config.json is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise CheckpointError(f"{path}: is no folder; expected one with config.json and {WEIGHTS}")
        if not (path / "config.json").is_file():
            raise CheckpointError(f"{path}: has no config.json; expected a folder as transformers' save_pretrained writes it{_hint(path)}")
        self.path = path
        self.settings = Settings(read_object(path / "config.json"), str(path / "config.json"))
        self.generation = Settings(read_if_there(path / "generation_config.json"), str(path / "generation_config.json"))
        self.tokenizer_settings = read_if_there(path / "tokenizer_config.json")

    def has(self, name: str) -> bool:
        """Return whether a file is there."""
        return (self.path / name).is_file()

    def read(self, name: str) -> dict[str, Any]:
        """Return what a JSON file of the folder says, or nothing where it is not there."""
        return read_if_there(self.path / name)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a text file of the folder; raises CheckpointError."""
        try:
            return (self.path / name).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.path / name}: cannot be read as text ({error}); fetch it again") from error

    def weights(self) -> Weights:
        """Return the tensors; raises CheckpointError."""
        return find_weights(self.path)
