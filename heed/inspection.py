"""What is in a run folder or in a data file: for a person at a terminal, and as plain JSON values for programs."""

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from heed.config import DataConfig, Settings, parse_overrides, validate
from heed.data.keras import split_of
from heed.data.labelled import survey_labelled
from heed.data.quality import QUANTILES, survey_pairs
from heed.data.read import Example, ReadLog, data_files, read_examples
from heed.errors import ConfigError
from heed.files import parse_json
from heed.model.describe import count_parameters, layer_table, mermaid
from heed.run import Run

# The columns whose rows are searched for faults, with their kinds, by what such rows are.
SURVEYED: dict[str, dict[str, str]] = {
    "pairs": {"source": "text", "target": "text"},
    "labelled": {"text": "text", "label": "label"},
}
PAIR = tuple(SURVEYED["pairs"])
HONOURED = ("columns", "header", "bad_rows", "valid", "test")  # of data.*; the others are about training
SHOWN = 3  # rows shown for each fault
SHOWN_CHARACTERS = 60  # of a text in them
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
        "best": _best(folder / "metrics.jsonl"),
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


def _best(path: Path) -> Findings | None:
    """Return the last validation that was the best so far, with its step."""
    best = None
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with suppress(ValueError, KeyError, TypeError):  # a line torn by a crash, or about something else
                    content = parse_json(line)
                    best = {"step": content["step"], **content["valid"]} if content["best"] is True else best
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
    return f"{value:.6g}" if isinstance(value, float) else str(value) or "''"


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
    """Look into a data file; bad rows are counted rather than refused, unless data.bad_rows=error is given.

    Args:
        source: what data.train accepts.
        pairs: data.columns.*, data.header, data.bad_rows; data.valid and data.test are other splits that should share no pair with it.
    Returns:
        the findings (`source`, `format`, `encoding`, `files`, `rows`, `bad`, `bad_examples`, `columns` with kinds and lengths,
        `pairs`: what `PairSurvey.to_json` tells when there are columns source and target, and `labelled`: what `LabelSurvey.to_json`
        tells when there are columns text and label), and lines for a terminal.
    Raises:
        ConfigError: a setting has no say here.
        DataError: the data cannot be read.
    """
    data = _data_settings(pairs)
    named, in_file = _with_columns(source, data)
    columns, log = _Columns(), ReadLog()
    kind = next((kind for kind, wanted in SURVEYED.items() if wanted.keys() <= in_file), None)
    if kind is None and (data.valid or data.test):
        raise ConfigError(
            f"{source}: data.valid and data.test are compared by their pairs or texts, but there are neither columns source and target nor "
            f"text and label among {', '.join(sorted(in_file))}; leave them out, or name the columns with data.columns.source=NAME "
            "data.columns.target=NAME"
        )
    wanted = {} if kind is None else _wanted(kind, source, named, in_file)
    rows = columns.watch(_read(source, named, log, wanted))
    survey = _read_through(rows) if kind is None else _survey(kind, _Rows(rows, source, named, wanted), data, wanted)
    found: Findings = {
        "source": source,
        "format": log.format,
        "encoding": log.encoding,
        "files": _sizes(source),
        "rows": log.rows,
        "bad": log.bad,
        "bad_examples": log.bad_examples,
        "columns": columns.to_json(),
        "pairs": survey if kind == "pairs" else {},
        "labelled": survey if kind == "labelled" else {},
    }
    return found, _data_lines(found)


def _sizes(source: str) -> dict[str, int]:
    """Return the bytes of each file of a data specification; those of class folders together."""
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
    if Path(source).expanduser().is_dir() or split_of(source) is not None:
        return data, set(SURVEYED["labelled"])  # class folders, Keras' IMDb
    if not source.startswith("hf:") and len(data_files(source)) > 1:
        return data, set(PAIR)  # parallel text
    first = set(next(_read(source, data, ReadLog(), {})))
    only = next(iter(first), "")
    if len(first) > 1 or ";" not in only:
        return data, first
    # CSV is read as separated by ";" where only that finds the columns that are asked for.
    names = [name.strip() for name in only.split(";")]
    return data.replace(columns={name: name for name in names} | data.columns), set(names) | set(data.columns)


