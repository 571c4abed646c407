"""GPT-2: norms before, learned positions, matrices kept the other way round, query, key and value in one."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from heed.convert.family import Family, Groups, foreign_ids, rows_of
from heed.convert.folder import Folder, Settings, Weights
from heed.convert.table import Entry, Transposed, entry, layer
from heed.convert.tokens import Builder, Pipeline, Tokens
from heed.data.foreign import Frame
from heed.errors import CheckpointError
from heed.model.config import ModelConfig
from heed.run import RunConfig
from heed.tasks.base import Task

ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}
THEIR_ACTIVATIONS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}  # the first name of each
END = "<|endoftext|>"
ROBERTA_TOKENS = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}


def bytes_pipeline(folder: Folder) -> Pipeline | None:
    """Return the pipeline of vocab.json and merges.txt: byte-level sub-words (Radford et al. 2019, section 2.2)."""
    if not folder.has("vocab.json") or not folder.has("merges.txt"):
        return None
    lines = (line.rstrip("\r") for line in folder.lines("merges.txt"))
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines if line and not line.startswith("#version"))]
    try:
        backend = Backend(models.BPE(vocab=folder.read("vocab.json"), merges=merges))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{folder.path}: vocab.json and merges.txt do not fit each other ({error}); fetch both again") from error
    prefix = bool(folder.tokenizer_settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    known = [token for token in (END, *ROBERTA_TOKENS.values()) if backend.token_to_id(token) is not None]
    hidden = ROBERTA_TOKENS["mask_token"]  # takes the space before it, as a word would
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False, lstrip=token == hidden) for token in known])
    content: Pipeline = json.loads(backend.to_str())
    return content


def optional(index: int | None, *taken: int | None) -> int | None:
    """Return the id of a special token, None where another has it: every id has one place."""
    return None if index in taken else index


def end_of(theirs: Settings, tokens: Tokens, usual: str) -> int | None:
    """Return the id that ends a text: of several in config.json that which the tokenizer calls so, or else the first."""
    given, named = theirs.get("eos_token_id", None), tokens.id_of("eos_token", usual)
    if isinstance(given, list):
        several = theirs.wholes("eos_token_id")
        return named if named in several else next(iter(several), named)
    return named if given is None else theirs.whole("eos_token_id")


def drawing_settings(folder: Folder) -> dict[str, Any]:
    """Return the settings of answers that generation_config.json asks for: those of drawing only where it has them drawn."""
    says = folder.generation
    if says.get("do_sample", False) is not True:
        return repetition_settings(folder)
    usual = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}  # of transformers
    return {"sample": True, **{name: says.get(name, value) for name, value in usual.items()}, **repetition_settings(folder)}


def repetition_settings(folder: Folder) -> dict[str, Any]:
    """Return what keeps answers from repetition where a folder says so, in generation_config.json or, if it is older, in config.json."""
    found: dict[str, Any] = {}
    for says in (folder.settings, folder.generation):
        if says.get("no_repeat_ngram_size", None) is not None:
            found["no_repeat_ngram_size"] = says.whole("no_repeat_ngram_size")
        if says.get("repetition_penalty", None) is not None:
            found["repetition_penalty"] = says.number("repetition_penalty")
    return found


class Gpt2(Family):
    """GPT-2 (Radford et al. 2019), and what was trained with its code."""

    model_type: ClassVar[str] = "gpt2"
    classes: ClassVar[Mapping[str, str]] = {"GPT2LMHeadModel": "text_generation", "GPT2Model": "text_generation"}
    prefix: ClassVar[str] = "transformer."
    buffers: ClassVar[tuple[str, ...]] = (".attn.bias", ".attn.masked_bias")
    builders: ClassVar[tuple[Builder, ...]] = (bytes_pipeline,)

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json."""
        theirs.only("scale_attn_weights", True)
        theirs.only("scale_attn_by_inverse_layer_idx", False)
        theirs.only("add_cross_attention", False)
        width, places = theirs.whole("n_embd", 768), theirs.whole("n_positions", 1024)
        model = {
            "architecture": "causal",
            "d_model": width,
            "n_heads": theirs.whole("n_head", 12),
            "n_layers": theirs.whole("n_layer", 12),
            "d_ff": theirs.whole("n_inner", 4 * width),
            "dropout": theirs.number("resid_pdrop", 0.1),
            "activation": theirs.one_of("activation_function", ACTIVATIONS, "gelu_new"),
            "norm_epsilon": theirs.number("layer_norm_epsilon", 1e-5),
            "positions": "learned",
            "max_length": places,
            "tied": theirs.truth("tie_word_embeddings", True),
            "embedding_scale": False,
        }
        return {"model": model, "data": {"max_length": places}}

    def refined(self, groups: Groups, folder: Folder, weights: Weights) -> Groups:
        """Return what `settings` found, with how answers are drawn."""
        return {**groups, "decode": drawing_settings(folder)}

    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run."""
        model, ids = config.model, foreign_ids(task)
        return {
            "vocab_size": ids["size"],
            "n_positions": model.max_length,
            "n_embd": model.d_model,
            "n_layer": model.n_layers,
            "n_head": model.n_heads,
            "n_inner": model.d_ff,
            "activation_function": THEIR_ACTIVATIONS[model.activation],
            "resid_pdrop": model.dropout,
            "embd_pdrop": model.dropout,
            "attn_pdrop": 0.0,
            "layer_norm_epsilon": model.norm_epsilon,
            "tie_word_embeddings": model.tied,
            "bos_token_id": ids["begin"],
            "eos_token_id": ids["end"],
            "pad_token_id": ids["pad"],
        }

    def entries(self, model: ModelConfig, task: Task, kind: str) -> list[Entry]:
        """Return the table of names."""
        rows, body, head = rows_of(task), "transformer.", "lm_head.weight"
        table = [
            entry("stem.embedding.weight", f"{body}wte.weight", rows, copies=(head,) if model.tied else ()),
            entry("stem.positions.embedding.weight", f"{body}wpe.weight"),
            *layer("stack.norm", f"{body}ln_f"),
        ]
        table += [] if model.tied else [entry("head.weight", head, rows)]
        for i in range(model.n_layers):
            ours, theirs = f"stack.blocks.{i}", f"{body}h.{i}"
            inputs = [f"{ours}.attention.{name}" for name in ("query", "key", "value")]
            table += [
                *layer(f"{ours}.attention_residual.norm", f"{theirs}.ln_1"),
                entry([f"{name}.weight" for name in inputs], f"{theirs}.attn.c_attn.weight", Transposed()),
                entry([f"{name}.bias" for name in inputs], f"{theirs}.attn.c_attn.bias"),
                *layer(f"{ours}.attention.output", f"{theirs}.attn.c_proj", Transposed()),
                *layer(f"{ours}.feed_forward_residual.norm", f"{theirs}.ln_2"),
                *layer(f"{ours}.feed_forward.up", f"{theirs}.mlp.c_fc", Transposed()),
                *layer(f"{ours}.feed_forward.down", f"{theirs}.mlp.c_proj", Transposed()),
            ]
        return table

    def specials(self, theirs: Settings, tokens: Tokens) -> tuple[list[int | None], Frame]:
        """Return the ids of special tokens: a text begins with the token that ended the one before."""
        end = end_of(theirs, tokens, END)
        begins = tokens.setting("add_bos_token") is True or tokens.begins_with(end)
        return [optional(tokens.id_of("pad_token"), end), None, end, None], Frame(begin=2, begins_texts=begins)
