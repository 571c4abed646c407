"""Recall at a distance and the costs of attention: the sequences by their definition, and slopes of known powers."""

import math

import numpy as np
import pytest
import torch

from heed.experiments.costs import slope
from heed.experiments.recall import FIRST_NOISE, FIRST_PAIR, KEYS, PAIRS, VALUES, VOCABULARY, recall, sequences


@pytest.mark.parametrize("distance", [PAIRS, 8, 33])
def test_the_pair_that_is_asked_for_stands_at_its_distance_and_its_key_nowhere_else(distance: int) -> None:
    ids, values = sequences(200, distance, np.random.default_rng(1))
    assert ids.shape == (200, distance + 1)
    keys = ids[:, 0] - 4
    assert bool(((keys >= 0) & (keys < KEYS)).all())
    assert torch.equal(ids[:, -1], FIRST_PAIR + keys * VALUES + values)
    assert bool(((values >= 0) & (values < VALUES)).all())
    inside = ids[:, 1:]
    is_pair = (inside >= FIRST_PAIR) & (inside < FIRST_NOISE)
    assert torch.equal(is_pair.sum(1), torch.full((200,), PAIRS))
    for row, there, key in zip(inside, is_pair, keys.tolist(), strict=True):
        in_pairs = ((row[there] - FIRST_PAIR) // VALUES).tolist()
        assert len(set(in_pairs)) == PAIRS
        assert in_pairs.count(key) == 1
    assert bool((inside[~is_pair] >= FIRST_NOISE).all())
    assert int(ids.max()) < VOCABULARY
    assert len(set(values.tolist())) == VALUES
    assert len({tuple(row) for row in is_pair.tolist()}) > (1 if distance > PAIRS else 0)


def test_the_same_draws_give_the_same_sequences() -> None:
    (one, _), (again, _), (other, _) = (sequences(9, 20, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_recall_is_told_for_each_distance_with_its_interval() -> None:
    found = list(recall("convolution", distances=(8, 12), steps=2))
    assert [one.distance for one in found] == [8, 12]
    for one in found:
        assert 0 <= one.accuracy["low"] <= one.accuracy["value"] <= one.accuracy["high"] <= 1
        assert one.accuracy["value"] < 0.5  # nothing is learned in two steps


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_the_slope_of_a_power_is_its_exponent(power: float) -> None:
    lengths = (256, 512, 1024, 2048, 4096, 8192)
    assert slope(lengths, [7.5 * n**power for n in lengths]) == pytest.approx(power, abs=1e-9)
    start = [1.0, 1.0, 1.0]  # what the shorter half costs beside does not count
    assert slope(lengths, [*start, *(7.5 * n**power for n in lengths[3:])]) == pytest.approx(power, abs=1e-9)


def test_a_cost_of_nothing_has_a_finite_slope() -> None:
    assert math.isfinite(slope((1, 2, 4, 8), [0.0, 0.0, 0.0, 0.0]))
