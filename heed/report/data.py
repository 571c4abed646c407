"""What the report tells about the data: what was read, its faults, classes and lengths, and what became of rows that did not fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from heed.report.bars import Balance, Bar, balance
from heed.report.facts import Facts, Table
from heed.report.sources import Json, listed, mapping, mappings
from heed.report.wording import counted, duration, figure, is_number, label, percent
from heed.terminal import unit_of

FAULTS = {
    "empty": "a side is empty",
    "copies": "both sides are the same text",
    "duplicates": "the same pair stands further up",
    "contradictions": "the same text stands with another label",
    "odd_ratios": "one side is far too long for the other",
    "leaks": "the same pair stands in the validation or test data",
}
FAULTS_OF_LABELLED = {
    "empty": "the text is empty",
    "duplicates": "the same text stands further up with the same label",
    "leaks": "the same text stands in the validation or test data",
}
FAULTS_OF_TEXTS = {
    "empty": "the text is empty",
    "duplicates": "the same text stands further up",
    "leaks": "the same text stands in the validation or test data",
}
FAULTS_OF_SPOKEN = {
    "duplicates": "the same recording stands further up with the same transcript",
    "contradictions": "the same recording stands with another transcript",
    "leaks": "the same recording stands in the validation or test data",
}
FAULTS_OF_QUESTIONS = {
    "duplicates": "the same question about the same context stands further up",
    "leaks": "the context stands in the validation or test data",
}
EXAMPLES = {"extra": "Of these from data.extra"}  # behind those that are trained on
TOLD_ELSEWHERE = frozenset({"rows", "clean", "counts", "examples", "lengths", "leaks", "source_overlap", "hours", "spelt_apart"})
VOCABULARY = {"size": "Vocabulary", "unknown_share": "Unknown in training", "unknown_share_valid": "Unknown in validation"}
LEFT_OUT = "left out"  # what becomes of examples that are too long, unless the report says otherwise
MOST_SPEAKERS = 20


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
class Characters:
    """How often each character occurs in transcripts, and what to know about those that hardly do."""

    counts: list[tuple[str, str]]
    notes: list[str]


@dataclass(frozen=True)
class DataReport:
    """What is shown of data_report.json."""

    facts: Facts
    warnings: list[str]
    left_out: list[str]
    faults: list[Fault]
    classes: Balance | None
    spans: list[Span]
    speakers: Balance | None
    characters: Characters | None
    overlaps: Table | None
    bad_rows: list[str]


def data_report(data: Json) -> DataReport | None:
    """Return what is to be shown of data_report.json; None without it."""
    if not data:
        return None
    survey, reading = mapping(data.get("train")), mapping(data.get("reading"))
    return DataReport(
        facts=_data_facts(data, survey, reading),
        warnings=[line for line in [*listed(survey.get("warnings")), *listed(data.get("warnings"))] if isinstance(line, str)],
        left_out=[*_left_out(data, survey, reading), *_long_texts(_either("long", data, survey))],
        faults=_faults(survey),
        classes=_classes(data, survey),
        spans=_spans(mapping(survey.get("lengths"))),
        speakers=_speakers(survey),
        characters=_characters(mapping(survey.get("characters"))),
        overlaps=_overlaps(survey),
        bad_rows=[str(line) for line in listed(reading.get("bad_examples"))],
    )


def _either(name: str, data: Json, survey: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what stands in the report itself or in the survey of the training data."""
    return mapping(data.get(name)) or mapping(survey.get(name))


def _data_facts(data: Json, survey: Mapping[str, Any], reading: Mapping[str, Any]) -> Facts:
    facts = [("Read from", str(reading["source"]))] if "source" in reading else []
    form = ", ".join(str(reading[key]) for key in ("format", "encoding") if reading.get(key))
    facts += [("Format", form)] if form else []
    facts += [("Rows read", figure(survey["rows"]))] if "rows" in survey else []
    facts += [("Rows without a fault", figure(survey["clean"]))] if "clean" in survey else []
    examples = mapping(data.get("examples"))
    facts += [(EXAMPLES.get(name, f"{label(name)} examples"), figure(count)) for name, count in examples.items()]
    facts += [(f"{label(name)} {unit_of(name)}", figure(count)) for name, count in mapping(data.get("tokens")).items()]
    facts += [(f"Longest {name}", f"{figure(count)} {unit_of(name)}") for name, count in mapping(data.get("longest")).items()]
    facts += [("Batches an epoch", figure(data["batches"]))] if "batches" in data else []
    facts += [("Padding", f"{data['padding']:.1%}")] if is_number(data.get("padding")) else []
    facts += _vocabulary_facts(data, survey)
    facts += [("Audio", duration(3600 * survey["hours"]))] if is_number(survey.get("hours")) else []
    facts += [(f"Different {name}", figure(_different(survey, name))) for name in ("speakers", "characters") if _different(survey, name)]
    return facts + [(label(name), figure(value)) for name, value in survey.items() if name not in TOLD_ELSEWHERE and not _nested(value)]


