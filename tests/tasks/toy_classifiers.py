"""What the tests of text classification share: rows whose label one word decides, and tasks, models and runs that learn it."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from toy_runs import DECISIVE, TINY_TEXTS, WORDS, toy_texts, write_rows

import heed
from heed.config import merge
from heed.data.rows import Example
from heed.model import Encoder, ModelConfig, build_model
from heed.run import Run, resolve
from heed.tasks.text_classification import TextClassification, TextClassificationSettings
from heed.training.prepare import Prepared, prepare

LABELS = ["cold", "plain", "warm"]
ROWS = toy_texts(90)
TRAIN, VALID = ROWS[:60], ROWS[60:]
LEARN = {"steps": 150, "evaluate_every": 150, "batch_tokens": 300}
SHAPE = ModelConfig(architecture="encoder", d_model=16, n_heads=2, n_layers=1, d_ff=24, dropout=0.0)


def trained(folder: Path, rows: Sequence[Example], valid: Sequence[Example], **settings: Any) -> Run:
    """Train the tiny classifier on rows in `folder`, with settings laid over TINY_TEXTS."""
    data = {"train": str(write_rows(folder / "train.tsv", rows)), "valid": str(write_rows(folder / "valid.tsv", valid))}
    return heed.train(merge(TINY_TEXTS, {"data": data}), to=folder / "run", quiet=True, **settings)


def trained_on_toys(folder: Path) -> Run:
    """Return a run that has learned the decisive words, and was calibrated on labels of which a quarter are wrong."""
    return trained(folder, TRAIN, noisy(VALID), train=LEARN)


def trained_on_windows(folder: Path) -> Run:
    """Return a run that reads texts in windows of eight words, which share two."""
    rows = long_texts(90, seed=1)
    settings = {"train": {**LEARN, "batch_tokens": 400}, "task": {"overlap": 2}, "data": {"max_length": 8}}
    return trained(folder, rows[:60], rows[60:], **settings)


def prepared_in(folder: Path, rows: Sequence[Example], valid: Sequence[Example] | None = None, **settings: Any) -> tuple[Prepared, str]:
    """Make what training needs, and return it with what was said."""
    files = {"train": rows} if valid is None else {"train": rows, "valid": valid}
    data = {name: str(write_rows(folder / f"{name}.tsv", some)) for name, some in files.items()}
    said: list[str] = []
    config = resolve(merge(TINY_TEXTS, {"data": data}), settings)
    return prepare(config, folder / "run", said.append), "\n".join(said)


def task_for(rows: Sequence[Example] = TRAIN, *, max_length: int = 64, **settings: Any) -> TextClassification:
    """Return a task that has learned its parts from rows."""
    chosen = TextClassificationSettings.model_validate({"tokens": "words", **settings})
    task = TextClassification(chosen, max_length=max_length)
    task.settle(rows[0])
    task.prepare(rows)
    return task


def model_for(task: TextClassification, **fields: Any) -> Encoder:
    torch.manual_seed(1)
    model = build_model(task.shape(SHAPE.replace(**fields)))
    assert isinstance(model, Encoder)
    return model.eval()


def inputs(rows: Sequence[Example]) -> list[Example]:
    return [{key: value for key, value in row.items() if key != "label"} for row in rows]


def texts(*found: str) -> list[Example]:
    return [{"text": text} for text in found]


def probabilities(run: Run, rows: Sequence[Example]) -> np.ndarray[Any, Any]:
    """Return the probability of every label, (n, C)."""
    return np.array([list(answer.details["probabilities"].values()) for answer in run.predict(inputs(rows))])


def report_of(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.folder / "data_report.json").read_text(encoding="utf-8"))
    return content


def noisy(rows: Sequence[Example]) -> list[Example]:
    """Return rows of which every fourth has a wrong label."""
    return [row if i % 4 else {**row, "label": LABELS[LABELS.index(row["label"]) - 1]} for i, row in enumerate(rows)]


def filler(draw: random.Random, n: int) -> list[str]:
    return draw.choices(list(WORDS), k=n)


def long_texts(n: int, seed: int) -> list[Example]:
    """Return texts of 13 to 21 words, one of which decides."""
    draw = random.Random(seed)
    rows = []
    for i in range(n):
        decisive = list(DECISIVE)[i % 3]
        words = filler(draw, draw.randint(12, 20))
        words.insert(draw.randint(0, len(words)), decisive)
        rows.append({"text": " ".join(words), "label": DECISIVE[decisive]})
    return rows


def texts_with_labels(n: int, seed: int) -> list[Example]:
    """Return different texts with the labels of none to all decisive words."""
    draw = random.Random(seed)
    found: dict[str, list[str]] = {}
    while len(found) < n:
        chosen = [word for bit, word in enumerate(DECISIVE) if len(found) >> bit & 1]
        words = [*filler(draw, draw.randint(2, 5)), *chosen]
        draw.shuffle(words)
        found[" ".join(words)] = sorted(DECISIVE[word] for word in chosen)
    return [{"text": text, "label": labels} for text, labels in found.items()]


def pairs_of_texts(n: int) -> list[Example]:
    firsts, seconds = ROWS[:n], ROWS[n : 2 * n]
    return [{"text": one["text"], "text_pair": other["text"], "label": one["label"]} for one, other in zip(firsts, seconds, strict=True)]
