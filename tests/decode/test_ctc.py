"""CTC decoding, against sums over every alignment there is, torch's own loss, and toy scorers whose scores depend on all labels."""

import gc
import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from heed.decode.ctc import BLANK, PrefixBeam, align, greedy, log_likelihood
from heed.decode.scorers import WeightedScorer
from heed.errors import TrainingError

Array = np.ndarray[Any, Any]
Labels = tuple[int, ...]
ALL = 10_000  # more beams than any toy has label sequences


def posteriors(seed: int, places: int, vocab_size: int, spread: float = 2.0) -> Array:
    drawn = np.random.default_rng(seed).normal(size=(places, vocab_size)) * spread
    return np.asarray(drawn - np.logaddexp.reduce(drawn, axis=1, keepdims=True))


def collapsed(path: Sequence[int]) -> Labels:
    """Merge repeats and drop blanks: the definition of what an alignment stands for."""
    return tuple(label for label, _ in itertools.groupby(path) if label != BLANK)


def every_alignment(log_p: Array) -> dict[Labels, list[tuple[float, Labels]]]:
    """Return the alignments of every label sequence with their log p."""
    found: dict[Labels, list[tuple[float, Labels]]] = {}
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        found.setdefault(collapsed(path), []).append((sum(float(row[label]) for row, label in zip(log_p, path, strict=True)), path))
    return found


def summed(log_p: Array) -> dict[Labels, float]:
    """Return log p of every label sequence: the sum over its alignments."""
    found = every_alignment(log_p)
    return {labels: float(np.logaddexp.reduce([score for score, _ in paths])) for labels, paths in found.items()}


class Drawn:
    """A scorer of random scores up to `highest`, which depend on all labels; it counts what is asked, and what was announced."""

    def __init__(self, seed: int, highest: float = 0.0) -> None:
        self.seed, self.highest = seed, highest
        self.n_asked = 0
        self.announced: set[Labels] = set()

    def start(self) -> Labels:
        return ()

    def advance(self, state: Labels, token: int) -> tuple[float, Labels]:
        assert state in self.announced, "the search asked for what it had not announced"
        self.n_asked += 1
        return self.highest - self._draw((*state, token)), (*state, token)

    def end(self, state: Labels) -> float:
        return self.highest - self._draw((*state, -1))

    def prefetch(self, states: Sequence[Labels]) -> None:
        self.announced.update(states)

    def _draw(self, labels: Labels) -> float:
        return random.Random(hash((self.seed, labels))).expovariate(0.5)

    def score(self, labels: Labels) -> float:
        """Score a whole sequence."""
        self.announced.update(labels[:i] for i in range(len(labels)))
        return sum(self.advance(labels[:i], token)[0] for i, token in enumerate(labels)) + self.end(labels)


def search(log_p: Array, beams: int, **settings: Any) -> PrefixBeam:
    found = PrefixBeam(beams, **settings)
    found.advance(log_p)
    return found


def ranked(search: PrefixBeam, n: int = ALL) -> list[tuple[Labels, float, float]]:
    return [(tuple(one.ids), one.score, one.log_probability) for one in search.results(n)]


def assert_same(found: list[tuple[Labels, float, float]], expected: list[tuple[Labels, float, float]]) -> None:
    assert [labels for labels, _, _ in found] == [labels for labels, _, _ in expected]
    assert [score for _, score, _ in found] == pytest.approx([score for _, score, _ in expected], abs=1e-9)
    assert [log_p for _, _, log_p in found] == pytest.approx([log_p for _, _, log_p in expected], abs=1e-9)


