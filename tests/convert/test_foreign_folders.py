"""Every kind of wrong folder is one clear line, and what a folder may look like beside what transformers writes today."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_checkpoints import (
    AWKWARD,
    SENTENCES,
    byte_level_backend,
    differing,
    gpt2_tokenizer,
    llama_tokenizer,
    roberta_tokenizer,
    save,
    tensors_of,
    texts_of,
    word_piece_tokenizer,
)
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
    RobertaConfig,
    RobertaForMaskedLM,
)

from heed.convert import export_folder, import_folder
from heed.convert.folder import Settings
from heed.convert.llama import Llama
from heed.data.foreign import ForeignTokenizer
from heed.errors import CheckpointError, ConfigError, HeedError
from heed.evaluation import evaluate_run
from heed.inspection import inspect_run
from heed.report import write_report
from heed.run import Run, read_config

BERT_SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a BERT and a GPT-2."""
    torch.manual_seed(11)
    base, words, end = tmp_path_factory.mktemp("saved"), word_piece_tokenizer(), len(gpt2_tokenizer()) - 1
    bert = BertForMaskedLM(BertConfig(vocab_size=len(words), **BERT_SHAPE))
    small = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": end, "eos_token_id": end}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=end + 1, **small))
    return {"bert": save(bert, words, base / "bert"), "gpt2": save(gpt2, gpt2_tokenizer(), base / "gpt2")}


