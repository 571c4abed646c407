"""Writes a trained translator as the Marian model that transformers and CTranslate2 know: one set of weights for all of them."""

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from heed.data.text import Tokenizer
from heed.errors import ConfigError
from heed.run import Run
from heed.tasks.translation import Translation

NEVER = -1e4  # added to the score of what is never generated


def export(run: Run, folder: Path, sources: list[str]) -> None:
    """Write weights, config and the ids of sources; raises ConfigError for a model that Marian's shape cannot hold."""
    config, task = run.config.model, run.task
    if not isinstance(task, Translation) or config.norm_place != "after" or config.positions != "sinusoidal" or config.source_vocab_size:
        raise ConfigError(f"{run.folder}: Marian needs model.norm_place=after model.positions=sinusoidal task.vocab=joint")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in _weights(run).items()}
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    content = {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "encoder_layers": config.n_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.n_heads,
        "decoder_attention_heads": config.n_heads,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.d_ff,
        "activation_function": config.activation,
        "max_position_embeddings": 512,
        "scale_embedding": config.embedding_scale,
        "pad_token_id": Tokenizer.pad_id,
        "eos_token_id": Tokenizer.eos_id,
        "decoder_start_token_id": Tokenizer.bos_id,
        "bos_token_id": None,
        "forced_eos_token_id": None,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    work = {
        "pad": Tokenizer.pad_id,
        "bos": Tokenizer.bos_id,
        "eos": Tokenizer.eos_id,
        "unk": Tokenizer.unk_id,
        "tokens": [f"t{i}" for i in range(task.target_tokenizer.vocab_size)],
        "sources": [encoded["source"].tolist() for encoded in task.encode_all([{"source": source} for source in sources])],
    }
    (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")


def _weights(run: Run) -> dict[str, Tensor]:
    """Return the weights by Marian's names, with features in Marian's order: all sines of a position before all cosines."""
    state, d_model = run.model.state_dict(), run.config.model.d_model
    order = torch.cat([torch.arange(0, d_model, 2), torch.arange(1, d_model, 2)])
    bias = torch.zeros(1, state["target_stem.embedding.weight"].size(0))
    bias[0, [Tokenizer.pad_id, Tokenizer.bos_id, Tokenizer.unk_id]] = NEVER
    found = {"model.shared.weight": state["target_stem.embedding.weight"][:, order], "final_logits_bias": bias}
    attentions = {"attention": "self_attn", "cross_attention": "encoder_attn"}
    norms = {"attention": "self_attn_layer_norm", "cross": "encoder_attn_layer_norm", "feed_forward": "final_layer_norm"}
    for name, tensor in state.items():
        if not name.startswith(("encoder.blocks.", "decoder.blocks.")):
            continue
        side, _, number, part, *rest = name.split(".")
        place, kind = f"model.{side}.layers.{number}", rest[-1]
        if part in attentions:
            target = f"{attentions[part]}.{ {'query': 'q', 'key': 'k', 'value': 'v', 'output': 'out'}[rest[0]] }_proj"
            writes = rest[0] == "output"
        elif part == "feed_forward":
            target, writes = {"up": ("fc1", False), "down": ("fc2", True)}[rest[0]]
        else:
            target, writes = norms[part.removesuffix("_residual")], True
        if writes:
            tensor = tensor[order]
        elif kind == "weight":
            tensor = tensor[:, order]
        found[f"{place}.{target}.{kind}"] = tensor
    return found