@pytest.mark.parametrize(("places", "vocab_size"), [(1, 4), (4, 3), (6, 3), (5, 4), (7, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_without_pruning_every_label_sequence_has_the_sum_over_its_alignments(seed: int, places: int, vocab_size: int) -> None:
    log_p = posteriors(seed, places, vocab_size)
    expected = sorted(((labels, total, total) for labels, total in summed(log_p).items()), key=lambda one: -one[1])
    assert_same(ranked(search(log_p, ALL, least_log_p=None)), expected)
    assert sum(math.exp(total) for _, _, total in expected) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bonus", [0.0, 0.7, -0.4])
def test_a_fused_search_without_pruning_is_exhaustive(seed: int, bonus: float) -> None:
    log_p = posteriors(seed, 5, 4)
    scorers = [WeightedScorer(Drawn(seed), 0.6), WeightedScorer(Drawn(seed + 100, highest=1.5), 0.3)]

    def fused(labels: Labels, total: float) -> float:
        return total + bonus * len(labels) + sum(one.weight * one.scorer.score(labels) for one in scorers)  # type: ignore[attr-defined]

    expected = [(labels, fused(labels, total), total) for labels, total in summed(log_p).items()]
    found = search(log_p, ALL, scorers=scorers, length_bonus=bonus, least_log_p=None)
    assert_same(ranked(found), sorted(expected, key=lambda one: -one[1]))


def narrow_search(log_p: Array, beams: int, score: Callable[[Labels], float], bonus: float) -> list[tuple[Labels, float]]:
    """Write the search down as it is defined: extend all prefixes by all labels, add up, keep the best."""
    kept: dict[Labels, tuple[float, float]] = {(): (0.0, -math.inf)}
    for row in log_p:
        grown: dict[Labels, tuple[float, float]] = {}

        def add(labels: Labels, blank: float, label: float, into: dict[Labels, tuple[float, float]] = grown) -> None:
            before = into.get(labels, (-math.inf, -math.inf))
            into[labels] = float(np.logaddexp(before[0], blank)), float(np.logaddexp(before[1], label))

        for labels, (blank, label) in kept.items():
            total = float(np.logaddexp(blank, label))
            add(labels, total + row[BLANK], label + row[labels[-1]] if labels else -math.inf)
            for token in range(1, len(row)):
                add((*labels, token), -math.inf, (blank if labels[-1:] == (token,) else total) + row[token])
        scores = {labels: float(np.logaddexp(*ends)) + score(labels) + bonus * len(labels) for labels, ends in grown.items()}
        kept = {labels: grown[labels] for labels in sorted(grown, key=lambda one: -scores[one])[:beams]}
    return [(labels, float(np.logaddexp(*ends))) for labels, ends in kept.items()]


searches = st.fixed_dictionaries(
    {
        "shape": st.sampled_from([(8, 25), (18, 3)]),  # of many labels only the likeliest are tried; of few, prefixes come back
        "beams": st.integers(1, 9),
        "bonus": st.sampled_from([0.0, 0.8]),
        "weight": st.sampled_from([0.0, 0.5, 3.0]),
    }
)


@given(seed=st.integers(0, 2**20), plan=searches)
def test_a_narrow_search_keeps_what_its_definition_keeps(seed: int, plan: dict[str, Any]) -> None:
    log_p, scorer, weight = posteriors(seed, *plan["shape"]), Drawn(seed, highest=1.0), plan["weight"]

    def score(labels: Labels) -> float:
        return float(weight * (scorer.score(labels) - scorer.end(labels))) if weight else 0.0

    scorers = [WeightedScorer(scorer, weight)]
    found = search(log_p, plan["beams"], scorers=scorers, length_bonus=plan["bonus"], least_log_p=None)
    expected = narrow_search(log_p, plan["beams"], score, plan["bonus"])
    assert len(found.results(ALL)) == len(expected)
    assert {labels: total for labels, _, total in ranked(found)} == pytest.approx(dict(expected), abs=1e-9)


def test_scorers_are_asked_for_few_of_the_labels_there_are() -> None:
    log_p, scorer = posteriors(1, 40, 300), Drawn(1)
    search(log_p, 4, scorers=[WeightedScorer(scorer, 0.1)], least_log_p=None)
    assert scorer.n_asked < 40 * 4 * 300 / 10


def test_a_scorer_of_weight_0_is_not_asked() -> None:
    scorer = Drawn(0)
    assert ranked(search(posteriors(0, 6, 4), 3, scorers=[WeightedScorer(scorer, 0.0)])) == ranked(search(posteriors(0, 6, 4), 3))
    assert (scorer.n_asked, scorer.announced) == (0, set())


@given(cuts=st.lists(st.integers(0, 30), max_size=6), seed=st.integers(0, 99), exact=st.booleans())
def test_in_how_many_pieces_posteriors_come_changes_nothing(cuts: list[int], seed: int, exact: bool) -> None:
    log_p = posteriors(seed, 30, 7, spread=4.0)
    settings: dict[str, Any] = {"scorers": [WeightedScorer(Drawn(seed), 0.5)], "least_log_p": None if exact else -5.0}
    whole, streamed = search(log_p, 5, **settings), PrefixBeam(5, **settings)
    for part in np.split(log_p, sorted(cuts)):
        streamed.advance(part)
    assert ranked(streamed) == ranked(whole)


def n_prefixes() -> int:
    gc.collect()
    return sum(type(thing).__name__ == "_Prefix" for thing in gc.get_objects())


def test_what_no_kept_hypothesis_begins_with_is_forgotten() -> None:
    before, streamed = n_prefixes(), search(posteriors(0, 300, 5, spread=5.0), 4)
    begun = {tuple(one.ids[:n]) for one in streamed.results(4) for n in range(len(one.ids) + 1)}
    assert n_prefixes() - before == len(begun)
    assert len(streamed._living) == len(begun) - 1  # the empty one is no other's continuation


def test_unlikely_labels_are_not_tried() -> None:
    log_p = np.log(np.array([[0.5, 0.3, 0.2 - 1e-3, 1e-3], [0.5, 0.3, 1e-3, 0.2 - 1e-3]]))
    found = {labels for labels, _, _ in ranked(search(log_p, ALL, least_log_p=math.log(0.01)))}
    assert found == {(), (1,), (2,), (3,), (1, 3), (2, 1), (2, 3)}


@pytest.mark.parametrize("seed", range(3))
def test_where_the_blank_is_sure_no_label_is_tried(seed: int) -> None:
    quiet = np.log(np.array([0.9995, 2e-4, 2e-4, 1e-4]))  # its labels are above the usual threshold
    loud = posteriors(seed, 4, 4)
    log_p = np.insert(loud, [0, 3, 3, 4], quiet, axis=0)
    silent = np.insert(loud, [0, 3, 3, 4], [0.0, *[math.log(1e-30)] * 3], axis=0)
    found, exact = search(log_p, ALL), search(log_p, ALL, least_log_p=None)
    assert {labels for labels, _, _ in ranked(found)} == {labels for labels, _, _ in ranked(search(silent, ALL))}
    assert ranked(found, 1)[0][2] == pytest.approx(ranked(exact, 1)[0][2], abs=0.01)
    assert len(ranked(exact)) > len(ranked(found))


def test_of_equal_hypotheses_the_first_found_is_kept() -> None:
    even = np.full((3, 4), math.log(0.25))
    found = ranked(search(even, 3))
    assert found == ranked(search(even, 3))
    assert [labels for labels, _, _ in ranked(search(even[:1], 2))] == [(), (1,)]


def test_a_search_that_has_seen_nothing_answers_nothing() -> None:
    assert ranked(search(np.zeros((0, 4)), 3)) == [((), 0.0, 0.0)]
    assert greedy(np.zeros((0, 4))) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("decode", [greedy, PrefixBeam(2).advance, lambda log_p: log_likelihood(log_p, [1])])
def test_posteriors_that_are_no_numbers_are_refused(decode: Callable[[Array], Any], bad: float) -> None:
    log_p = posteriors(0, 4, 3)
    log_p[2, 1] = bad
    with pytest.raises(TrainingError, match="NaN"):
        decode(log_p)


@given(seed=st.integers(0, 2**20), places=st.integers(1, 9), vocab_size=st.integers(2, 5))
def test_greedy_merges_repeats_and_drops_blanks_of_the_likeliest_alignment(seed: int, places: int, vocab_size: int) -> None:
    log_p = posteriors(seed, places, vocab_size)
    assert greedy(log_p) == list(collapsed(log_p.argmax(1).tolist()))
    assert greedy(torch.from_numpy(log_p)) == greedy(log_p)


def test_float32_and_tensors_are_searched_alike() -> None:
    log_p = posteriors(2, 20, 6).astype(np.float32)
    assert ranked(search(log_p, 4)) == ranked(search(torch.from_numpy(log_p), 4))  # type: ignore[arg-type]


@given(seed=st.integers(0, 2**20), places=st.integers(1, 12), ids=st.lists(st.integers(1, 3), max_size=6))
def test_the_likelihood_is_that_of_torch(seed: int, places: int, ids: list[int]) -> None:
    log_p = torch.from_numpy(posteriors(seed, places, 4))
    target, lengths = torch.tensor([ids], dtype=torch.long), torch.tensor([len(ids)])
    expected = -float(F.ctc_loss(log_p[:, None], target, torch.tensor([places]), lengths, reduction="none")[0])
    assert log_likelihood(log_p.numpy(), ids) == pytest.approx(expected, abs=1e-9)


def test_the_likelihood_of_no_places_is_that_of_no_labels() -> None:
    assert log_likelihood(np.zeros((0, 4)), []) == 0.0
    assert log_likelihood(np.zeros((0, 4)), [2]) == -math.inf


def spans_of(path: Labels) -> list[tuple[int, int]]:
    runs, place = [], 0
    for label, run in itertools.groupby(path):
        n = len(list(run))
        if label != BLANK:
            runs.append((place, place + n))
        place += n
    return runs


@pytest.mark.parametrize("seed", range(3))
def test_an_alignment_is_the_likeliest_of_all(seed: int) -> None:
    log_p = posteriors(seed, 6, 3)
    for labels, paths in every_alignment(log_p).items():
        assert align(log_p, labels) == spans_of(max(paths)[1])


def test_a_place_of_probability_0_is_walked_around() -> None:
    with np.errstate(divide="ignore"):
        log_p = np.log(np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.3, 0.7]]))
    assert align(log_p, [1, 2]) == [(0, 1), (3, 4)]  # of two equal alignments the one that moves on later is as good
    assert log_likelihood(log_p, [1, 2]) == pytest.approx(math.log(0.7))
    with pytest.raises(ValueError, match="probability 0"):
        align(log_p, [2, 1])


@pytest.mark.parametrize(("places", "ids"), [(0, [1]), (2, [1, 2, 1]), (3, [1, 1, 2]), (2, [2, 2])])
def test_labels_that_do_not_fit_are_refused(places: int, ids: list[int]) -> None:
    log_p = posteriors(0, places, 3) if places else np.zeros((0, 3))
    assert log_likelihood(log_p, ids) == -math.inf
    with pytest.raises(ValueError, match=rf"{len(ids)} labels do not fit into {places} places"):
        align(log_p, ids)
