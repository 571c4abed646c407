"""What is in a run folder or in a data file: for a person at a terminal, and as plain JSON values for programs."""

import re
import textwrap
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from heed.config import DataConfig, Settings, parse_overrides, validate
from heed.data.audio import read_audio
from heed.data.keras import split_of
from heed.data.labelled import survey_labelled
from heed.data.quality import QUANTILES, survey_pairs
from heed.data.questions import survey_questions
from heed.data.read import Check, Example, ReadLog, data_files, read_examples
from heed.data.spoken import survey_spoken
from heed.data.squad import ANSWER, START, answers_fault
from heed.data.tagged import survey_tagged
from heed.data.tags import split_words, tags_fault
from heed.data.unlabelled import survey_texts
from heed.errors import ConfigError, DataError
from heed.files import parse_json, read_metrics
from heed.model.describe import count_parameters, layer_table, mermaid
from heed.run import Run

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
SHOWN = 3  # rows shown for each fault
SHOWN_CHARACTERS = 60  # of a text in them, of the path of a recording, and of a setting with many values
SHOWN_SPEAKERS = 10
LINE_WIDTH = 100  # of a list of characters
# Control characters, those that turn the direction of writing, and halves of surrogate pairs: a terminal would obey them or fail.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

Findings = dict[str, Any]


def inspect_run(folder: Path, *, graph: bool = False) -> tuple[Findings, list[str]]:
    """Look into a run folder.

    Args:
        graph: whether the lines are the model's Mermaid flow chart, and nothing else.
    Returns:
        the findings (`task`, `settings` with those `changed` and those at their `default`, `layers`, `parameters`, `bytes` of the
        weights, `best` validation so far, `scores` by evaluation, `files`, and `graph` if asked for), and lines for a terminal.
    Raises:
        CheckpointError: the folder is missing, not whole, or was changed.
    """
    run = Run.load(folder, device="cpu")
    changed, default = _settings(run)
    found: Findings = {
        "folder": str(folder),
        "task": run.task.name,
        "settings": {"changed": changed, "default": default},
        "layers": [row._asdict() for row in layer_table(run.model)],
        "parameters": count_parameters(run.model),
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in run.model.parameters()),
        "best": _best(folder),
        "scores": _scores(folder / "evaluations"),
        "files": {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)},
    }
    if graph:
        found["graph"] = mermaid(run.model)
        return found, found["graph"].splitlines()
    return found, _run_lines(found)


def _settings(run: Run) -> tuple[Findings, Findings]:
    """Return the settings that are not as the defaults are, each with its value and its default (if it has one), and the others."""
    values, defaults = _by_path(run.config.model_dump()), _defaults(run)
    changed = {path: {"value": value} for path, value in values.items() if path not in defaults or defaults[path] != value}
    for path, setting in changed.items():
        if path in defaults:
            setting["default"] = defaults[path]
    return changed, {path: value for path, value in values.items() if path not in changed}


def _defaults(run: Run) -> Findings:
    """Return the default of every setting that has one; the task has a say in the architecture."""
    defaults = _default_values(type(run.config)) | {"task": _default_values(type(run.task.config))}
    return _by_path(defaults) | {"model.architecture": run.task.architecture}


def _default_values(kind: type[Settings]) -> Findings:
    defaults = {name: entry.get_default(call_default_factory=True) for name, entry in kind.model_fields.items() if not entry.is_required()}
    return {name: value.model_dump() if isinstance(value, Settings) else value for name, value in defaults.items()}


def _by_path(content: Mapping[str, Any]) -> Findings:
    """Name settings by their dotted path, without the task's name, which is no setting that has a default."""
    groups = {name: value if isinstance(value, dict) else {"": value} for name, value in content.items()}
    paths = {f"{group}.{name}".removesuffix("."): value for group, inner in groups.items() for name, value in inner.items()}
    return {path: value for path, value in paths.items() if path != "task.name"}


def _best(folder: Path) -> Findings | None:
    """Return the last validation that was the best so far, with its step."""
    best = None
    for line in read_metrics(folder):
        if line.get("best") is True and isinstance(line.get("valid"), dict):
            best = {"step": line["step"], **line["valid"]}
    return best


