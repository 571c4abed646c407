"""Masked language modelling: what is read and foretold, against its definition; masks that are filled; training that can be resumed."""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers
from toy_runs import WORDS, toy_texts, write_rows

import heed
from heed.config import DecodeConfig, validate
from heed.data.batch import collate
from heed.data.foreign import ForeignTokenizer, Frame
from heed.data.masking import NOTHING
from heed.data.store import Encoded, Store
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.evaluation import compare_runs, evaluate_examples
from heed.model import Encoder, ModelConfig, build_model
from heed.run import Run, resolve
from heed.tasks.base import Answer
from heed.tasks.masked_lm import MaskedLM, MaskedLMSettings
from heed.training.train import fit_on, fit_recipe

BEGIN, END = Tokenizer.bos_id, Tokenizer.eos_id
LENGTH = 8
SIZES: dict[str, Any] = {"d_model": 24, "n_heads": 4, "n_layers": 2, "d_ff": 20, "dropout": 0.0}


def prose(n_words: int, seed: int = 0) -> str:
    """Return words of the toy language."""
    return " ".join(random.Random(seed).choices(list(WORDS), k=n_words))


TEXTS = ["the dog sees", prose(30), "好的 dog", "old", prose(9, 2)]


def own_task(**settings: Any) -> MaskedLM:
    """Return a task with a vocabulary of heed's own, of a piece for each word."""
    task = MaskedLM(validate(MaskedLMSettings, {"vocab_size": 330, **settings}), max_length=LENGTH)
    task.prepare([{"text": text} for text in [*TEXTS, *TEXTS]])
    return task


