"""Examples with their answers: what differs from the reference, how sure an answer is, and what can be drawn of it."""

import contextlib
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from markupsafe import Markup, escape

from heed.config import validate
from heed.errors import HeedError
from heed.report.bars import MOST_PROBABILITIES, Bar, probabilities
from heed.report.pictures import heat_map, weighted_words
from heed.report.recordings import recording
from heed.report.sources import Json, listed, mapping, mappings, task_of
from heed.report.wording import SPACELESS, counted, figure, is_number, label

MOST_CHARACTERS = 2000  # of a text; what is left out is counted
MOST_NATS = 60.0  # of a token; beyond it a perplexity is no longer told apart
SMALLEST_POINTS = 10.0  # qualities beyond it are out of 100
NOTHING = Markup("<i>nothing</i>")  # what stands for a text that is empty
OF_WORDS = ("words", "tags")  # the kinds of lists that are read as a text is
WRITTEN = ("text", "transcript")  # the kinds of outputs that options of decoding matter to
# Scripts that put no spaces between words are compared character by character.
UNITS = re.compile(f"(?:[{SPACELESS}]|[^\\W{SPACELESS}]+|[^\\w\\s])\\s*|\\s+")


@dataclass(frozen=True)
class Text:
    """One text of an example: what it is, and itself with differences marked."""

    role: str  # input, reference, answer or remark
    label: str
    html: Markup


@dataclass(frozen=True)
class Shown:
    """An example as a card."""

    quality: str
    texts: list[Text]
    others: list[tuple[str, str]]  # further answers with their scores
    probabilities: list[Bar]
    notes: list[str]  # on how the answer came about
    picture: Markup | None  # an alignment
    words: Markup | None  # the text with its words weighted
    recording: Markup | None  # a spectrogram with its words
    recorded: str = ""  # which recording that is, and what was said


@dataclass(frozen=True)
class Group:
    """Examples of one sort (best, median or worst), and what the task calls them."""

    sort: str
    name: str
    shown: list[Shown]


