"""A run for each fold: everything fitted anew inside it, kept where it is there already, and summed up."""

import json
import shutil
import signal
import statistics
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import TINY, TINY_TEXTS, toy_pairs, toy_texts, write_pairs, write_rows

import heed
from heed import verbs
from heed.config import merge
from heed.data.store import Store
from heed.errors import ConfigError, DataError, TrainingError
from heed.experiments.crossvalidate import crossvalidate, fold_lines
from heed.files import held, sha256
from heed.run import Run
from heed.training.signals import Interrupted

MODULE = import_module("heed.experiments.crossvalidate")  # by its path, because the function of this name hides it
N, FOLDS = 30, 3
ASKED = {"data": {"folds": FOLDS}}
# A word of its own in every row, which tells what a fold has seen.
ROWS = [{"text": f"{row['text']} w{i}", "label": row["label"]} for i, row in enumerate(toy_texts(N))]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    train = write_rows(tmp_path_factory.mktemp("data") / "rows.tsv", ROWS)
    return merge(TINY_TEXTS, {"data": {"train": str(train)}, "train": {"steps": 6}})


@pytest.fixture(scope="module")
def divided(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a cross-validation that no test changes, and what it found."""
    folder = tmp_path_factory.mktemp("runs") / "folds"
    return folder, crossvalidate(settings, ASKED, folder, quiet=True)


@pytest.fixture
def folder(divided: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """Return a copy of it that a test may spoil."""
    return shutil.copytree(divided[0], tmp_path / "folds")


def scores_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [fold["scores"] for fold in content["folds"]]


def test_every_row_is_tested_on_once_and_otherwise_trained_or_validated_on(divided: tuple[Path, dict[str, Any]]) -> None:
    folder, content = divided
    tested = [Store(folder / f"fold-{fold}" / "store" / "test").rows.tolist() for fold in range(1, FOLDS + 1)]
    assert sorted(row for rows in tested for row in rows) == list(range(N))
    for fold, rows in enumerate(tested, start=1):
        trained, validated = (Store(folder / f"fold-{fold}" / "store" / side).rows.tolist() for side in ("train", "valid"))
        assert sorted([*rows, *trained, *validated]) == list(range(N))
        assert len(validated) == N // FOLDS
        assert content["folds"][fold - 1]["n"] == len(rows)
        assert content["folds"][fold - 1]["fold"] == fold
        assert content["folds"][fold - 1]["seconds"] > 0


def test_a_fold_is_scored_on_its_own_rows_and_chosen_on_others(divided: tuple[Path, dict[str, Any]]) -> None:
    _, content = divided
    for fold in content["folds"]:
        place = Path(fold["run"])
        for name in ("valid", "test"):
            rows = Store(place / "store" / name).rows.tolist()
            lines = (place / "evaluations" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
            assert [json.loads(line)["example"]["text"] for line in lines] == [ROWS[row]["text"] for row in rows]
        content_of = json.loads((place / "evaluations" / "test.json").read_text(encoding="utf-8"))
        assert content_of["data"].startswith(f"fold {fold['fold']} of {FOLDS} of ")


def test_the_vocabulary_of_a_fold_knows_nothing_of_what_is_held_out(divided: tuple[Path, dict[str, Any]]) -> None:
    _, content = divided
    for fold in content["folds"]:
        run = Run.load(fold["run"], device="cpu")
        words = set(run.task.parts["tokenizer"].to_json()["words"])
        rows = Store(run.folder / "store" / "train").rows.tolist()
        assert {f"w{i}" for i in range(N)} & words == {f"w{i}" for i in rows}
        assert sum(run.task.parts["labels"].to_json()["counts"].values()) == len(rows)


def test_scores_are_those_of_the_runs_and_the_summary_is_their_mean_and_standard_deviation(divided: tuple[Path, dict[str, Any]]) -> None:
    _, content = divided
    for fold in content["folds"]:
        evaluation = json.loads((Path(fold["run"]) / "evaluations" / "test.json").read_text(encoding="utf-8"))
        assert {"accuracy", "f1_macro", "log_loss"} <= fold["scores"].keys()
        assert all(evaluation[name] == score for name, score in fold["scores"].items())
        assert set(Run.load(fold["run"], device="cpu").task.score_names or ()) <= fold["scores"].keys()
    for name, found in content["summary"].items():
        values = [scores[name]["value"] for scores in scores_of(content)]
        assert found == {"mean": pytest.approx(statistics.fmean(values)), "sd": pytest.approx(statistics.stdev(values))}


def test_what_was_found_is_kept_as_json_and_as_a_page(divided: tuple[Path, dict[str, Any]]) -> None:
    folder, content = divided
    assert json.loads((folder / "crossvalidation.json").read_text(encoding="utf-8")) == content
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "3 folds" in page
    lines = fold_lines(content)
    assert lines[0].startswith(f"{FOLDS} folds of ")
    assert any(line.startswith("accuracy ") and "±" in line for line in lines)
    assert len({line.index("by fold:") for line in lines[1:]}) == 1  # columns stand below each other
    assert {"date", "machine"} <= content.keys()


def test_a_second_call_trains_nothing_again(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train_with", "resume"):
        monkeypatch.setattr(verbs, name, lambda *arguments, **options: pytest.fail("trained again"))
    assert scores_of(crossvalidate(settings, ASKED, folder, quiet=True)) == scores_of(divided[1])


def test_an_interruption_tells_to_repeat_the_experiment_not_to_resume_one_of_its_runs(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = [Interrupted(signal.SIGTERM, 3, tmp_path / "folds" / "fold-2")]
    train = verbs.train_with

    def stopped_once(*arguments: Any, to: Path, **options: Any) -> Run:
        if to.name == "fold-2" and stops:
            raise stops.pop()
        return train(*arguments, to=to, **options)

    monkeypatch.setattr(verbs, "train_with", stopped_once)
    with pytest.raises(Interrupted, match=r"SIGTERM after step 3; .* go on with: the same command once more .*folds") as told:
        crossvalidate(settings, ASKED, tmp_path / "folds", quiet=True)
    assert told.value.exit_code == 128 + signal.SIGTERM
    assert scores_of(crossvalidate(settings, ASKED, tmp_path / "folds", quiet=True)) == scores_of(divided[1])


def test_what_is_missing_is_made_again_to_the_same_scores(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], folder: Path
) -> None:
    shutil.rmtree(folder / "fold-2")  # never begun
    (folder / "fold-3" / "evaluations" / "test.json").unlink()  # trained, but cut off before it was scored
    shutil.rmtree(folder / "fold-3" / "store")
    for name in ("config.yaml", "manifest.json"):  # killed while the data were read
        (folder / "fold-1" / name).unlink()
    assert scores_of(crossvalidate(settings, ASKED, folder, quiet=True)) == scores_of(divided[1])


def test_a_fold_trained_alone_is_the_one_of_the_cross_validation(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    alone = heed.train(settings, to=tmp_path / "alone", quiet=True, data={"folds": FOLDS, "fold": 2})
    other = Run.load(divided[0] / "fold-2", device="cpu").model.state_dict()
    assert all(torch.equal(tensor.cpu(), other[name]) for name, tensor in alone.model.state_dict().items())
    scores = json.loads((tmp_path / "alone" / "evaluations" / "test.json").read_text(encoding="utf-8"))
    assert scores["log_loss"] == divided[1]["folds"][1]["scores"]["log_loss"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train": {"lr": 0.01}}, r"folds: was made with train\.lr=0\.02, now it is 0\.01; choose another --to, or remove"),
        ({"seed": 5}, r"folds: was made with seed=1, now it is 5"),
        ({"data": {"group": "label"}}, r"folds: was made with data\.group=null, now it is label"),
        ({"data": {"folds": 4}}, r"folds: was made with data\.folds=3, now it is 4"),
        ({"task": {"lower": True}}, r"folds: was made with task\.lower=false, now it is true"),
        ({"task": {"pair": False}}, r"folds: was made with task\.pair=null, now it is false"),  # though it came to that by itself
        ({"model": {"d_ff": 16}}, r"folds: was made with model\.d_ff=24, now it is 16"),
    ],
)
def test_folds_of_other_settings_are_refused(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        crossvalidate(settings, merge(ASKED, change), divided[0], quiet=True)


def test_a_setting_that_is_no_longer_given_is_another_setting(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], folder: Path
) -> None:
    record = json.loads((folder / "experiment.json").read_text(encoding="utf-8"))
    record["settings"]["train"]["epochs"] = 2.0
    (folder / "experiment.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"folds: was made with train\.epochs=2\.0, now it is null"):
        crossvalidate(settings, ASKED, folder, quiet=True)


def test_folds_of_data_that_changed_are_refused(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    train = Path(settings["data"]["train"])
    before = train.read_bytes()
    try:
        write_rows(train, ROWS[:-1])
        with pytest.raises(DataError, match=r"data\.train=.*rows\.tsv: changed since .*folds was begun; bring back the file"):
            crossvalidate(settings, ASKED, folder, quiet=True)
    finally:
        train.write_bytes(before)
    config = folder / "fold-2" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace(sha256(train), "0" * 64), encoding="utf-8")
    with pytest.raises(DataError, match=r"fold-2: was trained on another data\.train than the rest"):
        crossvalidate(settings, ASKED, folder, quiet=True)


def test_what_came_to_no_run_does_not_stand_in_the_way_of_other_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no such column"):
        crossvalidate(settings, merge(ASKED, {"data": {"group": "author"}}), tmp_path / "folds", quiet=True)
    assert len(crossvalidate(settings, {"data": {"folds": 2}, "train": {"steps": 1}}, tmp_path / "folds", quiet=True)["folds"]) == 2


def test_another_process_and_another_content_of_the_folder_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "folds").mkdir()
    with held(tmp_path / "folds"), pytest.raises(TrainingError, match=r"folds: process \d+ is training in this folder"):
        crossvalidate(settings, ASKED, tmp_path / "folds", quiet=True)
    (tmp_path / "folds" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"folds: exists already and is never overwritten"):
        crossvalidate(settings, ASKED, tmp_path / "folds", quiet=True)


def test_test_and_validation_data_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test=test\.tsv: data\.folds=3 holds out a part"):
        crossvalidate(settings, merge(ASKED, {"data": {"test": "test.tsv"}}), tmp_path / "folds", quiet=True)
    with pytest.raises(ConfigError, match=r"data\.valid=valid\.tsv: data\.folds=3 holds out a part"):
        crossvalidate(settings, merge(ASKED, {"data": {"valid": "valid.tsv"}}), tmp_path / "folds", quiet=True)
    assert not (tmp_path / "folds").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"data": {"fold": 2}}, r"data\.fold=2 would be ignored: every fold is the test data in turn.*data\.folds=3 data\.fold=2"),
        ({"data": {"train": None}}, r"data\.train is not set"),
        ({"train": {"best_metric": "acuracy"}}, r"train\.best_metric=acuracy is not one of .*did you mean accuracy\?"),
    ],
)
def test_what_no_fold_could_begin_with_is_refused_before_anything_is_written(
    settings: dict[str, Any], tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        crossvalidate(settings, merge(ASKED, asked), tmp_path / "folds", quiet=True)
    assert not (tmp_path / "folds").exists()


@pytest.mark.parametrize(("of_recipe", "asked", "expected"), [(None, None, 5), (2, None, 2), (None, 4, 4), (2, 4, 4)])
def test_there_are_five_folds_unless_the_recipe_or_the_settings_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_recipe: int | None, asked: int | None, expected: int
) -> None:
    def fold(config: Any, number: int, place: Path, record: Any, *, quiet: bool) -> dict[str, Any]:
        return {"fold": number, "run": str(place), "n": 1, "scores": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}, "seconds": 1.0}

    monkeypatch.setattr(MODULE, "_fold", fold)
    data = {"train": str(write_rows(tmp_path / "rows.tsv", ROWS))} | ({} if of_recipe is None else {"folds": of_recipe})
    given = {} if asked is None else {"data": {"folds": asked}}
    content = crossvalidate(merge(TINY_TEXTS, {"data": data}), given, tmp_path / "folds", quiet=True)
    assert len(content["folds"]) == expected


def test_tasks_without_classes_are_cross_validated_too(tmp_path: Path) -> None:
    data = {"train": str(write_pairs(tmp_path / "pairs.tsv", toy_pairs(24)))}
    content = crossvalidate(merge(TINY, {"data": data, "train": {"steps": 2}}), {"data": {"folds": 2}}, tmp_path / "folds", quiet=True)
    assert len(content["folds"]) == 2
    assert {"bleu", "chrf"} <= content["summary"].keys()
    assert set(Run.load(content["folds"][0]["run"], device="cpu").task.score_names or ()) == content["summary"].keys()
