"""How findings stand at a terminal: sections, columns, and texts that are cut to what there is room for."""

from collections.abc import Iterable, Sequence
from typing import Any

SHOWN_CHARACTERS = 60  # of a text in findings, of the path of a recording, and of a setting with many values

Findings = dict[str, Any]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """Set lines under a title; nothing where there are none."""
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def aligned(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Lay out rows of equal length in columns; those in `right` end, the others begin, at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = set(right)
    cells = [
        [f"{text:>{width}}" if i in right else f"{text:<{width}}" for i, (text, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]


def cut(text: str) -> str:
    """Return the beginning of a text."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def cut_path(path: str) -> str:
    """Return the end of a path, where its name stands."""
    return path if len(path) <= SHOWN_CHARACTERS else f"…{path[-SHOWN_CHARACTERS + 1 :]}"
