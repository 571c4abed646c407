"""Encoded examples in memory-mapped files, so that data larger than memory is the normal case.

A store is a folder: for each key one file of values laid end to end and one of offsets, the row each example came from, and
`store.json`, which is written last. It is built beside its place and renamed, so a store that is there is whole.
"""

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from heed.errors import CheckpointError, DataError
from heed.files import parse_json

Encoded = dict[str, Tensor]  # key -> (L, ...) sequence of any length, or a scalar

_WIDTHS: dict[torch.dtype, type[np.generic]] = {
    torch.int64: np.int32,
    torch.int32: np.int32,
    torch.int16: np.int16,
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.bool: np.bool_,
}


class _Column:
    """The two files of one key while they are written."""

    def __init__(self, folder: Path, key: str, first: Tensor, files: ExitStack) -> None:
        self.key = key
        self.form = _form(first)
        self.dtype = np.dtype(_WIDTHS[first.dtype])
        self.values = files.enter_context((folder / f"{key}.values").open("wb"))
        self.offsets = files.enter_context((folder / f"{key}.offsets").open("wb"))
        self.end = 0
        self.offsets.write(np.int64(0).tobytes())

    def add(self, value: Tensor, row: int) -> None:
        if _form(value) != self.form:
            found, expected = _spell(_form(value)), _spell(self.form)
            raise DataError(f"row {row}: {self.key!r} is {found}, but {expected} in the examples before; encode every example alike")
        wide = value.numpy()
        narrow = wide.astype(self.dtype, copy=False)
        if wide.dtype == np.int64 and wide.tolist() != narrow.tolist():  # at a sentence's length faster than comparing arrays
            raise DataError(f"row {row}: {self.key!r} holds {wide[wide != narrow].flat[0]}, beyond 32 bits; number the values from 0")
        self.values.write(narrow.tobytes())
        self.end += value.size(0) if value.dim() else 1
        self.offsets.write(np.int64(self.end).tobytes())

    def describe(self) -> dict[str, Any]:
        _, n_dimensions, tail = self.form
        return {"dtype": self.dtype.name, "tail": list(tail), "scalar": n_dimensions == 0}


_Form = tuple[torch.dtype, int, tuple[int, ...]]


def _form(value: Tensor) -> _Form:
    """Return what all values of a key have in common."""
    return value.dtype, value.dim(), value.shape[1:]


def _spell(form: _Form) -> str:
    dtype, n_dimensions, tail = form
    shape = "x".join(["L", *map(str, tail)]) if n_dimensions else "scalar"
    return f"{shape} {str(dtype).removeprefix('torch.')}"


