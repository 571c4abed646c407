"""Llama and its relatives: RMS norms, rotary positions, grouped heads and gated feed-forwards; Mistral and Qwen2 among them."""

from collections.abc import Mapping
from typing import Any, ClassVar

from heed.convert.family import Family, Groups, foreign_ids, rows_of
from heed.convert.folder import Folder, Settings, Weights
from heed.convert.gpt2 import ACTIVATIONS, THEIR_ACTIVATIONS, drawing_settings, end_of, optional
from heed.convert.table import Entry, RotaryRows, entry
from heed.convert.tokens import Tokens
from heed.data.foreign import Frame
from heed.errors import CheckpointError, ConfigError
from heed.model.config import ModelConfig
from heed.model.positions import FAST, SLOW
from heed.run import RunConfig
from heed.tasks.base import Task

PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
FEED_FORWARD = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
PLACES = {name: f"self_attn.{theirs}" for name, theirs in PROJECTIONS.items()} | {
    name: f"mlp.{theirs}" for name, theirs in FEED_FORWARD.items()
}
ROTARY = {"default": (), "linear": ("factor",), "llama3": ("factor", "original_max_position_embeddings")}  # kinds -> what they read
USUAL_WINDOW = 4096  # of Mistral, where config.json does not say it


class Llama(Family):
    """Llama (Touvron et al. 2023)."""

    model_type: ClassVar[str] = "llama"
    classes: ClassVar[Mapping[str, str]] = {"LlamaForCausalLM": "text_generation", "LlamaModel": "text_generation"}
    prefix: ClassVar[str] = "model."
    buffers: ClassVar[tuple[str, ...]] = (".rotary_emb.inv_freq",)

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json."""
        width, heads, places = (
            theirs.whole("hidden_size"),
            theirs.count("num_attention_heads"),
            theirs.whole("max_position_embeddings", 2048),
        )
        d_head = theirs.whole("head_dim", width // heads)
        model = {
            "architecture": "causal",
            "d_model": width,
            "n_heads": heads,
            "n_kv_heads": theirs.whole("num_key_value_heads", heads),
            "d_kv": None if d_head * heads == width else d_head,
            "n_layers": theirs.whole("num_hidden_layers"),
            "d_ff": theirs.whole("intermediate_size"),
            "dropout": 0.0,
            "activation": theirs.one_of("hidden_act", ACTIVATIONS, "silu"),
            "gated": True,
            "norm": "rms",
            "norm_epsilon": theirs.number("rms_norm_eps", 1e-6),
            "positions": "rotary",
            **rotary(theirs),
            "max_length": places,
            **bias_settings(self.biased(theirs)),
            "tied": theirs.truth("tie_word_embeddings", False),
            "embedding_scale": False,
        }
        return {"model": model, "data": {"max_length": places}}

    def refined(self, groups: Groups, folder: Folder, weights: Weights) -> Groups:
        """Return what `settings` found, with how answers are drawn; raises CheckpointError where biases are said to be and are not."""
        for name, has in self.biased(folder.settings).items():
            theirs = f"model.layers.0.{PLACES[name]}.bias"
            if has and theirs not in weights.names:
                raise CheckpointError(f"{folder.settings.where}: says that there is a {theirs}, which the weights lack; fetch both again")
        return {**groups, "decode": drawing_settings(folder)}

    def biased(self, theirs: Settings) -> dict[str, bool]:
        """Return which linear maps have a bias, by heed's names."""
        attention, feed_forward = theirs.truth("attention_bias", False), theirs.truth("mlp_bias", False)
        return dict.fromkeys(PROJECTIONS, attention) | dict.fromkeys(FEED_FORWARD, feed_forward)

    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run."""
        model, ids = config.model, foreign_ids(task)
        return {
            "vocab_size": ids["size"],
            "hidden_size": model.d_model,
            "intermediate_size": model.d_ff,
            "num_hidden_layers": model.n_layers,
            "num_attention_heads": model.n_heads,
            "num_key_value_heads": model.kv_heads,
            "head_dim": model.d_head,
            "hidden_act": THEIR_ACTIVATIONS[model.activation],
            "max_position_embeddings": model.max_length,
            "rms_norm_eps": model.norm_epsilon,
            "rope_theta": model.rotary_base,
            **rope_settings(model),
            "tie_word_embeddings": model.tied,
            "bos_token_id": ids["begin"],
            "eos_token_id": ids["end"],
            "pad_token_id": ids["pad"],
            **self.biases(model),
        }

    def biases(self, model: ModelConfig) -> dict[str, Any]:
        """Return what config.json says of biases."""
        parts = {"attention_bias": PROJECTIONS, "mlp_bias": FEED_FORWARD}
        return {setting: model.bias and not set(names) & set(model.unbiased) for setting, names in parts.items()}

    def entries(self, model: ModelConfig, task: Task, kind: str) -> list[Entry]:
        """Return the table of names."""
        rows, head = rows_of(task), "lm_head.weight"
        table = [
            entry("stem.embedding.weight", "model.embed_tokens.weight", rows, copies=(head,) if model.tied else ()),
            entry("stack.norm.weight", "model.norm.weight"),
        ]
        table += [] if model.tied else [entry("head.weight", head, rows)]
        for i in range(model.n_layers):
            ours, theirs = f"stack.blocks.{i}", f"model.layers.{i}"
            table += [
                entry(f"{ours}.attention_residual.norm.weight", f"{theirs}.input_layernorm.weight"),
                entry(f"{ours}.feed_forward_residual.norm.weight", f"{theirs}.post_attention_layernorm.weight"),
            ]
            for mine, name in PROJECTIONS.items():
                table += self._linear(model, f"{ours}.attention.{mine}", f"{theirs}.self_attn.{name}")
            for mine, name in FEED_FORWARD.items():
                table += self._linear(model, f"{ours}.feed_forward.{mine}", f"{theirs}.mlp.{name}")
        return table

    def _linear(self, model: ModelConfig, ours: str, theirs: str) -> list[Entry]:
        """Return the lines of a linear map; queries and keys are turned."""
        name = ours.rpartition(".")[2]
        heads = {"query": model.n_heads, "key": model.kv_heads}.get(name)
        turns = () if heads is None else (RotaryRows(heads),)
        kinds = ("weight", "bias") if model.bias and name not in model.unbiased else ("weight",)
        return [entry(f"{ours}.{kind}", f"{theirs}.{kind}", *turns) for kind in kinds]

    def specials(self, theirs: Settings, tokens: Tokens) -> tuple[list[int | None], Frame]:
        """Return the ids of special tokens."""
        end = end_of(theirs, tokens, "</s>")
        begin = optional(tokens.id_of("bos_token", "<s>"), end)
        unknown = optional(tokens.id_of("unk_token", "<unk>"), begin, end)
        given = tokens.setting("add_bos_token")
        begins = given if isinstance(given, bool) else tokens.begins_with(begin)
        frame = Frame(begin=1 if begin is not None else 2, begins_texts=begins and begin is not None)
        return [optional(tokens.id_of("pad_token"), begin, end, unknown), begin, end, unknown], frame


class Mistral(Llama):
    """Mistral 7B (Jiang et al. 2023) without its sliding window."""

    model_type: ClassVar[str] = "mistral"
    classes: ClassVar[Mapping[str, str]] = {"MistralForCausalLM": "text_generation", "MistralModel": "text_generation"}

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json; raises ConfigError where attention sees a window alone."""
        window, places = theirs.content.get("sliding_window", USUAL_WINDOW), theirs.whole("max_position_embeddings", 4096 * 32)
        if window is not None and window < places:
            raise ConfigError(
                f"{theirs.where}: sliding_window={window} is less than max_position_embeddings={places}; heed's decoders see all that came "
                f"before: if {window} tokens are enough, set max_position_embeddings to it in config.json"
            )
        return super().settings(theirs, kind)

    def biased(self, theirs: Settings) -> dict[str, bool]:
        """Return that no linear map has a bias."""
        return dict.fromkeys((*PROJECTIONS, *FEED_FORWARD), False)

    def biases(self, model: ModelConfig) -> dict[str, Any]:
        """Return what config.json says beside: no window."""
        return {"sliding_window": None}


