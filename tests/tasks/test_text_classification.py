"""Text classification from rows to answers: what a text becomes, what is learned of it, and what an answer says."""

import copy
import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import DECISIVE, TINY_TEXTS, WORDS, toy_texts, write_rows

import heed
from heed.config import merge
from heed.data.batch import collate
from heed.data.calibration import Calibration
from heed.data.read import Example
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.model import Encoder, ModelConfig, build_model
from heed.run import Run, read_config, resolve
from heed.tasks import Answer
from heed.tasks.text_classification import TextClassification, TextClassificationSettings
from heed.training.prepare import Prepared, prepare

LABELS = ["cold", "plain", "warm"]
ROWS = toy_texts(90)
TRAIN, VALID = ROWS[:60], ROWS[60:]
LEARN = {"steps": 150, "evaluate_every": 150, "batch_tokens": 300}
SHAPE = ModelConfig(architecture="encoder", d_model=16, n_heads=2, n_layers=1, d_ff=24, dropout=0.0)


def trained(folder: Path, rows: Sequence[Example], valid: Sequence[Example], **settings: Any) -> Run:
    """Train the tiny classifier on rows in `folder`, with settings laid over TINY_TEXTS."""
    data = {"train": str(write_rows(folder / "train.tsv", rows)), "valid": str(write_rows(folder / "valid.tsv", valid))}
    return heed.train(merge(TINY_TEXTS, {"data": data}), to=folder / "run", quiet=True, **settings)


def prepared_in(folder: Path, rows: Sequence[Example], valid: Sequence[Example] | None = None, **settings: Any) -> tuple[Prepared, str]:
    """Make what training needs, and return it with what was said."""
    files = {"train": rows} if valid is None else {"train": rows, "valid": valid}
    data = {name: str(write_rows(folder / f"{name}.tsv", some)) for name, some in files.items()}
    said: list[str] = []
    config = resolve(merge(TINY_TEXTS, {"data": data}), settings)
    return prepare(config, folder / "run", said.append), "\n".join(said)


def task_for(rows: Sequence[Example] = TRAIN, *, max_length: int = 64, **settings: Any) -> TextClassification:
    """Return a task that has learned its parts from rows."""
    chosen = TextClassificationSettings.model_validate({"tokens": "words", **settings})
    task = TextClassification(chosen, max_length=max_length)
    task.settle(rows[0])
    task.prepare(rows)
    return task


def model_for(task: TextClassification, **fields: Any) -> Encoder:
    torch.manual_seed(1)
    model = build_model(task.shape(SHAPE.replace(**fields)))
    assert isinstance(model, Encoder)
    return model.eval()


def inputs(rows: Sequence[Example]) -> list[Example]:
    return [{key: value for key, value in row.items() if key != "label"} for row in rows]


def texts(*found: str) -> list[Example]:
    return [{"text": text} for text in found]


def probabilities(run: Run, rows: Sequence[Example]) -> np.ndarray[Any, Any]:
    """Return the probability of every label, (n, C)."""
    return np.array([list(answer.details["probabilities"].values()) for answer in run.predict(inputs(rows))])


def report_of(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.folder / "data_report.json").read_text(encoding="utf-8"))
    return content


def noisy(rows: Sequence[Example]) -> list[Example]:
    """Return rows of which every fourth has a wrong label."""
    return [row if i % 4 else {**row, "label": LABELS[LABELS.index(row["label"]) - 1]} for i, row in enumerate(rows)]


def filler(draw: random.Random, n: int) -> list[str]:
    return draw.choices(list(WORDS), k=n)


