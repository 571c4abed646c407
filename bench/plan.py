"""What `heed train --plan` says, against what training then takes, at three sizes of model.

Run: heed bench plan "DIR/train.{en,de}"
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = {
    "small": {"d_model": 128, "n_layers": 3, "d_ff": 512},
    "medium": {"d_model": 256, "n_layers": 3, "d_ff": 1024},
    "large": {"d_model": 448, "n_layers": 5, "d_ff": 1792},
}
STEPS = 120

PLAN = """
import json, sys
from heed.training.plan import make_plan
plan = make_plan("translation", json.loads(sys.argv[1]))
print(json.dumps([plan.parameters, plan.seconds_per_step, plan.peak_memory_mib]))
"""
TRAIN = """
import json, sys
from heed import train
from heed.device import peak_memory_mib
run = train("translation", to=sys.argv[2], quiet=True, **json.loads(sys.argv[1]))
lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
steps = [line for line in lines if "lr" in line and line["step"] > 1]
first, last = steps[0], steps[-1]
print(json.dumps([(last["seconds"] - first["seconds"]) / (last["step"] - first["step"]), peak_memory_mib()]))
"""


def main(arguments: list[str]) -> None:
    """Compare."""
    print("| model | parameters | s a step: planned | measured | peak MiB: planned | measured |\n|---|---|---|---|---|---|")
    for name, size in SIZES.items():
        settings = {
            "data": {"train": arguments[0]},
            "model": {"n_heads": 4, **size},
            "train": {"steps": STEPS, "evaluate_every": STEPS, "batch_tokens": 2048},
            "task": {"vocab_size": 8000},
        }
        with tempfile.TemporaryDirectory() as folder:
            parameters, seconds, memory = _run(PLAN, settings)
            measured_seconds, measured_memory = _run(TRAIN, settings, str(Path(folder) / "run"))
        print(f"| {name} | {parameters:,} | {seconds:.3f} | {measured_seconds:.3f} | {memory:,.0f} | {measured_memory:,.0f} |", flush=True)


def _run(script: str, settings: dict[str, object], *more: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", script, json.dumps(settings), *more], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found
