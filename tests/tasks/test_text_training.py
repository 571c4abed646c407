"""What a classifier learns from: its loss and weights, kinds of models, word vectors, augmented texts, and settings that do not fit."""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_classifiers import (
    LABELS,
    SHAPE,
    TRAIN,
    VALID,
    model_for,
    pairs_of_texts,
    prepared_in,
    report_of,
    task_for,
    texts,
    texts_with_labels,
    trained,
)

from heed.data.batch import collate
from heed.data.rows import Example
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.model import Encoder
from heed.run import Run
from heed.tasks.text_classification import TextClassification, TextClassificationSettings


def logits_by_definition(model: Encoder, task: TextClassification, rows: Sequence[Example]) -> list[torch.Tensor]:
    """Return the logits of each text alone, (C,), after a begin token."""
    return [model.classify(torch.tensor([[Tokenizer.bos_id, *task.tokenizer.encode(row["text"])]]))[0] for row in rows]


UNEVEN = [row for i, row in enumerate(TRAIN) if row["label"] == "warm" or i % 4 == 0][:27]


@pytest.mark.parametrize("chosen", ["none", "balanced", {"cold": 3.0, "plain": 0.25}])
def test_the_loss_weighs_each_class_by_its_factor_in_training_only(chosen: Any) -> None:
    task = task_for(UNEVEN, class_weights=chosen)
    counts = Counter(row["label"] for row in UNEVEN)
    factors = {"none": {}, "balanced": {name: len(UNEVEN) / (3 * n) for name, n in counts.items()}}
    factor = factors[chosen] if isinstance(chosen, str) else chosen
    model = model_for(task)
    batch = collate(task.encode_all(UNEVEN, training=True))
    with torch.no_grad():
        logits = logits_by_definition(model, task, UNEVEN)
        each = [-one.log_softmax(-1)[LABELS.index(row["label"])].item() for one, row in zip(logits, UNEVEN, strict=True)]
        plain = task.loss(model.eval(), batch)
        weighted = task.loss(model.train(), batch)
    assert plain.total.item() == pytest.approx(sum(each), rel=1e-5)
    expected = sum(factor.get(row["label"], 1.0) * one for row, one in zip(UNEVEN, each, strict=True))
    assert weighted.total.item() == pytest.approx(expected, rel=1e-5)
    assert plain.units.item() == weighted.units.item() == len(UNEVEN)
    right = sum(int(one.argmax()) == LABELS.index(row["label"]) for one, row in zip(logits, UNEVEN, strict=True))
    assert plain.right.item() == right


def test_balanced_classes_together_weigh_the_same() -> None:
    task = task_for(UNEVEN, class_weights="balanced")
    weights = task.class_weights(torch.zeros(1))
    assert weights is not None
    counts = torch.tensor([sum(row["label"] == name for row in UNEVEN) for name in LABELS])
    torch.testing.assert_close(weights * counts, torch.full((3,), len(UNEVEN) / 3))


def test_a_weight_of_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.class_weights.*'clod'"):
        task_for(class_weights={"clod": 2.0}).shape(SHAPE)


def test_the_loss_of_several_labels_is_the_sum_over_all_decisions() -> None:
    rows = texts_with_labels(9, seed=3)
    task = task_for(rows, multi_label=True)
    model = model_for(task)
    with torch.no_grad():
        total, units, right = task.loss(model, collate(task.encode_all(rows, training=True)))
        logits = logits_by_definition(model, task, rows)
    expected, n_right = 0.0, 0
    for one, row in zip(logits, rows, strict=True):
        shares = {name: one[place].sigmoid().item() for place, name in enumerate(LABELS)}
        expected -= sum(math.log(share if name in row["label"] else 1 - share) for name, share in shares.items())
        n_right += 3 * all((share > 0.5) == (name in row["label"]) for name, share in shares.items())  # a text is right as a whole
    assert total.item() == pytest.approx(expected, rel=1e-5)
    assert (units.item(), right.item()) == (9 * 3, n_right)


