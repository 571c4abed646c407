"""Pictures of recordings: the log-mel spectrogram with the words above it and the probabilities of labels below, over one axis of time.

The spectrogram is an image of black ink, more or less opaque, which style.css turns white on a dark page; all else is SVG with real text.
"""

import base64
import io
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from heed.report.drawing import Axis, linear, picture, text_at
from heed.report.sources import listed, mapping, mappings
from heed.report.wording import figure, is_number, shortened

Floats = NDArray[np.float64]

WIDTH, LEFT, RIGHT = 720.0, 64.0, 16.0
SPECTROGRAM = 132.0  # height of the image
WORD_ROW, MOST_WORD_ROWS = 13.0, 4  # height of a row of words; words that find no place in so many are told when they are pointed at
LABEL_ROW = 17.0  # height of the probabilities of a label
GAP = 7.0  # between words, image and probabilities
LETTER, WIDE_LETTER = 6.3, 11.5  # rough widths of letters that are 11 high
MOST_WORDS, MOST_LABELS = 200, 12
LONGEST_LABEL = 9  # characters


@dataclass(frozen=True)
class Word:
    """A word and when it was said, in seconds."""

    text: str
    start: float
    end: float


def recording(content: object) -> Markup | None:
    """Draw a recording.

    Args:
        content: {"kind": "recording", "seconds": float, "mel": [[float]] of (bands, columns) from 0 to 1, the lowest band first,
            "words": [{"word", "start", "end"}], "posteriors": {"labels": [str], "values": [[float]] of (labels, columns)}}, the label
            of the blank being ""; words and posteriors may be missing, and what is no recording is not drawn.
    """
    found = mapping(content)
    mel, seconds = _matrix(found.get("mel")), found.get("seconds")
    if found.get("kind") != "recording" or mel is None or not is_number(seconds) or seconds <= 0:
        return None
    axis = _time_axis(float(seconds))
    words = _words(found.get("words"), float(seconds))
    rows = _word_rows(words, axis)
    top = GAP + WORD_ROW * (1 + max((row for row in rows if row is not None), default=-1)) + (GAP if words else 0.0)
    posteriors = _posteriors(mapping(found.get("posteriors")))
    bottom = top + SPECTROGRAM + (GAP + LABEL_ROW * len(posteriors) if posteriors else 0.0)
    parts = [
        *_ticks(axis, top + SPECTROGRAM, bottom),
        _image(mel, top),
        *_word_marks(words, rows, axis, top - GAP),
        *_label_marks(posteriors, top + SPECTROGRAM + GAP),
    ]
    about = f"Log-mel spectrogram of {figure(round(float(seconds), 2))} seconds: {' '.join(word.text for word in words)}"
    return picture(WIDTH, bottom + 34, parts, about)


def _matrix(content: object) -> Floats | None:
    """Return rows of equal length as numbers from 0 to 1, anything else in them as 0; None for what is no such list."""
    rows = [listed(row) for row in listed(content)]
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        return None
    values: Floats = np.array([[value if is_number(value) else 0.0 for value in row] for row in rows], dtype=np.float64)
    return values.clip(0.0, 1.0)


def _time_axis(seconds: float) -> Axis:
    """Return an axis that ends where the recording does."""
    ticks = linear("", [0.0, seconds]).ticks
    return Axis("time, s", 0.0, seconds, [(value, words) for value, words in ticks if value <= seconds])


def _along(axis: Axis, seconds: float) -> float:
    return LEFT + axis.place(seconds) * (WIDTH - LEFT - RIGHT)


def _ticks(axis: Axis, top: float, bottom: float) -> Iterator[Markup]:
    for value, words in axis.ticks:
        yield Markup('<path class="grid" d="M{:.1f} {:.1f}V{:.1f}"/>').format(_along(axis, value), top, bottom + 4)
        yield text_at(_along(axis, value), bottom + 16, words, "middle")
    yield text_at(WIDTH - RIGHT, bottom + 30, axis.title, "end")


def _image(mel: Floats, top: float) -> Markup:
    place = Markup('<image class="ink" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" preserveAspectRatio="none" href="{}"/>')
    title = text_at(LEFT - 6, top + SPECTROGRAM / 2 + 4, "log-mel", "end")
    return place.format(LEFT, top, WIDTH - LEFT - RIGHT, SPECTROGRAM, _png(mel)) + title


