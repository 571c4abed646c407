"""Encoder, Causal and Seq2Seq: what padding, batch-mates and later tokens may change, their weights, and that they learn."""

import copy
import math
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heed.errors import ConfigError
from heed.model import Causal, Encoder, Model, ModelConfig, Seq2Seq, build_model, count_parameters, cross_entropy
from heed.model.models import places

POSITIONS = ["sinusoidal", "learned", "rotary", "relative", "none"]
Maker = Callable[..., ModelConfig]
WHOLE_MODELS = 12  # examples for properties that build a model for each


Kind = TypeVar("Kind", bound=Model)


def built(kind: type[Kind], config: ModelConfig) -> Kind:
    """Build a model for answering, of the kind that the test needs."""
    model = build_model(config).eval()
    assert isinstance(model, kind)
    return model


def rows_of(lengths: list[int]) -> list[Tensor]:
    return [torch.randint(1, 13, (length,)) for length in lengths]


def pad(rows: list[Tensor], *, to: int, left: bool = False) -> tuple[Tensor, Tensor]:
    """Return ids (B, to), with noise where nothing should be read, and the mask."""
    ids, mask = torch.randint(1, 13, (len(rows), to)), torch.zeros(len(rows), to, dtype=torch.bool)
    for i, row in enumerate(rows):
        at = slice(to - len(row), to) if left else slice(0, len(row))
        ids[i, at], mask[i, at] = row, True
    return ids, mask


lengths = st.lists(st.integers(1, 7), min_size=1, max_size=4)
seeds = st.integers(0, 2**31)


def assert_same(found: Tensor, expected: Tensor) -> None:
    # float64 shows that nothing leaks (measured 3e-15); float32 rounds: 1.9e-6 in 3000 batches, on outputs up to 6 in size
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if found.dtype == torch.float64 else 5e-6)


@pytest.mark.parametrize("positions", POSITIONS)
@settings(max_examples=WHOLE_MODELS)
@given(lengths=lengths, extra=st.integers(0, 4), seed=seeds)
def test_padding_and_batch_mates_change_nothing_in_an_encoder(
    tiny_config: Maker, positions: str, lengths: list[int], extra: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = built(Encoder, tiny_config(architecture="encoder", positions=positions))
    rows = rows_of(lengths)
    padded = pad(rows, to=max(lengths) + extra)
    for typed in (model, copy.deepcopy(model).double()):
        together = typed(*padded)
        for i, row in enumerate(rows):
            assert_same(together[i, : len(row)], typed(row[None])[0])


@pytest.mark.parametrize("positions", POSITIONS)
@settings(max_examples=WHOLE_MODELS)
@given(lengths=lengths, extra=st.integers(0, 4), seed=seeds)
def test_padding_and_batch_mates_change_nothing_in_a_seq2seq_model(
    tiny_config: Maker, positions: str, lengths: list[int], extra: int, seed: int
) -> None:
    torch.manual_seed(seed)
    model = built(Seq2Seq, tiny_config(positions=positions, source_vocab_size=17, n_layers=1))
    sources, targets = rows_of(lengths), rows_of(lengths[::-1])
    padded, padded_target = pad(sources, to=max(lengths) + extra), pad(targets, to=max(lengths) + extra)[0]
    for typed in (model, copy.deepcopy(model).double()):
        together = typed(*padded, padded_target)
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            assert_same(together[i, : len(target)], typed(source[None], None, target[None])[0])


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("positions", POSITIONS)
@settings(max_examples=WHOLE_MODELS)
@given(lengths=lengths, seed=seeds)
def test_padding_on_either_side_changes_nothing_in_a_causal_model(
    tiny_config: Maker, positions: str, left: bool, lengths: list[int], seed: int
) -> None:
    torch.manual_seed(seed)
    model = built(Causal, tiny_config(architecture="causal", positions=positions))
    rows = rows_of(lengths)
    ids, mask = pad(rows, to=max(lengths) + 2, left=left)
    for typed in (model, copy.deepcopy(model).double()):
        together = typed(ids, mask)
        for i, row in enumerate(rows):
            assert_same(together[i][mask[i]], typed(row[None])[0])


@pytest.mark.parametrize("architecture", ["encoder", "causal", "seq2seq"])
def test_an_empty_row_is_finite_and_has_finite_gradients(attention_path: str, architecture: str, tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture=architecture))
    ids, mask = torch.randint(1, 13, (2, 5)), torch.tensor([[True], [False]]).expand(2, 5)
    out = model(ids, mask, ids) if isinstance(model, Seq2Seq) else model(ids, mask)
    torch.autograd.backward(out.square().sum())
    assert bool(out.isfinite().all())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("positions", POSITIONS)
