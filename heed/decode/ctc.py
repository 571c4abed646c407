"""Decoding of CTC posteriors: greedy, prefix beam search with scorers, likelihoods and alignments (Graves et al. 2006).

CTC gives a distribution over labels and the blank at every place; a label sequence is what is left when repeats are merged and blanks
dropped, and its probability is the sum over all alignments that leave it.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from torch import Tensor

from heed.decode.filters import NEVER, check_scores
from heed.decode.scorers import State, WeightedScorer

BLANK = 0
LEAST_LOG_P = -12.0  # a label that is less likely than e^-12 at a place is not tried there
SURE_BLANK = float(np.log(0.999))  # above this log p of the blank no label is tried

Array = np.ndarray[Any, Any]


class CTCHypothesis(NamedTuple):
    """A label sequence without blanks."""

    ids: list[int]
    score: float  # log_probability, what the scorers add, and the length bonus
    log_probability: float  # by CTC alone, summed over alignments


def greedy(log_p: Array | Tensor) -> list[int]:
    """Return the label sequence of the likeliest alignment to posteriors (S, V): the best of each place, repeats merged, blanks dropped."""
    path = BestPath()
    path.advance(log_p)
    return path.ids


class BestPath:
    """The label sequence of the likeliest alignment, fed with posteriors in chunks of any size."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._last = BLANK  # the best of the last place

    def advance(self, log_p: Array | Tensor) -> None:
        """Go on with the posteriors of more places (s, V); in how many calls they come changes nothing."""
        if not len(log_p):
            return
        best = _scores(log_p).argmax(axis=1)
        new = np.diff(best, prepend=self._last) != 0
        self.ids += [int(label) for label in best[new & (best != BLANK)]]
        self._last = int(best[-1])


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Prefix:
    """A label sequence as its last label and the sequence before it; every living sequence is one object."""

    parent: "_Prefix | None"  # None for the empty one
    token: int  # BLANK for the empty one
    number: int
    extra: float  # what scorers and bonus add
    states: tuple[State, ...]  # of the scorers

    def labels(self) -> list[int]:
        """Return all its labels."""
        labels: list[int] = []
        node = self
        while node.parent is not None:
            labels.append(node.token)
            node = node.parent
        return labels[::-1]


@dataclass(eq=False)
class _Beams:
    """The prefixes that are kept, and which of them continue which."""

    prefixes: list[_Prefix]
    blank: Array  # (K,) log p of the alignments that end in a blank
    label: Array  # (K,) log p of those that end in the last label
    last: Array = field(init=False)  # (K,) last labels
    extra: Array = field(init=False)  # (K,)
    child: Array = field(init=False)  # (N,) places of the prefixes whose parents are kept, too
    parent: Array = field(init=False)  # (N,) places of these parents

    def __post_init__(self) -> None:
        self.last = np.array([prefix.token for prefix in self.prefixes], np.int64)
        self.extra = np.array([prefix.extra for prefix in self.prefixes], np.float64)
        places = {prefix.number: place for place, prefix in enumerate(self.prefixes)}
        parents = np.array([places.get(prefix.parent.number, -1) if prefix.parent else -1 for prefix in self.prefixes], np.int64)
        self.child = np.flatnonzero(parents >= 0)
        self.parent = parents[self.child]

    @property
    def total(self) -> Array:
        """Log p of each prefix, (K,)."""
        return np.logaddexp(self.blank, self.label)

    def stay(self, row: Array) -> tuple[Array, Array]:
        """Return `blank` and `label` of the same prefixes after one more place (V,); what a parent grows into is its child's."""
        blank, label = self.total + row[BLANK], self.label + row[self.last]
        label[self.child] = np.logaddexp(label[self.child], self._grown(self.parent, self.last[self.child], row))
        return blank, label

    def grow(self, row: Array, labels: Array) -> Array:
        """Return log p of each prefix with each of the labels (C,) behind it after one more place, (K, C); NEVER for kept ones."""
        log_p = self._grown(np.arange(len(self.prefixes))[:, None], labels[None], row)
        columns = np.searchsorted(labels, self.last[self.child])
        among = labels[np.minimum(columns, len(labels) - 1)] == self.last[self.child]
        log_p[self.parent[among], columns[among]] = NEVER
        return log_p

    def _grown(self, places: Array, labels: Array, row: Array) -> Array:
        """Return log p of prefixes with labels behind them; behind the same label a blank has to stand between."""
        return np.where(labels == self.last[places], self.blank[places], self.total[places]) + row[labels]


class _Candidate(NamedTuple):
    """What may be kept; the greater of two is the better, and among equals the earlier."""

    score: float
    order: int  # negative: the later, the smaller
    prefix: _Prefix
    place: int | None  # among those kept so far; None for a new one
    log_p: float  # of a new one


