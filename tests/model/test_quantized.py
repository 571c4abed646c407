"""What only int8 models promise: rows that do not depend on each other, and how far rounding may go."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heed.model import ModelConfig, Seq2Seq, build_model
from heed.model.packed import pack
from heed.model.quantized import QuantizedLinear, round_weights

Maker = Callable[..., ModelConfig]


def packed_translator(config: ModelConfig) -> Seq2Seq:
    torch.manual_seed(0)
    model = build_model(config).eval()
    assert isinstance(model, Seq2Seq)
    return pack(model, torch.int8)


def steps(model: Seq2Seq, source: Tensor, mask: Tensor | None, target: Tensor) -> Tensor:
    with torch.inference_mode():
        state = model.start(source, mask, target[:, :1])
        return torch.stack([model.step(target[:, t], state) for t in range(target.size(1))], 1)


@pytest.mark.parametrize("kind", [{"positions": "rotary"}, {"positions": "sinusoidal", "norm_place": "after"}])
def test_a_sentence_alone_scores_as_in_any_batch_to_the_bit(kind: dict[str, object], tiny_config: Maker) -> None:
    model = packed_translator(tiny_config(architecture="seq2seq", d_model=64, d_ff=128, **kind))
    lengths = [3, 64, 1, 20, 37, 63]
    source, target = torch.randint(1, 13, (6, 64)), torch.randint(1, 13, (6, 40))
    mask = torch.arange(64) < torch.tensor(lengths)[:, None]
    together = steps(model, source * mask, mask, target)
    for row, length in enumerate(lengths):
        alone = steps(model, source[row : row + 1, :length], None, target[row : row + 1])
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_several_hypotheses_of_a_padded_source_score_as_one(positions: str, tiny_config: Maker) -> None:
    model = packed_translator(tiny_config(architecture="seq2seq", positions=positions))
    source, prefix = torch.randint(1, 13, (2, 5)), torch.ones(2, 1, dtype=torch.long)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    tokens = torch.tensor([4, 7])
    with torch.inference_mode():
        alone, grouped = (model.start(source * mask, mask, prefix) for _ in range(2))
        grouped.expand(3)
        expected = model.step(tokens, alone)
        found = model.step(tokens.repeat_interleave(3), grouped)
    torch.testing.assert_close(found.unflatten(0, (2, 3)), expected[:, None].expand(-1, 3, -1), rtol=1e-5, atol=1e-5)


def test_what_a_batch_remembered_is_free_when_it_is_answered(tiny_config: Maker) -> None:
    model = packed_translator(tiny_config(architecture="seq2seq"))
    with torch.inference_mode():
        state = model.start(torch.randint(1, 13, (2, 5)), None, torch.randint(1, 13, (2, 1)))
        model.step(torch.tensor([1, 1]), state)
    keys = weakref.ref(state.layers[1].past.keys)
    gc.disable()
    try:
        del state
        assert keys() is None
    finally:
        gc.enable()


@given(seed=st.integers(0, 999), n=st.integers(1, 40), features=st.integers(1, 70), width=st.integers(1, 70))
def test_a_product_is_within_the_rounding_of_its_factors(seed: int, n: int, features: int, width: int) -> None:
    torch.manual_seed(seed)
    linear, x = torch.nn.Linear(features, width), torch.randn(n, features)
    found = QuantizedLinear(linear)(x)
    weight, bias = linear.weight.detach(), linear.bias.detach()
    x_step, w_step = x.abs().amax(1, keepdim=True) / 127, weight.abs().amax(1) / 127
    most = 0.5 * x_step * weight.abs().sum(1) + 0.5 * w_step * x.abs().sum(1, keepdim=True) + 0.25 * features * x_step * w_step
    assert ((found - (x @ weight.T + bias)).abs() <= most * 1.01 + 1e-5).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 999), n=st.integers(1, 300))
def test_a_row_of_a_product_does_not_depend_on_the_rows_beside_it(seed: int, n: int) -> None:
    torch.manual_seed(seed)
    linear, x = QuantizedLinear(torch.nn.Linear(256, 64)), torch.randn(300, 256)
    assert torch.equal(linear(x[:n]), linear(x)[:n])


def test_weights_are_within_half_a_step_of_their_row() -> None:
    weight = torch.randn(7, 32) * torch.logspace(-3, 3, 7)[:, None]
    weight[3] = 0
    levels, step = round_weights(weight)
    assert ((levels.float() * step[:, None] - weight).abs() <= step[:, None] * 0.5001).all()
    assert not levels[3].any()
