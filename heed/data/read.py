"""Sources of examples: delimited text, JSON lines, parquet, SQuAD's JSON, parallel text, folders, Keras' IMDb, Hugging Face data sets.

Every source gives rows of named columns in the same way, whatever its format, encoding or compression, and is read as a stream: files
are decoded as they are read, parquet comes in record batches, folders file by file (`imdb.npz` and `.json` alone are held in memory). Of
recordings rows hold where they are, or the bytes of their files; `heed.data.audio` decodes them. Left out: folders of images.
"""

import csv
import difflib
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from heed.data.conll import SUFFIXES as CONLL_SUFFIXES
from heed.data.conll import conll_rows
from heed.data.documents import document_files, hash_documents, text_rows
from heed.data.encodings import CHUNK_BYTES, Scan, decoded_lines, existing, scan_text
from heed.data.folders import (
    RECORDINGS,
    TEXT_FILES,
    ClassFolder,
    class_folders,
    class_rows,
    hash_classes,
    holdings,
    holds_recordings,
    list_classes,
    list_recordings,
    recording_rows,
    told_by_folder,
)
from heed.data.keras import imdb_rows, split_of, word_index_beside
from heed.data.squad import ANSWER, START, joined_answer, read_answers, squad_rows
from heed.errors import DataError, MissingExtra
from heed.files import parse_json, sha256

Example = dict[str, Any]
# A row with its number in the source, from 1, or the path of its own file: its columns, or what is wrong with it.
Row = tuple[int | str, Example | str]
# A numbered row before its fields have names.
Record = tuple[int, list[str] | str]
# Says what is wrong with an example; None for nothing.
Check = Callable[[Example], str | None]
T = TypeVar("T")

FORMATS = ("tsv", "csv", "jsonl", "parquet", "json")
SUPPORTED = (
    ".tsv, .csv and .jsonl (also .gz), .parquet, .json in SQuAD's form, .conll, plain text (.txt, .txt.gz, a folder of them, or a pattern "
    "such as 'src/**/*.py'), parallel text as 'DIR/train.{en,de}' (also .gz; in quotes, for the shell expands braces), a folder that holds "
    "one folder of .txt files per class, a folder of recordings with a .txt file beside each, Keras' imdb.npz "
    "(imdb.npz:test for the other split), or hf:NAME[/CONFIG][:SPLIT] for a data set of the Hugging Face hub"
)
TEXT_AND_LABEL = {"text": "text", "label": "label"}
AUDIO_AND_TEXT = {"audio": "audio", "text": "transcript"}
BATCH_ROWS = 1024  # rows of parquet in memory at a time
FIELD_LIMIT = 1 << 24  # characters in a CSV field; a quotation mark that is never closed stops here instead of filling memory
MAX_BAD_EXAMPLES = 10
LONE_CR = "\ufdd0"  # a code point Unicode reserves for a program's own use
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…", "”", "»")


@dataclass
class ReadLog:
    """What reading a source found; filled while rows are read.

    Attributes:
        source: the data specification.
        format: tsv, csv, jsonl, parquet, json (SQuAD's), conll, parallel, folder, keras or hf.
        encoding: of the text, "" for formats that are not text and for folders, whose files may differ; one per side of parallel text.
        rows: examples given out.
        bad: rows skipped.
        bad_examples: what was wrong with the first of them.
        ignored: files in folders that are of another kind than those read.
    """

    source: str = ""
    format: str = ""
    encoding: str = ""
    rows: int = 0
    bad: int = 0
    bad_examples: list[str] = field(default_factory=list)
    ignored: int = 0