@pytest.fixture
def folders(saved: dict[str, Path], tmp_path: Path) -> Folders:
    """Return a copy of a folder, to be damaged."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(saved[name], tmp_path / name))

    return copy


def edit(folder: Path, **fields: Any) -> None:
    """Change config.json; None takes a field away."""
    content = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def refused(folder: Path, match: str, kind: type[HeedError] = ConfigError, **options: Any) -> None:
    """Check that importing is refused, in one line, and leaves nothing behind."""
    with pytest.raises(kind, match=match) as caught:
        import_folder(folder, folder.parent / "run", **options)
    assert "\n" not in str(caught.value)
    assert not (folder.parent / "run").exists()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("bert", {"architectures": ["BertForNextSentencePrediction"]}, r"BertForNextSentencePrediction.*expected one of BertForMaskedLM, .*T5"),
    ("bert", {"architectures": None}, r"no architectures, with model_type='bert', expected one of"),
    ("bert", {"position_embedding_type": "relative_key"}, r"position_embedding_type='relative_key', expected 'absolute'"),
    ("bert", {"is_decoder": True}, r"is_decoder=True, expected False"),
    ("bert", {"hidden_act": "quick_gelu"}, r"hidden_act='quick_gelu' is not one of gelu_new, .*heed cannot compute it"),
    ("bert", {"tie_word_embeddings": False}, r"tie_word_embeddings=False, expected True"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, r"scale_attn_by_inverse_layer_idx=True, expected False"),
    ("gpt2", {"scale_attn_weights": False}, r"scale_attn_weights=False, expected True"),
    ("gpt2", {"vocab_size": 100}, r"tokenizer knows ids up to \d+, the model those below vocab_size=100"),
]


@pytest.mark.parametrize(("name", "fields", "match"), REFUSED)
def test_settings_that_heed_cannot_do_are_refused_by_name_and_value(folders: Folders, name: str, fields: Any, match: str) -> None:
    folder = folders(name)
    edit(folder, **fields)
    refused(folder, match)


ROTARY: list[tuple[Any, dict[str, Any], str]] = [
    (LlamaConfig, {"rope_scaling": {"type": "yarn", "factor": 2.0}}, r"rope_scaling=.*'yarn'.*expected the type default, linear, llama3"),
    (
        LlamaConfig,
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 2.0}},
        r"rope_parameters: low_freq_factor=2\.0, expected 1\.0",
    ),
    (LlamaConfig, {"rope_parameters": {"rope_theta": 5e5, "partial_rotary_factor": 0.5}}, r"partial_rotary_factor=0\.5, expected 1\.0"),
    (MistralConfig, {"sliding_window": 16}, r"sliding_window=16 is less than max_position_embeddings"),
    (Qwen2Config, {"use_sliding_window": True}, r"use_sliding_window=True, expected False"),
]


@pytest.mark.parametrize(("config", "fields", "match"), ROTARY)
def test_kinds_of_attention_that_heed_lacks_are_refused(config: Any, fields: dict[str, Any], match: str, tmp_path: Path) -> None:
    content = config(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8).to_dict()
    kind = f"{config.__name__.removesuffix('Config')}ForCausalLM"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text(json.dumps({**content, "rope_scaling": None, "architectures": [kind], **fields}))
    save_file({"model.embed_tokens.weight": torch.zeros(9, 8)}, tmp_path / "theirs" / "model.safetensors")
    refused(tmp_path / "theirs", match)


def test_a_folder_without_config_or_weights_or_tokenizer_says_what_it_lacks(folders: Folders) -> None:
    folder = folders("bert")
    refused(folder / "nowhere", "is no folder", CheckpointError)
    (folder / "tokenizer.json").rename(folder / "aside")
    refused(folder, "has no tokenizer.json, nor the older files", CheckpointError)
    (folder / "aside").rename(folder / "tokenizer.json")
    (folder / "model.safetensors").unlink()
    refused(folder, "has no model.safetensors and no model.safetensors.index.json; fetch", CheckpointError)
    (folder / "config.json").unlink()
    refused(folder, "has no config.json", CheckpointError)


def test_pickled_weights_are_refused_with_the_way_out(folders: Folders) -> None:
    folder = folders("bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, r"pytorch_model\.bin: is a pickle, which runs .* you trust the file, .*save_pretrained", CheckpointError)


def test_damaged_json_and_weights_are_named(folders: Folders) -> None:
    folder = folders("gpt2")
    (folder / "tokenizer.json").write_text('{"model": {}}')
    refused(folder, "its tokenizer cannot be read", CheckpointError)
    (folder / "config.json").write_text("{")
    refused(folder, r"config\.json: cannot be read as JSON", CheckpointError)
    other = folders("bert")
    (other / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes()[:200])
    refused(other, r"model\.safetensors: cannot be read", CheckpointError)


def test_a_weight_that_is_missing_or_of_another_shape_is_named(folders: Folders) -> None:
    folder = folders("gpt2")
    tensors = load_file(folder / "model.safetensors")
    name = "transformer.h.0.mlp.c_fc.weight"
    save_file({**tensors, name: tensors[name][:, 1:].contiguous()}, folder / "model.safetensors")
    refused(folder, rf"{name}: has the shape \(16, 63\), .* expected \(64, 16\)", CheckpointError)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, folder / "model.safetensors")
    refused(folder, rf"the weights lack {name}, of which heed makes stack\.blocks\.0\.feed_forward\.up\.weight", CheckpointError)
    refused(folder, "has no class for the task translation", task="translation")


@pytest.mark.parametrize("named", [None, ["BertForNextSentencePrediction"]])
def test_of_a_class_that_heed_does_not_know_the_body_is_used_where_the_task_is_said(folders: Folders, named: Any) -> None:
    folder = folders("bert")
    edit(folder, architectures=named)
    refused(folder, r"; or use its body with --task masked_lm or question_answering or .* or text_classification$")
    refused(folder, r"bert: has no class for the task translation", task="translation")
    done = import_folder(folder, folder.parent / "run", task="sentence_similarity")
    assert done.kind == "BertModel"
    assert all(name.startswith("cls.") for name in done.unused)
    assert not done.fresh


def test_a_head_that_is_missing_is_never_made_up_without_being_asked_for(folders: Folders) -> None:
    folder = folders("bert")
    edit(folder, architectures=["BertForSequenceClassification"])
    refused(folder, r"the weights lack bert\.pooler\.dense\.bias.*--task", CheckpointError)
    refused(folder, r"model\.n_layers: is what .* says", settings={"model": {"n_layers": 3}}, task="masked_lm")


def test_tied_weights_that_differ_are_refused(folders: Folders) -> None:
    folder = folders("gpt2")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["transformer.wte.weight"] + 1}, folder / "model.safetensors")
    refused(folder, r"lm_head\.weight: differs from transformer\.wte\.weight", CheckpointError)
    save_file({**tensors, "lm_head.weight": tensors["transformer.wte.weight"].clone()}, folder / "model.safetensors")
    assert import_folder(folder, folder.parent / "run").unused == []


def test_shards_are_read_as_one_file_and_a_missing_one_is_named(folders: Folders) -> None:
    folder = folders("gpt2")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(sorted(tensors))}
    for shard in set(places.values()):
        save_file({name: tensor for name, tensor in tensors.items() if places[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    import_folder(folder, folder.parent / "run")
    export_folder(folder.parent / "run", folder.parent / "back")
    assert differing(tensors_of(folder.parent / "back"), tensors) == []
    shutil.rmtree(folder.parent / "run")
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, r"model-00002-of-00002\.safetensors: is not there", CheckpointError)


def test_names_of_old_files_and_of_bodies_without_a_head_are_understood(folders: Folders) -> None:
    old = folders("bert")
    tensors = load_file(old / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for name, t in tensors.items()
    }
    save_file({**renamed, "bert.embeddings.position_ids": torch.arange(40)[None]}, old / "model.safetensors")
    assert import_folder(old, old.parent / "run").unused == []
    body = folders("gpt2")
    tensors = load_file(body / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file({**bare, "h.0.attn.bias": torch.ones(1, 1, 32, 32)}, body / "model.safetensors")
    assert import_folder(body, body.parent / "other").unused == []
    export_folder(body.parent / "other", body.parent / "back")
    assert differing(tensors_of(body.parent / "back"), tensors) == []


def test_tensors_without_use_are_listed_and_remembered(tmp_path: Path) -> None:
    words = word_piece_tokenizer()
    save(BertForPreTraining(BertConfig(vocab_size=len(words), **BERT_SHAPE)), words, tmp_path / "theirs")
    done = import_folder(tmp_path / "theirs", tmp_path / "run")
    unused = ["bert.pooler.dense.bias", "bert.pooler.dense.weight", "cls.seq_relationship.bias", "cls.seq_relationship.weight"]
    assert done.unused == unused
    assert any("not used: bert.pooler.dense.bias, " in line for line in done.lines())
    assert "cls.seq_relationship.bias" in (tmp_path / "run" / "config.yaml").read_text()
    assert done.run.task.name == "masked_lm"


def test_a_vocabulary_in_the_older_files_cuts_as_the_newer_one(folders: Folders, tmp_path: Path) -> None:
    bert, words = folders("bert"), word_piece_tokenizer()
    (bert / "tokenizer.json").unlink()
    ordered = sorted(words.get_vocab().items(), key=lambda item: item[1])
    (bert / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in ordered), encoding="utf-8")
    import_folder(bert, tmp_path / "words")
    gpt2, backend = folders("gpt2"), byte_level_backend([])
    (gpt2 / "tokenizer.json").unlink()
    backend.model.save(str(gpt2))
    vocab = json.loads((gpt2 / "vocab.json").read_text(encoding="utf-8"))
    (gpt2 / "vocab.json").write_text(json.dumps({**vocab, "<|endoftext|>": len(vocab)}), encoding="utf-8")
    import_folder(gpt2, tmp_path / "bytes")
    merges = [tuple(line.split(" ")) for line in (gpt2 / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
    theirs = BertTokenizer(vocab=words.get_vocab()), GPT2Tokenizer(vocab={**vocab, "<|endoftext|>": len(vocab)}, merges=merges)
    texts = [*AWKWARD, *SENTENCES, "fox<|endoftext|>dog"]
    for name, tokenizer in zip(("words", "bytes"), theirs, strict=True):
        ours = Run.load(tmp_path / name, device="cpu").task.parts["tokenizer"]
        assert [[ours.ids[i] for i in ids] for ids in ours.encode_batch(texts)] == texts_of(tokenizer, texts)


def test_tokens_that_were_added_to_the_older_files_cut_as_in_transformers(tmp_path: Path) -> None:
    words = word_piece_tokenizer()
    n = len(words)
    folder = save(BertForMaskedLM(BertConfig(vocab_size=n + 5, **BERT_SHAPE)), words, tmp_path / "theirs")
    (folder / "tokenizer.json").unlink()
    ordered = sorted(words.get_vocab(), key=words.get_vocab().__getitem__)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in ordered), encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({"[E2]": n + 1, "[E1]": n}))
    theirs, texts = BertTokenizer.from_pretrained(folder), ["the [E1] fox[E2]", "[e1]", "dog[E3]"]
    ours = import_folder(folder, tmp_path / "run").run.task.parts["tokenizer"]
    assert isinstance(ours, ForeignTokenizer)
    expected = texts_of(theirs, texts)
    assert {n, n + 1} <= set(expected[0])
    assert [[ours.ids[i] for i in ids] for ids in ours.encode_batch(texts)] == expected
    shutil.rmtree(tmp_path / "run")
    (folder / "added_tokens.json").write_text(json.dumps({"[E1]": n + 2}))
    refused(folder, r"the token '\[E1\]' has the id \d+, which does not follow the vocabulary; fetch", CheckpointError)
    (folder / "added_tokens.json").write_text(json.dumps({"[E1]": "x"}))
    refused(folder, r"added_tokens\.json: '\[E1\]' has the id 'x'; fetch it again", CheckpointError)
    (folder / "added_tokens.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {str(n): {"kontent": "[E1]"}}}))
    refused(folder, r"tokenizer_config\.json: added_tokens_decoder has .*, expected a token", CheckpointError)


def test_padding_that_was_added_behind_the_vocabulary_of_gpt2_is_known(folders: Folders, tmp_path: Path) -> None:
    folder, backend = folders("gpt2"), byte_level_backend([])
    (folder / "tokenizer.json").unlink()
    backend.model.save(str(folder))
    end = len(gpt2_tokenizer()) - 1
    (folder / "added_tokens.json").write_text(json.dumps({"<|endoftext|>": end, "[PAD]": end + 1}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "pad_token": {"content": "[PAD]"}}))
    tensors = load_file(folder / "model.safetensors")
    rows = tensors["transformer.wte.weight"]
    save_file({**tensors, "transformer.wte.weight": torch.cat([rows, rows[:1]])}, folder / "model.safetensors")
    edit(folder, vocab_size=end + 2)
    ours = import_folder(folder, tmp_path / "run").run.task.parts["tokenizer"]
    assert isinstance(ours, ForeignTokenizer)
    assert ours.specials == [end + 1, None, end, None]
    export_folder(tmp_path / "run", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["pad_token_id"] == end + 1


def test_the_older_files_of_roberta_cut_as_its_tokenizer(tmp_path: Path) -> None:
    words = roberta_tokenizer()
    model = RobertaForMaskedLM(RobertaConfig(vocab_size=len(words), type_vocab_size=1, pad_token_id=1, **BERT_SHAPE))
    folder = save(model, words, tmp_path / "theirs")
    (folder / "tokenizer.json").unlink()
    byte_level_backend(["<s>", "<pad>", "</s>", "<unk>"]).model.save(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    (folder / "vocab.json").write_text(json.dumps({**vocab, "<mask>": len(vocab)}), encoding="utf-8")
    ours = import_folder(folder, tmp_path / "run").run.task.parts["tokenizer"]
    texts = [*AWKWARD, *SENTENCES, "the <mask> dog"]
    assert isinstance(ours, ForeignTokenizer)
    assert [[ours.ids[i] for i in ids] for ids in ours.encode_batch(texts)] == texts_of(words, texts)
    assert ours.mask_id in ours.encode(texts[-1])


def test_evaluating_inspecting_and_reporting_work_on_an_imported_run(folders: Folders, tmp_path: Path) -> None:
    import_folder(folders("gpt2"), tmp_path / "run")
    (tmp_path / "texts.txt").write_text("".join(f"{sentence}\n" for sentence in SENTENCES), encoding="utf-8")
    run = Run.load(tmp_path / "run", device="cpu")
    scores = evaluate_run(run, str(tmp_path / "texts.txt"))
    assert scores["perplexity"]["value"] > 1
    found, lines = inspect_run(tmp_path / "run")
    assert found["task"] == "text_generation"
    assert lines
    assert "text_generation" in write_report(tmp_path / "run").read_text(encoding="utf-8")
    config = read_config(tmp_path / "run")
    assert config.model.absent_ids == [0, 1, 3]
    assert config.decode.precision == "float32", "rounded products would not be what the model computed where it came from"


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"num_attention_heads": 5}, r"config\.json: asks for what heed cannot compute: model\.n_heads=5 does not divide"),
        ({"max_position_embeddings": 2}, r"config\.json: asks for what heed cannot compute: data\.max_length"),
        ({"architectures": [{"name": "BertForMaskedLM"}]}, r"config\.json: architectures=\[\{'name'"),
    ],
)
def test_values_that_make_no_model_are_blamed_on_the_file_they_stand_in(folders: Folders, fields: dict[str, Any], match: str) -> None:
    folder = folders("bert")
    edit(folder, **fields)
    refused(folder, match)


@pytest.mark.parametrize("value", ["x", ["x"], 1.5])
def test_an_end_token_that_is_no_number_is_refused(folders: Folders, value: Any) -> None:
    folder = folders("gpt2")
    edit(folder, eos_token_id=value)
    refused(folder, r"config\.json: eos_token_id=.*, expected a (list of whole numbers|whole number); fetch", CheckpointError)


def test_no_heads_are_refused_before_features_are_divided_by_them() -> None:
    with pytest.raises(CheckpointError, match="num_attention_heads=0, expected a whole number from 1"):
        Llama().settings(Settings({"hidden_size": 16, "num_attention_heads": 0}), "LlamaForCausalLM")


@pytest.mark.parametrize(("name", "beside"), [("vocab.txt", "bert"), ("merges.txt", "gpt2")])
def test_older_files_of_a_tokenizer_that_are_no_text_are_named(folders: Folders, name: str, beside: str) -> None:
    folder = folders(beside)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text("{}")
    (folder / name).write_bytes(b"\xff\xfe\x00")
    refused(folder, rf"{name}: cannot be read as text .*; fetch it again", CheckpointError)


@pytest.mark.parametrize("fields", [{"id2label": {"0": "LABEL_0"}}, {"num_labels": 1}, {"problem_type": "regression"}])
def test_a_head_that_computes_a_number_is_no_classifier(folders: Folders, fields: dict[str, Any]) -> None:
    folder = folders("bert")
    edit(folder, architectures=["BertForSequenceClassification"], **fields)
    refused(folder, r"config\.json: (a single label|problem_type='regression'), expected .*heed has no regression on texts")


def test_labels_of_one_name_are_refused(folders: Folders) -> None:
    folder = folders("bert")
    edit(folder, id2label={"0": "yes", "1": "no", "2": "yes"})
    refused(folder, r"config\.json: id2label has 'yes' 2 times, .* rename them there", task="text_classification")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("adapter.json", "--base RUN"), ("config.yaml", "this is a run folder already"), ("adapter_config.json", "merge_and_unload")],
)
def test_a_folder_of_another_kind_says_what_to_do_with_it(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).write_text("{}")
    refused(tmp_path / "other", f"has no config.json; .*{hint}", CheckpointError)


def test_biases_that_the_settings_ask_for_and_the_file_lacks_are_named(tmp_path: Path) -> None:
    tokenizer = llama_tokenizer()
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), attention_bias=False, **shape))
    edit(save(model, tokenizer, tmp_path / "llama"), attention_bias=True)
    refused(tmp_path / "llama", r"says that there is a model\.layers\.0\.self_attn\.q_proj\.bias, which the weights lack", CheckpointError)


def test_a_foreign_folder_in_the_place_of_a_run_says_how_to_make_one_of_it(folders: Folders) -> None:
    with pytest.raises(CheckpointError, match=r"not a run folder .* make a run of it first: heed import .*bert --to RUN"):
        Run.load(folders("bert"))


def test_a_setting_of_many_values_is_shown_short_and_told_whole(folders: Folders, tmp_path: Path) -> None:
    import_folder(folders("gpt2"), tmp_path / "run", settings={"decode": {"stop": [f"word {i}" for i in range(40)]}})
    found, lines = inspect_run(tmp_path / "run")
    assert len(found["settings"]["changed"]["decode.stop"]["value"]) == 40
    (shown,) = [line for line in lines if "decode.stop" in line]
    assert "(40 values; --json prints all)" in shown
    assert max(map(len, lines)) < 200


def test_a_run_that_is_there_is_kept_unless_replacing_it_is_asked_for(folders: Folders, tmp_path: Path) -> None:
    folder = folders("bert")
    import_folder(folder, tmp_path / "run")
    before = (tmp_path / "run" / "manifest.json").read_text()
    with pytest.raises(ConfigError, match="exists already"):
        import_folder(folder, tmp_path / "run")
    with pytest.raises(ConfigError, match="exists already and is never overwritten; choose another --to"):
        export_folder(tmp_path / "run", folder)
    assert (tmp_path / "run" / "manifest.json").read_text() == before
    import_folder(folder, tmp_path / "run", force=True)