def _scores(folder: Path) -> Findings:
    """Return the scores of each evaluation, by its name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(ValueError, AttributeError):  # not an evaluation
            content = parse_json(path.read_text(encoding="utf-8"))
            found[path.stem] = {name: score for name, score in content.items() if _is_score(score)}
    return {name: scores for name, scores in found.items() if scores}


def _is_score(value: object) -> bool:
    return isinstance(value, dict) and {"value", "low", "high"} <= value.keys()


def _files(folder: Path) -> list[Path]:
    """Return the files that stand for the run, without its checkpoints, its encoded data and its event files."""
    return sorted(path for place in (folder, folder / "parts", folder / "evaluations") for path in place.glob("[!.]*") if path.is_file())


def _run_lines(found: Findings) -> list[str]:
    changed, default = found["settings"]["changed"], found["settings"]["default"]
    differing = [
        (path, _word(one["value"]), f"default {_word(one['default'])}" if "default" in one else "") for path, one in changed.items()
    ]
    layers = [(row["name"], row["kind"], row["shapes"], f"{row['parameters']:,}") for row in found["layers"]]
    scores = [(f"{name}  {score}", *_score_words(one)) for name, scores in found["scores"].items() for score, one in scores.items()]
    return [
        f"{found['folder']}: {found['task']}, {found['parameters']:,} parameters, {found['bytes'] / 1e6:,.2f} MB",
        *_section("settings that differ from the defaults", _aligned(differing)),
        *_section("settings at their defaults", _aligned([(path, _word(value)) for path, value in default.items()])),
        *_section(
            "layers",
            _aligned([("name", "kind", "shapes", "parameters"), *layers, ("total", "", "", f"{found['parameters']:,}")], right={3}),
        ),
        *_section("best validation so far", _aligned([(name, _word(value)) for name, value in (found["best"] or {}).items()], right={1})),
        *_section("scores", _aligned(scores, right={1})),
        *_section("files", _aligned([(name, f"{n_bytes:,} bytes") for name, n_bytes in found["files"].items()], right={1})),
    ]


def _score_words(score: Mapping[str, float]) -> tuple[str, str]:
    return f"{score['value']:.4g}", f"95 % interval {score['low']:.4g} to {score['high']:.4g}"


def _word(value: object) -> str:
    """Write a value as it is typed in a setting; counts with thousands separators."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if isinstance(value, list | dict) and len(text) > SHOWN_CHARACTERS:
        return f"{text[:SHOWN_CHARACTERS]} … ({len(value)} values; --json prints all)"
    return text or "''"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _aligned(rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    """Lay out rows of equal length in columns; those in `right` end, the others begin, at one place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = set(right)
    cells = [
        [f"{text:>{width}}" if i in right else f"{text:<{width}}" for i, (text, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]


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
    return found, _data_lines(found)


def _incomparable(source: str, in_file: set[str]) -> ConfigError:
    return ConfigError(
        f"{source}: data.valid and data.test are compared by their rows, but there are neither columns source and target, audio and text, "
        f"question, context and answers, tokens and tags, text and label, nor text alone among {', '.join(sorted(in_file))}; leave them "
        "out, or name the columns, as with data.columns.source=NAME data.columns.target=NAME"
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
        self.durations = _Durations(source)
        self.begun = False

    def __iter__(self) -> Iterator[Example]:
        begun, self.begun = self.begun, True
        checks = {"audio": self.durations.fault, "answers": answers_fault, "tags": _unequal}
        check = next((checks[kind] for kind in self.wanted.values() if kind in checks), None)
        rows = _read(self.source, self.data, ReadLog() if begun else self.log, self.wanted, check)
        return rows if begun else self.columns.watch(rows, self.recordings)


def _unequal(example: Example) -> str | None:
    """Say that a sentence has not as many tags as tokens; None where it has."""
    return tags_fault(split_words(example["tags"]), split_words(example["tokens"]), "plain", strict=False)


class _Durations:
    """How long recordings are; a file is heard once, and to its end, for a header does not tell of damage behind it."""

    def __init__(self, source: str) -> None:
        self.in_folder = Path(source).expanduser().is_dir()
        self.known: dict[str, float | str] = {}

    def fault(self, example: Example) -> str | None:
        """Say what is wrong with a recording; None for a good one."""
        found = self._found(example["audio"])
        return found if isinstance(found, str) else None

    def seconds(self, example: Example) -> float:
        """Return the length of a recording that `fault` lets pass."""
        found = self._found(example["audio"])
        assert isinstance(found, float)
        return found

    def _found(self, audio: str | bytes) -> float | str:
        if isinstance(audio, bytes):
            return self._measured(audio)
        if audio not in self.known:
            self.known[audio] = self._measured(audio)
        return self.known[audio]

    def _measured(self, audio: str | bytes) -> float | str:
        """Return the seconds, or what is wrong; of a folder's file without its path, which bad rows there are named by."""
        try:
            return read_audio(audio).seconds
        except DataError as error:
            return str(error).removeprefix(f"{audio!s}: ") if self.in_folder else str(error)


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
        return survey_spoken(rows, others, seconds=rows.durations.seconds).to_json()
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
            self.words.append(len(value.split()))

    def to_json(self) -> Findings:
        lengths = {"characters": _quantiles(self.characters), "words": _quantiles(self.words)} if self.characters else {}
        return {"kinds": dict(self.kinds), "lengths": lengths}


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


def _quantiles(lengths: "array[int]") -> dict[str, int]:
    values = np.quantile(np.frombuffer(lengths, dtype=np.uintc), list(QUANTILES.values()), method="nearest")
    return dict(zip(QUANTILES, map(int, values), strict=True))


def _data_lines(found: Findings) -> list[str]:
    form = ", ".join(filter(None, (found["format"], found["encoding"])))
    n_bytes = f", {sum(found['files'].values()):,} bytes" if found["files"] else ""
    bad = f"; {found['bad']:,} bad rows skipped" if found["bad"] else ""
    lines = [
        f"{found['source']}: {found['rows']:,} rows{bad} ({form}{n_bytes})",
        *_section("columns", _column_lines(found["columns"])),
        *_section("bad rows, the first of them", found["bad_examples"]),
        *(_question_lines(found["questions"]) if found["questions"] else []),
        *(_tagged_lines(found["tagged"]) if found["tagged"] else []),
        *(_pair_lines(found["pairs"]) if found["pairs"] else []),
        *(_spoken_lines(found["spoken"]) if found["spoken"] else []),
        *(_label_lines(found["labelled"]) if found["labelled"] else []),
        *(_text_lines(found["texts"]) if found["texts"] else []),
    ]
    return [UNPRINTABLE.sub("\ufffd", line) for line in lines]


def _column_lines(columns: Findings) -> list[str]:
    rows: list[tuple[str, ...]] = [("name", "holds", "length in", *QUANTILES)]
    for name, column in columns.items():
        holds = ", ".join(f"{count:,} {kind}" for kind, count in column["kinds"].items())
        lengths = [(unit, *(f"{number:,}" for number in quantiles.values())) for unit, quantiles in column["lengths"].items()]
        first, *others = lengths or [("",) * (1 + len(QUANTILES))]
        rows += [(name, holds, *first), *(("", "", *other) for other in others)]
    return _aligned(rows, right=range(3, 3 + len(QUANTILES)))


def _tagged_lines(tagged: Findings) -> list[str]:
    counts = _faults(tagged) | {f"sentences also in {name}": count for name, count in tagged["leaks"].items()}
    n_spans = sum(tagged["classes"].values())
    return [
        *_section("sentences", _aligned(_shares(counts, tagged["rows"]), right={1, 2})),
        *_section("spans", _aligned(_shares(tagged["classes"], n_spans), right={1, 2})),
        *_section("lengths", _length_lines(tagged["lengths"])),
        *_example_lines(tagged, lambda one: (_cut(one["label"]), _cut(one["text"]))),
    ]


def _question_lines(questions: Findings) -> list[str]:
    counts = {
        **_faults(questions),
        "without an answer": questions["without_answer"],
        **{f"contexts also in {name}": count for name, count in questions["leaks"].items()},
        **{f"contexts both in {names}": count for names, count in questions["shared"].items()},
    }
    titles = f" of {questions['titles']:,} articles" if questions["titles"] else ""
    return [
        *_section(
            "questions", [*_aligned(_shares(counts, questions["rows"]), right={1, 2}), f"{questions['contexts']:,} contexts{titles}"]
        ),
        *_section("lengths", _length_lines(questions["lengths"])),
        *(_section("warnings", questions["warnings"])),
        *_example_lines(questions, lambda one: (_cut(one["text"]), _cut(one["context"]))),
    ]


def _pair_lines(pairs: Findings) -> list[str]:
    counts = {
        **_faults(pairs),
        **{f"pairs also in {name}": count for name, count in pairs["leaks"].items()},
        **{f"sources also in {name}": count for name, count in pairs["source_overlap"].items()},
    }
    ratio = f"{pairs['typical_ratio']:.3g} target characters for each of the source"
    lines = _section("pairs", [*_aligned(_shares(counts, pairs["rows"]), right={1, 2}), ratio])
    return lines + _example_lines(pairs, lambda one: (_cut(one["source"]), _cut(one["target"])))


def _spoken_lines(spoken: Findings) -> list[str]:
    counts = _faults(spoken) | {f"recordings also in {name}": count for name, count in spoken["leaks"].items()}
    shared = [(f"recordings both in {names}", f"{count:,}", "") for names, count in spoken["shared"].items()]
    return [
        *_section("recordings", [*_aligned([*_shares(counts, spoken["rows"]), *shared], right={1, 2}), f"{spoken['hours']:,.4g} hours"]),
        *_section("lengths", _length_lines(spoken["lengths"])),
        *_section("speakers", _speaker_lines(spoken)),
        *_section("warnings", spoken["warnings"]),
        *_section("characters of the transcripts", _character_lines(spoken["characters"])),
        *_example_lines(spoken, lambda one: (_cut_path(one["audio"]), _cut(one["text"]))),
    ]


def _length_lines(lengths: Mapping[str, Mapping[str, float]]) -> list[str]:
    rows = [(name.replace("_", " "), *(f"{number:,}" for number in one.values())) for name, one in lengths.items() if one]
    return _aligned([("of", *QUANTILES), *rows], right=range(1, 1 + len(QUANTILES)))


def _speaker_lines(spoken: Findings) -> list[str]:
    """List the busiest speakers, and say how many others there are, here and in other splits."""
    speakers = spoken["speakers"]
    if not speakers["different"]:
        return []
    busiest = dict(islice(speakers["rows"].items(), SHOWN_SPEAKERS))
    more = speakers["different"] - len(busiest)
    return [
        *_aligned(_shares(busiest, spoken["rows"]), right={1, 2}),
        *([f"and {more:,} more"] if more else []),
        *(f"{others['different']:,} in {name}" for name, others in spoken["speakers_others"].items()),
    ]


def _character_lines(characters: Findings) -> list[str]:
    """List characters, the commonest first, and those that occur once."""
    if not characters["different"]:
        return []
    n_shown, n_once = len(characters["counts"]), len(characters["once"])
    some = "the commonest first" if n_shown == characters["different"] else f"the commonest {n_shown:,}"
    once = f"{characters['n_once']:,} once only" + (f", of which {n_once:,}" if n_once < characters["n_once"] else "")
    return [
        *textwrap.wrap(f"{characters['different']:,} different, {some}: {' '.join(characters['counts'])}", LINE_WIDTH),
        *(textwrap.wrap(f"{once}: {' '.join(characters['once'])}", LINE_WIDTH) if n_once else []),
    ]


def _label_lines(texts: Findings) -> list[str]:
    counts = _faults(texts) | {f"texts also in {name}": count for name, count in texts["leaks"].items()}
    shared = [(f"texts both in {names}", f"{count:,}", "") for names, count in texts["shared"].items()]
    return [
        *_section("texts", _aligned([*_shares(counts, texts["rows"]), *shared], right={1, 2})),
        *_section("labels", _aligned(_shares(texts["classes"], texts["rows"]), right={1, 2})),
        *_example_lines(texts, lambda one: (_cut(one["label"]), _cut(one["text"]))),
    ]


def _text_lines(texts: Findings) -> list[str]:
    counts = _faults(texts) | {f"texts also in {name}": count for name, count in texts["leaks"].items()}
    lines = _section("texts", _aligned(_shares(counts, texts["rows"]), right={1, 2}))
    return lines + _example_lines(texts, lambda one: (_cut(" ".join(one["text"].split())),))


def _faults(survey: Findings) -> dict[str, int]:
    """Return how many rows have no fault, and how many have each."""
    return {"clean": survey["clean"], **survey["counts"]}


def _shares(counts: Mapping[str, int], n_rows: int) -> list[tuple[str, str, str]]:
    """Write counts by name, each with its share of the rows."""
    return [(name, f"{count:,}", f"{count / max(1, n_rows):.2%}") for name, count in counts.items()]


def _example_lines(survey: Findings, cells: Callable[[Findings], tuple[str, ...]]) -> list[str]:
    """Show the first rows of each fault, given what to show of one."""
    lines = []
    for name, examples in survey["examples"].items():
        rows = [(f"row {one['row']:,}", *cells(one)) for one in islice(examples, SHOWN)]
        lines += _section(f"{name}, for example", _aligned(rows) if rows else [])
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _cut_path(path: str) -> str:
    return path if len(path) <= SHOWN_CHARACTERS else f"…{path[-SHOWN_CHARACTERS + 1 :]}"
