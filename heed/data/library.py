"""The built-in corpus of text generation: the source of the Python standard library, as it lies on the user's machine.

Every file is a document, taken as it stands, licences and indentation included. Left out: tests, what is generated rather than written
(tables of encodings, of help topics), applications that live in the library, and everything that was installed beside it; and a share of
the files, because a demonstration of minutes reads no more.
"""

import ast
import hashlib
import json
import sysconfig
import textwrap
import warnings
from pathlib import Path

from heed.errors import DataError

LEFT_OUT = {
    *("test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "encodings", "pydoc_data"),
    *("site-packages", "dist-packages", "__pycache__"),
}
PERCENT = {"valid": 2, "test": 3, "train": 55}  # of the files; which they are hangs on their names alone
LEAST_BYTES = 1_000_000  # of source, below which a library is no whole one


def library_files(root: Path) -> list[Path]:
    """Return the source files of a library that people wrote, in the order of their names."""
    found = sorted(root.rglob("*.py"))
    return [path for path in found if LEFT_OUT.isdisjoint(path.relative_to(root).parts) and not path.name.startswith("_sysconfigdata")]


def library_documents(root: Path) -> dict[str, list[dict[str, str]]]:
    """Return three splits of the files as {"file", "text"}; a file without text, or that is no UTF-8, is left out.

    Raises:
        DataError: there is too little source here to learn from.
    """
    splits: dict[str, list[dict[str, str]]] = {name: [] for name in PERCENT}
    for path in library_files(root):
        name = path.relative_to(root).as_posix()
        split, text = split_of(name), _text_of(path)
        if split is not None and text.strip():
            splits[split].append({"file": name, "text": text})
    n_bytes = sum(len(document["text"].encode()) for document in splits["train"])
    if n_bytes < LEAST_BYTES or not (splits["valid"] and splits["test"]):
        raise DataError(
            f"{root}: holds {n_bytes:,} bytes of Python source to learn from, expected the standard library's {LEAST_BYTES:,} or more; use "
            "a Python that comes with its source, or learn from texts of your own: heed train text_generation data.train='src/**/*.py'"
        )
    return splits


def _text_of(path: Path) -> str:
    """Return the text of a file; none where it cannot be read as UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def write_library(folder: Path, root: Path | None = None) -> dict[str, Path]:
    """Write train.jsonl, valid.jsonl and test.jsonl (columns file and text) and return their paths by split.

    Args:
        root: the library's folder; by default that of the running Python.
    Raises:
        DataError: as `library_documents`, or the folder cannot be written.
    """
    splits = library_documents(root or Path(sysconfig.get_paths()["stdlib"]))
    paths = {name: folder / f"{name}.jsonl" for name in splits}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, documents in splits.items():
            lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
            paths[name].write_text("".join(lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"{folder}: the library's source cannot be written here ({error}); choose a folder you may write to") from error
    return paths


def split_of(name: str) -> str | None:
    """Return which split a file belongs to, from its name alone; None for one that is not read."""
    place = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % 100
    for split, percent in PERCENT.items():
        if place < percent:
            return split
        place -= percent
    return None


def first_function(text: str) -> str:
    """Return the source up to the first blank line outside of a docstring, where a short function ends."""
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        if not line.strip() and not inside:
            break
        kept.append(line)
        inside ^= line.count('"""') % 2 == 1
    return "\n".join(kept)


def parses(source: str) -> bool:
    """Return whether a piece of source, which may be indented, is Python by its grammar; nothing of it is run."""
    try:
        with warnings.catch_warnings(action="ignore"):  # such as of escapes in strings
            ast.parse(textwrap.dedent(source))
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True
