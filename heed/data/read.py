"""Sources of examples: delimited text, JSON lines, parquet, parallel text and Hugging Face data sets, read as a stream.

Every source gives rows of named columns in the same way, whatever its format, encoding or compression, and in constant memory:
files are decoded as they are read, parquet comes in record batches. Left out: class folders and manifests, which other tasks need.
"""

import codecs
import csv
import difflib
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

import numpy as np

from heed.errors import DataError, MissingExtra
from heed.files import parse_json

Example = dict[str, Any]
# A row with its number in the source, from 1: its columns, or what is wrong with it.
Row = tuple[int, Example | str]
# The same before its fields have names.
Record = tuple[int, list[str] | str]
T = TypeVar("T")

FORMATS = ("tsv", "csv", "jsonl", "parquet")
SUPPORTED = (
    ".tsv, .csv and .jsonl (also .gz), .parquet, parallel text as 'DIR/train.{en,de}' (also .gz; in quotes, for the shell expands "
    "braces), or hf:NAME[/CONFIG][:SPLIT] for a data set of the Hugging Face hub"
)
CHUNK_BYTES = 1 << 20  # even, so that chunks of UTF-16 stay aligned
BATCH_ROWS = 1024  # rows of parquet in memory at a time
FIELD_LIMIT = 1 << 24  # characters in a CSV field; a quotation mark that is never closed stops here instead of filling memory
MAX_BAD_EXAMPLES = 10
WHOLE_PER_FAULT = 4  # characters for each fault that make a file damaged UTF-8 rather than GB18030
LONE_CR = "\ufdd0"  # a code point Unicode reserves for a program's own use
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…", "”", "»")
# Of GB18030 text, at least this share of characters beyond ASCII is in its everyday part (GB 2312); Latin-1 read as GB18030 has none.
MIN_EVERYDAY_SHARE = 0.25


@dataclass
class ReadLog:
    """What reading a source found; filled while rows are read.

    Attributes:
        source: the data specification.
        format: tsv, csv, jsonl, parquet, parallel or hf.
        encoding: of the text, "" for formats that are not text; one per side of parallel text.
        rows: examples given out.
        bad: rows skipped.
        bad_examples: what was wrong with the first of them.
    """

    source: str = ""
    format: str = ""
    encoding: str = ""
    rows: int = 0
    bad: int = 0
    bad_examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Columns:
    """Which columns a task wants and what the file calls them."""

    required: Sequence[str]
    rename: Mapping[str, str]
    header: Sequence[str] | None

    def in_file(self, column: str) -> str:
        """Return the file's name of one of our columns."""
        return self.rename.get(column, column)

    @property
    def wanted(self) -> list[str]:
        """Names the file has to have."""
        return list(dict.fromkeys([*map(self.in_file, self.required), *self.rename.values()]))


def data_files(source: str) -> list[Path]:
    """Return the files behind a data specification; none for `hf:` names.

    Raises:
        DataError: a file is missing, or the specification is of no supported form.
    """
    return [] if source.startswith("hf:") else _find(source)[1]


def hash_files(source: str) -> dict[str, str]:
    """Return the SHA-256 of each file behind a data specification, by file name."""
    hashes = {}
    for path in data_files(source):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def read_lines(file: str | Path) -> Iterator[str]:
    """Return the lines of a text file in any of the encodings, plain or .gz, blank ones included.

    Raises:
        DataError: the file is missing, or no text.
    """
    path = _existing(Path(file).expanduser())
    return _lines(path, _scan(path).encoding)


