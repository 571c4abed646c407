"""Twenty deaths, and the same run in the end."""

import json
import subprocess
import sys
from pathlib import Path

from toy_runs import ToyData

pytest_plugins = ["toy_runs"]


def test_a_run_killed_twenty_times_ends_as_the_one_nobody_touched(tmp_path: Path, toy_data: ToyData) -> None:
    script = Path(__file__).with_name("violence.py")
    command = [sys.executable, script, "20", "1", toy_data.train, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found["kills"].values()) == 20
    assert found["kills"]["while saving"] >= 3
    assert found["equal"] == {"weights": True, "metrics": True, "best": True}
    assert found["lines"] > 480
