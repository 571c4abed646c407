"""What the report tells about the data and the settings, as facts and tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heed.report.sources import Json
from heed.report.wording import duration, figure, is_number, label, size

FAULTS = {
    "empty": "a side is empty",
    "copies": "both sides are the same text",
    "duplicates": "the same pair stands further up",
    "odd_ratios": "one side is far too long for the other",
    "leaks": "the same pair stands in the validation or test data",
}
TOLD_ELSEWHERE = frozenset({"rows", "clean", "counts", "examples", "lengths", "leaks", "source_overlap"})

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table of texts."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Fault:
    """A kind of fault: its name, what it means, how many rows have it, and some of them."""

    name: str
    meaning: str
    count: int
    share: str
    examples: Table | None


@dataclass(frozen=True)
class Span:
    """Quantiles as words and as places on a bar, in percent."""

    name: str
    words: str
    left: float
    width: float
    middle: float


@dataclass(frozen=True)
class DataReport:
    """What is shown of data_report.json."""

    facts: Facts
    left_out: list[str]
    faults: list[Fault]
    spans: list[Span]
    overlaps: Table | None
    bad_rows: list[str]


def data_report(data: Json) -> DataReport | None:
    """Return what is to be shown of data_report.json; None without it."""
    if not data:
        return None
    survey, reading = _mapping(data.get("train")), _mapping(data.get("reading"))
    return DataReport(
        facts=_data_facts(data, survey, reading),
        left_out=_left_out(data, survey, reading),
        faults=_faults(survey),
        spans=_spans(_mapping(survey.get("lengths"))),
        overlaps=_overlaps(survey),
        bad_rows=[str(line) for line in reading.get("bad_examples") or []],
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _data_facts(data: Json, survey: Mapping[str, Any], reading: Mapping[str, Any]) -> Facts:
    facts = [("Read from", str(reading["source"]))] if "source" in reading else []
    form = ", ".join(str(reading[key]) for key in ("format", "encoding") if reading.get(key))
    facts += [("Format", form)] if form else []
    facts += [("Rows read", figure(survey["rows"]))] if "rows" in survey else []
    facts += [("Rows without a fault", figure(survey["clean"]))] if "clean" in survey else []
    facts += [(f"{label(name)} examples", figure(count)) for name, count in _mapping(data.get("examples")).items()]
    facts += [(f"{label(name)} tokens", figure(count)) for name, count in _mapping(data.get("tokens")).items()]
    facts += [(f"Longest {name}", f"{figure(count)} tokens") for name, count in _mapping(data.get("longest")).items()]
    facts += [("Batches an epoch", figure(data["batches"]))] if "batches" in data else []
    facts += [("Padding", f"{data['padding']:.1%}")] if is_number(data.get("padding")) else []
    return facts + [(label(name), figure(value)) for name, value in survey.items() if name not in TOLD_ELSEWHERE and not _nested(value)]


def _nested(value: object) -> bool:
    return isinstance(value, Mapping | list)


def _left_out(data: Json, survey: Mapping[str, Any], reading: Mapping[str, Any]) -> list[str]:
    """Say what was not trained on, and why; silence would leave a reader guessing."""
    lines = []
    if reading.get("bad"):
        lines.append(f"Skipped for being bad (data.bad_rows=skip): {_counted(reading['bad'], 'row')}.")
    if data.get("filtered"):
        lines.append(f"Dropped for a fault (data.filter=true): {_counted(data['filtered'], 'row')}.")
    elif any(_mapping(survey.get("counts")).values()):
        lines.append("Rows with a fault were kept; data.filter=true drops them.")
    for key, split in (("too_long", "training"), ("too_long_valid", "validation")):
        if data.get(key):
            count = _counted(data[key], f"{split} example")
            lines.append(f"Left out for having more than {figure(data.get('max_length'))} tokens (data.max_length): {count}.")
    if data.get("held_out"):
        lines.append(f"There were no validation data, so this was held out: {data['held_out']}.")
    return lines or ["Nothing was left out."]


def _counted(number: object, noun: str) -> str:
    return f"{figure(number)} {noun}{'' if number == 1 else 's'}"


def _faults(survey: Mapping[str, Any]) -> list[Fault]:
    counts, examples, rows = _mapping(survey.get("counts")), _mapping(survey.get("examples")), survey.get("rows")
    return [_fault(name, count, rows, examples.get(name)) for name, count in counts.items() if is_number(count)]


def _fault(name: str, count: float, rows: object, examples: object) -> Fault:
    share = f"{count / rows:.2%}" if is_number(rows) and rows and count else ""
    return Fault(label(name), FAULTS.get(name, ""), int(count), share, _table(examples))


def _table(rows: object) -> Table | None:
    """Lay out a list of objects, a column for each of their keys."""
    if not isinstance(rows, list):
        return None
    found = [row for row in rows if isinstance(row, dict)]
    keys = list(dict.fromkeys(key for row in found for key in row))
    return Table([label(key) for key in keys], [[figure(row.get(key, "")) for key in keys] for row in found]) if found else None


def _spans(lengths: Mapping[str, Any]) -> list[Span]:
    """Draw lengths of one unit (the last word of their names) on one scale."""
    shown = {name: _mapping(some) for name, some in lengths.items() if _has_quantiles(_mapping(some))}
    ends: dict[str, float] = {}
    for name, quantiles in shown.items():
        ends[_unit(name)] = max(ends.get(_unit(name), 1.0), 1.2 * quantiles["p95"])
    return [_span(name, quantiles, ends[_unit(name)]) for name, quantiles in shown.items()]


def _has_quantiles(quantiles: Mapping[str, Any]) -> bool:
    return all(is_number(quantiles.get(name)) for name in ("p5", "median", "p95"))


def _unit(name: str) -> str:
    return name.rpartition("_")[2]


def _span(name: str, quantiles: Mapping[str, Any], end: float) -> Span:
    left, middle, right = (round(100 * quantiles[q] / end, 2) for q in ("p5", "median", "p95"))
    words = f"half below {figure(quantiles['median'])}; 90 % from {figure(quantiles['p5'])} to {figure(quantiles['p95'])}"
    if "min" in quantiles and "max" in quantiles:
        words += f"; all from {figure(quantiles['min'])} to {figure(quantiles['max'])}"
    return Span(label(name), words, left, round(right - left, 2), middle)


def _overlaps(survey: Mapping[str, Any]) -> Table | None:
    leaks, sources = _mapping(survey.get("leaks")), _mapping(survey.get("source_overlap"))
    rows = [[str(name), figure(leaks.get(name, 0)), figure(sources.get(name, 0))] for name in dict.fromkeys([*leaks, *sources])]
    return Table(["Split", "Training rows that stand in it", "Training rows whose source stands in it"], rows) if rows else None


def model_words(config: Json, n_parameters: int) -> str:
    """Say in a line what the model is."""
    model = _mapping(config.get("model"))
    words = [str(model["architecture"])] if "architecture" in model else []
    words += [f"{n_parameters:,} parameters"] if n_parameters else []
    words += [f"{figure(model['n_layers'])} layers"] if "n_layers" in model else []
    return " · ".join([*words, *(f"{key} {figure(model[key])}" for key in ("d_model", "n_heads", "d_ff", "vocab_size") if key in model)])


def machine_words(machine: object) -> str:
    """Say in a line what a figure was measured on."""
    machine = _mapping(machine)
    threads = machine.get("threads")
    words = [str(machine[key]) for key in ("gpu", "processor") if machine.get(key)]
    return ", ".join([*words, *([_counted(threads, "thread")] if threads else [])])


def cost_facts(evaluation: Json) -> Facts:
    """Return the speed and memory of an evaluation."""
    cost = dict(_mapping(evaluation.get("cost")))
    machine = machine_words(cost.pop("machine", None))
    facts = [_cost_fact(name, value) for name, value in cost.items()]
    return facts + ([("Machine", machine)] if machine else [])


def _cost_fact(name: str, value: object) -> tuple[str, str]:
    if name == "seconds" and is_number(value):
        return "Time", duration(value)
    if name.endswith("_mib") and is_number(value):
        return label(name.removesuffix("_mib")), size(value * 2**20)
    return label(name), figure(value)


def settings_facts(config: Json) -> Facts:
    """Return versions and the machine."""
    machine = _mapping(config.get("machine"))
    facts = [("heed", str(config["heed"]))] if "heed" in config else []
    facts += [(label(name), figure(value)) for name, value in machine.items()]
    return [*facts, *([("Seed", str(config["seed"]))] if "seed" in config else [])]


def hash_rows(config: Json, manifest: Json) -> list[tuple[str, str, str]]:
    """Return (what, file, SHA-256) of the data and of the files of the run."""
    splits = _mapping(config.get("data_sha256"))
    data = [(f"{label(split)} data", str(name), str(digest)) for split, files in splits.items() for name, digest in _mapping(files).items()]
    return [*data, *(("Run folder", str(name), str(digest)) for name, digest in _mapping(manifest.get("sha256")).items())]


def decode_words(evaluation: Json) -> str:
    """Return the options answers were generated with, as they are typed."""
    options: Sequence[str] = [f"{key}={_typed(value)}" for key, value in _mapping(evaluation.get("decode")).items()]
    return "  ".join(options)


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
