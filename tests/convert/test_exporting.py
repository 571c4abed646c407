"""Runs that heed trained itself go out to transformers where one of its classes can hold them, and are refused by name where none can."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from toy_checkpoints import SENTENCES, differing, load, tensors_of
from transformers import AutoTokenizer

from heed import cli
from heed.convert import export_folder, import_folder
from heed.convert.exporting import left_behind
from heed.data.calibration import Calibration, NoAnswer
from heed.errors import ConfigError
from heed.run import Run, resolve
from heed.tasks.base import Task
from heed.tasks.rewriting import with_end

GPT2 = {"positions": "learned", "activation": "gelu_tanh", "embedding_scale": False}
LLAMA = {"norm": "rms", "gated": True, "activation": "silu", "bias": False, "embedding_scale": False, "n_kv_heads": 1, "tied": False}
SMALL = {"d_model": 16, "n_heads": 2, "n_layers": 2, "d_ff": 24, "max_length": 80}
EMBEDDINGS = {"positions": "learned", "embedding_scale": False, "embedding_norm": True}
DISTILBERT = {**EMBEDDINGS, "norm_place": "after", "activation": "gelu", "norm_epsilon": 1e-12, "pooling": "first", "class_hidden": "relu"}
T5 = {
    "norm": "rms",
    "positions": "relative",
    "scaled": False,
    "scaled_head": True,
    "bias": False,
    "embedding_scale": False,
    "max_length": 512,
}
TEXTS = [{"text": text, "label": "AB"[i % 2], "source": text, "target": text[::2]} for i, text in enumerate(SENTENCES)]


def untrained(folder: Path, task: dict[str, Any], model: dict[str, Any]) -> Run:
    """Return a run with fresh weights and parts fitted to a few texts."""
    config = resolve({"task": task, "model": {**SMALL, **model}, "data": {"max_length": 70}})
    built: Task = config.build_task()
    built.prepare(TEXTS)
    run = Run.create(folder, config, built, about={})
    run.save()
    return Run.load(folder, device="cpu")


def generator(folder: Path, **model: Any) -> Run:
    return untrained(folder, {"name": "text_generation", "vocab_size": 300}, model)


@pytest.mark.parametrize(
    ("model", "kind"), [(GPT2, "GPT2LMHeadModel"), ({**GPT2, "tied": False}, "GPT2LMHeadModel"), (LLAMA, "LlamaForCausalLM")]
)
def test_a_language_model_of_heed_writes_the_same_in_transformers(model: dict[str, Any], kind: str, tmp_path: Path) -> None:
    run = generator(tmp_path / "run", **model)
    exported = export_folder(run.folder, tmp_path / "theirs")
    assert exported.kind == kind
    theirs, tokenizer = load(kind, tmp_path / "theirs"), AutoTokenizer.from_pretrained(tmp_path / "theirs")
    for text in [*SENTENCES, "", " <eos", "naïve 🙂"]:
        ids = [1, *run.task.tokenizer.encode(text)]
        assert tokenizer(text)["input_ids"] == ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        with torch.inference_mode():
            expected = run.model(torch.tensor([ids]))
            torch.testing.assert_close(theirs(torch.tensor([ids])).logits, expected, rtol=1e-5, atol=1e-5)


def test_a_classifier_of_heed_answers_the_same_in_transformers(tmp_path: Path) -> None:
    task = {"name": "text_classification", "vocab_size": 300}
    assert not export_folder(untrained(tmp_path / "plain", {**task, "cleaning": False}, DISTILBERT).folder, tmp_path / "a").left_behind
    run = untrained(tmp_path / "run", {**task, "cleaning": True}, DISTILBERT)
    exported = export_folder(run.folder, tmp_path / "theirs")
    assert exported.kind == "DistilBertForSequenceClassification"
    assert "not exported: what is done to texts before they are cut (task.cleaning)" in exported.lines()
    theirs, tokenizer = load(exported.kind, tmp_path / "theirs"), AutoTokenizer.from_pretrained(tmp_path / "theirs")
    for text, answer in zip(SENTENCES, run.predict([{"text": text} for text in SENTENCES], precision="float32"), strict=True):
        with torch.inference_mode():
            shares = theirs(input_ids=torch.tensor([tokenizer(text)["input_ids"]])).logits[0].softmax(-1)
        expected = dict(zip(theirs.config.id2label.values(), shares.tolist(), strict=True))
        assert answer.details["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_what_was_fitted_on_validation_answers_is_said_to_stay_behind() -> None:
    classifier: Task = resolve({"task": {"name": "text_classification", "cleaning": False}}).build_task()
    classifier.parts = {"calibration": Calibration()}
    assert left_behind(classifier) == []
    classifier.parts = {"calibration": Calibration(1.5, 0.875)}
    assert left_behind(classifier) == [
        "the temperature 1.5 by which logits are divided (task.calibrate)",
        "the probability 0.875 below which answers are withheld (task.abstain_precision)",
    ]
    answering: Task = resolve({"task": "question_answering"}).build_task()
    answering.parts = {"no_answer": NoAnswer(-0.5)}
    assert left_behind(answering) == ["the threshold -0.5 beyond which a question is given no answer (parts/no_answer.json)"]


def test_a_source_that_heed_rewrites_ends_in_transformers_as_it_ends_here(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", {"name": "text_to_text", "vocab_size": 300, "cleaning": False}, T5)
    exported = export_folder(run.folder, tmp_path / "theirs")
    theirs, tokenizer = load(exported.kind, tmp_path / "theirs"), AutoTokenizer.from_pretrained(tmp_path / "theirs")
    begin = torch.tensor([[1, 5, 7]])
    for text in [*SENTENCES, ""]:
        (ids,) = with_end(run.task.tokenizer, [text])
        assert tokenizer(text)["input_ids"] == ids.tolist()
        with torch.inference_mode():
            expected = run.model(ids[None], None, begin)
            torch.testing.assert_close(theirs(input_ids=ids[None], decoder_input_ids=begin).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_exported_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = generator(tmp_path / "run", **LLAMA)
    export_folder(run.folder, tmp_path / "theirs")
    back = import_folder(tmp_path / "theirs", tmp_path / "back").run
    state = run.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in back.model.state_dict().items())
    texts = [*SENTENCES, "", "naïve 🙂"]
    assert back.task.parts["tokenizer"].encode_batch(texts) == run.task.tokenizer.encode_batch(texts)  # type: ignore[attr-defined]


REFUSED = [
    ({**GPT2, "positions": "rotary"}, r"gpt2: model\.positions=rotary, expected learned; llama: model\.gated=false, expected true"),
    ({**LLAMA, "embedding_scale": True}, r"llama: model\.embedding_scale=true, expected false"),
    ({**GPT2, "adaptive": True}, r"gpt2: model\.adaptive=true, expected false"),
    ({**LLAMA, "weight_rank": 4}, r"llama: model\.weight_rank=4, expected null"),
]


@pytest.mark.parametrize(("model", "match"), REFUSED)
def test_what_no_class_can_hold_is_refused_by_the_name_of_the_setting(model: dict[str, Any], match: str, tmp_path: Path) -> None:
    run = generator(tmp_path / "run", **model)
    with pytest.raises(ConfigError, match=match):
        export_folder(run.folder, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize("tokens", ["subwords", "words"])
def test_n_grams_beside_a_network_are_refused_by_their_name_whatever_else_does_not_fit(tokens: str, tmp_path: Path) -> None:
    task = {"name": "text_classification", "tokens": tokens, "vocab_size": 300}
    run = untrained(tmp_path / "run", task, {**DISTILBERT, "n_grams": 2, "n_gram_rows": 997})
    with pytest.raises(ConfigError, match=r"run: model\.n_grams=2, expected 0: no class of transformers has n-grams .*; export a run that"):
        export_folder(run.folder, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_a_vocabulary_of_characters_has_no_form(tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", {"name": "text_generation", "tokens": "characters"}, GPT2)
    with pytest.raises(ConfigError, match="a vocabulary of the kind 'characters' has no form"):
        export_folder(run.folder, tmp_path / "theirs")


def test_weights_beyond_the_size_of_a_file_are_written_as_several_with_an_index(tmp_path: Path) -> None:
    generator(tmp_path / "run", **GPT2)
    export_folder(tmp_path / "run", tmp_path / "one")
    export_folder(tmp_path / "run", tmp_path / "many", shard_bytes=10_000)
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert [path.name for path in shards] == [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    assert len(shards) > 2
    whole = tensors_of(tmp_path / "one")
    assert differing(tensors_of(tmp_path / "many"), whole) == []
    sizes = [sum(tensor.nbytes for tensor in load_file(path).values()) for path in shards]
    assert all(size <= 10_000 or len(load_file(path)) == 1 for size, path in zip(sizes, shards, strict=True))
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(sizes)
    ids = torch.randint(5, 60, (2, 7))
    with torch.inference_mode():
        assert torch.equal(*(load("GPT2LMHeadModel", tmp_path / name)(ids).logits for name in ("one", "many")))
    import_folder(tmp_path / "many", tmp_path / "back")
    export_folder(tmp_path / "back", tmp_path / "again")
    assert differing(tensors_of(tmp_path / "again"), whole) == []


def test_the_verbs_import_and_export(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    generator(tmp_path / "run", **GPT2)
    monkeypatch.chdir(tmp_path)

    def heed(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["heed", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    code, out, _ = heed("export", "run", "--format", "hf", "--to", "theirs")
    assert (code, out.strip()) == (0, "28 tensors; transformers loads them with GPT2LMHeadModel.from_pretrained('theirs')")
    code, out, _ = heed("import", "theirs", "--to", "back", "decode.max_length=7")
    assert code == 0
    assert out.splitlines()[0].startswith("GPT2LMHeadModel -> text_generation: ")
    assert out.splitlines()[-1] == "run folder: back"
    assert Run.load("back", device="cpu").config.decode.max_length == 7
    code, _, err = heed("import", "theirs", "--to", "back")
    assert code == 1
    assert "exists already" in err
    assert heed("import", "theirs")[2] == "heed: name the run folder to make: heed import theirs --to runs/mine\n"
    assert heed("export", "run", "--format", "onnx", "--to", "x")[0] == 1
    assert heed("export", "run", "--max-shard-size", "0.01MB", "--to", "shards")[0] == 0
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    wrong = "heed: --max-shard-size {}: expected a number with B, KB, MB or GB, such as 500MB\n"
    for size in ("5", "0GB", "big"):
        assert heed("export", "run", "--max-shard-size", size, "--to", "x")[2] == wrong.format(size)
    for options in (["--dtype", "float16"], ["--max-shard-size", "1GB"]):
        assert "would be ignored by --format peft" in heed("export", "run", "--format", "peft", *options, "--to", "x")[2]
