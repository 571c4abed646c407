"""Conformer blocks and chunked attention, alone and in the models that hear: definitions, reach, padding, packing, pictures."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from heed.errors import ConfigError
from heed.model import (
    Block,
    ConformerBlock,
    Encoder,
    ModelConfig,
    Seq2Seq,
    Stack,
    TokenStem,
    attend,
    build_model,
    count_parameters,
    layer_table,
    mermaid,
    padding_mask,
)
from heed.model.approximations import chunked
from heed.model.baselines import build_stack
from heed.model.config import of_chosen_kinds
from heed.model.conformer import ConvolutionModule
from heed.model.packed import PackedLinear, pack
from heed.model.quantized import QuantizedLinear, QuantizedStack

Maker = Callable[..., ModelConfig]
ATTENTIONS = ["full", "chunked"]
SCALE = 0.7


@pytest.fixture
def hearing(tiny_config: Maker) -> Callable[..., ModelConfig]:
    """Return a maker of small configs of models that hear frames of 7 features and score 13 labels."""

    def make(**fields: Any) -> ModelConfig:
        usual = {"architecture": "encoder", "n_features": 7, "ctc": True, "chunk": 3, "left_chunks": 2, "positions": "rotary"}
        return tiny_config(**of_chosen_kinds({**usual, "mixer": "conformer", "kernel_size": 5, **fields}))

    return make


@pytest.fixture(params=["pairs", "chunks"])
def chunk_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Send all chunked attention of a test along one path: a mask over all pairs, or chunk by chunk."""
    monkeypatch.setattr("heed.model.approximations.PAIRS_UP_TO", 1 << 30 if request.param == "pairs" else 0)
    return str(request.param)


def randomised(module: nn.Module) -> nn.Module:
    """Draw every parameter, so that no norm, bias or gate is at its neutral start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
    return module


# chunked attention


def seen(n_keys: int, chunk: int, left_chunks: int) -> Tensor:
    """Return which place may look at which, pair by pair (S, S)."""
    allowed = torch.zeros(n_keys, n_keys, dtype=torch.bool)
    for query in range(n_keys):
        for key in range(n_keys):
            allowed[query, key] = query // chunk - left_chunks <= key // chunk <= query // chunk
    return allowed


@pytest.mark.parametrize("shape", [(1, 0, 1), (5, 0, 5), (12, 0, 4), (13, 0, 4), (7, 6, 3), (2, 4, 2), (1, 8, 4), (5, 12, 2), (3, 0, 9)])
@settings(max_examples=15)
@given(left_chunks=st.integers(0, 5), n_kv_heads=st.sampled_from([1, 2, 4]), masked=st.booleans(), seed=st.integers(0, 999))
def test_chunked_attention_is_full_attention_under_its_mask(
    chunk_path: str, attention_path: str, shape: tuple[int, int, int], *, left_chunks: int, n_kv_heads: int, masked: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    n_queries, n_past, chunk = shape
    n_keys = n_past + n_queries
    q = torch.randn(3, 4, n_queries, 5, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(3, n_kv_heads, n_keys, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    mask = torch.rand(3, n_keys) < 0.6 if masked else None
    if mask is not None:
        mask[2] = False
    allowed = seen(n_keys, chunk, left_chunks)[n_past:]
    expected = attend(q, k, v, allowed if mask is None else allowed & padding_mask(mask), scale=SCALE)
    found = chunked(q, k, v, None if mask is None else padding_mask(mask), SCALE, chunk=chunk, left_chunks=left_chunks)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    weight = torch.randn_like(q)
    gradients = [torch.autograd.grad((mixed * weight).sum(), (q, k, v)) for mixed in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
    if mask is not None:
        assert bool((found[2] == 0).all())


def test_a_chunked_layer_looks_through_its_mask_at_rotated_keys(chunk_path: str, tiny_config: Maker) -> None:
    fields: dict[str, Any] = {"positions": "rotary", "architecture": "encoder"}
    near, full = (
        Stack(tiny_config(**of_chosen_kinds({"attention": kind, "chunk": 3, "left_chunks": 1}), **fields), 1) for kind in ATTENTIONS[::-1]
    )
    full.load_state_dict(near.state_dict())
    x, mask = torch.randn(2, 11, 24), torch.arange(11) < torch.tensor([[11], [4]])
    assert full.rotary is not None
    assert full.norm is not None
    turn = full.rotary(0, 11, None, x.device)
    expected = full.norm(full.blocks[0](x, padding_mask(mask) & seen(11, 3, 1), rotation=turn))
    torch.testing.assert_close(near(x, mask), expected, rtol=1e-5, atol=1e-5)


def influences(mixing: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return which place (row) is changed by which (column) of x (1, S, D)."""
    with torch.inference_mode():
        plain = mixing(x)
        changed = []
        for place in range(x.size(1)):
            edited = x.clone()
            edited[0, place] = torch.randn(x.size(2))
            changed.append((mixing(edited) != plain).any(-1)[0])
    return torch.stack(changed, dim=1)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_what_a_place_sees_under_chunked_attention(chunk_path: str, n_layers: int, tiny_config: Maker) -> None:
    config = tiny_config(architecture="encoder", positions="rotary", attention="chunked", chunk=3, left_chunks=1)
    # layers pass on what they saw, so that the left context adds up; what comes behind the chunk stays unseen
    assert torch.equal(influences(build_stack(config, n_layers), torch.randn(1, 20, 24)), seen(20, 3, n_layers))