def read_examples(
    source: str,
    *,
    required: Sequence[str],
    rename: Mapping[str, str] | None = None,
    header: Sequence[str] | None = None,
    bad_rows: Literal["error", "skip"] = "error",
    log: ReadLog | None = None,
) -> Iterator[Example]:
    """Read examples one by one; files are checked before the first one is given out.

    Columns beyond the required ones stay in the example, and white space stays as it is. Lines end at LF (or CR LF) only. A file is
    UTF-8, UTF-16 or GB18030 text, found out by decoding all of it. The ways of the formats:

    - TSV is split at tabs and knows no quoting, but a field that a spreadsheet has quoted for its quotation marks
      (`"a ""quoted"" word"`: quotes around it, every one inside doubled) is read without that quoting.
    - CSV follows RFC 4180, line breaks in quoted fields included. It is separated by ";" where only that finds the wanted columns.
    - JSONL holds one object per line. `translation.de` as a file's column reaches into an object.
    - Parallel text fills the required columns in the order of the suffixes.
    - `hf:OWNER/NAME`, `hf:OWNER/NAME/CONFIG` and `hf:NAME`: one slash is always an owner, as nearly every data set has one; a
      configuration without owner is `hf:/NAME/CONFIG`. The split is `train` unless `:SPLIT` follows.

    Args:
        source: a file, parallel text, or an `hf:` name.
        required: columns that every example has to hold as text that is not blank.
        rename: the file's name for a column of ours; parallel text has no names and needs none.
        header: names for the columns of a TSV or CSV file without a header row; a first line that holds just these names is still
            taken for a header row, and formats whose rows name their own columns do not use it, so that splits may differ in form.
        bad_rows: whether a row that cannot be used is an error or is skipped and counted.
        log: filled while reading.
    Raises:
        DataError: naming file and line.
        MissingExtra: `hf:` without the `datasets` package.
    """
    log = ReadLog() if log is None else log
    log.source = source
    columns = Columns(required, rename or {}, header)
    if header is not None:
        _check_given_header(source, columns)
    rows = _hub_rows(source, columns, log) if source.startswith("hf:") else _file_rows(source, columns, log)
    return _usable(rows, columns, bad_rows, log)


def _usable(rows: Iterator[Row], columns: Columns, bad_rows: str, log: ReadLog) -> Iterator[Example]:
    """Give out the examples of good rows; raise for bad ones, or count them."""
    for number, content in rows:
        example = content if isinstance(content, str) else _example(content, columns)
        if not isinstance(example, str):
            log.rows += 1
            yield example
            continue
        problem = f"{log.source}:{number}: {example}"
        if bad_rows == "error":
            raise DataError(f"{problem}; mend the row, or set data.bad_rows=skip to leave such rows out")
        log.bad += 1
        if len(log.bad_examples) < MAX_BAD_EXAMPLES:
            log.bad_examples.append(problem)
    if not log.rows:
        found = f"none of its {log.bad} rows can be used; the first: {log.bad_examples[0]}" if log.bad else "it holds no rows"
        raise DataError(f"{log.source}: {found}; expected rows with {_listed(columns.required)}")


def _example(row: Example, columns: Columns) -> Example | str:
    """Return the row under our names, or what is wrong with it."""
    values = {}
    for column in dict.fromkeys([*columns.required, *columns.rename]):
        name = columns.in_file(column)
        try:
            values[column] = _value(row, name)
        except KeyError:
            if column in columns.required:
                return f"no column {name!r} among {_listed(row)}; {_column_hint(column, name, row)}"
    taken = set(columns.rename.values()) - set(values)
    example = {name: value for name, value in row.items() if name not in taken} | values
    fault = next((fault for column in columns.required if (fault := _fault(columns.in_file(column), example[column]))), None)
    return fault or example


