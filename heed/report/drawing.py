"""Plots as inline SVG with real text: axes with units, lines, dots and intervals, in the colours of style.css.

Six colours (c0 to c5, after Paul Tol's vibrant scheme, which colour-blind people can tell apart), then the same six dashed, tell lines
apart; every plot comes with a legend of words. Left out: anything that needs a script.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from heed.report.wording import score_title, shortened, tick, unit

WIDTH, HEIGHT, SQUARE = 360.0, 230.0, 282.0  # of a plot, whose letters are 11 high
LEFT, RIGHT, TOP, BOTTOM = 46.0, 16.0, 24.0, 38.0  # margins around the area between the axes
LINE = 12.0  # further margin below for a second line of words
ROW = 38.0  # height of a row of a strip plot
DOT = 2.8  # radius
LETTER = 6.4  # width of a figure
N_COLOURS = 6
N_TICKS = 5
MOST_TICKS = 8
TICK_CHARACTERS = 52  # that fit below an axis side by side
LONGEST_NAME = 32
LEAST_SPAN = 1e-9  # of an axis, relative to its values; narrower ones are widened
LEAST_DRAWN = 1e-30  # on a logarithmic axis
FEW_DECADES, SOME_DECADES = 1.3, 2.6  # up to which a logarithmic axis has ticks at 1, 2, 3, 5, 7 and at 1, 2, 5


@dataclass(frozen=True)
class Axis:
    """A scale: what it measures, its ends, its ticks with what is written at them, and whether places go by the logarithm."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one; beyond an end, that end."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return min(1.0, max(0.0, (value - low) / (high - low)))