@settings(max_examples=WHOLE_MODELS)
@given(token=st.integers(0, 6), seed=seeds)
def test_editing_a_token_changes_no_earlier_logit_by_a_bit(
    attention_path: str, tiny_config: Maker, positions: str, token: int, seed: int
) -> None:
    torch.manual_seed(seed)
    ids, source = torch.randint(1, 13, (2, 7)), torch.randint(1, 13, (2, 5))
    edited = ids.clone()
    edited[:, token] = edited[:, token] % 12 + 1
    causal = built(Causal, tiny_config(architecture="causal", positions=positions))
    seq2seq = built(Seq2Seq, tiny_config(positions=positions))
    for before, after in ((causal(ids), causal(edited)), (seq2seq(source, None, ids), seq2seq(source, None, edited))):
        assert torch.equal(before[:, :token], after[:, :token])
        assert bool((before[:, token] != after[:, token]).any(-1).all())


def test_one_vector_per_position(tiny_config: Maker) -> None:
    assert built(Encoder, tiny_config(architecture="encoder"))(torch.randint(1, 13, (2, 5))).shape == (2, 5, 24)
    assert built(Causal, tiny_config(architecture="causal"))(torch.randint(1, 13, (2, 5))).shape == (2, 5, 13)
    seq2seq = built(Seq2Seq, tiny_config(source_vocab_size=17))
    assert seq2seq(torch.randint(1, 17, (2, 5)), None, torch.randint(1, 13, (2, 3))).shape == (2, 3, 13)


def test_the_logits_are_the_hidden_vectors_times_the_matrix_of_the_head(tiny_config: Maker) -> None:
    source, target = torch.randint(1, 13, (2, 5)), torch.randint(1, 13, (2, 3))
    seq2seq = built(Seq2Seq, tiny_config())
    assert torch.equal(seq2seq(source, None, target), seq2seq.hidden(source, None, target) @ seq2seq.head.weight.T)
    causal = built(Causal, tiny_config(architecture="causal"))
    assert torch.equal(causal(target), causal.hidden(target) @ causal.head.weight.T)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("architecture", ["encoder", "causal", "seq2seq"])