@dataclass(frozen=True)
class Columns:
    """Which columns a task wants, of which kind, what the file calls them, and the folder that paths in it start from, if any."""

    kinds: Mapping[str, str]
    rename: Mapping[str, str]
    header: Sequence[str] | None
    folder: Path | None = None

    def in_file(self, column: str) -> str:
        """Return the file's name of one of our columns."""
        return self.rename.get(column, column)

    @cached_property
    def names(self) -> dict[str, str]:
        """The file's name of every column that is required or renamed."""
        return {column: self.in_file(column) for column in (*self.kinds, *self.rename)}

    @cached_property
    def readers(self) -> dict[str, Callable[[object], Any]]:
        """What makes a value of each required column, looked up once rather than for every row."""
        readers: dict[str, Callable[[object], Any]] = {**KINDS, "audio": partial(_audio, self.folder)}
        return {column: readers[kind] for column, kind in self.kinds.items()}

    @property
    def wanted(self) -> list[str]:
        """Names the file has to have."""
        return list(dict.fromkeys(self.names.values()))

    def lacking(self, found: Collection[str]) -> dict[str, str]:
        """Return which of our columns a file with these lacks, with its names for them; an answer and its start stand for answers."""
        whole = {self.in_file(part) for part in (ANSWER, START)} <= set(found)
        missing = {column: name for column, name in self.names.items() if name not in found}
        return {column: name for column, name in missing.items() if not (whole and self.kinds.get(column) == "answers")}


def data_files(source: str) -> list[Path]:
    """Return the files behind a data specification, every one of a folder's among them; none for `hf:` names.

    The recordings that the rows of a file name are not among them.

    Raises:
        DataError: a file is missing, or the specification is of no supported form.
    """
    form, paths = _find(source)
    if form == "folder":
        return [one.path / name for one in _listing(paths[0]) for name in one.files]
    return paths


def hash_files(source: str) -> dict[str, str]:
    """Return the SHA-256 of each file behind a data specification, by file name; a folder has one for all, by its name."""
    form, paths = _find(source)
    if form == "txt" and len(paths) > 1:
        return {source: hash_documents(paths)}
    if form == "folder":
        return {paths[0].absolute().name: hash_classes(_listing(paths[0]))}
    return {path.name: sha256(path) for path in paths}


