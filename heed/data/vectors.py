"""Pretrained word vectors: GloVe text (Pennington et al. 2014), word2vec text and binary (Mikolov et al. 2013), plain or .gz.

Files are read as a stream, and only the vectors of wanted words are kept. fastText's .vec files are word2vec text. Left out: its .bin
files, which hold a whole model.
"""

import codecs
import gzip
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, dropwhile
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from heed.data.encodings import existing
from heed.data.vocabulary import SPECIALS
from heed.errors import DataError

Format = Literal["glove", "word2vec", "word2vec binary"]
# A line or a record: its number from 1, the word, and its values as they stand in the file.
Row = tuple[int, bytes, bytes]

HEADER = re.compile(rb"\s*([0-9]{1,18})[ \t]+([0-9]{1,18})\s*")
MAX_DIMENSION = 100_000  # more is no file of vectors
MAX_WORD_BYTES = 10_000  # a "word" of more bytes is no word, but values read at the wrong place
SAMPLE_BYTES = 4096  # after the header, looked at to tell text from binary
CHUNK_BYTES = 1 << 20
BINARY = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # bytes that no line of text holds
MISSING_SHOWN = 10
DAMAGED = "copy the file again from where it came"


@dataclass(frozen=True, eq=False)
class Vectors:
    """The vectors of those wanted words that a file knows.

    Attributes:
        values: (n, d), a row for each word.
        words: the wanted words, sorted.
        spellings: the file's word behind each: the same, else its lower case, else its lower case with a capital.
        dimension: d.
        format: what the file was read as.
    """

    values: NDArray[np.float32]
    words: list[str]
    spellings: list[str]
    dimension: int
    format: Format


def read_vectors(path: str | Path, wanted: Collection[str]) -> Vectors:
    """Read the vectors of wanted words from a file, whose format is recognised.

    A word of the file that stands in it twice has its first vector. Values are looked at for wanted words only, their number for all.

    Args:
        path: GloVe text, or word2vec text or binary; gzip when it ends in .gz.
        wanted: words; a mapping gives its keys.
    Raises:
        DataError: the file is missing, empty, cut off or of another format, a line has the wrong length, a value is no finite number, or
            the file knows none of the words.
    """
    file = existing(Path(path).expanduser())
    packed = file.name.lower().endswith(".gz")
    try:
        with cast(BinaryIO, gzip.open(file, "rb") if packed else file.open("rb")) as stream:
            return _chosen(_recognised(stream, file), wanted)
    except (OSError, EOFError, zlib.error) as error:
        what = "is cut off or no gzip file" if packed else "cannot be read"
        raise DataError(f"{file}: {what} ({error}); {DAMAGED}") from error


