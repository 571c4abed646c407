"""The two-way table of names: which tensor of heed is which of another maker's, and how the one becomes the other.

An `Entry` names one of their tensors and the one of ours it is, or the several of ours that it holds one below the other (GPT-2's
query, key and value). `changes` turn theirs into that, one after the other, and back in reverse. Every change is exact: no number is
computed, so that what was imported is exported bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from heed.errors import CheckpointError, ConfigError


class Change(Protocol):
    """A tensor of theirs as one of ours, and back."""

    def take(self, tensor: Tensor) -> Tensor:
        """Turn theirs into ours."""

    def give(self, tensor: Tensor) -> Tensor:
        """Turn ours into theirs."""


@dataclass(frozen=True)
class Transposed:
    """A matrix that they keep the other way round: (in, out) instead of (out, in)."""

    def take(self, tensor: Tensor) -> Tensor:
        """Turn theirs into ours."""
        return tensor.t()

    def give(self, tensor: Tensor) -> Tensor:
        """Turn ours into theirs."""
        return tensor.t()


@dataclass(frozen=True)
class VocabularyRows:
    """Rows in the order of an id's meaning: row i of ours is row ids[i] of theirs, or all `missing` where that is None."""

    ids: Sequence[int | None]
    missing: float = 0.0

    def take(self, tensor: Tensor) -> Tensor:
        """Turn theirs (V', ...) into ours (V, ...)."""
        if tensor.size(0) != self._n_foreign:
            raise CheckpointError(f"has {tensor.size(0)} rows, expected one for each of {self._n_foreign} ids of the vocabulary")
        ours = tensor.new_full((len(self.ids), *tensor.shape[1:]), self.missing)
        mine, theirs = self._pairs()
        ours[mine] = tensor[theirs]
        return ours

    def give(self, tensor: Tensor) -> Tensor:
        """Turn ours (V, ...) into theirs (V', ...); rows that they lack are left out."""
        mine, theirs = self._pairs()
        foreign = tensor.new_empty((self._n_foreign, *tensor.shape[1:]))
        foreign[theirs] = tensor[mine]
        return foreign

    @property
    def _n_foreign(self) -> int:
        return sum(index is not None for index in self.ids)

    def _pairs(self) -> tuple[Tensor, Tensor]:
        known = [(i, index) for i, index in enumerate(self.ids) if index is not None]
        mine, theirs = torch.tensor(known).T
        return mine, theirs


@dataclass(frozen=True)
class RotaryRows:
    """Rows of queries or keys for rotary positions: they turn feature i with i + E/2 of a head, heed 2i with 2i + 1."""

    n_heads: int

    def take(self, tensor: Tensor) -> Tensor:
        """Turn theirs (H * E, ...) into ours."""
        return torch.unflatten(tensor, 0, (self.n_heads, 2, -1)).transpose(1, 2).flatten(0, 2)

    def give(self, tensor: Tensor) -> Tensor:
        """Turn ours (H * E, ...) into theirs."""
        return torch.unflatten(tensor, 0, (self.n_heads, -1, 2)).transpose(1, 2).flatten(0, 2)


@dataclass(frozen=True)
class Entry:
    """One line of a table.

    Args:
        ours: the tensor of heed, or several of one shape that theirs holds one below the other.
        theirs: the name in the file.
        changes: what turns theirs into ours, in this order.
        copies: names under which a file may hold the same tensor again; when it does, they must be equal.
    """

    ours: tuple[str, ...]
    theirs: str
    changes: tuple[Change, ...] = ()
    copies: tuple[str, ...] = ()

    def found(self, names: set[str]) -> list[str]:
        """Return the names that the tensor has in a file, given those in it."""
        return [name for name in (self.theirs, *self.copies) if name in names]

    def take(self, theirs: Tensor) -> list[Tensor]:
        """Turn their tensor into ours, in the order of `ours`; raises CheckpointError where it cannot be one."""
        for change in self.changes:
            theirs = change.take(theirs)
        if theirs.dim() == 0 or theirs.size(0) % len(self.ours):
            raise CheckpointError(f"has the shape {tuple(theirs.shape)}, which holds no {len(self.ours)} tensors of one shape")
        return list(theirs.chunk(len(self.ours)))

    def give(self, ours: Sequence[Tensor]) -> Tensor:
        """Turn our tensors into theirs."""
        joined = ours[0] if len(ours) == 1 else torch.cat(list(ours))
        for change in reversed(self.changes):
            joined = change.give(joined)
        return joined.contiguous()


def entry(ours: str | Sequence[str], theirs: str, *changes: Change, copies: Sequence[str] = ()) -> Entry:
    """Return a line of a table."""
    return Entry((ours,) if isinstance(ours, str) else tuple(ours), theirs, changes, tuple(copies))


def layer(ours: str, theirs: str, *changes: Change, bias: bool = True) -> list[Entry]:
    """Return the lines of a linear map or a norm: its weight, which is changed, and its bias."""
    weight = entry(f"{ours}.weight", f"{theirs}.weight", *changes)
    return [weight, entry(f"{ours}.bias", f"{theirs}.bias")] if bias else [weight]


def names_of(entries: Sequence[Entry]) -> set[str]:
    """Return the names in a file that a table knows."""
    return {name for one in entries for name in (one.theirs, *one.copies)}


def take_all(
    entries: Sequence[Entry], names: set[str], read: Callable[[str], Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    """Yield our tensors with their names, made from theirs one after the other; those that the file lacks are left out.

    Args:
        names: what the file holds; read: returns a tensor of the file by its name.
        shapes: what heed's model expects, by name.
    Raises:
        CheckpointError: a tensor has another shape than expected, or a second copy of one differs from the first.
    """
    for one in entries:
        present = one.found(names)
        if not present:
            continue
        first = read(present[0])
        for other in present[1:]:
            if not torch.equal(first, read(other)):
                raise CheckpointError(f"{other}: differs from {present[0]}, expected the same tensor twice, for heed ties them")
        yield from _taken(one, first, shapes)


def _taken(one: Entry, theirs: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, Tensor]]:
    try:
        ours = one.take(theirs)
    except (CheckpointError, RuntimeError) as error:
        raise CheckpointError(f"{one.theirs}: {error}") from error
    for name, tensor in zip(one.ours, ours, strict=True):
        if tuple(tensor.shape) != shapes[name]:
            raise CheckpointError(
                f"{one.theirs}: has the shape {tuple(theirs.shape)}, of which {name} would be {tuple(tensor.shape)}, expected "
                f"{shapes[name]}, so config.json and the weights do not belong together"
            )
        yield name, tensor


def give_all(entries: Sequence[Entry], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return their tensors from ours; raises ConfigError where one of ours has no place with them."""
    known = {name for one in entries for name in one.ours}
    homeless = sorted(ours.keys() - known)
    if homeless:
        raise ConfigError(f"{', '.join(homeless)}: no tensor of this format holds that; export a run of another task, or without it")
    return {one.theirs: one.give([ours[name] for name in one.ours]) for one in entries}
