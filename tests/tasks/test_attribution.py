"""How much each word spoke for an answer."""

import copy
import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers
from toy_classifiers import (
    LABELS,
    TRAIN,
    filler,
    inputs,
    model_for,
    pairs_of_texts,
    task_for,
    texts,
    trained_on_toys,
    trained_on_windows,
)
from toy_runs import DECISIVE

from heed.data.foreign import ForeignTokenizer, Frame
from heed.data.text import Tokenizer
from heed.data.words import Words
from heed.model import Encoder
from heed.run import Run
from heed.tasks import Answer
from heed.tasks.attribution import PATH_STEPS, word_weights
from heed.tasks.text_classification import TextClassification


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained_on_toys(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained_on_windows(tmp_path_factory.mktemp("windowed"))


def test_the_decisive_word_carries_the_largest_weight(single: Run) -> None:
    rows = [row for row in TRAIN if len(row["text"].split()) >= 3]
    found = []
    for row, answer in zip(rows, single.predict(inputs(rows)), strict=True):
        picture = single.task.pictures(single.model, row, answer)
        assert picture is not None
        assert picture["words"] == row["text"].split()
        assert picture["label"] == answer.text
        assert len(picture["weights"]) == len(picture["words"])
        found.append(picture["words"][int(np.argmax(picture["weights"]))] in DECISIVE)
    assert np.mean(found) > 0.8  # of three to seven words, so a quarter by chance


def _tokens(task: TextClassification, text: str) -> torch.Tensor:
    return torch.tensor([[Tokenizer.bos_id, *task.tokenizer.encode(text)]])


def test_a_weight_is_what_the_label_gains_on_the_way_from_the_average_word(single: Run) -> None:
    """Each step of the way is measured by finite differences of the label's lead over the mean of the others."""
    run = Run.load(single.folder, device="cpu")
    task, text = run.task, "one big red cat sees"
    assert isinstance(task, TextClassification)
    (answer,) = run.predict(texts(text))
    picture = task.pictures(run.model, {"text": text}, answer)
    assert picture is not None
    model, ids, chosen = copy.deepcopy(run.model).eval(), _tokens(task, text), LABELS.index(answer.text)
    assert isinstance(model, Encoder)

    def lead(share: float, place: int, further: float) -> float:
        def go(module: torch.nn.Module, arguments: Any, out: torch.Tensor) -> torch.Tensor:
            average = out[:, 1:].mean(1, keepdim=True)
            shares = torch.full((1, out.size(1), 1), share).index_add(1, torch.tensor([1 + place]), torch.full((1, 1, 1), further))
            return average + shares * (out - average)

        hook = model.stem.embedding.register_forward_hook(go)
        with torch.no_grad():
            scores = model.classify(ids)[0].double()
        hook.remove()
        others = [score.item() for number, score in enumerate(scores) if number != chosen]
        return scores[chosen].item() - sum(others) / len(others)

    step, n_words, shares = 0.01, len(text.split()), [(2 * i + 1) / (2 * PATH_STEPS) for i in range(PATH_STEPS)]
    slopes = [[(lead(share, place, step) - lead(share, place, -step)) / (2 * step) for share in shares] for place in range(n_words)]
    assert picture["weights"] == pytest.approx(np.mean(slopes, axis=1), rel=0.03, abs=1e-2)


def test_a_word_weighs_what_becomes_of_the_answer_without_it(single: Run) -> None:
    task, found = single.task, []
    assert isinstance(task, TextClassification)
    assert isinstance(single.model, Encoder)

    def lead(words: list[str], label: str) -> float:
        with torch.no_grad():
            scores = single.model.classify(_tokens(task, " ".join(words)).to(single.device))[0].double().cpu()
        return float(1.5 * scores[LABELS.index(label)] - scores.sum() / 2)

    for row in [row for row in TRAIN if len(row["text"].split()) >= 4][:12]:
        words, (answer,) = row["text"].split(), single.predict(inputs([row]))
        picture = task.pictures(single.model, row, answer)
        assert picture is not None
        lost = [lead(words, answer.text) - lead([*words[:i], *words[i + 1 :]], answer.text) for i in range(len(words))]
        found.append(np.corrcoef(picture["weights"], lost)[0, 1])
    assert np.mean(found) > 0.7


def test_the_only_word_of_a_text_has_a_weight(single: Run) -> None:
    (answer,) = single.predict(texts("red"))
    picture = single.task.pictures(single.model, {"text": "red"}, answer)
    assert picture is not None
    assert picture["weights"] != [0.0]


def test_the_weights_of_sub_words_are_joined_to_words() -> None:
    task = task_for(tokens="subwords", vocab_size=300)
    model = model_for(task)
    text = "unheard zebra the dog"
    assert len(task.encode({"text": text})["text"]) > 4
    picture = task.pictures(model, {"text": text}, Answer("warm"))
    assert picture is not None
    assert picture["words"] == text.split()


def test_the_words_of_a_chinese_clause_have_weights_of_their_own() -> None:
    rows = [{"text": text, "label": LABELS[i % 3]} for i, text in enumerate(["我爱北京", "他爱上海的狗", "你爱狗", "我爱上海"] * 5)]
    task = task_for(rows, tokens="subwords", vocab_size=300)
    text = "他爱狗，really"
    picture = task.pictures(model_for(task), {"text": text}, Answer("warm"))
    assert picture is not None
    assert len(picture["words"]) >= 4
    assert "".join(picture["words"]) == text
    assert picture["words"][-1] == "really"


def test_the_weights_of_a_pair_are_those_of_the_words_of_both_without_the_end_between() -> None:
    task = task_for(pairs_of_texts(20), max_length=8, overlap=2)
    example = {"text": "the big red dog", "text_pair": "one old cat sees the small tree and me"}
    picture = task.pictures(model_for(task), example, Answer("warm"))
    assert picture is not None
    assert picture["words"] == [*["the", "big", "red", "dog"], *["one", "old", "cat", "sees", "the", "small", "tree", "and", "me"]]
    assert all(weight != 0 for word, weight in zip(picture["words"], picture["weights"], strict=True) if word not in ("and", "me"))


@pytest.mark.parametrize("tokens", ["words", "characters"])
def test_what_the_vocabulary_does_not_know_is_told_as_the_reader_wrote_it(tokens: str) -> None:
    task = task_for(pairs_of_texts(20), tokens=tokens)
    example = {"text": "The Ω dog's", "text_pair": "Ж red 狗"}
    picture = task.pictures(model_for(task), example, Answer("warm"))
    assert picture is not None
    assert isinstance(task.tokenizer, Words)
    assert task.tokenizer.unk_id in task.encode(example)["text"]
    assert picture["words"] == [piece for text in example.values() for piece in task.tokenizer.split(text) if piece.strip()]


def test_words_of_a_foreign_tokenizer_that_it_does_not_know_are_told_as_they_stand_in_the_texts() -> None:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = {piece: i for i, piece in enumerate([*specials, "the", "dog", "##s"])}
    backend = Backend(models.WordPiece(pieces, unk_token="[UNK]"))
    backend.add_special_tokens(specials)
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    tokenizer = ForeignTokenizer(json.loads(backend.to_str()), [0, 2, 3, 1], len(pieces), frame=Frame(ends_texts=True))
    texts = ["The  Zebra dogs", "Übel, dog"]
    ids = [*tokenizer.encode(texts[0]), tokenizer.eos_id, *tokenizer.encode(texts[1])]
    weights = [float(2**i) for i in range(len(ids))]
    assert len(ids) == 8
    expected = [("the", 1), ("Zebra", 2), ("dogs", 12), ("Übel", 32), (",", 64), ("dog", 128)]
    assert [*word_weights(tokenizer, texts, ids, weights)] == expected


def test_nothing_is_drawn_of_a_text_of_which_cleaning_leaves_nothing() -> None:
    task = task_for()
    assert task.pictures(model_for(task), {"text": "<br>"}, Answer("warm")) is None


def test_the_weights_of_a_long_text_are_those_of_all_its_windows(windowed: Run) -> None:
    text = " ".join([*filler(random.Random(4), 20), "red"])
    (answer,) = windowed.predict(texts(text))
    picture = windowed.task.pictures(windowed.model, {"text": text}, answer)
    assert picture is not None
    assert picture["words"] == text.split()
    for start in (0, 6, 12, 13):  # of its windows
        assert any(weight != 0 for weight in picture["weights"][start : start + 8])
