"""Training a BERT-like classifier (d 256, 4 layers) on texts of log-normal length: heed and Hugging Face, in examples per second.

Run: heed bench classifier [rounds]
Lengths have a median of 170 tokens and are cut at 256, as in reviews; both sides see the same ones, about 32 examples at a time.
"""

import statistics
import time

import numpy as np
import torch
from torch import nn

from heed.bench.compare import KEPT_MEMORY, Side, compare, ours, report, theirs
from heed.config import TrainConfig
from heed.data.order import batches
from heed.device import choose_precision, keep_memory
from heed.model import Encoder, ModelConfig, cross_entropy
from heed.training.optim import build_optimizer

EXAMPLES, SECONDS, WARM = 4096, 25, 3
VOCAB_SIZE = 10_000


def main(arguments: list[str]) -> None:
    """Compare."""
    rows = [
        Side("heed", ours("classifier")),
        Side("Hugging Face, bfloat16, grouped by length, memory kept", theirs("classifier", "bucket", "bf16", SECONDS), KEPT_MEMORY),
        Side("Hugging Face, bfloat16, grouped by length", theirs("classifier", "bucket", "bf16", SECONDS)),
        Side("Hugging Face, float32, padded per batch", theirs("classifier", "dynamic", "fp32", SECONDS)),
    ]
    compare("classifier", "Training a classifier", "examples/s", rows, rounds=int(arguments[0]) if arguments else 3)


def side() -> None:
    """Train with heed."""
    keep_memory()
    torch.manual_seed(1)
    draw = np.random.default_rng(1)
    lengths = np.minimum(256, np.maximum(8, draw.lognormal(np.log(170), 0.6, EXAMPLES).astype(np.int32)))
    texts = [torch.from_numpy(draw.integers(5, VOCAB_SIZE, n)) for n in lengths]
    labels = torch.from_numpy(draw.integers(0, 2, EXAMPLES))
    config = ModelConfig(architecture="encoder", d_model=256, n_heads=4, n_layers=4, d_ff=1024, vocab_size=VOCAB_SIZE, activation="gelu")
    model = nn.ModuleDict({"encoder": Encoder(config), "head": nn.Linear(256, 2)}).train()
    precision = choose_precision("auto", torch.device("cpu"))
    optimizer = build_optimizer(model, TrainConfig(lr=5e-4), precision)
    marks, n_padded = [(time.perf_counter(), 0)], 0
    for rows in batches(lengths[:, None], 32 * 170, seed=1, epoch=0):
        ids = nn.utils.rnn.pad_sequence([texts[row] for row in rows], batch_first=True)
        mask = ids != 0
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            hidden = model["encoder"](ids, mask)
            pooled = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            loss = cross_entropy(model["head"](pooled), labels[rows]).total / len(rows)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        n_padded += ids.numel()
        marks.append((time.perf_counter(), marks[-1][1] + len(rows)))
        if len(marks) > WARM and marks[-1][0] - marks[WARM][0] > SECONDS:
            break
    first, last = marks[WARM], marks[-1]
    step = statistics.median(b[0] - a[0] for a, b in zip(marks[WARM:], marks[WARM + 1 :], strict=False))
    report((last[1] - first[1]) / (last[0] - first[0]), seconds_per_step=step)