def _different(survey: Mapping[str, Any], name: str) -> float:
    number = mapping(survey.get(name)).get("different")
    return number if is_number(number) else 0


def _nested(value: object) -> bool:
    return isinstance(value, Mapping | list)


def _vocabulary_facts(data: Json, survey: Mapping[str, Any]) -> Facts:
    """Return the size of the vocabulary, what it lacks, and how much of it pretrained vectors cover."""
    vocabulary = {name: value for name, value in _either("vocabulary", data, survey).items() if not _nested(value)}
    coverage = {name: value for name, value in _either("coverage", data, survey).items() if not _nested(value)}
    facts = [(VOCABULARY.get(name, f"Vocabulary: {label(name)}"), _share_or_figure(value)) for name, value in vocabulary.items()]
    return [*facts, *((f"Word vectors: {label(name)}", _share_or_figure(value)) for name, value in coverage.items())]


def _share_or_figure(value: object) -> str:
    return percent(value) if isinstance(value, float) and 0 <= value <= 1 else figure(value)


def _left_out(data: Json, survey: Mapping[str, Any], reading: Mapping[str, Any]) -> list[str]:
    """Say what was not trained on, and why; silence would leave a reader guessing."""
    lines = []
    if reading.get("bad"):
        lines.append(f"Skipped for being bad (data.bad_rows=skip): {counted(reading['bad'], 'row')}.")
    if data.get("filtered"):
        lines.append(f"Dropped for a fault (data.filter=true): {counted(data['filtered'], 'row')}.")
    elif any(mapping(survey.get("counts")).values()):
        lines.append("Rows with a fault were kept; data.filter=true drops them.")
    lines += _left_out_of_extra(data)
    if "long" not in data and "long" not in survey:
        lines += _too_long(data, unit_of("audio" if _is_spoken(survey) else "text"))
    lines += _unlearnable(data)
    if data.get("held_out"):
        lines.append(f"Held out for validation: {data['held_out']}.")
    return lines or ["Nothing was left out."]


def _left_out_of_extra(data: Json) -> Iterator[str]:
    """Say what of data.extra was not trained on, and what else is to be known of it."""
    others = mapping(data.get("reading_others"))
    for what, n in (("Skipped", mapping(others.get("extra")).get("bad")), ("Dropped for a fault", data.get("filtered_extra"))):
        if is_number(n) and n:
            yield f"{what}, of data.extra: {counted(n, 'row')}."
    warnings = mapping(data.get("extra")).get("warnings")
    yield from (f"Of data.extra: {warning}." for warning in (warnings if isinstance(warnings, list) else []))


def _too_long(data: Json, units: str) -> Iterator[str]:
    """Say how many examples are longer than what the model sees at once, and what became of them."""
    became, limit = figure(data.get("long_examples", LEFT_OUT)), figure(data.get("max_length"))
    for key, split in (("too_long", "training"), ("too_long_valid", "validation")):
        if data.get(key):
            count = counted(data[key], f"{split} example")
            if became == LEFT_OUT:
                yield f"Left out for having more than {limit} {units} (data.max_length): {count}."
            else:
                yield f"Longer than {limit} {units} (data.max_length): {count}, {became}."


def _unlearnable(data: Json) -> Iterator[str]:
    """Say from how many examples nothing is learned, and why."""
    for key, split in (("unlearnable", "training"), ("unlearnable_valid", "validation")):
        for why, n in mapping(data.get(key)).items():
            if is_number(n):
                yield f"{counted(n, f'{split} example')} {why}."


def _long_texts(long: Mapping[str, Any]) -> list[str]:
    """Say how many texts are longer than the limit and what became of them: {"limit", "train", "valid", "what"}."""
    limit = long.get("limit")
    if not is_number(limit):
        return []
    counts = [(long.get(key), split) for key, split in (("train", "training"), ("valid", "validation"))]
    told = [counted(n, f"{split} text") for n, split in counts if is_number(n) and n > 0]
    if not told:
        return [f"No text is longer than {figure(limit)} tokens (data.max_length)."]
    became = f", {figure(long['what'])}" if "what" in long else ""
    return [f"Longer than {figure(limit)} tokens (data.max_length): {' and '.join(told)}{became}."]


def _faults(survey: Mapping[str, Any]) -> list[Fault]:
    counts, examples, rows = mapping(survey.get("counts")), mapping(survey.get("examples")), survey.get("rows")
    meanings = _meanings(survey)
    return [
        _fault(name, meanings.get(name, ""), count, rows, _table(examples.get(name))) for name, count in counts.items() if is_number(count)
    ]


