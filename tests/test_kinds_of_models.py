"""What becomes of the settings of a kind of model where another kind is chosen."""

from pathlib import Path

import pytest

from heed.config import dump_yaml
from heed.errors import ConfigError
from heed.run import FORMAT, read_config, resolve

SPEECH = {"task": "speech_recognition", "data": {"train": "train"}}


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
