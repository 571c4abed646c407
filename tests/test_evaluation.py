import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from toy_runs import Census, ToyData, Train, toy_pairs, write_pairs

from heed import evaluation as evaluation_module
from heed import verbs
from heed.config import DecodeConfig
from heed.errors import ConfigError, DataError
from heed.evaluation import compare_runs, comparison_lines, evaluate_examples, evaluate_run, evaluation_settings, score_lines
from heed.metrics import TranslationMetrics, TranslationScores
from heed.run import Run
from heed.run import run as run_module

pytest_plugins = ["toy_runs"]

GREEDY = DecodeConfig(beams=1, max_length=20, precision="float32")
PAIRS = toy_pairs(23, seed=41)


@pytest.fixture
def copied(run_copy: Path) -> Run:
    return Run.load(run_copy)


def test_scores_are_those_of_the_answers_and_their_references(toy_run: Run) -> None:
    evaluation = evaluate_examples(toy_run, PAIRS, GREEDY)
    answers = [toy_run.predict(pair, beams=1, max_length=20) for pair in PAIRS]
    assert evaluation.scores.to_json() == toy_run.task.score(answers, PAIRS).to_json()
    assert evaluation.n_examples == len(PAIRS)
    exact = 100 * np.mean([answer.text == pair["target"] for answer, pair in zip(answers, PAIRS, strict=True)])
    assert evaluation.scores.to_json()["exact_match"]["value"] in (pytest.approx(exact, abs=0.01), pytest.approx(exact / 100, abs=0.01))


