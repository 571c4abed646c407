"""Labels: the classes of a classifier in a fixed order, and what to say about a label that is none of them."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

from heed.data.labelled import labels_of
from heed.errors import CheckpointError, ConfigError, DataError

WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
SHOWN_LABELS = 10
SHOWN_CHARACTERS = 60  # of a label; a longer one is a text in the wrong column


class Labels:
    """The classes; a `Part` that is saved as one JSON file.

    Args:
        labels: in the order of their numbers.
        counts: rows of the training data that have each label.
    """

    kind: ClassVar[str] = "labels"

    def __init__(self, labels: Sequence[str], counts: Mapping[str, int]) -> None:
        self.labels: tuple[str, ...] = tuple(labels)
        self.counts: dict[str, int] = {label: counts.get(label, 0) for label in self.labels}
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    @classmethod
    def fit(cls, values: Iterable[str | list[str]], *, given: Sequence[str] | None) -> Self:
        """Find the classes of training data: by number where all are whole numbers, otherwise by text.

        Args:
            values: the label of each row, or a list of its labels.
            given: all labels in the order wanted; the data may hold no others.
        Raises:
            ConfigError: no label is given, or one twice.
            DataError: there are no labels, one that is not given, or fewer than two classes where each row has one label.
        """
        if given is not None:
            _check_given(given)
        counts: Counter[str] = Counter()
        n_rows, single = 0, False
        for value in values:
            n_rows, single = n_rows + 1, single or isinstance(value, str)
            counts.update(set(labels_of(value)))
        _check_enough(counts, n_rows, single)
        found = cls(in_order(counts) if given is None else given, counts)
        unknown = next((label for label in in_order(counts) if label not in found.counts), None)
        if unknown is not None:
            raise DataError(f"label {_shortened(unknown)!r} is not one of task.labels ({found._listed()}); add it there, or mend the rows")
        return found

    def index(self, label: str) -> int:
        """Return the number of a label.

        Raises:
            DataError: the label is not known.
        """
        if label not in self._numbers:
            raise DataError(self.explain(label))
        return self._numbers[label]

    def explain(self, label: str) -> str:
        """Say that a label is not known, what the known ones are, and what may have been meant."""
        return f"label {_shortened(label)!r} is not one of {self._listed()}{self._hint(label)}"

    def _listed(self) -> str:
        others = len(self.labels) - SHOWN_LABELS
        return ", ".join(map(_shortened, self.labels[:SHOWN_LABELS])) + (f" and {others} more" if others > 0 else "")

    def _hint(self, label: str) -> str:
        n_numbers = sum(map(_is_number, self.labels))
        if n_numbers == len(self.labels) and not _is_number(label):
            return ": the training data name their labels by numbers; use the same names in both files"
        if n_numbers == 0 and _is_number(label):
            return ": the training data name their labels by words; use the same names in both files"
        folded = {known.casefold()[:SHOWN_CHARACTERS]: known for known in reversed(self.labels)}
        near = difflib.get_close_matches(label.strip().casefold()[:SHOWN_CHARACTERS], folded, n=1)
        return f"; did you mean {_shortened(folded[near[0]])!r}?" if near else ""

    def to_json(self) -> dict[str, Any]:
        """Return `labels`, in order, and `counts`, the rows of each in the training data."""
        return {"labels": list(self.labels), "counts": self.counts}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build the labels again.

        Raises:
            CheckpointError: the content is no list of different labels with their counts.
        """
        try:
            labels, counts = content["labels"], content["counts"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"not labels ({error!r}); restore the run folder from a copy") from error
        fault = _fault(labels, counts)
        if fault is not None:
            raise CheckpointError(f"not labels of heed: {fault}; restore the run folder from a copy")
        return cls(labels, counts)


def in_order(labels: Iterable[str]) -> list[str]:
    """Sort labels by number where all are whole numbers, otherwise by text."""
    names = sorted(labels)
    return sorted(names, key=int) if all(map(_is_number, names)) else names


def _is_number(label: str) -> bool:
    return WHOLE_NUMBER.fullmatch(label) is not None


def _shortened(label: str) -> str:
    return label if len(label) <= SHOWN_CHARACTERS else f"{label[: SHOWN_CHARACTERS - 1]}…"


def _check_given(labels: Sequence[str]) -> None:
    """Raise ConfigError where task.labels names no classes."""
    if not labels:
        raise ConfigError("task.labels is empty; name all labels, or leave it out for those of the training data")
    twice = next((label for label, n in Counter(labels).items() if n > 1), None)
    if twice is not None:
        raise ConfigError(f"task.labels names {twice!r} twice; name each label once")


def _check_enough(counts: Mapping[str, int], n_rows: int, single: bool) -> None:
    """Raise DataError where there is nothing to tell apart."""
    if not counts:
        raise DataError(f"none of the {n_rows} rows has a label; check the data files and their columns (data.columns.label=NAME)")
    if single and len(counts) < 2:
        (label,) = counts
        raise DataError(
            f"every training row has the label {_shortened(label)!r}; a classifier needs at least two: add rows with another label (for "
            "class folders, a folder of another name beside this one), or name the column of a table that holds the labels with "
            "data.columns.label=NAME"
        )


def _fault(labels: object, counts: object) -> str | None:
    """Say what makes loaded content unusable, or return None."""
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        return "its labels are no list of texts"
    if len(set(labels)) < len(labels):
        return "it names a label twice"
    if not isinstance(counts, dict) or counts.keys() != set(labels):
        return "its counts are not those of its labels"
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts.values()):
        return "a count is no whole number"
    return None
