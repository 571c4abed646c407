"""The Attention module and the recording of its weights, against nn.MultiheadAttention and the formulas."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from heed.model import Attention, Causal, ModelConfig, Seq2Seq, attention_weights, build_model, causal_mask, padding_mask, record_attention


def torch_twin(ours: Attention, d_model: int) -> nn.MultiheadAttention:
    """Build torch's layer with the same weights."""
    twin = nn.MultiheadAttention(d_model, ours.n_heads, batch_first=True, bias=ours.query.bias is not None)
    projections = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        twin.in_proj_weight.copy_(torch.cat([linear.weight for linear in projections]))
        twin.out_proj.weight.copy_(ours.output.weight)
        if twin.in_proj_bias is not None:
            twin.in_proj_bias.copy_(torch.cat([linear.bias for linear in projections]))
            twin.out_proj.bias.copy_(ours.output.bias)
    return twin


@given(heads=st.sampled_from([1, 2, 3, 6]), bias=st.booleans(), causal=st.booleans(), seed=st.integers(0, 2**31))
def test_self_attention_and_its_weights_equal_torch_multihead_attention(
    attention_path: str, heads: int, bias: bool, causal: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    ours, x = Attention(12, heads, bias=bias), torch.randn(2, 5, 12)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    with record_attention(ours) as weights:
        mixed = ours(x, None, padding_mask(mask), causal=causal)
    expected, expected_weights = torch_twin(ours, 12)(
        x, x, x, key_padding_mask=~mask, attn_mask=~causal_mask(5, 5) if causal else None, average_attn_weights=False
    )
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights[""], [expected_weights], rtol=1e-5, atol=1e-6)


@given(heads=st.sampled_from([1, 2, 3, 6]), seed=st.integers(0, 2**31))
def test_cross_attention_and_its_weights_equal_torch_multihead_attention(attention_path: str, heads: int, seed: int) -> None:
    torch.manual_seed(seed)
    ours, x, memory = Attention(12, heads), torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    with record_attention(ours) as weights:
        mixed = ours(x, memory, padding_mask(mask))
    expected, expected_weights = torch_twin(ours, 12)(x, memory, memory, key_padding_mask=~mask, average_attn_weights=False)
    torch.testing.assert_close(mixed, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights[""], [expected_weights], rtol=1e-5, atol=1e-6)


def test_gradients_equal_those_of_torch_multihead_attention(attention_path: str) -> None:
    ours, x = Attention(12, 3), torch.randn(2, 5, 12)
    twin, weight = torch_twin(ours, 12), torch.randn(2, 5, 12)
    torch.autograd.backward((ours(x, causal=True) * weight).sum())
    mixed, _ = twin(x, x, x, attn_mask=~causal_mask(5, 5), need_weights=False)
    torch.autograd.backward((mixed * weight).sum())
    gradients = [linear.weight.grad for linear in (ours.query, ours.key, ours.value)]
    assert all(gradient is not None for gradient in gradients)
    assert twin.in_proj_weight.grad is not None
    torch.testing.assert_close(torch.cat([g for g in gradients if g is not None]), twin.in_proj_weight.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.output.bias.grad, twin.out_proj.bias.grad, rtol=1e-5, atol=1e-5)


def test_one_head_is_the_formula_on_the_projections() -> None:
    layer, x = Attention(6, 1), torch.randn(2, 5, 6)
    q, k, v = (F.linear(x, linear.weight, linear.bias) for linear in (layer.query, layer.key, layer.value))
    weights = (q @ k.transpose(1, 2) / math.sqrt(6)).softmax(-1)
    torch.testing.assert_close(layer(x), F.linear(weights @ v, layer.output.weight, layer.output.bias), rtol=1e-5, atol=1e-6)


