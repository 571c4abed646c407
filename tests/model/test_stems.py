"""TokenStem: a look-up, times the root of d_model, plus positions; and which stem a model has."""

import math
from collections.abc import Callable

import pytest
import torch

from heed.errors import DataError
from heed.model import AudioStem, Encoder, ModelConfig, Seq2Seq, build_model, sinusoid_table
from heed.model.positions import LearnedPositions
from heed.model.stems import END, PAD, TokenStem

Maker = Callable[..., ModelConfig]
SOURCES = {"seq2seq": {"source_vocab_size": 17}}


@pytest.mark.parametrize("scaled", [True, False])
def test_embeddings_are_scaled_by_the_root_of_the_width_and_positions_are_added(scaled: bool, tiny_config: Maker) -> None:
    stem, ids = TokenStem(tiny_config(embedding_scale=scaled), 17), torch.randint(0, 17, (2, 5))
    expected = stem.embedding.weight[ids] * (math.sqrt(24) if scaled else 1.0) + sinusoid_table(5, 24)
    torch.testing.assert_close(stem(ids), expected, rtol=1e-6, atol=1e-6)


def test_learned_positions_are_added_too(tiny_config: Maker) -> None:
    stem, ids = TokenStem(tiny_config(positions="learned", embedding_scale=False), 17), torch.randint(0, 17, (2, 5))
    assert isinstance(stem.positions, LearnedPositions)
    expected = stem.embedding.weight[ids] + stem.positions.embedding.weight[:5]
    torch.testing.assert_close(stem(ids), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("positions", ["rotary", "relative", "none"])
def test_positions_that_act_inside_attention_add_nothing_here(positions: str, tiny_config: Maker) -> None:
    stem, ids = TokenStem(tiny_config(positions=positions, embedding_scale=False), 17), torch.randint(0, 17, (2, 5))
    assert torch.equal(stem(ids), stem.embedding.weight[ids])


@pytest.mark.parametrize("n_segments", [1, 2, 3])
def test_a_token_belongs_to_the_segment_after_as_many_ends_as_stand_before_it(n_segments: int, tiny_config: Maker) -> None:
    config = tiny_config(architecture="encoder", positions="none", n_segments=n_segments)
    stem = TokenStem(config, 17)
    assert stem.segments is not None
    ids = torch.tensor([[1, 5, END, 7, END, PAD], [3, 4, 5, 6, 7, 8], [END, END, END, 9, 9, END]])
    numbers = torch.tensor([[0, 0, 0, 1, 1, 2], [0] * 6, [0, 1, 2, 3, 3, 3]]).clamp(max=n_segments - 1)
    expected = stem.embedding.weight[ids] * math.sqrt(24) + stem.segments.weight[numbers]
    torch.testing.assert_close(stem(ids), expected, rtol=1e-6, atol=1e-6)


def test_embeddings_are_normalised_with_their_segments_and_positions(tiny_config: Maker) -> None:
    config = tiny_config(architecture="encoder", positions="learned", n_segments=2, embedding_norm=True, embedding_scale=False, dropout=0.5)
    stem, ids = TokenStem(config, 17).eval(), torch.tensor([[5, END, 7], [END, 4, 3]])
    assert isinstance(stem.norm, torch.nn.LayerNorm)
    assert isinstance(stem.positions, LearnedPositions)
    assert stem.segments is not None
    torch.nn.init.normal_(stem.norm.weight)
    torch.nn.init.normal_(stem.norm.bias)
    summed = stem.embedding.weight[ids] + stem.segments.weight[torch.tensor([[0, 0, 1], [0, 1, 1]])] + stem.positions.embedding.weight[:3]
    centred = summed - summed.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * stem.norm.weight + stem.norm.bias
    torch.testing.assert_close(stem(ids), expected, rtol=1e-5, atol=1e-5)
    assert bool((stem.train()(ids) == 0).any())  # dropout is behind the norm


@pytest.mark.parametrize("architecture", ["encoder", "causal", "seq2seq"])
def test_every_text_has_its_embeddings_normalised(architecture: str, tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture=architecture, embedding_norm=True, **SOURCES.get(architecture, {})))
    stems = [module for module in model.modules() if isinstance(module, TokenStem)]
    assert len(stems) == (2 if architecture == "seq2seq" else 1)
    assert all(isinstance(stem.norm, torch.nn.LayerNorm) for stem in stems)


