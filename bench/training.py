"""Training throughput of the small translation model (d 256, 4 heads, 3 + 3 layers, d_ff 1024, joint BPE of 8000) on real data.

Run: heed bench training "DIR/train.{en,de}" [rounds]
Compares with Hugging Face's Seq2SeqTrainer as it comes and at its best, and with JoeyNMT, in real target tokens per second, on the
same tokens. Prints the padding share over an epoch, the machine's ceilings, and which share of them the products of training reach.
"""

import json
import tempfile
from pathlib import Path

from heed.bench.compare import JOEY_PACKAGES, KEPT_MEMORY, Side, compare, ours, report, theirs
from heed.data.text import Tokenizer
from heed.model.describe import count_parameters
from heed.tasks.translation import Translation
from heed.training.train import fit_recipe

WARM = 5  # updates left out
SECONDS = 40  # that a peer is measured for


def settings(source: str, updates: int) -> dict[str, dict[str, object]]:
    """Return the settings of the small model."""
    return {
        "data": {"train": source},
        "model": {"d_model": 256, "n_heads": 4, "n_layers": 3, "d_ff": 1024, "dropout": 0.1},
        "train": {"steps": updates, "evaluate_every": updates, "log_every": 1, "label_smoothing": 0.1, "batch_tokens": 4096},
        "task": {"vocab_size": 8000},
    }


def main(arguments: list[str]) -> None:
    """Compare."""
    source, rounds = arguments[0], int(arguments[1]) if len(arguments) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.json"
        _write_pairs(source, Path(folder), pairs)
        sides = [
            Side("heed", ours("training", source, 80)),
            Side("Hugging Face, bfloat16, grouped by length, memory kept", theirs_with(pairs, "bf16", "group"), KEPT_MEMORY),
            Side("Hugging Face, bfloat16", theirs_with(pairs, "bf16")),
            Side("Hugging Face as it comes", theirs_with(pairs)),
            Side("JoeyNMT, float32", theirs("joey", pairs, SECONDS, packages=JOEY_PACKAGES), KEPT_MEMORY),
        ]
        content = compare("training", "Training the small translation model", "target tokens/s", sides, rounds=rounds)
    work = content["sides"][0]["operations_per_token"] * content["sides"][0]["median"]
    print(f"heed reaches {work / 1e9 / content['ceilings']['bfloat16_GFLOP/s']:.0%} of the bfloat16 ceiling")


def theirs_with(pairs: Path, *options: str) -> list[str]:
    """Return the command of the peer with some options."""
    return theirs("translation_training", pairs, SECONDS, *options)


def _write_pairs(source: str, folder: Path, out: Path) -> None:
    """Write the pairs as ids for the peers: the same text, cleaned and cut into the same sub-words."""
    from heed.data.read import ReadLog, read_examples

    run = fit_recipe("translation", settings(source, 1), folder / "run", force=False, quiet=True)
    assert isinstance(run.task, Translation)
    examples = list(read_examples(source, required=("source", "target"), rename={}, header=None, bad_rows="error", log=ReadLog()))
    encoded = run.task.encode_all(examples, training=True)
    pairs = [(one["source"].tolist(), one["target"].tolist()) for one in encoded]
    names = {"pad": Tokenizer.pad_id, "bos": Tokenizer.bos_id, "eos": Tokenizer.eos_id}
    out.write_text(json.dumps({**names, "vocab_size": run.config.model.vocab_size, "pairs": pairs}), encoding="utf-8")


def side(source: str, updates: str) -> None:
    """Train with heed."""
    with tempfile.TemporaryDirectory() as folder:
        run = fit_recipe("translation", settings(source, int(updates)), Path(folder) / "run", force=False, quiet=True)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        padding = json.loads((run.folder / "data_report.json").read_text())["padding"]
    first, *steps = [line for line in lines if "lr" in line][WARM:]
    rate = sum(line["units"] for line in steps) / (steps[-1]["seconds"] - first["seconds"])
    # 2 operations forward and 4 backward for each parameter and token; embeddings are looked up, but the tied matrix is also the head
    report(rate, padding=round(padding, 4), operations_per_token=6 * count_parameters(run.model))
