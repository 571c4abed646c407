"""The columns that a task wants: under which names a file has them, and what it is told where it has not."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from heed.data.kinds import KINDS, MisfitError, recording
from heed.data.rows import Example
from heed.data.squad import ANSWER, START, joined_answer
from heed.errors import DataError


@dataclass(frozen=True)
class Columns:
    """Which columns a task wants, of which kind, what the file calls them, and the folder that paths in it start from, if any."""

    kinds: Mapping[str, str]
    rename: Mapping[str, str]
    header: Sequence[str] | None
    folder: Path | None = None

    def in_file(self, column: str) -> str:
        """Return the file's name of one of our columns."""
        return self.rename.get(column, column)

    @cached_property
    def names(self) -> dict[str, str]:
        """The file's name of every column that is required or renamed."""
        return {column: self.in_file(column) for column in (*self.kinds, *self.rename)}

    @cached_property
    def readers(self) -> dict[str, Callable[[object], Any]]:
        """What makes a value of each required column, looked up once rather than for every row."""
        readers: dict[str, Callable[[object], Any]] = {**KINDS, "audio": partial(recording, self.folder)}
        return {column: readers[kind] for column, kind in self.kinds.items()}

    @property
    def wanted(self) -> list[str]:
        """Names the file has to have."""
        return list(dict.fromkeys(self.names.values()))

    def lacking(self, found: Collection[str]) -> dict[str, str]:
        """Return which of our columns a file with these lacks, with its names for them; an answer and its start stand for answers."""
        whole = {self.in_file(part) for part in (ANSWER, START)} <= set(found)
        missing = {column: name for column, name in self.names.items() if name not in found}
        return {column: name for column, name in missing.items() if not (whole and self.kinds.get(column) == "answers")}


def example_of(row: Example, columns: Columns) -> Example | str:
    """Return the row under our names, or what is wrong with it."""
    values = {}
    for column, name in columns.names.items():
        try:
            values[column] = _value(row, name)
        except KeyError:
            parts = [columns.in_file(part) for part in (ANSWER, START)]
            if columns.kinds.get(column) == "answers" and all(part in row for part in parts):
                values[column] = joined_answer(*(row[part] for part in parts))
            elif column in columns.kinds:
                return f"no column {name!r} among {listed(row)}; {column_hint(column, name, row)}"
    taken = set(columns.rename.values()) - set(values)
    example = {name: value for name, value in row.items() if name not in taken} | values
    for column, read in columns.readers.items():
        try:
            example[column] = read(example[column])
        except MisfitError as error:
            return f"column {columns.names[column]!r} {error}"
    return example


def _value(row: Example, name: str) -> Any:
    """Return a column's value; a dotted name that is no column itself reaches into objects."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    if dot and isinstance(row.get(outer), dict):
        return _value(row[outer], inner)
    raise KeyError(name)


def column_hint(column: str, name: str, found: Iterable[str]) -> str:
    """Say how to name a column that was not found."""
    near = difflib.get_close_matches(name.lower(), {other.lower(): other for other in found}, n=1)
    nearest = next((other for other in found if near and other.lower() == near[0]), "NAME")
    return f"name it with data.columns.{column}={nearest}"


def check_given_header(source: str, columns: Columns) -> None:
    """Refuse a header that names a column twice or lacks one."""
    header = list(columns.header or ())
    if len(set(header)) < len(header):
        raise DataError(f"{source}: data.header={bracketed(header)} names a column twice; give every column a name of its own")
    missing = list(columns.lacking(header).values())
    if missing:
        raise DataError(f"{source}: data.header={bracketed(header)} lacks {listed(missing)}; name every column of the file, in order")


def listed(names: Iterable[str]) -> str:
    """Return names as a message lists them."""
    return ", ".join(names) or "nothing"


def bracketed(names: Iterable[str]) -> str:
    """Return names as a setting takes them."""
    return f"[{','.join(names)}]"
