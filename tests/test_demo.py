"""Demonstrations run from their data to what they show; what their models then know takes minutes, and is measured by hand."""

import re
from pathlib import Path
from typing import Any

import pytest
from toy_runs import Command

from heed import demo, verbs
from heed.config import merge
from heed.data import library
from heed.data.library import parses
from heed.demo import NOUNS, VERBS, run_demo
from heed.errors import ConfigError
from heed.run import Run

pytest_plugins = ["toy_runs"]

SMALL: dict[str, Any] = {
    "model": {"d_model": 32, "n_heads": 2, "n_layers": 1, "d_ff": 48},
    "task": {"vocab_size": 400},
    "train": {"steps": 30, "tensorboard": False},
    "decode": {"max_length": 20},
}


def test_the_demonstration_of_text_generation_shows_functions_and_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = verbs.train

    def shortened(recipe: str, *, to: Path, force: bool, **settings: Any) -> Run:
        return train(recipe, to=to, force=force, quiet=True, **merge(settings, SMALL))

    monkeypatch.setattr(verbs, "train", shortened)
    monkeypatch.setattr(library, "PERCENT", {"valid": 1, "test": 1, "train": 5})
    monkeypatch.setattr(library, "LEAST_BYTES", 1)
    lines = run_demo("text_generation", tmp_path / "run")
    said = next(line for line in lines if "parse as Python" in line)
    n_right, n = map(int, re.findall(r"\d+", said)[:2])
    assert n == len(VERBS) * len(NOUNS)
    first = lines.index(said) + 1
    assert n_right <= n
    assert parses("\n".join(line[2:] for line in lines[first : lines.index("", first)]))
    bits = {line[8:]: float(line[:6]) for line in lines if re.match(r"  \d\.\d\d  ", line)}
    assert len(bits) == 4
    assert bits["lzma, having read the training files"] < bits["lzma, each file alone"] < 4
    assert all(str(tmp_path / "run") in line for line in lines[-2:])


def test_demonstrations_of_two_tasks_have_folders_of_their_own(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda task, folder, *, force: [str(folder)])
    assert command("demo").out == "runs/demo\n"
    assert command("demo", "text_generation").out == "runs/demo-text_generation\n"
    assert command("demo", "text_generation", "--to", "here").out == "here\n"


def test_a_task_without_a_demonstration_names_those_that_have_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'tagging' has no demonstration; there is one of: .*text_generation"):
        run_demo("tagging", tmp_path / "run")
