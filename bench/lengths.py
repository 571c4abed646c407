"""Attention over long sequences: time per token and peak memory of one layer, forward and backward, at lengths from 256 to 16,384.

Run: heed bench lengths
Compares heed's Attention with x-transformers' (flash) and with the formula spelled out: causal, bfloat16, d 512, 8 heads, 16,384
tokens a batch. Then trains a small language model (6 layers, d 256) on sequences of 16,384 tokens, with and without train.recompute.
"""

import datetime
import resource
import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from heed.bench.compare import Side, ceilings, median_seconds, ours, report, run_side, save, theirs
from heed.config import TrainConfig
from heed.device import describe_machine, keep_memory
from heed.model import Attention, Causal, ModelConfig, build_model, vocabulary_loss
from heed.training.optim import build_optimizer

LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384)
TOKENS, D_MODEL, HEADS = 16384, 512, 8


def main(arguments: list[str]) -> None:
    """Measure every length in a process of its own."""
    sides = []
    for length in LENGTHS:
        rows = [Side("heed", ours("lengths", "heed", length)), Side("x-transformers, flash", theirs("lengths", length, TOKENS))]
        rows += [Side("spelled out", ours("lengths", "formula", length))] if length <= 4096 else []
        for side in rows:
            found = run_side(side)
            sides.append({"name": f"{side.name}, {length}", "system": side.name, "length": length, **found})
            print(f"{side.name}, {length:,}: {1e6 / found['rate']:.2f} us a token, peak memory {found['peak_MiB']:,} MiB", file=sys.stderr)
    for kind in ("plain", "recompute"):
        found = run_side(Side(kind, ours("lengths", "train", kind)))
        name = "training 6 layers, d 256, on 16,384 tokens" + (", train.recompute" if kind == "recompute" else "")
        sides.append({"name": name, "system": "training", "length": LENGTHS[-1], **found})
    for one in sides:
        rate, first = one.pop("rate"), next(other for other in sides if other["length"] == one["length"])
        one |= {"median": rate, "low": rate, "high": rate, "ratio": first.get("median", rate) / rate}
    content = {
        "name": "lengths",
        "title": "Attention over long sequences, forward and backward",
        "unit": "tokens/s",
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "ceilings": ceilings(),
        "sides": sides,
    }
    save("lengths", content, _draw)


def side(kind: str, what: str) -> None:
    """Be one of these processes."""
    _train(what == "recompute") if kind == "train" else _attend(kind, int(what))


def _attend(kind: str, length: int) -> None:
    keep_memory()
    torch.manual_seed(1)
    layer, rows = Attention(D_MODEL, HEADS, bias=False), TOKENS // length
    x, gradient = torch.randn(rows, length, D_MODEL, requires_grad=True), torch.randn(rows, length, D_MODEL)

    def spelled_out(x: Tensor) -> Tensor:
        q, k, v = layer._split(layer.joint(x))
        scores = q @ k.transpose(-1, -2) * q.size(-1) ** -0.5
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf"))
        return cast(Tensor, layer.output((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)))

    def step() -> None:
        x.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x, causal=True) if kind == "heed" else spelled_out(x)
        out.backward(gradient.to(out.dtype))

    rate = TOKENS / median_seconds(step, warm=1, n=3)
    report(rate, peak_MiB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def _train(recompute: bool) -> None:
    keep_memory()
    torch.manual_seed(1)
    config = ModelConfig(architecture="causal", d_model=256, n_heads=4, n_layers=6, d_ff=1024, vocab_size=8000, dropout=0.1)
    model = cast(Causal, build_model(config)).train()
    model.stack.recompute = recompute
    optimizer, ids = build_optimizer(model, TrainConfig(), torch.bfloat16), torch.randint(0, 8000, (1, LENGTHS[-1] + 1))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            loss = vocabulary_loss(model.hidden(ids[:, :-1]), model.head.weight, ids[:, 1:])
        (loss.total / loss.units).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    rate = LENGTHS[-1] / median_seconds(step, warm=1, n=2)
    report(rate, peak_MiB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def _draw(content: dict[str, Any], path: Path) -> None:
    """Draw time per token and memory against length."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, label in zip(figure.subplots(1, 2), ("median", "peak_MiB"), ("microseconds a token", "peak memory, MiB"), strict=True):
        for system in ("heed", "x-transformers, flash", "spelled out"):
            rows = [side for side in content["sides"] if side["system"] == system]
            values = [1e6 / row[key] if key == "median" else row[key] for row in rows]
            axes.plot([row["length"] for row in rows], values, marker="o", label=system)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("length")
        axes.set_title(label, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)
