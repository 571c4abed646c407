"""ModelConfig: every field does something, and what cannot work is refused by name."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from heed.errors import ConfigError
from heed.model import ModelConfig, Seq2Seq, build_model

Maker = Callable[..., ModelConfig]

# field -> what is changed, and what else must hold for it to matter
FLIPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "architecture": ({"architecture": "causal"}, {}),
    "vocab_size": ({"vocab_size": 14}, {}),
    "source_vocab_size": ({"source_vocab_size": 17}, {}),
    "d_model": ({"d_model": 28}, {}),
    "n_heads": ({"n_heads": 2}, {}),
    "n_kv_heads": ({"n_kv_heads": 2}, {}),
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
    "scaled": ({"scaled": False}, {}),
    "bias": ({"bias": False}, {}),
    "tied": ({"tied": False}, {}),
    "embedding_scale": ({"embedding_scale": False}, {}),
}


def observed(config: ModelConfig) -> tuple[str, dict[str, torch.Size], list[float]]:
    """Return all that a setting can change: the model, its shapes, and what it computes in training from one seed."""
    torch.manual_seed(0)
    model = build_model(config).train()
    ids = torch.randint(1, 13, (2, 5), generator=torch.Generator().manual_seed(1))
    logits = model(ids, None, ids) if isinstance(model, Seq2Seq) else model(ids)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    return type(model).__name__, shapes, logits.flatten().tolist()


def test_every_field_is_flipped_here() -> None:
    assert FLIPS.keys() == ModelConfig.model_fields.keys()


@pytest.mark.parametrize("field", FLIPS)
def test_every_field_has_an_effect(field: str, tiny_config: Maker) -> None:
    change, needs = FLIPS[field]
    before, after = tiny_config(**needs), tiny_config(**{**needs, **change})
    assert observed(before) == observed(before)
    assert observed(before) != observed(after)


ALTERNATIVES = {
    "activation": ["relu", "gelu", "gelu_tanh", "silu", "sigmoid", "tanh"],
    "norm": ["layer", "rms"],
    "norm_place": ["before", "after", "rezero"],
    "positions": ["sinusoidal", "learned", "rotary", "relative", "none"],
}


@pytest.mark.parametrize("field", ALTERNATIVES)
def test_the_alternatives_of_a_field_all_compute_something_else(field: str, tiny_config: Maker) -> None:
    found = [observed(tiny_config(**{field: value}))[2] for value in ALTERNATIVES[field]]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 10, "n_heads": 4}, "model.n_heads=4 does not divide model.d_model=10; choose a divisor"),
        ({"n_kv_heads": 3}, "model.n_kv_heads=3 does not divide model.n_heads=4; choose a divisor"),
        ({"n_kv_heads": 8}, "model.n_kv_heads=8 does not divide model.n_heads=4; choose a divisor"),
        ({"d_model": 12, "positions": "rotary"}, "model.positions=rotary needs an even d_model / n_heads, found 3"),
        ({"architecture": "causal", "source_vocab_size": 9}, "model.source_vocab_size would be ignored by architecture=causal"),
        ({"architecture": "encoder", "n_decoder_layers": 9}, "model.n_decoder_layers would be ignored by architecture=encoder"),
        ({"norm_place": "rezero", "norm": "rms"}, "model.norm=rms would be ignored by norm_place=rezero"),
    ],
)
def test_combinations_that_cannot_work_are_refused(fields: dict[str, Any], message: str, tiny_config: Maker) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        tiny_config(**fields)


@pytest.mark.parametrize(
    "fields", [{"dropout": 1.0}, {"dropout": -0.1}, {"n_layers": 0}, {"norm_epsilon": 0}, {"activation": "swish"}, {"n_head": 4}]
)
def test_values_out_of_range_and_unknown_fields_are_refused(fields: dict[str, Any], tiny_config: Maker) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        tiny_config(**fields)


def test_a_replaced_config_is_checked_again(tiny_config: Maker) -> None:
    with pytest.raises(ConfigError, match="does not divide"):
        tiny_config().replace(n_heads=5)


def test_sizes_that_are_not_given_follow_the_others(tiny_config: Maker) -> None:
    config = tiny_config()
    assert (config.d_head, config.kv_heads, config.decoder_layers) == (6, 4, 2)
    config = tiny_config(n_kv_heads=2, n_decoder_layers=3)
    assert (config.kv_heads, config.decoder_layers) == (2, 3)
