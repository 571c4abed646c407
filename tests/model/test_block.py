"""Block, FeedForward, norms and Stack, against torch's layers and the formulas of their papers."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from heed.model import Attention, Block, FeedForward, ModelConfig, Stack, causal_mask, count_parameters, padding_mask
from heed.model.block import ACTIVATIONS, Residual, build_norm
from heed.model.cache import LayerCache
from heed.model.positions import RelativeBias, rotation


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention) -> None:
    theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())


def copy_layer(ours: Block, theirs: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> None:
    """Give torch's layer the weights of our block."""
    residuals = [ours.attention_residual, ours.feed_forward_residual]
    with torch.no_grad():
        copy_attention(ours.attention, theirs.self_attn)
        if ours.cross_attention is not None and ours.cross_residual is not None:
            assert isinstance(theirs, nn.TransformerDecoderLayer)
            copy_attention(ours.cross_attention, theirs.multihead_attn)
            residuals.insert(1, ours.cross_residual)
        theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())
        for i, residual in enumerate(residuals, start=1):
            assert residual.norm is not None
            theirs.get_submodule(f"norm{i}").load_state_dict(residual.norm.state_dict())


def randomise(module: nn.Module) -> None:
    """Draw every parameter, so that no norm or bias is at its neutral start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)


torch_options = st.fixed_dictionaries(
    {
        "norm_place": st.sampled_from(["before", "after"]),
        "activation": st.sampled_from(["relu", "gelu"]),
        "norm_epsilon": st.sampled_from([1e-6, 1e-2]),
        "n_heads": st.sampled_from([1, 3]),
    }
)


def twin_options(config: ModelConfig) -> dict[str, Any]:
    first = config.norm_place == "before"
    options = {"dim_feedforward": config.d_ff, "dropout": 0.0, "activation": config.activation, "layer_norm_eps": config.norm_epsilon}
    return {"d_model": config.d_model, "nhead": config.n_heads, "batch_first": True, "norm_first": first, **options}


@given(options=torch_options, seed=st.integers(0, 2**31))
def test_the_encoder_block_equals_torch_transformer_encoder_layer(
    attention_path: str, tiny_config: Callable[..., ModelConfig], options: dict[str, Any], seed: int
) -> None:
    torch.manual_seed(seed)
    config = tiny_config(d_model=12, **options)
    block, twin = Block(config), nn.TransformerEncoderLayer(**twin_options(config))
    randomise(block)
    copy_layer(block, twin)
    x, mask = torch.randn(2, 5, 12), torch.arange(5) < torch.tensor([[5], [3]])
    torch.testing.assert_close(block(x, padding_mask(mask)), twin(x, src_key_padding_mask=~mask), rtol=1e-5, atol=2e-5)


@given(options=torch_options, seed=st.integers(0, 2**31))
def test_the_decoder_block_equals_torch_transformer_decoder_layer(
    attention_path: str, tiny_config: Callable[..., ModelConfig], options: dict[str, Any], seed: int
) -> None:
    torch.manual_seed(seed)
    config = tiny_config(d_model=12, **options)
    block, twin = Block(config, causal=True, cross=True), nn.TransformerDecoderLayer(**twin_options(config))
    randomise(block)
    copy_layer(block, twin)
    x, memory, mask = torch.randn(2, 3, 12), torch.randn(2, 5, 12), torch.arange(5) < torch.tensor([[5], [3]])
    expected = twin(x, memory, tgt_mask=~causal_mask(3, 3), memory_key_padding_mask=~mask)
    torch.testing.assert_close(block(x, None, memory, padding_mask(mask)), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("cross", "expected"), [(False, 3_152_384), (True, 4_204_032)])
def test_the_layers_of_2017_have_their_parameters(cross: bool, expected: int, tiny_config: Callable[..., ModelConfig]) -> None:
    config = tiny_config(d_model=512, n_heads=8, d_ff=2048)
    assert count_parameters(Block(config, cross=cross)) == expected
    assert count_parameters(FeedForward(config)) == 2_099_712


@pytest.mark.parametrize("place", ["before", "after", "rezero"])
def test_every_sub_layer_stands_in_its_residual(place: str, tiny_config: Callable[..., ModelConfig]) -> None:
    block = Block(tiny_config(norm_place=place), cross=True)
    randomise(block)
    x, memory = torch.randn(2, 3, 24), torch.randn(2, 5, 24)

    def surrounded(residual: Residual | None, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        assert residual is not None
        if residual.norm is None:
            assert residual.gate is not None
            return x + residual.gate * layer(x)
        inside: Tensor = x + layer(residual.norm(x)) if place == "before" else residual.norm(x + layer(x))
        return inside

    cross_attention = block.cross_attention
    assert cross_attention is not None
    expected = surrounded(block.attention_residual, x, block.attention)
    expected = surrounded(block.cross_residual, expected, lambda x: cross_attention(x, memory))
    expected = surrounded(block.feed_forward_residual, expected, block.feed_forward)
    torch.testing.assert_close(block(x, None, memory), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cross", [False, True])
def test_rezero_is_the_identity_at_the_start_and_learns_to_open(cross: bool, tiny_config: Callable[..., ModelConfig]) -> None:
    stack = Stack(tiny_config(norm_place="rezero"), 3, cross=cross)
    x, memory = torch.randn(2, 3, 24), torch.randn(2, 5, 24) if cross else None
    out = stack(x, None, memory)
    assert torch.equal(out, x)
    torch.autograd.backward((out * torch.randn_like(out)).sum())
    gates = [parameter for name, parameter in stack.named_parameters() if name.endswith("gate")]
    assert len(gates) == (9 if cross else 6)
    assert all(gate.grad is not None and gate.grad != 0 for gate in gates)


@pytest.mark.parametrize("cross", [False, True])
def test_silent_sub_layers_leave_a_pre_norm_block_the_identity(cross: bool, tiny_config: Callable[..., ModelConfig]) -> None:
    block = Block(tiny_config(), cross=cross)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            if "output" in name or "down" in name:
                parameter.zero_()
    x = torch.randn(2, 3, 24)
    assert torch.equal(block(x, None, torch.randn(2, 5, 24) if cross else None), x)


@pytest.mark.parametrize("place", ["before", "rezero"])
def test_the_gradient_reaches_the_first_of_24_blocks(place: str, tiny_config: Callable[..., ModelConfig]) -> None:
    stack = Stack(tiny_config(norm_place=place), 24)
    with torch.no_grad():
        for name, parameter in stack.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(0.1)
    out = stack(torch.randn(2, 5, 24))
    torch.autograd.backward((out * torch.randn_like(out)).sum())
    size = [sum(float(p.grad.norm()) for p in block.parameters() if p.grad is not None) for block in stack.blocks]
    assert size[0] > 0.3 * size[-1]


DEFINITIONS: dict[str, Callable[[float], float]] = {
    "relu": lambda x: max(0.0, x),
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
}


def test_every_activation_has_a_definition_here() -> None:
    assert DEFINITIONS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", DEFINITIONS)
def test_the_feed_forward_equals_its_definition(activation: str, gated: bool, tiny_config: Callable[..., ModelConfig]) -> None:
    layer = FeedForward(tiny_config(activation=activation, gated=gated)).double()
    x = torch.randn(2, 3, 24, dtype=torch.float64)

    def act(x: Tensor) -> Tensor:
        return x.clone().apply_(DEFINITIONS[activation])

    up = x @ layer.up.weight.T + layer.up.bias
    with torch.no_grad():
        inner = act(up) if layer.gate is None else act(x @ layer.gate.weight.T + layer.gate.bias) * up
    assert (layer.gate is not None) == gated
    torch.testing.assert_close(layer(x), inner @ layer.down.weight.T + layer.down.bias, rtol=1e-6, atol=1e-6)


def test_every_position_is_fed_forward_alone(tiny_config: Callable[..., ModelConfig]) -> None:
    layer, x = FeedForward(tiny_config()), torch.randn(2, 5, 24)
    torch.testing.assert_close(layer(x)[:, 3:4], layer(x[:, 3:4]), rtol=1e-6, atol=1e-6)


def test_layer_norm_gives_every_token_mean_0_and_variance_1(tiny_config: Callable[..., ModelConfig]) -> None:
    normed = build_norm(tiny_config())(torch.randn(2, 5, 24) * 7 + 3)
    torch.testing.assert_close(normed.mean(-1), torch.zeros(2, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(normed.var(-1, unbiased=False), torch.ones(2, 5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_norms_equal_their_definitions(epsilon: float, tiny_config: Callable[..., ModelConfig]) -> None:
    x = torch.randn(2, 5, 24) + 1
    layer, rms = (build_norm(tiny_config(norm=norm, norm_epsilon=epsilon)) for norm in ("layer", "rms"))
    randomise(layer)
    randomise(rms)
    assert isinstance(layer, nn.LayerNorm)
    assert isinstance(rms, nn.RMSNorm)
    centred = x - x.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt() * layer.weight + layer.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    expected = x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt() * rms.weight
    torch.testing.assert_close(rms(x), expected, rtol=1e-5, atol=1e-5)


def test_without_bias_no_linear_map_and_no_norm_has_one(tiny_config: Callable[..., ModelConfig]) -> None:
    names = [name for name, _ in Stack(tiny_config(bias=False, gated=True), 2, cross=True).named_parameters()]
    assert names
    assert not [name for name in names if name.endswith("bias")]


@pytest.mark.parametrize("place", ["before", "after", "rezero"])
def test_only_a_pre_norm_stack_ends_on_a_norm_of_its_own(place: str, tiny_config: Callable[..., ModelConfig]) -> None:
    stack = Stack(tiny_config(norm_place=place), 2)
    randomise(stack)
    x = torch.randn(2, 3, 24)
    expected = stack.blocks[1](stack.blocks[0](x))
    if place == "before":
        assert stack.norm is not None
        expected = stack.norm(expected)
    assert (stack.norm is not None) == (place == "before")
    torch.testing.assert_close(stack(x), expected, rtol=1e-5, atol=1e-5)


def test_a_stack_shares_one_relative_bias_and_every_block_uses_it(tiny_config: Callable[..., ModelConfig]) -> None:
    stack = Stack(tiny_config(positions="relative"), 2, causal=True)
    x, places = torch.randn(2, 5, 24), torch.arange(5)
    assert stack.relative is not None
    bias = stack.relative(places, places)
    expected = stack.blocks[1](stack.blocks[0](x, bias=bias), bias=bias)
    assert stack.norm is not None
    torch.testing.assert_close(stack(x), stack.norm(expected), rtol=1e-5, atol=1e-5)
    assert sum(isinstance(module, RelativeBias) for module in stack.modules()) == 1


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("place", ["before", "after"])
def test_gradients_of_a_block_equal_finite_differences(
    attention_path: str, causal: bool, place: str, tiny_config: Callable[..., ModelConfig]
) -> None:
    config = tiny_config(d_model=4, n_heads=2, d_ff=3, activation="gelu", norm_place=place)
    block = Block(config, causal=causal, cross=True).double()
    parameters = dict(block.named_parameters())
    turn, mask = rotation(torch.arange(3), 2), torch.tensor([[[[True, True, False]]]])

    def run(x: Tensor, memory: Tensor, bias: Tensor, *weights: Tensor) -> Tensor:
        state = dict(zip(parameters, weights, strict=True))
        inputs = (x, mask, memory, torch.tensor([[[[True, False]]]]))
        changed: Tensor = torch.func.functional_call(block, state, inputs, {"bias": bias, "rotation": turn})
        return changed

    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((1, 3, 4), (1, 2, 4), (1, 2, 3, 3))]
    assert torch.autograd.gradcheck(run, (*leaves, *parameters.values()))


@pytest.mark.parametrize("positions", ["rotary", "relative", "none"])
def test_a_stack_counts_on_from_its_caches_when_no_positions_are_given(positions: str, tiny_config: Callable[..., ModelConfig]) -> None:
    stack = Stack(tiny_config(positions=positions), 2, causal=True)
    x, caches = torch.randn(2, 5, 24), [LayerCache() for _ in range(2)]
    with torch.no_grad():
        parts = [stack(part, caches=caches) for part in torch.split(x, [2, 1, 2], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), stack(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["relative", "rotary"])
def test_recomputed_activations_give_the_same_gradients_to_the_bit(positions: str, tiny_config: Callable[..., ModelConfig]) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(3)
        stack = Stack(tiny_config(positions=positions, dropout=0.3), 2, causal=True, cross=True).train()
        stack.recompute = recompute
        x, memory = torch.randn(2, 3, 24, requires_grad=True), torch.randn(2, 5, 24)
        memory_mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
        with torch.autocast("cpu", torch.bfloat16):
            stack(x, None, memory, memory_mask).float().square().sum().backward()
        gradients.append([x.grad, *(parameter.grad for parameter in stack.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