def write_store(folder: Path, examples: Iterable[tuple[int, Encoded]]) -> "Store":
    """Write (row number, encoded example) pairs one by one into `folder`, replacing a store that is there.

    Whole numbers are kept in 32 bits and come back as int64.

    Raises:
        DataError: an example has other keys, dimensions or types than the first, or a number that does not fit.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        meta = _write_files(draft, examples)
        (draft / "store.json").write_text(json.dumps(meta), encoding="utf-8")
        store = Store(draft)  # mapped now: what another writer puts in its place later is not ours
        _take_place(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    store.folder = folder
    return store


def _take_place(draft: Path, folder: Path) -> None:
    """Move a draft to its place; of several that are ready at once, one stays."""
    while True:
        try:
            os.replace(draft, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # A folder that is renamed is gone for others in one moment; one that is deleted file by file is half there for a while.
            old = draft.with_suffix(".old")
            with contextlib.suppress(FileNotFoundError):
                os.replace(folder, old)
            shutil.rmtree(old, ignore_errors=True)
        else:
            return


def _write_files(draft: Path, examples: Iterable[tuple[int, Encoded]]) -> dict[str, Any]:
    columns: dict[str, _Column] = {}
    n = 0
    with ExitStack() as files:
        rows = files.enter_context((draft / "rows").open("wb"))
        for row, encoded in examples:
            columns = columns or _columns(draft, encoded, row, files)
            if encoded.keys() != columns.keys():
                found, expected = sorted(encoded), sorted(columns)
                raise DataError(f"row {row}: has {found}, but the examples before have {expected}; encode every example alike")
            for key, column in columns.items():
                column.add(encoded[key], row)
            rows.write(np.int64(row).tobytes())
            n += 1
    return {"examples": n, "keys": {key: column.describe() for key, column in columns.items()}}


def _columns(folder: Path, first: Encoded, row: int, files: ExitStack) -> dict[str, _Column]:
    for key, value in first.items():
        if value.dtype not in _WIDTHS:
            raise DataError(f"row {row}: {key!r} is {value.dtype}; a store holds {', '.join(map(str, _WIDTHS))}")
    return {key: _Column(folder, key, value, files) for key, value in first.items()}


class Store:
    """Read access to a store; values stay on disk until an example is asked for."""

    def __init__(self, folder: Path) -> None:
        """Map the files of `folder`; raises CheckpointError when they are not a whole store."""
        self.folder = folder
        try:
            with _inside(folder) as files:
                with files("store.json") as file:
                    meta = parse_json(file.read().decode("utf-8"))
                self.n_examples: int = meta["examples"]
                self.keys: dict[str, dict[str, Any]] = meta["keys"]
                self.rows = _mapped(files("rows"), np.dtype(np.int64), self.n_examples)
                self._offsets = {key: _mapped(files(f"{key}.offsets"), np.dtype(np.int64), self.n_examples + 1) for key in self.keys}
                self._values = {key: self._map_values(key, files(f"{key}.values")) for key in self.keys}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder}: not a whole store ({error}); delete it, and the data is encoded again") from error

    def __len__(self) -> int:
        return self.n_examples

    def __getitem__(self, i: int) -> Encoded:
        if not 0 <= i < self.n_examples:
            raise IndexError(f"example {i} of {self.n_examples}")
        return {key: self._read(key, i) for key in self.keys}

    def __iter__(self) -> Iterator[Encoded]:
        return (self[i] for i in range(len(self)))

    def lengths(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return how long each sequence of each example is: (examples, sequence keys)."""
        lengths = [np.diff(self._offsets[key]) for key, kind in self.keys.items() if not kind["scalar"]]
        if not lengths:
            return np.ones((len(self), 1), dtype=np.int32)
        return np.stack(lengths, axis=1).astype(np.int32)

    def _map_values(self, key: str, file: BinaryIO) -> np.ndarray[Any, np.dtype[Any]]:
        n_values = int(self._offsets[key][-1]) * self._width(key)
        return _mapped(file, np.dtype(self.keys[key]["dtype"]), n_values)

    def _width(self, key: str) -> int:
        return math.prod(self.keys[key]["tail"])

    def _read(self, key: str, i: int) -> Tensor:
        kind, width = self.keys[key], self._width(key)
        first, end = int(self._offsets[key][i]), int(self._offsets[key][i + 1])
        value = torch.from_numpy(self._values[key][first * width : end * width].copy())
        value = value.long() if value.dtype == torch.int32 else value
        return value[0] if kind["scalar"] else value.view(end - first, *kind["tail"])


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[Callable[[str], BinaryIO]]:
    """Yield what opens files of a folder: of the one that is there now, whatever another writer puts in its place meanwhile."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield lambda name: open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=place))  # noqa: SIM115
    finally:
        os.close(place)


def _mapped(file: BinaryIO, dtype: np.dtype[Any], n: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Map a file of n numbers, and close it; raises ValueError when it has another size."""
    with file:
        size = os.fstat(file.fileno()).st_size
        if size != n * dtype.itemsize:
            raise ValueError(f"{file.name} has {size} bytes, expected {n * dtype.itemsize}")
        if size == 0:
            return np.zeros(0, dtype=dtype)
        return np.asarray(np.memmap(file, dtype=dtype, mode="r"))  # still on disk; slices of a plain array are made much faster
