"""ModelConfig: every field does something, and what cannot work is refused by name."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from heed.errors import ConfigError
from heed.model import Encoder, ModelConfig, Seq2Seq, build_model
from heed.model.config import of_chosen_kinds

Maker = Callable[..., ModelConfig]

ENCODER = {"architecture": "encoder"}
CAUSAL = {"architecture": "causal"}
AUDIO = {"n_features": 7}
CHUNKED = {**ENCODER, "attention": "chunked", "chunk": 1, "left_chunks": 1}

# field -> what is changed, and what else must hold for it to matter
FLIPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "architecture": ({"architecture": "causal"}, {}),
    "vocab_size": ({"vocab_size": 14}, {}),
    "source_vocab_size": ({"source_vocab_size": 17}, {}),
    "d_model": ({"d_model": 28}, {}),
    "n_heads": ({"n_heads": 2}, {}),
    "n_kv_heads": ({"n_kv_heads": 2}, {}),
    "d_kv": ({"d_kv": 8}, {}),
    "n_layers": ({"n_layers": 3}, {"n_decoder_layers": 2}),
    "n_decoder_layers": ({"n_decoder_layers": 1}, {}),
    "d_ff": ({"d_ff": 21}, {}),
    "dropout": ({"dropout": 0.1}, {}),
    "activation": ({"activation": "silu"}, {}),
    "gated": ({"gated": True}, {}),
    "norm": ({"norm": "rms"}, {}),
    "norm_place": ({"norm_place": "after"}, {}),
    "norm_epsilon": ({"norm_epsilon": 1e-2}, {}),
    "positions": ({"positions": "none"}, {}),
    "max_length": ({"max_length": 65}, {"positions": "learned"}),
    "max_source_length": ({"max_source_length": 32}, {"positions": "learned", "source_vocab_size": 17}),
    "first_position": ({"first_position": 2}, {"positions": "learned"}),
    "rotary_base": ({"rotary_base": 100.0}, {"positions": "rotary"}),
    "rotary_factor": ({"rotary_factor": 2.0}, {"positions": "rotary"}),
    "rotary_context": ({"rotary_context": 16}, {"positions": "rotary", "rotary_factor": 2.0}),
    "scaled": ({"scaled": False}, {}),
    "bias": ({"bias": False}, {}),
    "unbiased": ({"unbiased": ["key", "down"]}, {}),
    "share_layers": ({"share_layers": True}, {}),
    "tied": ({"tied": False}, {}),
    "scaled_head": ({"scaled_head": True}, {}),
    "head_bias": ({"head_bias": True}, {}),
    "absent_ids": ({"absent_ids": [3]}, {}),
    "embedding_scale": ({"embedding_scale": False}, {}),
    "embedding_norm": ({"embedding_norm": True}, {}),
    "n_segments": ({"n_segments": 2}, ENCODER),
    "d_embedding": ({"d_embedding": 7}, ENCODER),
    "frozen_embedding": ({"frozen_embedding": True}, {}),
    "n_features": ({"n_features": 7}, {}),
    "subsampling": ({"subsampling": 2}, AUDIO),
    "audio_stem": ({"audio_stem": "frames1d"}, {**AUDIO, "subsampling": 2}),
    "mixer": ({"mixer": "lstm"}, ENCODER),
    "kernel_size": ({"kernel_size": 5}, {**ENCODER, "mixer": "convolution"}),
    "attention": ({"attention": "windowed", "window": 1}, ENCODER),
    "window": ({"window": 2}, {**ENCODER, "attention": "windowed", "window": 1}),
    "landmarks": ({"landmarks": 2}, {**ENCODER, "attention": "low_rank"}),
    "chunk": ({"chunk": 2}, CHUNKED),
    "left_chunks": ({"left_chunks": 2}, CHUNKED),
    "adaptive": ({"adaptive": True}, {}),
    "weight_rank": ({"weight_rank": 3}, {}),
    "hierarchical": ({"hierarchical": True}, {**ENCODER, "n_classes": 3}),
    "n_document_layers": ({"n_document_layers": 2}, {**ENCODER, "n_classes": 3, "hierarchical": True}),
    "pooling": ({"pooling": "first"}, {**ENCODER, "n_classes": 3}),
    "n_classes": ({"n_classes": 3}, ENCODER),
    "class_hidden": ({"class_hidden": "tanh"}, {**ENCODER, "n_classes": 3}),
    "n_tags": ({"n_tags": 3}, ENCODER),
    "n_grams": ({"n_grams": 2}, {**ENCODER, "n_classes": 3}),
    "n_gram_rows": ({"n_gram_rows": 9}, {**ENCODER, "n_classes": 3, "n_grams": 2}),
    "masked_lm": ({"masked_lm": True}, ENCODER),
    "ctc": ({"ctc": True}, {}),
}


def observed(config: ModelConfig) -> tuple[str, dict[str, tuple[torch.Size, bool]], list[float]]:
    """Return all that a setting can change: the model, its shapes and what learns, and what it computes in training from one seed."""
    torch.manual_seed(0)
    model = build_model(config).train()
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 13, (2, 5), generator=draw)
    source = ids if config.n_features is None else torch.randn(2, 9, config.n_features, generator=draw)
    if isinstance(model, Encoder):
        scores = model(source) if config.n_classes is None else model.classify(source)
    else:
        scores = model(source, None, ids) if isinstance(model, Seq2Seq) else model(source)
    shapes = {name: (parameter.shape, parameter.requires_grad) for name, parameter in model.named_parameters()}
    return type(model).__name__, shapes, scores.flatten().tolist()


def test_every_field_is_flipped_here() -> None:
    assert FLIPS.keys() == ModelConfig.model_fields.keys()


@pytest.mark.parametrize("field", FLIPS)
def test_every_field_has_an_effect(field: str, tiny_config: Maker) -> None:
    change, needs = FLIPS[field]
    before, after = tiny_config(**needs), tiny_config(**{**needs, **change})
    assert observed(before) == observed(before)
    assert observed(before) != observed(after)


# field -> its values, and what must hold for them to differ
ALTERNATIVES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "activation": (["relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"], {}),
    "norm": (["layer", "rms"], {}),
    "norm_place": (["before", "after", "rezero"], {}),
    "positions": (["sinusoidal", "sinusoidal_halves", "learned", "rotary", "relative", "none"], {}),
    "mixer": (["attention", "convolution", "lstm", "hybrid", "conformer"], ENCODER),
    "attention": (["full", "windowed", "low_rank", "chunked"], {**CHUNKED, "window": 1, "landmarks": 2}),
    "pooling": (["mean", "attention", "first"], {**ENCODER, "n_classes": 3}),
    "class_hidden": (["none", "tanh", "relu"], {**ENCODER, "n_classes": 3}),
    "audio_stem": (["frames2d", "frames1d"], {**AUDIO, "subsampling": 2}),
}


@pytest.mark.parametrize("field", ALTERNATIVES)
def test_the_alternatives_of_a_field_all_compute_something_else(field: str, tiny_config: Maker) -> None:
    values, needs = ALTERNATIVES[field]
    found = [observed(tiny_config(**of_chosen_kinds({**needs, field: value})))[2] for value in values]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 10, "n_heads": 4}, "model.n_heads=4 does not divide model.d_model=10; choose a divisor"),
        ({"n_kv_heads": 3}, "model.n_kv_heads=3 does not divide model.n_heads=4; choose a divisor"),
        ({"n_kv_heads": 8}, "model.n_kv_heads=8 does not divide model.n_heads=4; choose a divisor"),
        ({"d_model": 12, "positions": "rotary"}, "model.positions=rotary needs an even d_model / n_heads, found 3"),
        ({"architecture": "causal", "source_vocab_size": 9}, "model.source_vocab_size would be ignored by architecture=causal"),
        ({**ENCODER, "n_decoder_layers": 9}, "model.n_decoder_layers would be ignored by architecture=encoder"),
        ({"norm_place": "rezero", "norm": "rms"}, "model.norm=rms would be ignored by norm_place=rezero"),
        ({"kernel_size": 4}, "model.kernel_size=4: a convolution sees as many tokens on either side; choose an odd number"),
        ({**ENCODER, "mixer": "lstm", "d_model": 9, "n_heads": 3}, "model.d_model=9: an LSTM in two directions needs an even number"),
        ({"mixer": "hybrid"}, "model.mixer=hybrid needs architecture=encoder, found seq2seq; leave it out"),
        ({"architecture": "causal", "mixer": "lstm"}, "model.mixer=lstm needs architecture=encoder, found causal; leave it out"),
        ({"architecture": "causal", "attention": "windowed"}, "model.attention=windowed needs architecture=encoder, found causal"),
        ({"hierarchical": True}, "model.hierarchical=True needs architecture=encoder, found seq2seq"),
        ({"n_classes": 3}, "model.n_classes=3 needs architecture=encoder, found seq2seq"),
        ({**ENCODER, "mixer": "lstm", "adaptive": True}, "model.attention and model.adaptive would be ignored by mixer=lstm"),
        ({**ENCODER, "mixer": "convolution", "attention": "low_rank"}, "would be ignored by mixer=convolution, which has none"),
        (
            {**ENCODER, "attention": "windowed", "positions": "relative"},
            "model.positions=relative needs attention=full, found windowed; choose rotary",
        ),
        ({**CAUSAL, "mixer": "conformer"}, "model.mixer=conformer needs architecture=encoder or seq2seq, found causal; leave it out"),
        ({**CAUSAL, "attention": "chunked"}, "model.attention=chunked needs architecture=encoder or seq2seq, found causal"),
        ({**CAUSAL, "n_features": 7}, "model.n_features=7 needs architecture=encoder or seq2seq, found causal"),
        ({**CAUSAL, "ctc": True}, "model.ctc=True needs architecture=encoder or seq2seq, found causal"),
        ({"attention": "low_rank"}, "model.attention=low_rank needs architecture=encoder, found seq2seq; leave it out"),
        ({"attention": "chunked", "positions": "relative"}, "model.positions=relative needs attention=full, found chunked; choose rotary"),
        (
            {**CHUNKED, "mixer": "hybrid"},
            "model.attention=chunked needs mixer=attention or conformer, found hybrid, which sees beyond its chunk",
        ),
        ({**CHUNKED, "mixer": "lstm"}, "model.attention and model.adaptive would be ignored by mixer=lstm"),
        ({"mixer": "conformer", "norm_place": "after"}, "model.norm_place=after: mixer=conformer needs before; leave it out"),
        ({"mixer": "conformer", "norm_place": "rezero"}, "model.norm_place=rezero: mixer=conformer needs before; leave it out"),
        ({**AUDIO, "source_vocab_size": 9}, "model.source_vocab_size would be ignored by model.n_features"),
        ({**ENCODER, **AUDIO, "d_embedding": 9}, "model.d_embedding would be ignored by model.n_features"),
        ({**ENCODER, **AUDIO, "hierarchical": True}, "model.hierarchical is for sentences of tokens, found model.n_features or model.ctc"),
        ({**ENCODER, "ctc": True, "hierarchical": True}, "model.hierarchical is for sentences of tokens"),
        ({"positions": "rotary", "d_kv": 7}, "model.positions=rotary needs an even d_kv, found 7"),
        ({**ENCODER, "mixer": "lstm", "d_kv": 8}, "model.d_kv=8 would be ignored by mixer=lstm; leave it out"),
        (
            {**ENCODER, "mixer": "convolution", "positions": "rotary", "rotary_base": 9.0},
            "model.rotary_base=9.0 would be ignored by mixer=convolution",
        ),
        ({"rotary_base": 9.0}, "model.rotary_base would be ignored by positions=sinusoidal; leave it out, or choose rotary"),
        ({"positions": "rotary", "rotary_context": 9}, "model.rotary_context=9 would be ignored without model.rotary_factor; leave it out"),
        ({"bias": False, "unbiased": ["key"]}, "model.unbiased=['key']: there is no such bias without model.bias; leave it out"),
        ({"unbiased": ["up", "gate"]}, "model.unbiased=['gate']: there is no such bias without model.gated; leave it out"),
        ({"first_position": 2}, "model.first_position would be ignored by positions=sinusoidal; leave it out, or choose learned"),
        ({"max_source_length": 9}, "model.max_source_length would be ignored by positions=sinusoidal; leave it out, or choose learned"),
        ({**CAUSAL, "positions": "learned", "max_source_length": 9}, "model.max_source_length would be ignored by architecture=causal"),
        ({**ENCODER, "scaled_head": True}, "model.scaled_head would be ignored by architecture=encoder; leave it out"),
        ({**ENCODER, "head_bias": True}, "model.head_bias would be ignored by architecture=encoder; leave it out"),
        ({"n_segments": 2}, "model.n_segments=2 needs architecture=encoder, found seq2seq; leave it out"),
        ({"n_tags": 2}, "model.n_tags=2 needs architecture=encoder, found seq2seq; leave it out"),
        ({**CAUSAL, "masked_lm": True}, "model.masked_lm=True needs architecture=encoder, found causal; leave it out"),
        ({"class_hidden": "tanh"}, "model.class_hidden=tanh needs architecture=encoder, found seq2seq; leave it out"),
        ({**ENCODER, **AUDIO, "masked_lm": True}, "model.masked_lm is for tokens, found model.n_features"),
        ({**ENCODER, **AUDIO, "n_segments": 2}, "model.n_segments is for tokens, found model.n_features"),
        ({**AUDIO, "embedding_norm": True}, "model.embedding_norm is for tokens, found model.n_features"),
        ({**ENCODER, "hierarchical": True, "n_tags": 2}, "model.n_tags is for texts read as a whole, found model.hierarchical"),
        ({**ENCODER, "hierarchical": True, "masked_lm": True}, "model.masked_lm is for texts read as a whole, found model.hierarchical"),
        ({**ENCODER, "hierarchical": True, "n_segments": 2}, "model.n_segments is for texts read as a whole, found model.hierarchical"),
        ({**ENCODER, "masked_lm": True, "d_embedding": 7}, "model.masked_lm needs embeddings as wide as model.d_model"),
        ({**AUDIO, "audio_stem": "frames1d"}, "model.audio_stem=frames1d needs subsampling=2 and sees later frames, found subsampling=4"),
        ({**AUDIO, **CHUNKED, "subsampling": 2, "audio_stem": "frames1d"}, "found subsampling=2 and attention=chunked"),
        ({**CAUSAL, "audio_stem": "frames1d"}, "model.audio_stem=frames1d needs architecture=encoder or seq2seq, found causal"),
        (
            {"kernel_size": 5},
            "model.kernel_size would be ignored by mixer=attention; leave it out, or choose convolution or hybrid or conformer",
        ),
        ({**ENCODER, "mixer": "lstm", "kernel_size": 5}, "model.kernel_size would be ignored by mixer=lstm"),
        ({"window": 9}, "model.window would be ignored by attention=full; leave it out, or choose windowed"),
        ({**ENCODER, "attention": "windowed", "landmarks": 9}, "model.landmarks would be ignored by attention=windowed"),
        ({"chunk": 9}, "model.chunk would be ignored by attention=full; leave it out, or choose chunked"),
        ({"left_chunks": 9}, "model.left_chunks would be ignored by attention=full; leave it out, or choose chunked"),
        (
            {**ENCODER, "n_document_layers": 2},
            "model.n_document_layers would be ignored by hierarchical=false; leave it out, or choose true",
        ),
    ],
)
def test_combinations_that_cannot_work_are_refused(fields: dict[str, Any], message: str, tiny_config: Maker) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        tiny_config(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"n_layers": 0},
        {"norm_epsilon": 0},
        {"activation": "swish"},
        {"n_head": 4},
        {"kernel_size": 0},
        {"window": 0},
        {"landmarks": 0},
        {"weight_rank": 0},
        {"n_document_layers": 0},
        {"n_features": 0},
        {"subsampling": 3},
        {"subsampling": True},
        {"chunk": 0},
        {"left_chunks": -1},
        {"mixer": "gru"},
        {"d_kv": 0},
        {"first_position": -1},
        {"max_source_length": 0},
        {"rotary_base": 1.0},
        {"rotary_factor": 0.5},
        {"rotary_context": 0},
        {"unbiased": ["embedding"]},
        {"n_segments": 0},
        {"n_tags": 0},
        {"class_hidden": "gelu"},
        {"audio_stem": "frames"},
    ],
)
def test_values_out_of_range_and_unknown_fields_are_refused(fields: dict[str, Any], tiny_config: Maker) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        tiny_config(**fields)


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "learned", "none"])
@pytest.mark.parametrize("fields", [ENCODER, {"architecture": "seq2seq"}])
def test_what_speech_needs_goes_together(fields: dict[str, Any], positions: str, tiny_config: Maker) -> None:
    speech = {**AUDIO, "ctc": True, "mixer": "conformer", "attention": "chunked", "kernel_size": 5, "positions": positions}
    config = tiny_config(**fields, **speech)
    assert ModelConfig(**config.model_dump()) == config


def test_a_replaced_config_is_checked_again(tiny_config: Maker) -> None:
    with pytest.raises(ConfigError, match="does not divide"):
        tiny_config().replace(n_heads=5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {**ENCODER, "audio_stem": "frames1d", "subsampling": 2},
            "model.audio_stem=frames1d would be ignored by a model that reads tokens",
        ),
        ({"positions": "learned", "max_source_length": 9}, "model.max_source_length would be ignored, because source and target share"),
    ],
)
def test_what_the_data_leaves_idle_is_refused_when_the_model_is_built(fields: dict[str, Any], message: str, tiny_config: Maker) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build_model(tiny_config(**fields))


def test_settings_of_other_kinds_can_be_left_out_and_those_of_the_chosen_stay() -> None:
    sizes = {"kernel_size": 5, "window": 9, "landmarks": 9, "chunk": 9, "left_chunks": 9, "n_document_layers": 9, "d_model": 9}
    assert of_chosen_kinds(sizes) == {"d_model": 9}
    for kinds, kept in (
        ({"mixer": "hybrid"}, {"kernel_size"}),
        ({"attention": "windowed"}, {"window"}),
        ({"attention": "low_rank"}, {"landmarks"}),
        ({"attention": "chunked"}, {"chunk", "left_chunks"}),
        ({"hierarchical": True}, {"n_document_layers"}),
    ):
        assert of_chosen_kinds({**sizes, **kinds}).keys() == {*kinds, *kept, "d_model"}


def test_a_decoder_has_nothing_of_what_mixes_the_places_of_its_encoder(tiny_config: Maker) -> None:
    config = tiny_config(mixer="conformer", kernel_size=5, attention="chunked", chunk=3, left_chunks=2, d_kv=8)
    assert config.of_decoder == tiny_config(d_kv=8)


def test_the_longest_source_is_counted_in_frames_where_there_are_some(tiny_config: Maker) -> None:
    assert tiny_config(positions="learned").source_length == 64
    assert tiny_config(positions="learned", max_source_length=10).source_length == 10
    assert tiny_config(positions="learned", max_source_length=10, subsampling=2, **AUDIO).source_length == 20


def test_sizes_that_are_not_given_follow_the_others(tiny_config: Maker) -> None:
    config = tiny_config()
    assert (config.d_head, config.kv_heads, config.decoder_layers) == (6, 4, 2)
    config = tiny_config(n_kv_heads=2, n_decoder_layers=3, d_kv=7)
    assert (config.d_head, config.kv_heads, config.decoder_layers) == (7, 2, 3)
