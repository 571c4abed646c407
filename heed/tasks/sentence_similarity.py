"""Sentence similarity: a text to one vector, so that texts that mean alike point alike (Reimers and Gurevych 2019).

The vector is the mean over all tokens the encoder reads, begin and end included, or the first of them; the head has no weights of its own.
Learned from pairs that belong together, each told from the other pairs of its batch, or from pairs with a score. What a pair is told from
is its batch: of larger ones (train.batch_tokens) more is learned, and micro-batches (train.accumulate) are pools of their own.

Left out: hard negatives that the data name (triplets), and vectors of fewer numbers (Matryoshka).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch
from heed.data.foreign import ForeignTokenizer
from heed.data.parts import Part
from heed.data.quality import survey_pairs
from heed.data.rows import Example
from heed.data.store import Encoded
from heed.data.text import Tokenizer
from heed.data.words import Preparation
from heed.errors import ConfigError, DataError
from heed.metrics.intervals import Floats
from heed.metrics.similarity import CORRELATION_SCORES, RETRIEVAL_SCORES, CorrelationMetrics, RetrievalMetrics
from heed.model.config import ModelConfig
from heed.model.contrastive import contrastive_loss
from heed.model.heads import Pooling
from heed.model.losses import LossSum
from heed.model.models import Encoder, Model
from heed.tasks.base import Answer, Metrics, Survey, Task

SIDES = ("text", "text_pair")
SHOWN_NUMBERS = 4  # of a vector on a terminal
SHORTEST = 3  # tokens of a text: one between begin and end


class SentenceSimilaritySettings(Settings):
    """What is particular to sentence similarity."""

    scores: bool | None = Field(
        default=None, description="pairs have a score from 0 to 1 that cosines are to equal; default: when the data have a column score"
    )
    pooling: Literal["mean", "first"] = Field(default="mean", description="how the tokens of a text become one vector")
    normalise: bool = Field(default=True, description="vectors that are answered have length 1")
    temperature: float = Field(default=0.05, gt=0, description="what cosines are divided by where pairs are told from others of a batch")
    vocab_size: int = Field(default=16000, ge=300, description="sub-words to learn")
    algorithm: Literal["bpe", "unigram"] = Field(default="bpe", description="how sub-words are learned")
    cleaning: bool = Field(default=True, description="remove HTML and control characters, fold white space, NFC")

    @model_validator(mode="after")
    def _fits_task(self) -> "SentenceSimilaritySettings":
        if self.scores and self.changed("temperature"):
            raise ValueError("task.temperature would be ignored where pairs have a score (task.scores=true); leave it out")
        return self


@dataclass(frozen=True)
class Match(Answer):
    """The answer to a pair: a cosine. The vectors (D,) of both texts are for scoring and stay out of what is written of it."""

    vectors: tuple[Floats, Floats] = field(default=(np.zeros(0), np.zeros(0)), compare=False, repr=False)


class SentenceSimilarity(Task):
    """From a text to its vector, or from two to their cosine."""

    name: ClassVar[str] = "sentence_similarity"
    inputs: ClassVar[dict[str, str]] = {"text": "text"}
    optional: ClassVar[dict[str, str]] = {"text_pair": "text"}
    outputs: ClassVar[dict[str, str]] = {"text_pair": "text"}
    noticed: ClassVar[tuple[str, ...]] = ("score",)
    architecture: ClassVar[str] = "encoder"
    counts_framing: ClassVar[bool] = True
    counts_tokens: ClassVar[bool] = False
    reads: frozenset[str] = frozenset()
    settings: ClassVar[type[Settings]] = SentenceSimilaritySettings
    heirlooms: ClassVar[tuple[str, ...]] = ("tokenizer", "preparation")
    cutting: ClassVar[tuple[str, ...]] = ("vocab_size", "algorithm", "cleaning")
    config: SentenceSimilaritySettings

    @classmethod
    def usual(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what holds where nobody says otherwise: there are no classes to smooth."""
        return {"model": {"architecture": cls.architecture}, "train": {"label_smoothing": 0.0}}

    def settle(self, example: Example) -> None:
        """Find out whether pairs have a score."""
        if self.config.scores is None:
            self.config = self.config.replace(scores="score" in example)

    @property
    def columns(self) -> dict[str, str]:
        """Return the columns an example needs for training, with their kinds."""
        return {**self.inputs, **self.outputs} | ({"score": "share"} if self.config.scores else {})

    @property
    def in_line(self) -> list[str]:
        """Return text and text_pair: a line of two texts with a tab between asks for their cosine."""
        return list(SIDES)

    @property
    def divisible(self) -> bool:
        """Whether a batch may be divided without changing the loss: where pairs have scores of their own."""
        return bool(self.config.scores)

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> Survey:
        """Count empty sides, copies, duplicates, odd length ratios and leaks."""
        return survey_pairs(examples, other_splits=others, source=SIDES[0], target=SIDES[1])

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the sub-words of both sides, unless they are inherited."""
        config = self.config
        self.parts = dict(self.inherited)
        if "tokenizer" not in self.parts:
            texts = (example[side] for example in examples for side in SIDES)
            learned = Tokenizer.train(texts, algorithm=config.algorithm, vocab_size=config.vocab_size, cleaning=config.cleaning)
            self.parts["tokenizer"] = learned
        return self.parts

    @property
    def tokenizer(self) -> Tokenizer | ForeignTokenizer:
        """What cuts a text."""
        return cast(Tokenizer | ForeignTokenizer, self.parts["tokenizer"])

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return the size of the vocabulary."""
        return {"vocabulary": {"size": self.tokenizer.vocab_size}}

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the size of the vocabulary; heads of other tasks go."""
        if model.architecture != "encoder" or model.hierarchical:
            found = "model.hierarchical=true" if model.hierarchical else f"model.architecture={model.architecture}"
            raise ConfigError(f"{found}: sentence similarity needs a plain encoder; leave it out")
        if model.pooling != "mean":
            raise ConfigError(f"model.pooling={model.pooling} would be ignored by sentence similarity; set task.pooling instead")
        if self.label_smoothing:
            raise ConfigError(f"train.label_smoothing={self.label_smoothing:g} would be ignored by sentence similarity; leave it out")
        if self.max_length < SHORTEST:
            raise ConfigError(f"data.max_length={self.max_length} has no room for a token between begin and end; raise it to {SHORTEST}")
        return model.replace(vocab_size=self.tokenizer.vocab_size, n_classes=None, n_tags=None, masked_lm=False)

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Encode many texts at once; where some have a text beside them, the others are given one without tokens."""
        encoded: list[Encoded] = [{"text": ids} for ids in self._ids([example["text"] for example in examples])]
        partners = [_partner(example) for example in examples]
        if any(partner is not None for partner in partners):
            sides = self._ids([partner or "" for partner in partners])
            for one, ids, partner in zip(encoded, sides, partners, strict=True):
                one["text_pair"] = ids[:0] if partner is None else ids
        if training and self.config.scores:
            for one, example in zip(encoded, examples, strict=True):
                one["score"] = torch.tensor(example["score"], dtype=torch.float32)
        return encoded

    def _ids(self, texts: Sequence[str]) -> list[Tensor]:
        begin, end = self.tokenizer.bos_id, [self.tokenizer.eos_id] if self.tokenizer.ends_texts else []
        preparation = self.parts.get("preparation")  # of the run that `init` names, where it has one
        prepared = [preparation(text) for text in texts] if isinstance(preparation, Preparation) else texts
        return [torch.tensor([begin, *ids, *end]) for ids in self.tokenizer.encode_batch(prepared)]

    def _cut(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Leave of texts (B, S) what the model reads at once; one that is cut keeps its end."""
        kept, real = ids[:, : self.max_length].clone(), mask[:, : self.max_length]
        if self.tokenizer.ends_texts:
            kept[mask.sum(1) > self.max_length, -1] = self.tokenizer.eos_id
        return kept, real

    def fitted(self, encoded: Encoded) -> Encoded:
        """Cut long texts."""
        sides = {name: encoded[name][None] for name in SIDES}
        cut = {name: self._cut(ids, torch.ones_like(ids, dtype=torch.bool))[0][0] for name, ids in sides.items()}
        return {**encoded, **cut}

    @property
    def long_examples(self) -> str:
        """Say what becomes of texts beyond data.max_length."""
        return "cut"

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once."""
        return min(super().n_places(encoded), self.max_length)

    def embed(self, model: Model, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the vector of each text, of any length: ids (B, S) with their mask (B, S) -> (B, D) in float32."""
        assert isinstance(model, Encoder)
        ids, mask = self._cut(ids, mask)
        vectors: Tensor = Pooling(model.config.d_model, self.config.pooling)(model(ids, mask), mask)
        return vectors.float()

    def loss(self, model: Model, batch: Batch) -> LossSum | tuple[Tensor, Tensor]:
        """Sum the squared distance of every cosine from its score, or else how unlikely each partner is among those of the batch."""
        first, second = (self.embed(model, batch[name], batch.mask(name)) for name in SIDES)
        if self.config.scores:
            distances = F.cosine_similarity(first, second) - batch["score"]
            return distances.square().sum(), torch.tensor(len(batch), device=distances.device)
        return contrastive_loss(first, second, same_texts(batch), temperature=self.config.temperature)

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer a text with {"embedding": its vector}, two texts with their cosine."""
        first = self.embed(model, batch["text"], batch.mask("text"))
        n_cut = [max(0, n - self.max_length) for n in batch.mask("text").sum(1).tolist()]
        answers = [self._vector(vector, n) for vector, n in zip(first, n_cut, strict=True)]
        if "text_pair" not in batch:
            return answers
        paired = batch.mask("text_pair").any(1).nonzero()[:, 0]
        if len(paired):
            mask = batch.mask("text_pair")[paired]
            second = self.embed(model, batch["text_pair"][paired], mask)
            for i, vector, n in zip(paired.tolist(), second, mask.sum(1).tolist(), strict=True):
                answers[i] = _match(first[i], vector, n_cut[i] + max(0, n - self.max_length))
        return answers

    def _vector(self, vector: Tensor, n_cut: int) -> Answer:
        numbers = (F.normalize(vector, dim=0) if self.config.normalise else vector).tolist()
        shown = " ".join(f"{round(number, 2) + 0.0:.2f}" for number in numbers[:SHOWN_NUMBERS])  # and never -0.00
        more = f" … ({len(numbers)} numbers)" if len(numbers) > SHOWN_NUMBERS else ""
        return Answer(shown + more, details={"embedding": numbers, **_cut_short(n_cut)})

    def metrics(self) -> RetrievalMetrics | CorrelationMetrics:
        """Return an empty counter of how cosines follow scores, or else of partners found among all."""
        return CorrelationMetrics() if self.config.scores else RetrievalMetrics()

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that may choose the weights; both sorts, before it is settled which the data are for."""
        sorts = {True: CORRELATION_SCORES, False: RETRIEVAL_SCORES}
        return [*CORRELATION_SCORES, *RETRIEVAL_SCORES] if self.config.scores is None else sorts[self.config.scores]

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add answers to pairs."""
        if not answers:
            return
        if isinstance(metrics, CorrelationMetrics):
            metrics.add([answer.score or 0.0 for answer in answers], [example["score"] for example in examples])
            return
        assert isinstance(metrics, RetrievalMetrics)
        first, second = zip(*(answer.vectors for answer in answers if isinstance(answer, Match)), strict=True)
        metrics.add(np.stack(first), np.stack(second), [(example["text"].strip(), example["text_pair"].strip()) for example in examples])

    def memory_advice(self, length: int) -> str:
        """Say what to set where a text does not fit into memory."""
        return f"read less of it (data.max_length={max(SHORTEST, min(length, self.max_length) // 2)})"

    def answer_length(self, answer: Answer) -> int:
        """Return 1: an answer is a vector, or a number."""
        return 1


def same_texts(batch: Batch) -> Tensor:
    """Return for which pairs i, j of a batch (B, B) the partner of j is no wrong answer for i: it is one of its texts, or its twin's."""
    numbers: dict[tuple[int, ...], int] = {}
    first, second = (torch.tensor([numbers.setdefault(ids, len(numbers)) for ids in _rows(batch, name)]) for name in SIDES)
    same = (first[:, None] == first) | (second[:, None] == second) | (first[:, None] == second)
    return same.to(batch["text"].device)


def _rows(batch: Batch, name: str) -> list[tuple[int, ...]]:
    lengths = batch.mask(name).sum(1).tolist()
    return [tuple(ids[:n]) for ids, n in zip(batch[name].tolist(), lengths, strict=True)]


def _partner(example: Example) -> str | None:
    """Return the text beside a text, if any; raises DataError for what is no text."""
    partner = example.get("text_pair")
    if partner is not None and not isinstance(partner, str):
        raise DataError(f"'text_pair' should be text, found {type(partner).__name__}; leave it out for a vector of the text alone")
    return partner


def _match(first: Tensor, second: Tensor, n_cut: int) -> Match:
    first, second = first.detach().cpu().double(), second.detach().cpu().double()
    cosine = float(F.cosine_similarity(first, second, dim=0))
    return Match(f"{cosine:.4f}", cosine, details=_cut_short(n_cut), vectors=(first.numpy(), second.numpy()))


def _cut_short(n_cut: int) -> dict[str, int]:
    """Say how many tokens were not read, if any."""
    return {"cut": n_cut} if n_cut else {}
