"""Dropout by bytes: its rate, its expectation, its independence, and that the seed governs it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.model.dropout import Dropout, drop_count, keep_mask

N = 200_000  # five standard deviations of a share are then at most 0.0056
RATES = [0.002, 0.05, 0.1, 0.3, 0.5, 0.9, 0.999]


def dropped(rate: float, n: int = N) -> Tensor:
    return (keep_mask(torch.Size([n]), rate, torch.float32) == 0).float()


@pytest.mark.parametrize("rate", RATES)
def test_the_rate_is_met_within_the_resolution_of_a_byte_and_the_binomial_bound(rate: float) -> None:
    p = drop_count(rate) / 256
    assert abs(p - rate) <= 1 / 256
    assert dropped(rate).mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / N))


@pytest.mark.parametrize("rate", RATES)
def test_the_expectation_is_preserved(rate: float) -> None:
    mask, n_dropped = keep_mask(torch.Size([N]), rate, torch.float64), drop_count(rate)
    kept = 256 / (256 - n_dropped)
    assert set(torch.unique(mask).tolist()) <= {0.0, kept}
    assert kept * (256 - n_dropped) / 256 == 1.0  # value of a survivor times the chance to survive
    spread = math.sqrt(kept - 1)  # standard deviation of one element
    assert mask.mean().item() == pytest.approx(1.0, abs=5 * spread / math.sqrt(N))


@pytest.mark.parametrize("lane", range(8))
def test_each_byte_of_a_draw_drops_alike(lane: int) -> None:
    p, one_lane = drop_count(0.3) / 256, dropped(0.3, 8 * N)[lane::8]
    assert one_lane.mean().item() == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / N))


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_neighbouring_elements_are_independent(rate: float) -> None:
    drops = dropped(rate)
    for lag in [*range(1, 18), 64, 256]:
        assert abs(correlation(drops[:-lag], drops[lag:])) < 5 / math.sqrt(N - lag)


def test_calls_are_independent() -> None:
    assert abs(correlation(dropped(0.3), dropped(0.3))) < 5 / math.sqrt(N)


def test_different_calls_differ_and_the_seed_brings_a_call_back() -> None:
    layer, x = Dropout(0.5), torch.randn(3, 50)
    torch.manual_seed(7)
    first, second = layer(x), layer(x)
    torch.manual_seed(7)
    assert torch.equal(layer(x), first)
    assert not torch.equal(first, second)


@given(shape=st.lists(st.integers(0, 5), max_size=3), rate=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_survivors_are_scaled_and_the_rest_is_zero_in_any_shape(shape: list[int], rate: float, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(shape) + 10
    y = Dropout(rate)(x)
    assert y.shape == x.shape
    scale = 256 / (256 - drop_count(rate))
    torch.testing.assert_close(y, torch.where(y == 0, 0.0, x * scale), rtol=1e-5, atol=1e-5)


def test_nothing_is_dropped_outside_training_or_at_rate_zero() -> None:
    x = torch.randn(2, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_dropout_costs_the_generator_nothing_outside_training() -> None:
    before = torch.get_rng_state()
    Dropout(0.5).eval()(torch.randn(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_gradient_passes_the_survivors_only() -> None:
    x = torch.ones(1000, requires_grad=True)
    y = Dropout(0.3)(x)
    torch.autograd.backward(y.sum())
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_bfloat16_stays_bfloat16_and_keeps_the_expectation() -> None:
    y = Dropout(0.1)(torch.ones(N, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    assert y.float().mean().item() == pytest.approx(1.0, abs=4e-3)  # the scale 1.113 itself is rounded by up to 2 ** -9


def test_the_rate_shows_in_the_printed_model() -> None:
    assert repr(Dropout(0.1)) == "Dropout(0.1)"
