"""T5: an encoder and a decoder with RMS norms before, scores that know distances, and heads whose width is their own (Raffel et al. 2020).

Version 1.0 ties all embeddings and divides before the scores of words; 1.1 and what was made of it (Flan) do neither, and gate.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from heed.convert.family import Family, Groups, foreign_ids, ids_of
from heed.convert.folder import Folder, Settings, Weights
from heed.convert.gpt2 import ACTIVATIONS, THEIR_ACTIVATIONS
from heed.convert.marian import search_settings
from heed.convert.sentencepieces import read_pieces, t5_pipeline
from heed.convert.table import Entry, VocabularyRows, entry
from heed.convert.tokens import Builder, Pipeline, Tokens
from heed.convert.writing import write_tokenizer
from heed.data.foreign import Frame
from heed.data.text import Tokenizer
from heed.errors import ConfigError
from heed.model.config import ModelConfig
from heed.run import RunConfig
from heed.tasks.base import Task

ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}
GATED = "gated-"
THEIR_GELU = "gated-gelu"  # which means the approximation by tanh, unlike "gelu"
N_BUCKETS, MAX_DISTANCE = 32, 128  # of distances, in T5 and in heed
SHARED, HEAD = "shared.weight", "lm_head.weight"


def piece_pipeline(folder: Folder) -> Pipeline | None:
    """Return the pipeline of spiece.model."""
    if not folder.has("spiece.model"):
        return None
    content: Pipeline = json.loads(t5_pipeline(read_pieces(folder.path / "spiece.model")).to_str())
    return content


class T5(Family):
    """T5, of both versions."""

    model_type: ClassVar[str] = "t5"
    classes: ClassVar[Mapping[str, str]] = {"T5ForConditionalGeneration": "text_to_text", "T5WithLMHeadModel": "text_to_text"}
    builders: ClassVar[tuple[Builder, ...]] = (piece_pipeline,)
    buffers: ClassVar[tuple[str, ...]] = ("layer.1.EncDecAttention.relative_attention_bias.weight",)  # of old files, never used

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json."""
        theirs.only("relative_attention_num_buckets", N_BUCKETS)
        theirs.only("relative_attention_max_distance", MAX_DISTANCE)
        theirs.only("is_encoder_decoder", True)
        width, heads = theirs.whole("d_model", 512), theirs.whole("num_heads", 8)
        d_kv, layers = theirs.whole("d_kv", 64), theirs.whole("num_layers", 6)
        tied = theirs.truth("tie_word_embeddings", True)
        model = {
            "architecture": "seq2seq",
            "d_model": width,
            "n_heads": heads,
            "d_kv": None if d_kv * heads == width else d_kv,
            "n_layers": layers,
            "n_decoder_layers": _other(theirs.whole("num_decoder_layers", layers), layers),
            "d_ff": theirs.whole("d_ff", 2048),
            "dropout": theirs.number("dropout_rate", 0.1),
            **_activation(theirs),
            "norm": "rms",
            "norm_epsilon": theirs.number("layer_norm_epsilon", 1e-6),
            "positions": "relative",
            "scaled": False,
            "bias": False,
            "tied": tied,
            "scaled_head": theirs.truth("scale_decoder_outputs", tied),
            "embedding_scale": False,
        }
        return {"model": model, "data": {"max_length": theirs.whole("n_positions", 512)}}

    def refined(self, groups: Groups, folder: Folder, weights: Weights) -> Groups:
        """Untie the head where the file holds one of its own, whatever config.json says: transformers 5 says it is tied always."""
        groups = {**groups, "decode": search_settings(folder)}
        if {SHARED, HEAD} <= weights.names and not torch.equal(weights.read(SHARED), weights.read(HEAD)):
            groups["model"] |= {"tied": False}
        return groups

    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run."""
        model, ids = config.model, foreign_ids(task)
        activation = THEIR_ACTIVATIONS[model.activation]
        named = f"{GATED}{activation}" if model.gated else activation
        return {
            "vocab_size": sum(index is not None for index in _ids(task)),
            "d_model": model.d_model,
            "d_kv": model.d_head,
            "d_ff": model.d_ff,
            "num_layers": model.n_layers,
            "num_decoder_layers": model.decoder_layers,
            "num_heads": model.n_heads,
            "relative_attention_num_buckets": N_BUCKETS,
            "relative_attention_max_distance": MAX_DISTANCE,
            "dropout_rate": model.dropout,
            "layer_norm_epsilon": model.norm_epsilon,
            "feed_forward_proj": THEIR_GELU if model.gated and model.activation == "gelu_tanh" else named,
            "tie_word_embeddings": model.tied,
            "scale_decoder_outputs": model.scaled_head,
            "is_encoder_decoder": True,
            "pad_token_id": ids["begin"] if ids["pad"] is None else ids["pad"],
            "decoder_start_token_id": ids["begin"],
            "eos_token_id": ids["end"],
            "n_positions": config.data.max_length,
        }

    def entries(self, model: ModelConfig, task: Task, kind: str) -> list[Entry]:
        """Return the table of names."""
        rows = VocabularyRows(_ids(task))
        copies = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", *([HEAD] if model.tied else [])]
        table = [entry("target_stem.embedding.weight", SHARED, rows, copies=copies)]
        table += [] if model.tied else [entry("head.weight", HEAD, rows)]
        for stack, n_layers in (("encoder", model.n_layers), ("decoder", model.decoder_layers)):
            table.append(entry(f"{stack}.norm.weight", f"{stack}.final_layer_norm.weight"))
            bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            table.append(entry(f"{stack}.relative.embedding.weight", bias))
            for i in range(n_layers):
                table += _block(f"{stack}.blocks.{i}", f"{stack}.block.{i}.layer", model, cross=stack == "decoder")
        return table

    def write_parts(self, task: Task, to: Path) -> None:
        """Write the files of the tokenizer, which ends every text."""
        write_tokenizer(task.parts["tokenizer"], to, source=True)

    def specials(self, theirs: Settings, tokens: Tokens) -> tuple[list[int | None], Frame]:
        """Return the ids of special tokens: what the decoder starts with begins a text, and is padding as well for the most part."""
        padding = theirs.whole_or_none("pad_token_id")
        if padding is None:
            padding = tokens.needed("pad_token", "<pad>")
        begin = first_of_decoder(theirs, tokens, padding)
        end = theirs.whole_or_none("eos_token_id")
        ends = tokens.needed("eos_token", "</s>") if end is None else end
        return [None if padding == begin else padding, begin, ends, tokens.id_of("unk_token", "<unk>")], Frame(begins_texts=False)


def first_of_decoder(theirs: Settings, tokens: Tokens, usual: int) -> int:
    """Return the foreign id that a decoder starts with."""
    for says in (theirs, tokens.folder.generation):
        if says.get("decoder_start_token_id", None) is not None:
            return says.whole("decoder_start_token_id")
    return usual


def _other(value: int, usual: int) -> int | None:
    return None if value == usual else value


def _ids(task: Task) -> list[int | None]:
    """Return the foreign id of each heed id; behind heed's own sub-words stand sentinels, which only the task knows."""
    tokenizer = task.parts["tokenizer"]
    known = getattr(task, "n_ids", None)
    return list(range(known)) if isinstance(tokenizer, Tokenizer) and known is not None else ids_of(tokenizer)