class Qwen2(Llama):
    """Qwen2 (Yang et al. 2024): Llama with biases on queries, keys and values alone."""

    model_type: ClassVar[str] = "qwen2"
    classes: ClassVar[Mapping[str, str]] = {"Qwen2ForCausalLM": "text_generation", "Qwen2Model": "text_generation"}

    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json; raises ConfigError where attention sees a window alone."""
        theirs.only("use_sliding_window", False)
        return super().settings(theirs, kind)

    def biased(self, theirs: Settings) -> dict[str, bool]:
        """Return that queries, keys and values alone have biases."""
        return {name: name in ("query", "key", "value") for name in (*PROJECTIONS, *FEED_FORWARD)}

    def biases(self, model: ModelConfig) -> dict[str, Any]:
        """Return what config.json says beside: no window."""
        return {"use_sliding_window": False}


def bias_settings(biased: Mapping[str, bool]) -> dict[str, Any]:
    """Return heed's settings of biases, given which linear maps have one."""
    bias = any(biased.values())
    return {"bias": bias, "unbiased": [name for name, has in biased.items() if bias and not has]}


def rotary(theirs: Settings) -> dict[str, Any]:
    """Return heed's settings of rotary positions; raises ConfigError where they are scaled in a way that heed does not know."""
    named = [name for name in ("rope_parameters", "rope_scaling") if theirs.get(name, None)]
    for name in named:
        content = theirs.get(name)
        kind = content.get("rope_type", content.get("type", "default")) if isinstance(content, dict) else content
        if kind not in ROTARY:
            raise ConfigError(f"{theirs.where}: {name}={content!r}, expected the type {', '.join(ROTARY)}; heed cannot compute it")
    inner = Settings(theirs.get(named[0]) if named else {}, f"{theirs.where}: {named[0] if named else ''}")
    for place in (theirs, inner):
        place.only("partial_rotary_factor", 1.0, 1)
    base = inner.number("rope_theta", theirs.number("rope_theta", 10000.0))
    return {"rotary_base": base, **_scaling(inner, inner.get("rope_type", inner.get("type", "default")))}


def _scaling(theirs: Settings, kind: str) -> dict[str, Any]:
    """Return by how much rotary positions are slowed, and which of them."""
    if "factor" not in ROTARY[kind] or theirs.number("factor") == 1:
        return {}
    if kind == "linear":
        return {"rotary_factor": theirs.number("factor")}
    theirs.only("low_freq_factor", SLOW)
    theirs.only("high_freq_factor", FAST)
    return {"rotary_factor": theirs.number("factor"), "rotary_context": theirs.count("original_max_position_embeddings")}


def rope_settings(model: ModelConfig) -> dict[str, Any]:
    """Return what config.json says of rotary positions beside their base: for transformers 5 and, where they are scaled, for 4 too."""
    if model.rotary_factor == 1:
        return {"rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_base}}
    scaling = {"rope_type": "linear" if model.rotary_context is None else "llama3", "factor": model.rotary_factor}
    if model.rotary_context is not None:
        scaling |= {"low_freq_factor": SLOW, "high_freq_factor": FAST, "original_max_position_embeddings": model.rotary_context}
    return {"rope_parameters": {**scaling, "rope_theta": model.rotary_base}, "rope_scaling": scaling}
