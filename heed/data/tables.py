"""Rows of tables: TSV, CSV and JSON lines in files of text, parallel text, and parquet."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from heed.data.columns import Columns, bracketed, column_hint, listed
from heed.data.encodings import CHUNK_BYTES, Scan, decoded_lines
from heed.data.kinds import shortened
from heed.data.rows import Example, Row
from heed.errors import DataError
from heed.files import parse_json

# A numbered row before its fields have names.
Record = tuple[int, list[str] | str]
T = TypeVar("T")

BATCH_ROWS = 1024  # rows of parquet in memory at a time
FIELD_LIMIT = 1 << 24  # characters in a CSV field; a quotation mark that is never closed stops here instead of filling memory
LONE_CR = "\ufdd0"  # a code point Unicode reserves for a program's own use
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…", "”", "»")


def text_table_rows(form: str, source: str, paths: Sequence[Path], scans: Sequence[Scan], columns: Columns) -> Iterator[Row]:
    """Return the rows of text files of a form: parallel, jsonl, tsv or csv; raises DataError, for some rows only when they are reached."""
    if form == "parallel":
        return _parallel_rows(source, paths, scans, columns)
    lines = decoded_lines(paths[0], scans[0].encoding)
    if form == "jsonl":
        return ((number, _parsed(line)) for number, line in _settled(enumerate(lines, 1)))
    records = _tsv_records(lines) if form == "tsv" else _csv_records(lines, columns)
    return _table_rows(source, records, columns)


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
        return f"{shortened(line)} is not JSON ({error}); expected one object per line" if line else "a blank line; expected a JSON object"
    return content if isinstance(content, dict) else f"{shortened(content)} is of type {type(content).__name__}; expected a JSON object"


def _parallel_rows(source: str, paths: Sequence[Path], scans: Sequence[Scan], columns: Columns) -> Iterator[Row]:
    """Pair the lines of two files under the required columns."""
    if len(columns.kinds) != 2:
        raise DataError(f"{source}: parallel text fills two columns, this task has {listed(columns.kinds)}; use another format")
    if scans[0].n_lines != scans[1].n_lines:
        counts = " and ".join(f"{path.name} has {scan.n_lines} lines" for path, scan in zip(paths, scans, strict=True))
        raise DataError(f"{source}: {counts}; line N of both files has to be one pair, so mend the files")
    names = [columns.in_file(column) for column in columns.kinds]
    lines = zip(*(decoded_lines(path, scan.encoding) for path, scan in zip(paths, scans, strict=True)), strict=True)
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
        hint = f"; data.header has to name every column, as in data.header={bracketed(_header_for(fields, columns))}"
    elif any(text.startswith('"') and text.count('"') % 2 for text in fields):
        hint = "; if a quoted field holds line breaks, the file is CSV with tabs: save it as .csv"
    return f"has {_counted(len(fields), 'field')}, expected {len(names)} ({listed(names)}){hint}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _header_for(fields: Sequence[str], columns: Columns) -> list[str]:
    """Return a name for each field, wanted ones first."""
    return [*columns.wanted, *(f"column{number}" for number in range(len(columns.wanted) + 1, len(fields) + 1))]


def _check_header(place: str, names: list[str], columns: Columns) -> None:
    """Refuse a header that lacks a wanted column or names one twice."""
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        raise DataError(f"{place}: the header names {listed(twice)} more than once; give every column a name of its own")
    for column, name in columns.lacking(names).items():
        hint = column_hint(column, name, names)
        header = f"data.header={bracketed(_header_for(names, columns))}"
        if _reads_like_data(names):
            hint = f"the first line looks like data, so name the columns: {header}"
        elif len(names) >= len(columns.wanted):
            hint = f"{hint}, or, if the first line is data already, {header}"
        raise DataError(f"{place}: no column {name!r} among {shortened(listed(names))}; {hint}")


def _reads_like_data(names: Iterable[str]) -> bool:
    """Tell sentences from column names: they are long, have many words, end like a sentence, or hold digits only."""
    return any(len(name) > 40 or len(name.split()) > 3 or name.endswith(SENTENCE_ENDS) or name.isdigit() for name in names)


def parquet_rows(path: Path, columns: Columns) -> Iterator[Row]:
    """Open a parquet file and check its columns."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path, buffer_size=CHUNK_BYTES)
        names = file.schema_arrow.names
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: is no parquet file ({error}); write it again") from error
    for column, name in columns.lacking(names).items():
        if name.partition(".")[0] not in names:
            raise DataError(f"{path}: no column {name!r} among {listed(names)}; {column_hint(column, name, names)}")
    return _batched(path, file)


def _batched(path: Path, file: Any) -> Iterator[Row]:
    import pyarrow

    batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=BATCH_ROWS))
    try:
        yield from enumerate(chain.from_iterable(batches), 1)
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: is damaged ({error}); write it again") from error