def read_examples(
    source: str,
    *,
    required: Sequence[str] | Mapping[str, str],
    rename: Mapping[str, str] | None = None,
    header: Sequence[str] | None = None,
    bad_rows: Literal["error", "skip"] = "error",
    log: ReadLog | None = None,
    check: Check | None = None,
) -> Iterator[Example]:
    """Read examples one by one; files are checked before the first one is given out.

    Columns beyond the required ones stay in the example, and white space stays as it is. Lines end at LF (or CR LF) only. A file is
    UTF-8, UTF-16 or GB18030 text, found out by decoding all of it. The ways of the formats:

    - TSV is split at tabs and knows no quoting, but a field that a spreadsheet has quoted for its quotation marks
      (`"a ""quoted"" word"`: quotes around it, every one inside doubled) is read without that quoting.
    - CSV follows RFC 4180, line breaks in quoted fields included. It is separated by ";" where only that finds the wanted columns.
    - JSONL holds one object per line. `translation.de` as a file's column reaches into an object.
    - JSON is a file in SQuAD's form, whose rows are its questions: id, question, context, answers and title.
    - CoNLL (.conll .bio .iob ..., or .txt where tags are wanted) holds a token and its columns on each line, and a blank line behind each
      sentence, which is a row: `tokens` are the first column and `tags` the last, unless a header names them all.
    - Parallel text fills the required columns in the order of the suffixes.
    - A folder of class folders fills a text with each .txt file, its label with the folder's name, and `file` with `pos/0_9.txt`, in
      natural order. Files beside the class folders, hidden ones and IMDb's `unsup` are left out.
    - A folder of recordings (.wav, .flac, .ogg, .mp3, at any depth) fills a recording, its transcript with the .txt file of the same
      name beside it, without white space around it, and `file`. Where all recordings lie in class folders without a .txt file, the
      folder's name is the transcript.
    - `imdb.npz`, `imdb.npz:train` and `imdb.npz:test` fill a text and its label, "0" or "1", from Keras' IMDb file. Words come from
      `imdb_word_index.json` beside it; without that file each is its rank by frequency (U+FFFD: one was left out).
    - `hf:OWNER/NAME`, `hf:OWNER/NAME/CONFIG` and `hf:NAME`: one slash is always an owner, as nearly every data set has one; a
      configuration without owner is `hf:/NAME/CONFIG`. The split is `train` unless `:SPLIT` follows.

    The kinds of columns:

    - `text`: text that is not blank, as it stands.
    - `label`: text, a whole number, or true or false; comes out as text without white space around it, so that 1, 1.0 and "1" are one.
    - `labels`: a list of such values, or one text with "|" between them; comes out as a list that names each once and may be empty.
    - `transcript`: text as it stands, which may be empty.
    - `share`: a number from 0 to 1.
    - `words`: a list of words, also as JSON in a cell, or a text as it stands, whose words have white space between them.
    - `tags`: the same of their tags; comes out as a list.
    - `answers`: a list of texts with the places where they start, also as JSON in a cell; comes out as [{"text", "start"}] and may be
      empty. A table may have one in two columns instead, `answer` and `start`.
    - `audio`: the path of a recording, which has to be there; one that is not absolute starts from the folder of the file that names
      it; comes out absolute. Bytes are the content of a file and stay, also from {"bytes": ..., "path": ...}, as parquet files and
      data sets of the hub have them.

    Args:
        source: a file, parallel text, a folder of class folders or of recordings, or an `hf:` name.
        required: columns that every example has to hold, with the kind of each; `text` where no kinds are given.
        rename: the file's name for a column of ours; sources without names for their columns need none.
        header: names for the columns of a TSV or CSV file without a header row; a first line that holds just these names is still
            taken for a header row, and formats whose rows name their own columns do not use it, so that splits may differ in form.
        bad_rows: whether a row that cannot be used is an error or is skipped and counted.
        log: filled while reading.
        check: asked about every example that is good otherwise; what it answers is wrong with the row, None for nothing.
    Raises:
        DataError: naming file and line.
        MissingExtra: `hf:` without the `datasets` package.
    """
    log = ReadLog() if log is None else log
    log.source = source
    kinds = required if isinstance(required, Mapping) else dict.fromkeys(required, "text")
    columns = Columns(kinds, rename or {}, header, _folder_of(source))
    if header is not None:
        _check_given_header(source, columns)
    return _usable(_rows(source, columns, log), columns, bad_rows, log, check)


def _usable(rows: Iterator[Row], columns: Columns, bad_rows: str, log: ReadLog, check: Check | None) -> Iterator[Example]:
    """Give out the examples of good rows; raise for bad ones, or count them."""
    for place, content in rows:
        example = content if isinstance(content, str) else _example(content, columns)
        if check is not None and not isinstance(example, str):
            example = check(example) or example
        if not isinstance(example, str):
            log.rows += 1
            yield example
            continue
        problem, what = _problem(log.source, place, example)
        if bad_rows == "error":
            raise DataError(f"{problem}; mend the {what}, or set data.bad_rows=skip to leave such {what}s out")
        log.bad += 1
        if len(log.bad_examples) < MAX_BAD_EXAMPLES:
            log.bad_examples.append(problem)
    if not log.rows:
        found = f"none of its {log.bad} rows can be used; the first: {log.bad_examples[0]}" if log.bad else "it holds no rows"
        raise DataError(f"{log.source}: {found}; expected rows with {_listed(columns.kinds)}")


def _problem(source: str, place: int | str, fault: str) -> tuple[str, str]:
    """Say where a row stands and what is wrong with it, and what to call it: a row of the source, or a file of its own."""
    return (f"{source}:{place}: {fault}", "row") if isinstance(place, int) else (f"{place}: {fault}", "file")