def test_scores_do_not_depend_on_how_the_data_is_divided(toy_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate_examples(toy_run, PAIRS, GREEDY)
    monkeypatch.setattr(evaluation_module, "WINDOW", 4)
    monkeypatch.setattr(run_module, "WINDOW", 3)
    parts = evaluate_examples(toy_run, PAIRS, GREEDY.replace(batch_tokens=20))
    assert parts.scores.to_json() == whole.scores.to_json()


def test_a_test_set_of_any_size_is_held_a_window_at_a_time(toy_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_module, "WINDOW", 4)
    monkeypatch.setattr(run_module, "WINDOW", 4)
    census = Census()
    stream = (census.counted(PAIRS[i % len(PAIRS)]) for i in range(60))
    assert evaluate_examples(toy_run, stream, GREEDY).n_examples == 60
    assert census.most <= 2 * 4 + 1


def test_an_evaluation_is_kept_in_the_run_folder_with_every_answer(copied: Run, toy_data: ToyData) -> None:
    content = evaluate_run(copied, str(toy_data.test), name="test")
    folder = copied.folder / "evaluations"
    kept = json.loads((folder / "test.json").read_text(encoding="utf-8"))
    assert {key: value for key, value in kept.items() if key != "examples"} == content
    lines = [json.loads(line) for line in (folder / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["example"]["source"] for line in lines] == [pair["source"] for pair in toy_pairs(12, 12)]
    options = copied.config.decode
    assert [line["answer"]["text"] for line in lines] == [answer.text for answer in copied.answers(toy_pairs(12, 12), options)]


def test_evaluations_of_files_with_one_name_are_kept_apart(copied: Run, toy_data: ToyData, tmp_path: Path) -> None:
    sources = [tmp_path / place / "data" / "test.tsv" for place in ("one", "other")]
    for source in sources:
        source.parent.mkdir(parents=True)
        write_pairs(source, toy_pairs(3))
        first = evaluate_run(copied, str(source))["name"]
        assert evaluate_run(copied, str(source))["name"] == first
    kept = [json.loads(path.read_text(encoding="utf-8"))["data"] for path in (copied.folder / "evaluations").glob("data-test.tsv*.json")]
    assert sorted(kept) == sorted(map(str, sources))


def test_every_score_has_an_interval_around_it(copied: Run, toy_data: ToyData) -> None:
    content = evaluate_run(copied, str(toy_data.test))
    for name in ("bleu", "chrf", "ter"):
        score = content[name]
        assert score.keys() == {"value", "low", "high"}
        assert score["low"] <= score["value"] <= score["high"]
        assert any(line.startswith(name) for line in score_lines(content))


def test_what_measuring_cost_is_written_beside_the_scores(copied: Run, toy_data: ToyData) -> None:
    cost = evaluate_run(copied, str(toy_data.test))["cost"]
    assert cost["examples"] == 12
    assert cost["peak_memory_mib"] > 0
    assert {"processor", "threads", "torch"} <= cost["machine"].keys()


@pytest.mark.parametrize(("n_tokens", "told"), [(12, False), (31, True)])
def test_tokens_a_second_are_told_where_an_answer_is_more_than_one(copied: Run, n_tokens: int, told: bool) -> None:
    found = evaluate_examples(copied, toy_pairs(12, 12), copied.config.decode)
    content = dataclasses.replace(found, n_tokens=n_tokens, seconds=2.0).to_json()
    assert content["cost"].get("tokens_per_second") == (n_tokens / 2 if told else None)
    assert any("6 examples/s, " in line and ("tokens/s" in line) is told for line in score_lines(content))


def test_what_is_counted_is_called_by_its_name(copied: Run) -> None:
    found = evaluate_examples(copied, toy_pairs(12, 12), copied.config.decode)
    content = dataclasses.replace(found, n_tokens=31, seconds=2.0, token_name="labels").to_json()
    assert any(" 16 labels/s, " in line for line in score_lines(content))


def test_what_noise_makes_of_a_score_stands_in_columns(copied: Run) -> None:
    content = evaluate_examples(copied, toy_pairs(12, 12), copied.config.decode).to_json()
    score = {"value": 0.5, "low": 0.25, "high": 0.75}
    content["noise"] = [{"noise": noise, "snr_db": level, "wer": score} for noise in ("white", "babble") for level in (20, 5, -10)]
    told = [line for line in score_lines(content) if " noise at " in line]
    assert [line.split()[:6] for line in told] == [
        ["wer", "with", one["noise"], "noise", "at", str(one["snr_db"])] for one in content["noise"]
    ]
    assert len({(line.index(" dB "), line.index("0.5"), len(line)) for line in told}) == 1


def test_telling_examples_are_the_best_the_middle_and_the_worst(copied: Run, toy_data: ToyData) -> None:
    evaluate_run(copied, str(toy_data.test), name="test")
    examples = json.loads((copied.folder / "evaluations" / "test.json").read_text(encoding="utf-8"))["examples"]
    best, median, worst = ([one["quality"] for one in examples[sort]] for sort in ("best", "median", "worst"))
    assert best == sorted(best, reverse=True)
    assert worst == sorted(worst)
    assert best[0] >= median[0] >= worst[0]
    drawn = [one["picture"] for one in examples["best"] if one["picture"]]
    assert drawn
    for picture in drawn:
        weights = np.array(picture["weights"])
        assert weights.shape == (len(picture["target"]), len(picture["source"]))
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=2e-3)


def test_one_example_is_enough(copied: Run, tmp_path: Path) -> None:
    content = evaluate_run(copied, str(write_pairs(tmp_path / "one.tsv", PAIRS[:1])))
    assert content["cost"]["examples"] == 1


def test_settings_of_reading_and_decoding_can_change_and_no_others(toy_run: Run) -> None:
    data, decode = evaluation_settings(toy_run, ["data.bad_rows=skip", "decode.beams=4", "data.columns.source=de"])
    assert (data.bad_rows, data.columns, decode.beams) == ("skip", {"source": "de"}, 4)
    with pytest.raises(ConfigError, match=r"train: only data\.\* and decode\.\* settings can change after training"):
        evaluation_settings(toy_run, ["train.lr=1"])
    with pytest.raises(ConfigError, match=r"unknown setting.*decode.beams"):
        evaluation_settings(toy_run, ["decode.beam=1"])
    with pytest.raises(ConfigError, match=r"data\.columns\.sorce would be ignored.*did you mean data\.columns\.source\?"):
        evaluation_settings(toy_run, ["data.columns.sorce=de"])


def test_bad_rows_stop_an_evaluation_and_leave_nothing_behind(copied: Run, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "bad.tsv", PAIRS)
    with path.open("a") as file:
        file.write("no target\n")
    before = sorted(path.name for path in (copied.folder / "evaluations").iterdir())
    with pytest.raises(DataError, match=r"bad.tsv:25: "):
        evaluate_run(copied, str(path))
    assert sorted(path.name for path in (copied.folder / "evaluations").iterdir()) == before
    assert evaluate_run(copied, str(path), ["data.bad_rows=skip"])["cost"]["examples"] == 23


def test_a_run_does_not_differ_from_itself(toy_run: Run, toy_data: ToyData) -> None:
    comparison = compare_runs(toy_run, toy_run, str(toy_data.test))
    assert comparison["n"] == 12
    for name in ("bleu", "chrf"):
        assert comparison[name]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        assert comparison[name]["p_value"] == 1.0


def test_two_runs_are_judged_by_the_same_references_whatever_each_of_them_cleans(copied: Run, toy_run: Run, tmp_path: Path) -> None:
    copied.task.config = copied.task.config.replace(cleaning=False)
    spaced = [{"source": pair["source"], "target": pair["target"].replace(" ", "  ")} for pair in PAIRS]
    comparison = compare_runs(toy_run, copied, str(write_pairs(tmp_path / "spaced.tsv", spaced)), ["decode.precision=float32"])
    for name in ("bleu", "chrf", "exact_match"):
        assert comparison[name]["a"] == comparison[name]["b"]


def test_a_trained_run_is_better_than_one_of_a_single_step(toy_run: Run, toy_data: ToyData, train: Train) -> None:
    beginner = train("beginner", train={"steps": 1})
    comparison = compare_runs(beginner, toy_run, str(toy_data.valid))
    assert comparison["chrf"]["difference"]["value"] > 0
    assert comparison["chrf"]["p_value"] < 0.05
    lines = comparison_lines(comparison)
    assert any(line.startswith("chrf") and line.endswith("differs") for line in lines)


def test_training_scores_validation_and_test_data_once_it_is_done(train: Train, toy_data: ToyData) -> None:
    run = train(data={"valid": str(toy_data.valid), "test": str(toy_data.test)})
    names = {path.name for path in (run.folder / "evaluations").iterdir()}
    assert {"valid.json", "valid.jsonl", "test.json", "test.jsonl"} <= names
    assert (run.folder / "report.html").is_file()
    lines = "\n".join(verbs.conclusion(run))
    assert f"test: {toy_data.test}" in lines
    assert f"report: {run.folder / 'report.html'}" in lines


def test_fewer_resamples_change_intervals_and_no_value(toy_run: Run) -> None:
    usual, few = (evaluate_examples(toy_run, PAIRS, GREEDY, resamples=n).scores.to_json() for n in (1000, 1))
    names = [name for name, score in usual.items() if isinstance(score, dict) and "low" in score]
    assert {name: usual[name]["value"] for name in names} == {name: few[name]["value"] for name in names}
    assert any(usual[name] != few[name] for name in names)


def test_choosing_the_best_weights_by_a_score_needs_no_resamples(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    scores = TranslationMetrics.scores

    def counted(metrics: TranslationMetrics, *, resamples: int = 1000, seed: int = 0) -> TranslationScores:
        asked.append(resamples)
        return scores(metrics, resamples=resamples, seed=seed)

    monkeypatch.setattr(TranslationMetrics, "scores", counted)
    train(train={"best_metric": "bleu", "evaluate_every": 4})
    assert asked[:3] == [1, 1, 1]
    assert set(asked[3:]) == {1000}
