"""Runs the sides of a comparison in turn on the same machine, and prints medians, spreads, ratios and the machine's ceilings."""

import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from heed.device import choose_device, describe_machine
from heed.errors import HeedError

RESULTS = Path("docs/bench")
PEERS = Path(os.environ.get("HEED_PEERS", ".peers"))
PEER_PACKAGES = ("transformers", "accelerate", "ctranslate2", "x-transformers", "sacrebleu")
JOEY_PACKAGES = ("joeynmt==2.3.0", "sentencepiece==0.2.0", "importlib_metadata")  # which does not bear the others' versions
# Without these, a third of the peers' time goes into page faults; heed sets the like for itself.
KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "268435456"}


@dataclass(frozen=True)
class Side:
    """One way to do the work: a command whose last line of output is a JSON object with a `rate`."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)


def ours(module: str, *arguments: object) -> list[str]:
    """Return the command of one of heed's own sides: the function `side` of a module."""
    call = f"import sys; from heed.bench.{module} import side; side(*sys.argv[1:])"
    return [sys.executable, "-c", call, *map(str, arguments)]


def theirs(script: str, *arguments: object, packages: Sequence[str] = PEER_PACKAGES) -> list[str]:
    """Return the command of a peer's side, in an environment with its packages, which is made when it is missing."""
    folder = PEERS if packages == PEER_PACKAGES else PEERS.with_name(f"{PEERS.name}-{script}")
    python, whole = folder / "bin" / "python", folder / "installed"
    if not whole.exists():
        print(f"installing into {folder}: {', '.join(packages)}", file=sys.stderr)
        version = str(torch.__version__).partition("+")[0]
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        for some in ([f"torch=={version}"], packages):  # torch first and pinned, as in the Makefile
            subprocess.run([python, "-m", "pip", "install", "--quiet", *some], check=True)
        whole.touch()
    return [str(python), str(Path(__file__).parent / "peers" / f"{script}.py"), *map(str, arguments)]


def compare(
    name: str,
    title: str,
    unit: str,
    sides: Sequence[Side],
    *,
    rounds: int = 3,
    judge: Callable[[str], dict[str, Any]] = lambda side: {},
) -> dict[str, Any]:
    """Run every side once per round, in turn; print a table of their rates and write it to docs/bench/NAME.json and .png.

    The first side is the one that the others are compared with.

    Args:
        judge: what else to note of a side, by its name, when all have run.
    """
    measured: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    limits = ceilings()  # first: a machine that cannot hold them would else lose what was measured
    for turn in range(rounds):
        for side in sides:
            print(f"round {turn + 1} of {rounds}: {side.name}", file=sys.stderr)
            measured[side.name].append(run_side(side))
    content = {
        "name": name,
        "title": title,
        "unit": unit,
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "ceilings": limits,
        "sides": [_summary(side.name, measured[side.name], measured[sides[0].name]) | judge(side.name) for side in sides],
    }
    save(name, content)
    print("\n".join(table(content)))
    return content


def run_side(side: Side) -> dict[str, Any]:
    """Run one side once; raises HeedError with its last words when it fails."""
    environment = {**os.environ, **side.environment}
    done = subprocess.run(side.command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HeedError(f"{side.name}: {' '.join(side.command)} failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _summary(name: str, runs: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, Any]:
    rates = [run["rate"] for run in runs]
    median = statistics.median(rates)
    others = {key: value for key, value in runs[-1].items() if key != "rate"}
    ratio = statistics.median(run["rate"] for run in first) / median
    return {"name": name, "median": median, "low": min(rates), "high": max(rates), "ratio": ratio, **others}


def save(name: str, content: dict[str, Any], draw: Callable[[dict[str, Any], Path], None] | None = None) -> None:
    """Write a result and its picture to docs/bench, and the page over all results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    (draw or draw_bars)(content, RESULTS / f"{name}.png")
    write_page()


def write_page() -> None:
    """Write docs/bench/README.md over all results that are there."""
    pages = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    text = ["# Measured", "", "Written by `heed bench NAME`; each table is one run, its sides in turn, nothing else running.", ""]
    for page in pages:
        text += [f"## {page['title']}", "", *table(page), "", f"![{page['title']}]({page['name']}.png)", ""]
    (RESULTS / "README.md").write_text("\n".join(text), encoding="utf-8")


def table(content: dict[str, Any]) -> list[str]:
    """Return a result as the lines of a Markdown table with what it was measured on."""
    machine, limits = content["machine"], content["ceilings"]
    lines = [f"| | median {content['unit']} | lowest to highest | first ÷ this | notes |", "|---|---|---|---|---|"]
    for side in content["sides"]:
        known = ("name", "median", "low", "high", "ratio")
        notes = ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in side.items() if key not in known)
        spread = f"{_shown(side['low'])} to {_shown(side['high'])}"
        lines.append(f"| {side['name']} | {_shown(side['median'])} | {spread} | {side['ratio']:.2f} | {notes} |")
    card = f", {machine['gpu']}" if "gpu" in machine else ""
    lines += ["", f"{content['date']}; {machine['processor']}, {machine['threads']} threads{card}, torch {machine['torch']}."]
    lines[-1] += " Ceilings: " + ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in limits.items()) + "."
    return lines


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw_bars(content: dict[str, Any], path: Path) -> None:
    """Draw the medians as bars."""
    from matplotlib.figure import Figure

    names, rates = zip(*((side["name"], side["median"]) for side in reversed(content["sides"])), strict=True)
    figure = Figure(figsize=(8, 0.5 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, rates, color=["#9aa5b1"] * (len(names) - 1) + ["#2b6cb0"])
    axes.bar_label(bars, labels=[_shown(float(rate)) for rate in rates], padding=3)
    axes.set_xlabel(content["unit"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=110)


def median_seconds(function: Callable[[], object], *, warm: int = 2, n: int = 9) -> float:
    """Return the median time of a call after some calls to warm up; on a GPU until its work is done."""
    finish = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times = []
    for _ in range(warm + n):
        begun = time.perf_counter()
        function()
        finish()
        times.append(time.perf_counter() - begun)
    return statistics.median(times[warm:])


def ceilings() -> dict[str, float]:
    """Measure what the machine (its GPU, if it has one) can do at most: matrix products, and reading memory."""
    found = {}
    device = choose_device("auto")
    width, n = (2048, 1 << 26) if device.type == "cpu" else (8192, 1 << 30)
    for dtype in (torch.float32, torch.bfloat16, torch.int8):
        if dtype == torch.int8:
            a, b = (torch.randint(-127, 128, (width, width), dtype=dtype, device=device) for _ in range(2))
            seconds = median_seconds(lambda a=a, b=b: torch._int_mm(a, b))  # type: ignore[misc]
        else:
            a, b = (torch.randn(width, width, dtype=dtype, device=device) for _ in range(2))
            seconds = median_seconds(lambda a=a, b=b: a @ b)  # type: ignore[misc]
        found[f"{str(dtype).removeprefix('torch.')}_GFLOP/s"] = 2 * width**3 / seconds / 1e9
    wide = torch.randn(n, device=device)
    found["read_GB/s"] = wide.numel() * wide.element_size() / median_seconds(wide.sum) / 1e9
    copied = torch.empty_like(wide)
    found["copy_GB/s"] = 2 * wide.numel() * wide.element_size() / median_seconds(lambda: copied.copy_(wide)) / 1e9
    return found


def report(rate: float, **notes: object) -> None:
    """Print what a side found."""
    print(json.dumps({"rate": rate, **notes}))