def test_the_source_has_as_many_learned_positions_as_it_is_given(tiny_config: Maker) -> None:
    fields = {"positions": "learned", "max_source_length": 3, "first_position": 1}
    model = build_model(tiny_config(source_vocab_size=17, **fields))
    assert isinstance(model, Seq2Seq)
    assert model.get_parameter("source_stem.positions.embedding.weight").shape == (4, 24)
    assert model.get_parameter("target_stem.positions.embedding.weight").shape == (65, 24)
    ids = torch.randint(1, 13, (2, 5))
    assert model(ids[:, :3], None, ids).shape == (2, 5, 13)
    with pytest.raises(DataError, match=r"4 tokens does not fit model\.max_source_length=3 of learned positions.*larger model\.max_source"):
        model(ids[:, :4], None, ids)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_tokens_may_be_given_places_of_their_own(positions: str, tiny_config: Maker) -> None:
    stem, ids = TokenStem(tiny_config(positions=positions), 17), torch.randint(0, 17, (2, 5))
    shifted = torch.cat([ids[:, :1], ids], dim=1)
    torch.testing.assert_close(stem(ids, 1), stem(shifted)[:, 1:], rtol=0, atol=0)
    torch.testing.assert_close(stem(ids, 1, torch.arange(1, 6).expand(2, 5)), stem(shifted)[:, 1:], rtol=0, atol=0)


def test_the_padding_id_looks_up_zeros_that_the_look_up_never_trains(tiny_config: Maker) -> None:
    stem = TokenStem(tiny_config(positions="none"), 17)
    looked = stem(torch.tensor([[PAD, 3, PAD]]))
    assert bool((looked[0, [0, 2]] == 0).all())
    torch.autograd.backward((looked * torch.randn(3, 24)).sum())
    assert stem.embedding.weight.grad is not None
    assert bool((stem.embedding.weight.grad[PAD] == 0).all())
    assert bool((stem.embedding.weight.grad[3] != 0).all())


def test_embeddings_are_dropped_in_training_only(tiny_config: Maker) -> None:
    stem, ids = TokenStem(tiny_config(dropout=0.5), 17), torch.randint(1, 17, (2, 5))
    share = (stem(ids) == 0).float().mean().item()
    assert 0.3 < share < 0.7
    assert bool((stem.eval()(ids) != 0).any(-1).all())
    assert torch.equal(stem(ids), stem(ids))


def test_a_model_of_frames_has_a_stem_for_them_where_others_look_tokens_up(tiny_config: Maker) -> None:
    for n_features, kind in ((7, AudioStem), (None, TokenStem)):
        encoder = build_model(tiny_config(architecture="encoder", n_features=n_features))
        assert isinstance(encoder, Encoder)
        assert type(encoder.stem) is kind
        model = build_model(tiny_config(architecture="seq2seq", n_features=n_features))
        assert isinstance(model, Seq2Seq)
        assert type(model.source_stem) is kind
        assert type(model.target_stem) is TokenStem
        assert (model.source_stem is model.target_stem) == (n_features is None)


def test_tokens_keep_the_mask_they_had_and_frames_get_a_shorter_one(tiny_config: Maker) -> None:
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    for architecture in ("encoder", "seq2seq"):
        of_tokens, of_frames = (build_model(tiny_config(architecture=architecture, n_features=n)) for n in (None, 7))
        assert isinstance(of_tokens, Encoder | Seq2Seq)
        assert isinstance(of_frames, Encoder | Seq2Seq)
        assert of_tokens.memory_mask(mask) is mask
        assert of_frames.memory_mask(mask).tolist() == [[True, True, True], [True, True, False]]