def test_a_chunked_conformer_sees_nothing_behind_its_chunk_and_before_it_as_far_as_its_convolutions_reach(
    chunk_path: str, tiny_config: Maker
) -> None:
    fields: dict[str, Any] = {"architecture": "encoder", "positions": "rotary", "mixer": "conformer", "chunk": 3, "left_chunks": 1}
    stack = build_stack(tiny_config(**fields, attention="chunked", kernel_size=5), 1)
    near, place = seen(20, 3, 1), torch.arange(20)
    convolved = (place[:, None] - place >= 0) & (place[:, None] - place <= 4)
    assert torch.equal(influences(stack, torch.randn(1, 20, 24)), (convolved.long() @ near.long()) > 0)


@pytest.mark.parametrize("mixer", ["attention", "conformer"])
def test_in_a_model_that_follows_streams_no_frame_behind_a_chunk_is_heard(mixer: str, hearing: Maker) -> None:
    model = randomised(build_model(hearing(attention="chunked", mixer=mixer, subsampling=2))).eval()
    frames, chunk_end = torch.randn(1, 40, 7), 6 * 2 - 1  # two chunks of 3 places of 2 frames; the last frame of a place starts the next
    edited = frames.clone()
    edited[:, chunk_end:] = torch.randn(1, 40 - chunk_end, 7)
    assert torch.equal(model(edited)[:, :6], model(frames)[:, :6])
    assert bool((model(edited)[:, 6:] != model(frames)[:, 6:]).any(-1).all())


