"""Measuring a run on data: scores with intervals, speed and memory, and paired comparison of two runs."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from heed.config import DecodeConfig
from heed.data.read import Example
from heed.device import describe_machine, peak_memory_mib
from heed.run import WINDOW, Run
from heed.tasks import Answer
from heed.tasks.base import Metrics, Scores


@dataclass(frozen=True)
class Evaluation:
    """What measuring found."""

    scores: Scores
    metrics: Metrics
    n_examples: int
    seconds: float
    n_characters: int
    memory_mib: float
    options: DecodeConfig

    def to_json(self) -> dict[str, Any]:
        """Return scores by name, and under `cost` what they took."""
        cost = {
            "examples": self.n_examples,
            "seconds": round(self.seconds, 3),
            "examples_per_second": round(self.n_examples / self.seconds, 2) if self.seconds else None,
            "characters_per_second": round(self.n_characters / self.seconds, 1) if self.seconds else None,
            "peak_memory_mib": round(self.memory_mib, 1),
            "machine": describe_machine(),
        }
        return {**self.scores.to_json(), "cost": cost, "decode": self.options.model_dump()}


def evaluate_examples(run: Run, examples: Iterable[Example], options: DecodeConfig, *, to: Path | None = None) -> Evaluation:
    """Answer every example and score the answers, holding a window of them at a time.

    Args:
        to: a file that is given one JSON line per example: the example, its answer, and how good it is among its peers.
    """
    metrics = run.task.metrics()
    n_examples, n_characters, seconds = 0, 0, 0.0
    lines = None if to is None else to.open("w", encoding="utf-8")
    try:
        for window in _windows(examples):
            begun = time.perf_counter()
            answers = list(run.answers(window, options))
            seconds += time.perf_counter() - begun
            run.task.count(metrics, answers, window)
            n_examples += len(window)
            n_characters += sum(len(answer.text) for answer in answers)
            if lines is not None:
                lines.writelines(_line(example, answer) for example, answer in zip(window, answers, strict=True))
    finally:
        if lines is not None:
            lines.close()
    memory = peak_memory_mib(run.device)
    return Evaluation(metrics.scores(), metrics, n_examples, seconds, n_characters, memory, options)


def _windows(examples: Iterable[Example]) -> Iterator[list[Example]]:
    stream = iter(examples)
    while window := list(islice(stream, WINDOW)):
        yield window


def _line(example: Example, answer: Answer) -> str:
    content = {key: value for key, value in example.items() if isinstance(value, str | int | float)}
    return json.dumps({"example": content, "answer": answer.to_json()}, ensure_ascii=False) + "\n"


def set_threads(options: DecodeConfig) -> None:
    """Use one thread where the work of a step is too small to share; see bench/threads.py."""
    if options.batch_tokens <= 1:
        torch.set_num_threads(1)