def _png(values: Floats) -> str:
    """Return numbers from 0 to 1 as an image in black ink, as opaque as a number is large; the first row at the bottom."""
    from matplotlib.image import imsave

    ink = np.zeros((*values.shape, 4), dtype=np.uint8)
    ink[..., 3] = np.rint(255 * values[::-1])
    file = io.BytesIO()
    imsave(file, ink, format="png", metadata={"Software": "heed"})  # or else that of matplotlib, whose version would change the page
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _words(content: object, seconds: float) -> list[Word]:
    """Return the words that have times within the recording, in order of time."""
    timed = [(figure(one.get("word", "")), one.get("start"), one.get("end")) for one in mappings(content)]
    found = [Word(text, start, min(end, seconds)) for text, start, end in timed if is_number(start) and is_number(end) and start <= end]
    return sorted((word for word in found if 0 <= word.start <= seconds), key=lambda word: word.start)[:MOST_WORDS]


def _word_rows(words: Sequence[Word], axis: Axis) -> list[int | None]:
    """Give each word the lowest row in which it touches no other; None where there is none."""
    ends = [-np.inf] * MOST_WORD_ROWS
    rows: list[int | None] = []
    for word in words:
        middle, half = _middle(word, axis), _letters_width(word.text) / 2
        row = next((row for row, end in enumerate(ends) if end <= middle - half), None)
        if row is not None:
            ends[row] = middle + half + LETTER
        rows.append(row)
    return rows


def _middle(word: Word, axis: Axis) -> float:
    return (_along(axis, word.start) + _along(axis, word.end)) / 2


def _letters_width(text: str) -> float:
    return sum(WIDE_LETTER if unicodedata.east_asian_width(char) in "WF" else LETTER for char in text)


def _word_marks(words: Sequence[Word], rows: Sequence[int | None], axis: Axis, bottom: float) -> Iterator[Markup]:
    """Draw a bar for the time of each word, and the word above it."""
    for word, row in zip(words, rows, strict=True):
        left, right = _along(axis, word.start), _along(axis, word.end)
        bar = Markup('<path class="said" d="M{:.1f} {:.1f}H{:.1f}"><title>{}: {:.2f} – {:.2f} s</title></path>')
        yield bar.format(left, bottom, max(right - 1, left + 1), word.text, word.start, word.end)
        if row is None:
            continue
        if row:
            yield Markup('<path class="grid" d="M{:.1f} {:.1f}V{:.1f}"/>').format(
                (left + right) / 2, bottom - 3, bottom - WORD_ROW * row - 3
            )
        yield text_at((left + right) / 2, bottom - WORD_ROW * row - 5, word.text, "middle")


def _posteriors(content: Mapping[str, Any]) -> list[tuple[str, Floats]]:
    """Return the name and the probabilities of each label, (columns,)."""
    labels, values = [figure(label) for label in listed(content.get("labels"))], _matrix(content.get("values"))
    if values is None or len(values) != len(labels):
        return []
    names = ["blank" if not label else "space" if label.isspace() else shortened(label, LONGEST_LABEL) for label in labels]
    return list(zip(names, values, strict=True))[:MOST_LABELS]


def _label_marks(posteriors: Sequence[tuple[str, Floats]], top: float) -> Iterator[Markup]:
    """Draw the probabilities of each label as an area over a line of its own."""
    for number, (name, values) in enumerate(posteriors):
        base = top + LABEL_ROW * (number + 1)
        yield Markup('<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>').format(LEFT, base, WIDTH - RIGHT)
        yield text_at(LEFT - 6, base - 2, name, "end")
        yield Markup('<path class="area {}" d="{}"/>').format("grey" if name == "blank" else "accent", _area(values, base))


def _area(values: Floats, base: float) -> str:
    """Return the outline of an area above a line, with a point only where it bends."""
    inner = values[1:-1]
    bends = np.r_[True, (inner != values[:-2]) | (inner != values[2:]), True][: len(values)]
    places = LEFT + (np.flatnonzero(bends) + 0.5) / len(values) * (WIDTH - LEFT - RIGHT)
    heights = base - values[bends] * (LABEL_ROW - 3)
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(places, heights, strict=True))
    return f"M{LEFT:.1f} {base:.1f}L{line}L{WIDTH - RIGHT:.1f} {base:.1f}Z"