def _meanings(survey: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what faults are called in data of a kind."""
    if "without_answer" in survey:
        return FAULTS_OF_QUESTIONS
    if _is_spoken(survey):
        return FAULTS_OF_SPOKEN
    if _is_labelled(survey):
        return {**FAULTS, **FAULTS_OF_LABELLED}
    pairs = "source_overlap" in survey
    return FAULTS_OF_TEXTS if not pairs and any(str(name).startswith("text_") for name in mapping(survey.get("lengths"))) else FAULTS


def _is_spoken(survey: Mapping[str, Any]) -> bool:
    """Return whether the rows are recordings with transcripts."""
    return "characters" in survey


def _is_labelled(survey: Mapping[str, Any]) -> bool:
    """Return whether the rows are labelled texts rather than pairs."""
    examples = mapping(survey.get("examples"))
    return "classes" in survey or any("label" in row for rows in examples.values() for row in mappings(rows))


def _fault(name: str, meaning: str, count: float, rows: object, examples: Table | None) -> Fault:
    share = f"{count / rows:.2%}" if is_number(rows) and rows and count else ""
    return Fault(label(name), meaning, int(count), share, examples)


def _table(rows: object) -> Table | None:
    """Lay out a list of objects, a column for each of their keys."""
    found = mappings(rows)
    keys = list(dict.fromkeys(key for row in found for key in row))
    return Table([label(key) for key in keys], [[figure(row.get(key, "")) for key in keys] for row in found]) if found else None


def _classes(data: Json, survey: Mapping[str, Any]) -> Balance | None:
    """Draw how many training rows each class has, with those of the other splits beside them."""
    others = {"valid": _either("classes_valid", data, survey), **mapping(survey.get("classes_others"))}
    return balance(_either("classes", data, survey), others)


def _speakers(survey: Mapping[str, Any]) -> Balance | None:
    """Draw how many rows the busiest speakers have; None without any."""
    told = mapping(mapping(survey.get("speakers")).get("rows"))
    counts = {figure(name): n for name, n in told.items() if is_number(n) and n > 0}
    ordered = sorted(counts.items(), key=lambda item: -item[1])[:MOST_SPEAKERS]
    if not ordered:
        return None
    n_rows, more = survey.get("rows"), _different(survey, "speakers") - len(ordered)
    bars = [
        Bar(name, figure(n), round(100 * n / ordered[0][1], 2), percent(n / n_rows) if is_number(n_rows) and n_rows > 0 else "")
        for name, n in ordered
    ]
    return Balance(bars, [f"Not drawn: {counted(more, 'more speaker')}, with fewer rows."] if more > 0 else [])


def _characters(told: Mapping[str, Any]) -> Characters | None:
    """Show the characters of the transcripts, the commonest first; None without any."""
    counts = {str(character): n for character, n in mapping(told.get("counts")).items() if is_number(n)}
    if not counts:
        return None
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return Characters([(character, figure(n)) for character, n in ordered], list(_rare_characters(told, len(counts))))


def _rare_characters(told: Mapping[str, Any], n_shown: int) -> Iterator[str]:
    """Say which characters can hardly be learned, and how many are not shown."""
    once, n_once, different = [figure(character) for character in listed(told.get("once"))], told.get("n_once"), told.get("different")
    if is_number(different) and different > n_shown:
        yield f"The commonest {figure(n_shown)} of {figure(different)} are shown."
    if once:
        more = f" and {figure(n_once - len(once))} more" if is_number(n_once) and n_once > len(once) else ""
        yield f"Once only, which is too rare to be learned: {' '.join(once)}{more}."


def _spans(lengths: Mapping[str, Any]) -> list[Span]:
    """Draw lengths of one unit (the last word of their names) on one scale."""
    shown = {name: mapping(some) for name, some in lengths.items() if _has_quantiles(mapping(some))}
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
    """Count the training rows that stand in other splits, and where rows are pairs, those whose first side does."""
    leaks, sources = mapping(survey.get("leaks")), mapping(survey.get("source_overlap"))
    splits = list(dict.fromkeys([*leaks, *sources]))
    if not splits:
        return None
    rows = [[str(name), figure(leaks.get(name, 0)), *([figure(sources.get(name, 0))] if sources else [])] for name in splits]
    side = next((str(name).rsplit("_", 1)[0] for name in mapping(survey.get("lengths"))), "source")
    head = ["Split", "Training rows that stand in it", *([f"Training rows whose {side} stands in it"] if sources else [])]
    shared = [f"Both in the {names} data: {counted(n, 'text')}." for names, n in mapping(survey.get("shared")).items() if n]
    return Table(head, rows, " ".join(shared))
