"""How a file of weights is compared with a config before memory is taken for either."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from heed.errors import CheckpointError
from heed.model import ModelConfig, build_model
from heed.run import MOST_TIMES_STORED, _least_size, check_sizes, distinct, save_weights

SIZES: dict[str, Any] = {"vocab_size": 30, "n_heads": 2, "n_layers": 2, "n_document_layers": 3, "max_length": 40, "subsampling": 2}
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