def long_texts(n: int, seed: int) -> list[Example]:
    """Return texts of 13 to 21 words, one of which decides."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        decisive = list(DECISIVE)[i % 3]
        words = filler(draw, draw.randint(12, 20))
        words.insert(draw.randint(0, len(words)), decisive)
        rows.append({"text": " ".join(words), "label": DECISIVE[decisive]})
    return rows


def texts_with_labels(n: int, seed: int) -> list[Example]:
    """Return different texts with the labels of none to all decisive words."""
    draw = random.Random(seed)
    found: dict[str, list[str]] = {}
    while len(found) < n:
        chosen = [word for bit, word in enumerate(DECISIVE) if len(found) >> bit & 1]
        words = [*filler(draw, draw.randint(2, 5)), *chosen]
        draw.shuffle(words)
        found[" ".join(words)] = sorted(DECISIVE[word] for word in chosen)
    return [{"text": text, "label": labels} for text, labels in found.items()]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that has learned the decisive words, and was calibrated on labels of which a quarter are wrong."""
    return trained(tmp_path_factory.mktemp("single"), TRAIN, noisy(VALID), train=LEARN)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that gives a text any number of labels."""
    rows = texts_with_labels(100, seed=1)
    return trained(tmp_path_factory.mktemp("several"), rows[:70], rows[70:], train=LEARN, task={"multi_label": True})


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that reads texts in windows of eight words, which share two."""
    rows = long_texts(90, seed=1)
    settings = {"train": {**LEARN, "batch_tokens": 400}, "task": {"overlap": 2}, "data": {"max_length": 8}}
    return trained(tmp_path_factory.mktemp("windowed"), rows[:60], rows[60:], **settings)


def test_the_decisive_word_is_learned(single: Run) -> None:
    for rows in (TRAIN, VALID):
        right = [answer.text == row["label"] for answer, row in zip(single.predict(inputs(rows)), rows, strict=True)]
        assert np.mean(right) >= 0.9


def test_probabilities_have_their_names_and_add_up_to_1_and_the_likeliest_is_the_answer(single: Run) -> None:
    for answer in single.predict(inputs(VALID)):
        found = answer.details["probabilities"]
        assert list(found) == LABELS == list(single.task.parts["labels"].to_json()["labels"])
        assert sum(found.values()) == pytest.approx(1, abs=1e-9)
        assert found[answer.text] == answer.score == max(found.values())
        assert answer.others == ()


def test_runners_up_are_the_next_likeliest(single: Run) -> None:
    answer = single.predict(texts("the red dog")[0], n_best=3)
    ordered = sorted(answer.details["probabilities"].items(), key=lambda item: -item[1])
    assert [(one.text, one.score) for one in (answer, *answer.others)] == ordered
    assert len(single.predict(texts("the red dog")[0], n_best=2).others) == 1


def test_answers_are_plain_json(single: Run) -> None:
    content = json.loads(json.dumps(single.predict(texts("the red dog"))[0].to_json()))
    assert content.keys() == {"text", "score", "probabilities"}


def test_calibration_is_kept_with_the_run_and_is_the_best_temperature_on_the_validation_labels(single: Run) -> None:
    kept = Run.load(single.folder, device="cpu").task.parts["calibration"]
    assert isinstance(kept, Calibration)
    assert kept == single.task.parts["calibration"]
    assert kept.temperature != 1
    plain = Run.load(single.folder, device="cpu")
    plain.task.parts["calibration"] = Calibration()
    logits = np.log(probabilities(plain, VALID))
    targets = [LABELS.index(row["label"]) for row in noisy(VALID)]

    def loss(temperature: float) -> float:
        scaled = torch.tensor(logits / temperature)
        return float(torch.nn.functional.cross_entropy(scaled, torch.tensor(targets)))

    assert loss(kept.temperature) < min(loss(1.0), loss(0.97 * kept.temperature), loss(1.03 * kept.temperature))


