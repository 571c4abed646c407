"""Linear maps of low rank against full matrices."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from heed.model import Attention, FeedForward, ModelConfig, count_parameters, padding_mask
from heed.model.linear import LowRankLinear, bias_of, build_linear, weight_of
from heed.model.packed import pack

sizes, seeds = st.integers(1, 9), st.integers(0, 2**31)


def factorised(full: nn.Linear) -> LowRankLinear:
    """Write a full matrix as a product of two, of the highest rank there is."""
    u, s, vh = torch.linalg.svd(full.weight.detach(), full_matrices=False)
    low = LowRankLinear(full.in_features, full.out_features, len(s))
    with torch.no_grad():
        low.up.weight.copy_(u * s)
        low.down.weight.copy_(vh)
        low.up.bias.copy_(full.bias)
    return low


@given(features=sizes, width=sizes, rank=sizes, bias=st.booleans(), seed=seeds)
def test_the_map_is_that_of_its_weight_and_bias(features: int, width: int, rank: int, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    linear, x = LowRankLinear(features, width, rank, bias=bias), torch.randn(2, 3, features)
    assert linear.weight.shape == (width, features)
    assert (linear.bias is not None) == bias
    torch.testing.assert_close(linear(x), F.linear(x, linear.weight, linear.bias), rtol=1e-5, atol=1e-5)


@given(features=sizes, width=sizes, seed=seeds)
def test_at_the_highest_rank_it_is_any_matrix(features: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    full, x = nn.Linear(features, width), torch.randn(2, 3, features)
    low = factorised(full)
    torch.testing.assert_close(low.weight, full.weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(low(x), full(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_its_weight_has_the_rank_and_both_factors_learn(rank: int) -> None:
    linear = LowRankLinear(8, 5, rank)
    assert torch.linalg.matrix_rank(linear.weight) == rank
    torch.autograd.backward(linear(torch.randn(3, 8)).square().sum())
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in linear.parameters())


@given(features=sizes, width=sizes, rank=sizes, bias=st.booleans())
def test_it_takes_rank_times_both_widths_and_a_bias(features: int, width: int, rank: int, bias: bool) -> None:
    assert count_parameters(LowRankLinear(features, width, rank, bias=bias)) == rank * (features + width) + bias * width


@given(features=sizes, width=sizes, rank=sizes, bias=st.booleans())
def test_low_rank_is_used_only_where_it_saves_numbers(features: int, width: int, rank: int, bias: bool) -> None:
    built = build_linear(features, width, bias=bias, rank=rank)
    low, full = LowRankLinear(features, width, rank, bias=bias), nn.Linear(features, width, bias=bias)
    assert count_parameters(built) == min(count_parameters(low), count_parameters(full))
    assert isinstance(built, LowRankLinear) == (count_parameters(low) < count_parameters(full))
    assert isinstance(build_linear(features, width, bias=bias), nn.Linear)


def test_weights_and_biases_are_found_on_either_kind() -> None:
    for linear in (nn.Linear(8, 5), LowRankLinear(8, 5, 2)):
        x = torch.randn(3, 8)
        torch.testing.assert_close(F.linear(x, weight_of(linear), bias_of(linear)), linear(x), rtol=1e-5, atol=1e-5)
    assert bias_of(nn.Linear(8, 5, bias=False)) is None
    assert bias_of(LowRankLinear(8, 5, 2, bias=False)) is None


def full_twin(ours: Attention) -> Attention:
    """Build a layer with full matrices that are the products of ours."""
    twin = Attention(ours.n_heads * ours.d_head, ours.n_heads, n_kv_heads=ours.n_kv_heads, bias=bias_of(ours.query) is not None)
    with torch.no_grad():
        for name in ("query", "key", "value", "output"):
            mine, theirs = ours.get_submodule(name), twin.get_submodule(name)
            weight_of(theirs).copy_(weight_of(mine))
            to, bias = bias_of(theirs), bias_of(mine)
            if to is not None and bias is not None:
                to.copy_(bias)
    return twin


# With rank 5, the keys and values of three of six heads are cheaper as full matrices, and stand beside queries of low rank.
@pytest.mark.parametrize(("rank", "n_kv_heads", "kinds"), [(2, None, (True, True)), (2, 3, (True, True)), (5, 3, (True, False))])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("packed", [False, True])
def test_attention_of_low_rank_is_attention_with_the_products_for_weights(
    rank: int, n_kv_heads: int | None, kinds: tuple[bool, bool], bias: bool, packed: bool
) -> None:
    layer = Attention(12, 6, n_kv_heads=n_kv_heads, bias=bias, rank=rank)
    assert (isinstance(layer.query, LowRankLinear), isinstance(layer.key, LowRankLinear)) == kinds
    twin, answering = full_twin(layer), pack(layer, torch.float32) if packed else layer
    x, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    mask, memory_mask = (padding_mask(torch.arange(n) < torch.tensor([[n], [3]])) for n in (5, 7))

    def runs(attention: Attention) -> list[Tensor]:
        looked = attention.look(x, *attention.keys_values(memory), memory_mask)
        return [attention(x, None, mask), attention(x, causal=True), attention(x, memory, memory_mask), looked]

    for found, expected in zip(runs(answering), runs(twin), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
def test_a_feed_forward_of_low_rank_packs_to_the_same(gated: bool) -> None:
    layer = FeedForward(ModelConfig(d_model=12, n_heads=2, d_ff=20, gated=gated, weight_rank=3))
    x = torch.randn(2, 5, 12)
    assert isinstance(layer.up, LowRankLinear)
    assert isinstance(layer.down, LowRankLinear)
    assert (layer.gate is not None) == gated
    torch.testing.assert_close(pack(layer, torch.float32)(x), layer(x), rtol=1e-5, atol=1e-5)
