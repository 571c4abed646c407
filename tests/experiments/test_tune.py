"""A search over settings: what it may vary, how it goes on, and that its best run can be made again."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import TINY_TEXTS, toy_texts, write_rows

import heed
from heed.config import dump_yaml, merge, read_yaml
from heed.data.store import Store
from heed.errors import ConfigError, DataError, HeedError, TrainingError
from heed.experiments.tune import Range, search_space, trial_lines, tune
from heed.files import held
from heed.metrics import LESS_IS_BETTER
from heed.run import Run, read_config

pytest.importorskip("optuna")

MODULE = import_module("heed.experiments.tune")  # by its path, because the function of this name hides it
ROWS = toy_texts(50)
SPACE = {"train": {"lr": {"low": 1e-3, "high": 3e-2, "log": True}}, "model": {"d_ff": [16, 24]}}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    files = {name: str(write_rows(folder / f"{name}.tsv", rows)) for name, rows in (("train", ROWS[:35]), ("valid", ROWS[35:]))}
    data = {**files, "test": str(folder / "never read.tsv")}
    return merge(TINY_TEXTS, {"data": data, "train": {"steps": 6, "evaluate_every": 2, "average": 2}})


Searched = tuple[Path, dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def searched(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Search for two trials, then go on to three; return the folder and what both calls found. No test changes it."""
    folder = tmp_path_factory.mktemp("runs") / "search"
    first, then = (tune(settings, {"search": SPACE}, folder, trials=n, quiet=True) for n in (2, 3))
    return folder, first, then


def test_a_second_call_goes_on_where_the_first_stopped(searched: Searched) -> None:
    _, first, then = searched
    assert [trial["number"] for trial in first["trials"]] == [0, 1]
    assert [trial["number"] for trial in then["trials"]] == [0, 1, 2]
    assert then["trials"][:2] == first["trials"]
    assert len({trial["settings"]["train.lr"] for trial in then["trials"]}) == 3


