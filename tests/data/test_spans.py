"""Span corruption against its definition: what is hidden, how much, and that nothing is lost."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.data.spans import SpanCorruption

SENTINELS = [5000, 5001, 5002, 5003, 5004, 5005]


def drawn(n: int, seed: int = 0, **settings: float) -> tuple[list[int], list[int], list[int]]:
    ids = np.arange(n) + 10
    source, target = SpanCorruption(SENTINELS, **settings)(ids, np.random.default_rng(seed))
    return ids.tolist(), source, target


@given(n=st.integers(1, 120), seed=st.integers(0, 2**32), share=st.floats(0.01, 0.5), mean_span=st.floats(1, 9))
@settings(max_examples=200, deadline=None)
def test_source_and_target_together_are_the_text(n: int, seed: int, share: float, mean_span: float) -> None:
    ids, source, target = drawn(n, seed, share=share, mean_span=mean_span)
    corruption = SpanCorruption(SENTINELS, share=share, mean_span=mean_span)
    assert corruption.restored(source, target) == ids
    assert (len(source), len(target)) == corruption.sides(n)


@given(n=st.integers(1, 120), seed=st.integers(0, 2**32), share=st.floats(0.01, 0.5), mean_span=st.floats(1, 9))
@settings(max_examples=200, deadline=None)
def test_every_stretch_has_its_sentinel_on_both_sides_and_a_last_one_ends_the_target(
    n: int, seed: int, share: float, mean_span: float
) -> None:
    _, source, target = drawn(n, seed, share=share, mean_span=mean_span)
    in_source, in_target = ([one for one in side if one in SENTINELS] for side in (source, target))
    k = len(in_source)
    assert k >= 1
    assert in_source == SENTINELS[:k]
    assert in_target == SENTINELS[: k + 1]
    assert target[0] == SENTINELS[0]
    assert target[-1] == SENTINELS[k]
    kinds = [[one in SENTINELS for one in side] for side in (source, target)]
    assert not any(a and b for side in kinds for a, b in pairwise(side))  # no stretch, and nothing between two, is empty


@pytest.mark.parametrize("n", [7, 20, 47, 100])
def test_the_share_and_the_mean_length_are_those_of_the_paper(n: int) -> None:
    _, source, target = drawn(n)
    n_hidden = sum(one not in SENTINELS for one in target)
    n_spans = sum(one in SENTINELS for one in source)
    assert n_hidden == max(1, round(0.15 * n))
    assert n_spans == max(1, round(n_hidden / 3))


def test_no_more_stretches_than_sentinels_less_the_last() -> None:
    _, source, _ = drawn(1000)
    assert sum(one in SENTINELS for one in source) == len(SENTINELS) - 1


def test_any_token_is_hidden_at_times_and_one_inside_as_often_as_the_share() -> None:
    n, n_draws = 40, 3000
    hidden = Counter(one for seed in range(n_draws) for one in drawn(n, seed)[2] if one not in SENTINELS)
    counts = np.array([hidden[one] for one in range(10, 10 + n)])
    assert counts.sum() == 6 * n_draws
    assert (counts > 0).all()
    inner = counts[5:-5] / n_draws  # where a stretch may begin before a token as well as at it
    margin = 5 * (0.15 * 0.85 / n_draws) ** 0.5
    assert (abs(inner - 0.15) < margin + 0.02).all()
    assert abs(counts[0] - counts[-1]) / n_draws < margin  # neither end is favoured


def test_all_divisions_into_stretches_are_equally_likely() -> None:
    n_draws = 4000
    places = Counter(
        tuple(np.flatnonzero([one in SENTINELS for one in drawn(6, seed, share=0.34, mean_span=1)[1]])) for seed in range(n_draws)
    )
    # Two hidden tokens in two stretches: a source of four tokens and two sentinels that do not touch, in 5 choose 2 ways.
    assert len(places) == 10
    assert all(abs(n - n_draws / 10) < 5 * (n_draws * 0.09) ** 0.5 for n in places.values())


def test_what_a_target_does_not_name_stays_a_gap_without_a_token() -> None:
    corruption = SpanCorruption(SENTINELS)
    assert corruption.restored([7, 5000, 8, 5001], [5001, 5, 6, 5002]) == [7, 8, 5, 6]
    assert corruption.restored([7, 5000, 8], [9, 9]) == [7, 8]


@pytest.mark.parametrize(("share", "mean_span"), [(0.15, 3.0), (0.5, 1.0), (0.02, 9.0)])
def test_the_longest_text_is_the_longest_whose_sides_fit(share: float, mean_span: float) -> None:
    corruption = SpanCorruption(list(range(100, 200)), share=share, mean_span=mean_span)
    for room in (5, 16, 63):
        longest = corruption.longest_text(room)
        fitting = [n for n in range(1, 4 * room) if max(corruption.sides(n)) <= room]
        assert longest == max(fitting)
