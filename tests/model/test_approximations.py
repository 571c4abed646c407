"""Attention in linear time, and attention that learns how sharply it looks, against attention over all pairs."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heed.model import Attention, ModelConfig, Stack, padding_mask, record_attention
from heed.model.approximations import PSEUDO_INVERSE_STEPS, build_mix, low_rank, pseudo_inverse, windowed
from heed.model.attention import Mix
from heed.model.block import build_attention

Maker = Callable[..., ModelConfig]
seeds, kv_heads = st.integers(0, 2**31), st.sampled_from([1, 2, 4])
SCALE = 0.7


def heads(n_tokens: int, n_kv_heads: int, *, n_rows: int = 3, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Draw queries (B, 4, T, 5), and keys and values of fewer heads."""
    return [torch.randn(n_rows, n, n_tokens, 5, dtype=dtype, requires_grad=True) for n in (4, n_kv_heads, n_kv_heads)]


def over_all_pairs(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, window: int | None = None) -> Tensor:
    """Mix values (B, H, T, E) by the formula; mask (B, T), True = real. With a window, a query looks no further."""
    k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    place = torch.arange(q.size(2))
    allowed = (place[:, None] - place).abs() <= (q.size(2) if window is None else window)
    if mask is not None:
        allowed = allowed & padding_mask(mask)
    shares = (q @ k.transpose(-1, -2) * SCALE).exp() * allowed
    mixed: Tensor = shares @ v / shares.sum(-1, keepdim=True).clamp(min=1e-30)
    return mixed


