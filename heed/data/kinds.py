"""What the value of a column may be, by the kind that a task asks for, and what it comes out as; `read_examples` describes them."""

import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from heed.data.squad import read_answers
from heed.files import parse_json


class MisfitError(Exception):
    """A value is not of the kind that its column asks for; the text goes on after the column's name."""


def _text(value: object) -> str:
    """Return a text as it stands; raises MisfitError for anything else, and for a blank one."""
    if not isinstance(value, str):
        raise _misfit(value, "text")
    if not value.strip():
        raise MisfitError("is empty")
    return value


def _label(value: object) -> str:
    """Return one label as text; raises MisfitError for what is none."""
    if isinstance(value, list):
        raise MisfitError(f"is the list {shortened(value)}; expected one label; if an example can have several, set task.multi_label=true")
    return _one_label(value)


def _labels(value: object) -> list[str]:
    """Return labels as texts, each once, of a list or of one text with "|" between them; raises MisfitError for what are none."""
    if not isinstance(value, str | list):
        return [_one_label(value)]
    try:
        return list(dict.fromkeys(map(_one_label, _parts(value) if isinstance(value, str) else value)))
    except MisfitError as error:
        raise MisfitError(f"is {shortened(value)}, of which one {error}") from error


def _parts(text: str) -> list[str]:
    return text.split("|") if text.strip() else []


def _one_label(value: object) -> str:
    if isinstance(value, str):
        return _text(value).strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise _misfit(value, "a label: text or a whole number")


def _share(value: object) -> float:
    """Return a number from 0 to 1, also one that is written as text; raises MisfitError."""
    with suppress(TypeError, ValueError):
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        if 0 <= number <= 1:
            return number
    raise _misfit(value, "a number from 0 to 1; divide by the highest that there can be")


def _words(value: object) -> str | list[str]:
    """Return the words of a sentence: a list of them, also as JSON in a cell, or a text as it stands; raises MisfitError."""
    if isinstance(value, str) and value.lstrip().startswith('["'):  # a sentence may begin with a bracket, too
        with suppress(ValueError):
            value = parse_json(value)
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise _misfit(value, "a list of words, or a text with white space between them")
    if not value or not all(map(str.strip, value)):
        raise MisfitError("is empty" if not value else f"is {shortened(value)}, of which one is empty")
    return value


def _tags(value: object) -> list[str]:
    """Return the tag of each word: a list, also as JSON in a cell, or a text with white space between them; raises MisfitError."""
    found = _words([str(tag) if type(tag) is int else tag for tag in value] if isinstance(value, list) else value)
    return found.split() if isinstance(found, str) else found


def _answers(value: object) -> list[dict[str, Any]]:
    """Return answers as {text, start}; raises MisfitError for what are none."""
    found = read_answers(value)
    if isinstance(found, str):
        raise MisfitError(found)
    return found


def _transcript(value: object) -> str:
    """Return a text as it stands, also an empty one, for there are recordings in which nothing is said; raises MisfitError."""
    if not isinstance(value, str):
        raise _misfit(value, "text, which may be empty")
    return value


def recording(folder: Path | None, value: object) -> str | bytes:
    """Return the absolute path of a recording, or the bytes of its file; raises MisfitError for what is neither, or not there.

    Args:
        folder: where paths start from; None for a source that lies in no folder.
        value: a path, bytes, or an object that holds either.
    """
    if isinstance(value, dict) and value.keys() & {"bytes", "path"}:
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise _misfit(value, "the path of a recording")
    if not value.strip():
        raise MisfitError("is empty; expected the path of a recording")
    path = os.path.join(folder or "", os.path.expanduser(value))
    if not os.path.isabs(path):
        raise MisfitError(f"names {path!r}, but this source lies in no folder; expected the content of the recording")
    if not os.path.isfile(path):
        raise MisfitError(f"names {path!r}, which is {'a folder' if os.path.isdir(path) else 'not there'}")
    return path


def _misfit(value: object, expected: str) -> MisfitError:
    found = "null" if value is None else f"{shortened(value)}, of type {type(value).__name__}"
    return MisfitError(f"is {found}; expected {expected}")


def shortened(value: object) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


KINDS: dict[str, Callable[[object], Any]] = {
    "text": _text,
    "label": _label,
    "labels": _labels,
    "transcript": _transcript,
    "answers": _answers,
    "share": _share,
    "words": _words,
    "tags": _tags,
}