def _activation(theirs: Settings) -> dict[str, Any]:
    """Return what the feed-forward does, from a name such as "relu" or "gated-gelu"."""
    named = theirs.get("feed_forward_proj", "relu")
    if named == THEIR_GELU:
        theirs.only("dense_act_fn", "gelu_new")
        return {"activation": "gelu_tanh", "gated": True}
    plain = str(named).removeprefix(GATED)
    if plain not in ACTIVATIONS:
        raise ConfigError(f"{theirs.where}: feed_forward_proj={named!r} is not one of {', '.join(ACTIVATIONS)}, or one behind {GATED!r}")
    theirs.only("dense_act_fn", plain)
    return {"activation": ACTIVATIONS[plain], "gated": str(named).startswith(GATED)}


def _block(ours: str, theirs: str, model: ModelConfig, *, cross: bool) -> list[Entry]:
    """Return the lines of a block, whose layers they number."""
    attentions = {"attention": ("SelfAttention", 0)} | ({"cross_attention": ("EncDecAttention", 1)} if cross else {})
    residuals = {"attention": "attention_residual", "cross_attention": "cross_residual"}
    table: list[Entry] = []
    for name, (called, number) in attentions.items():
        table.append(entry(f"{ours}.{residuals[name]}.norm.weight", f"{theirs}.{number}.layer_norm.weight"))
        table += [entry(f"{ours}.{name}.{a}.weight", f"{theirs}.{number}.{called}.{b}.weight") for a, b in ATTENTION.items()]
    last = f"{theirs}.{len(attentions)}"
    maps = {"gate": "wi_0", "up": "wi_1"} if model.gated else {"up": "wi"}
    table.append(entry(f"{ours}.feed_forward_residual.norm.weight", f"{last}.layer_norm.weight"))
    table += [entry(f"{ours}.feed_forward.{a}.weight", f"{last}.DenseReluDense.{b}.weight") for a, b in (maps | {"down": "wo"}).items()]
    return table