def test_nothing_is_left_to_do_when_there_are_as_many_trials(
    settings: dict[str, Any], searched: Searched, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _, then = searched
    monkeypatch.setattr(MODULE, "fit_recipe", lambda *arguments, **options: pytest.fail("another trial"))
    assert tune(settings, {"search": SPACE}, folder, trials=3, quiet=True) == then


def test_every_trial_is_a_run_within_the_space(searched: Searched) -> None:
    folder, _, content = searched
    for trial in content["trials"]:
        config = read_config(Path(trial["run"]))
        assert Path(trial["run"]).parent == folder
        assert trial["settings"] == {"train.lr": config.train.lr, "model.d_ff": config.model.d_ff}
        assert 1e-3 <= config.train.lr <= 3e-2
        assert config.model.d_ff in (16, 24)
        assert trial["state"] in ("complete", "pruned")
        assert trial["seconds"] > 0


def test_a_trial_is_worth_its_best_validation_and_the_best_trial_is_the_best_complete_one(searched: Searched) -> None:
    _, _, content = searched
    assert content["metric"] in LESS_IS_BETTER
    assert content["direction"] == "minimize"
    for trial in content["trials"]:
        lines = [json.loads(line) for line in (Path(trial["run"]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert trial["value"] == min(line["valid"]["loss"] for line in lines if "valid" in line)
    complete = [trial for trial in content["trials"] if trial["state"] == "complete"]
    best = min(complete, key=lambda trial: trial["value"])
    assert (content["best"], content["best_run"], content["best_settings"]) == (best["number"], best["run"], best["settings"])


def test_a_pruned_trial_was_stopped_after_an_evaluation(searched: Searched) -> None:
    _, _, content = searched
    for trial in content["trials"]:
        lines = [json.loads(line) for line in (Path(trial["run"]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        last = max(line["step"] for line in lines)
        assert (last < 6) <= (trial["state"] == "pruned")
        assert last % 2 == 0


def test_the_best_run_is_made_again_by_its_config(searched: Searched, tmp_path: Path) -> None:
    _, _, content = searched
    again = heed.train(str(Path(content["best_run"]) / "config.yaml"), to=tmp_path / "again", quiet=True)
    best = Run.load(content["best_run"], device="cpu").model.state_dict()
    assert all(torch.equal(tensor.cpu(), best[name]) for name, tensor in again.model.state_dict().items())


def test_test_data_are_never_read(searched: Searched) -> None:
    """The file of the settings does not even exist."""
    folder, _, content = searched
    for trial in content["trials"]:
        config = read_yaml(Path(trial["run"]) / "config.yaml")
        assert config["data"]["test"] is None
        assert config["data_sha256"].keys() == {"train", "valid"}
    assert {path.stem for path in folder.rglob("evaluations/*.json")} == {"valid"}


def test_the_best_run_is_scored_and_the_search_kept_as_json_and_as_a_page(searched: Searched) -> None:
    folder, _, content = searched
    assert (Path(content["best_run"]) / "report.html").is_file()
    assert json.loads((folder / "tuning.json").read_text(encoding="utf-8")) == content
    assert "heed tune" in (folder / "report.html").read_text(encoding="utf-8")
    lines = trial_lines(content)
    assert lines[0].startswith("3 trials")
    assert any(content["best_run"] in line and "config.yaml" in line for line in lines)


def test_a_search_for_something_else_is_refused_in_the_same_folder(settings: dict[str, Any], searched: Searched) -> None:
    folder = searched[0]
    for change, expected in (
        ({"search": SPACE, "train": {"best_metric": "accuracy"}}, r"was made with train\.best_metric=loss, now it is accuracy"),
        ({"search": {**SPACE, "model": {"d_ff": [16]}}}, r"was made with search\.model\.d_ff=\[16, 24\], now it is \[16\]"),
        ({"search": {"model": {"d_ff": [16, 24]}}}, r"was made with search\.train\.lr\.low=0\.001, now it is nothing"),
        ({"search": SPACE, "train": {"minutes": 3}}, r"was made with train\.minutes=null, now it is 3\.0"),
    ):
        with pytest.raises(ConfigError, match=expected):
            tune(settings, change, folder, trials=4, quiet=True)


def test_a_search_does_not_go_on_with_a_recipe_or_data_that_changed(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(recipe: Any, settings: dict[str, Any], folder: Path, **options: Any) -> None:
        raise ConfigError("enough")

    monkeypatch.setattr(MODULE, "fit_recipe", fit)
    train = write_rows(tmp_path / "rows.tsv", ROWS)
    recipe, given = tmp_path / "recipe.yaml", {"search": {"seed": [1, 2]}, "data": {"train": str(train)}}
    recipe.write_text(dump_yaml(TINY_TEXTS), encoding="utf-8")
    tune(str(recipe), given, tmp_path / "search", trials=1, quiet=True)
    write_rows(train, ROWS[:-1])
    with pytest.raises(DataError, match=r"data\.train=.*rows\.tsv: changed since .*search was begun"):
        tune(str(recipe), given, tmp_path / "search", trials=2, quiet=True)
    write_rows(train, ROWS)
    recipe.write_text(dump_yaml(merge(TINY_TEXTS, {"train": {"clip": 0.5}})), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"was made with train\.clip=1\.0, now it is 0\.5"):
        tune(str(recipe), given, tmp_path / "search", trials=2, quiet=True)


def test_data_that_change_while_a_search_is_at_work_stop_it(settings: dict[str, Any], tmp_path: Path) -> None:
    train = write_rows(tmp_path / "rows.tsv", ROWS)
    fit = MODULE.fit_recipe

    def changed_then_fit(*arguments: Any, **options: Any) -> None:
        write_rows(train, ROWS[:-1])
        fit(*arguments, **options)

    given = merge(settings, {"data": {"train": str(train), "valid": None}, "train": {"steps": 1}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "fit_recipe", changed_then_fit)
        with pytest.raises(DataError, match=r"trial-000: was trained on another data\.train than the rest"):
            tune(given, {"search": {"seed": [1, 2]}}, tmp_path / "search", trials=1, quiet=True)


def test_two_searches_do_not_share_a_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "search"
    folder.mkdir()
    with held(folder), pytest.raises(TrainingError, match=r"search: process \d+ is training in this folder"):
        tune(settings, {"search": SPACE}, folder, trials=1, quiet=True)
    assert not (folder / "study.journal").exists()
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists already and is never overwritten"):
        tune(settings, {"search": SPACE}, folder, trials=1, quiet=True)


def test_a_fold_that_is_held_out_for_the_test_is_not_looked_at(settings: dict[str, Any], tmp_path: Path) -> None:
    data = {"data": {"valid": None, "folds": 3, "fold": 2}, "train": {"steps": 2, "evaluate_every": 1}}
    content = tune(merge(settings, data), {"search": {"seed": [1]}}, tmp_path / "search", trials=1, quiet=True)
    assert Store(Path(content["best_run"]) / "store" / "test").rows.size > 0
    assert {path.stem for path in (tmp_path / "search").rglob("evaluations/*.json")} == {"valid"}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"train": {"lrr": [1e-3, 1e-2]}}, r"train\.lrr: unknown setting.*did you mean train\.lr\?"),
        ({"train.lr": {"low": -1.0, "high": 1.0}}, r"train\.lr: .*found -1"),
        ({"task": {"tokens": ["words", "letters"]}}, r"task\.tokens: .*found 'letters'"),
        ({"model": {"n_heads": [2, 3]}}, r"model\.n_heads=3 does not divide"),
        ({"train": {"lr": 0.01}}, r"search\.train\.lr: expected a list of values, or low and high, found 0\.01"),
        ({"train": {"lr": []}}, r"search\.train\.lr: no values to choose from"),
        ({"train": {"lr": {"low": 0.001}}}, r"search\.train\.lr\.high: is not given"),
        ({"train": {"lr": {"low": 0.01, "high": 0.001}}}, r"search\.train\.lr.*low"),
        ({"model": {"dropout": {"low": 0.0, "high": 0.5, "log": True}}}, r"search\.model\.dropout.*log"),
    ],
)
def test_a_space_that_no_run_could_have_is_refused_before_any_trial(
    settings: dict[str, Any], tmp_path: Path, space: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        tune(settings, {"search": space}, tmp_path / "search", trials=2, quiet=True)
    assert not (tmp_path / "search").exists()


def test_a_setting_with_a_value_no_longer_varies() -> None:
    recipe = {"search": SPACE}
    space = search_space(recipe, {"model": {"d_ff": 8}})
    assert space == {path: choices for path, choices in search_space(recipe, {}).items() if path != "model.d_ff"}
    assert space.keys() < search_space(recipe, {}).keys()


def test_a_search_in_which_every_setting_has_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^search: nothing is left that varies: seed given as values"):
        search_space({"search": {"seed": [1, 2]}}, {"seed": 3})


def test_a_setting_with_a_value_and_a_search_in_one_command_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model\.d_ff=8 and search\.model\.d_ff exclude each other"):
        search_space({}, {"model": {"d_ff": 8}, "search": {"model.d_ff": [8, 16]}})


def test_a_metric_that_no_trial_would_yield_is_refused_before_any(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.best_metric=acuracy is not one of .*did you mean accuracy\?"):
        tune(settings, {"search": SPACE, "train": {"best_metric": "acuracy"}}, tmp_path / "search", trials=2, quiet=True)
    assert not (tmp_path / "search").exists()


def test_the_space_of_a_recipe_is_used_and_the_settings_lie_over_it(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("task: text_classification\nsearch:\n  train.lr: {low: 1e-3, high: 1e-2}\n  model.d_ff: [8, 16]\n", encoding="utf-8")
    space = search_space(str(recipe), {"search": {"model": {"d_ff": [32]}, "seed": [1, 2]}})
    assert space == {"train.lr": Range(low=1e-3, high=1e-2), "model.d_ff": [32], "seed": [1, 2]}
    assert search_space({"task": "text_classification", "search": {"seed": [1, 2]}}, {}) == {"seed": [1, 2]}


def test_without_a_space_the_learning_rate_and_dropout_vary() -> None:
    assert search_space({"task": "translation"}, {}).keys() == {"train.lr", "model.dropout"}


def test_settings_as_a_mapping_may_hold_their_space(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[dict[str, Any]] = []

    def fit(recipe: Any, settings: dict[str, Any], folder: Path, **options: Any) -> None:
        tried.append(settings)
        raise ConfigError("enough")

    monkeypatch.setattr(MODULE, "fit_recipe", fit)
    content = tune({**settings, "search": {"seed": [3]}}, {}, tmp_path / "search", trials=1, quiet=True)
    assert [one["seed"] for one in tried] == [3]
    assert content["trials"][0]["state"] == "failed"
    assert content["trials"][0]["error"] == "enough"
    assert "no trial has ended" in trial_lines(content)[0]


def test_a_search_of_which_nothing_can_be_trained_stops(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_tried = 0

    def fit(*arguments: Any, **options: Any) -> None:
        nonlocal n_tried
        n_tried += 1
        raise ConfigError("this never works")

    monkeypatch.setattr(MODULE, "fit_recipe", fit)
    with pytest.raises(HeedError, match="no trial could be trained; the last one: this never works"):
        tune(settings, {"search": SPACE}, tmp_path / "search", trials=20, quiet=True)
    assert n_tried == 3


def test_a_trial_that_was_cut_off_is_made_again(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []

    def fit(recipe: Any, settings: dict[str, Any], folder: Path, **options: Any) -> None:
        tried.append(settings["train"]["lr"])
        folder.mkdir(parents=True)
        raise KeyboardInterrupt if len(tried) == 1 else ConfigError("enough")

    monkeypatch.setattr(MODULE, "fit_recipe", fit)
    space = {"search": {"train": SPACE["train"]}}
    with pytest.raises(KeyboardInterrupt):
        tune(settings, space, tmp_path / "search", trials=1, quiet=True)
    content = tune(settings, space, tmp_path / "search", trials=1, quiet=True)
    assert tried[0] == tried[1]
    assert [trial["state"] for trial in content["trials"]] == ["failed"]


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        ({"low": 1, "high": 4}, int),
        ({"low": 16, "high": 64, "log": True}, int),
        ({"low": 0.0, "high": 1.0}, float),
        ({"low": 0.1, "high": 0.4}, float),
    ],
)
def test_whole_ends_are_whole_numbers_and_others_are_not(ends: dict[str, Any], kind: type) -> None:
    import optuna

    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1)).ask()
    (choices,) = search_space({}, {"search": {"x": ends}}).values()
    value = MODULE._suggest(trial, "x", choices)
    assert type(value) is kind
    assert ends["low"] <= value <= ends["high"]