def _example(row: Example, columns: Columns) -> Example | str:
    """Return the row under our names, or what is wrong with it."""
    values = {}
    for column, name in columns.names.items():
        try:
            values[column] = _value(row, name)
        except KeyError:
            parts = [columns.in_file(part) for part in (ANSWER, START)]
            if columns.kinds.get(column) == "answers" and all(part in row for part in parts):
                values[column] = joined_answer(*(row[part] for part in parts))
            elif column in columns.kinds:
                return f"no column {name!r} among {_listed(row)}; {_column_hint(column, name, row)}"
    taken = set(columns.rename.values()) - set(values)
    example = {name: value for name, value in row.items() if name not in taken} | values
    for column, read in columns.readers.items():
        try:
            example[column] = read(example[column])
        except MisfitError as error:
            return f"column {columns.names[column]!r} {error}"
    return example


def _value(row: Example, name: str) -> Any:
    """Return a column's value; a dotted name that is no column itself reaches into objects."""
    if name in row:
        return row[name]
    outer, dot, inner = name.partition(".")
    if dot and isinstance(row.get(outer), dict):
        return _value(row[outer], inner)
    raise KeyError(name)


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
        raise MisfitError(f"is the list {_shortened(value)}; expected one label; if an example can have several, set task.multi_label=true")
    return _one_label(value)


def _labels(value: object) -> list[str]:
    """Return labels as texts, each once, of a list or of one text with "|" between them; raises MisfitError for what are none."""
    if not isinstance(value, str | list):
        return [_one_label(value)]
    try:
        return list(dict.fromkeys(map(_one_label, _parts(value) if isinstance(value, str) else value)))
    except MisfitError as error:
        raise MisfitError(f"is {_shortened(value)}, of which one {error}") from error


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
        raise MisfitError("is empty" if not value else f"is {_shortened(value)}, of which one is empty")
    return value


def _tags(value: object) -> list[str]:
    """Return the tag of each word: a list, also as JSON in a cell, or a text with white space between them; raises MisfitError."""
    found = _words([str(tag) if type(tag) is int else tag for tag in value] if isinstance(value, list) else value)
    return found.split() if isinstance(found, str) else found


def _misfit(value: object, expected: str) -> MisfitError:
    found = "null" if value is None else f"{_shortened(value)}, of type {type(value).__name__}"
    return MisfitError(f"is {found}; expected {expected}")


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


def _audio(folder: Path | None, value: object) -> str | bytes:
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
    missing = list(columns.lacking(header).values())
    if missing:
        raise DataError(f"{source}: data.header={_bracketed(header)} lacks {_listed(missing)}; name every column of the file, in order")


def _bracketed(names: Iterable[str]) -> str:
    return f"[{','.join(names)}]"


def _find(source: str) -> tuple[str, list[Path]]:
    """Return the format of a data specification and its files; for a folder the folder itself.

    Raises:
        DataError: a file is missing or of no supported form.
    """
    if source.startswith("hf:"):
        return "hf", []
    path = Path(source).expanduser()
    braces = re.fullmatch(r"(.*)\{([^{}]*)\}([^{}/]*)", source, re.DOTALL)
    if braces and not path.exists():
        return "parallel", _sides(source, *braces.groups())
    recordings = path.is_dir() and holds_recordings(list_recordings(path))
    if not recordings and (files := document_files(source)) is not None:
        return "txt", files
    if path.is_dir():
        if not class_folders(path) and not holds_recordings(list_recordings(path)):
            raise _unsuitable(source, path)
        return "folder", [path]
    if npz := split_of(source):
        file = existing(npz[0])
        return "keras", [file, *filter(None, [word_index_beside(file)])]
    name = path.name.lower()
    suffix = name.removesuffix(".gz").rpartition(".")[2]
    if suffix in CONLL_SUFFIXES:
        return "conll", [existing(path)]
    known = suffix in FORMATS and not name.endswith(".parquet.gz")
    if not known and ("." in name or path.exists()):  # without a dot it was to be a folder, which is not there
        raise DataError(f"{source}: its form is not known by its name; expected {SUPPORTED}")
    return suffix, [existing(path)]