def foreign_task(**settings: Any) -> MaskedLM:
    """Return a task with a vocabulary as BERT has them, whose texts end with an end token."""
    words = ["[PAD]", "un", "[MASK]", "##able", "[UNK]", "[CLS]", "[SEP]", *WORDS, "好", "的", "##s"]
    backend = Backend(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(["[PAD]", "[MASK]", "[UNK]", "[CLS]", "[SEP]"])
    specials = [words.index(name) for name in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    mask = 4 + [index for index in range(len(words)) if index not in specials].index(words.index("[MASK]"))
    frame = Frame(ends_texts=True, mask=mask)
    tokenizer = ForeignTokenizer(json.loads(backend.to_str()), specials, len(words), frame=frame)
    return MaskedLM(validate(MaskedLMSettings, settings), {"tokenizer": tokenizer}, max_length=LENGTH)


def model_for(task: MaskedLM, **fields: Any) -> Encoder:
    torch.manual_seed(3)
    model = build_model(task.shape(ModelConfig(architecture="encoder", **{**SIZES, **fields})))
    assert isinstance(model, Encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(scope="module", params=["own", "foreign"])
def task(request: pytest.FixtureRequest) -> MaskedLM:
    return own_task() if request.param == "own" else foreign_task()


@pytest.fixture(scope="module")
def model(task: MaskedLM) -> Encoder:
    return model_for(task)


def encoded(task: MaskedLM, *texts: str, training: bool = True) -> list[Encoded]:
    return task.encode_all([{"text": text} for text in texts], training=training)


def around(task: MaskedLM, ids: Sequence[int]) -> Encoder | list[int]:
    """Return what the model is given of a window."""
    return [BEGIN, *ids, *([END] if task.tokenizer.ends_texts else [])]


def log_p_at(task: MaskedLM, model: Encoder, ids: Sequence[int]) -> torch.Tensor:
    """Return log p of all words at each place of a window (S, V), computed alone."""
    with torch.no_grad():
        logits = model.word_logits(torch.tensor([around(task, ids)]))
    return logits[0, 1 : len(ids) + 1].log_softmax(-1)


# --- what is read and foretold


def test_a_text_is_read_in_consecutive_windows_from_a_begin_token_on(task: MaskedLM, model: Encoder) -> None:
    for text, one in zip(TEXTS, encoded(task, *TEXTS), strict=True):
        ids = one["text"].tolist()
        assert ids == task.tokenizer.encode(text)
        windows = [window["text"].tolist() for window in task.pieces(one)]
        assert [token for window in windows for token in window] == ids
        assert all(len(window) == LENGTH for window in windows[:-1])
        assert task.n_places(one) == min(len(ids), LENGTH) + (2 if task.tokenizer.ends_texts else 1)
    seen: list[torch.Tensor] = []
    handle = model.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task.loss(model, collate(encoded(task, "old", "the dog sees")))
    handle.remove()
    rows = [[token for token in row if token] for row in seen[0].tolist()]
    assert [row[0] for row in rows] == [BEGIN, BEGIN]
    assert [row[-1] == END for row in rows] == [task.tokenizer.ends_texts] * 2


def test_a_long_document_is_divided_and_nothing_is_lost() -> None:
    text = prose(400, 7)
    found = list(own_task().divided({"text": text, "author": "nobody"}))
    assert len(found) > 5
    assert "".join(row["text"] for row in found) == text
    assert all(row["author"] == "nobody" for row in found)
    assert len(list(own_task(documents="paragraphs").divided({"text": "one\n\ntwo"}))) == 2


def test_the_loss_is_minus_log_p_of_the_chosen_tokens_alone(task: MaskedLM, model: Encoder) -> None:
    windows = [piece for one in encoded(task, *TEXTS) for piece in task.pieces(one)]
    hidden = [task.augmented(window, np.random.default_rng([1, row])) for row, window in enumerate(windows)]
    expected, n_right, n = 0.0, 0, 0
    for one in hidden:
        read, truth = one["text"].unbind(-1)
        log_p = log_p_at(task, model, read.tolist())
        for place in (truth != NOTHING).nonzero()[:, 0].tolist():
            expected -= float(log_p[place, truth[place]])
            n_right += int(log_p[place].argmax() == truth[place])
            n += 1
    with torch.no_grad():
        found = task.loss(model, collate(hidden))
    assert float(found.total) == pytest.approx(expected, rel=1e-4)
    assert (int(found.units), int(found.right)) == (n, n_right)


def test_gradients_come_from_the_chosen_places_alone(task: MaskedLM) -> None:
    model = model_for(task)
    hidden = [task.augmented(one, np.random.default_rng(2)) for one in encoded(task, *TEXTS[:3])]
    task.loss(model, collate(hidden)).total.backward()  # type: ignore[no-untyped-call]
    assert model.masked_head is not None
    chosen = {int(token) for one in hidden for token in one["text"][:, 1] if token}
    gradient = model.masked_head.bias.grad  # type: ignore[union-attr]
    assert gradient is not None
    assert {int(token) for token in (gradient < 0).nonzero()[:, 0]} <= chosen
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-4)


def test_special_tokens_are_never_hidden_nor_drawn(task: MaskedLM) -> None:
    special = {0, 1, 2, 3, task.tokenizer.mask_id}
    assert set(range(task.tokenizer.vocab_size)) - set(task.ordinary.tolist()) == special
    text = "the [MASK] dog [UNK] sees 🙂 [SEP] old"
    for number in range(50):
        found = task.augmented(encoded(task, text)[0], np.random.default_rng(number))["text"].tolist()
        assert not {truth for _, truth in found} - {NOTHING} & special
        original = encoded(task, text)[0]["text"].tolist()
        assert all(read in (token, task.tokenizer.mask_id) or read not in special for (read, _), token in zip(found, original, strict=True))


def test_whole_words_are_hidden_with_all_their_pieces() -> None:
    task = own_task(whole_words=True, mask_share=0.3)
    one = encoded(task, "unforeseeable dog circumstances sees")[0]
    starts = task.tokenizer.word_starts(one["text"].numpy())
    for number in range(30):
        chosen = task.augmented(one, np.random.default_rng(number))["text"][:, 1].numpy() != NOTHING
        assert all(len(set(word.tolist())) == 1 for word in np.split(chosen, np.flatnonzero(starts)[1:]))


def test_validation_hides_what_the_text_alone_decides_whatever_its_batch(task: MaskedLM, model: Encoder) -> None:
    with torch.no_grad():
        alone = [task.loss(model, collate([one])) for one in encoded(task, *TEXTS)]
        together = task.loss(model, collate(encoded(task, *TEXTS)))
    for place in range(3):
        assert float(together[place]) == pytest.approx(sum(float(one[place]) for one in alone), rel=1e-4)


def test_answers_of_the_examiner_are_the_loss_of_the_windows(task: MaskedLM, model: Encoder) -> None:
    examiner = task.examiner
    with torch.no_grad():
        answers = examiner.predict(model, collate(encoded(examiner, *TEXTS, training=False)), DecodeConfig())  # type: ignore[arg-type]
        losses = [task.loss(model, collate(list(task.pieces(one)))) for one in encoded(task, *TEXTS)]
    for answer, loss in zip(answers, losses, strict=True):
        assert -answer.details["log_likelihood"] == pytest.approx(float(loss.total), rel=1e-4)
        assert (answer.details["hidden"], answer.details["right"]) == (int(loss.units), int(loss.right))
    metrics = task.metrics()
    task.count(metrics, answers, [{"text": text} for text in TEXTS])
    content = metrics.scores().to_json()
    units = sum(float(loss.units) for loss in losses)
    assert content["perplexity"]["value"] == pytest.approx(math.exp(sum(float(loss.total) for loss in losses) / units), rel=1e-3)
    with pytest.raises(DataError, match="heed evaluate"):
        task.count(metrics, [Answer("the dog", details={"fills": []})], [{"text": "the dog"}])


# --- masks that are filled


def fills(task: MaskedLM, model: Encoder, *texts: str, **options: Any) -> list[Answer]:
    with torch.no_grad():
        return task.predict(model, collate(encoded(task, *texts, training=False)), DecodeConfig(**options))


def test_fills_are_the_likeliest_ordinary_tokens_with_their_probabilities(task: MaskedLM, model: Encoder) -> None:
    texts = ["the <mask> sees", "<mask> dog <mask> old"]
    for text, answer in zip(texts, fills(task, model, *texts, n_best=5), strict=True):
        ids = encoded(task, text, training=False)[0]["text"]
        places = (ids == task.tokenizer.mask_id).nonzero()[:, 0].tolist()
        shares = log_p_at(task, model, ids.tolist()).exp()
        best = []
        assert len(answer.details["fills"]) == len(places) == text.count("<mask>")
        for place, found in zip(places, answer.details["fills"], strict=True):
            order = [int(i) for i in shares[place].argsort(descending=True) if int(i) in set(task.ordinary.tolist())]
            assert [one["token"] for one in found] == [task.tokenizer.token(i) for i in order[:5]]
            assert [one["probability"] for one in found] == pytest.approx([float(shares[place, i]) for i in order[:5]], rel=1e-4)
            best.append(order[0])
        filled = ids.clone()
        filled[places] = torch.tensor(best)
        assert answer.text == task.tokenizer.decode(filled.tolist())
        expected = sum(math.log(float(shares[place, i])) for place, i in zip(places, best, strict=True))
        assert answer.score == pytest.approx(expected, abs=1e-4)
    assert [len(one) for one in fills(task, model, texts[0], n_best=3)[0].details["fills"]] == [3]


def test_each_mask_of_a_long_text_is_foretold_in_the_middle_of_a_window(task: MaskedLM, model: Encoder) -> None:
    words = prose(30, 4).split(" ")
    words[2], words[14], words[29] = "<mask>", "<mask>", "<mask>"
    (answer,) = fills(task, model, " ".join(words))
    ids = encoded(task, " ".join(words), training=False)[0]["text"].tolist()
    places = [place for place, token in enumerate(ids) if token == task.tokenizer.mask_id]
    for place, found in zip(places, answer.details["fills"], strict=True):
        start = max(0, min(place - LENGTH // 2, len(ids) - LENGTH))
        shares = log_p_at(task, model, ids[start : start + LENGTH]).exp()[place - start]
        assert found[0]["probability"] == pytest.approx(float(shares[task.ordinary].max()), rel=1e-4)
    assert answer.text.split()[0] == words[0]


@pytest.mark.parametrize(
    ("asked", "whole", "hidden"),
    [
        ("the <mask> sees", "the dog sees", "dog"),
        ("<mask> dog", "old dog", "old"),
        ("the dog <mask>", "the dog sees", "sees"),
        ("the <mask>.", "the dog.", "dog"),
        ("the <mask>\n\t sees", "the dog sees", "dog"),
    ],
)
@pytest.mark.parametrize("cleaning", [True, False])
def test_a_mask_stands_where_the_tokens_of_a_word_would(asked: str, whole: str, hidden: str, cleaning: bool) -> None:
    if "\n" in asked and not cleaning:
        whole = whole.replace(" sees", "\n\t sees")
    task = own_task(cleaning=cleaning)
    (ids,), expected = task.asked([asked]), task.tokenizer.encode(whole)
    place = ids.index(task.tokenizer.mask_id)
    (inside,) = task.tokenizer.encode_batch([hidden])
    assert ids[:place] + inside + ids[place + 1 :] == expected


def test_the_mask_of_a_foreign_tokenizer_is_one_too() -> None:
    task = foreign_task()
    assert task.asked(["the <mask> sees"]) == task.asked(["the [MASK] sees"])
    assert task.tokenizer.mask_id in task.asked(["The [MASK] sees"])[0]


def test_a_text_without_a_mask_is_refused_with_how_to_write_one(task: MaskedLM, model: Encoder) -> None:
    with pytest.raises(DataError, match=r"'the dog sees' has no <mask>; write <mask> where"):
        fills(task, model, "the <mask>", "the dog sees")
    told = task.unanswerable({"text": "the dog sees"})
    assert told is not None
    assert told.startswith("'the dog sees' has no <mask>; write <mask> where")
    assert task.unanswerable({"text": "the <mask> sees"}) is task.examiner.unanswerable({"text": "the dog sees"}) is None
    foreign = foreign_task()
    assert foreign.unanswerable({"text": "the [MASK] sees"}) is None
    assert foreign.unanswerable({"text": "the dog sees"}) == told


# --- settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "causal"}, "model.architecture=causal"),
        ({"architecture": "encoder", "hierarchical": True}, "model.hierarchical=true"),
        ({"architecture": "encoder", "positions": "learned", "max_length": LENGTH}, "do not fit model.max_length=8"),
    ],
)
def test_models_that_cannot_foretell_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        own_task().shape(ModelConfig(**fields))


def test_an_end_token_needs_a_learned_position_of_its_own() -> None:
    learned = ModelConfig(architecture="encoder", positions="learned", max_length=LENGTH + 1)
    assert own_task().shape(learned).masked_lm
    with pytest.raises(ConfigError, match="2 tokens around it"):
        foreign_task().shape(learned)


def test_the_defaults_are_a_plain_encoder_without_smoothing() -> None:
    usual = resolve("masked_lm")
    assert (usual.model.architecture, usual.train.label_smoothing, usual.task["mask_share"]) == ("encoder", 0.0, 0.15)


# --- from texts to scores


def recipe(folder: Path, **train: Any) -> dict[str, Any]:
    data = write_rows(folder / "texts.tsv", [{"text": row["text"]} for row in toy_texts(60)])
    return {
        "task": {"name": "masked_lm", "vocab_size": 330},
        "data": {"train": str(data), "valid": str(data), "allow_leaks": True, "max_length": LENGTH},
        "model": {**SIZES, "dropout": 0.1},
        "train": {"steps": 8, "batch_tokens": 100, "warmup": 2, "precision": "float32", "tensorboard": False, "evaluate_every": 4, **train},
        "decode": {"precision": "float32"},
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("masked")
    return heed.train(recipe(folder), to=folder / "run", quiet=True)


def test_of_many_texts_the_one_without_a_mask_is_named_by_its_number(trained: Run) -> None:
    texts = [{"text": text} for text in ("the <mask> sees", "<mask> dog", "the dog sees", "the dog")]
    with pytest.raises(DataError, match="input 3: 'the dog sees' has no <mask>"):
        list(trained.answers(texts, trained.config.decode))


def test_a_run_that_was_resumed_has_the_bits_of_one_that_was_not(trained: Run, tmp_path: Path) -> None:
    fit_recipe(recipe(tmp_path), {}, tmp_path / "run", force=False, quiet=True, stop=lambda n, value: True)
    resumed = fit_on(tmp_path / "run", quiet=True)
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_the_scores_of_a_run_are_the_figures_of_its_validation(trained: Run) -> None:
    found = json.loads((trained.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    batch = collate(list(Store(trained.folder / "store" / "valid")))
    with torch.no_grad():
        loss = trained.task.loss(trained.model, batch)
    total, units, right = (float(value) for value in loss)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(total / units), rel=1e-3)
    assert found["accuracy"]["value"] == pytest.approx(right / units, abs=1e-3)
    assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert (trained.folder / "report.html").is_file()


def test_runs_of_one_vocabulary_are_compared_on_the_same_hidden_tokens(trained: Run, tmp_path: Path) -> None:
    settings = recipe(tmp_path, steps=2)
    other = heed.train(settings, to=tmp_path / "other", quiet=True, seed=5)
    content = compare_runs(trained, other, settings["data"]["valid"])
    before = json.loads((trained.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    assert content["perplexity"]["a"] == before["perplexity"] != content["perplexity"]["b"]
    assert content["accuracy"].keys() >= {"a", "b", "difference", "p_value"}
    texts = [{"text": row["text"]} for row in toy_texts(60)]
    own = evaluate_examples(other, texts, other.config.decode).scores.to_json()
    assert own["perplexity"] == content["perplexity"]["b"]


def test_a_run_that_was_saved_fills_the_same(trained: Run) -> None:
    answer = trained.predict({"text": "the <mask> sees"})
    assert heed.load(str(trained.folder)).predict({"text": "the <mask> sees"}) == answer
    assert json.loads(json.dumps(answer.to_json()))["fills"][0][0].keys() == {"token", "probability"}
