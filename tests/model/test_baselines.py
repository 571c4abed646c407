"""Convolutions, LSTMs and hybrids: their definitions, how far a token's influence reaches, and that padding has none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heed.model import ModelConfig, Stack
from heed.model.baselines import BaselineStack, BidirectionalLSTM, Convolution, HybridBlock, MixingBlock, build_stack
from heed.model.config import of_chosen_kinds

Maker = Callable[..., ModelConfig]
KINDS = ["convolution", "lstm", "hybrid"]
LENGTHS = [5, 3, 1]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoder(tiny_config: Maker) -> Callable[..., ModelConfig]:
    """Return a maker of small configs of encoders."""
    return lambda **fields: tiny_config(architecture="encoder", **fields)


def randomised(module: nn.Module) -> nn.Module:
    """Draw every parameter, so that no norm, bias or gate is at its neutral start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


@pytest.mark.parametrize("place", ["before", "after", "rezero"])
@settings(max_examples=10)
@given(extra=st.integers(0, 4), kernel_size=st.sampled_from([1, 3, 5, 9]), seed=st.integers(0, 2**31))
def test_padding_and_batch_mates_change_nothing(tiny_config: Maker, place: str, extra: int, kernel_size: int, seed: int) -> None:
    for kind in KINDS:
        torch.manual_seed(seed)
        sizes = of_chosen_kinds({"mixer": kind, "kernel_size": kernel_size})
        config = tiny_config(architecture="encoder", norm_place=place, positions="rotary", **sizes)
        stack = randomised(build_stack(config, 2)).double()  # without norms, numbers may grow until float32 rounds them away
        rows = [torch.randn(length, 24, dtype=torch.float64) for length in LENGTHS]
        padded, mask = torch.randn(3, 5 + extra, 24, dtype=torch.float64), torch.arange(5 + extra) < torch.tensor(LENGTHS)[:, None]
        for i, row in enumerate(rows):
            padded[i, : len(row)] = row
        together = stack(padded, mask)
        assert together.shape == padded.shape
        for i, row in enumerate(rows):
            torch.testing.assert_close(together[i, : len(row)], stack(row[None])[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(together[i, : len(row)], stack(row[None], torch.ones(1, len(row)).bool())[0], rtol=1e-5, atol=1e-5)


def test_an_empty_row_is_finite_and_has_finite_gradients(kind: str, encoder: Maker) -> None:
    stack, x = build_stack(encoder(mixer=kind), 2), torch.randn(3, 5, 24, requires_grad=True)
    mask = torch.arange(5) < torch.tensor([[5], [1], [0]])
    out = stack(x, mask)
    torch.autograd.backward((out * mask[..., None]).square().sum())
    assert bool(out.isfinite().all())
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in stack.parameters())


def changed_by(mixing: Callable[[Tensor], Tensor], place: int, n_places: int) -> Tensor:
    """Return which of a text's vectors another vector at one place changes at all, (T,)."""
    x = torch.randn(1, n_places, 24)
    edited = x.clone()
    edited[0, place] = torch.randn(24)
    with torch.inference_mode():
        return (mixing(x) != mixing(edited)).any(-1)[0]


@pytest.mark.parametrize(("kernel_size", "n_layers"), [(1, 2), (3, 1), (3, 2), (5, 1), (7, 2)])
def test_a_token_is_seen_as_far_as_convolutions_reach_and_no_further(kernel_size: int, n_layers: int, encoder: Maker) -> None:
    stack = build_stack(encoder(mixer="convolution", kernel_size=kernel_size), n_layers)
    away = (torch.arange(31) - 14).abs()
    assert torch.equal(changed_by(stack, 14, 31), away <= 2 * n_layers * (kernel_size // 2))


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("n_convolutions", [1, 2])
def test_convolutions_equal_their_definition(kernel_size: int, n_convolutions: int, encoder: Maker) -> None:
    config = encoder(mixer="convolution", kernel_size=kernel_size, d_model=8, activation="gelu")
    convolution, x = Convolution(config, n_convolutions), torch.randn(2, 5, 8)
    mask, reach = torch.arange(5) < torch.tensor([[5], [3]]), kernel_size // 2
    expected = x
    for i, layer in enumerate(convolution.layers):
        assert isinstance(layer, nn.Conv1d)
        assert layer.bias is not None
        inner = (F.gelu(expected) if i else expected) * mask[..., None]
        expected = layer.bias.expand(2, 5, 8).clone()
        for t in range(5):
            for s in range(max(0, t - reach), min(5, t + reach + 1)):
                expected[:, t] += inner[:, s] @ layer.weight[:, :, s - t + reach].T
    torch.testing.assert_close(convolution(x, mask), expected, rtol=1e-5, atol=1e-5)


def one_way(lstm: nn.LSTM, x: Tensor, suffix: str) -> Tensor:
    """Run one direction of an LSTM over a row (T, D) as Hochreiter & Schmidhuber define it, with forget gates: (T, D / 2)."""
    weights = {name: lstm.get_parameter(f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    hidden = cell = torch.zeros(lstm.hidden_size)
    out = []
    for token in x:
        gates = weights["weight_ih"] @ token + weights["bias_ih"] + weights["weight_hh"] @ hidden + weights["bias_hh"]
        enter, keep, new, leave = gates.chunk(4)
        cell = keep.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        out.append(hidden)
    return torch.stack(out)


def test_the_lstm_reads_the_real_tokens_from_both_ends_with_half_the_width_each(encoder: Maker) -> None:
    layer, x = BidirectionalLSTM(encoder(mixer="lstm", d_model=8)), torch.randn(3, 5, 8)
    found = layer(x, torch.arange(5) < torch.tensor(LENGTHS)[:, None])
    assert found.shape == (3, 5, 8)
    for i, length in enumerate(LENGTHS):
        row = x[i, :length]
        expected = torch.cat([one_way(layer.lstm, row, ""), one_way(layer.lstm, row.flip(0), "_reverse").flip(0)], dim=-1)
        torch.testing.assert_close(found[i, :length], expected, rtol=1e-5, atol=1e-5)


def test_every_token_reaches_every_other_through_the_lstm_in_both_directions(encoder: Maker) -> None:
    stack = build_stack(encoder(mixer="lstm"), 1)
    for place in (0, 3, 6):
        assert bool(changed_by(stack, place, 7).all())


def test_the_lstm_adds_up_in_float32_whatever_autocast_says(encoder: Maker) -> None:
    layer, x = BidirectionalLSTM(encoder(mixer="lstm")), torch.randn(2, 5, 24)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    exact = layer(x, mask), layer(x, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = layer(x, mask), layer(x, None)
    assert all(torch.equal(one, other) for one, other in zip(low, exact, strict=True))


@pytest.mark.parametrize("place", ["before", "rezero"])
@pytest.mark.parametrize("fields", [{"positions": "rotary"}, {"positions": "relative"}, {"attention": "windowed", "window": 2}])
def test_a_hybrid_whose_convolutions_are_silent_is_the_plain_stack(place: str, fields: dict[str, Any], encoder: Maker) -> None:
    hybrid = randomised(build_stack(encoder(mixer="hybrid", norm_place=place, **fields), 2))
    plain = Stack(encoder(norm_place=place, **fields), 2)
    plain.load_state_dict({name.replace(".far.", "."): value for name, value in hybrid.state_dict().items() if ".near." not in name})
    x, mask = torch.randn(2, 5, 24), torch.arange(5) < torch.tensor([[5], [3]])
    assert not torch.allclose(hybrid(x, mask), plain(x, mask), atol=1e-2)
    with torch.no_grad():
        for name, parameter in hybrid.named_parameters():
            if ".near.mixer." in name:
                parameter.zero_()
    torch.testing.assert_close(hybrid(x, mask), plain(x, mask), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hybrid(x), plain(x), rtol=1e-5, atol=1e-5)


def test_a_hybrids_convolution_comes_before_its_attention_and_reaches_one_kernel(encoder: Maker) -> None:
    block = build_stack(encoder(mixer="hybrid", kernel_size=5), 1).blocks[0]
    assert isinstance(block, HybridBlock)
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(block(x), block.far(block.near(x, None)), rtol=0, atol=0)
    assert torch.equal(changed_by(lambda x: block.near(x, None), 14, 31), (torch.arange(31) - 14).abs() <= 2)


@pytest.mark.parametrize("place", ["before", "after", "rezero"])
def test_what_mixes_the_tokens_stands_in_a_residual(kind: str, place: str, encoder: Maker) -> None:
    block = MixingBlock(encoder(mixer=kind, norm_place=place))
    randomised(block)
    x, mask = torch.randn(2, 5, 24), torch.arange(5) < torch.tensor([[5], [3]])
    residual = block.residual
    if residual.norm is None:
        assert residual.gate is not None
        expected = x + residual.gate * block.mixer(x, mask)
    elif place == "before":
        expected = x + block.mixer(residual.norm(x), mask)
    else:
        expected = residual.norm(x + block.mixer(x, mask))
    torch.testing.assert_close(block(x, mask), expected, rtol=1e-5, atol=1e-5)


def test_recomputed_hybrids_have_the_same_gradients_to_the_bit(encoder: Maker) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(3)
        stack = build_stack(encoder(mixer="hybrid", dropout=0.3, positions="rotary"), 2).train()
        assert isinstance(stack, Stack)
        stack.recompute = recompute
        x, mask = torch.randn(2, 5, 24, requires_grad=True), torch.arange(5) < torch.tensor([[5], [3]])
        torch.autograd.backward(stack(x, mask).square().sum())
        gradients.append([x.grad, *(parameter.grad for parameter in stack.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_mixer_chooses_the_stack(encoder: Maker) -> None:
    found = {mixer: build_stack(encoder(mixer=mixer, norm_place="after"), 3) for mixer in ("attention", *KINDS)}
    assert {mixer: type(stack) for mixer, stack in found.items()} == {
        "attention": Stack,
        "convolution": BaselineStack,
        "lstm": BaselineStack,
        "hybrid": Stack,
    }
    mixers = [type(block.mixer) for mixer in ("convolution", "lstm") for block in found[mixer].blocks if isinstance(block, MixingBlock)]
    assert mixers == [Convolution] * 3 + [BidirectionalLSTM] * 3
    assert all(isinstance(block, HybridBlock) and isinstance(block.near.mixer, Convolution) for block in found["hybrid"].blocks)
    assert all(stack.norm is None for stack in found.values())
