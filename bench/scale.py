"""How the cost of a training step grows with the batch, the vocabulary, the model and the threads.

Run: heed bench scale
Translation models on random sentences of 16 tokens, forward, backward and update; one thing changes at a time.
"""

import datetime
import sys
from pathlib import Path
from typing import Any, cast

import torch

from heed.bench.compare import ceilings, median_seconds, save
from heed.config import TrainConfig
from heed.device import choose_precision, describe_machine, keep_memory
from heed.model import ModelConfig, Seq2Seq, build_model, count_parameters, vocabulary_loss
from heed.training.optim import build_optimizer

LENGTH = 16
PLAIN = {"d_model": 256, "n_layers": 3, "vocab_size": 8000, "tokens": 2048, "threads": 0}
# name -> what is changed, its values as (label, changes)
SWEEPS: dict[str, list[tuple[float, dict[str, int]]]] = {
    "target tokens in a batch": [(n, {"tokens": n}) for n in (256, 512, 1024, 2048, 4096, 8192)],
    "words in the vocabulary": [(n, {"vocab_size": n}) for n in (8000, 16000, 32000, 64000, 128000)],
    "million parameters": [(0, {"d_model": d, "n_layers": n}) for d, n in ((192, 2), (256, 3), (384, 4), (512, 6), (768, 8))],
    "threads": [(n, {"threads": n}) for n in (1, 2)],
}


def main(arguments: list[str]) -> None:
    """Measure every point, write the table and draw it."""
    keep_memory()
    all_threads, sides = torch.get_num_threads(), []
    for sweep, points in SWEEPS.items():
        for value, changes in points:
            setting = {**PLAIN, **changes}
            torch.set_num_threads(setting["threads"] or all_threads)
            seconds, n_parameters = step_seconds(setting)
            at = value or round(n_parameters / 1e6, 1)
            rate = setting["tokens"] / seconds
            work = 6 * n_parameters * rate / 1e9
            print(f"{at:g} {sweep}: {1e3 * seconds:.0f} ms, {rate:,.0f} tokens/s, {work:,.0f} GFLOP/s", file=sys.stderr)
            one = {"name": f"{at:g} {sweep}", "sweep": sweep, "at": at, "median": rate, "low": rate, "high": rate, "GFLOP/s": round(work)}
            sides.append({**one, "ms_a_step": round(1e3 * seconds, 1)})
        torch.set_num_threads(all_threads)
    for one in sides:
        one["ratio"] = next(other for other in sides if other["sweep"] == one["sweep"])["median"] / one["median"]
    content = {
        "name": "scale",
        "title": "The cost of a training step, one thing changed at a time",
        "unit": "target tokens/s",
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "ceilings": ceilings(),
        "sides": sides,
    }
    save("scale", content, _draw)


def step_seconds(setting: dict[str, int]) -> tuple[float, int]:
    """Return the median time of an update, and the parameters of the model."""
    torch.manual_seed(1)
    d_model, vocab_size = setting["d_model"], setting["vocab_size"]
    shape = {"d_model": d_model, "n_heads": d_model // 64, "n_layers": setting["n_layers"], "d_ff": 4 * d_model, "vocab_size": vocab_size}
    model = cast(Seq2Seq, build_model(ModelConfig(architecture="seq2seq", **shape)).train())  # type: ignore[arg-type]
    precision = choose_precision("auto", torch.device("cpu"))
    optimizer = build_optimizer(model, TrainConfig(), precision)
    source, target = torch.randint(4, vocab_size, (2, setting["tokens"] // LENGTH, LENGTH))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = vocabulary_loss(model.hidden(source, None, target), model.head.weight, target, smoothing=0.1)
        (loss.total / loss.units).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return median_seconds(step, warm=2, n=5), count_parameters(model)


def _draw(content: dict[str, Any], path: Path) -> None:
    """Draw time per step against each thing that was changed, both on logarithmic axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(11, 3), layout="constrained")
    for axes, sweep in zip(figure.subplots(1, len(SWEEPS)), SWEEPS, strict=True):
        rows = [side for side in content["sides"] if side["sweep"] == sweep]
        places = [row["at"] for row in rows]
        axes.loglog(places, [row["ms_a_step"] for row in rows], marker="o", color="#2b6cb0")
        axes.set_xticks(places, [f"{at / 1000:g} k" if at >= 1000 else f"{at:g}" for at in places], fontsize=8)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_title(sweep, fontsize=10)
        axes.grid(True, alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supylabel("ms a step", fontsize=10)
    figure.savefig(path, dpi=110)