def _value(row: Example, name: str) -> Any:
    """Return a column's value; a dotted name that is no column itself reaches into objects."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    if dot and isinstance(row.get(outer), dict):
        return _value(row[outer], inner)
    raise KeyError(name)


def _fault(column: str, value: object) -> str | None:
    """Say what keeps a value from being text, or return None."""
    if value is None:
        return f"column {column!r} is null; expected text"
    if not isinstance(value, str):
        return f"column {column!r} is {_shortened(value)}, of type {type(value).__name__}; expected text"
    return None if value.strip() else f"column {column!r} is empty"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _column_hint(column: str, name: str, found: Iterable[str]) -> str:
    """Say how to name a column that was not found."""
    near = difflib.get_close_matches(name.lower(), {other.lower(): other for other in found}, n=1)
    nearest = next((other for other in found if near and other.lower() == near[0]), "NAME")
    return f"name it with data.columns.{column}={nearest}"


def _check_given_header(source: str, columns: Columns) -> None:
    """Refuse a header that names a column twice or lacks one."""
    header = list(columns.header or ())
    if len(set(header)) < len(header):
        raise DataError(f"{source}: data.header={_bracketed(header)} names a column twice; give every column a name of its own")
    missing = [name for name in columns.wanted if name not in header]
    if missing:
        raise DataError(f"{source}: data.header={_bracketed(header)} lacks {_listed(missing)}; name every column of the file, in order")


def _bracketed(names: Iterable[str]) -> str:
    return f"[{','.join(names)}]"


def _find(source: str) -> tuple[str, list[Path]]:
    """Return the format of a data specification and its files.

    Raises:
        DataError: a file is missing or of no supported form.
    """
    path = Path(source).expanduser()
    braces = re.fullmatch(r"(.*)\{([^{}]*)\}([^{}/]*)", source, re.DOTALL)
    if braces and not path.exists():
        suffixes = [suffix.strip() for suffix in braces[2].split(",")]
        if len(suffixes) != 2 or not all(suffixes):
            raise DataError(f"{source}: parallel text has two suffixes, source and target, as in DIR/train.{{en,de}}; found {braces[2]!r}")
        return "parallel", [_existing(Path(f"{braces[1]}{suffix}{braces[3]}").expanduser()) for suffix in suffixes]
    if path.is_dir():
        raise DataError(f"{source}: is a folder; expected {SUPPORTED}")
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix not in FORMATS or path.name.lower().endswith(".parquet.gz"):
        raise DataError(f"{source}: its form is not known by its name; expected {SUPPORTED}")
    return suffix, [_existing(path)]


def _existing(path: Path) -> Path:
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


def _file_rows(source: str, columns: Columns, log: ReadLog) -> Iterator[Row]:
    """Open the files of a data specification and return their rows."""
    log.format, paths = _find(source)
    if log.format == "parquet":
        return _parquet_rows(paths[0], columns)
    scans = [_scan(path) for path in paths]
    log.encoding = ", ".join(dict.fromkeys(scan.encoding for scan in scans))
    for path, scan in zip(paths, scans, strict=True):
        if not scan.n_lines:
            raise DataError(f"{path}: is empty; expected rows with {_listed(columns.required)}")
    if log.format == "parallel":
        return _parallel_rows(source, paths, scans, columns)
    lines = _lines(paths[0], scans[0].encoding)
    if log.format == "jsonl":
        return ((number, _parsed(line)) for number, line in _settled(enumerate(lines, 1)))
    records = _tsv_records(lines) if log.format == "tsv" else _csv_records(lines, columns)
    return _table_rows(source, records, columns)


@dataclass(frozen=True)
class Scan:
    """What decoding all of a text file found."""

    encoding: str
    n_lines: int


class UndecodableError(Exception):
    """A file is no text in the encoding tried; `offset` is the byte, counted from 0 in the uncompressed file."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
SEPARATORS = np.array([ord(char) for char in '\t\n\r ",:'], dtype=np.uint16)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb"))


def _chunks(path: Path) -> Iterator[bytes]:
    with _open(path) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _scan(path: Path) -> Scan:
    """Find the encoding of a text file by decoding all of it.

    Raises:
        DataError: the file cannot be read, or is text in none of the encodings.
    """
    try:
        return _recognised(path)
    except (OSError, EOFError, zlib.error) as error:
        what = "is cut off or no gzip file" if path.name.lower().endswith(".gz") else "cannot be read"
        raise DataError(f"{path}: {what} ({error}); copy it again from where it came") from error


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
            raise UndecodableError(start + len(text[: text.index("\0")].encode(encoding)))
        yield text
        n_read += len(chunk)


