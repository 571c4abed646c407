"""Encoded examples in memory-mapped files, so that data larger than memory is the normal case.

A store is a folder: for each key one file of values laid end to end and one of offsets, the row each example came from, and
`store.json`, which is written last. It is built beside its place and renamed, so a store that is there is whole.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

Encoded = dict[str, Tensor]  # key -> (L, ...) sequence of any length, or a scalar

_WIDTHS = {"int64": np.int32, "int32": np.int32, "float32": np.float32, "float16": np.float16, "bool": np.bool_}


class _Column:
    """The two files of one key while they are written."""

    def __init__(self, folder: Path, key: str, first: Tensor) -> None:
        self.dtype = np.dtype(_WIDTHS[str(first.dtype).removeprefix("torch.")])
        self.tail = tuple(first.shape[1:])
        self.scalar = first.dim() == 0
        self.values: BinaryIO = (folder / f"{key}.values").open("wb")
        self.offsets: BinaryIO = (folder / f"{key}.offsets").open("wb")
        self.end = 0
        self.offsets.write(np.int64(0).tobytes())

    def add(self, value: Tensor) -> None:
        self.values.write(value.numpy().astype(self.dtype, copy=False).tobytes())
        self.end += 1 if self.scalar else value.size(0)
        self.offsets.write(np.int64(self.end).tobytes())

    def close(self) -> dict[str, Any]:
        self.values.close()
        self.offsets.close()
        return {"dtype": self.dtype.name, "tail": list(self.tail), "scalar": self.scalar}


def write_store(folder: Path, examples: Iterable[tuple[int, Encoded]]) -> "Store":
    """Write (row number, encoded example) pairs one by one into `folder`, replacing a store that is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    columns: dict[str, _Column] = {}
    n = 0
    try:
        with (draft / "rows").open("wb") as rows:
            for row, encoded in examples:
                columns = columns or {key: _Column(draft, key, value) for key, value in encoded.items()}
                for key, column in columns.items():
                    column.add(encoded[key])
                rows.write(np.int64(row).tobytes())
                n += 1
        meta = {"examples": n, "keys": {key: column.close() for key, column in columns.items()}}
        (draft / "store.json").write_text(json.dumps(meta))
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Store(folder)


class Store:
    """Read access to a store; values stay on disk until an example is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        meta = json.loads((folder / "store.json").read_text())
        self.n_examples: int = meta["examples"]
        self.keys: dict[str, dict[str, Any]] = meta["keys"]
        self.rows = _mapped(folder / "rows", np.dtype(np.int64))
        self._offsets = {key: _mapped(folder / f"{key}.offsets", np.dtype(np.int64)) for key in self.keys}
        self._values = {key: _mapped(folder / f"{key}.values", np.dtype(kind["dtype"])) for key, kind in self.keys.items()}

    def __len__(self) -> int:
        return self.n_examples

    def __getitem__(self, i: int) -> Encoded:
        return {key: self._read(key, i) for key in self.keys}

    def __iter__(self) -> Iterator[Encoded]:
        return (self[i] for i in range(len(self)))

    def lengths(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return how long each sequence of each example is: (examples, sequence keys)."""
        lengths = [np.diff(self._offsets[key]) for key, kind in self.keys.items() if not kind["scalar"]]
        if not lengths:
            return np.ones((len(self), 1), dtype=np.int32)
        return np.stack(lengths, axis=1).astype(np.int32)

    def _read(self, key: str, i: int) -> Tensor:
        kind = self.keys[key]
        first, end = int(self._offsets[key][i]), int(self._offsets[key][i + 1])
        width = int(np.prod(kind["tail"], dtype=np.int64))
        value = torch.from_numpy(self._values[key][first * width : end * width].copy())
        value = value.long() if value.dtype == torch.int32 else value
        return value[0] if kind["scalar"] else value.view(-1, *kind["tail"])


def _mapped(path: Path, dtype: np.dtype[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")
