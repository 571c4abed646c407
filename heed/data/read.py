"""Sources of examples: delimited text, JSON lines, parquet, SQuAD's JSON, parallel text, folders, Keras' IMDb, Hugging Face data sets.

Every source gives rows of named columns in the same way, whatever its format, encoding or compression, and is read as a stream: files
are decoded as they are read, parquet comes in record batches, folders file by file (`imdb.npz` and `.json` alone are held in memory). Of
recordings rows hold where they are, or the bytes of their files; `heed.data.audio` decodes them. Left out: folders of images.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from heed.data.columns import Columns, check_given_header, example_of, listed
from heed.data.conll import SUFFIXES as CONLL_SUFFIXES
from heed.data.conll import conll_rows
from heed.data.documents import document_files, hash_documents, text_rows
from heed.data.encodings import decoded_lines, existing, scan_text
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
from heed.data.hub import hub_rows
from heed.data.keras import imdb_rows, split_of, word_index_beside
from heed.data.rows import Check, Example, Row
from heed.data.squad import squad_rows
from heed.data.tables import parquet_rows, text_table_rows
from heed.errors import DataError
from heed.files import sha256

FORMATS = ("tsv", "csv", "jsonl", "parquet", "json")
SUPPORTED = (
    ".tsv, .csv and .jsonl (also .gz), .parquet, .json in SQuAD's form, .conll, plain text (.txt, .txt.gz, a folder of them, or a pattern "
    "such as 'src/**/*.py'), parallel text as 'DIR/train.{en,de}' (also .gz; in quotes, for the shell expands braces), a folder that holds "
    "one folder of .txt files per class, a folder of recordings with a .txt file beside each, Keras' imdb.npz "
    "(imdb.npz:test for the other split), or hf:NAME[/CONFIG][:SPLIT] for a data set of the Hugging Face hub"
)
TEXT_AND_LABEL = {"text": "text", "label": "label"}
AUDIO_AND_TEXT = {"audio": "audio", "text": "transcript"}
MAX_BAD_EXAMPLES = 10


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
        check_given_header(source, columns)
    return _usable(_rows(source, columns, log), columns, bad_rows, log, check)


def _usable(rows: Iterator[Row], columns: Columns, bad_rows: str, log: ReadLog, check: Check | None) -> Iterator[Example]:
    """Give out the examples of good rows; raise for bad ones, or count them."""
    for place, content in rows:
        example = content if isinstance(content, str) else example_of(content, columns)
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
        raise DataError(f"{log.source}: {found}" + (f"; expected rows with {listed(columns.kinds)}" if columns.kinds else ""))


def _problem(source: str, place: int | str, fault: str) -> tuple[str, str]:
    """Say where a row stands and what is wrong with it, and what to call it: a row of the source, or a file of its own."""
    if isinstance(place, int):
        return f"{source}:{place}: {fault}", "row"
    return f"{place}: {fault.removeprefix(f'{place}: ')}", "file"  # a check may name the file, too


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
        return hub_rows(source, columns)
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
        return parquet_rows(paths[0], columns)
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
            raise DataError(f"{path}: is empty; expected rows with {listed(columns.kinds)}")
    return text_table_rows(log.format, source, paths, scans, columns)