# shorter than the window, as long, a multiple of it, and none; alone with a neighbour; a single token
@pytest.mark.parametrize("shape", [(3, 5), (5, 5), (10, 5), (13, 5), (11, 10), (7, 1), (1, 1), (1, 4)])
@settings(max_examples=10)
@given(n_kv_heads=kv_heads, masked=st.booleans(), seed=seeds)
def test_windowed_attention_is_full_attention_with_a_band_for_a_mask(
    attention_path: str, shape: tuple[int, int], n_kv_heads: int, masked: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    n_tokens, window = shape
    q, k, v = heads(n_tokens, n_kv_heads)
    mask = torch.rand(3, n_tokens) < 0.6 if masked else None
    if mask is not None:
        mask[2] = False
    found = windowed(q, k, v, None if mask is None else padding_mask(mask), SCALE, window=window)
    expected = over_all_pairs(q, k, v, mask, window=window)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    weight = torch.randn_like(q)
    gradients = [torch.autograd.grad((mixed * weight).sum(), (q, k, v)) for mixed in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
    if mask is not None:
        assert bool((found[2] == 0).all())


def test_windowed_attention_over_a_long_text_is_exact_in_float32(attention_path: str) -> None:
    q, k, v = heads(50, 2, dtype=torch.float32)
    mask = torch.arange(50) < torch.tensor([[50], [29], [1]])
    found = windowed(q, k, v, padding_mask(mask), SCALE, window=7)
    torch.testing.assert_close(found, over_all_pairs(q, k, v, mask, window=7), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_a_windowed_layer_is_a_full_one_with_a_band_for_a_mask(positions: str, tiny_config: Maker) -> None:
    near, full = (
        Stack(tiny_config(positions=positions, architecture="encoder", **fields), 1)
        for fields in ({"attention": "windowed", "window": 2}, {"attention": "full"})
    )
    full.load_state_dict(near.state_dict())
    x, mask, place = torch.randn(2, 7, 24), torch.arange(7) < torch.tensor([[7], [4]]), torch.arange(7)
    band = padding_mask(mask) & ((place[:, None] - place).abs() <= 2)
    turn = None if full.rotary is None else full.rotary(0, 7, None, x.device)
    assert full.norm is not None
    expected = full.norm(full.blocks[0](x, band, rotation=turn))
    torch.testing.assert_close(near(x, mask), expected, rtol=1e-5, atol=1e-5)


def telling_apart(n_tokens: int, n_kv_heads: int) -> list[Tensor]:
    """Draw heads (2, 4, T, 9) whose tokens look mostly at themselves: such a matrix of weights is easily inverted."""
    k = math.sqrt(3) * torch.eye(9)[torch.randperm(9)[:n_tokens]] + 0.1 * torch.randn(2, n_kv_heads, n_tokens, 9)
    q = k.repeat_interleave(4 // n_kv_heads, dim=1)
    return [q + 0.1 * torch.randn(q.shape), k, torch.randn(k.shape)]


@given(n_kv_heads=kv_heads, n_landmarks=st.sampled_from([7, 8, 20]), masked=st.booleans(), seed=seeds)
def test_with_a_landmark_for_each_token_low_rank_is_full_attention(n_kv_heads: int, n_landmarks: int, masked: bool, seed: int) -> None:
    torch.manual_seed(seed)
    q, k, v = telling_apart(7, n_kv_heads)
    mask = torch.arange(7) < torch.tensor([[7], [4]]) if masked else None
    found = low_rank(q, k, v, None if mask is None else padding_mask(mask), SCALE, n_landmarks=n_landmarks)
    torch.testing.assert_close(found, over_all_pairs(q, k, v, mask), rtol=1e-5, atol=1e-5)


def reached(share: Tensor) -> Tensor:
    """Return what the steps of the inverse make of squared singular values, as shares of what the first step divides by; at best 1."""
    for _ in range(PSEUDO_INVERSE_STEPS):
        share = 0.25 * share * (13 - share * (15 - share * (7 - share)))
    return share


@given(n_tokens=st.integers(1, 9), seed=seeds)
def test_what_low_rank_misses_with_a_landmark_for_each_token_is_what_the_steps_of_the_inverse_leave(n_tokens: int, seed: int) -> None:
    """Weights that hardly differ between queries are nearly singular, and lose singular values below 0.014 of the root of `size`."""
    torch.manual_seed(seed)
    q, k, v = (x.detach() for x in heads(n_tokens, 4))
    weights = (q @ k.transpose(-1, -2) * SCALE).softmax(-1)
    u, s, vh = torch.linalg.svd(weights)
    size = weights.sum(-2).amax(-1)[..., None]  # the sums of rows are 1
    expected = (u * (s * reached(s**2 / size))[..., None, :]) @ vh @ v
    found = low_rank(q, k, v, None, SCALE, n_landmarks=n_tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)  # the steps multiply float32's rounding by up to 3.25^6
    share = torch.logspace(-8, 0, 1000, dtype=torch.float64)
    assert (share.sqrt() * (1 - reached(share))).abs().max() < 0.014


def alike_neighbours(n_tokens: int) -> list[Tensor]:
    """Draw heads (1, 4, T, 5) that change slowly along the text: sums of three waves."""
    angle = torch.arange(n_tokens, dtype=torch.float64)[:, None] / n_tokens * torch.arange(1, 4) * math.pi  # (T, 3)
    return [(angle + 6 * torch.rand(1, 4, 1, 3)).sin() @ torch.randn(1, 4, 3, 5, dtype=torch.float64) for _ in range(3)]


def test_the_error_of_low_rank_attention_falls_as_landmarks_grow() -> None:
    missed = dict.fromkeys((2, 4, 8, 16), 0.0)
    for seed in range(20):
        torch.manual_seed(seed)
        q, k, v = alike_neighbours(32)
        expected = over_all_pairs(q, k, v, None)
        for n in missed:
            missed[n] += float((low_rank(q, k, v, None, SCALE, n_landmarks=n) - expected).norm() / expected.norm()) / 20
    assert list(missed.values()) == sorted(missed.values(), reverse=True)
    assert missed[16] < 0.05
    assert missed[2] > 0.2


def test_low_rank_attention_equals_its_definition() -> None:
    q, k, v = (x.detach() for x in heads(5, 2))
    runs = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]).double() / torch.tensor([[3], [2]])
    q, k = 3 * q, k.repeat_interleave(2, dim=1)
    middle_q, middle_k = runs @ q, runs @ k
    towards, between, back = (
        (a @ b.transpose(-1, -2) * SCALE).softmax(-1) for a, b in ((q, middle_k), (middle_q, middle_k), (middle_q, k))
    )
    apart = torch.linalg.svdvals(between)[..., -1] > 0.3  # heads whose two landmarks are told apart, so that the inverse is exact
    assert apart.sum() > 3
    expected = towards @ torch.linalg.inv(between) @ back @ v.repeat_interleave(2, dim=1)
    found = low_rank(q, k[:, ::2], v, None, SCALE, n_landmarks=2)
    torch.testing.assert_close(found[apart], expected[apart], rtol=1e-4, atol=1e-4)


def test_with_one_landmark_every_query_asks_what_the_mean_query_asks() -> None:
    q, k, v = (x.detach() for x in heads(6, 4))
    asked = over_all_pairs(q.mean(2, keepdim=True).expand(q.shape), k, v, None)
    torch.testing.assert_close(low_rank(q, k, v, None, SCALE, n_landmarks=1), asked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_landmarks", [1, 3, 7, 9])
@given(n_kv_heads=kv_heads, seed=seeds)
def test_padding_and_batch_mates_change_nothing_in_low_rank_attention(n_landmarks: int, n_kv_heads: int, seed: int) -> None:
    torch.manual_seed(seed)
    lengths = [7, 4, 1, 0]
    q, k, v = (x.detach() for x in heads(9, n_kv_heads, n_rows=4, dtype=torch.float32))
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    together = low_rank(q, k, v, padding_mask(mask), SCALE, n_landmarks=n_landmarks)
    assert bool(together.isfinite().all())
    assert bool((together[3] == 0).all())
    torch.testing.assert_close(together[2, :, :1], v[2, :, :1].repeat_interleave(4 // n_kv_heads, dim=0), rtol=1e-5, atol=1e-5)
    for row, length in enumerate(lengths[:3]):
        alone = low_rank(*(x[row : row + 1, :, :length] for x in (q, k, v)), None, SCALE, n_landmarks=n_landmarks)
        torch.testing.assert_close(together[row, :, :length], alone[0], rtol=0, atol=1e-3)  # rounding, times up to 3.25^6


def test_rows_of_one_real_token_or_none_have_finite_gradients() -> None:
    q, k, v = heads(5, 2, dtype=torch.float32)
    mask = torch.arange(5) < torch.tensor([[5], [1], [0]])
    found = low_rank(q, k, v, padding_mask(mask), SCALE, n_landmarks=3)
    gradients = torch.autograd.grad(found.square().sum(), (q, k, v))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert all(bool((gradient[2] == 0).all()) for gradient in gradients)
    assert all(bool((gradient[0] != 0).any()) for gradient in gradients)


def test_the_pseudo_inverse_is_that_of_moore_and_penrose_also_where_rows_and_columns_are_empty() -> None:
    matrices = torch.randn(2, 3, 5, 5, dtype=torch.float64) + 5 * torch.eye(5)
    matrices[1, :, 3:] = 0
    matrices[1, :, :, 3:] = 0
    torch.testing.assert_close(pseudo_inverse(matrices, 20), torch.linalg.pinv(matrices), rtol=1e-6, atol=1e-8)
    assert bool((pseudo_inverse(torch.zeros(2, 4, 4)) == 0).all())


def test_all_pairs_look_at_each_other_unless_the_config_says_otherwise(tiny_config: Maker) -> None:
    assert build_mix(tiny_config(architecture="encoder")) is None
    q, k, v = heads(9, 2)
    for fields, expected in (
        ({"attention": "windowed", "window": 2}, windowed(q, k, v, None, SCALE, window=2)),
        ({"attention": "low_rank", "landmarks": 3}, low_rank(q, k, v, None, SCALE, n_landmarks=3)),
    ):
        mix = build_mix(tiny_config(architecture="encoder", **fields))
        assert mix is not None
        assert torch.equal(mix(q, k, v, None, SCALE), expected)


MIXES: dict[str, Mix | None] = {
    "full": None,
    "windowed": lambda q, k, v, mask, scale: windowed(q, k, v, mask, scale, window=2),
    "low_rank": lambda q, k, v, mask, scale: low_rank(q, k, v, mask, scale, n_landmarks=3),
}


def adaptive_and_plain(kind: str) -> tuple[Attention, Attention]:
    """Build a layer whose heads learn how sharply they look, and one with its weights whose heads do not."""
    layers = [Attention(12, 3, adaptive=adaptive, mix=MIXES[kind]) for adaptive in (True, False)]
    layers[1].load_state_dict({name: weight for name, weight in layers[0].state_dict().items() if name != "sharpness"})
    return layers[0], layers[1]


def looks(layer: Attention) -> list[Tensor]:
    """Let tokens look at each other and at a memory, along all paths through the layer."""
    draw = torch.Generator().manual_seed(3)
    x, memory = torch.randn(2, 5, 12, generator=draw), torch.randn(2, 7, 12, generator=draw)
    mask, memory_mask = (padding_mask(torch.arange(n) < torch.tensor([[n], [3]])) for n in (5, 7))
    looked = layer.look(x, *layer.keys_values(memory), memory_mask)
    return [layer(x), layer(x, None, mask), layer(x, memory, memory_mask), looked]


@pytest.mark.parametrize("kind", MIXES)
def test_adaptive_attention_is_plain_attention_at_the_start_and_learns(kind: str) -> None:
    adaptive, plain = adaptive_and_plain(kind)
    found = looks(adaptive)
    assert all(torch.equal(one, other) for one, other in zip(found, looks(plain), strict=True))
    assert adaptive.sharpness is not None
    for one in found:
        (gradient,) = torch.autograd.grad((one * torch.randn_like(one)).sum(), adaptive.sharpness)
        assert gradient.shape == (3,)
        assert bool((gradient.isfinite() & (gradient != 0)).all())


@pytest.mark.parametrize("kind", MIXES)
def test_a_sharpness_of_log_two_doubles_the_scores_of_its_head(kind: str) -> None:
    adaptive, plain = adaptive_and_plain(kind)
    doubled = copy.deepcopy(plain)
    assert adaptive.sharpness is not None
    with torch.no_grad():
        adaptive.sharpness[1] = math.log(2)
        for name in ("query.weight", "query.bias"):
            doubled.get_parameter(name)[4:8] *= 2  # the features of the second of three heads
    for one, other, before in zip(looks(adaptive), looks(doubled), looks(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4 if kind == "low_rank" else 1e-5)
        assert (one - before).abs().max() > 1e-3


def test_recorded_weights_are_as_sharp_as_those_that_mixed(tiny_config: Maker) -> None:
    layer, x = build_attention(tiny_config(n_kv_heads=2, adaptive=True)), torch.randn(2, 5, 24)
    assert layer.sharpness is not None
    with torch.no_grad():
        layer.sharpness.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    with record_attention(layer) as weights:
        mixed = layer(x)
    v = layer.value(x).unflatten(-1, (2, 6)).transpose(1, 2).repeat_interleave(2, dim=1)
    again = layer.output((weights[""][0] @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, again, rtol=1e-5, atol=1e-5)