def _unsuitable(source: str, folder: Path) -> DataError:
    return DataError(f"{source}: is a folder that holds {holdings(folder)}; expected {SUPPORTED}")


def _folder_of(source: str) -> Path | None:
    """Return the folder that the paths in a file start from; none for `hf:` names."""
    return None if source.startswith("hf:") else Path(source).expanduser().absolute().parent


def _sides(source: str, start: str, suffixes: str, end: str) -> list[Path]:
    """Return the two files of parallel text."""
    sides = [suffix.strip() for suffix in suffixes.split(",")]
    if len(sides) != 2 or not all(sides):
        raise DataError(f"{source}: parallel text has two suffixes, source and target, as in DIR/train.{{en,de}}; found {suffixes!r}")
    return [existing(Path(f"{start}{side}{end}").expanduser()) for side in sides]


def _rows(source: str, columns: Columns, log: ReadLog) -> Iterator[Row]:
    """Open what a data specification stands for and return its rows."""
    log.format, paths = _find(source)
    if log.format == "hf":
        return _hub_rows(source, columns)
    if log.format == "folder":
        return _folder_rows(source, paths[0], columns, log)
    if log.format == "keras":
        text, label = _filled(source, "Keras' IMDb fills one text and its label", columns, TEXT_AND_LABEL)
        return imdb_rows(source, text=text, label=label)
    if log.format == "conll" or (log.format == "txt" and len(paths) == 1 and "tags" in columns.kinds.values()):
        log.format, log.encoding = "conll", scan_text(paths[0]).encoding
        tagged = not columns.kinds or "tags" in columns.kinds.values()
        return conll_rows(source, decoded_lines(paths[0], log.encoding), columns.header, tagged=tagged)
    if log.format == "txt":
        (text,) = _filled(source, "plain text fills one text", columns, {"text": "text"})
        return text_rows(paths, text)
    if log.format == "parquet":
        return _parquet_rows(paths[0], columns)
    if log.format == "json":
        log.encoding = scan_text(paths[0]).encoding
        return squad_rows(paths[0])
    return _text_rows(source, paths, columns, log)


def _listing(folder: Path) -> list[ClassFolder]:
    """List the files of a folder for any task: recordings and texts where it is one of recordings, else the texts of its classes."""
    recordings = list_recordings(folder)
    return [recordings] if holds_recordings(recordings) else list_classes(folder, TEXT_FILES)


def _folder_rows(source: str, folder: Path, columns: Columns, log: ReadLog) -> Iterator[Row]:
    """List a folder of recordings, or class folders of texts, as the task asks for, and return a row for each file."""
    if "audio" in columns.kinds.values() or (not columns.kinds and holds_recordings(list_recordings(folder))):
        return _recording_rows(source, folder, columns, log)
    text, label = _filled(source, "class folders fill one text and its label", columns, TEXT_AND_LABEL)
    classes = list_classes(folder, TEXT_FILES)
    if not classes:
        raise _unsuitable(source, folder)
    log.ignored = sum(one.n_ignored for one in classes)
    return class_rows(classes, TEXT_FILES, text, label)


def _recording_rows(source: str, folder: Path, columns: Columns, log: ReadLog) -> Iterator[Row]:
    """List recordings and return a row for each."""
    audio, text = _filled(source, "a folder of recordings fills one recording and its transcript", columns, AUDIO_AND_TEXT)
    listed = list_recordings(folder)
    if not holds_recordings(listed):
        raise _unsuitable(source, folder)
    by_folder = told_by_folder(listed)
    classes = list_classes(listed.path, RECORDINGS) if by_folder else [listed]
    log.ignored = sum(one.n_ignored for one in classes)
    return class_rows(classes, RECORDINGS, audio, text) if by_folder else recording_rows(listed, audio, text)


