"""How weights are stored, and how a file of them is compared with a config before memory is taken for either."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from heed.errors import CheckpointError
from heed.model import ModelConfig, build_model
from heed.run import Run
from heed.run.weights import MOST_TIMES_STORED, _least_size, check_sizes, distinct, load_weights, save_weights

pytest_plugins = ["toy_runs"]

SIZES: dict[str, Any] = {"vocab_size": 30, "n_heads": 2, "n_layers": 2, "max_length": 40, "subsampling": 2}
CHOICES: dict[str, tuple[Any, ...]] = {
    "architecture": ("encoder", "causal", "seq2seq"),
    "mixer": ("attention", "convolution", "lstm", "hybrid", "conformer"),
    "weight_rank": (None, 1, 4),
    "positions": ("learned", "rotary", "relative"),
    "hierarchical": (False, True),
    "d_ff": (1, 64),
    "d_model": (16, 128),
    "n_kv_heads": (None, 1),
    "d_embedding": (None, 8),
    "n_features": (None, 20),
    "ctc": (False, True),
}


def configs() -> list[ModelConfig]:
    """Return every config of these choices that is allowed."""
    found = []
    for values in itertools.product(*CHOICES.values()):
        chosen = dict(zip(CHOICES, values, strict=True))
        chosen |= {"n_document_layers": 3} if chosen["hierarchical"] else {}
        try:
            found.append(ModelConfig(**SIZES, **chosen, n_classes=3 if chosen["architecture"] == "encoder" else None))
        except ValueError:
            continue
    return found


def size_of(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in distinct(build_model(config)).values())


def test_no_model_is_smaller_than_what_its_config_is_said_to_need() -> None:
    """Otherwise its own weights could be refused, as those of low rank once were."""
    chosen = configs()
    assert {config.mixer for config in chosen} == set(CHOICES["mixer"])
    for config in chosen[::23]:  # of some thousands
        assert _least_size(config) <= size_of(config), config


LEAN: list[dict[str, Any]] = [
    {"d_kv": 2},
    {"d_kv": 32, "weight_rank": 2},
    {"share_layers": True, "n_layers": 300, "n_decoder_layers": 500},
    {"positions": "learned", "first_position": 5, "source_vocab_size": 20, "max_source_length": 7},
    {"positions": "learned", "n_features": 20, "audio_stem": "frames1d", "max_source_length": 7},
    {"architecture": "encoder", "n_tags": 7, "n_segments": 9, "masked_lm": True, "embedding_norm": True},
    {"architecture": "encoder", "share_layers": True, "hierarchical": True, "n_document_layers": 4, "n_classes": 3, "class_hidden": "relu"},
]


@pytest.mark.parametrize("fields", LEAN)
def test_what_is_shared_or_added_is_counted_as_it_is_stored(fields: dict[str, Any]) -> None:
    config = ModelConfig(**{**SIZES, "d_model": 16, "d_ff": 1, "bias": False, "norm": "rms", **fields})
    assert 0.3 * size_of(config) < _least_size(config) <= size_of(config)


def test_a_transformer_is_hardly_larger_than_what_its_config_is_said_to_need() -> None:
    for architecture in CHOICES["architecture"]:
        config = ModelConfig(**{**SIZES, "d_model": 128, "d_ff": 64, "architecture": architecture})
        assert size_of(config) < 1.5 * _least_size(config)  # cross-attention is not counted


LARGE = 10**7
# What may be made large in a config: each would take memory when the model is built.
LARGER: list[dict[str, Any]] = [
    {"vocab_size": LARGE},
    {"d_ff": LARGE},
    {"n_layers": LARGE},
    {"d_model": LARGE // 100},
    {"positions": "learned", "max_length": LARGE},
    {"hierarchical": True, "n_document_layers": LARGE},
    {"n_classes": LARGE},
    {"d_embedding": LARGE},
    {"mixer": "convolution", "kernel_size": LARGE + 1},
    {"share_layers": True, "n_layers": LARGE},
    {"d_kv": LARGE},
    {"positions": "learned", "first_position": LARGE},
    {"n_segments": LARGE},
    {"n_tags": LARGE},
]


@pytest.mark.parametrize("change", LARGER)
def test_a_config_of_a_model_that_is_much_larger_than_the_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    config = ModelConfig(**{**SIZES, "architecture": "encoder", "d_model": 16, "d_ff": 24})
    path = tmp_path / "model.safetensors"
    save_weights(build_model(config), path)
    check_sizes(config, path)
    with pytest.raises(CheckpointError, match=r"the weights do not fit config\.yaml"):
        check_sizes(config.replace(**change), path)


def test_weights_of_low_rank_are_read(tmp_path: Path) -> None:
    config = ModelConfig(
        **{**SIZES, "architecture": "encoder", "d_model": 128, "d_ff": 1, "weight_rank": 1, "d_embedding": 8, "n_kv_heads": 1}
    )
    full = config.replace(weight_rank=None)
    assert size_of(full) > MOST_TIMES_STORED * size_of(config)
    path = tmp_path / "model.safetensors"
    save_weights(build_model(config), path)
    check_sizes(config, path)


def test_weights_under_several_names_are_stored_once_and_come_back_under_all(toy_run: Run, tmp_path: Path) -> None:
    model = toy_run.model
    assert len(distinct(model)) < len(model.state_dict())
    save_weights(model, tmp_path / "w.safetensors")
    torch.manual_seed(9)
    other = build_model(toy_run.config.model)
    load_weights(other, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_weight_files_are_readable_for_whoever_may_read_the_others(toy_run: Run) -> None:
    modes = {name: (toy_run.folder / name).stat().st_mode for name in ("model.safetensors", "config.yaml", "manifest.json")}
    assert len(set(modes.values())) == 1, modes
