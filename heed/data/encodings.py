"""Text files in UTF-8, UTF-16 or GB18030, plain or .gz: what a file is in is found by decoding all of it, then it is read as a stream.

Left out: encodings of one byte a character. They cannot be told from each other, so they are refused with the byte that shows them.
"""

import codecs
import difflib
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from heed.errors import DataError

CHUNK_BYTES = 1 << 20  # even, so that chunks of UTF-16 stay aligned
WHOLE_PER_FAULT = 4  # characters for each fault that make a file damaged UTF-8 rather than GB18030
# Of GB18030 text, at least this share of characters beyond ASCII is in its everyday part (GB 2312); Latin-1 read as GB18030 has none.
MIN_EVERYDAY_SHARE = 0.25
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
MIN_PAIRS = 0.75  # share of pairs of bytes without a NUL that are printable ASCII on both sides, from which a text is no UTF-16
SEPARATORS = np.array([ord(char) for char in '\t\n\r ",:'], dtype=np.uint16)


@dataclass(frozen=True)
class Scan:
    """What decoding all of a text file found."""

    encoding: str
    n_lines: int


class UndecodableError(Exception):
    """A file is no text in the encoding tried; `offset` is the byte, counted from 0 in the uncompressed file, and whether it is a NUL."""

    def __init__(self, offset: int, *, is_nul: bool = False) -> None:
        super().__init__(offset)
        self.offset, self.is_nul = offset, is_nul


def read_lines(file: str | Path) -> Iterator[str]:
    """Return the lines of a text file in any of the encodings, plain or .gz, blank ones included.

    Raises:
        DataError: the file is missing, or no text.
    """
    path = existing(Path(file).expanduser())
    return decoded_lines(path, scan_text(path).encoding)


def read_text(path: Path) -> str:
    """Return all of a text file in any of the encodings as it stands, line ends included, but for a byte order mark.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    with suppress(OSError, UnicodeDecodeError):  # small files in UTF-8, as nearly all are: one look at each is enough
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" not in text:
            return text
    return "".join(_decoded_chunks(path, scan_text(path).encoding)).removeprefix("\ufeff")


def existing(path: Path) -> Path:
    """Return the path of a file, or raise with the nearest name in its folder."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; expected a file")
    if path.exists():
        return path
    if not path.parent.is_dir():
        raise DataError(f"{path}: no such file, and no folder {path.parent}; check the path")
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], n=1, cutoff=0.4)
    hint = f"did you mean {path.parent / near[0]}?" if near else "check the path"
    raise DataError(f"{path}: no such file; {hint}")


def scan_text(path: Path) -> Scan:
    """Find the encoding of a text file by decoding all of it.

    Raises:
        DataError: the file cannot be read, or is text in none of the encodings.
    """
    try:
        return _recognised(path)
    except (OSError, EOFError, zlib.error) as error:
        what = "is cut off or no gzip file" if path.name.lower().endswith(".gz") else "cannot be read"
        raise DataError(f"{path}: {what} ({error}); copy it again from where it came") from error


def decoded_lines(path: Path, encoding: str) -> Iterator[str]:
    """Return the lines of a file without LF or CR LF; nothing else ends a line."""
    with io.TextIOWrapper(_open(path), encoding=encoding, newline="\n") as file:
        for number, line in enumerate(file):
            text = line.removesuffix("\n")
            text = text.removesuffix("\r") if len(text) < len(line) else text
            yield text.removeprefix("\ufeff") if number == 0 else text