def test_float64_models_agree_with_float32(architecture: str, positions: str, tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture=architecture, positions=positions)).eval()
    ids, mask = torch.randint(1, 13, (2, 5)), torch.arange(5) < torch.tensor([[5], [3]])

    def run() -> Tensor:
        out: Tensor = model(ids, mask, ids) if isinstance(model, Seq2Seq) else model(ids, mask)
        return out

    single, double = run(), model.double() and run()
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["encoder", "causal", "seq2seq"])
def test_bfloat16_autocast_stays_close_to_float32(attention_path: str, architecture: str, tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture=architecture)).eval()
    ids, mask = torch.randint(1, 13, (2, 5)), torch.arange(5) < torch.tensor([[5], [3]])
    inputs = (ids, mask, ids) if isinstance(model, Seq2Seq) else (ids, mask)
    exact = model(*inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(*inputs)
    assert (low.float() - exact).norm() < 2e-2 * exact.norm()


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_scores_of_words_may_be_scaled_and_have_a_bias_along_every_path(architecture: str, tiny_config: Maker) -> None:
    config = tiny_config(architecture=architecture, scaled_head=True, head_bias=True)
    torch.manual_seed(0)
    model, plain = build_model(config).eval(), build_model(config.replace(scaled_head=False, head_bias=False)).eval()
    assert isinstance(model, Causal | Seq2Seq)
    assert model.head.bias is not None
    torch.nn.init.normal_(model.head.bias)
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name != "head.bias"})
    ids = torch.randint(1, 13, (2, 5))
    arguments = (ids,) if architecture == "causal" else (torch.randint(1, 13, (2, 7)), None, ids)
    with torch.inference_mode():
        expected = plain(*arguments) / 24**0.5 + model.head.bias
        torch.testing.assert_close(model(*arguments), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.head(model.hidden(*arguments)), expected, rtol=1e-5, atol=1e-5)
        state = model.start(None if architecture == "causal" else arguments[0], None, ids[:, :3])
        torch.testing.assert_close(model.step(ids[:, 2], state), expected[:, 2], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.step(ids[:, 3], state), expected[:, 3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_tied_matrices_are_one_tensor(architecture: str, tiny_config: Maker) -> None:
    tied = build_model(tiny_config(architecture=architecture))
    untied = build_model(tiny_config(architecture=architecture, tied=False))
    assert count_parameters(untied) == count_parameters(tied) + 13 * 24
    for model, together in ((tied, True), (untied, False)):
        assert not isinstance(model, Encoder)
        stem = model.target_stem if isinstance(model, Seq2Seq) else model.stem
        assert (model.head.weight is stem.embedding.weight) == together


def test_source_and_target_share_an_embedding_only_when_they_share_a_vocabulary(tiny_config: Maker) -> None:
    shared, separate = built(Seq2Seq, tiny_config()), built(Seq2Seq, tiny_config(source_vocab_size=17))
    assert shared.source_stem is shared.target_stem
    assert separate.source_stem.embedding.weight.shape == (17, 24)
    assert count_parameters(separate) == count_parameters(shared) + 17 * 24


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
def test_the_padding_row_is_zero_and_when_untied_never_trained(architecture: str, tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture=architecture, tied=False))
    ids = torch.randint(0, 13, (3, 6))
    ids[:, -1] = 0
    logits = model(ids, ids != 0, ids) if isinstance(model, Seq2Seq) else model(ids, ids != 0)
    torch.autograd.backward(logits.square().sum())
    stems = [model.source_stem, model.target_stem] if isinstance(model, Seq2Seq) else [model.get_submodule("stem")]
    for stem in stems:
        weight = stem.get_submodule("embedding").get_parameter("weight")
        assert weight.grad is not None
        assert bool((weight[0] == 0).all())
        assert bool((weight.grad[0] == 0).all())
        assert bool((weight.grad[1:] != 0).any())


@pytest.mark.parametrize("architecture", ["encoder", "causal", "seq2seq"])
def test_weights_move_to_a_fresh_model_and_every_parameter_is_among_them(architecture: str, tiny_config: Maker) -> None:
    config = tiny_config(architecture=architecture)
    model, other = build_model(config).eval(), build_model(config).eval()
    state = model.state_dict()
    stored = {tensor.data_ptr() for tensor in state.values()}
    assert stored == {parameter.data_ptr() for parameter in model.parameters()}
    assert {name for name, _ in model.named_parameters(remove_duplicate=False)} == state.keys()
    other.load_state_dict(state, strict=True)
    ids = torch.randint(1, 13, (2, 5))
    inputs = (ids, None, ids) if isinstance(model, Seq2Seq) else (ids,)
    assert torch.equal(model(*inputs), other(*inputs))


def test_the_same_seed_draws_the_same_weights(tiny_config: Maker) -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(torch.cat([parameter.flatten() for parameter in build_model(tiny_config()).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("architecture", ["causal", "seq2seq"])
@pytest.mark.parametrize("norm_place", ["before", "after"])
@pytest.mark.parametrize(("tied", "above"), [(False, 0.1), (True, 0.5)])
def test_the_first_loss_is_that_of_guessing(architecture: str, norm_place: str, tied: bool, above: float, tiny_config: Maker) -> None:
    config = tiny_config(architecture=architecture, vocab_size=1000, d_model=64, d_ff=128, norm_place=norm_place, tied=tied)
    model = build_model(config).eval()
    ids, targets = torch.randint(1, 1000, (2, 8, 20))
    logits = model(ids, None, ids) if isinstance(model, Seq2Seq) else model(ids)
    loss = cross_entropy(logits, targets)
    # Tied logits have about unit variance at the start, which costs half a nat more than knowing nothing.
    assert (loss.total / loss.units).item() == pytest.approx(math.log(1000) + above, abs=0.25)


@pytest.mark.parametrize("architecture", ["encoder", "causal", "seq2seq"])
def test_a_model_without_its_vocabulary_size_is_refused(architecture: str, tiny_config: Maker) -> None:
    with pytest.raises(ConfigError, match=r"model\.vocab_size is not set"):
        build_model(tiny_config(architecture=architecture, vocab_size=None))


@pytest.mark.parametrize(("architecture", "kind"), [("encoder", Encoder), ("causal", Causal), ("seq2seq", Seq2Seq)])
def test_the_architecture_chooses_the_model(architecture: str, kind: type, tiny_config: Maker) -> None:
    assert type(build_model(tiny_config(architecture=architecture))) is kind


def test_places_number_the_real_tokens_of_each_row() -> None:
    mask = torch.tensor([[True, True, True], [False, True, True], [True, True, False], [False, False, False]])
    numbers = places(mask)
    assert [numbers[i][mask[i]].tolist() for i in range(4)] == [[0, 1, 2], [0, 1], [0, 1], []]
    assert bool((numbers >= 0).all())


@pytest.mark.parametrize("norm_place", ["before", "after", "rezero"])
def test_a_tiny_seq2seq_model_learns_ten_pairs_by_heart(norm_place: str, tiny_config: Maker) -> None:
    config = tiny_config(vocab_size=20, d_model=32, d_ff=64, n_layers=1, norm_place=norm_place)
    model = built(Seq2Seq, config).train()
    source, target = torch.randint(2, 20, (10, 6)), torch.randint(2, 20, (10, 5))
    shifted = torch.cat([torch.ones(10, 1, dtype=torch.long), target[:, :-1]], dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        loss = cross_entropy(model(source, None, shifted), target)
        optimizer.zero_grad()
        torch.autograd.backward(loss.total / loss.units)
        optimizer.step()
    state, tokens = model.eval().start(source, None, torch.ones(10, 1, dtype=torch.long)), torch.ones(10, dtype=torch.long)
    written = []
    with torch.no_grad():
        for _ in range(5):
            tokens = model.step(tokens, state).argmax(-1)
            written.append(tokens)
    assert torch.equal(torch.stack(written, dim=1), target)
