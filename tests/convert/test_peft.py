"""Adapters in peft's layout give what heed's give: checked by peft's own formula, W + alpha / r * B A, in models of transformers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_decoders import LLAMA_31, gpt2, llama_like
from toy_checkpoints import SENTENCES, gpt2_tokenizer, llama_tokenizer, load, save, word_piece_tokenizer
from transformers import BertConfig, BertForMaskedLM, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from heed.convert import export_folder, export_peft, import_folder
from heed.errors import ConfigError
from heed.run import Run
from heed.verbs import train

QUICK = {"steps": 3, "lr": 0.03, "precision": "float32", "tensorboard": False, "warmup": 1, "batch_tokens": 300}
BERT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 48}


@dataclass(frozen=True)
class Case:
    """A model of transformers, and a run that learned adapters beside it."""

    base: Path
    run: Run
    kind: str


def bert(kind: Any = BertForMaskedLM) -> tuple[PreTrainedModel, Any]:
    tokenizer = word_piece_tokenizer()
    return kind(BertConfig(vocab_size=len(tokenizer), **BERT)), tokenizer


def gpt2_pair() -> tuple[PreTrainedModel, Any]:
    return gpt2(tokenizer := gpt2_tokenizer()), tokenizer


def llama_pair() -> tuple[PreTrainedModel, Any]:
    return llama_like(LlamaForCausalLM, LlamaConfig, tokenizer := llama_tokenizer(), head_dim=6, **LLAMA_31), tokenizer


def adapted(folder: Path, pair: tuple[PreTrainedModel, Any], task: str, targets: list[str], **settings: Any) -> Run:
    """Save a model, import it, and learn adapters for a task beside it."""
    save(*pair, folder / "theirs")
    import_folder(folder / "theirs", folder / "base")
    rows = [f"{text}\t{'long' if len(text) > 45 else 'short'}" for text in SENTENCES * 4]
    (folder / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    data = {"train": str(folder / "rows.tsv"), "valid": str(folder / "rows.tsv"), "allow_leaks": True}
    lora = {"rank": 2, "alpha": 5.0, "targets": targets, "merge": False}
    return train(task, to=folder / "run", quiet=True, init=str(folder / "base"), data=data, lora=lora, train=QUICK, **settings)


@pytest.fixture(scope="module", params=["bert", "gpt2", "llama"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.manual_seed(4)
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "bert":
        like_theirs = {"model": {"pooling": "first", "class_hidden": "tanh"}}
        run = adapted(folder, bert(), "text_classification", ["query", "value", "down"], **like_theirs)
        return Case(folder / "theirs", run, "BertForSequenceClassification")
    if request.param == "gpt2":
        return Case(folder / "theirs", adapted(folder, gpt2_pair(), "text_generation", ["query", "value", "down"]), "GPT2LMHeadModel")
    return Case(folder / "theirs", adapted(folder, llama_pair(), "text_generation", ["query", "key", "gate"]), "LlamaForCausalLM")


def as_peft_does(model: PreTrainedModel, folder: Path) -> None:
    """Add adapters to the weights, and put modules that were learned in full in their places, as peft computes and names them."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {name.removeprefix("base_model.model."): one for name, one in load_file(folder / "adapter_model.safetensors").items()}
    with torch.no_grad():
        for module in config["target_modules"]:
            down, up = (tensors.pop(f"{module}.lora_{letter}.weight") for letter in "AB")
            last = module.rpartition(".")[2]
            rank, alpha = config["rank_pattern"].get(last, config["r"]), config["alpha_pattern"].get(last, config["lora_alpha"])
            assert down.size(0) == rank
            change = alpha / rank * up @ down
            weight = model.get_submodule(module).get_parameter("weight")
            weight += change.t() if config["fan_in_fan_out"] else change
        for name, tensor in tensors.items():
            assert name.rpartition(".")[0] in config["modules_to_save"]
            model.get_parameter(name).copy_(tensor)


def test_a_model_with_the_exported_adapters_computes_what_the_exported_run_does(case: Case, tmp_path: Path) -> None:
    lines = export_peft(case.run.folder, tmp_path / "peft")
    heads = {"num_labels": 2} if case.kind.endswith("Classification") else {}
    model = getattr(transformers, case.kind).from_pretrained(case.base, **heads).eval()
    ids = torch.randint(5, 90, (2, 7))
    with torch.inference_mode():
        before = model(ids).logits
    as_peft_does(model, tmp_path / "peft")
    whole = load(export_folder(case.run.folder, tmp_path / "whole").kind, tmp_path / "whole")
    with torch.inference_mode():
        expected = whole(ids).logits
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-2)
    assert f"PeftModel.from_pretrained({case.kind}.from_pretrained(BASE" in lines[0]
    assert (lines[-1] == "labels, by number: long, short") == bool(heads)


def test_names_of_a_body_alone_have_no_prefix_there(tmp_path: Path) -> None:
    run = adapted_to_pairs(tmp_path)
    export_peft(run.folder, tmp_path / "peft")
    model = BertModel.from_pretrained(tmp_path / "theirs").eval()
    as_peft_does(model, tmp_path / "peft")
    whole = BertModel.from_pretrained(export_folder(run.folder, tmp_path / "whole").folder).eval()
    ids = torch.randint(5, 90, (2, 7))
    with torch.inference_mode():
        found, expected = model(ids).last_hidden_state, whole(ids).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def adapted_to_pairs(folder: Path) -> Run:
    """Return a run that learned from pairs of sentences beside a BERT without a head."""
    save(*bert(BertModel), folder / "theirs")
    import_folder(folder / "theirs", folder / "base")
    rows = [f"{one}\t{other}" for one in SENTENCES for other in SENTENCES if one != other]
    (folder / "pairs.tsv").write_text("\n".join(["text\ttext_pair", *rows]) + "\n", encoding="utf-8")
    data = {"train": str(folder / "pairs.tsv"), "valid": str(folder / "pairs.tsv"), "allow_leaks": True}
    lora = {"rank": 2, "merge": False}
    return train("sentence_similarity", to=folder / "run", quiet=True, init=str(folder / "base"), data=data, lora=lora, train=QUICK)


def test_what_has_no_place_in_the_layout_is_refused(tmp_path: Path) -> None:
    run = adapted(tmp_path, bert(BertModel), "masked_lm", ["query"])
    with pytest.raises(ConfigError, match=r"masked_head\.\w+: is new beside the adapters, .* export with --format hf"):
        export_peft(run.folder, tmp_path / "peft")
    with pytest.raises(ConfigError, match=r"base: keeps no adapters apart; train with init=RUN lora\.rank=8 lora\.merge=false"):
        export_peft(tmp_path / "base", tmp_path / "peft")
    assert not (tmp_path / "peft").exists()
    with pytest.raises(ConfigError, match="theirs: exists already and is never overwritten"):
        export_peft(run.folder, tmp_path / "theirs")