def _recognised(path: Path) -> Scan:
    """Try the encoding its mark names, or UTF-8 and then the likelier of UTF-16 and GB18030."""
    with _open(path) as file:
        start = file.read(4)
    marked = next((encoding for mark, encoding in BYTE_ORDER_MARKS.items() if start.startswith(mark)), None)
    try:
        return _decoded(path, marked or "utf-8")
    except UndecodableError as error:
        fault = error
    other = None if marked else _unmarked_encoding(path)
    if other is not None:
        try:
            return _decoded(path, other)
        except UndecodableError as error:
            # In UTF-16 the first NUL stops UTF-8, which says nothing; otherwise the file was most likely meant to be UTF-8.
            fault = fault if other == "gb18030" else error
    if fault.is_nul and marked is None:
        raise DataError(
            f"{path}: byte {fault.offset} is NUL, which no text holds; remove it (tr -d '\\000'), or save the file as UTF-8 if it is of "
            "another encoding"
        )
    raise DataError(
        f"{path}: byte {fault.offset} is not text in {marked or 'UTF-8, UTF-16 or GB18030'}; save the file as UTF-8 "
        f"(for Latin-1: iconv -f latin1 -t utf-8)"
    )


def _decoded(path: Path, encoding: str) -> Scan:
    """Decode a whole file chunk by chunk and count its lines; raise UndecodableError where it is no text."""
    n_breaks, last, n_wide, n_everyday = 0, "\n", 0, 0
    for text in _decoded_chunks(path, encoding):
        n_breaks += text.count("\n")
        last = text[-1:] or last
        if encoding == "gb18030":
            n_ascii = len(text.encode("ascii", "ignore"))
            n_wide += len(text) - n_ascii
            n_everyday += len(text.encode("gb2312", "ignore").decode("gb2312")) - n_ascii
    if n_everyday < MIN_EVERYDAY_SHARE * n_wide:
        raise UndecodableError(0)
    return Scan(encoding, n_breaks + (last != "\n"))


def _decoded_chunks(path: Path, encoding: str) -> Iterator[str]:
    """Decode strictly, a chunk at a time; NUL is taken for no text."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    n_read = 0
    for chunk in chain(_chunks(path), [b""]):
        start = n_read - len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise UndecodableError(start + error.start) from error
        if "\0" in text:
            raise UndecodableError(start + len(text[: text.index("\0")].encode(encoding)), is_nul=True)
        yield text
        n_read += len(chunk)


def _unmarked_encoding(path: Path) -> str | None:
    """Guess what a file is that is not UTF-8; None for UTF-8 with faults.

    In UTF-16, spaces, line ends and their like hold a NUL byte on the side that the byte order gives. Text in UTF-8 has far more
    whole characters beyond ASCII than faults; GB18030 read as UTF-8 the other way round. Where neither has any, as in English, pairs of
    bytes that both are letters and the like are those of UTF-8, be there a stray NUL or not: in UTF-16 they are rare Chinese characters.
    """
    n_little = n_big = n_whole = n_faults = n_pairs = n_units = 0
    for chunk in _chunks(path):
        units = np.frombuffer(chunk[: len(chunk) // 2 * 2], dtype="<u2")
        n_little += int(np.isin(units, SEPARATORS).sum())
        n_big += int(np.isin(units, SEPARATORS << 8).sum())
        low, high = (np.frombuffer(chunk, dtype=np.uint8)[side : len(chunk) // 2 * 2 : 2] for side in (0, 1))
        n_pairs += int((_is_printable(low) & _is_printable(high)).sum())
        n_units += int((_is_no_gap(low) & _is_no_gap(high)).sum())
        n_whole += len(chunk.decode("utf-8", "ignore")) - len(chunk.decode("ascii", "ignore"))
        n_faults += chunk.decode("utf-8", "replace").count("\ufffd")
    is_eight_bit = n_whole >= WHOLE_PER_FAULT * n_faults and (n_whole > 0 or n_pairs >= max(1, MIN_PAIRS * n_units))
    if (n_little or n_big) and not is_eight_bit:
        return "utf-16-le" if n_little > n_big else "utf-16-be"
    return None if n_whole >= WHOLE_PER_FAULT * n_faults else "gb18030"


def _is_printable(values: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which bytes are printable ASCII."""
    return (values >= ord(" ")) & (values <= ord("~"))


def _is_no_gap(values: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which bytes are neither NUL nor a tab or of a line's end."""
    return ~np.isin(values, [0, *b"\t\n\r"])


def _chunks(path: Path) -> Iterator[bytes]:
    with _open(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb"))
