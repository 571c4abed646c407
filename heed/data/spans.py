"""Span corruption: stretches of a text are hidden, and what was hidden is the target (Raffel et al. 2020, section 3.1.4).

A sentinel stands in the source for each stretch; the target has each sentinel with its stretch behind it, and a last sentinel where nothing
follows. How many tokens are hidden, and in how many stretches, follows from the length of a text alone, so that sides have a known length.
Unlike T5's own code any token may be hidden, the first too, and the last need not be.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

Ids = np.ndarray[Any, np.dtype[np.int64]]


class Corrupted(NamedTuple):
    """A text with gaps, and what stood there."""

    source: list[int]
    target: list[int]


class SpanCorruption:
    """Hides stretches of texts.

    Args:
        sentinels: ids that stand for stretches, in order; at least two.
        share: of the tokens of a text that are hidden.
        mean_span: tokens of a stretch in the mean.
    """

    def __init__(self, sentinels: Sequence[int], *, share: float = 0.15, mean_span: float = 3.0) -> None:
        self.sentinels, self.share, self.mean_span = list(sentinels), share, mean_span
        self._known = set(self.sentinels)

    def n_hidden(self, n: int) -> int:
        """Return how many of n tokens are hidden: at least one."""
        return max(1, round(n * self.share))

    def n_spans(self, n: int) -> int:
        """Return into how many stretches those of n tokens fall: with one sentinel left, and a token between any two."""
        hidden = self.n_hidden(n)
        return max(1, min(round(hidden / self.mean_span), len(self.sentinels) - 1, n - hidden + 1))

    def sides(self, n: int) -> tuple[int, int]:
        """Return how many tokens the source and the target of a text of n tokens have."""
        return n - self.n_hidden(n) + self.n_spans(n), self.n_hidden(n) + self.n_spans(n) + 1

    def __call__(self, ids: Ids, draw: np.random.Generator) -> Corrupted:
        """Hide stretches of a text (S,), S >= 1."""
        n_hidden, k = self.n_hidden(len(ids)), self.n_spans(len(ids))
        hidden = _parts(n_hidden, k, draw)
        kept = _parts(len(ids) - n_hidden + 2, k + 1, draw)
        kept[0] -= 1  # before the first stretch, and behind the last, there may be nothing: both were drawn with one token more
        bounds = np.cumsum(np.stack([kept[:k], hidden], axis=1).ravel())
        pieces = [piece.tolist() for piece in np.split(ids, bounds)]  # seen, hidden, seen, ... hidden, seen
        source = chain.from_iterable((*seen, sentinel) for seen, sentinel in zip(pieces[0:-1:2], self.sentinels, strict=False))
        target = chain.from_iterable((sentinel, *gone) for sentinel, gone in zip(self.sentinels, pieces[1::2], strict=False))
        return Corrupted([*source, *pieces[-1]], [*target, self.sentinels[k]])

    def restored(self, source: Sequence[int], target: Sequence[int]) -> list[int]:
        """Return the text whose gaps a source has, filled with what a target says stood there; nothing where it says nothing."""
        spans: dict[int, list[int]] = {}
        span: list[int] = []
        for token in target:
            if token in self._known:
                span = spans.setdefault(token, [])
            else:
                span.append(token)
        return [token for one in source for token in (spans.get(one, []) if one in self._known else [one])]

    def longest_text(self, n: int) -> int:
        """Return how many tokens a text may have so that neither of its sides has more than n: at least one."""
        length = n
        while max(self.sides(length + 1)) <= n:
            length += 1
        while length > 1 and max(self.sides(length)) > n:
            length -= 1
        return length


def _parts(n: int, k: int, draw: np.random.Generator) -> Ids:
    """Divide n into k parts of at least 1, all divisions being equally likely; (k,)."""
    cuts = np.sort(draw.choice(n - 1, size=k - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [n]]))