def test_a_temperature_changes_probabilities_but_not_their_order(single: Run) -> None:
    plain = Run.load(single.folder, device="cpu")
    temperature = plain.task.parts["calibration"].to_json()["temperature"]
    plain.task.parts["calibration"] = Calibration()
    before, after = probabilities(plain, VALID), probabilities(single, VALID)
    expected = before ** (1 / temperature)
    np.testing.assert_allclose(after, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_array_equal(np.argsort(-after, axis=1), np.argsort(-before, axis=1))


def test_an_evaluation_tells_the_calibration_error_before_and_after_and_gives_advice(single: Run) -> None:
    content = json.loads((single.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    assert {"accuracy", "f1_macro", "log_loss", "calibration_error", "calibration_error_before", "per_class", "confusion"} <= content.keys()
    assert content["calibration"]["temperature"] == single.task.parts["calibration"].to_json()["temperature"]
    assert content["advice"]
    assert content["group_names"].keys() == {"best", "median", "worst"}
    lines = [json.loads(line) for line in (single.folder / "evaluations" / "valid.jsonl").read_text(encoding="utf-8").splitlines()]
    right = [line["answer"]["text"] == line["example"]["label"] for line in lines]
    assert content["accuracy"]["value"] == pytest.approx(np.mean(right), abs=1e-4)


def test_calibration_can_be_left_out(tmp_path: Path) -> None:
    run = trained(tmp_path, TRAIN[:20], VALID[:12], task={"calibrate": False})
    assert "calibration" not in run.task.parts
    assert not (run.folder / "parts" / "calibration.json").exists()


def test_unsure_answers_are_withheld_at_the_threshold(single: Run) -> None:
    run = Run.load(single.folder, device="cpu")
    scores = [answer.score for answer in run.predict(inputs(VALID))]
    threshold = float(np.median(scores))
    run.task.parts["calibration"] = Calibration(run.task.parts["calibration"].to_json()["temperature"], threshold, 0.9)
    answers = run.predict(inputs(VALID), n_best=2)
    assert [answer.score for answer in answers] == scores
    for answer in answers:
        shares = answer.details["probabilities"]
        first = max(shares, key=shares.__getitem__)
        withheld = answer.score < threshold
        assert answer.text == ("" if withheld else first)
        assert answer.details.get("abstained", False) is withheld
        assert answer.details.get("likeliest", answer.text) == first
        assert len(answer.others) == 1
    assert 0 < sum(answer.text == "" for answer in answers) < len(answers)


def likeliest(answer: dict[str, Any]) -> str:
    shares: dict[str, float] = answer["probabilities"]
    return max(shares, key=shares.__getitem__)


def test_the_threshold_is_the_lowest_at_which_answers_are_right_as_often_as_wanted(tmp_path: Path) -> None:
    draw = random.Random(1)
    unclear = [{"text": " ".join([*filler(draw, 5), f"x{i}"]), "label": LABELS[i % 3]} for i in range(60)]
    run = trained(tmp_path, [*TRAIN, *unclear[:30]], [*VALID, *unclear[30:]], train=LEARN, task={"abstain_precision": 0.8})
    kept = run.task.parts["calibration"]
    assert isinstance(kept, Calibration)
    assert kept.wanted_precision == 0.8
    assert kept.threshold is not None
    lines = [json.loads(line) for line in (run.folder / "evaluations" / "valid.jsonl").read_text(encoding="utf-8").splitlines()]
    sure = np.array([line["answer"]["score"] for line in lines])
    right = np.array([likeliest(line["answer"]) == line["example"]["label"] for line in lines])
    answered = np.array([line["answer"]["text"] != "" for line in lines])
    np.testing.assert_array_equal(answered, sure >= kept.threshold)
    assert right[answered].mean() >= 0.8 - 1e-9
    lower = sorted({float(level) for level in sure if level < kept.threshold - 1e-9})
    assert all(right[sure >= level].mean() < 0.8 for level in lower)
    content = json.loads((run.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    assert content["coverage"]["value"] == pytest.approx(answered.mean(), abs=1e-4)
    assert content["accuracy_when_answered"]["value"] == pytest.approx(right[answered].mean(), abs=1e-4)


def test_several_labels_are_each_judged_alone(several: Run) -> None:
    answers = several.predict(texts("red dog", "blue red cat", "the old man", "grey the blue red one"))
    for answer in answers:
        found = answer.details["probabilities"]
        assert list(found) == LABELS
        chosen = [name for name in LABELS if found[name] >= 0.5]
        assert answer.details["labels"] == chosen
        assert answer.text == ", ".join(chosen)
        assert answer.score == min(max(share, 1 - share) for share in found.values())
    assert len({answer.text for answer in answers}) > 2


def test_several_labels_are_learned(several: Run) -> None:
    rows = texts_with_labels(100, seed=1)[:70]
    found = [answer.details["labels"] for answer in several.predict(inputs(rows))]
    assert np.mean([one == row["label"] for one, row in zip(found, rows, strict=True)]) >= 0.8
    assert several.predict(texts("the old man"))[0].text == ""


def test_several_labels_are_scored_and_calibrated_too(several: Run) -> None:
    content = json.loads((several.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    assert len(content["confusion_per_label"]) == len(LABELS)
    assert "calibration" in several.task.parts


def test_the_target_of_several_labels_is_0_or_1_for_each() -> None:
    task = task_for(texts_with_labels(8, seed=2), multi_label=True)
    assert task.target([]).tolist() == [0, 0, 0]
    assert task.target(["warm", "cold"]).tolist() == [1, 0, 1]
    assert task.encode({"text": "red", "label": ["warm"]}, training=True)["label"].tolist() == [[0, 0, 1]]


def pairs_of_texts(n: int) -> list[Example]:
    firsts, seconds = ROWS[:n], ROWS[n : 2 * n]
    return [{"text": one["text"], "text_pair": other["text"], "label": one["label"]} for one, other in zip(firsts, seconds, strict=True)]


def test_pairs_are_found_by_themselves_and_remembered(tmp_path: Path) -> None:
    rows = pairs_of_texts(40)
    run = trained(tmp_path, rows[:28], rows[28:])
    assert read_config(run.folder).task["pair"] is True
    loaded = Run.load(run.folder, device="cpu")
    assert list(loaded.task.wanted) == ["text", "text_pair"]
    assert loaded.predict(inputs(rows[28:])) == run.predict(inputs(rows[28:]))
    with pytest.raises(DataError, match="input 1: has no 'text_pair'"):
        loaded.predict({"text": "red"})
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


def test_labels_given_as_numbers_are_ordered_by_number_and_answered_as_text(tmp_path: Path) -> None:
    numbers = {"warm": 10, "cold": 9, "plain": 2}
    lines = [json.dumps({"text": row["text"], "label": numbers[row["label"]]}) for row in ROWS[:40]]
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:28]), encoding="utf-8")
    (tmp_path / "valid.jsonl").write_text("\n".join(lines[28:]).replace(": 9}", ": 9.0}").replace(": 10}", ': "10"}'), encoding="utf-8")
    data = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "valid")}
    run = heed.train(merge(TINY_TEXTS, {"data": data}), to=tmp_path / "run", quiet=True)
    assert run.task.parts["labels"].to_json()["labels"] == ["2", "9", "10"]
    assert {answer.text for answer in run.predict(inputs(ROWS[:40]))} <= {"2", "9", "10"}
    assert json.loads((run.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))["n"] == 12


@pytest.mark.parametrize("labels", [[True, False], ["true", "false"]])
def test_labels_of_the_settings_are_read_as_those_of_the_data(labels: list[Any]) -> None:
    task = TextClassification(TextClassificationSettings.model_validate({"labels": labels}))
    assert task.fault({"text": "a", "label": "true"}) is None
    assert task.fault({"text": "a", "label": "perhaps"}) is not None


def test_an_unknown_validation_label_is_named_with_file_line_and_the_nearest_known_one(tmp_path: Path) -> None:
    valid = [*VALID[:3], {**VALID[3], "label": "wram"}, *VALID[4:12]]
    with pytest.raises(DataError, match=r"valid\.tsv:5: label 'wram' is not one of cold, plain, warm; did you mean 'warm'\?"):
        prepared_in(tmp_path, TRAIN, valid)


def test_rows_with_unknown_labels_are_counted_and_told_when_they_are_skipped(tmp_path: Path) -> None:
    valid = [*VALID[:3], {**VALID[3], "label": "wram"}, *VALID[4:12]]
    prepared, said = prepared_in(tmp_path, TRAIN, valid, data={"bad_rows": "skip"})
    assert len(prepared.valid) == 11
    assert "valid.tsv:5: label 'wram'" in said


def test_a_label_that_only_held_out_rows_have_is_no_fault(tmp_path: Path) -> None:
    """Which rows are held out is heed's own choice, so that they are the last to be blamed."""
    (tmp_path / "first").mkdir()
    first, _ = prepared_in(tmp_path / "first", TRAIN)
    row = int(first.valid.rows[0])
    rows = [{**one, "label": "rare"} if i == row else one for i, one in enumerate(TRAIN)]
    prepared, _ = prepared_in(tmp_path, rows)
    assert prepared.valid.rows.tolist() == first.valid.rows.tolist()
    assert prepared.run.task.parts["labels"].to_json()["labels"] == ["cold", "plain", "rare", "warm"]


def test_a_faulty_row_that_is_left_out_may_have_any_label(tmp_path: Path) -> None:
    rows = [*TRAIN[:30], {**VALID[2], "label": "rare"}]  # a leak
    prepared, _ = prepared_in(tmp_path, rows, VALID[:12], data={"filter": True})
    assert prepared.train.rows.tolist() == list(range(30))


def test_one_class_is_nothing_to_tell_apart(tmp_path: Path) -> None:
    rows = [{**row, "label": "warm"} for row in TRAIN[:30]]
    with pytest.raises(DataError, match=r"all \d+ rows have the label 'warm'; a classifier needs at least two"):
        trained(tmp_path, rows, [{**row, "label": "warm"} for row in VALID[:9]])
    assert not (tmp_path / "run").exists()


def test_training_texts_that_stand_in_the_validation_data_are_refused_left_out_or_allowed(tmp_path: Path) -> None:
    valid = [*VALID[:12], {"text": f" {TRAIN[7]['text']} ", "label": "cold"}, TRAIN[9]]
    with pytest.raises(DataError, match=r"train\.tsv: the training texts leak: 2 of them stand in data\.valid too.*row 8"):
        trained(tmp_path, TRAIN, valid)
    assert not (tmp_path / "run").exists()
    for name, setting, n_kept in (("out", {"filter": True}, len(TRAIN) - 2), ("in", {"allow_leaks": True}, len(TRAIN))):
        (tmp_path / name).mkdir()
        prepared, said = prepared_in(tmp_path / name, TRAIN, valid, data=setting)
        assert len(prepared.train) == n_kept
        assert len(prepared.valid) == len(valid)
        assert "found 2 leaks" in said


def test_the_data_report_counts_all_rows_read_although_examples_of_faults_are_read_again(tmp_path: Path) -> None:
    rows = [*TRAIN[:5], TRAIN[2], *TRAIN[5:40]]
    prepared, said = prepared_in(tmp_path, rows, VALID[:12])
    report = report_of(prepared.run)
    assert report["reading"]["rows"] == report["train"]["rows"] == 41
    assert report["train"]["counts"]["duplicates"] == 1
    assert "3 classes: " in said
    assert Counter(row["label"] for row in rows) == Counter(report["train"]["classes"])


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
    settings = {"task": {"long_texts": "truncate", "overlap": 2}, "data": {"max_length": 8}}
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
    task = task_for([*TRAIN, {"text": ". ! ?", "label": "warm"}], max_length=5, overlap=1)
    model_for(task, hierarchical=True)
    text = "the dog. one big old man sees the small cat! the tree"
    sentences = ["the dog .", "one big old man sees", "the small cat !", "the tree"]
    expected = [token for sentence in sentences for token in (*task.tokenizer.encode(sentence), Tokenizer.eos_id)]
    encoded = task.encode({"text": text, "label": "warm"}, training=True)
    assert encoded["text"].tolist() == expected
    assert task.fitted(encoded) is encoded
    assert task.long_examples == "read by their sentences"


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
    assert report_of(run)["coverage"]["found"] == 4
    assert "elsewhere" not in words


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"vectors": "v.txt", "tokens": "subwords"}, "task.vectors=v.txt needs task.tokens=words"),
        ({"freeze_vectors": True}, "task.freeze_vectors would be ignored without task.vectors"),
        ({"multi_label": True, "abstain_precision": 0.9}, "task.abstain_precision would be ignored with task.multi_label"),
        ({"labels": []}, "task.labels is empty"),
        ({"labels": ["warm", "cold", "plain", "warm"]}, "task.labels names 'warm' twice"),
        ({"stop_words": "de"}, "task.stop_words"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        prepared_in(tmp_path, TRAIN[:30], VALID[:9], task=settings)


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


def test_probabilities_are_counted_by_the_names_of_their_labels() -> None:
    """Another run may have the same labels in another order."""
    task = task_for()
    metrics = task.metrics()
    shares = {"warm": 0.7, "cold": 0.2, "plain": 0.1}
    task.count(metrics, [Answer("warm", 0.7, details={"probabilities": shares})], [{"text": "red", "label": "cold"}])
    assert metrics.qualities() == pytest.approx([20])


def test_counting_nothing_is_nothing() -> None:
    task = task_for()
    metrics = task.metrics()
    task.count(metrics, [], [])
    assert len(metrics.qualities()) == 0