def matrix(
    vocabulary: Sequence[str], vectors: Vectors, *, seed: int, counts: Mapping[str, int] | None = None
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return an embedding for a vocabulary, and how much of it has a pretrained vector.

    Unknown-word rule: a word without a vector, and a special token, draws each dimension from the normal distribution that has the
    mean and the standard deviation of this dimension over all vectors found. Padding is zero.

    Args:
        vocabulary: V words by id; the first are the special tokens, which are never looked up.
        vectors: what `read_vectors` found.
        seed: of the draws.
        counts: how often each word of a text occurs, words outside the vocabulary included.
    Returns:
        (V, d), and the coverage: `words` looked for and `found`, their `share`, how many were found `by_lower_case` and `by_capital`,
        the first of the `missing` ones, and with counts `share_of_text`, the share of running words that are found.
    """
    rows = {word: row for row, word in enumerate(vectors.words)}
    places = np.array([-1 if index < len(SPECIALS) else rows.get(word, -1) for index, word in enumerate(vocabulary)], dtype=np.int64)
    known = places >= 0
    mean, deviation = vectors.values.mean(0, dtype=np.float64), vectors.values.std(0, dtype=np.float64)
    values = np.empty((len(vocabulary), vectors.dimension), dtype=np.float32)
    values[known] = vectors.values[places[known]]
    values[~known] = np.random.default_rng(seed).normal(mean, deviation, size=(int((~known).sum()), vectors.dimension))
    values[SPECIALS.index("<pad>")] = 0
    return values, _coverage(vocabulary, vectors, places, counts)


def _coverage(vocabulary: Sequence[str], vectors: Vectors, places: NDArray[np.int64], counts: Mapping[str, int] | None) -> dict[str, Any]:
    """Count the words with a place among the vectors; a negative place is none."""
    words = list(zip(vocabulary, places.tolist(), strict=True))[len(SPECIALS) :]
    spelled = [(word, vectors.spellings[place]) for word, place in words if place >= 0]
    by_lower_case = sum(word != spelling == word.lower() for word, spelling in spelled)
    coverage: dict[str, Any] = {
        "words": len(words),
        "found": len(spelled),
        "share": len(spelled) / max(1, len(words)),
        "by_lower_case": by_lower_case,
        "by_capital": sum(word != spelling for word, spelling in spelled) - by_lower_case,
        "missing": [word for word, place in words if place < 0][:MISSING_SHOWN],
    }
    if counts is not None:
        coverage["share_of_text"] = sum(counts.get(word, 0) for word, _ in spelled) / max(1, sum(counts.values()))
    return coverage


@dataclass(frozen=True)
class _Table:
    """A file whose format is known; `n_words` is what its header promises, None without one."""

    path: Path
    format: Format
    dimension: int
    n_words: int | None
    rows: Iterator[Row]

    def values(self, row: Row) -> NDArray[np.float32]:
        """Return the values of a row (d,); raises DataError for one that is no finite number of float32."""
        number, _, raw = row
        place = f"{self.path}: word {number}" if self.format == "word2vec binary" else f"{self.path}:{number}"
        found = np.frombuffer(raw, dtype="<f4") if self.format == "word2vec binary" else _numbers(raw, place)
        with np.errstate(over="ignore"):
            values = found.astype(np.float32)
        fits = np.isfinite(values)
        if not fits.all():
            raise DataError(f"{place}: value {int(fits.argmin()) + 1} is {values[fits.argmin()]}, expected a finite number; {DAMAGED}")
        return values


def _chosen(table: _Table, wanted: Collection[str]) -> Vectors:
    """Read a whole table and keep the vectors of wanted words."""
    words = sorted(set(wanted) - set(SPECIALS))
    spellings = {word: [spelling.encode("utf-8", "surrogatepass") for spelling in _spellings(word)] for word in words}
    looked_for = set(chain.from_iterable(spellings.values()))
    found: dict[bytes, NDArray[np.float32]] = {}
    n_rows = 0
    for row in table.rows:
        n_rows += 1
        if row[1] in looked_for and row[1] not in found:
            found[row[1]] = table.values(row)
    if table.n_words is not None and n_rows != table.n_words:
        raise DataError(f"{table.path}: the header promises {table.n_words} words, but the file holds {n_rows}; {DAMAGED}")
    pairs = [(word, next((spelling for spelling in known if spelling in found), None)) for word, known in spellings.items()]
    matched = [(word, spelling) for word, spelling in pairs if spelling is not None]
    if not matched:
        raise DataError(
            f"{table.path}: none of the {len(words)} words of the vocabulary is among its {n_rows} words; use vectors of the language "
            "of the data"
        )
    return Vectors(
        values=np.stack([found[spelling] for _, spelling in matched]),
        words=[word for word, _ in matched],
        spellings=[spelling.decode("utf-8", "surrogatepass") for _, spelling in matched],
        dimension=table.dimension,
        format=table.format,
    )


def _spellings(word: str) -> list[str]:
    """Return how a file may spell a word, the best first."""
    return list(dict.fromkeys([word, word.lower(), word.capitalize()]))


def _recognised(stream: BinaryIO, path: Path) -> _Table:
    """Tell the format of a file by its first line and what follows."""
    first = stream.readline()
    start = stream.tell()
    if not first:
        raise DataError(f"{path}: is empty; expected word vectors")
    first = first.removeprefix(codecs.BOM_UTF8)
    header = HEADER.fullmatch(first)
    if header is None:
        dimension = _dimension(first, path)
        return _Table(path, "glove", dimension, None, _text_rows(chain([first], stream), path, dimension, start=1))
    n_words, dimension = int(header[1]), int(header[2])
    if not 0 < dimension <= MAX_DIMENSION or n_words == 0:
        raise DataError(f"{path}:1: a header of {n_words} words of {dimension} values each; expected some of 1 to {MAX_DIMENSION}")
    sample = stream.read(SAMPLE_BYTES)
    stream.seek(start)
    if _is_text(sample):
        return _Table(path, "word2vec", dimension, n_words, _text_rows(stream, path, dimension, start=2))
    return _Table(path, "word2vec binary", dimension, n_words, _binary_rows(stream, path, dimension, n_words))


def _is_text(sample: bytes) -> bool:
    """Return whether bytes are UTF-8 without control characters; the last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return BINARY.search(sample) is None


def _dimension(line: bytes, path: Path) -> int:
    """Return how many values the first line of a file without a header has."""
    values = list(dropwhile(lambda field: not _is_number(field), line.rstrip().split(b" ")[1:]))
    odd = next((field for field in values if not _is_number(field)), None)
    if odd is not None:
        raise DataError(f"{path}:1: {_shown(odd)} is no number; {DAMAGED}")
    if not values:
        raise DataError(
            f"{path}:1: {_shown(line)} is neither a word and its values, separated by spaces (GloVe), nor a header of two numbers, words "
            "and values each (word2vec)"
        )
    return len(values)


def _text_rows(lines: Iterable[bytes], path: Path, dimension: int, *, start: int) -> Iterator[Row]:
    """Yield the lines of a text file; `start` is the number of the first. A word may hold spaces, the values are the last d fields."""
    for number, line in enumerate(lines, start):
        line = line.rstrip()
        if not line:
            continue
        n_spaces = line.count(b" ")
        if n_spaces < dimension:
            raise DataError(f"{path}:{number}: expected a word and {dimension} values, found {n_spaces + 1} fields in all; {DAMAGED}")
        word = line[: line.index(b" ")] if n_spaces == dimension else line.rsplit(b" ", dimension)[0]
        if n_spaces > dimension and _is_number(word.rsplit(b" ", 1)[-1]):
            raise DataError(f"{path}:{number}: expected a word and {dimension} values, found {n_spaces} values; {DAMAGED}")
        yield number, word, line[len(word) + 1 :]


def _binary_rows(stream: BinaryIO, path: Path, dimension: int, n_words: int) -> Iterator[Row]:
    """Yield the records of a binary file: a word, a space, d little-endian float32, and in some files a line end."""
    n_bytes, buffer, start = 4 * dimension, b"", 0
    for number in range(1, n_words + 1):
        while (space := buffer.find(b" ", start, start + MAX_WORD_BYTES)) < 0 or space + 1 + n_bytes > len(buffer):
            chunk = stream.read(CHUNK_BYTES) if space >= 0 or len(buffer) - start < MAX_WORD_BYTES else b""
            if not chunk:
                raise DataError(
                    f"{path}: word {number} of {n_words} is cut off or no word with {dimension} values of float32, as the header has it; "
                    f"{DAMAGED}"
                )
            buffer, start = buffer[start:] + chunk, 0
        yield number, buffer[start:space].lstrip(b"\n"), buffer[space + 1 : space + 1 + n_bytes]
        start = space + 1 + n_bytes
    if (buffer[start:] + stream.read(CHUNK_BYTES)).strip(b"\n"):
        raise DataError(f"{path}: goes on after the {n_words} words of {dimension} values that the header promises; {DAMAGED}")


def _numbers(raw: bytes, place: str) -> NDArray[np.float64]:
    """Return the numbers of a line; raises DataError for what is none."""
    fields = raw.split(b" ")
    try:
        return np.array([float(field) for field in fields])
    except ValueError as error:
        odd = next(field for field in fields if not _is_number(field))
        raise DataError(f"{place}: {_shown(odd)} is no number; {DAMAGED}") from error


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _shown(raw: bytes) -> str:
    return repr(raw[:60].decode("utf-8", "replace"))
