"""Pictures of single answers as HTML with real text: alignments as heat maps, and how much each word spoke for an answer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from heed.report.sources import listed, mapping
from heed.report.wording import SPACELESS, figure, is_number

MOST_TOKENS = 64  # of either side of an alignment
FAINTEST = 0.02  # weights below this leave their cell empty
TOLD_FROM = 0.1  # weights from here on say their number when pointed at
MOST_WORDS = 400  # of a text
AROUND = 8  # words on either side of a heavy one that are shown with it
FAINTEST_WORD = 0.05  # of the heaviest word's weight; fainter words are not marked
NO_SPACE = re.compile(f"[{SPACELESS}]")


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


def weighted_words(picture: object) -> Markup | None:
    """Draw a text whose words are marked by how much each spoke for or against an answer.

    Args:
        picture: {"words": [str], "weights": [float], "label": str}, words in the order of the text; anything else is not drawn.
    """
    found = mapping(picture)
    words, weights = [figure(word) for word in listed(found.get("words"))], listed(found.get("weights"))
    if not words or len(words) != len(weights):
        return None
    told = [weight if is_number(weight) else 0.0 for weight in weights]
    places = _shown_places(told)
    text = Markup().join(_pieces(words, told, places))
    drawn = Markup('<p class="weighted" dir="auto">{}</p>').format(text)
    said = Markup('<p class="note">Answer: <strong dir="auto">{}</strong></p>').format(figure(found.get("label", "")))
    return said + drawn + _unshown(len(places), len(words))


def _shown_places(weights: Sequence[float]) -> list[int]:
    """Return which words are shown, in order: all of a text that is short enough, or those around the heaviest."""
    if len(weights) <= MOST_WORDS:
        return list(range(len(weights)))
    chosen: set[int] = set()
    for i in sorted(range(len(weights)), key=lambda i: -abs(weights[i])):
        around = chosen.union(range(max(0, i - AROUND), min(len(weights), i + AROUND + 1)))
        if len(around) > MOST_WORDS:
            break
        chosen = around
    return sorted(chosen)


def _pieces(words: Sequence[str], weights: Sequence[float], places: Sequence[int]) -> Iterator[Markup]:
    """Yield the shown words with what stands between them; a gap is an ellipsis that says how many words it stands for."""
    heaviest = max((abs(weight) for weight in weights), default=0.0)
    last = -1
    for i in places:
        if i > last + 1:
            yield _gap(i - last - 1)
        elif i and _spaced(words[i - 1], words[i]):
            yield Markup(" ")
        yield _word(words[i], weights[i], heaviest)
        last = i
    if last < len(words) - 1:
        yield _gap(len(words) - 1 - last)


def _gap(n_words: int) -> Markup:
    return Markup(' <small title="{:,} words are not shown">…</small> ').format(n_words)


def _spaced(left: str, right: str) -> bool:
    """Return whether a space belongs between two words; scripts such as Chinese have none."""
    return not (NO_SPACE.match(left[-1:]) or NO_SPACE.match(right))


def _word(word: str, weight: float, heaviest: float) -> Markup:
    share = abs(weight) / heaviest if heaviest else 0.0
    if share == 0:
        return escape(word)
    title = f"{weight:+.3g}"
    if share < FAINTEST_WORD:
        return Markup('<span title="{}">{}</span>').format(title, word)
    look = "for" if weight > 0 else "against"
    return Markup('<span class="{}" style="--a:{:.2f}" title="{}">{}</span>').format(look, share, title, word)


def _unshown(n_shown: int, n_words: int) -> Markup:
    if n_shown == n_words:
        return Markup()
    note = Markup('<p class="note">{:,} of {:,} words are shown, those around the heaviest; … stands for the others.</p>')
    return note.format(n_shown, n_words)
