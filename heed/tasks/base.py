"""The contract of a task: the only thing that differs between tasks. Trainer, evaluator, server and reports know nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch
from heed.data.parts import Part
from heed.data.read import Example
from heed.data.store import Encoded
from heed.metrics import Comparison
from heed.model.config import ModelConfig
from heed.model.losses import LossSum
from heed.model.models import Model

Statistics = Mapping[str, np.ndarray[Any, Any]]  # metric name -> (examples, K) sufficient statistics


@dataclass(frozen=True)
class Answer:
    """What a model answers to one example: a text with its score, and the runners-up if they were asked for."""

    text: str
    score: float | None = None
    others: tuple[Answer, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, leaving out what is empty."""
        content = {"text": self.text, "score": self.score, "others": [other.to_json() for other in self.others]}
        return {key: value for key, value in content.items() if value is not None and value != []}


class Scores(Protocol):
    """Scores with intervals, as plain JSON: name -> {"value", "low", "high"}, and whatever explains them."""

    def to_json(self) -> dict[str, Any]:
        """Return the scores as plain JSON values."""


class Metrics(Protocol):
    """Counts answers as they come and keeps numbers only, so a test set of any size needs little memory."""

    @property
    def statistics(self) -> Statistics:
        """Per metric and example, what the score is made of; for paired tests."""

    def scores(self) -> Scores:
        """Turn what was counted into scores."""

    def qualities(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return how good each answer is (N,), in one unit, higher is better; for finding the best and the worst."""

    def compare(self, other: Any) -> Mapping[str, Comparison]:
        """Test on the same examples whether another system (b) differs from this one (a), score by score."""


class Survey(Protocol):
    """What was found in the data before training."""

    keep: np.ndarray[Any, np.dtype[np.bool_]]  # rows without a fault

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values."""


class Task(ABC):
    """How examples are read, encoded, learned, answered and scored."""

    name: ClassVar[str]
    inputs: ClassVar[dict[str, str]]  # example key -> text | audio | image | items
    outputs: ClassVar[tuple[str, ...]]  # example keys that only training and scoring need
    architecture: ClassVar[str]
    settings: ClassVar[type[Settings]]

    def __init__(self, config: Settings, parts: Mapping[str, Part] | None = None, *, label_smoothing: float = 0.0) -> None:
        self.config = config
        self.parts: dict[str, Part] = dict(parts or {})
        self.label_smoothing = label_smoothing

    @property
    def columns(self) -> list[str]:
        """Return the columns an example needs for training."""
        return [*self.inputs, *self.outputs]

    @abstractmethod
    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Fit tokenizers, labels and statistics on training data (iterated as often as needed) and keep them in `parts`."""

    @abstractmethod
    def shape(self, model: ModelConfig) -> ModelConfig:
        """Fill in the sizes that follow from the parts; the only moment sizes are derived."""

    @abstractmethod
    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> Survey:
        """Look for faults in the training data and for leaks into other splits."""

    @abstractmethod
    def encode(self, example: Example, training: bool = False) -> Encoded:
        """Turn an example into tensors; with `training`, the outputs too."""

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Encode many examples; a task overrides it where a batch is faster."""
        return [self.encode(example, training) for example in examples]

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> LossSum | tuple[Tensor, Tensor]:
        """Return the loss summed over units and the number of units (and, if it has a meaning, how many were predicted right)."""

    @abstractmethod
    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer every example of a batch that was encoded without outputs."""

    @abstractmethod
    def metrics(self) -> Metrics:
        """Return an empty counter of scores."""

    @abstractmethod
    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add answers and the examples they belong to."""

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> Scores:
        """Score answers against their examples."""
        metrics = self.metrics()
        self.count(metrics, answers, examples)
        return metrics.scores()

    def answer_length(self, answer: Answer) -> int:
        """Return how many tokens an answer has, for speed figures; characters unless a task knows better."""
        return len(answer.text)

    def pictures(self, model: Model, example: Example, answer: Answer) -> dict[str, Any] | None:
        """Return what a report can draw of one answer, such as an alignment; None when there is nothing to see."""
        return None
