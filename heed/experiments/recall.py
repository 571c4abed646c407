"""Recall at a distance: how far back a kind of model can look, on a task made for the question.

The first token of a sequence is a key; somewhere behind it stand several pairs of a key and a value, each one token, among noise. The
model has to name the value of that key, which stands at a known distance, and is read at the first token.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heed.config import TrainConfig
from heed.metrics import bootstrap
from heed.model import Encoder, ModelConfig, build_model
from heed.model.losses import class_loss
from heed.training.optim import build_optimizer, learning_rate

KEYS, VALUES, NOISE = 8, 8, 32
FIRST_PAIR = 4 + KEYS  # ids: 4 special ones, keys, pairs, noise
FIRST_NOISE = FIRST_PAIR + KEYS * VALUES
VOCABULARY = FIRST_NOISE + NOISE
DISTANCES = (8, 32, 128, 512)
PAIRS = 4  # in a sequence, of different keys
SIZE: dict[str, Any] = {"d_model": 64, "n_heads": 4, "n_layers": 2, "d_ff": 128, "dropout": 0.0, "pooling": "first"}
STEPS, BATCH_TOKENS, TESTED = 800, 8192, 500


@dataclass(frozen=True)
class Found:
    """The accuracy at each distance."""

    distance: int
    accuracy: dict[str, float]


def sequences(n: int, distance: int, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return ids (n, distance + 1) and values (n,): the pair asked for is the last token, the others stand anywhere between."""
    ids = draw.integers(FIRST_NOISE, VOCABULARY, size=(n, distance + 1))
    keys = np.argsort(draw.random((n, KEYS)), axis=1)[:, :PAIRS]  # the first is asked for
    values = draw.integers(VALUES, size=(n, PAIRS))
    pairs = FIRST_PAIR + keys * VALUES + values
    ids[:, 0], ids[:, -1] = 4 + keys[:, 0], pairs[:, 0]
    others = 1 + np.argsort(draw.random((n, distance - 1)), axis=1)[:, : PAIRS - 1]
    np.put_along_axis(ids, others, pairs[:, 1:], axis=1)
    return torch.from_numpy(ids), torch.from_numpy(values[:, 0])


def recall(mixer: str, *, distances: tuple[int, ...] = DISTANCES, steps: int = STEPS, seed: int = 1) -> Iterator[Found]:
    """Train a small model of a kind on all distances up to the longest, and yield its accuracy at each of `distances`."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    config = ModelConfig(architecture="encoder", mixer=mixer, vocab_size=VOCABULARY, n_classes=VALUES, **SIZE)  # type: ignore[arg-type]
    model = build_model(config)
    assert isinstance(model, Encoder)
    _train(model, max(distances), steps, draw)
    for distance in distances:
        ids, values = sequences(TESTED, distance, draw)
        with torch.inference_mode():
            right = (torch.cat([model.eval().classify(part) for part in torch.split(ids, 50)]).argmax(-1) == values).double().numpy()
        score = bootstrap(np.stack([right, np.ones(TESTED)], axis=1), lambda sums: sums[:, 0] / sums[:, 1])
        yield Found(distance, score.to_json())


def _train(model: Encoder, longest: int, steps: int, draw: np.random.Generator) -> None:
    train = TrainConfig(lr=3e-3, warmup=50, weight_decay=0.0)
    optimizer = build_optimizer(model, train)
    for step in range(1, steps + 1):
        # Short sequences first: what to look for is learned near, and then found far.
        distance = round(np.exp(draw.uniform(np.log(4 + PAIRS), np.log(max(16.0, longest * min(1.0, 2 * step / steps))))))
        distance = longest if step % 4 == 0 and 2 * step > steps else min(distance, longest)
        ids, values = sequences(max(8, BATCH_TOKENS // (distance + 1)), distance, draw)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, train, d_model=model.config.d_model, total_steps=steps)
        loss = class_loss(model.train().classify(ids), values)
        optimizer.zero_grad(set_to_none=True)
        (loss.total / loss.units).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