@dataclass(frozen=True)
class Point:
    """A point of a line, with its interval if it has one, and what is said when it is pointed at."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    about: str = ""


@dataclass(frozen=True)
class Series:
    """A line with a name; its look is a class of style.css."""

    name: str
    look: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Drawing:
    """A plot with its title, the look and name of each line, and what else to know about it."""

    title: str
    svg: Markup
    keys: Sequence[tuple[str, str]] = ()
    note: str = ""


def colour(number: int) -> str:
    """Return the look of the n-th line of a plot, from 0."""
    return f"c{number % N_COLOURS}" + (" dashed" if number // N_COLOURS % 2 else "")


def linear(title: str, values: Iterable[float], most: float = math.inf, *, whole: bool = False) -> Axis:
    """Return an axis that holds all values, with round numbers at its ends: none below zero or above `most` unless a value is.

    With `whole`, for what only comes in whole numbers, no tick stands between them.
    """
    known = list(values) or [0.0]
    lowest = 0.0 if min(known) >= 0 else -math.inf
    highest = most * (1 + LEAST_SPAN) if max(known) <= most else math.inf
    ticks = [value for value in _round_numbers(known) if lowest <= value <= highest]
    shown = [value for value in ticks if not whole or abs(value - round(value)) < LEAST_SPAN]
    return Axis(title, ticks[0], ticks[-1], [(value, tick(value)) for value in shown])


def score_axis(name: str, values: Iterable[float]) -> Axis:
    """Return an axis for values of a score, which are given in the unit they are shown in."""
    return linear(score_title(name), values, 100.0 if unit(name) else math.inf)


def _round_numbers(values: Sequence[float]) -> list[float]:
    """Return round numbers at equal distances, which begin below all values and end above."""
    low, high = min(values), max(values)
    largest = max(abs(low), abs(high))
    if high - low <= LEAST_SPAN * max(largest, LEAST_SPAN):
        margin = largest / 10 if largest > LEAST_SPAN else 1.0
        low, high = low - margin, high + margin
    rough = (high - low) / N_TICKS
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next((size * power for size in (1, 2, 5) if size * power >= rough), 10 * power)
    first, last = math.floor(low / step + LEAST_SPAN), math.ceil(high / step - LEAST_SPAN)
    return [i * step for i in range(first, last + 1)]


def logarithmic(title: str, values: Iterable[float], at: Iterable[float] = ()) -> Axis:
    """Return a logarithmic axis that holds all values.

    Args:
        values: numbers above zero.
        at: where ticks should stand; round numbers if there are none, or too many.
    """
    known = sorted({max(value, LEAST_DRAWN) for value in values}) or [1.0]
    low, high = known[0] / 1.15, known[-1] * 1.15  # so that no dot lies on the frame
    ticks = sorted({value for value in at if low <= value <= high})
    if not 0 < len(ticks) <= MOST_TICKS:
        ticks = _thinned(_round_powers(low, high))
    if len(ticks) < 2:
        ticks = sorted({known[0], known[-1]})
    return Axis(title, low, high, [(value, tick(value)) for value in ticks], log=True)


def _round_powers(low: float, high: float) -> list[float]:
    """Return the powers of ten from low to high, with numbers between them where there are few."""
    decades = math.log10(high) - math.log10(low)
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for sizes, most in (((1, 2, 3, 5, 7), FEW_DECADES), ((1, 2, 5), SOME_DECADES)):
        ticks = [value for power in powers for size in sizes if low <= (value := size * 10.0**power) <= high]
        if decades <= most and _is_room(ticks, decades):
            return ticks
    return [10.0**power for power in powers if low <= 10.0**power <= high]


def _is_room(ticks: Sequence[float], decades: float) -> bool:
    """Return whether what is written at neighbouring ticks does not touch, along an axis of so many decades."""
    across = (WIDTH - LEFT - RIGHT) / decades
    return all(across * math.log10(b / a) >= LETTER * (1 + (len(tick(a)) + len(tick(b))) / 2) for a, b in pairwise(ticks))


def _thinned(ticks: Sequence[float]) -> list[float]:
    return list(ticks[:: max(1, -(-len(ticks) // MOST_TICKS))])


def categories(title: str, names: Sequence[str], notes: Sequence[str] = ()) -> Axis:
    """Return an axis with a place for each name, 0, 1, 2 and so on; notes stand below the names."""
    each = max(1, -(-len(names) // MOST_TICKS))
    longest = max(4, TICK_CHARACTERS * each // max(1, len(names)))
    words = [shortened(name, longest) for name in names]
    if notes:
        words = [f"{word}\n{shortened(note, longest)}" for word, note in zip(words, notes, strict=True)]
    return Axis(title, -0.5, max(len(words), 1) - 0.5, [(float(i), words[i]) for i in range(0, len(words), each)])


@dataclass(frozen=True)
class Plot:
    """The area between two axes, and what is drawn in it."""

    x: Axis
    y: Axis
    square: bool = False

    @property
    def area(self) -> tuple[float, float]:
        """Width and height of what lies between the axes."""
        width, height = (SQUARE, SQUARE) if self.square else (WIDTH, HEIGHT)
        return width - LEFT - RIGHT, height - TOP - BOTTOM

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point."""
        width, height = self.area
        return LEFT + self.x.place(x) * width, TOP + (1 - self.y.place(y)) * height

    def line(self, points: Iterable[tuple[float, float]], look: str) -> Markup:
        """Draw a line through points."""
        path = "L".join("{:.1f} {:.1f}".format(*self.at(x, y)) for x, y in points)
        return Markup('<path class="line {}" d="M{}"/>').format(look, path) if path else Markup()

    def dot(self, point: Point, look: str, radius: float = DOT) -> Markup:
        """Draw a dot that says what it is about when it is pointed at."""
        return _dot(self.at(point.x, point.y), look, point.about, radius)

    def whisker(self, point: Point, look: str) -> Markup:
        """Draw the interval of a point; nothing if it has none."""
        if point.low is None or point.high is None:
            return Markup()
        x, bottom = self.at(point.x, point.low)
        return Markup('<path class="whisker {}" d="M{:.1f} {:.1f}V{:.1f}"/>').format(look, x, bottom, self.at(point.x, point.high)[1])

    def series(self, several: Iterable[Series]) -> Iterator[Markup]:
        """Draw lines with their dots and intervals."""
        for one in several:
            yield self.line(((point.x, point.y) for point in one.points), one.look)
            for point in one.points:
                yield self.whisker(point, one.look)
                yield self.dot(point, one.look)

    def svg(self, marks: Iterable[Markup], about: str) -> Markup:
        """Return the picture, with its axes and marks; `about` is what is read out instead of it."""
        width, height = self.area
        below = LINE * max((words.count("\n") for _, words in self.x.ticks), default=0)
        titles = (
            text_at(0, 11, self.y.title, "start"),
            text_at(LEFT + width, TOP + height + 32 + below, self.x.title, "end"),
        )
        return picture(LEFT + width + RIGHT, TOP + height + BOTTOM + below, [*self._ticks(), *marks, *titles], about)

    def _ticks(self) -> Iterator[Markup]:
        width, height = self.area
        for value, words in self.y.ticks:
            _, y = self.at(self.x.low, value)
            yield Markup('<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>').format(LEFT, y, LEFT + width)
            yield text_at(LEFT - 6, y + 4, words, "end")
        for value, words in self.x.ticks:
            x, _ = self.at(value, self.y.low)
            yield Markup('<path class="grid" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, TOP, TOP + height)
            for number, line in enumerate(words.split("\n")):
                yield text_at(x, TOP + height + 15 + LINE * number, line, "middle")


@dataclass(frozen=True)
class Strip:
    """A row of dots over an axis: its name, words at its right end, dots, and a span with a middle."""

    name: str
    words: str
    look: str
    dots: Sequence[tuple[float, str]]  # each with what it is about
    span: tuple[float, float] | None = None
    middle: float | None = None


def strips(axis: Axis, rows: Sequence[Strip], about: str) -> Markup:
    """Draw rows of dots over one axis, each below its name."""
    bottom = ROW * len(rows) + 4
    parts: list[Markup] = []
    for value, words in axis.ticks:
        parts.append(Markup('<path class="grid" d="M{:.1f} 0V{:.1f}"/>').format(_along(axis, value), bottom))
        parts.append(text_at(_along(axis, value), bottom + 14, words, "middle"))
    for number, row in enumerate(rows):
        parts.extend(_strip(axis, row, ROW * number))
    parts.append(text_at(WIDTH - RIGHT, bottom + 30, axis.title, "end"))
    return picture(WIDTH, bottom + 36, parts, about)


def _along(axis: Axis, value: float) -> float:
    return RIGHT + axis.place(value) * (WIDTH - 2 * RIGHT)


def _strip(axis: Axis, row: Strip, top: float) -> Iterator[Markup]:
    yield text_at(0, top + 13, shortened(row.name, LONGEST_NAME), "start")
    yield text_at(WIDTH, top + 13, row.words, "end")
    level = top + 26
    if row.span is not None:
        left, right = (_along(axis, value) for value in row.span)
        yield Markup('<path class="whisker {}" d="M{:.1f} {:.1f}H{:.1f}"/>').format(row.look, left, level, right)
    if row.middle is not None:
        yield Markup('<path class="line {}" d="M{:.1f} {:.1f}v14"/>').format(row.look, _along(axis, row.middle), level - 7)
    for value, about in row.dots:
        yield _dot((_along(axis, value), level), row.look, about, DOT + 1)


def _dot(place: tuple[float, float], look: str, about: str, radius: float) -> Markup:
    circle = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{:.2f}"><title>{}</title></circle>')
    return circle.format(look, *place, radius, about)


def text_at(x: float, y: float, words: str, anchor: str) -> Markup:
    """Write words at a place, which is where they start, their middle or their end."""
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, words)


def picture(width: float, height: float, parts: Iterable[Markup], about: str) -> Markup:
    """Put parts together; `about` is what is read out instead of them."""
    drawn = Markup('<svg class="drawn" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>')
    return drawn.format(width, height, about, Markup().join(parts))
