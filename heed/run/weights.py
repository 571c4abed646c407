"""The numbers of a model on disk: a safetensors file that holds exactly its tensors, each once.

Left out: the shards that Hugging Face's large checkpoints come in (`heed.convert` reads them).
"""

import math
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from heed.errors import CheckpointError
from heed.files import replacing
from heed.model.config import ModelConfig

MOST_TIMES_APPLIED = 1000  # one block of a stack that shares it
MOST_TIMES_STORED = 4  # the numbers of a file of weights: what a config may ask for before its shapes are compared


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a model's weights; a tensor with several names is stored once."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in distinct(model).items()}
    with replacing(path) as draft:
        safetensors.torch.save_file(tensors, draft)


def distinct(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return a model's tensors by the first name each has."""
    by_identity: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if by_identity.setdefault(id(tensor), name) == name}


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Fill a model from a file that must hold exactly its tensors; raises CheckpointError."""
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); restore it from a copy") from error
    fill(distinct(model), tensors, path)


def fill(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors of a file into those of a model, which must be the same by name and shape; raises CheckpointError."""
    _check_shapes({name: tuple(tensor.shape) for name, tensor in found.items()}, expected, path)
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(found[name])


def _check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], path: Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    wrong = sorted(found.keys() ^ wanted.keys()) or [name for name, shape in wanted.items() if found[name] != shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path}: the weights do not fit config.yaml: {name} is {found.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}"
        )


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a file by the file's header; raises CheckpointError where it is absent or shorter than it says."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); restore it from a copy") from error


def check_sizes(config: ModelConfig, path: Path) -> None:
    """Refuse a config whose model is much larger than a file of weights, before memory is taken for either; loading then compares shapes.

    Raises:
        CheckpointError: it is, or the file is shorter than it says.
    """
    stored = sum(math.prod(shape) for shape in stored_shapes(path).values())
    check_stored(config, stored, f"{path}: the weights do not fit config.yaml")


def check_stored(config: ModelConfig, stored: int, complaint: str) -> None:
    """Raise CheckpointError, which begins with the complaint, for a config whose model is much larger than the numbers stored for it."""
    if _least_size(config) > MOST_TIMES_STORED * stored:
        raise CheckpointError(
            f"{complaint}: there are {stored:,} numbers, expected at least {_least_size(config):,}; restore the folder from a copy"
        )


def _least_size(config: ModelConfig) -> int:
    """Return how many numbers a model of this config has at least: all but biases, norms and what is small beside the rest."""
    stacks = [config.n_layers, *([config.n_document_layers] if config.hierarchical else [])]
    blocks = sum(_n_stored(config, n_layers) for n_layers in stacks) * _size_of_block(config, config.mixer)
    n_decoder = _n_stored(config, config.decoder_layers) if config.architecture == "seq2seq" else 0
    blocks += n_decoder * _size_of_block(config, "attention")
    reads_tokens = config.n_features is None
    n_words = (config.vocab_size or 0) if reads_tokens or config.ctc or config.architecture == "seq2seq" else 0
    n_rows = (config.source_vocab_size or 0) + (config.n_classes or 0) + (config.n_tags or 0) + (config.n_segments or 0)
    n_rows += config.first_position + config.max_length + (config.max_source_length or 0) if config.positions == "learned" else 0
    n_rows += 0 if config.n_features is None else -(-config.n_features // config.subsampling)
    n_grams = config.n_gram_rows * (1 + (config.n_classes or 0)) if config.n_grams and config.n_classes else 0
    return blocks + config.d_model * n_rows + (config.d_embedding or config.d_model) * n_words + n_grams


def _n_stored(config: ModelConfig, n_layers: int) -> int:
    """Return how many blocks of a stack are stored; so many that one could not be applied as often are counted."""
    return 1 if config.share_layers and n_layers <= MOST_TIMES_APPLIED else n_layers


def _size_of_block(config: ModelConfig, mixer: str) -> int:
    D, d_query, d_kv = config.d_model, config.n_heads * config.d_head, config.kv_heads * config.d_head
    of_mixers = {"lstm": 6, "convolution": 2 * config.kernel_size, "hybrid": config.kernel_size, "conformer": 3}
    near = of_mixers.get(mixer, 0) * D * D
    if mixer in ("convolution", "lstm"):
        return near
    shapes = [(D, d_query), (D, d_query), (D, d_kv), (D, d_kv), (D, config.d_ff), (D, config.d_ff)]
    thin = [n * m if config.weight_rank is None else min(n * m, config.weight_rank * (n + m)) for n, m in shapes]
    return near + sum(thin)