def test_heads_are_features_side_by_side_each_looking_at_the_whole_sequence() -> None:
    layer, x = Attention(6, 3), torch.randn(2, 5, 6)
    q, k, v = layer.query(x), layer.key(x), layer.value(x)
    heads = []
    for h in range(3):
        own = slice(2 * h, 2 * h + 2)
        heads.append((q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(2)).softmax(-1) @ v[..., own])
    torch.testing.assert_close(layer(x), layer.output(torch.cat(heads, dim=-1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("n_kv_heads", "d_head"), [(4, 5), (2, 3), (4, 9)])
def test_heads_may_be_of_any_width(attention_path: str, n_kv_heads: int, d_head: int) -> None:
    layer, x = Attention(12, 4, n_kv_heads=n_kv_heads, d_head=d_head), torch.randn(2, 3, 12)
    heads = []
    for head in range(4):
        of_query, of_key = (slice(i * d_head, (i + 1) * d_head) for i in (head, head * n_kv_heads // 4))
        q, k, v = (
            F.linear(x, linear.get_parameter("weight")[rows], linear.get_parameter("bias")[rows])
            for linear, rows in ((layer.query, of_query), (layer.key, of_key), (layer.value, of_key))
        )
        heads.append((q @ k.transpose(1, 2) / d_head**0.5).softmax(-1) @ v)
    torch.testing.assert_close(layer(x), layer.output(torch.cat(heads, dim=-1)), rtol=1e-5, atol=1e-5)


def test_scores_are_a_bilinear_form_of_three_independent_matrices() -> None:
    layer, x = Attention(4, 1, bias=False), torch.randn(1, 3, 4)
    scores = torch.stack([torch.stack([x[0, i] @ layer.query.weight.T @ layer.key.weight @ x[0, j] for j in range(3)]) for i in range(3)])
    torch.testing.assert_close(layer.query(x)[0] @ layer.key(x)[0].T, scores, rtol=1e-5, atol=1e-6)
    pointers = {linear.weight.data_ptr() for linear in (layer.query, layer.key, layer.value, layer.output)}
    assert len(pointers) == 4


def test_permuting_the_tokens_permutes_the_outputs(attention_path: str) -> None:
    layer, x, order = Attention(12, 3), torch.randn(2, 7, 12), torch.randperm(7)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 4, 8, 16, 512])
def test_parameters_do_not_depend_on_the_number_of_heads(heads: int) -> None:
    assert sum(parameter.numel() for parameter in Attention(512, heads).parameters()) == 4 * 512**2 + 4 * 512 == 1_050_624


@pytest.mark.parametrize(("d_model", "heads", "kv_heads"), [(10, 3, None), (12, 4, 3), (12, 2, 4)])
def test_heads_that_do_not_divide_are_refused(d_model: int, heads: int, kv_heads: int | None) -> None:
    with pytest.raises(ValueError, match=f"n_heads={heads} must divide d_model={d_model}"):
        Attention(d_model, heads, n_kv_heads=kv_heads)


@given(kv_heads=st.sampled_from([1, 2, 3]), seed=st.integers(0, 2**31))
def test_grouped_heads_equal_full_heads_with_repeated_weights(attention_path: str, kv_heads: int, seed: int) -> None:
    torch.manual_seed(seed)
    grouped, full, x = Attention(12, 6, n_kv_heads=kv_heads), Attention(12, 6), torch.randn(2, 5, 12)
    state = grouped.state_dict()
    for name in ("key.weight", "key.bias", "value.weight", "value.bias"):
        heads = state[name].unflatten(0, (kv_heads, 2))
        state[name] = heads.repeat_interleave(6 // kv_heads, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    with record_attention(grouped) as weights, record_attention(full) as expected:
        torch.testing.assert_close(grouped(x, causal=True), full(x, causal=True), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights[""], expected[""], rtol=1e-5, atol=1e-6)
    assert grouped.key.weight.shape == (kv_heads * 2, 12)


def test_unscaled_attention_leaves_the_division_out(attention_path: str) -> None:
    unscaled, x = Attention(12, 3, scaled=False), torch.randn(2, 5, 12)
    scaled = Attention(12, 3)
    scaled.load_state_dict(unscaled.state_dict())
    with torch.no_grad():
        for parameter in (scaled.query.weight, scaled.query.bias):
            parameter *= math.sqrt(4)
    torch.testing.assert_close(unscaled(x), scaled(x), rtol=1e-5, atol=1e-6)


def test_looking_at_keys_made_earlier_equals_looking_at_the_memory(attention_path: str) -> None:
    layer, memory, x = Attention(12, 6, n_kv_heads=3), torch.randn(2, 7, 12), torch.randn(6, 4, 12)
    attn_mask = padding_mask(torch.arange(7) < torch.tensor([[7], [3]]))
    looked = layer.look(x, *layer.keys_values(memory), attn_mask)  # three rows for each of two sources
    expected = layer(x, memory.repeat_interleave(3, dim=0), attn_mask.repeat_interleave(3, dim=0))
    torch.testing.assert_close(looked, expected, rtol=1e-5, atol=1e-6)


def tiny_inputs() -> tuple[Tensor, Tensor, Tensor]:
    source, target = torch.randint(1, 13, (2, 5)), torch.randint(1, 13, (2, 3))
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    return source * mask, mask, target


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_recording_gives_masked_weights_of_every_layer_and_head_without_changing_logits(
    attention_path: str, kv_heads: int, tiny_config: Callable[..., ModelConfig]
) -> None:
    model = build_model(tiny_config(n_kv_heads=kv_heads, n_decoder_layers=3)).eval()
    source, mask, target = tiny_inputs()
    before = model(source, mask, target)
    with record_attention(model) as weights:
        during = model(source, mask, target)
    assert torch.equal(before, during)
    expected = {f"encoder.blocks.{i}.attention": (2, 4, 5, 5) for i in range(2)}
    expected |= {f"decoder.blocks.{i}.attention": (2, 4, 3, 3) for i in range(3)}
    expected |= {f"decoder.blocks.{i}.cross_attention": (2, 4, 3, 5) for i in range(3)}
    assert {name: tuple(one.shape) for name, [one] in weights.items()} == expected
    for name, [one] in weights.items():
        torch.testing.assert_close(one.sum(-1), torch.ones(one.shape[:3]))
        if name.startswith("encoder") or "cross" in name:
            assert bool((one[1, :, :, 3:] == 0).all())
        else:
            assert bool((one.triu(1) == 0).all())


def test_recorded_weights_include_rotary_and_relative_positions(tiny_config: Callable[..., ModelConfig]) -> None:
    for positions in ("rotary", "relative"):
        model = build_model(tiny_config(architecture="causal", n_layers=1, positions=positions)).eval()
        assert isinstance(model, Causal)
        ids = torch.full((1, 6), 5)  # the same token everywhere: without positions every seen token would weigh the same
        with record_attention(model) as weights:
            model(ids)
        last_row = weights["stack.blocks.0.attention"][0][0, :, -1]
        assert bool((last_row.std(-1) > 1e-3).all())


def test_nothing_is_recorded_after_the_block_even_when_it_fails() -> None:
    layer, x = Attention(12, 3), torch.randn(1, 2, 12)
    with record_attention(layer) as weights:
        layer(x)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), record_attention(layer):
        layer(torch.randn(1, 2, 11))
    layer(x)
    assert layer.recorded is None
    assert len(weights[""]) == 1


def test_each_forward_is_recorded_in_turn() -> None:
    layer, x = Attention(12, 3), torch.randn(2, 1, 5, 12)
    with record_attention(layer) as weights:
        layer(x[0])
        layer(x[1], causal=True)
    q, k = (linear(x[0]).unflatten(-1, (3, 4)).transpose(1, 2) for linear in (layer.query, layer.key))
    assert len(weights[""]) == 2
    torch.testing.assert_close(weights[""][0], attention_weights(q, k))


def test_changing_the_source_changes_the_decoder_but_changing_its_padding_does_not(
    attention_path: str, tiny_config: Callable[..., ModelConfig]
) -> None:
    model = build_model(tiny_config()).eval()
    assert isinstance(model, Seq2Seq)
    source, mask, target = tiny_inputs()
    before = model(source, mask, target)
    padded = torch.where(mask, source, 7)
    assert torch.equal(model(padded, mask, target), before)
    edited = source.clone()
    edited[:, 0] = edited[:, 0] % 12 + 1
    assert bool(((model(edited, mask, target) - before).abs().amax((1, 2)) > 1e-3).all())