KINDS: dict[str, dict[str, Any]] = {
    "hierarchical": {"hierarchical": True},
    "low rank": {"attention": "low_rank", "landmarks": 4},
    "windowed": {"attention": "windowed", "window": 3},
    "convolution": {"mixer": "convolution"},
    "lstm": {"mixer": "lstm"},
    "hybrid": {"mixer": "hybrid"},
    "n-grams": {"n_grams": 2, "n_gram_rows": 997},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_trains_and_answers_by_one_setting(tmp_path: Path, kind: str) -> None:
    run = trained(tmp_path, TRAIN[:24], VALID[:12], model=KINDS[kind])
    asked = texts("the red dog. one cat sees", "", "<br>", "grey " * 40, *(row["text"] for row in VALID[:5]))
    answers = run.predict(asked)
    for answer in answers:
        assert sum(answer.details["probabilities"].values()) == pytest.approx(1, abs=1e-6)
        assert answer.text in LABELS
    loaded = Run.load(run.folder, device="cpu")
    assert KINDS[kind].items() <= loaded.config.model.model_dump().items()
    for answer, text in zip(answers, asked, strict=True):
        found = loaded.predict(text).details["probabilities"]
        assert found == pytest.approx(answer.details["probabilities"], abs=2e-3)  # low rank amplifies what rounding leaves


@pytest.mark.parametrize("tokens", ["subwords", "words", "characters"])
def test_texts_are_cut_as_asked(tokens: str) -> None:
    task = task_for(tokens=tokens, vocab_size=300, lower=True)
    ids = task.encode({"text": "The  RED dog"})["text"].tolist()
    assert task.tokenizer.decode(ids) == "the red dog"
    assert len(ids) == {"words": 3, "characters": len("the red dog")}.get(tokens, len(ids))
    assert task.shape(SHAPE).vocab_size == task.tokenizer.vocab_size


def vectors_file(folder: Path, words: Sequence[str]) -> tuple[Path, dict[str, list[float]]]:
    """Write vectors of five numbers in GloVe's format."""
    draw = random.Random(1)
    vectors = {word: [round(draw.gauss(0, 1), 3) for _ in range(5)] for word in words}
    path = folder / "vectors.txt"
    path.write_text("".join(f"{word} {' '.join(map(str, values))}\n" for word, values in vectors.items()), encoding="utf-8")
    return path, vectors


@pytest.mark.parametrize("frozen", [True, False])
def test_word_vectors_start_as_in_the_file_and_stay_so_only_when_frozen(tmp_path: Path, frozen: bool) -> None:
    path, vectors = vectors_file(tmp_path, ["red", "blue", "the", "dog", "elsewhere"])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    run = trained(tmp_path, TRAIN[:30], VALID[:12], task={"vectors": str(path), "freeze_vectors": frozen})
    path.unlink()  # the run is whole without it
    loaded = Run.load(run.folder, device="cpu")
    task, model = loaded.task, loaded.model
    assert isinstance(task, TextClassification)
    assert isinstance(model, Encoder)
    words = task.parts["tokenizer"].to_json()["words"]
    assert model.stem.embedding.weight.shape == (len(words), 5)
    same = {word: np.allclose(model.stem.embedding.weight[words.index(word)].detach(), vectors[word], atol=1e-6) for word in ("red", "the")}
    assert same == {"red": frozen, "the": frozen}
    report = report_of(run)
    assert report["coverage"]["found"] == 4
    running = [word for row in VALID[:12] for word in row["text"].split()]
    assert report["coverage"]["share_of_text"] == pytest.approx(np.mean([word in vectors for word in running]))
    assert report["task_sha256"] == {"vectors": digest}
    assert "elsewhere" not in words


def test_unknown_words_of_both_texts_are_counted(tmp_path: Path) -> None:
    rows = pairs_of_texts(40)
    valid = [{**row, "text_pair": f"{row['text_pair']} unheard"} for row in rows[30:]]
    prepared, _ = prepared_in(tmp_path, rows[:30], valid)
    running = [word for row in valid for column in ("text", "text_pair") for word in row[column].split()]
    known = {word for row in rows[:30] for column in ("text", "text_pair") for word in row[column].split()}
    expected = np.mean([word not in known for word in running])
    assert report_of(prepared.run)["vocabulary"]["unknown_share_valid"] == pytest.approx(expected, abs=1e-4)
    assert "task_sha256" not in report_of(prepared.run)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"vectors": "v.txt", "tokens": "subwords"}, "task.vectors=v.txt needs task.tokens=words"),
        ({"freeze_vectors": True}, "task.freeze_vectors would be ignored without task.vectors"),
        ({"multi_label": True, "abstain_precision": 0.9}, "task.abstain_precision would be ignored with task.multi_label"),
        ({"labels": []}, "task.labels is empty"),
        ({"labels": ["warm", "cold", "plain", "warm"]}, "task.labels names 'warm' twice"),
        ({"stop_words": "de"}, "task.stop_words"),
        ({"tokens": "characters", "algorithm": "unigram"}, "task.algorithm would be ignored with task.tokens=characters"),
        ({"tokens": "words", "algorithm": "unigram"}, "task.algorithm would be ignored with task.tokens=words"),
        ({"replace_words": 0.2}, "task.replace_words would be ignored without task.synonyms"),
        ({"replace_words": 0, "synonyms": "s.tsv"}, "task.synonyms would be ignored with task.replace_words=0"),
        ({"long_texts": "truncate", "overlap": 8}, "task.overlap would be ignored with task.long_texts=truncate"),
        ({"long_texts": "truncate", "train_windows": 2}, "task.train_windows would be ignored with task.long_texts=truncate"),
        ({"class_weights": {"warm": 1.5, "cold": 0}}, "task.class_weights: that of 'cold' is 0, expected a number above 0"),
        ({"class_weights": {"cold": -1}}, "task.class_weights: that of 'cold' is -1, expected a number above 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        prepared_in(tmp_path, TRAIN[:30], VALID[:9], task=settings)


def test_settings_at_their_defaults_are_never_in_the_way() -> None:
    """As a run writes all of them into its config.yaml, and reads them from there."""
    for chosen in ({"tokens": "words"}, {"long_texts": "truncate"}, {"multi_label": True}, {"synonyms": "s.tsv"}, {"algorithm": "unigram"}):
        settings = TextClassificationSettings.model_validate(chosen)
        assert TextClassificationSettings.model_validate(settings.model_dump()) == settings


def test_a_file_of_synonyms_that_is_not_there_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        prepared_in(tmp_path, TRAIN[:30], VALID[:9], task={"synonyms": str(tmp_path / "none.tsv")})


def augmented(task: TextClassification, example: Example) -> list[list[int]]:
    encoded = task.encode(example)
    return [task.augmented(encoded, np.random.default_rng(seed))["text"].tolist() for seed in range(200)]


def test_synonyms_replace_known_words_only_and_never_bring_in_unknown_ones(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.tsv"
    path.write_text("big\tsmall\tgigantic\ndog\tcat\n", encoding="utf-8")
    task = task_for(synonyms=str(path), replace_words=0.5)
    assert task.augments
    words = task.parts["tokenizer"].to_json()["words"]
    assert "gigantic" not in words
    for found in augmented(task, {"text": "the big zebra sees one dog"}):
        the, big, zebra, sees, one, dog = (words[token] for token in found)
        assert (the, zebra, sees, one) == ("the", "<unk>", "sees", "one")
        assert big in ("big", "small")
        assert dog in ("dog", "cat")


def chinese_rows(n: int = 60) -> list[Example]:
    """Return rows of characters in any order, so that hardly more than single ones become sub-words."""
    draw, characters = random.Random(1), "我他你爱喜欢北京上海的狗猫大小红蓝看见天地人山水火"
    return [{"text": "".join(draw.sample(characters, 12)), "label": LABELS[i % 3]} for i in range(n)]


@pytest.mark.parametrize("tokens", ["subwords", "characters"])
def test_words_of_a_chinese_clause_are_replaced_by_their_synonyms_and_nothing_else_changes(tmp_path: Path, tokens: str) -> None:
    path = tmp_path / "synonyms.tsv"
    path.write_text("爱\t喜欢\n北京\t上海\nred\tblue\n", encoding="utf-8")
    rows = [*chinese_rows(), {"text": "a red one, bored by blue", "label": "warm"}]
    task = task_for(rows, tokens=tokens, vocab_size=300, synonyms=str(path), replace_words=0.5)
    found = {task.tokenizer.decode(ids) for ids in augmented(task, {"text": "我爱北京的狗"})}
    assert found == {f"我{like}{city}的狗" for like in ("爱", "喜欢") for city in ("北京", "上海")}
    if tokens == "characters":  # of other scripts a run of letters may be part of a word
        assert {task.tokenizer.decode(ids) for ids in augmented(task, rows[-1])} == {rows[-1]["text"]}


@pytest.mark.parametrize("share", ["drop_words", "swap_words"])
def test_words_of_a_chinese_clause_are_left_out_and_swapped_one_by_one(share: str) -> None:
    task = task_for(chinese_rows(), tokens="subwords", vocab_size=300, **{share: 0.4})
    text = "他喜欢上海的狗"
    found = {task.tokenizer.decode(ids).replace(" ", "") for ids in augmented(task, {"text": text})}
    assert len(found) > 5
    assert all(not Counter(one) - Counter(text) for one in found)
    assert (min(map(len, found)) == len(text)) is (share == "swap_words")


def test_the_end_between_two_texts_stays_and_words_do_not_cross_it() -> None:
    rows = pairs_of_texts(20)
    task = task_for(rows, drop_words=0.4, swap_words=0.4)
    example = {"text": "the big dog", "text_pair": "one old cat"}
    first, second = (set(task.tokenizer.encode(example[column])) for column in ("text", "text_pair"))
    for found in augmented(task, example):
        assert found.count(Tokenizer.eos_id) == 1
        end = found.index(Tokenizer.eos_id)
        assert set(found[:end]) <= first
        assert set(found[end + 1 :]) <= second


def test_augmentation_changes_training_texts_and_follows_from_the_seed(tmp_path: Path) -> None:
    weights = []
    for name in ("one", "again", "without"):
        (tmp_path / name).mkdir()
        shares = {} if name == "without" else {"drop_words": 0.3, "swap_words": 0.3}
        run = trained(tmp_path / name, TRAIN[:30], VALID[:9], task=shares)
        weights.append(run.model.state_dict())
    one, again, without = weights
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], without[name]) for name in one)
