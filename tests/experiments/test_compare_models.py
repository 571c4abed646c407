"""Comparing kinds of model: equal budgets, the baselines, the verdict, and the tasks made for the question."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from toy_runs import TINY, TINY_TEXTS, toy_texts, write_rows

from heed.config import merge
from heed.data.store import Store
from heed.errors import ConfigError, DataError, HeedError
from heed.experiments.baselines import REGULARISATION, Baseline, judged_on, trained_on
from heed.experiments.models import (
    MIXERS,
    SIGNIFICANT,
    UNFINISHED,
    Candidate,
    by_length,
    compare_models,
    comparison_lines,
    corrected,
    judged_words,
    matched,
    named,
    networks_of,
    right_of,
    verdict,
    with_test_data,
    without_n_grams,
)
from heed.metrics.classification import ClassificationMetrics
from heed.model import ModelConfig, build_model
from heed.model.describe import count_parameters
from heed.run import Run, resolve
from heed.tasks.text_classification import TextClassification, TextClassificationSettings
from heed.training.division import scored_rows
from heed.training.prepare import prepare

MODULE = import_module("heed.experiments.models")
BASELINE = "TF-IDF + logistic regression"
ROWS = toy_texts(56)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Compare tiny models, without the synthetic tasks; return the folder and what was found."""
    folder = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        found = compare_models(TINY_TEXTS, settings_in(folder), folder / "kinds", synthetic=False, quiet=True)
    return folder / "kinds", found


def settings_in(folder: Path) -> dict[str, Any]:
    """Write training and test data into a folder, and return the settings of a comparison of them."""
    files = {name: str(write_rows(folder / f"{name}.tsv", rows)) for name, rows in (("train", ROWS[:40]), ("test", ROWS[40:]))}
    return {"data": {**files, "valid_share": 0.2}, "train": {"steps": 6, "average": 2, "evaluate_every": 3, "device": "cpu"}}


