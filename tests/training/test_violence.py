"""Twenty deaths, and the same run in the end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from toy_runs import ToyData

pytest_plugins = ["toy_runs"]


def violence(*arguments: object) -> dict[str, Any]:
    """Run the script, and return what it found."""
    command = [sys.executable, Path(__file__).with_name("violence.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["equal"] == {"weights": True, "metrics": True, "best": True}
    return found


def test_a_run_killed_twenty_times_ends_as_the_one_nobody_touched(tmp_path: Path, toy_data: ToyData) -> None:
    found = violence(20, 1, toy_data.train, tmp_path)
    assert sum(found["kills"].values()) == 20
    assert found["kills"]["while saving"] >= 3
    assert found["lines"] > 480


def test_it_does_so_on_data_larger_than_the_memory_it_is_given(tmp_path: Path, toy_data: ToyData) -> None:
    found = violence(3, 2, toy_data.train, tmp_path, 40)
    assert sum(found["kills"].values()) >= 2
