"""Marian: norms behind, sines in halves, a bias on the scores of words, and two SentencePiece models over one vocabulary (OPUS-MT).

Source: Junczys-Dowmunt et al. 2018; Tiedemann & Thottingal 2020. Left out: sacremoses' changes of punctuation, which transformers' own
tokenizer does not make either when it cuts a text.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from heed.convert.family import Family, Groups, foreign_ids, rows_of
from heed.convert.folder import Folder, Settings, Weights
from heed.convert.gpt2 import ACTIVATIONS, THEIR_ACTIVATIONS, repetition_settings
from heed.convert.sentencepieces import piece_tokenizer, read_pieces
from heed.convert.table import Entry, entry, layer
from heed.convert.tokens import Tokens
from heed.convert.writing import write_json
from heed.data.foreign import Frame
from heed.data.pieces import PieceTokenizer
from heed.errors import CheckpointError, ConfigError
from heed.model.config import ModelConfig
from heed.model.positions import sinusoid_table
from heed.run import RunConfig
from heed.tasks.base import Task

HEAD, SHARED = "lm_head.weight", "model.shared.weight"
SINES = tuple(f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder"))
PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
UNSUPPORTED = ("normalize_before", "normalize_embedding", "add_final_layer_norm", "add_bias_logits")
PADDING, END, UNKNOWN = "<pad>", "</s>", "<unk>"
NAMES, TARGET_NAMES = "vocab.json", "target_vocab.json"  # the second where each side has a vocabulary of its own
SINE_ROUNDING = 1e-4  # of tables that other libraries computed in float32


@dataclass(frozen=True)
class Row:
    """A vector that they keep as the one row of a matrix."""

    def take(self, tensor: Tensor) -> Tensor:
        """Turn theirs (1, V) into ours (V,)."""
        return tensor.squeeze(0)

    def give(self, tensor: Tensor) -> Tensor:
        """Turn ours (V,) into theirs (1, V)."""
        return tensor.unsqueeze(0)


class Marian(Family):
    """Models of Marian, as OPUS-MT has them for many languages."""

    model_type: ClassVar[str] = "marian"
    classes: ClassVar[Mapping[str, str]] = {"MarianMTModel": "translation"}
    buffers: ClassVar[tuple[str, ...]] = SINES

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json."""
        for name in UNSUPPORTED:
            theirs.only(name, False)
        theirs.only("static_position_embeddings", True)
        theirs.only("is_encoder_decoder", True)
        theirs.only("extra_pos_embeddings", 0)
        shared = theirs.truth("share_encoder_decoder_embeddings", True)
        layers, places = theirs.whole("encoder_layers", 12), theirs.whole("max_position_embeddings", 1024)
        decoder_layers = theirs.whole("decoder_layers", 12)
        model = {
            "architecture": "seq2seq",
            "d_model": theirs.whole("d_model", 1024),
            "n_heads": of_both(theirs, "attention_heads", 16),
            "d_ff": of_both(theirs, "ffn_dim", 4096),
            "n_layers": layers,
            "n_decoder_layers": None if decoder_layers == layers else decoder_layers,
            "dropout": theirs.number("dropout", 0.1),
            "activation": theirs.one_of("activation_function", ACTIVATIONS, "gelu"),
            "norm_place": "after",
            "norm_epsilon": 1e-5,
            "positions": "sinusoidal_halves",
            "max_length": places,
            "tied": theirs.truth("tie_word_embeddings", True),
            "head_bias": True,
            "embedding_scale": theirs.truth("scale_embedding", False),
        }
        return {"model": model, "data": {"max_length": places}, "task": {"vocab": "joint" if shared else "separate"}}

    def refined(self, groups: Groups, folder: Folder, weights: Weights) -> Groups:
        """Compare tables of positions with the sines heed computes; raises CheckpointError where they are others."""
        for name in sorted(weights.names & set(SINES)):
            table = weights.read(name)
            if not torch.allclose(table, sinusoid_table(*table.shape, halves=True), atol=SINE_ROUNDING):
                raise CheckpointError(f"{folder.path}: {name} holds other positions than sines; heed computes those of Marian alone")
        return {**groups, "decode": search_settings(folder)}

    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run."""
        model = config.model
        _check_parts(task)
        source, target = (foreign_ids(task, f"{side}_tokenizer") for side in ("source", "target"))
        padding = target["begin"] if target["pad"] is None else target["pad"]
        return {
            "vocab_size": source["size"],
            "decoder_vocab_size": target["size"],
            "share_encoder_decoder_embeddings": model.source_vocab_size is None,
            "d_model": model.d_model,
            **{f"{stack}_layers": n for stack, n in (("encoder", model.n_layers), ("decoder", model.decoder_layers))},
            **{f"{stack}_attention_heads": model.n_heads for stack in ("encoder", "decoder")},
            **{f"{stack}_ffn_dim": model.d_ff for stack in ("encoder", "decoder")},
            "dropout": model.dropout,
            "activation_function": THEIR_ACTIVATIONS[model.activation],
            "max_position_embeddings": model.max_length,
            "scale_embedding": model.embedding_scale,
            "static_position_embeddings": True,
            "tie_word_embeddings": model.tied,
            "is_encoder_decoder": True,
            "pad_token_id": padding,
            "decoder_start_token_id": target["begin"],
            "eos_token_id": target["end"],
            "forced_eos_token_id": target["end"],
        }

    def entries(self, model: ModelConfig, task: Task, kind: str) -> list[Entry]:
        """Return the table of names."""
        rows = rows_of(task, "target_tokenizer")
        of_target, of_source = "model.decoder.embed_tokens.weight", "model.encoder.embed_tokens.weight"
        again = (HEAD,) if model.tied else ()
        if model.source_vocab_size is None:
            table = [entry("target_stem.embedding.weight", SHARED, rows, copies=(of_source, of_target, *again))]
        else:
            table = [
                entry("target_stem.embedding.weight", of_target, rows, copies=again),
                entry("source_stem.embedding.weight", of_source, rows_of(task, "source_tokenizer")),
            ]
        table += [] if model.tied else [entry("head.weight", HEAD, rows)]
        table.append(entry("head.bias", "final_logits_bias", Row(), rows))
        return table + stacks(model)

    def specials(self, theirs: Settings, tokens: Tokens) -> tuple[list[int | None], Frame]:
        """Raise ConfigError: its texts are cut by SentencePiece, as `adopt` has it."""
        raise ConfigError("a Marian model cuts texts with source.spm and target.spm")

    def adopt(self, folder: Folder, task: Task) -> None:
        """Give a task the tokenizers of both sides."""
        separate = folder.has(TARGET_NAMES)
        sizes = {"source": "vocab_size", "target": "decoder_vocab_size" if separate else "vocab_size"}
        names = {"source": NAMES, "target": TARGET_NAMES if separate else NAMES}
        task.adopt({f"{side}_tokenizer": _tokenizer(folder, side, names[side], sizes[side]) for side in sizes}, [])

    def write_parts(self, task: Task, to: Path) -> None:
        """Write source.spm, target.spm and what numbers their pieces; raises ConfigError for other tokenizers."""
        _check_parts(task)
        separate = getattr(task.config, "vocab", "joint") == "separate"
        for side in ("source", "target"):
            part = task.parts[f"{side}_tokenizer"]
            assert isinstance(part, PieceTokenizer)
            (to / f"{side}.spm").write_bytes(base64.b64decode(part.original))
            name = TARGET_NAMES if side == "target" and separate else NAMES
            write_json(to / name, {piece: i for i, piece in enumerate(part.names) if piece is not None})
        write_json(to / "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer", "separate_vocabs": separate})


def _check_parts(task: Task) -> None:
    """Raise ConfigError unless both sides are cut by SentencePiece."""
    if not all(isinstance(task.parts.get(f"{side}_tokenizer"), PieceTokenizer) for side in ("source", "target")):
        raise ConfigError("it needs the pieces of a SentencePiece model for each side, which only imported runs have")


def search_settings(folder: Folder) -> dict[str, Any]:
    """Return how answers are searched for where a folder says so, in generation_config.json or, if it is older, in config.json."""
    found: dict[str, Any] = {}
    for says in (folder.settings, folder.generation):
        if says.get("num_beams", None) is not None:
            found["beams"] = says.whole("num_beams")
        if says.get("length_penalty", None) is not None:
            found["length_penalty"] = says.number("length_penalty")
    return found | repetition_settings(folder)


def of_both(theirs: Settings, name: str, usual: int) -> int:
    """Return a size that encoder and decoder have to share; raises ConfigError where they do not."""
    value = theirs.whole(f"encoder_{name}", usual)
    if theirs.whole(f"decoder_{name}", usual) != value:
        found = theirs.whole(f"decoder_{name}", usual)
        raise ConfigError(f"{theirs.where}: decoder_{name}={found}, expected {value}, that of the encoder; heed cannot compute it")
    return value


def stacks(model: ModelConfig, *, key_bias: bool = True) -> list[Entry]:
    """Return the lines of both stacks, named as in BART and what follows it."""
    table: list[Entry] = []
    for stack, n_layers in (("encoder", model.n_layers), ("decoder", model.decoder_layers)):
        for i in range(n_layers):
            table += _block(f"{stack}.blocks.{i}", f"model.{stack}.layers.{i}", cross=stack == "decoder", key_bias=key_bias)
    return table


def _block(ours: str, theirs: str, *, cross: bool, key_bias: bool) -> list[Entry]:
    attentions = {"attention": ("self_attn", "attention_residual")} | (
        {"cross_attention": ("encoder_attn", "cross_residual")} if cross else {}
    )
    table: list[Entry] = []
    for name, (called, residual) in attentions.items():
        table += layer(f"{ours}.{residual}.norm", f"{theirs}.{called}_layer_norm")
        for a, b in PROJECTIONS.items():
            table += layer(f"{ours}.{name}.{a}", f"{theirs}.{called}.{b}", bias=key_bias or a != "key")
    table += layer(f"{ours}.feed_forward_residual.norm", f"{theirs}.final_layer_norm")
    return [*table, *layer(f"{ours}.feed_forward.up", f"{theirs}.fc1"), *layer(f"{ours}.feed_forward.down", f"{theirs}.fc2")]


def _tokenizer(folder: Folder, side: str, names: str, size: str) -> PieceTokenizer:
    """Return the tokenizer of a side; raises CheckpointError where its files are missing or do not fit the model."""
    for name in (f"{side}.spm", names):
        if not folder.has(name):
            raise CheckpointError(f"{folder.path}: has no {name}; fetch the files of the tokenizer too")
    numbers, theirs = folder.read(names), folder.settings
    n_foreign = theirs.whole(size)
    wrong = next((piece for piece, number in numbers.items() if type(number) is not int or not 0 <= number < n_foreign), None)
    if wrong is not None:
        raise CheckpointError(f"{folder.path / names}: {wrong!r} has the id {numbers[wrong]!r}, expected one below {size}={n_foreign}")
    specials = _specials(theirs, numbers, of_decoder=side == "target" or not folder.has(TARGET_NAMES))
    known = [index for index in specials if index is not None]
    if len(set(known)) < len(known) or not all(0 <= index < n_foreign for index in known):
        raise CheckpointError(f"{folder.path}: padding, begin, end and unknown have the ids {specials}, expected different ones")
    return piece_tokenizer(read_pieces(folder.path / f"{side}.spm"), numbers, n_foreign, specials)


def _specials(theirs: Settings, numbers: Mapping[str, Any], *, of_decoder: bool) -> list[int | None]:
    """Return the ids of padding, begin, end and unknown: config.json numbers those of the decoder, whose first token is padding too."""
    if not of_decoder:
        return [numbers.get(PADDING), None, numbers.get(END), numbers.get(UNKNOWN)]
    padding = theirs.whole("pad_token_id")
    begin = theirs.whole("decoder_start_token_id", padding)
    return [None if padding == begin else padding, begin, theirs.whole("eos_token_id", 0), numbers.get(UNKNOWN)]
