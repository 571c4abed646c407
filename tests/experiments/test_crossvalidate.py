"""A run for each fold: everything fitted anew inside it, kept where it is there already, and summed up."""

import json
import shutil
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
from heed.errors import ConfigError
from heed.experiments.crossvalidate import crossvalidate, fold_lines
from heed.run import Run

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


def test_every_row_is_held_out_once_and_trained_on_otherwise(divided: tuple[Path, dict[str, Any]]) -> None:
    folder, content = divided
    held_out = [Store(folder / f"fold-{fold}" / "store" / "valid").rows.tolist() for fold in range(1, FOLDS + 1)]
    assert sorted(row for rows in held_out for row in rows) == list(range(N))
    for fold, rows in enumerate(held_out, start=1):
        trained_on = Store(folder / f"fold-{fold}" / "store" / "train").rows.tolist()
        assert sorted([*rows, *trained_on]) == list(range(N))
        assert content["folds"][fold - 1]["n"] == len(rows)
        assert content["folds"][fold - 1]["fold"] == fold
        assert content["folds"][fold - 1]["seconds"] > 0


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
        evaluation = json.loads((Path(fold["run"]) / "evaluations" / "valid.json").read_text(encoding="utf-8"))
        assert {"accuracy", "f1_macro", "log_loss"} <= fold["scores"].keys()
        assert all(evaluation[name] == score for name, score in fold["scores"].items())
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


def test_a_second_call_trains_nothing_again(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train_with", "resume"):
        monkeypatch.setattr(verbs, name, lambda *arguments, **options: pytest.fail("trained again"))
    assert scores_of(crossvalidate(settings, ASKED, folder, quiet=True)) == scores_of(divided[1])


def test_what_is_missing_is_made_again_to_the_same_scores(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], folder: Path
) -> None:
    shutil.rmtree(folder / "fold-2")  # never begun
    (folder / "fold-3" / "evaluations" / "valid.json").unlink()  # trained, but cut off before it was scored
    assert scores_of(crossvalidate(settings, ASKED, folder, quiet=True)) == scores_of(divided[1])


def test_a_fold_trained_alone_is_the_one_of_the_cross_validation(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    alone = heed.train(settings, to=tmp_path / "alone", quiet=True, data={"folds": FOLDS, "fold": 2})
    other = Run.load(divided[0] / "fold-2", device="cpu").model.state_dict()
    assert all(torch.equal(tensor.cpu(), other[name]) for name, tensor in alone.model.state_dict().items())
    scores = json.loads((tmp_path / "alone" / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    assert scores["log_loss"] == divided[1]["folds"][1]["scores"]["log_loss"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train": {"lr": 0.01}}, r"fold-1: was made with other settings \(train\.\*\)"),
        ({"seed": 5}, r"fold-1: was made with other settings \(seed"),
        ({"data": {"group": "label"}}, r"fold-1: was made with other settings \(data\.\*\)"),
        ({"task": {"lower": True}}, r"fold-1: was made with task\.lower=False"),
        ({"model": {"d_ff": 16}}, r"fold-1: was made with model\.d_ff=24"),
    ],
)
def test_folds_of_other_settings_are_refused(
    settings: dict[str, Any], divided: tuple[Path, dict[str, Any]], change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        crossvalidate(settings, merge(ASKED, change), divided[0], quiet=True)


def test_test_and_validation_data_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test is not looked at by crossvalidate"):
        crossvalidate(settings, merge(ASKED, {"data": {"test": "test.tsv"}}), tmp_path / "folds", quiet=True)
    with pytest.raises(ConfigError, match=r"data\.valid=valid\.tsv: data\.folds=3 holds out a part"):
        crossvalidate(settings, merge(ASKED, {"data": {"valid": "valid.tsv"}}), tmp_path / "folds", quiet=True)
    assert not (tmp_path / "folds").exists()


@pytest.mark.parametrize(("of_recipe", "asked", "expected"), [(None, None, 5), (2, None, 2), (None, 4, 4), (2, 4, 4)])
def test_there_are_five_folds_unless_the_recipe_or_the_settings_say_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_recipe: int | None, asked: int | None, expected: int
) -> None:
    def fold(config: Any, number: int, place: Path, *, quiet: bool) -> dict[str, Any]:
        return {"fold": number, "run": str(place), "n": 1, "scores": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}, "seconds": 1.0}

    monkeypatch.setattr(MODULE, "_fold", fold)
    data = {"train": "rows.tsv"} | ({} if of_recipe is None else {"folds": of_recipe})
    given = {} if asked is None else {"data": {"folds": asked}}
    content = crossvalidate(merge(TINY_TEXTS, {"data": data}), given, tmp_path, quiet=True)
    assert len(content["folds"]) == expected


def test_tasks_without_classes_are_cross_validated_too(tmp_path: Path) -> None:
    data = {"train": str(write_pairs(tmp_path / "pairs.tsv", toy_pairs(24)))}
    content = crossvalidate(merge(TINY, {"data": data, "train": {"steps": 2}}), {"data": {"folds": 2}}, tmp_path / "folds", quiet=True)
    assert len(content["folds"]) == 2
    assert {"bleu", "chrf"} <= content["summary"].keys()
