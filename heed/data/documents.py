"""Documents: plain text files as a stream of rows, and long documents in pieces.

Text is taken as it stands, line ends and indentation included. Left out: mark-up, which stays in the text.
"""

import gzip
import re
from collections.abc import Iterable, Iterator
from glob import glob
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Literal, TextIO, cast

from heed.data.encodings import existing, scan_text
from heed.data.rows import Example
from heed.errors import DataError

Documents = Literal["file", "paragraphs"]

SUFFIXES = (".txt", ".txt.gz")
BLOCK = 1 << 16  # characters of a file in one row
PIECE_CONTEXTS = 16  # contexts of characters in a piece of a long document: few begin in its middle, and a book has enough to hold out
CONTINUES = "continues"  # key of a row whose document goes on in the next row; it has no end yet

BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
# Behind which a long text is best cut, best first: blank lines, a line, a sentence, a word.
BREAKS = (BLANK_LINES, re.compile(r"\n"), re.compile(r"[.!?](?=\s)|[。！？]"), re.compile(r"\s"))


def document_files(source: str) -> list[Path] | None:
    """Return the files of a data specification that names documents; None for one that names anything else.

    Documents are a .txt file (also .gz), a folder that holds such files and no folders, or a pattern such as 'src/**/*.py', in which **
    reaches into folders; hidden files and folders are left out. Files come in the order of their names.

    Raises:
        DataError: there is no such file, or a pattern fits none.
    """
    path = Path(source).expanduser()
    if "*" in source and not path.exists():
        return _fitting(source, str(path))
    if path.is_dir():
        entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
        files = [entry for entry in entries if _is_text(entry)]
        return files if files and not any(entry.is_dir() for entry in entries) else None
    return [existing(path)] if _is_text(path) else None


def _is_text(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def _fitting(source: str, pattern: str) -> list[Path]:
    files = [path for path in map(Path, sorted(glob(pattern, recursive=True))) if path.is_file()]
    if not files:
        raise DataError(f"{source}: no file fits this pattern; check it, and put it in quotes so that the shell leaves it alone")
    return files


def hash_documents(paths: Iterable[Path]) -> str:
    """Return one SHA-256 for all files: over the path, a NUL and the SHA-256 of the content of each, in order."""
    digest = sha256()
    for path in paths:
        with path.open("rb") as file:
            content = sha256()
            while chunk := file.read(1 << 20):
                content.update(chunk)
        digest.update(str(path).encode("utf-8", "surrogateescape") + b"\0" + content.digest())
    return digest.hexdigest()


def text_rows(paths: Iterable[Path], column: str = "text") -> Iterator[tuple[str, Example | str]]:
    """Yield the path of each file with {column: text, "file": path}, or with what is wrong with it.

    A file is one document. One of more than BLOCK characters gives several rows, cut where a reader would pause, which joined are the
    file; all but the last hold CONTINUES: True. Where nothing but white space is left, there is no row.
    """
    for path in paths:
        try:
            encoding = scan_text(path).encoding
        except DataError as error:
            yield str(path), str(error).removeprefix(f"{path}: ")
            continue
        about = {"file": str(path).encode("utf-8", "replace").decode("utf-8")}
        for block, goes_on in _blocks(path, encoding):
            if block.strip():
                yield str(path), {column: block, **about, **continuing(goes_on)}


def continuing(goes_on: bool) -> Example:
    """Return what a row says about its document going on: nothing, or that it does."""
    return {CONTINUES: True} if goes_on else {}


def _blocks(path: Path, encoding: str) -> Iterator[tuple[str, bool]]:
    """Yield the text of a file in blocks, each with whether the file goes on behind it."""
    with _open(path, encoding) as file:
        rest = file.read(BLOCK).removeprefix("\ufeff")
        while text := file.read(BLOCK):
            *blocks, rest = cut_text(rest + text, BLOCK)
            yield from ((block, True) for block in blocks)
    yield rest, False


def _open(path: Path, encoding: str) -> TextIO:
    """Open a text file, plain or .gz, so that its line ends stay as they are."""
    if path.name.lower().endswith(".gz"):
        return cast(TextIO, gzip.open(path, "rt", encoding=encoding, newline=""))
    return path.open(encoding=encoding, newline="")


def cut_text(text: str, size: int) -> list[str]:
    """Cut a text into pieces of at most `size` characters, which joined are the text.

    A piece ends where the second half of what it may hold has the best break (BREAKS), and the last such.
    """
    pieces: list[str] = []
    first = 0
    while len(text) - first > size:
        end = _last_break(text, first + size // 2, first + size)
        pieces.append(text[first:end])
        first = end
    return [*pieces, text[first:]]


def _last_break(text: str, low: int, high: int) -> int:
    for pattern in BREAKS:
        ends = [match.end() for match in pattern.finditer(text, low, high)]
        if ends:
            return ends[-1]
    return high


def divided(example: Example, size: int, documents: Documents = "file") -> Iterator[Example]:
    """Yield a row with a text in rows of at most `size` characters; all but the last of a document hold CONTINUES: True.

    Args:
        documents: what a document is: the whole row (and the rows it goes on in), or each of its paragraphs.
    """
    text, goes_on = example["text"], example.get(CONTINUES) is True
    if documents == "file" and len(text) <= size:
        yield example
        return
    parts = [text] if documents == "file" else paragraphs(text)
    if documents == "paragraphs":
        goes_on = goes_on and not _ends_blank(text)
    rest = {key: value for key, value in example.items() if key != CONTINUES}
    for number, document in enumerate(parts, start=1):
        *inner, last = cut_text(document, size)
        yield from ({**rest, "text": piece, **continuing(True)} for piece in inner)
        yield {**rest, "text": last, **continuing(goes_on and number == len(parts))}


def _ends_blank(text: str) -> bool:
    """Return whether a text ends with a blank line."""
    return any(match.end() == len(text) for match in BLANK_LINES.finditer(text, len(text.rstrip())))


def paragraphs(text: str) -> list[str]:
    """Return what stands between blank lines, without them; nothing for a blank text."""
    groups = groupby(text.split("\n"), key=lambda line: bool(line.strip()))
    return ["\n".join(lines).removesuffix("\r") for written, lines in groups if written]
