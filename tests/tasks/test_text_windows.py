"""How texts are read that are long, or come in pairs: in windows, cut, or by their sentences."""

import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_classifiers import (
    SHAPE,
    TRAIN,
    filler,
    inputs,
    long_texts,
    model_for,
    pairs_of_texts,
    prepared_in,
    report_of,
    task_for,
    texts,
    trained,
    trained_on_windows,
)
from toy_runs import DECISIVE, Command

from heed.data.batch import collate
from heed.data.rows import Example
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.model import Encoder
from heed.run import Run, read_config
from heed.tasks.text_classification import TextClassification

pytest_plugins = ["toy_runs"]


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained_on_windows(tmp_path_factory.mktemp("windowed"))


def test_pairs_are_found_by_themselves_and_remembered(tmp_path: Path, command: Command) -> None:
    rows = pairs_of_texts(40)
    run = trained(tmp_path, rows[:28], rows[28:])
    assert read_config(run.folder).task["pair"] is True
    loaded = Run.load(run.folder, device="cpu")
    assert list(loaded.task.wanted) == ["text", "text_pair"]
    assert loaded.predict(inputs(rows[28:])) == run.predict(inputs(rows[28:]))
    with pytest.raises(DataError, match=r"input 1: has no 'text_pair' \(text\); found 'text'"):
        loaded.predict({"text": "red"})
    said = command("predict", run.folder, "red dog").complaint
    assert "has no 'text_pair'" in said
    assert "a tab stands between text and text_pair" in said
    assert command("predict", run.folder, "red dog\tthe cat").out == loaded.predict({"text": "red dog", "text_pair": "the cat"}).text + "\n"
    alone, other = ({"text": "red dog", "text_pair": pair} for pair in ("the cat", "blue grey"))
    assert loaded.predict(alone).details != loaded.predict(other).details


def test_an_end_stands_between_two_texts() -> None:
    rows = pairs_of_texts(20)
    task = task_for(rows)
    ids = task.encode(rows[3])["text"].tolist()
    first, second = (task.tokenizer.encode(rows[3][column]) for column in ("text", "text_pair"))
    assert ids == [*first, Tokenizer.eos_id, *second]
    assert Tokenizer.eos_id not in [*first, *second]


def test_a_second_text_that_is_not_wanted_is_not_read(tmp_path: Path) -> None:
    rows = pairs_of_texts(40)
    prepared, _ = prepared_in(tmp_path, rows, task={"pair": False})
    task = prepared.run.task
    assert list(task.wanted) == ["text"]
    assert torch.equal(task.encode(rows[0])["text"], task.encode({"text": rows[0]["text"]})["text"])


def by_windows(run: Run, text: str, size: int, overlap: int) -> tuple[int, np.ndarray[Any, Any]]:
    """Return the number of windows and the probabilities from the mean of what the model says of each, by definition."""
    task, model = run.task, run.model
    assert isinstance(task, TextClassification)
    assert isinstance(model, Encoder)
    ids = task.tokenizer.encode(text)
    starts = [0]
    while starts[-1] + size < len(ids):
        starts.append(min(starts[-1] + size - overlap, len(ids) - size))
    with torch.no_grad():
        logits = [model.eval().classify(torch.tensor([[Tokenizer.bos_id, *ids[start : start + size]]]))[0] for start in starts]
    return len(starts), (torch.stack(logits).double().mean(0) / task.calibration.temperature).softmax(-1).numpy()


@pytest.mark.parametrize("n_words", [3, 8, 9, 14, 15, 40])
def test_a_long_text_is_the_mean_of_its_windows_and_the_answer_says_how_many(windowed: Run, n_words: int) -> None:
    run = Run.load(windowed.folder, device="cpu")
    text = " ".join(filler(random.Random(n_words), n_words))
    n_windows, expected = by_windows(run, text, size=8, overlap=2)
    (answer,) = run.predict(texts(text))
    assert answer.details.get("windows", 1) == n_windows
    assert ("windows" in answer.details) is (n_words > 8)
    np.testing.assert_allclose(list(answer.details["probabilities"].values()), expected, atol=1e-5)


def test_the_last_words_of_a_long_text_change_the_answer(windowed: Run) -> None:
    draw = random.Random(7)
    right = []
    for _ in range(6):
        beginning = " ".join(filler(draw, 16))
        answers = windowed.predict(texts(*(f"{beginning} {word}" for word in DECISIVE)))
        assert len({tuple(answer.details["probabilities"].values()) for answer in answers}) == 3
        right += [answer.text == label for answer, label in zip(answers, DECISIVE.values(), strict=True)]
    assert np.mean(right) > 0.5  # a third by chance


