"""Training throughput of the small translation model (d 256, 4 heads, 3 + 3 layers, d_ff 1024, joint BPE of 8000) on real data.

Run: python bench/training.py "DIR/train.{en,de}" [updates]
Prints target tokens per second (median over updates and 10th to 90th percentile), the padding share over a whole epoch, the machine's
measured ceilings for matrix products, and which share of the bfloat16 ceiling the products of training reach.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from heed.device import describe_machine
from heed.model.describe import count_parameters
from heed.training.train import fit_recipe


def ceiling(dtype: torch.dtype, size: int = 2048) -> float:
    """Return what a square matrix product reaches, in floating-point operations per second."""
    a, b = (torch.randn(size, size, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(12):
        begun = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - begun)
    return 2 * size**3 / statistics.median(times[2:])


def main() -> None:
    source, updates = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 120
    print(describe_machine())
    ceilings = {dtype: ceiling(dtype) for dtype in (torch.float32, torch.bfloat16)}
    settings = {
        "data": {"train": source},
        "model": {"d_model": 256, "n_heads": 4, "n_layers": 3, "d_ff": 1024, "dropout": 0.1},
        "train": {"steps": updates, "evaluate_every": updates, "log_every": 1, "label_smoothing": 0.1, "batch_tokens": 4096},
        "task": {"vocab_size": 8000},
    }
    with tempfile.TemporaryDirectory() as folder:
        run = fit_recipe("translation", settings, Path(folder) / "run", force=False, quiet=True)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        padding = json.loads((run.folder / "data_report.json").read_text())["padding"]
    rates = sorted([line["units_per_second"] for line in lines if "lr" in line][5:])
    median = statistics.median(rates)
    work = 6 * count_parameters(run.model) * median  # operations per second: 2 forward, 4 backward per parameter and token
    print(f"{count_parameters(run.model):,} parameters; {updates} updates; padding over an epoch {padding:.1%}")
    print(f"target tokens/s: median {median:,.0f}, 10-90 % {rates[len(rates) // 10]:,.0f} to {rates[9 * len(rates) // 10]:,.0f}")
    for dtype, rate in ceilings.items():
        print(f"{str(dtype).removeprefix('torch.')} products: {rate / 1e9:,.0f} GFLOP/s")
    print(f"share of the bfloat16 ceiling: {work / ceilings[torch.bfloat16]:.0%}")


if __name__ == "__main__":
    main()
