"""What attention costs: time and memory of one layer, forward and backward, over lengths, for each kind of it.

Run as a program (`python -m heed.experiments.costs KIND LENGTH`) it measures one pair, so that each has a process, and a peak of memory,
of its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heed.errors import HeedError
from heed.model import Attention, ModelConfig
from heed.model.approximations import build_mix
from heed.model.attention import attention_weights
from heed.model.block import build_attention

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
KINDS = ("full, written out", "full", "windowed", "low rank")
D_MODEL, HEADS = 256, 8
WORDS = (
    f"One layer of attention alone (d_model {D_MODEL}, {HEADS} heads), forward and backward over one text of random vectors, on the "
    "processor. Written out, full attention holds all weights between tokens; otherwise it comes to the same without ever holding them. "
    "Windowed attention looks at neighbours only, low rank through a few averages."
)
PROCESS = Path("/proc/self")
LEAST_SECONDS = 0.3  # of repetitions


def costs(lengths: Sequence[int] = LENGTHS) -> dict[str, Any]:
    """Measure every kind at every length: seconds, MiB beyond those of the program, and both slopes on log-log axes."""
    found: dict[str, Any] = {"about": WORDS, "lengths": list(lengths), "kinds": {}}
    for kind in KINDS:
        pairs = [_measured(kind, length) for length in lengths]
        seconds, mib = [pair["seconds"] for pair in pairs], [pair["mib"] for pair in pairs]
        slopes = {"slope_time": slope(lengths, seconds), "slope_memory": slope(lengths, mib)}
        found["kinds"][kind] = {"seconds": seconds, "mib": mib, **slopes}
    return found


def slope(lengths: Sequence[int], values: Sequence[float]) -> float:
    """Return the slope of a line through the longer half of the points on log-log axes: 1 is linear, 2 quadratic."""
    half = len(lengths) // 2
    return round(float(np.polyfit(np.log(lengths[half:]), np.log(np.maximum(values[half:], 1e-9)), 1)[0]), 2)


def _measured(kind: str, length: int) -> dict[str, float]:
    command = [sys.executable, "-m", "heed.experiments.costs", kind, str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HeedError(f"measuring {kind} attention over {length} tokens failed: {done.stderr.strip()[-300:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(kind: str, length: int) -> dict[str, float]:
    """Measure one kind at one length, in this process."""
    torch.manual_seed(1)
    name = {"windowed": "windowed", "low rank": "low_rank"}.get(kind, "full")
    config = ModelConfig(architecture="encoder", d_model=D_MODEL, n_heads=HEADS, attention=name, positions="none")  # type: ignore[arg-type]
    layer = build_attention(config, mix=build_mix(config) if kind != "full, written out" else written_out)
    x = torch.randn(1, length, D_MODEL, requires_grad=True)
    _step(layer, x[:, : LENGTHS[0] // 4])  # what the libraries take when they are first called is not attention's
    before = _start_peak()
    once = _step(layer, x)
    peak = _memory_mib("VmHWM") - before
    times = [_step(layer, x) for _ in range(max(1, min(20, round(LEAST_SECONDS / once))))]
    return {"seconds": float(np.median(times)), "mib": round(max(0.1, peak), 2)}


def written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Mix values by the formula, holding all T x T weights."""
    return attention_weights(q, k, mask, scale=scale) @ v


def _step(layer: Attention, x: Tensor) -> float:
    begun = time.perf_counter()
    layer(x).sum().backward()
    return time.perf_counter() - begun


def _start_peak() -> float:
    """Let the peak of resident memory start from what is resident now, and return that in MiB."""
    PROCESS.joinpath("clear_refs").write_text("5", encoding="ascii")  # proc(5)
    return _memory_mib("VmRSS")


def _memory_mib(name: str) -> float:
    lines = PROCESS.joinpath("status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))  # noqa: T201 (for the process that asked)