@pytest.fixture
def copied(compared: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Return a copy of the comparison that a test may spoil, and its settings."""
    shutil.copytree(compared[0], tmp_path / "kinds")
    return tmp_path / "kinds", settings_in(compared[0].parent)


def model_of(content: dict[str, Any], name: str) -> dict[str, Any]:
    return next(model for model in content["models"] if model["name"] == name)


def test_all_kinds_are_judged_on_the_same_rows_with_what_they_cost(compared: tuple[Path, dict[str, Any]]) -> None:
    _, content = compared
    assert [model["name"] for model in content["models"]] == [*MIXERS, BASELINE, "majority"]
    for model in content["models"]:
        for name in ("accuracy", "precision_macro", "recall_macro", "f1_macro"):
            assert model["scores"][name].keys() == {"value", "low", "high"}
        assert model["train_seconds"] > 0
        assert 0 < model["latency_ms"]["median"] <= model["latency_ms"]["p95"]
        assert model["peak_memory_mib"] > 10
    assert content["data"]["classes"] == Counter(row["label"] for row in ROWS[40:])
    assert content["recall"] is content["costs"] is None


def test_the_networks_differ_in_what_mixes_their_tokens_and_hardly_in_size(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, content = compared
    for name, mixer in MIXERS.items():
        config = Run.load(folder / name.lower(), device="cpu").config
        assert config.model.mixer == (mixer or "attention")
        assert model_of(content, name)["parameters"] == count_parameters(build_model(config.model))
        assert model_of(content, name)["size"]["mixer"] == config.model.mixer
    stores = [Store(folder / name.lower() / "store" / split) for split in ("train", "valid") for name in MIXERS]
    assert stores[0].rows.tolist() == stores[1].rows.tolist() == stores[2].rows.tolist()
    assert stores[3].rows.tolist() == stores[4].rows.tolist() == stores[5].rows.tolist()


def test_scores_of_a_network_are_those_of_its_run_on_the_test_data(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, content = compared
    for name in MIXERS:
        evaluation = json.loads((folder / name.lower() / "evaluations" / "test.json").read_text(encoding="utf-8"))
        assert model_of(content, name)["scores"]["log_loss"] == pytest.approx(evaluation["log_loss"], abs=2e-4)
        assert evaluation["n"] == 16


def test_baselines_are_fitted_on_the_training_rows_of_the_runs_and_on_no_other(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, content = compared
    run = Run.load(folder / "transformer", device="cpu")
    rows = [ROWS[row] for row in Store(run.folder / "store" / "train").rows]
    assert [row["text"] for row in trained_on(run)] == [row["text"] for row in rows]
    assert [row["text"] for row in judged_on(run)] == [row["text"] for row in ROWS[40:]]
    assert len(rows) < 40
    most = Counter(row["label"] for row in rows).most_common()
    frequent = sorted(label for label, n in most if n == most[0][1])[0]
    expected = np.mean([row["label"] == frequent for row in ROWS[40:]])
    assert model_of(content, "majority")["scores"]["accuracy"]["value"] == pytest.approx(expected, abs=1e-4)
    assert model_of(content, BASELINE)["scores"]["log_loss"]["value"] == pytest.approx(
        -np.log([shares[row["label"]] for shares, row in zip(by_scikit_learn(rows, ROWS[40:]), ROWS[40:], strict=True)]).mean(), abs=1e-4
    )


def test_the_training_speed_is_that_of_tokens_over_the_logged_updates(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, content = compared
    for name in MIXERS:
        place = folder / name.lower()
        lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        logged = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
        found = model_of(content, name)["train_tokens_per_second"]
        assert found == pytest.approx(np.median(logged[1:]), abs=0.1)
        lengths_told = [line["tokens_per_second"] / line["units_per_second"] for line in lines if "units_per_second" in line]
        lengths = Store(place / "store" / "train").lengths()[:, 0]
        assert lengths.min() - 1e-6 <= min(lengths_told) <= max(lengths_told) <= lengths.max() + 1e-6  # tokens of an example


def test_a_second_call_trains_nothing_again(
    compared: tuple[Path, dict[str, Any]], copied: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "_train", lambda *arguments: pytest.fail("trained again"))
    again = compare_models(TINY_TEXTS, copied[1], copied[0], synthetic=False, quiet=True)
    for name in (*MIXERS, BASELINE, "majority"):
        assert model_of(again, name)["scores"] == model_of(compared[1], name)["scores"]
    assert again["verdict"] == compared[1]["verdict"]


def test_a_comparison_goes_on_after_a_kind_that_failed_with_what_was_done(
    compared: tuple[Path, dict[str, Any]], copied: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = copied
    shutil.rmtree(folder / "cnn")
    (folder / "lstm" / "evaluations" / "test.json").unlink()  # killed before it was scored
    asked: list[tuple[str, ...]] = []

    def failing(place: Path, *arguments: str) -> None:
        asked.append(arguments)
        raise HeedError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "_train", failing)
        with pytest.raises(HeedError, match="no memory"):
            compare_models(TINY_TEXTS, settings, folder, synthetic=False, quiet=True)
    assert asked == [(str(folder / "cnn.yaml"), "--to", str(folder / "cnn"))]
    told = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in told["models"]] == ["Transformer"]
    assert told["verdict"] == [UNFINISHED]
    assert UNFINISHED in (folder / "report.html").read_text(encoding="utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = compare_models(TINY_TEXTS, settings, folder, synthetic=False, quiet=True)
    assert [model["scores"] for model in found["models"]] == [model["scores"] for model in compared[1]["models"]]


def test_what_does_not_depend_on_the_data_is_measured_once(copied: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"distances": [8], "models": {}, "chance": 0.125}
    monkeypatch.setattr(MODULE, "_recall", lambda: found)
    monkeypatch.setattr(MODULE, "costs", lambda: {"lengths": [], "kinds": {}})
    first = compare_models(TINY_TEXTS, copied[1], copied[0], quiet=True)
    for name in ("_recall", "costs"):
        monkeypatch.setattr(MODULE, name, lambda: pytest.fail("measured again"))
    again = compare_models(TINY_TEXTS, copied[1], copied[0], quiet=True)
    assert first["recall"] == again["recall"] == found
    assert again["costs"] == {"lengths": [], "kinds": {}}


def test_other_settings_and_other_data_are_refused(copied: tuple[Path, dict[str, Any]]) -> None:
    folder, settings = copied
    with pytest.raises(ConfigError, match=r"kinds: was made with train\.lr=0\.02, now it is 0\.01"):
        compare_models(TINY_TEXTS, merge(settings, {"train": {"lr": 0.01}}), folder, synthetic=False, quiet=True)
    test = Path(settings["data"]["test"])
    before = test.read_bytes()
    try:
        write_rows(test, ROWS[41:])
        with pytest.raises(DataError, match=r"data\.test=.*test\.tsv: changed since"):
            compare_models(TINY_TEXTS, settings, folder, synthetic=False, quiet=True)
    finally:
        test.write_bytes(before)


@pytest.mark.parametrize(("given", "judged"), [([], "test"), (["valid"], "valid"), (["valid", "test"], "test")])
def test_networks_and_baselines_are_judged_on_rows_that_chose_nothing(tmp_path: Path, given: list[str], judged: str) -> None:
    files = {"train": ROWS[:40], "valid": ROWS[40:48], "test": ROWS[48:]}
    data = {name: str(write_rows(tmp_path / f"{name}.tsv", files[name])) for name in ("train", *given)}
    asked = resolve(TINY_TEXTS, {"data": data})
    config = with_test_data(asked)
    prepare(config, tmp_path / "run", lambda text: None)
    run = Run.open(tmp_path / "run")
    validated = scored_rows(run) or files["valid"]
    tested, trained, chosen_by = ([row["text"] for row in some] for some in (judged_on(run), trained_on(run), validated))
    if given:
        assert tested == [row["text"] for row in files[judged]]
    else:
        assert (config.data.folds, config.data.fold) == (5, 1)
        assert len(tested) == 8
        assert "Judged on fold 1 of 5 of the training data, as there is no data.test (data.folds=5 data.fold=1)" in judged_words(
            asked, config
        )
    assert chosen_by
    assert not set(tested) & {*chosen_by, *trained}
    if given == ["valid"]:
        assert "given as data.valid, it chooses nothing here" in judged_words(asked, config)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("reviews.csv", "reviews.csv"),
        ("../reviews.csv", "reviews.csv"),
        ("/a.csv", "a.csv"),
        ("/data/trec/train.jsonl", "trec/train.jsonl"),
    ],
)
def test_the_title_names_a_file_by_its_folder_where_that_has_a_name(source: str, name: str) -> None:
    assert named(source) == name


def test_the_comparison_is_kept_as_json_and_as_a_page(compared: tuple[Path, dict[str, Any]]) -> None:
    folder, content = compared
    assert json.loads((folder / "comparison.json").read_text(encoding="utf-8")) == content
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "TF-IDF" in page
    lines = comparison_lines(content)
    assert lines[: len(content["verdict"])] == content["verdict"]
    assert any(note.startswith("Judged on data.test=") for note in content["notes"])
    assert any("trained once, with seed 1" in note for note in content["notes"])
    assert any("multiplied by 3, that against the Transformer by 2 (Bonferroni)" in note for note in content["notes"])
    assert content["data"]["texts_judged"] == 16
    assert all(note in lines and note in page for note in content["notes"])
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in (*MIXERS, BASELINE, "majority"))


def test_a_folder_that_holds_something_else_and_other_tasks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists already and is never overwritten"):
        compare_models(TINY_TEXTS, settings_in(tmp_path), tmp_path / "other", synthetic=False, quiet=True)
    with pytest.raises(ConfigError, match="compares text classifiers, found task translation"):
        compare_models(TINY, {"data": {"train": "t.tsv"}}, tmp_path / "kinds", synthetic=False, quiet=True)
    with pytest.raises(ConfigError, match=r"data\.train is not set"):
        compare_models(TINY_TEXTS, {}, tmp_path / "kinds", synthetic=False, quiet=True)
    assert not (tmp_path / "kinds").exists()


@pytest.mark.parametrize("mixer", ["convolution", "lstm"])
@pytest.mark.parametrize("special", [{}, {"attention": "windowed", "adaptive": True, "n_kv_heads": 2}, {"hierarchical": True}])
def test_another_kind_has_as_many_parameters_where_widths_allow(mixer: str, special: dict[str, Any]) -> None:
    sizes = {"vocab_size": 2000, "n_classes": 5, "d_model": 160, "n_heads": 4, "d_ff": 480, "n_layers": 2}
    transformer = ModelConfig(architecture="encoder", **sizes, **special)
    other = matched(transformer, mixer)
    budget = count_parameters(build_model(transformer))
    assert abs(count_parameters(build_model(other)) - budget) <= 0.05 * budget
    assert (other.mixer, other.n_layers, other.vocab_size, other.n_classes) == (mixer, 2, 2000, 5)
    for width in (other.d_model - 8, other.d_model + 8):
        neighbour = count_parameters(build_model(other.replace(d_model=width, d_ff=width)))
        assert abs(neighbour - budget) >= abs(count_parameters(build_model(other)) - budget)


def candidate(name: str, answers: Sequence[bool]) -> Candidate:
    """Return a model that is right where `answers` say so, of 200 texts in two classes."""
    targets = np.arange(len(answers)) % 2
    metrics = ClassificationMetrics(["no", "yes"])
    given = np.where(answers, targets, 1 - targets)
    metrics.add(np.where(given[:, None] == np.arange(2), 0.9, 0.1), targets)
    return Candidate(name, metrics, right_of(metrics), {})


def four(transformer: int, cnn: int, lstm: int, simple: int) -> list[Candidate]:
    """Return models that are right on so many of 200 texts, other texts for each, and the majority class."""
    draw = np.random.default_rng(1)
    names = {"Transformer": transformer, "CNN": cnn, "LSTM": lstm, BASELINE: simple, "majority": 100}
    return [candidate(name, draw.permutation(200) < n) for name, n in names.items()]


def test_the_verdict_names_a_network_that_beats_the_baseline() -> None:
    first, *others = verdict(four(transformer=190, cnn=150, lstm=140, simple=120))
    assert first.startswith(f"The Transformer (95.0%) beats the simple {BASELINE} (60.0%) by 35.0 points")
    assert others == ["Always answering with the most frequent class is right 50.0% of the time."]


def test_the_model_of_the_recipe_is_compared_with_networks_alone() -> None:
    plain = ModelConfig(architecture="encoder", n_classes=2)
    assert networks_of(plain) == networks_of(plain.replace(mixer="lstm")) == list(MIXERS)
    assert networks_of(plain.replace(mixer="hybrid")) == [*MIXERS, "hybrid"]
    wide = plain.replace(mixer="hybrid", n_grams=2, n_gram_rows=99)
    assert networks_of(wide) == [*MIXERS, "hybrid + n-grams"]
    assert networks_of(plain.replace(n_grams=2)) == [*MIXERS, "Transformer + n-grams"]
    assert without_n_grams(wide) == plain.replace(mixer="hybrid")


def test_the_verdict_says_what_networks_do_without_n_grams() -> None:
    wide = candidate("hybrid + n-grams", np.arange(200) < 190)
    first, second, *_ = verdict([*four(transformer=160, cnn=150, lstm=140, simple=180), wide])
    assert "hybrid + n-grams (95.0%)" in first
    assert second.startswith(
        f"Of networks alone, without n-grams: The simple baseline wins: {BASELINE} (90.0%) beats the best network, the T"
    )
    assert second.endswith(").")  # the advice is that of the first line


def test_the_verdict_says_so_when_there_is_no_winner_and_names_the_cheaper_one() -> None:
    first = verdict(four(transformer=161, cnn=150, lstm=140, simple=160))[0]
    assert first.startswith(f"No winner: Transformer (80.5%) and the simple {BASELINE} (80.0%) do not differ by more than chance")
    assert "cheaper: use it" in first


def test_the_verdict_says_so_when_the_baseline_wins() -> None:
    first = verdict(four(transformer=120, cnn=110, lstm=100, simple=190))[0]
    assert first.startswith(f"The simple baseline wins: {BASELINE} (95.0%) beats the best network, the Transformer (60.0%), by 35.0 points")


def test_a_lead_of_the_baseline_over_even_the_best_network_needs_no_correction() -> None:
    """The network was picked because it is the best: that speaks for it, not against it."""
    right = np.arange(200) < 100
    worse = right.copy()
    worse[90:100], worse[100:102] = False, True
    models = [candidate(name, worse) for name in MIXERS] + [candidate(BASELINE, right), candidate("majority", right)]
    single = models[3].metrics.compare(models[0].metrics)["accuracy"].p_value
    assert single < SIGNIFICANT < corrected(single, 3)
    majority, first = verdict(models)
    assert first.startswith(f"The simple baseline wins: {BASELINE} (50.0%) beats the best network, the Transformer (46.0%), by 4.0 points")
    lead = models[0].metrics.compare(models[3].metrics)["accuracy"].difference
    assert first.endswith(
        f"(95 % interval of the difference {100 * lead.low:+.1f} to {100 * lead.high:+.1f} points, p = {single:.3f}). "
        "Use the simple one here."
    )
    assert majority.startswith("No model is right more often")


def test_the_verdict_says_first_that_no_model_is_better_than_the_majority_class() -> None:
    first, second = verdict(four(transformer=90, cnn=80, lstm=70, simple=95))
    assert first == "No model is right more often than the majority class, always answered (50.0%)."
    assert second.startswith("No winner: Transformer (45.0%)")
    assert verdict(four(transformer=90, cnn=80, lstm=70, simple=101))[0].startswith("No winner: ")


def test_a_difference_that_is_sure_for_one_network_is_not_for_the_best_of_three() -> None:
    """Of networks that answer alike, each is better than the baseline by as much, but the best of them was picked."""
    right = np.arange(200) < 100
    better = right.copy()
    better[100:110], better[:2] = True, False  # ten to two
    models = [candidate(name, better) for name in MIXERS] + [candidate(BASELINE, right), candidate("majority", right)]
    single = models[3].metrics.compare(models[0].metrics)["accuracy"].p_value
    assert single < SIGNIFICANT < corrected(single, 3) == pytest.approx(3 * single)
    assert verdict(models)[0].startswith("No winner: ")
    assert f"corrected p = {3 * single:.3f}" in verdict(models)[0]


def test_a_corrected_p_value_is_a_probability() -> None:
    assert corrected(0.5, 3) == 1.0
    assert corrected(0.01, 1) == 0.01


@pytest.mark.parametrize(("transformer", "sure"), [(110, ", more than chance (corrected"), (184, ", no more than chance (corrected")])
def test_the_verdict_says_which_network_is_ahead_of_the_transformer(transformer: int, sure: str) -> None:
    first, second, _ = verdict(four(transformer=transformer, cnn=185, lstm=140, simple=120))
    assert first.startswith("The CNN (92.5%) beats")
    assert second.startswith(f"Among the networks the CNN is ahead of the Transformer by {(185 - transformer) / 2:.1f} points")
    assert sure in second


def test_accuracy_is_told_by_length_where_there_are_ten_texts() -> None:
    texts = ["one two three"] * 12 + ["a b c d e f"] * 10 + ["w " * 30] * 9 + ["字" * 60] * 10
    right = np.array([True] * 6 + [False] * 6 + [True] * 10 + [False] * 9 + [True, False] * 5)
    found = [(one["length"], one["n"], one["accuracy"]["value"]) for one in by_length(texts, right)]
    assert found == [("1-5", 12, 0.5), ("6-10", 10, 1.0), ("51-100", 10, 0.5)]  # a character of Chinese counts as a word does


def test_several_labels_are_right_when_all_of_them_are() -> None:
    metrics = ClassificationMetrics(["a", "b"], multi_label=True)
    metrics.add([[0.9, 0.1], [0.9, 0.9], [0.2, 0.3]], [[1, 0], [1, 0], [0, 0]])
    assert right_of(metrics).tolist() == [True, False, True]


def by_scikit_learn(rows: Sequence[dict[str, str]], asked: Sequence[dict[str, str]], **options: Any) -> list[dict[str, float]]:
    """Return the probability of each label by a pipeline of scikit-learn's own, labels as text."""
    words = {"ngram_range": (1, 2), "token_pattern": r"\w+|[^\w\s]", "sublinear_tf": True, **options}
    pipeline = make_pipeline(TfidfVectorizer(**words), LogisticRegression(C=REGULARISATION, max_iter=1000))
    pipeline.fit([row["text"] for row in rows], [row["label"] for row in rows])
    return [dict(zip(pipeline.classes_, shares, strict=True)) for shares in pipeline.predict_proba([row["text"] for row in asked])]


def fitted(kind: str, rows: Sequence[dict[str, Any]], **settings: Any) -> Baseline:
    task = TextClassification(TextClassificationSettings.model_validate({"tokens": "characters", **settings}))
    task.settle(rows[0])
    task.prepare(rows)
    baseline = Baseline(kind, task)
    baseline.fit(rows)
    return baseline


CHINESE = [{"text": "".join("好坏天地人"[(i * k + k) % 5] for k in range(3, 9)), "label": "xy"[i % 2]} for i in range(40)]


@pytest.mark.parametrize(
    ("rows", "options"),
    [(ROWS[:40], {}), (toy_texts(130), {"min_df": 2}), (CHINESE, {"analyzer": "char", "ngram_range": (1, 3), "token_pattern": None})],
    ids=["few", "many", "without spaces"],
)
def test_the_simple_classifier_is_that_of_scikit_learn(rows: list[dict[str, str]], options: dict[str, Any]) -> None:
    baseline = fitted("tf-idf", rows)
    expected = by_scikit_learn(rows, rows[:20], **options)
    found = baseline.probabilities(rows[:20])
    labels = baseline.task.labels.labels
    np.testing.assert_allclose(found, [[shares[label] for label in labels] for shares in expected], atol=1e-6)
    classifier = baseline.model.steps[-1][1]
    assert baseline.n_parameters == classifier.coef_.size + classifier.intercept_.size


def test_the_majority_answers_with_the_shares_of_the_classes() -> None:
    rows = [*ROWS[:30], *(row for row in ROWS[30:] if row["label"] == "cold")]
    baseline = fitted("majority", rows)
    counts = Counter(row["label"] for row in rows)
    expected = [counts[label] / len(rows) for label in baseline.task.labels.labels]
    np.testing.assert_allclose(baseline.probabilities(ROWS[:7]), [expected] * 7, atol=1e-12)
    assert baseline.n_parameters == 0


def test_the_majority_needs_no_words_of_two_letters() -> None:
    rows = [{"text": text, "label": label} for text, label in (("a", "x"), ("b c", "y"), ("d", "x"), ("好", "x"))]
    assert fitted("majority", rows).probabilities(rows[:1]).tolist() == [[0.75, 0.25]]


def test_labels_that_training_never_saw_have_no_probability() -> None:
    rows = [{"text": f"{word} {i}", "label": label} for i, (word, label) in enumerate([("good", "yes"), ("bad", "no")] * 9)]
    found = fitted("tf-idf", rows, labels=["maybe", "yes", "no"]).probabilities([{"text": "good"}, {"text": "bad"}])
    assert found[:, 0].tolist() == [0, 0]
    assert found[0].argmax() == 1
    assert found[1].argmax() == 2
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("kind", ["tf-idf", "majority"])
def test_baselines_give_several_labels_too(kind: str) -> None:
    labels = [["r"] * (i % 2) + ["b"] * (i % 3 == 0) for i in range(30)]
    words = {"r": "red", "b": "blue"}
    rows = [{"text": " ".join([*(words[one] for one in some), f"dog {i}"]), "label": some} for i, some in enumerate(labels)]
    found = fitted(kind, rows, multi_label=True).probabilities([{"text": "red dog"}, {"text": "blue red"}, {"text": "dog"}])
    assert found.shape == (3, 2)
    if kind == "majority":
        np.testing.assert_allclose(found, [[1 / 3, 1 / 2]] * 3)
    else:
        assert (found > 0.5).tolist() == [[False, True], [True, True], [False, False]]


def test_two_texts_are_joined_for_a_baseline() -> None:
    rows = [{"text": f"one {i}", "text_pair": f"two {i}", "label": "xy"[i % 2]} for i in range(8)]
    assert fitted("majority", rows).texts(rows[:1]) == ["one 0 two 0"]