@dataclass(frozen=True)
class Keys:
    """What the keys of an example are: what goes in, and what the answer should have been; all others are remarks.

    `recordings` are those of the inputs that hold audio, `words` those that are lists of words or of their tags. `written` says whether
    answers that are scored are written token by token.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    recordings: Sequence[str] = ()
    written: bool = True
    words: Sequence[str] = ()


def example_keys(config: Json) -> Keys:
    """Return the keys of the run's task; those of plain pairs for a task that is not heed's own, whose code is not run here."""
    kind = task_of(config)
    if kind is None:
        return Keys(("source",), ("target",))
    with contextlib.suppress(HeedError):  # of settings that this version does not know
        settings = {name: value for name, value in mapping(config.get("task")).items() if name != "name"}
        kind = kind.suited(validate(kind.settings, settings))
    inputs = {**kind.inputs, **kind.optional}
    written = any(form in WRITTEN for name, form in kind.outputs.items() if name not in inputs)
    words = [name for name, form in {**inputs, **kind.outputs}.items() if form in OF_WORDS]
    return Keys(tuple(inputs), tuple(kind.outputs), [name for name, form in inputs.items() if form == "audio"], written, words)


def groups(evaluation: Json, keys: Keys) -> list[Group]:
    """Return the telling examples of an evaluation, best, median and worst."""
    entries = {str(sort): [one for one in mappings(some) if _is_entry(one)] for sort, some in mapping(evaluation.get("examples")).items()}
    names = mapping(evaluation.get("group_names"))
    decimals = _quality_decimals([one.get("quality") for some in entries.values() for one in some])
    return [
        Group(sort, figure(names.get(sort, label(sort))), [_shown(one, keys, decimals) for one in some])
        for sort, some in entries.items()
        if some
    ]


def _is_entry(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("example"), Mapping) and isinstance(entry.get("answer"), Mapping)


def _quality_decimals(qualities: Sequence[object]) -> int:
    """Return how many decimals tell qualities apart: those of points one, those of shares and of log p two."""
    return 1 if any(is_number(quality) and abs(quality) > SMALLEST_POINTS for quality in qualities) else 2


def _shown(entry: Mapping[str, Any], keys: Keys, decimals: int) -> Shown:
    answer, quality = entry["answer"], entry.get("quality")
    return Shown(
        quality=f"{quality:.{decimals}f}" if is_number(quality) else "",
        texts=_texts(entry["example"], answer, keys),
        others=[(_cut(figure(other.get("text", ""))), figure(other.get("score"))) for other in mappings(answer.get("others"))],
        probabilities=probabilities(answer.get("probabilities")),
        notes=list(_notes(answer)),
        picture=heat_map(entry.get("picture")),
        words=weighted_words(entry.get("picture")),
        recording=recording(entry.get("picture")),
        recorded=_recorded(entry["example"], keys),
    )


def _recorded(example: Mapping[str, Any], keys: Keys) -> str:
    """Name the file of a recording and what is said in it; "" where there is none."""
    files = [re.split(r"[/\\]", example[name])[-1] for name in keys.recordings if isinstance(example.get(name), str)]
    said = [figure(example[name]) or "nothing" for name in keys.outputs if name in example]
    return _cut(": ".join([*files, *said])) if files else ""


def _notes(answer: Mapping[str, Any]) -> Iterator[str]:
    """Say what is particular about how an answer came about."""
    labels, n_windows, n_cut = listed(answer.get("labels")), answer.get("windows"), answer.get("cut")
    yield from _foretold(answer)
    if labels and figure(labels) != figure(answer.get("text", "")):
        yield f"Labels: {figure(labels)}"
    elif "labels" in answer and not labels:
        yield "No label was given."
    if answer.get("abstained") is True:
        likeliest = f"; the likeliest answer was {figure(answer['likeliest'])}" if "likeliest" in answer else ""
        yield f"Withheld{likeliest}."
    left_out = len(mapping(answer.get("probabilities"))) - MOST_PROBABILITIES
    if left_out > 0:
        yield f"{counted(left_out, 'more class')}, less probable."
    if is_number(n_windows) and n_windows > 1:
        yield f"Read in {figure(n_windows)} windows."
    if is_number(n_cut) and n_cut > 0:
        yield f"Cut off at the end: {counted(n_cut, 'token')}."


def _foretold(answer: Mapping[str, Any]) -> Iterator[str]:
    """Say how well the tokens of a text were foretold, given the log p of all, or of those that were hidden."""
    log_p, n_tokens, n_hidden = answer.get("log_likelihood"), answer.get("tokens"), answer.get("hidden")
    n = n_hidden if is_number(n_hidden) else n_tokens
    if not is_number(log_p) or not is_number(n) or n <= 0:
        return
    perplexity = f"perplexity {figure(math.exp(min(-log_p / n, MOST_NATS)))}"
    if is_number(n_hidden) and is_number(answer.get("right")):
        yield f"{figure(answer['right'])} of {counted(n_hidden, 'hidden token')} foretold rightly; {perplexity}."
    else:
        yield f"{counted(n, 'token')}, {perplexity}."


def _texts(example: Mapping[str, Any], answered: Mapping[str, Any], keys: Keys) -> list[Text]:
    """Return what is shown of an example: inputs, reference, answer, remarks."""
    said = figure(answered.get("text", ""))
    inputs = [_input(name, example[name], keys, answered) for name in keys.inputs if name in example]
    remarks = [_plain("remark", name, value) for name, value in example.items() if name not in (*keys.inputs, *keys.outputs)]
    wanted = [name for name in keys.outputs if name in example and name not in keys.inputs]
    if not wanted:
        return [*inputs, *([Text("answer", "answer", escape(_cut(said)))] if said else []), *remarks]
    remarks = [_plain("answer", "in the text", said), *remarks] if listed(answered.get("tags")) else remarks
    reference, answer = _compared(_spaced(wanted[0], example[wanted[0]], keys), answered)
    return [*inputs, Text("reference", "reference", reference or NOTHING), Text("answer", "answer", answer or NOTHING), *remarks]


def _compared(value: object, answered: Mapping[str, Any]) -> tuple[Markup, Markup]:
    """Mark what differs between what the answer should have been and what it is: tag by tag, label by label, or word by word."""
    tags = [figure(tag) for tag in listed(answered.get("tags"))]
    if tags:
        return tag_differences(_reference(value).split(), tags)
    if isinstance(value, list) and "labels" in answered:
        return label_differences([figure(one) for one in value], [figure(one) for one in listed(answered["labels"])])
    return differences(_reference(value), figure(answered.get("text", "")))


def _reference(value: object) -> str:
    """Write what the answer should have been; of several that are right, such as parts of a text, each once."""
    texts = [figure(one["text"]) for one in listed(value) if isinstance(one, Mapping) and "text" in one]
    return " | ".join(dict.fromkeys(texts)) if texts or value == [] else figure(value)


def _input(name: str, value: object, keys: Keys, answered: Mapping[str, Any]) -> Text:
    """Show what went in, with the answer marked if it is a part of it; of samples, which nobody reads, their number."""
    if name in keys.recordings and isinstance(value, str):  # a path is broken behind its folders rather than anywhere
        return Text("input", name, Markup(re.sub(r"([/\\])", r"\1<wbr>", str(escape(_cut(value))))))
    samples = name in keys.recordings and isinstance(value, list)
    start, end = (place if isinstance(place, int) else -1 for place in (answered.get("start"), answered.get("end")))
    if isinstance(value, str) and 0 <= start < end and value[start:end] == answered.get("text"):
        return Text("input", name, _with_mark(value, start, end))
    return _plain("input", name, counted(len(listed(value)), "sample") if samples else _spaced(name, value, keys))


def _spaced(name: str, value: object, keys: Keys) -> object:
    """Return a list of words, or of their tags, as one text; anything else as it is."""
    return " ".join(map(figure, value)) if name in keys.words and isinstance(value, list) else value


def _with_mark(text: str, start: int, end: int) -> Markup:
    """Show a text with a part of it marked; of a long one what stands around that."""
    first = 0 if len(text) <= MOST_CHARACTERS else max(0, min(start, end - MOST_CHARACTERS // 2))
    last = min(len(text), first + MOST_CHARACTERS)
    before, behind = ("… " if first else ""), (" …" if last < len(text) else "")
    return Markup("{}{}<mark>{}</mark>{}{}").format(before, text[first:start], text[start:end], text[end:last], behind)


def _plain(role: str, name: str, value: object) -> Text:
    return Text(role, name, escape(_cut(figure(value))))


def _cut(text: str) -> str:
    left_out = len(text) - MOST_CHARACTERS
    return text if left_out <= 0 else f"{text[:MOST_CHARACTERS]} … ({left_out:,} more characters)"


def differences(reference: str, answer: str) -> tuple[Markup, Markup]:
    """Mark in both texts the words (characters, in scripts without spaces) that the other does not have at that place.

    Returns:
        the reference with <del> around what the answer lacks, and the answer with <ins> around what it has instead; texts too
        long to compare come without marks.
    """
    if max(len(reference), len(answer)) > MOST_CHARACTERS:
        return escape(_cut(reference)), escape(_cut(answer))
    wanted: list[str] = UNITS.findall(reference)
    said: list[str] = UNITS.findall(answer)
    matcher = difflib.SequenceMatcher(None, [unit.strip() for unit in wanted], [unit.strip() for unit in said], autojunk=False)
    codes = matcher.get_opcodes()
    left = Markup().join(_marked("del", wanted[i:j], tag) for tag, i, j, _, _ in codes)
    right = Markup().join(_marked("ins", said[i:j], tag) for tag, _, _, i, j in codes)
    return left, right


def tag_differences(wanted: Sequence[str], said: Sequence[str]) -> tuple[Markup, Markup]:
    """Mark in two rows of tags those that differ from the one of the same word, as `differences` does."""
    alike = [a == b for a, b in zip_longest(wanted, said)]
    return _row_of_tags("del", wanted, alike), _row_of_tags("ins", said, alike)


def label_differences(wanted: Sequence[str], said: Sequence[str]) -> tuple[Markup, Markup]:
    """Mark the labels that the other side does not have, in whatever order they stand there, as `differences` does."""
    return _row_of_labels("del", wanted, said), _row_of_labels("ins", said, wanted)


def _row_of_labels(element: str, labels: Sequence[str], others: Sequence[str]) -> Markup:
    marked = Markup(f"<{element}>{{}}</{element}>")
    return Markup(", ").join(label if label in others else marked.format(label) for label in labels)


def _row_of_tags(element: str, tags: Sequence[str], alike: Sequence[bool]) -> Markup:
    marked = Markup(f"<{element}>{{}}</{element}>")
    return Markup(" ").join(tag if same else marked.format(tag) for tag, same in zip(tags, alike, strict=False))


def _marked(element: str, units: Sequence[str], tag: str) -> Markup:
    text = "".join(units)
    words = text.rstrip()
    if tag == "equal" or not words:
        return escape(text)
    return Markup(f"<{element}>{{}}</{element}>{{}}").format(words, text[len(words) :])
