"""The contract of a task: the only thing that differs between tasks. Trainer, evaluator, server and reports know nothing else."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from heed.config import DRAWING, DecodeConfig, Settings
from heed.data.batch import Batch
from heed.data.layout import Layout
from heed.data.parts import Part
from heed.data.rows import Example
from heed.data.store import Encoded, Store
from heed.data.words import Preparation
from heed.errors import ConfigError
from heed.metrics import Comparison
from heed.model.config import ModelConfig
from heed.model.losses import LossSum
from heed.model.models import Model

if TYPE_CHECKING:
    from heed.tasks.live import LiveSound

# Of the settings of decoding: what every task reads, what those do that tell the runners-up, and those that write token by token.
ALWAYS_READ = frozenset({"batch_tokens", "precision"})
RANKING = frozenset({"n_best"})
WRITING = RANKING | {"beams", "length_penalty", "sample", *DRAWING, "repetition_penalty", "no_repeat_ngram_size", "max_length", "seed"}

Statistics = Mapping[str, np.ndarray[Any, Any]]  # metric name -> (examples, K) sufficient statistics


@dataclass(frozen=True)
class Answer:
    """What a model answers to one example: a text with its score, the runners-up if they were asked for, and what the task adds."""

    text: str
    score: float | None = None
    others: tuple[Answer, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)  # plain JSON values, such as the probability of each class

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, leaving out what is empty."""
        content = {"text": self.text, "score": self.score, "others": [other.to_json() for other in self.others]}
        return {key: value for key, value in content.items() if value is not None and value != []} | dict(self.details)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Answer:
        """Build the answer again, without its runners-up."""
        known = ("text", "score", "others")
        details = {key: value for key, value in content.items() if key not in known}
        return cls(content["text"], content.get("score"), details=details)


class Scores(Protocol):
    """Scores with intervals, as plain JSON: name -> {"value", "low", "high"}, and whatever explains them."""

    def to_json(self) -> dict[str, Any]:
        """Return the scores as plain JSON values."""