def _filled(source: str, what: str, columns: Columns, kinds: Mapping[str, str]) -> list[str]:
    """Return the names, in the order of `kinds`, under which a source that fills columns of just these kinds has to give them."""
    asked = columns.kinds or kinds
    by_kind = {kind: columns.in_file(column) for column, kind in asked.items()}
    if len(asked) != len(kinds) or by_kind.keys() != set(kinds.values()):
        found = ", ".join(f"{column} ({kind})" for column, kind in asked.items())
        raise DataError(f"{source}: {what}, but this task asks for {found}; name data of another form")
    return [by_kind[kind] for kind in kinds.values()]


def _text_rows(source: str, paths: Sequence[Path], columns: Columns, log: ReadLog) -> Iterator[Row]:
    """Find the encodings of text files and return their rows."""
    scans = [scan_text(path) for path in paths]
    log.encoding = ", ".join(dict.fromkeys(scan.encoding for scan in scans))
    for path, scan in zip(paths, scans, strict=True):
        if not scan.n_lines:
            raise DataError(f"{path}: is empty; expected rows with {_listed(columns.kinds)}")
    if log.format == "parallel":
        return _parallel_rows(source, paths, scans, columns)
    lines = decoded_lines(paths[0], scans[0].encoding)
    if log.format == "jsonl":
        return ((number, _parsed(line)) for number, line in _settled(enumerate(lines, 1)))
    records = _tsv_records(lines) if log.format == "tsv" else _csv_records(lines, columns)
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
        return f"{_shortened(line)} is not JSON ({error}); expected one object per line" if line else "a blank line; expected a JSON object"
    return content if isinstance(content, dict) else f"{_shortened(content)} is of type {type(content).__name__}; expected a JSON object"


def _parallel_rows(source: str, paths: Sequence[Path], scans: Sequence[Scan], columns: Columns) -> Iterator[Row]:
    """Pair the lines of two files under the required columns."""
    if len(columns.kinds) != 2:
        raise DataError(f"{source}: parallel text fills two columns, this task has {_listed(columns.kinds)}; use another format")
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
    for column, name in columns.lacking(names).items():
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
    for column, name in columns.lacking(names).items():
        if name.partition(".")[0] not in names:
            raise DataError(f"{path}: no column {name!r} among {_listed(names)}; {_column_hint(column, name, names)}")
    return _batched(path, file)


def _batched(path: Path, file: Any) -> Iterator[Row]:
    import pyarrow

    batches = (batch.to_pylist() for batch in file.iter_batches(batch_size=BATCH_ROWS))
    try:
        yield from enumerate(chain.from_iterable(batches), 1)
    except (OSError, UnicodeDecodeError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: is damaged ({error}); write it again") from error


def _hub_rows(source: str, columns: Columns) -> Iterator[Row]:
    """Open a data set of the Hugging Face hub as a stream; recordings come as the bytes of their files."""
    address, _, split = source.removeprefix("hf:").partition(":")
    parts = address.split("/")
    if len(parts) > 3 or not all(parts[1:]) or not address:
        raise DataError(f"{source}: expected hf:NAME, hf:OWNER/NAME, hf:OWNER/NAME/CONFIG or hf:/NAME/CONFIG, and :SPLIT behind it")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra("datasets", "datasets", f"reading {source}") from error
    name, config = "/".join(filter(None, parts[:2])), parts[2] if len(parts) == 3 else None
    encoded = "audio" in columns.kinds.values()

    def load() -> Iterable[Example]:
        rows: Any = load_dataset(name, config, split=split or "train", streaming=True)
        return cast(Iterable[Example], rows.decode(False) if encoded else rows)

    return _streamed(source, load)


def _streamed(source: str, load: Callable[[], Iterable[Example]]) -> Iterator[Row]:
    try:
        yield from enumerate(load(), 1)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{source}: the datasets library cannot read it ({error}); check the network, the name (one slash is OWNER/NAME, a "
            f"configuration needs hf:OWNER/NAME/CONFIG or hf:/NAME/CONFIG) and the split"
        ) from error
