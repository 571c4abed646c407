"""Packed models against the models they were made of."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heed.model.config import ModelConfig
from heed.model.models import Causal, Encoder, Seq2Seq, build_model
from heed.model.packed import PackedLinear, pack

PRECISIONS = [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.int8, 5e-2)]  # measured for int8: 2.1e-2
KINDS = [
    {},
    {"positions": "rotary", "n_kv_heads": 1, "gated": True, "activation": "silu", "norm": "rms", "bias": False},
    {"positions": "relative", "norm_place": "after", "tied": False},
    {"positions": "learned", "norm_place": "rezero", "scaled": False},
    {"positions": "learned", "first_position": 2, "max_source_length": 7, "source_vocab_size": 11, "embedding_norm": True},
    {"positions": "sinusoidal_halves", "head_bias": True, "norm_place": "after", "activation": "silu"},
    {"positions": "relative", "scaled_head": True, "scaled": False, "norm": "rms", "bias": False, "d_kv": 6},
    {"positions": "rotary", "rotary_base": 100.0, "d_kv": 12, "n_kv_heads": 2, "gated": True},
    {"positions": "rotary", "rotary_factor": 4.0, "rotary_context": 30, "unbiased": ["key", "output", "up"]},
    {"share_layers": True, "n_decoder_layers": 3, "d_kv": 10},
]


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare with the tolerance as a share of the largest value: roundings add up to that, whatever a single value is."""
    assert found.dtype == expected.dtype
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_decoder_steps_as_the_plain_model_reads(
    kind: dict[str, object], precision: torch.dtype, tolerance: float, tiny_config: Callable[..., ModelConfig]
) -> None:
    torch.manual_seed(0)
    plain = build_model(tiny_config(architecture="seq2seq", d_model=32, d_ff=64, **kind)).eval()
    assert isinstance(plain, Seq2Seq)
    for parameter in plain.parameters():
        if parameter.dim() == 0:
            torch.nn.init.constant_(parameter, 0.5)  # gates of rezero, which start closed
    if plain.head.bias is not None:
        torch.nn.init.normal_(plain.head.bias)
    packed = pack(plain, precision)
    source, target = torch.randint(1, 9, (3, 5)), torch.randint(1, 9, (3, 4))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 4 + [False]])
    with torch.inference_mode():
        expected = plain(source, mask, target)
        state = packed.start(source, mask, target[:, :2])
        steps = [packed.step(target[:, t], state) for t in range(1, 4)]
        close(torch.stack(steps, 1), expected[:, 1:], tolerance)
        close(packed(source, mask, target), expected, tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_packed_encoders_and_causal_models_compute_the_same(
    precision: torch.dtype, tolerance: float, tiny_config: Callable[..., ModelConfig]
) -> None:
    torch.manual_seed(0)
    ids, mask = torch.randint(1, 9, (2, 5)), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    encoder, causal = (build_model(tiny_config(architecture=kind, d_ff=64)).eval() for kind in ("encoder", "causal"))
    assert isinstance(encoder, Encoder)
    assert isinstance(causal, Causal)
    with torch.inference_mode():
        close(pack(encoder, precision)(ids, mask)[mask], encoder(ids, mask)[mask], tolerance)
        packed, expected = pack(causal, precision), causal(ids)
        state = packed.start(None, None, ids[:, :3])
        close(torch.stack([packed.step(ids[:, t], state) for t in (2, 3, 4)], 1), expected[:, 2:], tolerance)


ENCODERS: list[dict[str, object]] = [
    {"n_segments": 2, "embedding_norm": True, "positions": "learned", "first_position": 2, "norm_place": "after", "activation": "gelu"},
    {"class_hidden": "tanh", "pooling": "first", "d_kv": 10, "share_layers": True},
    {"class_hidden": "relu", "tied": False, "positions": "rotary", "rotary_base": 50.0, "d_kv": 4, "n_kv_heads": 2},
]


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("kind", ENCODERS)
def test_every_head_of_a_packed_encoder_answers_the_same(
    kind: dict[str, object], precision: torch.dtype, tolerance: float, tiny_config: Callable[..., ModelConfig]
) -> None:
    torch.manual_seed(0)
    heads = {"masked_lm": True, "n_tags": 3, "n_classes": 5}
    plain = build_model(tiny_config(architecture="encoder", d_model=32, d_ff=64, **heads, **kind)).eval()
    assert isinstance(plain, Encoder)
    assert plain.masked_head is not None
    torch.nn.init.normal_(plain.masked_head.get_parameter("bias"))
    packed = pack(plain, precision)
    ids, mask = torch.randint(2, 6, (3, 5)), torch.arange(5) < torch.tensor([[5], [3], [4]])
    with torch.inference_mode():
        close(packed.word_logits(ids, mask)[mask], plain.word_logits(ids, mask)[mask], tolerance)
        close(packed.tag_logits(ids, mask)[mask], plain.tag_logits(ids, mask)[mask], tolerance)
        close(packed.classify(ids, mask), plain.classify(ids, mask), tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_a_packed_model_hears_through_convolutions_over_time_alone(
    precision: torch.dtype, tolerance: float, tiny_config: Callable[..., ModelConfig]
) -> None:
    torch.manual_seed(0)
    kind = {"n_features": 7, "audio_stem": "frames1d", "subsampling": 2, "positions": "learned", "max_source_length": 9}
    plain = build_model(tiny_config(architecture="seq2seq", d_ff=64, **kind)).eval()
    assert isinstance(plain, Seq2Seq)
    frames, mask, target = torch.randn(2, 9, 7), torch.arange(9) < torch.tensor([[9], [4]]), torch.randint(1, 9, (2, 4))
    with torch.inference_mode():
        close(pack(plain, precision)(frames, mask, target), plain(frames, mask, target), tolerance)


def test_a_shared_block_is_packed_once(tiny_config: Callable[..., ModelConfig]) -> None:
    model = build_model(tiny_config(architecture="causal", share_layers=True, n_layers=3))
    for precision in (torch.float32, torch.bfloat16, torch.int8):
        packed = pack(model, precision)
        assert isinstance(packed, Causal)
        assert len(list(packed.stack.blocks)) == 3
        assert len({id(block) for block in packed.stack.blocks}) == 1


@settings(max_examples=20)
@given(features=st.sampled_from([256, 512, 1024]), width=st.sampled_from([256, 1000]), n=st.integers(1, 300), seed=st.integers(0, 999))
def test_a_bfloat16_product_does_not_depend_on_the_rows_beside_it(features: int, width: int, n: int, seed: int) -> None:
    torch.manual_seed(seed)
    linear = PackedLinear(torch.nn.Linear(features, width), precision=torch.bfloat16)
    x = torch.randn(320, features)
    assert torch.equal(linear(x[:n]), linear(x)[:n])


def test_packing_shares_parameters_and_leaves_the_model_as_it_was(tiny_config: Callable[..., ModelConfig]) -> None:
    model = build_model(tiny_config(architecture="seq2seq")).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    packed = pack(model, torch.bfloat16)
    assert model.training
    assert not packed.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert packed.get_parameter("target_stem.embedding.weight") is model.get_parameter("target_stem.embedding.weight")


@pytest.mark.parametrize("precision", [precision for precision, _ in PRECISIONS])
@pytest.mark.parametrize("kind", [{}, {"head_bias": True}, {"tied": False, "architecture": "causal"}])
def test_ids_that_are_absent_have_no_probability(
    kind: dict[str, object], precision: torch.dtype, tiny_config: Callable[..., ModelConfig]
) -> None:
    torch.manual_seed(1)
    model = build_model(tiny_config(absent_ids=[0, 3], **kind)).eval()
    assert not isinstance(model, Encoder)
    for one in (model, pack(model, precision)):
        p = one.head(torch.randn(2, 5, model.config.d_model)).softmax(-1)
        assert not p[..., [0, 3]].any()
        torch.testing.assert_close(p.sum(-1), torch.ones(2, 5))
        assert (p.gt(0).sum(-1) == p.size(-1) - 2).all()
