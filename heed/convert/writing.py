"""The files of a tokenizer in Hugging Face's form, of an imported one as it came and of heed's own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from tokenizers import AddedToken, decoders, normalizers, processors
from tokenizers import Tokenizer as Backend
from torch import Tensor

from heed.convert.folder import INDEX, WEIGHTS
from heed.data.foreign import ForeignTokenizer
from heed.data.parts import Part
from heed.data.text import Tokenizer
from heed.data.vocabulary import SPECIALS
from heed.errors import ConfigError

SHARD = "model-{:05}-of-{:05}.safetensors"
ROLES = ("pad_token", "bos_token", "eos_token", "unk_token")  # of the special tokens, in their order


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file as Hugging Face's libraries do."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_weights(to: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """Write model.safetensors, or where that is larger than a shard may be, several files and an index that says what is in which."""
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(map(n_bytes, shards[-1].values())) + n_bytes(tensor) > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    if len(shards) == 1:
        safetensors.torch.save_file(shards[0], to / WEIGHTS, metadata={"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = SHARD.format(number, len(shards))
        safetensors.torch.save_file(shard, to / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    write_json(to / INDEX, {"metadata": {"total_size": sum(map(n_bytes, tensors.values()))}, "weight_map": places})


def n_bytes(tensor: Tensor) -> int:
    """Return how many bytes the numbers of a tensor take."""
    return tensor.numel() * tensor.element_size()


def write_tokenizer(part: Part, to: Path, *, source: bool = False) -> None:
    """Write tokenizer.json and tokenizer_config.json; raises ConfigError for a part that has no such form.

    Args:
        source: whether texts are sources of heed's own that a decoder is to rewrite: they end with the end token, and none begins them.
    """
    if isinstance(part, ForeignTokenizer):
        pipeline, settings = part.pipeline, part.settings
    elif isinstance(part, Tokenizer):
        pipeline, settings = own_pipeline(part, source=source), own_settings()
    else:
        raise ConfigError(f"a vocabulary of the kind {part.kind!r} has no form in this format; export a run of sub-words")
    write_json(to / "tokenizer.json", pipeline)
    write_json(to / "tokenizer_config.json", settings)


def write_sentence_modules(to: Path, *, width: int, pooling: str, normalise: bool, longest: int) -> None:
    """Write what sentence-transformers reads beside the model: its steps, and how tokens become one vector."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalise else [])]
    steps = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"} for i, (path, kind) in enumerate(kinds)
    ]
    (to / "modules.json").write_text(json.dumps(steps, indent=2) + "\n", encoding="utf-8")
    (to / "1_Pooling").mkdir()
    modes = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "first"}
    write_json(to / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **modes})
    write_json(to / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})


def own_pipeline(tokenizer: Tokenizer, *, source: bool = False) -> dict[str, Any]:
    """Return heed's own tokenizer as a pipeline that gives the same ids: a space before the text, and the begin token before that.

    Args:
        source: whether the end token stands behind the text instead.
    """
    backend = Backend.from_str(tokenizer.backend.to_str())
    backend.normalizer = normalizers.Prepend(" ")
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    begin, end = SPECIALS[tokenizer.bos_id], SPECIALS[tokenizer.eos_id]
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {end}" if source else f"{begin} $A",
        pair=f"$A $B {end}" if source else f"{begin} $A {end} $B",
        special_tokens=[(begin, tokenizer.bos_id), (end, tokenizer.eos_id)],
    )
    content: dict[str, Any] = json.loads(backend.to_str())
    return content


def own_settings() -> dict[str, Any]:
    """Return tokenizer_config.json of heed's own tokenizers."""
    return {"tokenizer_class": "PreTrainedTokenizerFast", **dict(zip(ROLES, SPECIALS, strict=True))}
