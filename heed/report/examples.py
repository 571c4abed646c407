"""Examples with their answers: what differs from the reference, and alignment pictures as cells with real text."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from heed.errors import HeedError
from heed.report.sources import Json
from heed.report.wording import figure, is_number, label

MOST_CHARACTERS = 2000  # of a text; what is left out is counted
MOST_TOKENS = 64  # of either side of a picture
FAINTEST = 0.02  # weights below this leave their cell empty
TOLD_FROM = 0.1  # weights from here on say their number when pointed at
# Scripts that put no spaces between words are compared character by character.
SPACELESS = "\u3005\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
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
    picture: Markup | None


@dataclass(frozen=True)
class Group:
    """Examples of one sort: best, median, worst."""

    sort: str
    shown: list[Shown]


@dataclass(frozen=True)
class Keys:
    """What the keys of an example are: what goes in, and what the answer should have been; all others are remarks."""

    inputs: Sequence[str]
    outputs: Sequence[str]


def example_keys(config: Json) -> Keys:
    """Return the keys of the run's task; those of plain pairs for a task that is not heed's own, whose code is not run here."""
    from heed.tasks import find_task

    task = config.get("task")
    try:
        kind = find_task(str(task.get("name") if isinstance(task, dict) else task), trust=False)
    except HeedError:
        return Keys(("source",), ("target",))
    return Keys(tuple(kind.inputs), kind.outputs)


def groups(evaluation: Json, keys: Keys) -> list[Group]:
    """Return the telling examples of an evaluation, best, median and worst."""
    sorts = evaluation.get("examples")
    if not isinstance(sorts, dict):
        return []
    entries = {sort: [entry for entry in some if _is_entry(entry)] for sort, some in sorts.items() if isinstance(some, list)}
    return [Group(label(sort), [_shown(entry, keys) for entry in some]) for sort, some in entries.items() if some]


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("example"), dict) and isinstance(entry.get("answer"), dict)


def _shown(entry: Mapping[str, Any], keys: Keys) -> Shown:
    answer, quality = entry["answer"], entry.get("quality")
    others = [other for other in answer.get("others") or [] if isinstance(other, dict)]
    return Shown(
        quality=f"{quality:.1f}" if is_number(quality) else "",
        texts=_texts(entry["example"], figure(answer.get("text", "")), keys),
        others=[(_cut(figure(other.get("text", ""))), figure(other.get("score"))) for other in others],
        picture=heat_map(entry.get("picture")),
    )


def _texts(example: Mapping[str, Any], said: str, keys: Keys) -> list[Text]:
    """Return what is shown of an example: inputs, reference, answer, remarks."""
    inputs = [_plain("input", name, example[name]) for name in keys.inputs if name in example]
    remarks = [_plain("remark", name, value) for name, value in example.items() if name not in (*keys.inputs, *keys.outputs)]
    wanted = [figure(example[name]) for name in keys.outputs if name in example]
    if not wanted:
        return [*inputs, Text("answer", "answer", escape(_cut(said))), *remarks]
    reference, answer = differences(wanted[0], said)
    return [*inputs, Text("reference", "reference", reference), Text("answer", "answer", answer), *remarks]


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


def _marked(element: str, units: Sequence[str], tag: str) -> Markup:
    text = "".join(units)
    words = text.rstrip()
    if tag == "equal" or not words:
        return escape(text)
    return Markup(f"<{element}>{{}}</{element}>{{}}").format(words, text[len(words) :])


def heat_map(picture: object) -> Markup | None:
    """Draw an alignment as a table: a row per target token, a column per source token, darker for more weight.

    Args:
        picture: {"source": [str], "target": [str], "weights": [[float]] of (T, S)}; anything else is not drawn.
    """
    if not isinstance(picture, dict) or not _is_alignment(picture):
        return None
    columns, rows = picture["source"][:MOST_TOKENS], picture["target"][:MOST_TOKENS]
    head = Markup().join(Markup('<th scope="col"><span>{}</span></th>').format(token) for token in columns)
    body = Markup().join(_heat_row(token, columns, weights) for token, weights in zip(rows, picture["weights"], strict=False))
    table = Markup('<div class="wide"><table class="heat"><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table></div>')
    return table.format(head, body) + Markup().join(_left_out(picture))


def _is_alignment(picture: Mapping[str, Any]) -> bool:
    source, target, weights = (picture.get(key) for key in ("source", "target", "weights"))
    if not (isinstance(source, list) and isinstance(target, list) and isinstance(weights, list)):
        return False
    full = bool(source) and bool(target) and len(weights) == len(target)
    return full and all(isinstance(row, list) and len(row) == len(source) for row in weights)


def _heat_row(token: object, columns: Sequence[object], weights: Sequence[object]) -> Markup:
    cells = Markup().join(_cell(token, column, weight) for column, weight in zip(columns, weights, strict=False))
    return Markup('<tr><th scope="row"><span>{}</span></th>{}</tr>').format(token, cells)


def _cell(token: object, column: object, weight: object) -> Markup:
    if not is_number(weight) or weight < FAINTEST:
        return Markup("<td></td>")
    # The square root keeps weights that are spread over several tokens visible.
    alpha = f"{min(1.0, weight) ** 0.5:.2f}"
    if weight < TOLD_FROM:
        return Markup('<td style="--a:{}"></td>').format(alpha)
    return Markup('<td style="--a:{}" title="{} ← {}: {:.2f}"></td>').format(alpha, token, column, weight)


def _left_out(picture: Mapping[str, Any]) -> Iterator[Markup]:
    for side in ("source", "target"):
        if len(picture[side]) > MOST_TOKENS:
            yield Markup('<p class="note">The first {} of {} {} tokens are shown.</p>').format(MOST_TOKENS, len(picture[side]), side)