# the block


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_conformer_block_equals_its_definition(attention: str, norm: str, tiny_config: Maker) -> None:
    fields: dict[str, Any] = {"mixer": "conformer", "kernel_size": 5, "positions": "none", "norm": norm, "activation": "silu"}
    fields |= of_chosen_kinds({"attention": attention, "chunk": 2, "left_chunks": 1})
    block = randomised(ConformerBlock(tiny_config(architecture="encoder", **fields)))
    assert isinstance(block, ConformerBlock)
    x, mask = torch.randn(2, 7, 24), torch.arange(7) < torch.tensor([[7], [4]])
    found = block(x, padding_mask(mask))

    def half(x: Tensor, feed_forward: nn.Module, residual: nn.Module) -> Tensor:
        inner = F.silu(feed_forward.get_submodule("up")(residual.get_submodule("norm")(x)))
        change: Tensor = feed_forward.get_submodule("down")(inner)
        return x + change / 2

    x = half(x, block.first_feed_forward, block.first_residual)
    full = Block(tiny_config(architecture="encoder", norm=norm, positions="none")).attention
    full.load_state_dict(block.attention.state_dict())
    allowed = padding_mask(mask) if attention == "full" else padding_mask(mask) & seen(7, 2, 1)
    x = x + full(block.attention_residual.get_submodule("norm")(x), None, allowed)
    module = block.convolution
    signal, gate = module.enter(block.convolution_residual.get_submodule("norm")(x)).chunk(2, dim=-1)
    inner = signal * gate.sigmoid() * mask[..., None]
    inner = F.pad(inner.transpose(1, 2), (4, 0) if attention == "chunked" else (2, 2))
    inner = F.conv1d(inner, module.depthwise.weight[..., 0], module.depthwise.bias, groups=24).transpose(1, 2)
    x = x + module.leave(F.silu(module.norm(inner)))
    expected = half(x, block.last_feed_forward, block.last_residual)
    torch.testing.assert_close(found[mask], expected[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_block_whose_sub_layers_say_nothing_changes_nothing(attention: str, tiny_config: Maker) -> None:
    block = randomised(ConformerBlock(tiny_config(architecture="encoder", mixer="conformer", attention=attention)))
    assert isinstance(block, ConformerBlock)
    for last in (block.first_feed_forward.down, block.attention.output, block.convolution.leave, block.last_feed_forward.down):
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
    x = torch.randn(2, 5, 24)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("kernel_size", [1, 3, 7, 15])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_each_feature_is_convolved_alone_over_all_lengths(attention: str, kernel_size: int, tiny_config: Maker) -> None:
    config = tiny_config(architecture="encoder", mixer="conformer", attention=attention, kernel_size=kernel_size)
    module = ConvolutionModule(config)
    for n_places in (1, 2, 9):
        inner = F.glu(module.enter(x := torch.randn(2, n_places, 24)), dim=-1)
        sums = torch.zeros(2, n_places, 24)
        for t in range(n_places):
            for i in range(kernel_size):
                key = t - (kernel_size - 1 if attention == "chunked" else kernel_size // 2) + i
                if 0 <= key < n_places:
                    sums[:, t] += inner[:, key] * module.depthwise.weight[:, 0, i, 0]
        expected = module.leave(F.silu(module.norm(sums + module.depthwise.get_parameter("bias"))))
        torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
@settings(max_examples=10)
@given(extra=st.integers(0, 4), kernel_size=st.sampled_from([1, 3, 5, 9]), seed=st.integers(0, 999))
def test_padding_and_batch_mates_change_nothing(
    chunk_path: str, attention: str, tiny_config: Maker, *, extra: int, kernel_size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    fields: dict[str, Any] = {"attention": attention, "chunk": 2, "left_chunks": 1, "kernel_size": kernel_size, "positions": "rotary"}
    for mixer in ("conformer", "attention"):
        stack = randomised(build_stack(tiny_config(architecture="encoder", **of_chosen_kinds({**fields, "mixer": mixer})), 2))
        lengths = [5, 3, 1]
        padded, mask = torch.randn(3, 5 + extra, 24), torch.arange(5 + extra) < torch.tensor(lengths)[:, None]
        together = stack(padded, mask)
        for i, length in enumerate(lengths):
            alone = stack(padded[i : i + 1, :length])[0]
            torch.testing.assert_close(together[i, :length], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_an_empty_row_is_finite_and_has_finite_gradients(chunk_path: str, attention: str, tiny_config: Maker) -> None:
    fields = of_chosen_kinds({"attention": attention, "chunk": 2, "left_chunks": 1, "mixer": "conformer"})
    config = tiny_config(architecture="encoder", **fields)
    stack, x = build_stack(config, 2), torch.randn(3, 5, 24, requires_grad=True)
    mask = torch.arange(5) < torch.tensor([[5], [1], [0]])
    out = stack(x, mask)
    torch.autograd.backward((out * mask[..., None] * torch.randn_like(out)).sum())
    assert bool(out.isfinite().all())
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert bool((x.grad[~mask] == 0).all())
    for parameter in stack.parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.isfinite().all())


def test_recomputing_blocks_gives_the_same_gradients(tiny_config: Maker) -> None:
    stack = build_stack(tiny_config(architecture="encoder", mixer="conformer", positions="rotary"), 2)
    assert isinstance(stack, Stack)
    x, mask = torch.randn(2, 5, 24), torch.arange(5) < torch.tensor([[5], [3]])
    found = []
    for stack.recompute in (False, True):
        out = stack(x, mask)
        found.append(torch.autograd.grad(out[mask].pow(3).sum(), list(stack.parameters())))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_in_bfloat16_a_stack_of_conformers_answers_in_float32_to_its_rounding(tiny_config: Maker) -> None:
    stack, x = build_stack(tiny_config(architecture="encoder", mixer="conformer", kernel_size=5), 2), torch.randn(2, 9, 24)
    with torch.inference_mode():
        exact = stack(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = stack(x)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() <= 2e-2 * max(1.0, float(exact.abs().max()))


# models that hear


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("mixer", ["attention", "conformer"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
def test_padding_changes_no_score_of_a_label(attention: str, mixer: str, positions: str, hearing: Maker) -> None:
    model = build_model(hearing(attention=attention, mixer=mixer, positions=positions)).eval()
    assert isinstance(model, Encoder)
    lengths = [29, 17, 6, 1]
    frames, mask = torch.randn(4, 29, 7), torch.arange(29) < torch.tensor(lengths)[:, None]
    logits, places = model.label_logits(frames, mask)
    assert logits.shape == (4, 8, 13)
    assert places.sum(1).tolist() == [8, 5, 2, 1]
    for i, length in enumerate(lengths):
        alone, all_places = model.label_logits(frames[i : i + 1, :length])
        assert bool(all_places.all())
        torch.testing.assert_close(logits[i, places[i]], alone[0], rtol=1e-5, atol=1e-5)


def test_label_scores_are_those_of_the_head_over_what_was_encoded(hearing: Maker) -> None:
    for architecture in ("encoder", "seq2seq"):
        model = build_model(hearing(architecture=architecture)).eval()
        assert isinstance(model, Encoder | Seq2Seq)
        assert model.ctc_head is not None
        nn.init.normal_(model.ctc_head.bias)
        frames, mask = torch.randn(2, 9, 7), torch.arange(9) < torch.tensor([[9], [5]])
        memory = model.encode(frames, mask)
        logits, places = model.label_logits(frames, mask)
        assert torch.equal(logits, F.linear(memory, model.ctc_head.weight, model.ctc_head.bias))
        assert torch.equal(places, model.memory_mask(mask))
        assert places.tolist() == [[True, True, True], [True, True, False]]


def test_models_without_a_label_head_say_so(hearing: Maker) -> None:
    model = build_model(hearing(ctc=False))
    assert isinstance(model, Encoder)
    with pytest.raises(ConfigError, match=r"model\.ctc is not set, .* train with model\.ctc=true"):
        model.label_logits(torch.randn(1, 9, 7))


def test_an_encoder_of_tokens_scores_labels_at_each_of_them(tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture="encoder", ctc=True))
    assert isinstance(model, Encoder)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    logits, places = model.label_logits(torch.randint(1, 13, (2, 5)), mask)
    assert logits.shape == (2, 5, 13)
    assert places is mask


def test_an_encoder_that_hears_judges_recordings_whatever_pads_them(hearing: Maker) -> None:
    model = build_model(hearing(n_classes=3, ctc=False, vocab_size=None)).eval()
    assert isinstance(model, Encoder)
    frames, mask = torch.randn(2, 9, 7), torch.arange(9) < torch.tensor([[9], [6]])
    together = model.classify(frames, mask)
    assert together.shape == (2, 3)
    torch.testing.assert_close(together[1:], model.classify(frames[1:, :6]), rtol=1e-5, atol=1e-5)


SEQ2SEQ: dict[str, dict[str, Any]] = {
    "conformer": {"mixer": "conformer"},
    "chunked": {"attention": "chunked"},
    "plain": {"mixer": "attention", "positions": "relative", "norm_place": "after"},
    "no labels": {"ctc": False, "positions": "sinusoidal", "tied": False, "n_kv_heads": 2},
}


@pytest.mark.parametrize("kind", SEQ2SEQ)
@pytest.mark.parametrize("padded", [True, False])
def test_a_decoder_that_hears_steps_as_the_model_reads(kind: str, padded: bool, hearing: Maker) -> None:
    model = build_model(hearing(architecture="seq2seq", n_decoder_layers=1, **SEQ2SEQ[kind])).eval()
    assert isinstance(model, Seq2Seq)
    frames, target = torch.randn(3, 21, 7), torch.randint(1, 13, (3, 6))
    mask = torch.arange(21) < torch.tensor([[21], [13], [2]]) if padded else None
    with torch.inference_mode():
        expected = model(frames, mask, target)
        state = model.start(frames, mask, target[:, :2])
        assert state.source_mask is not None
        assert state.source_mask.shape == (3, 6)
        steps = torch.stack([model.step(target[:, t], state) for t in range(1, 6)], dim=1)
        torch.testing.assert_close(steps, expected[:, 1:], rtol=1e-4, atol=1e-4)
        memory, places = model.encode(frames, mask), None if mask is None else model.memory_mask(mask)
        assert torch.equal(model.head(model.decoded(memory, places, target)), expected)
        state = model.start_from(memory, places, target)
        torch.testing.assert_close(model.step(target[:, 5], state), expected[:, 5], rtol=1e-4, atol=1e-4)
        if mask is not None:
            alone = model(frames[1:2, :13], None, target[1:2])
            torch.testing.assert_close(expected[1:2], alone, rtol=1e-4, atol=1e-4)


def test_rows_of_a_beam_share_what_was_heard(hearing: Maker) -> None:
    model = build_model(hearing(architecture="seq2seq", attention="chunked")).eval()
    assert isinstance(model, Seq2Seq)
    frames, mask, target = torch.randn(2, 21, 7), torch.arange(21) < torch.tensor([[21], [9]]), torch.randint(1, 13, (4, 3))
    with torch.inference_mode():
        state = model.start(frames, mask, torch.ones(2, 1, dtype=torch.long))
        state.expand(2)
        model.step(torch.ones(4, dtype=torch.long), state)
        steps = [model.step(target[:, t], state) for t in range(3)]
        begun = torch.cat([torch.ones(4, 1, dtype=torch.long), target], dim=1)
        expected = model(frames.repeat_interleave(2, 0), mask.repeat_interleave(2, 0), begun)[:, 1:]
    torch.testing.assert_close(torch.stack(steps, dim=1), expected, rtol=1e-4, atol=1e-4)


def test_only_the_encoder_of_seq2seq_mixes_in_a_special_way_and_its_decoder_is_that_of_a_plain_model(hearing: Maker) -> None:
    special = build_model(hearing(architecture="seq2seq", attention="chunked"))
    plain = build_model(hearing(architecture="seq2seq", mixer="attention"))
    assert isinstance(special, Seq2Seq)
    assert isinstance(plain, Seq2Seq)
    assert all(isinstance(block, ConformerBlock) for block in special.encoder.blocks)
    assert all(isinstance(block, Block) and block.attention.mix is None for block in special.decoder.blocks)
    plain.decoder.load_state_dict(special.decoder.state_dict())
    x, memory = torch.randn(2, 9, 24), torch.randn(2, 5, 24)
    assert torch.equal(plain.decoder(x, None, memory), special.decoder(x, None, memory))


def test_a_seq2seq_that_hears_has_embeddings_of_targets_alone(hearing: Maker) -> None:
    model = build_model(hearing(architecture="seq2seq", tied=True))
    assert isinstance(model, Seq2Seq)
    assert [name for name, module in model.named_modules() if isinstance(module, TokenStem)] == ["target_stem"]
    assert model.head.weight is model.target_stem.embedding.weight
    assert model.ctc_head is not None
    assert model.ctc_head.weight is not model.head.weight


# packed models


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.int8, 8e-2)])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_packed_models_that_hear_answer_as_the_plain_ones(
    attention: str, precision: torch.dtype, tolerance: float, hearing: Maker
) -> None:  # measured: 1.8e-2 in bfloat16, 4.7e-2 in int8
    plain = build_model(hearing(architecture="seq2seq", attention=attention, d_model=32, d_ff=64)).eval()
    assert isinstance(plain, Seq2Seq)
    packed = pack(plain, precision)
    frames, mask, target = torch.randn(2, 21, 7), torch.arange(21) < torch.tensor([[21], [9]]), torch.randint(1, 13, (2, 4))
    with torch.inference_mode():
        memory, logits = plain.encode(frames, mask), plain(frames, mask, target)
        labels, places = plain.label_logits(frames, mask)
        state = packed.start(frames, mask, target[:, :2])
        steps = torch.stack([packed.step(target[:, t], state) for t in range(1, 4)], dim=1)
        pairs = [(packed.encode(frames, mask)[places], memory[places]), (steps, logits[:, 1:])]
        pairs.append((packed.label_logits(frames, mask)[0][places], labels[places]))
    for found, expected in pairs:
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize(("precision", "kind"), [(torch.bfloat16, PackedLinear), (torch.int8, QuantizedLinear)])
def test_packing_leaves_no_linear_map_behind(precision: torch.dtype, kind: type[nn.Module], hearing: Maker) -> None:
    packed = pack(build_model(hearing(architecture="encoder", attention="chunked")), precision)
    assert isinstance(packed, Encoder)
    left = [name for name, module in packed.named_modules() if isinstance(module, nn.Linear)]
    assert all(name.endswith((".attention.key", ".attention.value")) for name in left)  # which the joint map has taken in
    assert packed.ctc_head is not None
    assert isinstance(packed.ctc_head.product, kind)
    for block in packed.stack.blocks:
        assert isinstance(block, ConformerBlock)
        assert isinstance(block.attention.joint, kind)
        assert block.convolution.depthwise.weight.dtype == torch.float32


def test_stacks_of_conformers_and_of_chunked_attention_have_no_int8_form_of_their_own(hearing: Maker) -> None:
    assert QuantizedStack.knows(hearing(mixer="attention"))
    assert not QuantizedStack.knows(hearing(mixer="conformer"))
    assert not QuantizedStack.knows(hearing(mixer="attention", attention="chunked"))
    packed = pack(build_model(hearing(architecture="seq2seq", attention="chunked")), torch.int8)
    assert isinstance(packed, Seq2Seq)
    assert [type(stack) for stack in (packed.encoder, packed.decoder)] == [Stack, QuantizedStack]


# pictures


def texts(config: ModelConfig) -> list[str]:
    """Return the texts of a model's chart without sums."""
    lines = [line for line in mermaid(build_model(config)).split("\n") if '"' in line]
    return [text for line in lines if (text := line.split('"')[1]) != "+"]


def test_the_chart_of_a_model_that_hears_begins_with_frames_and_ends_with_labels(hearing: Maker) -> None:
    heard = ["frames of audio", "convolution with stride 2", "convolution with stride 2", "linear map + positions"]
    kinds = ["half a feed-forward", "self-attention", "convolution", "half a feed-forward"]
    blocks = [*(f"stack 1: {kind}" for kind in kinds), "stack: norm"]
    assert texts(hearing(n_layers=1)) == [*heard, *blocks, "label scores"]
    assert texts(hearing(n_layers=1, ctc=False)) == [*heard, *blocks]
    found = texts(hearing(n_layers=1, architecture="seq2seq", mixer="attention", subsampling=1))
    kinds = ["encoder 1: self-attention", "encoder 1: feed-forward", "encoder: norm", "label scores", "target", "embedding + positions"]
    assert found[: 2 + len(kinds)] == ["frames of audio", "linear map + positions", *kinds]
    assert found[-1] == "vocabulary scores"


def test_every_sub_layer_of_a_conformer_has_a_residual_round_it(hearing: Maker) -> None:
    chart = mermaid(build_model(hearing(n_layers=3)))
    assert chart.count("-->|residual|") == 3 * 4


@pytest.mark.parametrize("architecture", ["encoder", "seq2seq"])
def test_the_layer_table_adds_up_to_the_parameters(architecture: str, hearing: Maker) -> None:
    model = build_model(hearing(architecture=architecture))
    rows = {row.name: row.parameters for row in layer_table(model)}
    assert sum(rows.values()) == count_parameters(model)
    assert rows["ctc_head"] == 24 * 13 + 13
    stem = "stem" if architecture == "encoder" else "source_stem"
    assert rows[f"{stem}.layers.0"] == 24 * 9 + 24
    assert rows[f"{stem}.output"] == 24 * 2 * 24 + 24
