"""Text for the eyes of a person at a terminal: nothing in it moves the cursor, and it is cut to the columns there are."""

import sys
import unicodedata
from collections.abc import Callable

ELLIPSIS = "…"
HARMLESS = "\n\t"  # of the control characters


def sayer(quiet: bool) -> Callable[[str], None]:
    """Return what tells of progress, on stderr or, to be quiet, not at all."""
    return (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))  # noqa: T201 (progress)


def visible(text: str) -> str:
    """Return a text in which control characters, by which it could command the terminal, are replaced by U+FFFD."""
    return "".join(char if char in HARMLESS or unicodedata.category(char) != "Cc" else "\ufffd" for char in text)


def plural(number: object, noun: str) -> str:
    """Return a noun as it stands behind a number: "row" behind 1, "rows" behind others; "class" and "classes"."""
    return noun if number == 1 else f"{noun}{'es' if noun.endswith(('s', 'ch')) else 's'}"


def counted(number: int, noun: str) -> str:
    """Return a number with the noun it counts: "1 row", "2 rows"."""
    return f"{number:,} {plural(number, noun)}"


def unread(end: str, number: int, whole: str) -> str:
    """Say how many tokens of a text were left out: "the first token of the text was not read", "the last 4 tokens ... were not read"."""
    tokens = "token" if number == 1 else counted(number, "token")
    return f"the {end} {tokens} of the {whole} {were(number)} not read"


def were(number: int) -> str:
    """Return the verb that stands behind a number: "was" behind 1, "were" behind others."""
    return "was" if number == 1 else "were"


def columns_of(char: str) -> int:
    """Return how many columns of a terminal a character takes: two in East Asian scripts, none where it joins the one before."""
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def end_of(text: str, width: int) -> str:
    """Return the end of a line of text that fits into so many columns, behind an ellipsis where the beginning is left out."""
    if sum(map(columns_of, text)) <= width:
        return text
    room = width - columns_of(ELLIPSIS)
    first = len(text)
    while first > 0 and columns_of(text[first - 1]) <= room:
        first -= 1
        room -= columns_of(text[first])
    return ELLIPSIS + text[first:] if width > 0 else ""


def unit_of(name: str) -> str:
    """Return what the length of an encoded key is counted in: models read audio in hops."""
    return "hops" if name == "audio" else "tokens"