def _read(source: str, data: DataConfig, log: ReadLog, required: Mapping[str, str]) -> Iterator[Example]:
    return read_examples(source, required=required, rename=data.columns, header=data.header, bad_rows=data.bad_rows, log=log)


class _Rows:
    """Rows that are watched when they are read first, and can be read again."""

    def __init__(self, first: Iterator[Example], source: str, data: DataConfig, wanted: Mapping[str, str]) -> None:
        self.first: Iterator[Example] | None = first
        self.source, self.data, self.wanted = source, data, wanted

    def __iter__(self) -> Iterator[Example]:
        first, self.first = self.first, None
        return _read(self.source, self.data, ReadLog(), self.wanted) if first is None else first


def _wanted(kind: str, source: str, data: DataConfig, in_file: set[str]) -> dict[str, str]:
    """Return the columns that are searched for faults: a second text if there is one, and several labels if the first row has a list."""
    wanted = dict(SURVEYED[kind])
    if kind == "labelled" and "text_pair" in in_file:
        wanted["text_pair"] = "text"
    if kind == "labelled":
        label = next(_read(source, data, ReadLog(), {})).get(data.columns.get("label", "label"))
        wanted["label"] = "labels" if isinstance(label, list) else "label"
    return wanted


def _survey(kind: str, rows: Iterable[Example], data: DataConfig, wanted: Mapping[str, str]) -> Findings:
    """Look for faults in pairs or labelled texts, and for those of them that stand in other splits."""
    given = {"valid": data.valid, "test": data.test}
    others = {name: _read(split, data, ReadLog(), wanted) for name, split in given.items() if split is not None}
    if kind == "pairs":
        return survey_pairs(rows, other_splits=others).to_json()
    return survey_labelled(rows, others, texts=[name for name, of in wanted.items() if of == "text"]).to_json()


def _read_through(rows: Iterable[Example]) -> Findings:
    """Read rows for the sake of what is counted on the way; there are no pairs to tell of."""
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

    def watch(self, rows: Iterable[Example]) -> Iterator[Example]:
        """Pass rows on, counting what they hold."""
        for row in rows:
            for name, value in row.items():
                self.columns.setdefault(name, _Column()).add(value)
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
        *(_pair_lines(found["pairs"]) if found["pairs"] else []),
        *(_label_lines(found["labelled"]) if found["labelled"] else []),
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


def _pair_lines(pairs: Findings) -> list[str]:
    n_rows = max(1, pairs["rows"])
    counts = [(name, f"{count:,}", f"{count / n_rows:.2%}") for name, count in (("clean", pairs["clean"]), *pairs["counts"].items())]
    shared = [(f"pairs also in {name}", f"{count:,}", f"{count / n_rows:.2%}") for name, count in pairs["leaks"].items()]
    shared += [(f"sources also in {name}", f"{count:,}", f"{count / n_rows:.2%}") for name, count in pairs["source_overlap"].items()]
    lines = _section(
        "pairs", [*_aligned([*counts, *shared], right={1, 2}), f"{pairs['typical_ratio']:.3g} target characters for each of the source"]
    )
    for name, examples in pairs["examples"].items():
        rows = [(f"row {one['row']:,}", _cut(one["source"]), _cut(one["target"])) for one in islice(examples, SHOWN)]
        lines += _section(f"{name}, for example", _aligned(rows) if rows else [])
    return lines


def _label_lines(texts: Findings) -> list[str]:
    n_rows = max(1, texts["rows"])
    counts = [(name, f"{count:,}", f"{count / n_rows:.2%}") for name, count in (("clean", texts["clean"]), *texts["counts"].items())]
    counts += [(f"texts also in {name}", f"{count:,}", f"{count / n_rows:.2%}") for name, count in texts["leaks"].items()]
    classes = [(name, f"{count:,}", f"{count / n_rows:.2%}") for name, count in texts["classes"].items()]
    lines = [*_section("texts", _aligned(counts, right={1, 2})), *_section("labels", _aligned(classes, right={1, 2}))]
    for name, examples in texts["examples"].items():
        rows = [(f"row {one['row']:,}", _cut(one["label"]), _cut(one["text"])) for one in islice(examples, SHOWN)]
        lines += _section(f"{name}, for example", _aligned(rows) if rows else [])
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
