"""What an evaluation tells about single classes: the scores of each, and which are taken for which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heed.report.facts import Table
from heed.report.sources import listed, mapping, mappings
from heed.report.wording import ShownScore, counted, figure, is_number, is_score, label, percent, shown_score

MOST_ROWS = 60
MOST_CELLS = 20  # classes on a side of a matrix; of more, only the most confused pairs are shown
MOST_PAIRS = 20
TOLD_PAIRS = 5
DARK_FROM = 0.7  # strength of a cell's colour from which light letters stand on it


@dataclass(frozen=True)
class ClassRow:
    """A class with its scores, None for one it lacks, and how many examples have it."""

    name: str
    scores: list[ShownScore | None]
    support: str


@dataclass(frozen=True)
class PerClass:
    """Scores by class, the most frequent class first."""

    columns: list[str]
    rows: list[ClassRow]
    note: str


def per_class(content: object) -> PerClass | None:
    """Return the scores of each class.

    Args:
        content: {class: {name of a score: score, "support": int}}; what holds no score is not shown.
    """
    classes = {str(name): found for name, found in mapping(content).items() if isinstance(found, Mapping)}
    scores = list(dict.fromkeys(key for found in classes.values() for key, value in found.items() if is_score(value)))
    if not scores:
        return None
    ordered = sorted(classes.items(), key=lambda item: -_support(item[1]))
    rows = [_class_row(name, found, scores) for name, found in ordered[:MOST_ROWS]]
    return PerClass([label(score) for score in scores], rows, _rest(len(ordered)))


def per_prefix(content: object) -> PerClass | None:
    """Return the scores of the answers to each prefix, given [{"prefix": ..., "n": ..., name of a score: score}]."""
    return per_class({figure(one.get("prefix")): {**one, "support": one.get("n")} for one in mappings(content)})


def _support(scores: Mapping[str, Any]) -> float:
    support = scores.get("support")
    return support if is_number(support) else 0.0


def _class_row(name: str, found: Mapping[str, Any], scores: Sequence[str]) -> ClassRow:
    shown = [shown_score(score, found[score]) if is_score(found.get(score)) else None for score in scores]
    return ClassRow(name, shown, figure(found.get("support", "")))


def _rest(n_rows: int) -> str:
    """Say how many rows there are beyond those shown."""
    return f"{counted(n_rows - MOST_ROWS, 'more class')}, with fewer examples, not shown." if n_rows > MOST_ROWS else ""


@dataclass(frozen=True)
class Cell:
    """A cell of a matrix: its number, its colour's strength and other looks, and what it is about."""

    text: str
    alpha: str
    look: str
    about: str


@dataclass(frozen=True)
class MatrixRow:
    """The answers to the examples of one class, and how many these are."""

    name: str
    cells: list[Cell]
    total: str


@dataclass(frozen=True)
class Confusion:
    """Which classes are taken for which: as a matrix when they are few, as a list of pairs when they are many; and the worst in words."""

    names: list[str]
    rows: list[MatrixRow]
    pairs: Table | None
    worst: list[str]


@dataclass(frozen=True)
class Pair:
    """How many examples of a class were taken for another, of how many."""

    count: float
    total: float
    true: str
    taken: str

    @property
    def words(self) -> str:
        """The pair as a sentence."""
        verb = "was" if self.count == 1 else "were"
        return f"{figure(self.count)} of {figure(self.total)} {self.true} {verb} taken for {self.taken}."


def confusion(content: object) -> Confusion | None:
    """Return how often each class was answered for each.

    Args:
        content: {"labels": [name], "counts": [[number]]} with a row for each true class; anything else is not shown.
    """
    found = mapping(content)
    names, counts = [figure(name) for name in listed(found.get("labels"))], listed(found.get("counts"))
    if not names or not _is_square(counts, len(names)):
        return None
    pairs = _pairs(names, counts)
    few = len(names) <= MOST_CELLS
    rows = [_matrix_row(i, names, row) for i, row in enumerate(counts)] if few else []
    table = None if few or not pairs else _pair_table(pairs)
    worst = [pair.words for pair in pairs[:TOLD_PAIRS]] if few else []
    return Confusion(names, rows, table, worst if pairs else ["No class was taken for another."])


def _is_square(counts: Sequence[object], n: int) -> bool:
    full = len(counts) == n and all(isinstance(row, list) and len(row) == n for row in counts)
    return full and all(is_number(cell) and cell >= 0 for row in counts for cell in listed(row))


def _pairs(names: Sequence[str], counts: Sequence[Sequence[float]]) -> list[Pair]:
    """Return the confusions there were, largest first."""
    found = [
        Pair(count, sum(row), names[i], names[j]) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count > 0
    ]
    return sorted(found, key=lambda pair: -pair.count)


def _pair_table(pairs: Sequence[Pair]) -> Table:
    shown = pairs[:MOST_PAIRS]
    rows = [[pair.true, pair.taken, figure(pair.count), figure(pair.total), percent(pair.count / pair.total)] for pair in shown]
    rest = len(pairs) - MOST_PAIRS
    note = f"{counted(rest, 'more pair')} of classes confused less often not shown." if rest > 0 else ""
    return Table(["True class", "Taken for", "How often", "Of", "Share"], rows, note)


def _matrix_row(place: int, names: Sequence[str], counts: Sequence[float]) -> MatrixRow:
    total = sum(counts)
    cells = [_cell(count, total, names[place], name, right=place == j) for j, (name, count) in enumerate(zip(names, counts, strict=True))]
    return MatrixRow(names[place], cells, figure(total))


def _cell(count: float, total: float, true: str, taken: str, *, right: bool) -> Cell:
    share = count / total if total else 0.0
    strength = share**0.5  # the square root keeps rare confusions visible
    looks = [look for look, holds in (("right", right), ("strong", strength >= DARK_FROM), ("none", count == 0)) if holds]
    about = f"{true}, answered {taken}: {figure(count)} of {figure(total)} ({percent(share)})"
    return Cell(figure(count), f"{strength:.2f}", " ".join(looks), about)


def per_label(content: object) -> Table | None:
    """Return how often each of several labels was given and should have been, the most frequent first.

    Args:
        content: {label: [[right not to give it, given wrongly], [missed, found]]}; anything else is not shown.
    """
    found = {str(name): counts for name, counts in mapping(content).items() if isinstance(counts, list) and _is_square(counts, 2)}
    if not found:
        return None
    ordered = sorted(found.items(), key=lambda item: -sum(item[1][1]))
    rows = [[name, *map(figure, (given, missed, wrong, rest))] for name, ((rest, wrong), (missed, given)) in ordered[:MOST_ROWS]]
    return Table(["Label", "Found", "Missed", "Given wrongly", "Rightly not given"], rows, _rest(len(ordered)))
