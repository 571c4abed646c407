"""What is in data: rows, columns, lengths, and the faults that surveys look for."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from heed.config import DataConfig, parse_overrides, validate
from heed.data.audio import read_audio
from heed.data.keras import split_of
from heed.data.labelled import survey_labelled
from heed.data.quality import count_words, quantiles_of, survey_pairs
from heed.data.questions import survey_questions
from heed.data.read import ReadLog, data_files, read_examples
from heed.data.recordings import Durations, Recordings
from heed.data.rows import Check, Example
from heed.data.spoken import survey_spoken
from heed.data.squad import ANSWER, START, answers_fault
from heed.data.tagged import survey_tagged
from heed.data.tags import split_words, tags_fault
from heed.data.unlabelled import survey_texts
from heed.errors import ConfigError, DataError
from heed.inspection.data_lines import SEARCHED, data_lines
from heed.inspection.layout import Findings

# The columns whose rows are searched for faults, with their kinds, by what such rows are; of several that fit, the first.
SURVEYED: dict[str, dict[str, str]] = {
    "questions": {"question": "text", "context": "text", "answers": "answers"},
    "tagged": {"tokens": "words", "tags": "tags"},
    "pairs": {"source": "text", "target": "text"},
    "spoken": {"audio": "audio", "text": "transcript"},
    "labelled": {"text": "text", "label": "label"},
    "texts": {"text": "text"},
}
PAIR = tuple(SURVEYED["pairs"])
HONOURED = ("columns", "header", "bad_rows", "valid", "test")  # of data.*; the others are about training


def inspect_data(source: str, pairs: Sequence[str]) -> tuple[Findings, list[str]]:
    """Look into data; bad rows are counted rather than refused, unless data.bad_rows=error is given.

    Rows are questions about contexts, tagged sentences, pairs, recordings with transcripts, labelled texts or texts without labels,
    whichever their columns fit first (SURVEYED). Of recordings the headers are read, so those that only decoding shows to be damaged are
    not among the bad rows.

    Args:
        source: what data.train accepts.
        pairs: data.columns.*, data.header, data.bad_rows; data.valid and data.test are other splits that should share no row with it.
    Returns:
        the findings (`source`, `format`, `encoding`, `files`, `rows`, `bad`, `bad_examples`, `columns` with kinds and lengths, and
        six of which at most one is filled: `questions`, `tagged`, `pairs`, `spoken`, `labelled` and `texts`, what `to_json` of
        `QuestionSurvey`, `TaggedSurvey`, `PairSurvey`, `SpokenSurvey`, `LabelSurvey` and `TextSurvey` tells), and lines for a terminal.
    Raises:
        ConfigError: a setting has no say here.
        DataError: the data cannot be read.
        MissingExtra: there are recordings, and soundfile is not installed.
    """
    data = _data_settings(pairs)
    named, in_file = _with_columns(source, data)
    in_file |= {"answers"} if {named.columns.get(part, part) for part in (ANSWER, START)} <= in_file else set()
    kind = next((kind for kind, wanted in SURVEYED.items() if wanted.keys() <= in_file), None)
    if kind is None and (data.valid or data.test):
        raise _incomparable(source, in_file)
    rows = _Rows(source, named, {} if kind is None else _wanted(kind, source, named, in_file), ReadLog(), _Columns())
    log, columns = rows.log, rows.columns
    survey = _read_through(rows) if kind is None else _survey(kind, rows, data)
    found: Findings = {
        "source": source,
        "format": log.format,
        "encoding": log.encoding,
        "files": _sizes(source),
        "rows": log.rows,
        "bad": log.bad,
        "bad_examples": log.bad_examples,
        "columns": columns.to_json(),
        **{name: survey if name == kind else {} for name in SURVEYED},
    }
    return found, data_lines(found)


def _incomparable(source: str, in_file: set[str]) -> ConfigError:
    return ConfigError(
        f"{source}: data.valid and data.test are compared by their rows, but there are neither columns {SEARCHED} "
        f"among {', '.join(sorted(in_file))}; leave them out, or name the columns, as with data.columns.source=NAME "
        "data.columns.target=NAME"
    )


def _sizes(source: str) -> dict[str, int]:
    """Return the bytes of each file of a data specification; those of a folder together."""
    sizes = {str(path): path.stat().st_size for path in data_files(source)}
    return {source: sum(sizes.values())} if Path(source).expanduser().is_dir() else sizes


def _data_settings(pairs: Sequence[str]) -> DataConfig:
    """Return the settings for reading; raises ConfigError for one that would be ignored."""
    settings = parse_overrides(pairs)
    content = settings.pop("data", {})
    data = validate(DataConfig, {"bad_rows": "skip", **content} if isinstance(content, dict) else {"data": content}, "data")
    unused = [f"{group}.{next(iter(inner))}" if isinstance(inner, dict) else group for group, inner in settings.items()]
    unused += [f"data.{name}" for name in content if name not in HONOURED]
    if unused:
        raise ConfigError(f"{unused[0]}: has no say in inspecting data; use {', '.join(f'data.{name}' for name in HONOURED)}")
    return data


def _with_columns(source: str, data: DataConfig) -> tuple[DataConfig, set[str]]:
    """Return the settings that name the columns of the file as they are, and these columns."""
    if split_of(source) is not None:
        return data, set(SURVEYED["labelled"])  # Keras' IMDb
    if _is_parallel(source):
        return data, set(PAIR)
    first = set(next(_read(source, data, ReadLog(), {})))
    only = next(iter(first), "")
    if len(first) > 1 or ";" not in only:
        return data, first
    # CSV is read as separated by ";" where only that finds the columns that are asked for.
    names = [name.strip() for name in only.split(";")]
    return data.replace(columns={name: name for name in names} | data.columns), set(names) | set(data.columns)


def _is_parallel(source: str) -> bool:
    """Tell whether a specification names parallel text: several files, and neither a folder of them nor a pattern."""
    return not source.startswith("hf:") and "*" not in source and not Path(source).expanduser().is_dir() and len(data_files(source)) > 1


def _read(source: str, data: DataConfig, log: ReadLog, required: Mapping[str, str], check: Check | None = None) -> Iterator[Example]:
    return read_examples(source, required=required, rename=data.columns, header=data.header, bad_rows=data.bad_rows, log=log, check=check)


class _Rows:
    """The rows of a split, which can be read again.

    Args:
        wanted: the columns that are searched for faults, with their kinds.
        log: filled by the first reading, as is `columns`.
    """

    def __init__(self, source: str, data: DataConfig, wanted: Mapping[str, str], log: ReadLog, columns: "_Columns") -> None:
        self.source, self.data, self.wanted = source, data, wanted
        self.log, self.columns = log, columns
        self.recordings = [column for column, kind in wanted.items() if kind == "audio"]
        self.heard = _Heard()
        self.begun = False

    def __iter__(self) -> Iterator[Example]:
        begun, self.begun = self.begun, True
        checks = {"audio": self.heard.fault, "answers": answers_fault, "tags": _unequal}
        check = next((checks[kind] for kind in self.wanted.values() if kind in checks), None)
        rows = _read(self.source, self.data, ReadLog() if begun else self.log, self.wanted, check)
        return rows if begun else self.columns.watch(rows, self.recordings)


def _unequal(example: Example) -> str | None:
    """Say that a sentence has not as many tags as tokens; None where it has."""
    return tags_fault(split_words(example["tags"]), split_words(example["tokens"]), "plain", strict=False)


class _Heard:
    """The recordings of a source, each heard once, and to its end, for a header does not tell of damage behind it."""

    def __init__(self) -> None:
        self.files = Recordings(Durations.of_user())

    def fault(self, example: Example) -> str | None:
        """Say what is wrong with a recording; None for a good one."""
        audio = example["audio"]
        if isinstance(audio, str):
            return self.files.fault(audio)
        try:
            read_audio(audio)
        except DataError as error:
            return str(error)
        return None

    def seconds(self, example: Example) -> float:
        """Return the length of a recording that `fault` lets pass."""
        audio = example["audio"]
        return self.files.seconds(audio) if isinstance(audio, str) else read_audio(audio).seconds


def _wanted(kind: str, source: str, data: DataConfig, in_file: set[str]) -> dict[str, str]:
    """Return the columns that are searched for faults: a second text if there is one, and several labels if the first row has a list."""
    wanted = dict(SURVEYED[kind])
    if kind == "labelled" and "text_pair" in in_file:
        wanted["text_pair"] = "text"
    if kind == "labelled":
        label = next(_read(source, data, ReadLog(), {})).get(data.columns.get("label", "label"))
        wanted["label"] = "labels" if isinstance(label, list) else "label"
    return wanted


def _survey(kind: str, rows: _Rows, data: DataConfig) -> Findings:
    """Look for faults in rows of a kind, and for those of them that stand in other splits."""
    given = {"valid": data.valid, "test": data.test}
    others = {name: _Rows(split, data, rows.wanted, ReadLog(), _Columns()) for name, split in given.items() if split is not None}
    if kind == "questions":
        return survey_questions(rows, others).to_json()
    if kind == "tagged":
        return survey_tagged(rows, others).to_json()
    if kind == "pairs":
        return survey_pairs(rows, other_splits=others).to_json()
    if kind == "spoken":
        return survey_spoken(rows, others, seconds=rows.heard.seconds).to_json()
    if kind == "texts":
        return survey_texts(rows, others).to_json()
    return survey_labelled(rows, others, texts=[name for name, of in rows.wanted.items() if of == "text"]).to_json()


def _read_through(rows: Iterable[Example]) -> Findings:
    """Read rows for the sake of what is counted on the way; there is nothing else to tell of."""
    for _ in rows:
        pass
    return {}


@dataclass
class _Column:
    """What is gathered about one column: how many rows fill it with what, and how long its texts are."""

    kinds: Counter[str] = field(default_factory=Counter)
    characters: "array[int]" = field(default_factory=lambda: array("I"))
    words: "array[int]" = field(default_factory=lambda: array("I"))

    def add(self, value: object) -> None:
        self.kinds[_kind(value)] += 1
        if isinstance(value, str):
            self.characters.append(len(value))
            self.words.append(count_words(value))

    def to_json(self) -> Findings:
        gathered = {"characters": self.characters, "words": self.words}
        lengths = {unit: quantiles_of(unit, np.array(values, np.int64)) for unit, values in gathered.items()}
        return {"kinds": dict(self.kinds), "lengths": {unit: found for unit, found in lengths.items() if found}}


class _Columns:
    """Columns by name, in the order they come up."""

    def __init__(self) -> None:
        self.columns: dict[str, _Column] = {}

    def watch(self, rows: Iterable[Example], recordings: Sequence[str]) -> Iterator[Example]:
        """Pass rows on, counting what they hold; `recordings` are the columns whose texts are paths, which have no length of interest."""
        for row in rows:
            for name, value in row.items():
                column = self.columns.setdefault(name, _Column())
                if name in recordings:
                    column.kinds["recording"] += 1
                else:
                    column.add(value)
            yield row

    def to_json(self) -> Findings:
        return {name: column.to_json() for name, column in self.columns.items()}


def _kind(value: object) -> str:
    """Return what a value is in the words of JSON."""
    if value is None:
        return "null"
    names = {str: "text", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)
