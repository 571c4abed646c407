"""What was found in data, as lines for a terminal."""

import re
import textwrap
from collections.abc import Callable, Mapping
from itertools import islice

from heed.data.quality import QUANTILES
from heed.inspection.layout import Findings, aligned, cut, cut_path, section
from heed.terminal import counted

SHOWN = 3  # rows shown for each fault
SHOWN_SPEAKERS = 10
LINE_WIDTH = 100  # of a list of characters
SEARCHED = "source and target, audio and text, question, context and answers, tokens and tags, text and label, nor text alone"
# Control characters, those that turn the direction of writing, and halves of surrogate pairs: a terminal would obey them or fail.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def data_lines(found: Findings) -> list[str]:
    """Return what `inspect_data` found as lines for a terminal, which they can do no harm."""
    form = ", ".join(filter(None, (found["format"], found["encoding"])))
    n_bytes = f", {sum(found['files'].values()):,} bytes" if found["files"] else ""
    bad = f"; {counted(found['bad'], 'bad row')} skipped" if found["bad"] else ""
    lines = [
        f"{found['source']}: {counted(found['rows'], 'row')}{bad} ({form}{n_bytes})",
        *section("columns", _column_lines(found["columns"])),
        *section("bad rows, the first of them", found["bad_examples"]),
        *(line for kind, told in OF_SURVEYS.items() if found[kind] for line in told(found[kind])),
        *([] if any(found[kind] for kind in OF_SURVEYS) else section("no faults were searched for", _unsearched_lines())),
    ]
    return [UNPRINTABLE.sub("\ufffd", line) for line in lines]


def _unsearched_lines() -> list[str]:
    """Say which columns there would have to be, and how others are named."""
    line = f"there are neither columns {SEARCHED}; name yours, as with data.columns.audio=NAME data.columns.text=NAME"
    return textwrap.wrap(line, LINE_WIDTH)


def _column_lines(columns: Findings) -> list[str]:
    rows: list[tuple[str, ...]] = [("name", "holds", "length in", *QUANTILES)]
    for name, column in columns.items():
        holds = ", ".join(f"{count:,} {kind}" for kind, count in column["kinds"].items())
        lengths = [(unit, *(f"{number:,}" for number in quantiles.values())) for unit, quantiles in column["lengths"].items()]
        first, *others = lengths or [("",) * (1 + len(QUANTILES))]
        rows += [(name, holds, *first), *(("", "", *other) for other in others)]
    return aligned(rows, right=range(3, 3 + len(QUANTILES)))


def _tagged_lines(tagged: Findings) -> list[str]:
    counts = _faults(tagged) | {f"sentences also in {name}": count for name, count in tagged["leaks"].items()}
    n_spans = sum(tagged["classes"].values())
    return [
        *section("sentences", aligned(_shares(counts, tagged["rows"]), right={1, 2})),
        *section("spans", aligned(_shares(tagged["classes"], n_spans), right={1, 2})),
        *section("lengths", _length_lines(tagged["lengths"])),
        *_example_lines(tagged, lambda one: (cut(one["label"]), cut(one["text"]))),
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
        *section("questions", [*aligned(_shares(counts, questions["rows"]), right={1, 2}), f"{questions['contexts']:,} contexts{titles}"]),
        *section("lengths", _length_lines(questions["lengths"])),
        *(section("warnings", questions["warnings"])),
        *_example_lines(questions, lambda one: (cut(one["text"]), cut(one["context"]))),
    ]


def _pair_lines(pairs: Findings) -> list[str]:
    counts = {
        **_faults(pairs),
        **{f"pairs also in {name}": count for name, count in pairs["leaks"].items()},
        **{f"sources also in {name}": count for name, count in pairs["source_overlap"].items()},
    }
    ratio = f"{pairs['typical_ratio']:.3g} target characters for each of the source"
    lines = section("pairs", [*aligned(_shares(counts, pairs["rows"]), right={1, 2}), ratio])
    return lines + _example_lines(pairs, lambda one: (cut(one["source"]), cut(one["target"])))


def _spoken_lines(spoken: Findings) -> list[str]:
    counts = _faults(spoken) | {f"recordings also in {name}": count for name, count in spoken["leaks"].items()}
    shared = [(f"recordings both in {names}", f"{count:,}", "") for names, count in spoken["shared"].items()]
    return [
        *section("recordings", [*aligned([*_shares(counts, spoken["rows"]), *shared], right={1, 2}), _spelt(spoken["hours"])]),
        *section("lengths", _length_lines(spoken["lengths"])),
        *section("speakers", _speaker_lines(spoken)),
        *section("warnings", spoken["warnings"]),
        *section("characters of the transcripts", _character_lines(spoken["characters"])),
        *_example_lines(spoken, lambda one: (cut_path(one["audio"]), cut(one["text"]))),
    ]


def _spelt(hours: float) -> str:
    """Write how long recordings are together."""
    if hours >= 1:
        return f"{hours:,.4g} h"
    minutes, seconds = divmod(round(3600 * hours), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{3600 * hours:.1f} s"


def _length_lines(lengths: Mapping[str, Mapping[str, float]]) -> list[str]:
    rows = [(name.replace("_", " "), *(f"{number:,}" for number in one.values())) for name, one in lengths.items() if one]
    return aligned([("of", *QUANTILES), *rows], right=range(1, 1 + len(QUANTILES)))


def _speaker_lines(spoken: Findings) -> list[str]:
    """List the busiest speakers, and say how many others there are, here and in other splits."""
    speakers = spoken["speakers"]
    if not speakers["different"]:
        return []
    busiest = dict(islice(speakers["rows"].items(), SHOWN_SPEAKERS))
    more = speakers["different"] - len(busiest)
    return [
        *aligned(_shares(busiest, spoken["rows"]), right={1, 2}),
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
        *section("texts", aligned([*_shares(counts, texts["rows"]), *shared], right={1, 2})),
        *section("labels", aligned(_shares(texts["classes"], texts["rows"]), right={1, 2})),
        *_example_lines(texts, lambda one: (cut(one["label"]), cut(one["text"]))),
    ]


def _text_lines(texts: Findings) -> list[str]:
    counts = _faults(texts) | {f"texts also in {name}": count for name, count in texts["leaks"].items()}
    lines = section("texts", aligned(_shares(counts, texts["rows"]), right={1, 2}))
    return lines + _example_lines(texts, lambda one: (cut(" ".join(one["text"].split())),))


OF_SURVEYS: dict[str, Callable[[Findings], list[str]]] = {
    "questions": _question_lines,
    "tagged": _tagged_lines,
    "pairs": _pair_lines,
    "spoken": _spoken_lines,
    "labelled": _label_lines,
    "texts": _text_lines,
}


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
        lines += section(f"{name}, for example", aligned(rows) if rows else [])
    return lines
