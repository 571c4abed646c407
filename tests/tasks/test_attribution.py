"""How much each word spoke for an answer."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
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

from heed.data.text import Tokenizer
from heed.model import Encoder
from heed.run import Run
from heed.tasks import Answer
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
    assert np.mean(found) > 0.5  # of three to seven words, so a quarter by chance; layer norms hide much of an input's own scale


def test_a_weight_is_how_fast_the_label_gains_as_the_word_grows(single: Run) -> None:
    """Gradient times input is the slope of the logit over a factor on the word's embedding, here from finite differences."""
    run = Run.load(single.folder, device="cpu")
    task, text = run.task, "one big red cat sees"
    assert isinstance(task, TextClassification)
    (answer,) = run.predict(texts(text))
    picture = task.pictures(run.model, {"text": text}, answer)
    assert picture is not None
    model = copy.deepcopy(run.model).eval()
    assert isinstance(model, Encoder)
    ids = torch.tensor([[Tokenizer.bos_id, *task.tokenizer.encode(text)]])

    def logit(place: int, factor: float) -> float:
        def grow(module: torch.nn.Module, arguments: Any, out: torch.Tensor) -> torch.Tensor:
            grown = out.clone()
            grown[:, 1 + place] *= factor
            return grown

        hook = model.stem.embedding.register_forward_hook(grow)
        with torch.no_grad():
            value = model.classify(ids)[0, LABELS.index(answer.text)].item()
        hook.remove()
        return value

    step = 0.01
    slopes = [(logit(place, 1 + step) - logit(place, 1 - step)) / (2 * step) for place in range(len(text.split()))]
    assert picture["weights"] == pytest.approx(slopes, rel=0.02, abs=5e-3)


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
    assert picture["words"] == [*["the", "big", "red", "dog"], *["one", "old", "cat", "sees", "the", "small", "tree", "<unk>", "<unk>"]]
    assert all(weight != 0 for word, weight in zip(picture["words"], picture["weights"], strict=True) if word != "<unk>")


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
