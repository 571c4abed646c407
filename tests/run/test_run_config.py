"""How settings become one, and what becomes of those of a kind of model where another kind is chosen."""

from pathlib import Path
from typing import Any

import pytest
import torch

from heed.config import dump_yaml
from heed.errors import ConfigError
from heed.run import FORMAT, Run, read_config, resolve
from heed.tasks import TASKS

pytest_plugins = ["toy_runs"]

TASK_PATH = "heed.tasks.translation:Translation"
SPEECH = {"task": "speech_recognition", "data": {"train": "train"}}


def test_settings_are_laid_over_a_recipe_and_all_are_written_out() -> None:
    config = resolve("translation", {"seed": 7, "model": {"d_model": 32}, "task": {"vocab_size": 400}})
    assert (config.seed, config.model.d_model, config.task["vocab_size"]) == (7, 32, 400)
    assert config.task["algorithm"] == "bpe"
    assert config.model.architecture == "seq2seq"


def test_a_recipe_may_be_a_file_a_shipped_name_a_mapping_or_a_task_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task: translation\ntrain:\n  lr: 5e-4\n")
    assert resolve(str(path)).train.lr == 5e-4
    assert resolve("translation").task["name"] == "translation"
    assert resolve({"task": "translation"}) == resolve({"task": {"name": "translation"}})
    assert resolve(TASK_PATH).task["name"] == TASK_PATH


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("translaton", {}, r"translaton: no such recipe file, and not one that ships; did you mean translation\?"),
        ("trek", {}, r"trek: no such recipe file, and not one that ships; did you mean trec\?"),
        ("qqq", {}, r"qqq: no such recipe file, and not one that ships; choose one of an4, .*waimai$"),
        ("no/such.yaml", {}, r"no/such.yaml: no such recipe file"),
        (
            {"task": "translatoin"},
            {},
            f"task.name: 'translatoin' is not one of {', '.join(TASKS)}, nor a path",
        ),
        ({"train": {"lr": 1}}, {}, f"task.name: expected {' or '.join(TASKS)}, or a path"),
        ({"task": ["translation"]}, {}, f"task.name: expected {' or '.join(TASKS)}, or a path"),
        ({"task": {"name": None}}, {}, f"task.name: expected {' or '.join(TASKS)}, or a path"),
        ("translation", {"task": {"vocabsize": 400}}, r"task.vocabsize: unknown setting.*; did you mean task.vocab_size\?"),
        ("translation", {"train": {"step": 4}}, r"train.step: unknown setting.*; did you mean train.steps\?"),
        ("translation", {"train": {"steps": "many"}}, r"train.steps: .*found 'many'"),
        ("translation", {"train": 5}, r"train: .*found 5"),
        ("translation", {"model": None}, r"model: .*found None"),
        ("translation", {"model": {"d_model": 30, "n_heads": 4}}, r"model.n_heads=4 does not divide model.d_model=30"),
        ("translation", {"model": {"positions": "learned", "max_length": 64}}, r"data.max_length=256 is more than model.max_length=64"),
        (":Nobody", {}, r"task.name: ':Nobody' cannot be imported"),
        ("no.such.module:Task", {}, r"task.name: 'no.such.module:Task' cannot be imported"),
        ("json:loads", {}, r"task.name: 'json:loads' is not a heed.tasks.Task"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(recipe: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(recipe, settings)


def test_what_is_read_back_from_a_run_folder_is_what_was_trained_with(toy_run: Run) -> None:
    assert read_config(toy_run.folder) == toy_run.config


def test_what_a_task_usually_sets_for_one_kind_does_not_stand_in_the_way_of_another() -> None:
    assert resolve(SPEECH).model.kernel_size == 15
    config = resolve(SPEECH, {"model": {"mixer": "attention"}})
    assert (config.model.mixer, config.model.kernel_size) == ("attention", 3)


def test_what_somebody_sets_for_another_kind_than_they_choose_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.kernel_size would be ignored by mixer=attention"):
        resolve(SPEECH, {"model": {"mixer": "attention", "kernel_size": 15}})


def test_a_run_of_an_earlier_version_that_holds_such_a_setting_still_opens(tmp_path: Path) -> None:
    config = resolve(SPEECH, {"model": {"mixer": "attention"}})
    content = {"format": FORMAT, **config.model_dump()}
    content["model"] |= {"kernel_size": 15, "window": 9}
    (tmp_path / "config.yaml").write_text(dump_yaml(content), encoding="utf-8")
    assert read_config(tmp_path) == config
    assert resolve(str(tmp_path / "config.yaml")) == config


def test_learned_positions_may_be_fewer_for_the_target_than_for_the_source() -> None:
    sizes = {"positions": "learned", "max_length": 100, "max_source_length": 300}
    joint = {**SPEECH, "task": {"name": "speech_recognition", "objective": "joint"}, "model": sizes}
    assert resolve(joint, {"data": {"max_length": 300}}).data.max_length == 300
    with pytest.raises(ConfigError, match=r"data\.max_length=301 is more than model\.max_source_length=300"):
        resolve(joint, {"data": {"max_length": 301}})


def test_a_seed_beyond_what_random_generators_take_is_refused_before_any_work() -> None:
    torch.manual_seed(resolve(SPEECH, {"seed": 2**63 - 1}).seed)
    with pytest.raises(ConfigError, match="seed"):
        resolve(SPEECH, {"seed": 2**64})
