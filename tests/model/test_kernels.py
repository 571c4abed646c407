"""Compiled loops against the same formulas in torch."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heed.model import kernels
from heed.model.attention import attend
from heed.model.block import ACTIVATIONS
from heed.model.positions import rotate, rotation

Array = np.ndarray[Any, Any]
seeds = st.integers(0, 2**31)
EPSILON = np.float32(1e-6)
NO_NORM = np.empty((0, 1), np.float32)


def rounded(rows: Tensor) -> Tensor:
    """Round rows to 255 levels and back: the definition."""
    step = rows.abs().amax(1, keepdim=True) / 127
    return torch.where(step > 0, (rows / step).round() * step, rows)


def room(n_rows: int, width: int) -> tuple[Array, Array]:
    return np.empty((n_rows, width), np.int8), np.empty(n_rows, np.float32)


def numbers(levels: Array, steps: Array) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32) * steps[:, None])


def sums_of(x: Tensor) -> tuple[Array, Array, Array, Tensor]:
    """Return integer sums, steps and columns that stand for about x (R, F), and the numbers that they stand for."""
    sums, columns = (x * 1000).round().int(), torch.stack([torch.full((x.size(1),), 0.1), torch.zeros(x.size(1))])
    return sums.numpy(), np.full(x.size(0), 0.01, np.float32), columns.numpy(), sums.float() * 0.01 * 0.1


def close_levels(levels: Array, steps: Array, expected: Tensor) -> None:
    """Levels may differ by one where a number lies half-way between two."""
    torch.testing.assert_close(torch.from_numpy(steps), expected.abs().amax(1) / 127, rtol=2e-5, atol=1e-7)
    assert ((numbers(levels, steps) - expected).abs() <= torch.from_numpy(steps)[:, None] * 0.5001 + 1e-6).all()


@given(x=st.floats(-86, 88, width=32))
def test_the_exponential_is_exact_to_float32(x: float) -> None:
    assert float(kernels.exponential(np.float32(x))) == pytest.approx(math.exp(x), rel=2e-7 + 6e-8 * abs(x))


@pytest.mark.parametrize(("x", "expected"), [(-math.inf, 0.0), (-100.0, 0.0), (0.0, 1.0)])
def test_the_exponential_of_very_little_is_zero(x: float, expected: float) -> None:
    assert float(kernels.exponential(np.float32(x))) == expected


def test_the_exponential_of_no_number_is_none() -> None:
    assert math.isnan(kernels.exponential(np.float32(math.nan)))


@given(seed=seeds, n_rows=st.integers(1, 5), width=st.integers(1, 300), scale=st.sampled_from([1e-12, 1.0, 1e12]))
def test_rows_are_rounded_to_255_levels(seed: int, n_rows: int, width: int, scale: float) -> None:
    torch.manual_seed(seed)
    x = torch.randn(n_rows, width) * scale
    levels, steps = room(n_rows, width)
    kernels.round_rows(x.numpy(), levels, steps)
    torch.testing.assert_close(numbers(levels, steps), rounded(x), rtol=1e-5, atol=0)
    assert (np.abs(levels).max(1) == 127).all()


def test_a_row_of_zeros_stays_zeros_and_no_number_is_not_lost() -> None:
    levels, steps = room(3, 4)
    kernels.round_rows(np.array([[0, 0, 0, 0], [1, math.nan, 0, 0], [math.inf, 1, 0, 0]], np.float32), levels, steps)
    assert not levels[0].any()
    assert math.isfinite(steps[0])
    assert not np.isfinite(steps[1:]).any()


@given(seed=seeds, width=st.integers(1, 100), rms=st.booleans())
def test_entering_normalises_and_rounds(seed: int, width: int, rms: bool) -> None:
    torch.manual_seed(seed)
    x, weight, bias = torch.randn(3, width), torch.randn(width), torch.zeros(width) if rms else torch.randn(width)
    if rms:
        expected = torch.nn.functional.rms_norm(x, (width,), weight, eps=1e-6)
    else:
        expected = torch.nn.functional.layer_norm(x, (width,), weight, bias, eps=1e-6)
    norm = torch.stack([weight, bias]).numpy()
    levels, steps = room(3, width)
    kernels.enter(x.numpy(), norm, EPSILON, rms, levels, steps)
    close_levels(levels, steps, expected)
    kernels.enter(x.numpy(), NO_NORM, EPSILON, rms, levels, steps)
    torch.testing.assert_close(numbers(levels, steps), rounded(x), rtol=1e-5, atol=0)
    kernels.normalise(found := x.numpy().copy(), norm, EPSILON, rms)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


@given(seed=seeds, width=st.integers(1, 70), gate=st.sampled_from([1.0, 0.3]))
def test_leaving_adds_to_the_stream_and_normalises(seed: int, width: int, gate: float) -> None:
    draw = np.random.default_rng(seed)
    sums, steps = draw.integers(-9999, 9999, (4, width), dtype=np.int32), draw.random(4, np.float32)
    columns, x = draw.standard_normal((2, width), np.float32) * np.float32(1e-3), draw.standard_normal((4, width), np.float32)
    out = np.empty_like(x)
    kernels.expand_rows(sums, steps, columns, out)
    change = sums.astype(np.float32) * steps[:, None] * columns[0] + columns[1]
    np.testing.assert_allclose(out, change, rtol=1e-5, atol=1e-6)
    norm = draw.standard_normal((2, width), np.float32)
    expected = torch.from_numpy(x + np.float32(gate) * change)
    kernels.leave(sums, steps, columns, np.float32(gate), NO_NORM, EPSILON, False, plain := x.copy())
    torch.testing.assert_close(torch.from_numpy(plain), expected, rtol=1e-5, atol=1e-5)
    kernels.leave(sums, steps, columns, np.float32(gate), norm, EPSILON, False, normed := x.copy())
    expected = torch.nn.functional.layer_norm(expected, (width,), *torch.from_numpy(norm), eps=1e-6)
    torch.testing.assert_close(torch.from_numpy(normed), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", list(kernels.ACTIVATION_CODES))
def test_non_linearities_are_those_of_the_block(name: str, gated: bool) -> None:
    x = torch.linspace(-12, 12, 402)[None].repeat(2, 1)
    x[1] *= 0.1
    sums, steps, columns, values = sums_of(x)
    width = 201 if gated else 402
    levels, new_steps = room(2, width)
    kernels.activate(sums, steps, columns, kernels.ACTIVATION_CODES[name], gated, levels, new_steps)
    activation = ACTIVATIONS[name]
    close_levels(levels, new_steps, activation(values[:, 201:]) * values[:, :201] if gated else activation(values))


def test_every_activation_has_a_code() -> None:
    assert kernels.ACTIVATION_CODES.keys() == ACTIVATIONS.keys()


shapes = st.fixed_dictionaries({"n_kv": st.integers(1, 2), "share": st.integers(1, 2), "half": st.integers(1, 9), "turned": st.booleans()})


@settings(max_examples=25)
@given(seed=seeds, shape=shapes, B=st.integers(1, 3), T=st.integers(1, 9))
def test_looking_around_is_attention(seed: int, shape: dict[str, int], B: int, T: int) -> None:
    torch.manual_seed(seed)
    n_kv, share, E = shape["n_kv"], shape["share"], 2 * shape["half"]
    width = n_kv * share * E
    sums, steps, columns, asked = sums_of(torch.randn(B * T, width + 2 * n_kv * E))
    mask = torch.rand(B, T) < 0.7
    turn = rotation(torch.arange(T), E) if shape["turned"] else torch.ones(T, 0, dtype=torch.complex64)
    levels, new_steps = room(B * T, width)
    kernels.look_around(sums, steps, columns, torch.view_as_real(turn).numpy(), mask.numpy(), n_kv, E, np.float32(0.4), levels, new_steps)
    q, k, v = heads(asked.view(B, T, -1), [width, n_kv * E, n_kv * E], E)
    if shape["turned"]:
        q, k = rotate(q, turn), rotate(k, turn)
    expected = attend(q, k, v, mask[:, None, None], scale=0.4).transpose(1, 2).reshape(B * T, width)
    close_levels(levels[:], new_steps, expected)


def heads(x: Tensor, widths: list[int], E: int) -> list[Tensor]:
    return [part.unflatten(-1, (-1, E)).transpose(1, 2) for part in x.split(widths, dim=-1)]


@settings(max_examples=25)
@given(seed=seeds, shape=shapes, R=st.integers(1, 4), length=st.integers(0, 7))
def test_looking_back_is_attention_along_the_trail(seed: int, shape: dict[str, int], R: int, length: int) -> None:
    torch.manual_seed(seed)
    n_kv, share, E = shape["n_kv"], shape["share"], 2 * shape["half"]
    width = n_kv * share * E
    sums, steps, columns, asked = sums_of(torch.randn(R, width + 2 * n_kv * E))
    keys, values = torch.randn(5, n_kv, 9, E), torch.randn(5, n_kv, 9, E)
    trail = torch.randint(0, 5, (R, 9))
    trail[:, length:] = torch.arange(R)[:, None]
    turn = rotation(torch.tensor([length]), E) if shape["turned"] else torch.ones(1, 0, dtype=torch.complex64)
    q, k, v = heads(asked[:, None], [width, n_kv * E, n_kv * E], E)
    if shape["turned"]:
        q, k = rotate(q, turn), rotate(k, turn)
    places = torch.arange(length)
    past = [store[trail[:, :length, None], :, places[:, None]].view(R, length, n_kv, E).transpose(1, 2) for store in (keys, values)]
    expected = attend(q, torch.cat([past[0], k], 2), torch.cat([past[1], v], 2), scale=0.4).reshape(R, width)
    levels, new_steps = room(R, width)
    turned = torch.view_as_real(turn[0]).numpy()
    kernels.look_back(sums, steps, columns, turned, keys.numpy(), values.numpy(), trail.numpy(), length, np.float32(0.4), levels, new_steps)
    close_levels(levels, new_steps, expected)
    torch.testing.assert_close(keys[:R, :, length], k[:, :, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(values[:R, :, length], v[:, :, 0], rtol=1e-5, atol=1e-6)


@settings(max_examples=25)
@given(seed=seeds, shape=shapes, B=st.integers(1, 3), group=st.integers(1, 3), S=st.integers(1, 9))
def test_looking_across_is_attention_of_each_row_to_its_source(seed: int, shape: dict[str, int], B: int, group: int, S: int) -> None:
    torch.manual_seed(seed)
    n_kv, share, E = shape["n_kv"], shape["share"], 2 * shape["half"]
    width = n_kv * share * E
    sums, steps, columns, asked = sums_of(torch.randn(B * group, width))
    keys, values, mask = torch.randn(B, n_kv, S, E), torch.randn(B, n_kv, S, E), torch.rand(B, S) < 0.6
    q = asked.view(B, group, -1, E).transpose(1, 2)
    levels, new_steps = room(B * group, width)
    for seen in (mask.numpy(), np.empty((B, 0), np.bool_)):
        allowed = mask[:, None, None] if seen.size else None
        expected = attend(q, keys, values, allowed, scale=0.4).transpose(1, 2).reshape(-1, width)
        kernels.look_across(sums, steps, columns, keys.numpy(), values.numpy(), seen, np.float32(0.4), levels, new_steps)
        close_levels(levels, new_steps, expected)


def test_loops_are_compiled_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    plain: Callable[..., Any] = kernels.numba.njit
    asked: list[bool] = []

    def njit(function: Any, *, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(function, **options)

    monkeypatch.setattr(kernels.numba, "njit", njit)
    assert kernels.compiled(lambda x: x + 1)(2) == 3
    assert asked == [True, False]