class Metrics(Protocol):
    """Counts answers as they come and keeps numbers only, so a test set of any size needs little memory."""

    @property
    def statistics(self) -> Statistics:
        """Per metric and example, what the score is made of; for paired tests."""

    def scores(self, *, resamples: int = 1000) -> Scores:
        """Turn what was counted into scores, whose intervals rest on so many resamples."""

    def qualities(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return how good each answer is (N,), in one unit, higher is better; for finding the best and the worst."""

    def compare(self, other: Any) -> Mapping[str, Comparison]:
        """Test on the same examples whether another system (b) differs from this one (a), score by score."""


class Survey(Protocol):
    """What was found in the data before training."""

    @property
    def keep(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Rows without a fault."""

    @property
    def refused(self) -> str | None:
        """Say what forbids training on all rows; None when nothing does."""

    def to_json(self) -> dict[str, Any]:
        """Return the findings as plain JSON values."""


class Task(ABC):
    """How examples are read, encoded, learned, answered and scored."""

    name: ClassVar[str]
    inputs: ClassVar[dict[str, str]]  # example key -> text | words | audio | image | items
    optional: ClassVar[dict[str, str]] = {}  # further inputs, for data that has them
    outputs: ClassVar[dict[str, str]]  # example key -> text | label | labels; only training and scoring need them
    noticed: ClassVar[tuple[str, ...]] = ()  # columns that are read too where data have them, such as who speaks
    architecture: ClassVar[str]
    counts_framing: ClassVar[bool] = False  # whether data.max_length counts the tokens that stand around texts as well
    counts_tokens: ClassVar[bool] = True  # whether the units of the loss are tokens
    token_name: ClassVar[str] = "tokens"  # what those of targets and answers are called beside their number a second
    continues: ClassVar[bool] = False  # whether an answer goes on where its (one) input ends, so that both joined are an input again
    reads: frozenset[str] = frozenset(DecodeConfig.model_fields)  # settings of decoding that its answers depend on
    window: ClassVar[int | None] = None  # examples held in memory at a time, where they are larger than text
    undivided: ClassVar[tuple[str, str]] = ("different input", "different inputs")  # one, and several, of what `together` tells apart
    settings: ClassVar[type[Settings]]
    heirlooms: ClassVar[tuple[str, ...]] = ("tokenizer",)  # parts that are taken over from the run that `init` names
    cutting: ClassVar[tuple[str, ...]] = ()  # settings that belong to those parts, and are taken over with them
    retold: ClassVar[tuple[str, ...]] = ()  # those of them that the other run may have otherwise all the same

    def __init__(
        self, config: Settings, parts: Mapping[str, Part] | None = None, *, label_smoothing: float = 0.0, max_length: int = 256
    ) -> None:
        """Build a task.

        Args:
            label_smoothing: probability spread over all classes (train.label_smoothing).
            max_length: tokens a model sees at once (data.max_length).
        """
        self.config = config
        self.parts: dict[str, Part] = dict(parts or {})
        self.inherited: dict[str, Part] = {}  # parts that `prepare` keeps instead of fitting them
        self.label_smoothing = label_smoothing
        self.max_length = max_length

    @classmethod
    def usual(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the groups of settings that hold where nobody says otherwise, given the task's own as the recipe has them."""
        return {"model": {"architecture": cls.architecture}}

    @classmethod
    def suited(cls, settings: Settings) -> type[Task]:
        """Return the class that does what the task's settings ask for: itself, unless there is one of its own for some of them."""
        return cls

    def settle(self, example: Example) -> None:
        """Settle what the settings leave to the data, given one example with all its columns; `config` then says it."""

    @property
    def wanted(self) -> dict[str, str]:
        """Return the inputs an example needs, with their kinds."""
        return self.inputs

    @property
    def columns(self) -> dict[str, str]:
        """Return the columns an example needs for training, with their kinds."""
        return {**self.wanted, **self.outputs}

    def check_columns(self, names: Iterable[str], group: str | None = None) -> None:
        """Refuse to rename what nothing reads.

        Args:
            names: our names in data.columns.
            group: what data.group reads, whatever the task.
        Raises:
            ConfigError: one of them is no column of the task.
        """
        known = list(dict.fromkeys([*self.columns, *self.optional, *self.noticed]))
        for name in names:
            if name not in (*known, group):
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean data.columns.{near[0]}?" if near else "leave it out"
                raise ConfigError(f"data.columns.{name} would be ignored: {self.name} reads {', '.join(known)}; {hint}")

    @property
    def in_line(self) -> list[str]:
        """Return the inputs that one line of text may hold, with tabs between them."""
        return list(self.wanted)

    def fault(self, example: Example) -> str | None:
        """Say what keeps an example from being learned or scored, once the parts are known; None for a good one."""
        return None

    def unanswerable(self, example: Example) -> str | None:
        """Say why an example whose inputs are there cannot be answered all the same, such as a text without a mask; None for a good one."""
        return None

    def stratum(self, example: Example) -> str | None:
        """Return what should be spread evenly over folds, such as the class; None when the task has nothing of the kind."""
        return None

    def inherit(self, other: Task) -> None:
        """Take over parts of the run that `init` names, so that `prepare` does not fit them; raises ConfigError where there are none."""
        self.inherited = {name: part for name, part in other.parts.items() if name in self.heirlooms}
        if not self.inherited:
            raise ConfigError(f"init: a {other.name} run has no {' and no '.join(self.heirlooms)}, which {self.name} would take over")
        left = other.parts.get("preparation")
        if isinstance(left, Preparation) and "preparation" not in self.heirlooms and (left.lower or left.stop_words != "none"):
            changed = "lower-cases texts" if left.lower else "leaves stop-words out"
            raise ConfigError(f"init: a run that {changed} knows no other, and {self.name} reads texts as they are; start from another")

    def adopt(self, parts: Mapping[str, Part], labels: Sequence[str]) -> None:
        """Take over the parts of another maker's model, which read texts as they are, and the names of its classes."""
        self.parts = dict(parts)
        if "cleaning" in type(self.config).model_fields:
            self.config = self.config.replace(cleaning=False)

    def together(self, example: Example) -> str | None:
        """Return what an example shares with all that have to stand on its side of a split, such as its article; None: its inputs."""
        return None

    @abstractmethod
    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Keep in `parts` what is `inherited`, and tokenizers, labels and statistics that are fitted on training data.

        Examples are iterated as often as needed.
        """

    @abstractmethod
    def shape(self, model: ModelConfig) -> ModelConfig:
        """Fill in the sizes that follow from the parts; the only moment sizes are derived."""

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return what else the data report should say, as plain JSON values, once the parts are fitted."""
        return {}

    @abstractmethod
    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> Survey:
        """Look for faults in the training data and for leaks into other splits."""

    def divided(self, example: Example) -> Iterable[Example]:
        """Return what is held out, learned and scored as one of an example that was read: itself, unless a task divides long ones."""
        return [example]

    def encode(self, example: Example, training: bool = False) -> Encoded:
        """Turn an example into tensors; with `training`, the outputs too. A task overrides it, or `encode_all` where many are faster."""
        return self.encode_all([example], training)[0]

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Encode many examples."""
        return [self.encode(example, training) for example in examples]

    def fitted(self, encoded: Encoded) -> Encoded | None:
        """Return what training is given of an example: None leaves it out, for being longer than max_length."""
        longest = max((value.size(0) for value in encoded.values() if value.dim()), default=1)
        return None if longest > self.max_length else encoded

    def pieces(self, encoded: Encoded) -> Iterable[Encoded]:
        """Return what training is given of an example, of which a task may make several; by default what `fitted` leaves of it."""
        kept = self.fitted(encoded)
        return [] if kept is None else [kept]

    def unlearnable(self, encoded: Encoded) -> str | None:
        """Say why training learns nothing from an encoded example, and what to do about it; None for a good one.

        What is said follows on "3 training examples", and is the same for all that have the same fault, so that they can be counted.
        """
        return None

    @property
    def long_examples(self) -> str:
        """Say what `fitted` does to examples beyond max_length."""
        return "left out"

    @property
    def layout(self) -> Layout:
        """How examples become rows of the batches that are learned and validated on; answers and scores have rows of their own."""
        return Layout()

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many places of a sequence the model sees at once when it answers."""
        return max((value.size(0) for value in encoded.values() if value.dim()), default=0)

    def augmented(self, encoded: Encoded, draw: np.random.Generator) -> Encoded:
        """Return a changed copy of a training example that means the same; the example itself where nothing is changed."""
        return encoded

    @property
    def augments(self) -> bool:
        """Whether `augmented` ever changes anything."""
        return False

    @property
    def passes(self) -> int:
        """How many times an update lays each row into its batch: all rows, then all again, each drawn and augmented on its own."""
        return 1

    def prepare_own(self, examples: Iterable[Example]) -> None:
        """Learn what the examples of data.train alone tell, and those of data.extra do not: what answers are usual."""

    def start(self, model: Model, store: Store) -> None:
        """Fill in weights that are known before training, such as word vectors, or what the encoded training examples tell at once."""

    @property
    def divisible(self) -> bool:
        """Whether the loss of a batch is the sum over its rows, so that any division into micro-batches is the same step."""
        return True

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> LossSum | tuple[Tensor, Tensor]:
        """Return the loss summed over units and the number of units (and, if it has a meaning, how many were predicted right)."""

    def of_use(self, options: DecodeConfig) -> dict[str, Any]:
        """Return those settings of decoding that its answers depend on."""
        return {name: value for name, value in options if name in self.reads | ALWAYS_READ}

    def check_decoding(self, options: DecodeConfig, given: Iterable[str]) -> None:
        """Refuse settings of decoding under which some that were given would be ignored; raises ConfigError."""
        read = self.of_use(options)
        idle = [name for name in given if name not in read and options.changed(name)]
        if idle:
            known = ", ".join(f"decode.{name}" for name in read)
            raise ConfigError(f"decode.{idle[0]} would be ignored: {self.name} reads {known} here; leave it out")
        if "beams" in read and not options.sampling and options.n_best > options.beams:
            raise ConfigError(
                f"decode.n_best={options.n_best} needs at least as many beams, found decode.beams={options.beams}; "
                "raise decode.beams, or sample with decode.sample=true"
            )

    @abstractmethod
    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer every example of a batch that was encoded without outputs."""

    def stream(self, model: Model, batch: Batch, options: DecodeConfig) -> Generator[str, None, Answer]:
        """Yield the text of the answer to a batch of one piece by piece, as it is sure; joined, it is what `predict` answers.

        Returns:
            the answer; its score may be missing where it was written piece by piece.
        """
        (answer,) = self.predict(model, batch, options)
        yield answer.text
        return answer

    def live(self, model: Model, options: DecodeConfig, rate: int | None = None) -> LiveSound:
        """Begin to follow a stream of sound of so many samples a second; raises ConfigError for a task that hears none."""
        raise ConfigError(f"a {self.name} run hears nothing; a stream needs one of speech_recognition")

    def note(self, answer: Answer) -> str | None:
        """Say what a person should know about how an answer came about, from its details; None where there is nothing to say."""
        return None

    @property
    def examiner(self) -> Task:
        """The task whose answers are scored: itself, unless scoring asks something else of the model than answering does."""
        return self

    @abstractmethod
    def metrics(self) -> Metrics:
        """Return an empty counter of scores."""

    @abstractmethod
    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add answers and the examples they belong to."""

    @property
    def calibrates(self) -> bool:
        """Whether `calibrate` has anything to fit."""
        return False

    def calibrate(self, metrics: Metrics) -> None:
        """Fit the part that is fitted on validation answers, given their metrics."""

    def advice(self, scores: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
        """Return what to try next where the numbers say so, from an evaluation and the data report."""
        return []

    @property
    def remarks(self) -> list[str]:
        """Return what is to be said beside all scores, such as a wish that calibrating could not fulfil."""
        return []

    def mistakes(self, metrics: Metrics) -> np.ndarray[Any, np.dtype[np.intp]] | None:
        """Return which answers are wrong, the most confident first; None where answers are better or worse rather than right or wrong."""
        return None

    def memory_advice(self, length: int) -> str:
        """Say what to set where a training example of so many tokens does not fit into memory."""
        return f"leave such examples out (data.max_length={length - 1})"

    @property
    def score_names(self) -> Sequence[str] | None:
        """The scores that may choose the weights (train.best_metric); None when they are not known before training."""
        return None

    group_names: ClassVar[dict[str, str]] = {}  # what the best, median and worst answers are called in a report

    def score(self, answers: Sequence[Answer], examples: Sequence[Example]) -> Scores:
        """Score answers against their examples."""
        metrics = self.metrics()
        self.count(metrics, answers, examples)
        return metrics.scores()

    @property
    def disturbances(self) -> list[dict[str, Any]]:
        """Return what robustness is measured against, such as noise of a level, as plain JSON values; none where nothing is known."""
        return []

    def disturb(self, examples: Sequence[Example], disturbance: Mapping[str, Any], draw: np.random.Generator) -> list[Example]:
        """Return the examples as a disturbance leaves them."""
        raise NotImplementedError

    def lend(self, language_model: Any) -> None:
        """Take what decode.language_model names, loaded, or None; raises ConfigError for a task that has no use for it."""
        if language_model is not None:
            raise ConfigError(f"decode.language_model would be ignored by {self.name}; leave it out")

    def answer_length(self, answer: Answer) -> int:
        """Return how many tokens an answer has, for speed figures; characters unless a task knows better."""
        return len(answer.text)

    def pictures(self, model: Model, example: Example, answer: Answer) -> dict[str, Any] | None:
        """Return what a report can draw of one answer, such as an alignment; None when there is nothing to see."""
        return None