def _unmarked_encoding(path: Path) -> str | None:
    """Guess what a file is that is not UTF-8; None for UTF-8 with faults.

    In UTF-16, spaces, line ends and their like hold a NUL byte on the side that the byte order gives. Text in UTF-8 has far more
    whole characters beyond ASCII than faults; GB18030 read as UTF-8 the other way round.
    """
    n_little = n_big = n_whole = n_faults = 0
    for chunk in _chunks(path):
        units = np.frombuffer(chunk[: len(chunk) // 2 * 2], dtype="<u2")
        n_little += int(np.isin(units, SEPARATORS).sum())
        n_big += int(np.isin(units, SEPARATORS << 8).sum())
        n_whole += len(chunk.decode("utf-8", "ignore")) - len(chunk.decode("ascii", "ignore"))
        n_faults += chunk.decode("utf-8", "replace").count("\ufffd")
    if n_little or n_big:
        return "utf-16-le" if n_little > n_big else "utf-16-be"
    return None if n_whole >= WHOLE_PER_FAULT * n_faults else "gb18030"


def _lines(path: Path, encoding: str) -> Iterator[str]:
    """Return the lines of a file without LF or CR LF; nothing else ends a line."""
    with io.TextIOWrapper(_open(path), encoding=encoding, newline="\n") as file:
        for number, line in enumerate(file):
            text = line.removesuffix("\n")
            text = text.removesuffix("\r") if len(text) < len(line) else text
            yield text.removeprefix("\ufeff") if number == 0 else text


def _settled(items: Iterable[tuple[int, T]]) -> Iterator[tuple[int, T]]:
    """Pass numbered items on, without the blank ones at the end."""
    blanks: list[tuple[int, T]] = []
    for number, item in items:
        blanks.append((number, item))
        if item:
            yield from blanks
            blanks.clear()


def _parsed(line: str) -> Example | str:
    """Return the object of a JSON line, or what is wrong with it."""
    try:
        content = parse_json(line)
    except ValueError as error:
        return f"{_shortened(line)} is not JSON ({error}); expected one object per line" if line else "a blank line; expected a JSON object"
    return content if isinstance(content, dict) else f"{_shortened(content)} is of type {type(content).__name__}; expected a JSON object"


def _parallel_rows(source: str, paths: Sequence[Path], scans: Sequence[Scan], columns: Columns) -> Iterator[Row]:
    """Pair the lines of two files under the required columns."""
    if len(columns.required) != 2:
        raise DataError(f"{source}: parallel text fills two columns, this task has {_listed(columns.required)}; use another format")
    if scans[0].n_lines != scans[1].n_lines:
        counts = " and ".join(f"{path.name} has {scan.n_lines} lines" for path, scan in zip(paths, scans, strict=True))
        raise DataError(f"{source}: {counts}; line N of both files has to be one pair, so mend the files")
    names = [columns.in_file(column) for column in columns.required]
    lines = zip(*(_lines(path, scan.encoding) for path, scan in zip(paths, scans, strict=True)), strict=True)
    pairs = _settled((number, pair if any(pair) else ()) for number, pair in enumerate(lines, 1))
    return ((number, dict(zip(names, pair or ("", ""), strict=True))) for number, pair in pairs)


def _tsv_records(lines: Iterable[str]) -> Iterator[Record]:
    """Split lines at tabs."""
    for number, line in _settled(enumerate(lines, 1)):
        yield number, [_unquoted(text) for text in line.split("\t")] if line else []


def _unquoted(text: str) -> str:
    """Undo a spreadsheet's quoting where it is certain: every quotation mark between the outer two is doubled, and there is one.

    `"Hello," she said` and `"Hello!"` are how plain text quotes, so they stay.
    """
    inner = text[1:-1]
    if len(text) < 4 or not (text[0] == text[-1] == '"') or '""' not in inner or '"' in inner.replace('""', ""):
        return text
    return inner.replace('""', '"')


def _csv_records(lines: Iterator[str], columns: Columns) -> Iterator[Record]:
    """Parse CSV; a record's number is that of its first line."""
    csv.field_size_limit(FIELD_LIMIT)  # the module knows one limit for the whole process
    first = next(lines, "")
    # The csv module takes a lone CR for a line end, so one inside a line is swapped for a character that no text holds.
    guarded = (line.replace("\r", LONE_CR) + "\n" for line in chain([first], lines))
    return _settled(_parsed_records(guarded, _delimiter(first, columns)))


def _parsed_records(lines: Iterable[str], delimiter: str) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, f"is not CSV ({error})"
        else:
            yield number, [text.replace(LONE_CR, "\r") for text in fields]


def _delimiter(first: str, columns: Columns) -> str:
    """Return ";" where only that finds the wanted columns in the header, else ","."""
    if columns.header is not None:
        return ","
    names = {mark: _header_fields(first, mark) for mark in ",;"}
    fits = {mark: set(columns.wanted) <= set(found) for mark, found in names.items()}
    return ";" if fits[";"] and not fits[","] else ","


def _header_fields(line: str, delimiter: str) -> list[str]:
    """Return the names a header would have with this delimiter; none where it is not CSV, which reading it in earnest will say."""
    try:
        return _stripped(next(csv.reader([line.replace("\r", LONE_CR)], delimiter=delimiter), []))
    except csv.Error:
        return []


def _stripped(names: Iterable[str]) -> list[str]:
    return [name.strip() for name in names]


def _table_rows(source: str, records: Iterator[Record], columns: Columns) -> Iterator[Row]:
    """Name the fields of records by the header."""
    names = list(columns.header or ())
    if not names:
        number, first = next(records, (1, []))
        if isinstance(first, str):
            raise DataError(f"{source}:{number}: the header {first}; mend it")
        names = _stripped(first)
        _check_header(f"{source}:{number}", names, columns)
    return _named(names, records, columns)


def _named(names: list[str], records: Iterator[Record], columns: Columns) -> Iterator[Row]:
    for number, fields in records:
        if number > 1 or fields != names:
            yield number, _row(names, fields, columns)


def _row(names: list[str], fields: list[str] | str, columns: Columns) -> Example | str:
    """Return the fields of a record by name, or what is wrong with it."""
    if isinstance(fields, str):
        return fields
    if len(fields) == len(names):
        return dict(zip(names, fields, strict=True))
    hint = ""
    if columns.header is not None:
        hint = f"; data.header has to name every column, as in data.header={_bracketed(_header_for(fields, columns))}"
    elif any(text.startswith('"') and text.count('"') % 2 for text in fields):
        hint = "; if a quoted field holds line breaks, the file is CSV with tabs: save it as .csv"
    return f"has {_counted(len(fields), 'field')}, expected {len(names)} ({_listed(names)}){hint}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _header_for(fields: Sequence[str], columns: Columns) -> list[str]:
    """Return a name for each field, wanted ones first."""
    return [*columns.wanted, *(f"column{number}" for number in range(len(columns.wanted) + 1, len(fields) + 1))]


def _check_header(place: str, names: list[str], columns: Columns) -> None:
    """Refuse a header that lacks a wanted column or names one twice."""
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{place}: the header names {_listed(twice)} more than once; give every column a name of its own")
    for column in dict.fromkeys([*columns.required, *columns.rename]):
        name = columns.in_file(column)
        if name in names:
            continue
        hint = _column_hint(column, name, names)
        header = f"data.header={_bracketed(_header_for(names, columns))}"
        if _reads_like_data(names):
            hint = f"the first line looks like data, so name the columns: {header}"
        elif len(names) >= len(columns.wanted):
            hint = f"{hint}, or, if the first line is data already, {header}"
        raise DataError(f"{place}: no column {name!r} among {_shortened(_listed(names))}; {hint}")


def _reads_like_data(names: Iterable[str]) -> bool:
    """Tell sentences from column names: they are long, have many words, end like a sentence, or hold digits only."""
    return any(len(name) > 40 or len(name.split()) > 3 or name.endswith(SENTENCE_ENDS) or name.isdigit() for name in names)


def _parquet_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """Open a parquet file and check its columns."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, buffer_size=CHUNK_BYTES)
        names = file.schema_arrow.names
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: is no parquet file ({error}); write it again") from error
    for column in dict.fromkeys([*columns.required, *columns.rename]):
        name = columns.in_file(column)
        if name not in names and name.partition(".")[0] not in names:
            raise DataError(f"{path}: no column {name!r} among {_listed(names)}; {_column_hint(column, name, names)}")
    return _batched(path, file)


def _batched(path: Path, file: Any) -> Iterator[Row]:
    import pyarrow

    batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=BATCH_ROWS))
    try:
        yield from enumerate(chain.from_iterable(batches), 1)
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: is damaged ({error}); write it again") from error


def _hub_rows(source: str, columns: Columns, log: ReadLog) -> Iterator[Row]:
    """Open a data set of the Hugging Face hub as a stream."""
    address, _, split = source.removeprefix("hf:").partition(":")
    parts = address.split("/")
    if len(parts) > 3 or not all(parts[1:]) or not address:
        raise DataError(f"{source}: expected hf:NAME, hf:OWNER/NAME, hf:OWNER/NAME/CONFIG or hf:/NAME/CONFIG, and :SPLIT behind it")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra("datasets", "datasets", f"reading {source}") from error
    log.format = "hf"
    name, config = "/".join(filter(None, parts[:2])), parts[2] if len(parts) == 3 else None
    return _streamed(source, lambda: load_dataset(name, config, split=split or "train", streaming=True))


def _streamed(source: str, load: Callable[[], Iterable[Example]]) -> Iterator[Row]:
    try:
        yield from enumerate(load(), 1)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{source}: the datasets library cannot read it ({error}); check the network, the name (one slash is OWNER/NAME, a "
            f"configuration needs hf:OWNER/NAME/CONFIG or hf:/NAME/CONFIG) and the split"
        ) from error
