"""Bars with words beside them: how many rows each class has, how probable each answer is, how much each setting matters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from heed.report.sources import mapping
from heed.report.wording import counted, figure, is_number, percent

MOST_CLASSES = 60
MOST_PROBABILITIES = 5
UNEVEN = 2.0  # how many times the rows of the rarest class the most frequent one has before it is said


@dataclass(frozen=True)
class Bar:
    """A name, its value in words, how long its bar is in percent of the longest possible one, and what is said in small print."""

    name: str
    words: str
    width: float
    note: str = ""


@dataclass(frozen=True)
class Balance:
    """How many rows each class has, most frequent first, and what is remarkable about it."""

    bars: list[Bar]
    notes: list[str]


def balance(classes: object, others: Mapping[str, object] = MappingProxyType({})) -> Balance | None:
    """Draw the rows of each class.

    Args:
        classes: {class: rows}; None comes back for anything else, and when there is no row.
        others: the same for further splits, by their names; said beside the bars.
    """
    counts = _counts(classes)
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if not ordered or ordered[0][1] == 0:
        return None
    also = {split: _counts(content) for split, content in others.items()}
    largest, total = ordered[0][1], sum(counts.values())
    bars = [
        Bar(name, figure(n), round(100 * n / largest, 2), ", ".join([percent(n / total), *_elsewhere(name, also)]))
        for name, n in ordered[:MOST_CLASSES]
    ]
    return Balance(bars, [*_remarks([n for _, n in ordered]), *_strangers(counts, also)])


def _counts(classes: object) -> dict[str, float]:
    return {name: n for name, n in _numbers(classes) if n >= 0}


def _elsewhere(name: str, also: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [f"{split} {figure(counts.get(name, 0))}" for split, counts in also.items() if counts]


def _remarks(counts: list[float]) -> Iterator[str]:
    """Say what the bars do not: the classes that are not drawn, and how uneven they are; counts come in falling order."""
    if len(counts) > MOST_CLASSES:
        left_out = counts[MOST_CLASSES:]
        yield f"Not drawn: {counted(len(left_out), 'more class')} with {counted(sum(left_out), 'row')} together."
    empty = counts.count(0)
    if empty:
        yield f"{counted(empty, 'class')} without a row."
    elif counts[0] >= UNEVEN * counts[-1]:
        yield f"The most frequent class has {counts[0] / counts[-1]:.3g} times the rows of the rarest."


def _strangers(counts: Mapping[str, float], also: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Name the classes of other splits that no training row has, which cannot be learned."""
    for split, others in also.items():
        unknown = [name for name, n in others.items() if n and not counts.get(name)]
        if unknown:
            more = f" and {len(unknown) - MOST_PROBABILITIES} more" if len(unknown) > MOST_PROBABILITIES else ""
            yield f"Only in the {split} data: {', '.join(unknown[:MOST_PROBABILITIES])}{more}."


def probabilities(content: object) -> list[Bar]:
    """Draw the largest probabilities of an answer, {label: p}."""
    ordered = sorted(_numbers(content), key=lambda item: -item[1])
    return [Bar(name, percent(p), _width(p)) for name, p in ordered[:MOST_PROBABILITIES]]


def shares(content: object) -> list[Bar]:
    """Draw shares of a whole, {name: share}, each against the largest; largest first."""
    found = sorted(_numbers(content), key=lambda item: -item[1])
    largest = max((p for _, p in found), default=0.0)
    return [Bar(name, percent(p), _width(p / largest) if largest > 0 else 0.0) for name, p in found]


def _numbers(content: object) -> list[tuple[str, float]]:
    return [(str(name), number) for name, number in mapping(content).items() if is_number(number)]


def _width(share: float) -> float:
    return round(100 * min(1.0, max(0.0, share)), 2)
