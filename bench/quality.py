"""Time until a translator reaches 35 BLEU, greedy, on validation data: recipe multi30k, and JoeyNMT on the same sub-words.

Run: heed bench quality "DIR/train.{en,de}" "DIR/val.{en,de}" [minutes for the peer]
By default the peer is given six times as long as heed took. Reading, checking and scoring count on both sides.
"""

import datetime
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import sacrebleu

from heed.bench.compare import JOEY_PACKAGES, KEPT_MEMORY, Side, ceilings, run_side, save, table, theirs
from heed.data.read import ReadLog, read_examples
from heed.data.text import Tokenizer
from heed.device import describe_machine
from heed.run import Run
from heed.tasks.translation import Translation
from heed.training.train import fit_recipe

WANTED = 35.0
TIMES_AS_LONG = 6
EVERY = 250  # updates of the peer between two scores


def main(arguments: list[str]) -> None:
    """Compare."""
    source, valid, minutes = arguments[0], arguments[1], float(arguments[2]) if len(arguments) > 2 else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"data": {"train": source, "valid": valid}, "train": {"best_metric": "bleu"}}
        begun = time.monotonic()
        run = fit_recipe("multi30k", settings, folder / "run", force=False, quiet=False)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        before = time.monotonic() - begun - lines[-1]["seconds"]  # reading, checking, the vocabulary, encoding
        ours = [(before + line["seconds"], line["valid"]["bleu"]) for line in lines if "valid" in line]
        seconds = 60 * minutes if minutes else TIMES_AS_LONG * _reached(ours)
        print(f"heed: {_told(ours)}; {seconds / 60:.0f} minutes for JoeyNMT", file=sys.stderr)
        _write_pairs(run, source, valid, folder / "pairs.json")
        found = run_side(Side("JoeyNMT", theirs("joey", folder / "pairs.json", seconds, EVERY, packages=JOEY_PACKAGES), KEPT_MEMORY))
        references = [pair["target"] for pair in _pairs(valid)]
        peers = [(at, _bleu(run, answers, references)) for at, answers in found["validations"]]
    sides = [{"name": name, **_side(points, ours)} for name, points in (("heed, recipe multi30k", ours), ("JoeyNMT", peers))]
    content = {
        "name": "quality",
        "title": f"Time to {WANTED:g} BLEU on Multi30k, greedy, validation data",
        "unit": "seconds",
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "ceilings": ceilings(),
        "sides": sides,
        "points": {"heed": ours, "JoeyNMT": peers},
    }
    save("quality", content, _draw)
    print("\n".join(table(content)))


def _reached(points: list[tuple[float, float]]) -> float:
    """Return when the score was reached; the last time of all when it was not, infinity when there is none."""
    return next((seconds for seconds, bleu in points if bleu >= WANTED), points[-1][0] if points else math.inf)


def _told(points: list[tuple[float, float]]) -> str:
    if not points:
        return "no score in the time given"
    best = max(bleu for _, bleu in points)
    return f"{WANTED:g} BLEU after {_reached(points):.0f} s" if best >= WANTED else f"{best:.1f} BLEU after {points[-1][0]:.0f} s"


def _side(points: list[tuple[float, float]], first: list[tuple[float, float]]) -> dict[str, Any]:
    seconds = _reached(points)
    ratio = _reached(first) / seconds
    return {"median": seconds, "low": seconds, "high": seconds, "ratio": ratio, "result": _told(points)}


def _pairs(source: str) -> list[dict[str, Any]]:
    return list(read_examples(source, required=("source", "target"), rename={}, header=None, bad_rows="error", log=ReadLog()))


def _write_pairs(run: Run, source: str, valid: str, out: Path) -> None:
    """Write the pairs as ids: the same text, cleaned and cut into the same sub-words."""

    def encoded(data: str) -> list[tuple[list[int], list[int]]]:
        return [(one["source"].tolist(), one["target"].tolist()) for one in run.task.encode_all(_pairs(data), training=True)]

    names = {"pad": Tokenizer.pad_id, "bos": Tokenizer.bos_id, "eos": Tokenizer.eos_id, "vocab_size": run.config.model.vocab_size}
    out.write_text(json.dumps({**names, "pairs": encoded(source), "dev": encoded(valid)}), encoding="utf-8")


def _bleu(run: Run, answers: list[list[int]], references: list[str]) -> float:
    assert isinstance(run.task, Translation)
    texts = [run.task.target_tokenizer.decode(ids) for ids in answers]
    return float(sacrebleu.corpus_bleu(texts, [references]).score)


def _draw(content: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, color in (("heed", "#2b6cb0"), ("JoeyNMT", "#9aa5b1")):
        points = content["points"][name]
        axes.plot([at / 60 for at, _ in points], [bleu for _, bleu in points], marker="o", markersize=3, color=color, label=name)
    axes.axhline(WANTED, color="#cbd5e0", linewidth=1)
    axes.set_xlabel("minutes")
    axes.set_ylabel("BLEU")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