def test_long_texts_are_trained_on_whole_and_counted(windowed: Run) -> None:
    report = report_of(windowed)
    assert report["too_long"] == report["examples"]["train"] == 60
    assert report["long_examples"] == "read in windows"
    assert report["longest"]["text"] > 8


def test_a_truncated_text_is_its_beginning_and_the_answer_says_how_much_was_cut(tmp_path: Path) -> None:
    rows = long_texts(40, seed=2)
    settings = {"task": {"long_texts": "truncate"}, "data": {"max_length": 8}}
    run = trained(tmp_path, rows[:30], rows[30:], **settings)
    beginning = " ".join(filler(random.Random(3), 8))
    short, *long = run.predict(texts(beginning, *(f"{beginning} one cat {word}" for word in DECISIVE)))
    assert "cut" not in short.details
    for answer in long:
        assert answer.details["cut"] == 3
        assert "windows" not in answer.details
        assert list(answer.details["probabilities"].values()) == pytest.approx(list(short.details["probabilities"].values()), abs=1e-6)
    report = report_of(run)
    assert (report["too_long"], report["long_examples"], report["longest"]["text"]) == (30, "cut", 8)


def test_of_many_windows_an_update_reads_some_and_an_answer_all(windowed: Run) -> None:
    run = Run.load(windowed.folder, device="cpu")
    task = run.task
    assert isinstance(task, TextClassification)
    task.config = task.config.replace(train_windows=2)
    batch = collate(task.encode_all([{"text": " ".join(filler(random.Random(5), 60)), "label": "warm"}], training=True))
    read: list[int] = []
    classify = Encoder.classify

    def counted(model: Encoder, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        read.append(len(ids))
        return classify(model, ids, mask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "classify", counted)
        task.loss(run.model.train(), batch)
        task.loss(run.model.eval(), batch)
    assert read == [2, -(-(60 - 8) // 6) + 1]


def test_a_text_of_a_million_characters_is_answered(windowed: Run) -> None:
    text = "the dog sees " * 77_000
    assert len(text) > 1_000_000
    begun = time.perf_counter()
    (answer,) = windowed.predict(texts(text))
    assert time.perf_counter() - begun < 10
    assert answer.details["windows"] == math.ceil((3 * 77_000 - 8) / 6) + 1
    assert sum(answer.details["probabilities"].values()) == pytest.approx(1, abs=1e-9)


def test_an_overlap_as_long_as_a_window_is_refused_where_there_are_windows() -> None:
    with pytest.raises(ConfigError, match=r"task\.overlap=12 does not fit data\.max_length=12"):
        task_for(max_length=12, overlap=12).shape(SHAPE)
    task_for(max_length=12, overlap=11).shape(SHAPE)
    task_for(max_length=12, long_texts="truncate").shape(SHAPE)  # nothing overlaps
    task_for(max_length=12).shape(SHAPE.replace(hierarchical=True))


def test_learned_positions_need_room_for_a_begin_token() -> None:
    with pytest.raises(ConfigError, match=r"data\.max_length=64 and a begin token do not fit model\.max_length=64"):
        task_for().shape(SHAPE.replace(positions="learned", max_length=64))
    assert task_for().shape(SHAPE.replace(positions="learned", max_length=65)).n_classes == 3


def test_a_hierarchy_is_given_sentences_with_ends_none_longer_than_the_limit() -> None:
    task = task_for([*TRAIN, {"text": ". ! ?", "label": "warm"}], max_length=5)
    model_for(task, hierarchical=True)
    text = "the dog. one big old man sees the small cat! the tree"
    sentences = ["the dog .", "one big old man sees", "the small cat !", "the tree"]
    expected = [token for sentence in sentences for token in (*task.tokenizer.encode(sentence), Tokenizer.eos_id)]
    encoded = task.encode({"text": text, "label": "warm"}, training=True)
    assert encoded["text"].tolist() == expected
    assert task.fitted(encoded) is encoded
    assert task.long_examples == "read by their sentences"


def long_pairs(n: int, seed: int) -> list[Example]:
    """Return pairs of 3 and 20 words, of which the last of the second decides."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        decisive = list(DECISIVE)[i % 3]
        rows.append({"text": " ".join(filler(draw, 3)), "text_pair": " ".join([*filler(draw, 19), decisive]), "label": DECISIVE[decisive]})
    return rows


def words_of_pair(n_first: int, n_second: int, seed: int) -> Example:
    draw = random.Random(seed)
    return {"text": " ".join(filler(draw, n_first)), "text_pair": " ".join(filler(draw, n_second))}


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that reads pairs in windows of eleven tokens, which share three."""
    rows = long_pairs(60, seed=3)
    settings = {"task": {"overlap": 3}, "data": {"max_length": 11}}
    return trained(tmp_path_factory.mktemp("paired"), rows[:42], rows[42:], **settings)


def parts_by_definition(ids: list[int], size: int, overlap: int) -> list[list[int]]:
    """Cut a text into parts from its beginning to its end, all of one size."""
    starts = [0]
    while starts[-1] + size < len(ids):
        starts.append(min(starts[-1] + size - overlap, len(ids) - size))
    return [ids[start : start + size] for start in starts]


# Words of both texts, and the parts that each window holds of them: by hand, for 11 tokens with an end between two texts.
WINDOWS_OF_PAIRS = {
    (5, 5): ((5, 0), (5, 0), [(0, 0)]),
    (3, 20): ((3, 0), (7, 1), [(0, 0), (0, 1), (0, 2), (0, 3)]),
    (20, 3): ((7, 1), (3, 0), [(0, 0), (1, 0), (2, 0), (3, 0)]),
    (0, 14): ((0, 0), (10, 2), [(0, 0), (0, 1)]),
    (12, 17): ((5, 1), (5, 1), [(0, 0), (1, 1), (1, 2), (2, 3)]),
}


@pytest.mark.parametrize("n_words", WINDOWS_OF_PAIRS)
def test_windows_of_a_pair_all_hold_a_part_of_both(paired: Run, n_words: tuple[int, int]) -> None:
    run = Run.load(paired.folder, device="cpu")
    task, model, example = run.task, run.model, words_of_pair(*n_words, seed=5)
    assert isinstance(task, TextClassification)
    assert isinstance(model, Encoder)
    *sizes, windows = WINDOWS_OF_PAIRS[n_words]
    firsts, seconds = (
        parts_by_definition(task.tokenizer.encode(example[column]), max(1, size), overlap)
        for column, (size, overlap) in zip(("text", "text_pair"), sizes, strict=True)
    )
    assert (len(firsts), len(seconds)) == (windows[-1][0] + 1, windows[-1][1] + 1)
    read = [[Tokenizer.bos_id, *firsts[a], Tokenizer.eos_id, *seconds[b]] for a, b in windows]
    with torch.no_grad():
        logits = torch.cat([model.eval().classify(torch.tensor([ids])) for ids in read]).double().mean(0)
    (answer,) = run.predict([example])
    expected = (logits / task.calibration.temperature).softmax(-1).tolist()
    assert list(answer.details["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
    assert answer.details.get("windows", 1) == len(windows)


@pytest.mark.parametrize("long_texts", ["windows", "truncate"])
def test_the_second_text_counts_however_long_the_first_is(tmp_path: Path, long_texts: str) -> None:
    rows = [{"text": row["text_pair"], "text_pair": row["text"], "label": row["label"]} for row in long_pairs(30, seed=4)]
    settings = {"task": {"long_texts": long_texts, **({"overlap": 3} if long_texts == "windows" else {})}, "data": {"max_length": 11}}
    run = trained(tmp_path, rows[:21], rows[21:], **settings)
    first = words_of_pair(40, 1, seed=6)["text"]
    one, other = run.predict([{"text": first, "text_pair": pair} for pair in ("the old red dog", "one small blue cat")])
    difference = [abs(a - b) for a, b in zip(*(answer.details["probabilities"].values() for answer in (one, other)), strict=True)]
    assert max(difference) > 1e-3


def test_a_truncated_pair_loses_words_of_the_longer_text_first(tmp_path: Path) -> None:
    rows = long_pairs(30, seed=5)
    run = trained(tmp_path, rows[:21], rows[21:], task={"long_texts": "truncate"}, data={"max_length": 11})
    first, second = (words_of_pair(20, 20, seed=7)[column].split() for column in ("text", "text_pair"))
    for (n_first, n_second), (m_first, m_second) in {(3, 20): (3, 7), (20, 4): (6, 4), (20, 20): (5, 5), (6, 20): (5, 5)}.items():
        whole, cut = (
            {"text": " ".join(first[:n]), "text_pair": " ".join(second[:m])} for n, m in ((n_first, n_second), (m_first, m_second))
        )
        answer, short = run.predict([whole, cut])
        assert list(answer.details["probabilities"].values()) == pytest.approx(list(short.details["probabilities"].values()), abs=1e-6)
        assert answer.details["cut"] == n_first + n_second - 10
        assert "cut" not in short.details
        encoded, expected = (run.task.encode({**example, "label": "warm"}, training=True) for example in (whole, cut))
        kept = run.task.fitted(encoded)
        assert kept is not None
        assert torch.equal(kept["text"], expected["text"])
    assert report_of(run)["longest"]["text"] == 11


def test_a_window_needs_room_for_both_texts_of_a_pair() -> None:
    rows = pairs_of_texts(20)
    with pytest.raises(ConfigError, match=r"data\.max_length=2 has no room for a token of each text.*make it 3"):
        task_for(rows, max_length=2, overlap=0).shape(SHAPE)
    task = task_for(rows, max_length=3, overlap=1)
    model_for(task)
    assert task_for(rows, max_length=2).shape(SHAPE.replace(hierarchical=True)).n_classes == 3  # which reads sentence by sentence


@pytest.mark.parametrize("name", ["overlap", "train_windows", "long_texts"])
def test_settings_of_windows_are_refused_for_a_hierarchy_which_has_none(name: str) -> None:
    value = {"overlap": 5, "train_windows": 3, "long_texts": "truncate"}[name]
    with pytest.raises(ConfigError, match=rf"task\.{name} would be ignored with model\.hierarchical=true"):
        task_for(**{name: value}).shape(SHAPE.replace(hierarchical=True))


def sentences(n: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(" ".join([*filler(draw, draw.randint(1, 6)), "."]) for _ in range(n))


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
def test_sentences_of_long_texts_are_read_in_parts_when_answering_with_the_same_outcome(
    monkeypatch: pytest.MonkeyPatch, positions: str
) -> None:
    task = task_for([*TRAIN, {"text": ". !", "label": "warm"}], max_length=9)
    model = model_for(task, hierarchical=True, positions=positions)
    batch = collate(task.encode_all([{"text": sentences(n, seed=n), "label": "warm"} for n in (60, 1, 17)], training=True))
    with torch.no_grad():
        whole = model.classify(batch["text"], batch.mask("text"))
    monkeypatch.setattr("heed.tasks.text_classification.WINDOW_TOKENS", 50)
    most = []
    forward = Encoder.forward

    def counted(encoder: Encoder, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        most.append(ids.numel())
        return forward(encoder, ids, mask)

    monkeypatch.setattr(Encoder, "forward", counted)
    with torch.no_grad():
        in_parts, n_windows = task.judge(model, batch)
    torch.testing.assert_close(in_parts, whole, rtol=1e-5, atol=1e-5)
    assert n_windows.tolist() == [1, 1, 1]
    assert len(most) > 5
    assert max(most) <= 50
    most.clear()
    task.loss(model.train(), batch)  # whose gradients need all sentences at once
    assert len(most) == 1


def test_a_text_of_many_sentences_is_answered(tmp_path: Path) -> None:
    run = trained(tmp_path, TRAIN[:24], TRAIN[30:42], model={"hierarchical": True})
    begun = time.perf_counter()
    (answer,) = run.predict(texts("the dog sees. one red cat! " * 8_000))
    assert time.perf_counter() - begun < 30
    assert sum(answer.details["probabilities"].values()) == pytest.approx(1, abs=1e-9)
    assert "windows" not in answer.details


def test_what_helps_against_a_lack_of_memory_depends_on_how_texts_are_read() -> None:
    task = task_for(max_length=40)
    assert task.memory_advice(90) == "read fewer of its windows at once (task.train_windows=4)"
    assert task.memory_advice(30) == "read less of it at once (data.max_length=15)"
    assert task_for(max_length=40, train_windows=1).memory_advice(90) == "read less of it at once (data.max_length=20)"
    assert task_for(max_length=40, long_texts="truncate").memory_advice(40) == "read less of it at once (data.max_length=20)"
    model_for(task, hierarchical=True)
    assert "model.hierarchical=false" in task.memory_advice(90)
