"""Text classification from rows to answers: what is learned of labels, and what an answer and its scores say."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_classifiers import (
    LABELS,
    LEARN,
    ROWS,
    TRAIN,
    VALID,
    filler,
    inputs,
    noisy,
    prepared_in,
    probabilities,
    report_of,
    task_for,
    texts,
    texts_with_labels,
    trained,
    trained_on_toys,
)
from toy_runs import TINY_TEXTS, Command, write_rows

import heed
from heed.config import merge
from heed.data.calibration import Calibration
from heed.errors import DataError
from heed.evaluation import evaluate_run
from heed.run import Run
from heed.tasks import Answer
from heed.tasks.advice import classification_advice
from heed.tasks.text_classification import TextClassification, TextClassificationSettings
from heed.verbs import conclusion

pytest_plugins = ["toy_runs"]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained_on_toys(tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that gives a text any number of labels."""
    rows = texts_with_labels(100, seed=1)
    return trained(tmp_path_factory.mktemp("several"), rows[:70], rows[70:], train=LEARN, task={"multi_label": True})


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


def test_a_precision_that_no_threshold_keeps_withholds_everything_and_is_told_with_the_best_there_is(
    tmp_path: Path, command: Command
) -> None:
    """One in three labels of the validation data is wrong, so that no answers are right as often as that."""
    wrong = [row if i % 3 else {**row, "label": LABELS[LABELS.index(row["label"]) - 1]} for i, row in enumerate(VALID)]
    run = trained(tmp_path, TRAIN, wrong, train=LEARN, task={"abstain_precision": 0.99})
    kept = run.task.parts["calibration"]
    assert isinstance(kept, Calibration)
    assert kept.threshold == 1.0
    assert all(answer.text == "" for answer in run.predict(inputs(VALID)))
    lines = [json.loads(line) for line in (run.folder / "evaluations" / "valid.jsonl").read_text(encoding="utf-8").splitlines()]
    sure = np.array([line["answer"]["score"] for line in lines])
    right = np.array([likeliest(line["answer"]) == line["example"]["label"] for line in lines])
    reached = {right[sure >= level].mean(): np.mean(sure >= level) for level in sorted(sure) if (sure >= level).sum() >= 10}
    assert kept.best_precision == pytest.approx(max(reached))
    content = json.loads((run.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    assert content["remarks"] == [kept.remark] == content["advice"][:1]
    assert "task.abstain_precision=0.99 cannot be kept, so every answer is withheld" in "\n".join(conclusion(run))
    done = command("evaluate", run.folder, tmp_path / "valid.tsv")
    assert str(kept.remark) in done.out
    assert Run.load(run.folder, device="cpu").task.parts["calibration"] == kept


def test_an_evaluation_shows_the_wrong_answers_the_surest_first(single: Run, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "noisy.tsv", noisy(VALID))
    examples = _examples_of(single, source)
    lines = [json.loads(line) for line in (single.folder / "evaluations" / "noisy.jsonl").read_text(encoding="utf-8").splitlines()]
    wrong = [line for line in lines if line["answer"]["text"] != line["example"]["label"]]
    ordered = sorted(wrong, key=lambda line: -line["answer"]["score"])[:5]
    assert [one["answer"]["score"] for one in examples["worst"]] == [line["answer"]["score"] for line in ordered]
    assert len(examples["worst"]) == 5
    assert len(examples["best"]) == 5
    assert single.task.group_names["worst"] == "Most confidently wrong"


def test_where_few_answers_are_wrong_few_are_shown_and_where_none_is_none(single: Run, tmp_path: Path) -> None:
    answers = single.predict(inputs(VALID))
    rows = [{**row, "label": answer.text} for row, answer in zip(VALID, answers, strict=True)]
    assert "worst" not in {sort for sort, found in _examples_of(single, write_rows(tmp_path / "right.tsv", rows)).items() if found}
    rows[3]["label"] = next(label for label in LABELS if label != rows[3]["label"])
    (shown,) = _examples_of(single, write_rows(tmp_path / "one.tsv", rows))["worst"]
    assert shown["example"] == rows[3]


def _examples_of(run: Run, source: Path) -> dict[str, list[dict[str, Any]]]:
    """Score a run on a file and return the examples that are shown."""
    evaluate_run(run, str(source), name=source.stem)
    examples: dict[str, list[dict[str, Any]]] = json.loads((run.folder / "evaluations" / f"{source.stem}.json").read_text())["examples"]
    return examples


def test_a_wish_that_could_not_be_fulfilled_comes_first_among_the_advice() -> None:
    settings = TextClassificationSettings()
    plain = classification_advice({"accuracy": {"value": 0.9}}, {}, settings)
    assert classification_advice({"accuracy": {"value": 0.9}, "remarks": ["What was wanted is not to be had."]}, {}, settings) == [
        "What was wanted is not to be had.",
        *(line for line in plain if not line.startswith("Nothing")),
    ]


@pytest.mark.parametrize(("size", "larger"), [(300, True), (299, False)])
def test_a_larger_vocabulary_is_advised_only_where_it_would_hold_more(size: int, larger: bool) -> None:
    settings = TextClassificationSettings(tokens="characters", vocab_size=300)
    (line,) = (
        one for one in classification_advice({}, {"vocabulary": {"size": size, "unknown_share_valid": 0.17}}, settings) if "17%" in one
    )
    assert line.startswith("17% of the characters in the validation texts are not known: try task.tokens=subwords")
    assert ("or a larger task.vocab_size" in line) is larger


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
    with pytest.raises(DataError, match=r"every training row has the label 'warm'; a classifier needs at least two"):
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
        assert "found leaks: 2" in said


def test_the_data_report_counts_all_rows_read_although_examples_of_faults_are_read_again(tmp_path: Path) -> None:
    rows = [*TRAIN[:5], TRAIN[2], *TRAIN[5:40]]
    prepared, said = prepared_in(tmp_path, rows, VALID[:12])
    report = report_of(prepared.run)
    assert report["reading"]["rows"] == report["train"]["rows"] == 41
    assert report["train"]["counts"]["duplicates"] == 1
    assert "3 classes: " in said
    assert Counter(row["label"] for row in rows) == Counter(report["train"]["classes"])


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