class PrefixBeam:
    """CTC prefix beam search (Graves 2006, section 7.5; Hannun et al. 2014), fed with posteriors in chunks of any size.

    For every prefix it adds up the probability of all alignments that leave it, of those that were kept. Prefixes are ranked by that
    log probability, the weighted scores of the scorers and `length_bonus` for every label; of equal ones the first found is kept. A
    prefix is scored only if it could be kept at the highest scores there can be, so that scorers are asked rarely.

    Args:
        beams: prefixes kept at every place.
        scorers: what is added to CTC's log probability; their states follow the prefixes.
        length_bonus: added for every label.
        least_log_p: no prefix is extended by a label that is less likely at a place, nor by any where the blank is surer than 0.999;
            None tries all labels everywhere, and is exact as far as the beams reach.
    """

    def __init__(
        self,
        beams: int,
        *,
        scorers: Sequence[WeightedScorer] = (),
        length_bonus: float = 0.0,
        least_log_p: float | None = LEAST_LOG_P,
    ) -> None:
        assert beams >= 1, beams
        assert all(scorer.weight >= 0 for scorer in scorers), scorers
        self.beams, self.length_bonus, self.least_log_p = beams, length_bonus, least_log_p
        self.scorers = [scorer for scorer in scorers if scorer.weight > 0]
        self._most = length_bonus + sum(one.weight * one.scorer.highest for one in self.scorers)  # what a label may add
        self._numbers = count()
        self._living: WeakValueDictionary[tuple[int, int], _Prefix] = WeakValueDictionary()  # by the parent's number and the label
        empty = _Prefix(None, BLANK, next(self._numbers), 0.0, tuple(one.scorer.start() for one in self.scorers))
        self._beams = _Beams([empty], np.zeros(1), np.full(1, NEVER))

    def advance(self, log_p: Array | Tensor) -> None:
        """Go on with the posteriors of more places (s, V); in how many calls they come changes nothing.

        Raises:
            TrainingError: they are no log probabilities.
        """
        for row in _scores(log_p):
            self._pass(row)

    def results(self, n: int = 1) -> list[CTCHypothesis]:
        """Return the n best label sequences so far, best first, if nothing followed."""
        prefixes, totals = self._beams.prefixes, self._beams.total.tolist()
        self._prefetch(range(len(prefixes)))
        possible = [(prefix, total) for prefix, total in zip(prefixes, totals, strict=True) if total > NEVER]
        scored = [(total + prefix.extra + self._end(prefix), prefix, total) for prefix, total in possible]
        scored.sort(key=lambda one: -one[0])
        return [CTCHypothesis(prefix.labels(), score, total) for score, prefix, total in scored[:n]]

    def _pass(self, row: Array) -> None:
        """Take one place (V,)."""
        beams, labels = self._beams, self._tried(row)
        blank, label = beams.stay(row)
        if labels.size:
            kept = self._chosen(np.logaddexp(blank, label) + beams.extra, beams.grow(row, labels), labels)
            if any(one.place is None for one in kept):
                ends = [(NEVER, one.log_p) if one.place is None else (blank[one.place], label[one.place]) for one in kept]
                self._beams = _Beams([one.prefix for one in kept], *np.array(ends, np.float64).T)
                return
        beams.blank, beams.label = blank, label

    def _tried(self, row: Array) -> Array:
        """Return the labels that prefixes are extended with at a place (V,), in order."""
        if self.least_log_p is None:
            labels = np.arange(1, len(row))
        elif row[BLANK] > SURE_BLANK:
            return np.empty(0, np.int64)
        else:
            labels = 1 + np.flatnonzero(row[1:] >= self.least_log_p)
        # Of one prefix's continuations only its last label and those that are kept already may be outdone by less likely labels.
        n_enough = 2 * self.beams + 1
        if self.scorers or len(labels) <= n_enough:
            return labels
        likely = row[labels]
        likeliest: Array = labels[likely >= np.partition(likely, -n_enough)[-n_enough]]
        return likeliest

    def _chosen(self, stays: Array, grown: Array, labels: Array) -> list[_Candidate]:
        """Return the best of the kept prefixes, by their scores (K,), and of new ones, by their log p (K, C), best first."""
        prefixes = self._beams.prefixes
        scores = enumerate(zip(stays.tolist(), prefixes, strict=True))
        kept = [_Candidate(score, -place, prefix, place, 0.0) for place, (score, prefix) in scores if score > NEVER]
        heapq.heapify(kept)
        hoped = (grown + (self._beams.extra + self._most)[:, None]).ravel()
        for index in self._worth_trying(hoped, kept, len(labels)):
            if len(kept) >= self.beams and hoped[index] < kept[0].score:
                break
            place, column = divmod(index, len(labels))
            prefix, log_p = self._child(prefixes[place], int(labels[column])), float(grown[place, column])
            found = _Candidate(log_p + prefix.extra, -len(prefixes) - index, prefix, None, log_p)
            if len(kept) >= self.beams:
                heapq.heappushpop(kept, found)
            elif found.score > NEVER:
                heapq.heappush(kept, found)
        return sorted(kept, reverse=True)

    def _worth_trying(self, hoped: Array, kept: list[_Candidate], n_labels: int) -> list[int]:
        """Return the numbers of new prefixes that could be among the best, the most hopeful first, and announce them to the scorers."""
        least = kept[0].score if len(kept) >= self.beams else NEVER
        worth = np.flatnonzero((hoped >= least) & (hoped > NEVER))
        worth = worth[np.argsort(-hoped[worth], kind="stable")]
        self._prefetch(np.unique(worth // n_labels).tolist())
        return [int(index) for index in worth]

    def _prefetch(self, places: Iterable[int]) -> None:
        """Tell the scorers which of the kept prefixes are going to be continued or ended."""
        prefixes = [self._beams.prefixes[place] for place in places]
        for i, one in enumerate(self.scorers):
            one.scorer.prefetch([prefix.states[i] for prefix in prefixes])

    def _child(self, parent: _Prefix, token: int) -> _Prefix:
        """Return a prefix with one more label: the living one, or a new one."""
        child = self._living.get((parent.number, token))
        if child is None:
            extra, states = parent.extra + self.length_bonus, []
            for one, state in zip(self.scorers, parent.states, strict=True):
                score, after = one.scorer.advance(state, token)
                extra += one.weight * score
                states.append(after)
            child = _Prefix(parent, token, next(self._numbers), extra, tuple(states))
            self._living[parent.number, token] = child
        return child

    def _end(self, prefix: _Prefix) -> float:
        """Return what the scorers say of ending here."""
        return sum(one.weight * one.scorer.end(state) for one, state in zip(self.scorers, prefix.states, strict=True))


def n_needed(ids: Sequence[int]) -> int:
    """Return how many places a label sequence takes at least: one for each label, and one for the blank between two that are alike."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def log_likelihood(log_p: Array | Tensor, ids: Sequence[int]) -> float:
    """Return log p of a label sequence, summed over all its alignments to posteriors (S, V); -inf where it does not fit.

    The forward algorithm of Graves et al. 2006, section 4.1, which equals -F.ctc_loss.
    """
    scores, states = _scores(log_p), _states(ids)
    skips = _skips(states)
    alpha = np.full(len(states) + 2, NEVER)  # two impossible states first, so that all states have two before them
    alpha[2] = 0.0  # before the first place stands a blank that costs nothing
    for row in scores[:, states]:
        moved = np.logaddexp(alpha[2:], alpha[1:-1])
        alpha[2:] = np.where(skips, np.logaddexp(moved, alpha[:-2]), moved) + row
    return float(np.logaddexp(alpha[-1], alpha[-2]))


def align(log_p: Array | Tensor, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Return for each label the first place and the end (exclusive) of the likeliest alignment to posteriors (S, V).

    CTC is free to emit a label at one place of many that it is heard at, and nearly always does: a span says where a label is certain,
    rarely how long it lasts. Blanks between two spans belong to none.

    Raises:
        ValueError: the labels do not fit into the places, where repeated ones need a blank between them, or one has probability 0.
    """
    scores, states = _scores(log_p), _states(ids)
    skips = _skips(states)
    alpha = np.full(len(states) + 2, NEVER)
    alpha[2] = 0.0
    steps = np.zeros((len(scores), len(states)), np.int8)  # by how many states each place moved on
    for row, step in zip(scores[:, states], steps, strict=True):
        ways = np.stack([alpha[2:], alpha[1:-1], np.where(skips, alpha[:-2], NEVER)])
        step[:] = ways.argmax(axis=0)
        alpha[2:] = ways.max(axis=0) + row
    state = len(states) - 1 - int(len(states) > 1 and alpha[-2] > alpha[-1])
    if alpha[2 + state] == NEVER:
        raise ValueError(f"{len(ids)} labels do not fit into {len(scores)} places, or have probability 0 there")
    return _spans(_path(steps, state), len(ids))


def _path(steps: Array, state: int) -> list[int]:
    """Return the state at each place, from how far each place moved on (S, n) and the last state."""
    path = []
    for step in steps[::-1]:
        path.append(state)
        state -= int(step[state])
    return path[::-1]


def _spans(path: Sequence[int], n: int) -> list[tuple[int, int]]:
    """Return the first place and the end of each of n labels; they are the odd states."""
    places: list[list[int]] = [[] for _ in range(n)]
    for place, state in enumerate(path):
        if state % 2:
            places[state // 2].append(place)
    return [(found[0], found[-1] + 1) for found in places]


def _states(ids: Sequence[int]) -> Array:
    """Return labels with blanks around each: (2 n + 1,)."""
    states = np.full(2 * len(ids) + 1, BLANK, np.int64)
    states[1::2] = ids
    return states


def _skips(states: Array) -> Array:
    """Return which states can follow the one before the last: labels that differ from the label before (2 n + 1,)."""
    skips: Array = states != BLANK
    skips[2:] &= states[2:] != states[:-2]
    return skips


def _scores(log_p: Array | Tensor) -> Array:
    """Return posteriors (S, V) in float64; raises TrainingError where one is NaN or plus infinity, or none is possible."""
    scores: Array = np.asarray(log_p.detach().cpu().float() if isinstance(log_p, Tensor) else log_p, np.float64)
    assert scores.ndim == 2, scores.shape
    best = scores.max(axis=1, initial=NEVER)  # NaN where any is
    check_scores(bool(((best > NEVER) & (best < np.inf)).all()))
    return scores
