"""Spelling: characters written as sequences of units that sound alike wherever they stand, such as the dots and dashes of Morse code.

A recogniser then learns a few units rather than many characters. A table says how each character is spelled; no spelling needs to be
free of another as its beginning, because an end stands behind each character.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from heed.data.encodings import read_lines
from heed.data.vocabulary import SPECIALS, Vocabulary
from heed.errors import CheckpointError, DataError

END, SPACE = "|", "▁"  # behind a character, and instead of a space


class Spelling(Vocabulary):
    """A vocabulary of units, and how characters are spelled with them; a `Part` that is saved as one JSON file.

    Args:
        table: character -> its units; two characters are not spelled alike.
    """

    kind: ClassVar[str] = "spelling"

    def __init__(self, table: Mapping[str, Sequence[str]]) -> None:
        self.table = {character: tuple(units) for character, units in table.items()}
        self.units = [*SPECIALS, *sorted({unit for units in self.table.values() for unit in units}), END, SPACE]
        self._ids = {unit: index for index, unit in enumerate(self.units)}
        self._characters = {units: character for character, units in self.table.items()}

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a table with a character, a tab, and its units with spaces between them on each line.

        Raises:
            DataError: a line is of another form, a character stands there twice, or two are spelled alike.
        """
        table: dict[str, tuple[str, ...]] = {}
        for number, line in enumerate(read_lines(str(path)), start=1):
            character, tab, spelled = line.partition("\t")
            units = tuple(spelled.split())
            fault = _fault(character, units, table) if tab else "has no tab"
            if fault is not None:
                raise DataError(f"{path}:{number}: {fault}; expected a character, a tab, and its units with spaces between them")
            table[character] = units
        if not table:
            raise DataError(f"{path}: is empty; expected a character, a tab, and its units on each line")
        return cls(table)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self.units)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text's units; a character without a spelling is unknown (id 3)."""
        ids: list[int] = []
        for character in " ".join(text.split()):
            if character == " ":
                ids = [*ids[:-1], self._ids[SPACE]] if ids[-1] == self._ids[END] else [*ids, self._ids[SPACE]]
            else:
                ids += [*(self._ids[unit] for unit in self.table[character]), self._ids[END]] if character in self.table else [self.unk_id]
        return ids[:-1] if ids and ids[-1] == self._ids[END] else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; units that spell no character are left out, and so are special tokens.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        shown: list[str] = []
        units: list[str] = []
        for unit in [*(self.token(index) for index in ids if self.known(index) > self.unk_id), END]:
            if unit not in (END, SPACE):
                units.append(unit)
                continue
            shown.append(self._characters.get(tuple(units), ""))
            shown += [" "] if unit == SPACE else []
            units = []
        return " ".join("".join(shown).split())

    @property
    def end_id(self) -> int:
        """The unit behind a character."""
        return self._ids[END]

    @property
    def space_id(self) -> int:
        """The unit instead of a space."""
        return self._ids[SPACE]

    def token(self, index: int) -> str:
        """Return one unit; "|" ends a character, "▁" is a space."""
        return self.units[self.known(index)]

    def unknown(self, texts: Iterable[str]) -> set[str]:
        """Return the characters of texts that have no spelling."""
        return {character for text in texts for character in text if character != " "} - self.table.keys()

    def to_json(self) -> dict[str, Any]:
        """Return the table."""
        return {"table": {character: list(units) for character, units in self.table.items()}}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build it again; raises CheckpointError."""
        table = content.get("table")
        known: dict[str, tuple[str, ...]] = {}
        for character, units in table.items() if isinstance(table, dict) else [("", ())]:
            fault = _fault(character, tuple(units), known) if isinstance(units, list | tuple) else "is spelled by no list"
            if fault is not None:
                raise CheckpointError(f"not a spelling ({character!r} {fault}); restore the run folder from a copy")
            known[character] = tuple(units)
        return cls(known)


def _fault(character: str, units: tuple[Any, ...], known: Mapping[str, tuple[str, ...]]) -> str | None:
    """Say what is wrong with the spelling of one character."""
    if len(character) != 1 or character.isspace():
        return f"spells {character!r}, which is not one character"
    if character in known:
        return f"spells {character!r} a second time"
    if not units or not all(isinstance(unit, str) and unit.strip() and unit not in (*SPECIALS, END, SPACE) for unit in units):
        return f"spells {character!r} with {' '.join(map(str, units))!r}, where a unit is missing or one of {END} {SPACE}"
    twin = next((other for other, spelled in known.items() if spelled == units), None)
    return None if twin is None else f"spells {character!r} as {twin!r} is spelled"
