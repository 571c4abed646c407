"""Text to text: any task whose input and answer are both texts, several in one model told apart by a prefix (Raffel et al. 2020).

A source reads "summarize: " and the text; the prefix is that of task.prefix, the same for all rows, or of a column `prefix`. An answer is
asked for with the prefix as a key of its own, or written in front of the source.

task.objective=spans learns from plain text instead: stretches of it are hidden, and the model writes what stood there (heed.data.spans).
They are drawn anew in each epoch; validation data keep theirs. A run of task.objective=pairs with init=RUN then starts from its weights.
Sentinels, which stand for stretches, have task.n_sentinels ids behind the sub-words in both, so that the two fit; a vocabulary that was
imported has its own.

Left out: mixing tasks in other shares than their rows have (write the rows of a small one several times), and examples of several tasks
in one answer.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch, collate
from heed.data.documents import Documents
from heed.data.foreign import ForeignTokenizer
from heed.data.parts import Part
from heed.data.quality import survey_pairs
from heed.data.rows import Example
from heed.data.store import Encoded
from heed.data.text import Tokenizer
from heed.errors import ConfigError, DataError
from heed.metrics.text_to_text import TextToTextMetrics
from heed.model.config import ModelConfig
from heed.model.models import Model
from heed.tasks.base import Answer, Metrics, Survey, Task
from heed.tasks.rewriting import Rewriting, RewritingSettings, TextTokenizer, with_end
from heed.terminal import unread, were

Name = Literal["bleu", "chrf", "accuracy", "rouge1", "rouge2", "rougeL"]
OF_PAIRS = ("prefix", "prefixes", "scores", "target_language", "long_sources")
OF_SPANS = ("documents", "mask_share", "mean_span")
MOST_PREFIXES = 1000
SHOWN_PREFIXES = 8
SHOWN = 40  # characters of a source


class TextToTextSettings(RewritingSettings):
    """What is particular to text to text."""

    objective: Literal["pairs", "spans"] = Field(
        default="pairs", description="pairs: rows of source and target; spans: plain text, of which stretches are hidden and foretold"
    )
    prefix: str | None = Field(default=None, description="stands before every source, such as 'summarize:'; a space follows it")
    prefixes: list[str] | None = Field(
        default=None, description="all that a column `prefix` may hold; default: what it holds in the training data"
    )
    scores: list[Name] = Field(
        default=["bleu", "chrf"],
        min_length=1,
        description="what answers are scored by: bleu, chrf, accuracy (they equal the reference), rouge1, rouge2, rougeL",
    )
    long_sources: Literal["leave", "cut"] = Field(
        default="leave", description="sources beyond data.max_length: leave them out of training, or cut their end off"
    )
    n_sentinels: int = Field(default=100, ge=2, description="ids behind the sub-words that stand for hidden stretches")
    documents: Documents = Field(
        default="file", description="spans: what a document is: a file or a row of a table, or each of its paragraphs (blank lines between)"
    )
    mask_share: float = Field(default=0.15, gt=0, le=0.5, description="spans: share of tokens that are hidden")
    mean_span: float = Field(default=3.0, ge=1, description="spans: tokens of a hidden stretch in the mean")

    @model_validator(mode="after")
    def _fits_task(self) -> "TextToTextSettings":
        for name in OF_PAIRS if self.objective == "spans" else OF_SPANS:
            if self.changed(name):
                raise ValueError(f"task.{name} would be ignored with task.objective={self.objective}; leave it out")
        if self.prefix is not None and self.prefixes:
            raise ValueError("task.prefix would be ignored with task.prefixes, of which every row has one; leave one of them out")
        if self.target_language is not None and "bleu" not in self.scores:
            raise ValueError(f"task.target_language={self.target_language} would be ignored, for only BLEU asks for it; leave it out")
        if len(set(self.scores)) < len(self.scores):
            raise ValueError(f"task.scores names one of {', '.join(self.scores)} twice; name each once")
        return self


class TextToText(Rewriting):
    """From a source, with a prefix that says what is to be done, to a target."""

    name: ClassVar[str] = "text_to_text"
    optional: ClassVar[dict[str, str]] = {"prefix": "text"}
    settings: ClassVar[type[Settings]] = TextToTextSettings
    cutting: ClassVar[tuple[str, ...]] = ("vocab_size", "algorithm", "cleaning", "n_sentinels")
    config: TextToTextSettings
    by_prefix = False  # whether the rows that training reads have a column `prefix`
    n_rows: Mapping[str, int] = MappingProxyType({})  # of each prefix

    @classmethod
    def usual(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what holds where nobody says otherwise: no smoothing in pre-training, where likelihood is what is scored."""
        return super().usual(settings) | ({"train": {"label_smoothing": 0.0}} if settings.get("objective") == "spans" else {})

    @classmethod
    def suited(cls, settings: Settings) -> type[Task]:
        """Return the class that learns by the objective that was set."""
        from heed.tasks.span_pretraining import SpanPretraining

        assert isinstance(settings, TextToTextSettings)
        return SpanPretraining if settings.objective == "spans" else cls

    def settle(self, example: Example) -> None:
        """Find out whether rows have a column `prefix`; raises ConfigError where it would stand beside task.prefix."""
        if "prefix" not in example:
            self.config = self.config.replace(prefixes=self.config.prefixes or [])
        elif self.config.prefix is not None:
            raise ConfigError(f"task.prefix={self.config.prefix!r} would be ignored: rows have a column 'prefix'; leave one of them out")
        self.by_prefix = "prefix" in example

    @property
    def columns(self) -> dict[str, str]:
        """Return source and target, and prefix where rows have one."""
        return {**self.inputs, **(self.optional if self.by_prefix or self.config.prefixes else {}), **self.outputs}

    def fault(self, example: Example) -> str | None:
        """Say which prefix is not known."""
        if self.config.prefixes is None:
            return None
        try:
            self.asked(example)
        except DataError as error:
            return str(error)
        return None

    def unanswerable(self, example: Example) -> str | None:
        """Say which prefix is not known, or that there is none."""
        return self.fault(example)

    def stratum(self, example: Example) -> str | None:
        """Return the prefix, so that every fold has rows of each task; None where rows have none."""
        return str(example["prefix"]).strip() if "prefix" in example else None

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> Survey:
        """Count empty sides, copies, duplicates and leaks; how long targets are beside their sources differs from task to task."""
        splits = {name: self._prefixed(split) for name, split in others.items()}
        return survey_pairs(self._prefixed(examples), other_splits=splits, ratios=False)

    def _prefixed(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Yield examples with their prefixes in front of their sources."""
        return ({**example, "source": self.asked(example).text} for example in examples)

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the sub-words of both sides, and the prefixes."""
        self.metrics()  # which says now what it lacks
        found = Counter(example["prefix"].strip() for example in examples) if self.by_prefix else Counter()
        if len(found) > MOST_PREFIXES:
            raise DataError(f"column 'prefix' holds more than {MOST_PREFIXES} different values; it should name the task of a row")
        texts = (text for example in examples for text in (self.asked(example).text, example["target"]))
        self.parts = dict(self.inherited) or {"tokenizer": self.train_tokenizer(texts)}
        self.config = self.config.replace(prefixes=self.config.prefixes or list(found))
        self.n_rows = dict(found)
        return self.parts

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return the size of the vocabulary, and how many rows each prefix has."""
        return {"vocabulary": {"size": self.tokenizer.vocab_size}} | ({"prefixes": self.n_rows} if self.n_rows else {})

    @property
    def tokenizer(self) -> TextTokenizer:
        """What cuts both sides."""
        return cast(TextTokenizer, self.parts["tokenizer"])

    @property
    def source_tokenizer(self) -> TextTokenizer:
        """What cuts a source."""
        return self.tokenizer

    @property
    def target_tokenizer(self) -> TextTokenizer:
        """What cuts a target."""
        return self.tokenizer

    @cached_property
    def sentinels(self) -> list[int]:
        """The ids that stand for hidden stretches: behind those of heed's own vocabulary, or those an imported one has for them."""
        n = self.config.n_sentinels
        if isinstance(self.tokenizer, ForeignTokenizer):
            return self.tokenizer.sentinels(n)
        return list(range(self.tokenizer.vocab_size, self.tokenizer.vocab_size + n))

    @property
    def n_ids(self) -> int:
        """Ids that the model knows: of heed's own vocabulary, with the sentinels behind them."""
        own = isinstance(self.tokenizer, Tokenizer)
        return self.tokenizer.vocab_size + (self.config.n_sentinels if own else 0)

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the vocabulary size."""
        self.check_architecture(model)
        return model.replace(vocab_size=self.n_ids, source_vocab_size=None, absent_ids=self.tokenizer.absent)

    def asked(self, example: Example) -> "Asked":
        """Return what the model is asked, and by which prefix.

        Raises:
            DataError: the prefix is not one that training had, or there is none where training had one in every row.
        """
        known, given, source = self.config.prefixes, example.get("prefix"), example["source"]
        if given is None and not known:
            prefix = (self.config.prefix or "").strip()
            return Asked(prefix, _joined(prefix, source))
        if given is None:
            found = [prefix for prefix in known or () if source.startswith(_joined(prefix, ""))]
            if not found:
                raise DataError(f"source {source[:SHOWN]!r} begins with no prefix of {_listed(known or ())}; write one in front of it")
            return Asked(max(found, key=len), source)
        prefix = str(given).strip()
        if known is not None and prefix not in known:
            raise DataError(
                f"prefix {prefix!r} is not one of {_listed(known) or 'none'}; use what task.prefixes names, or name all before training"
            )
        return Asked(prefix, _joined(prefix, source))

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Return the ids of prefix and source with an end token and, for training, target ids with one."""
        encoded: list[Encoded] = [{"source": ids} for ids in with_end(self.tokenizer, [self.asked(example).text for example in examples])]
        if training:
            for one, ids in zip(encoded, with_end(self.tokenizer, [example["target"] for example in examples]), strict=True):
                one["target"] = ids
        return encoded

    @property
    def _cuts(self) -> bool:
        return self.config.long_sources == "cut"

    def fitted(self, encoded: Encoded) -> Encoded | None:
        """Cut a long source, where that was asked for; leave out what is then too long still."""
        return super().fitted(self._cut(encoded) if self._cuts else encoded)

    def _cut(self, encoded: Encoded) -> Encoded:
        source = encoded["source"]
        if source.size(0) <= self.max_length:
            return encoded
        return {**encoded, "source": torch.cat([source[: self.max_length - 1], source[-1:]])}

    @property
    def long_examples(self) -> str:
        """Say what becomes of rows beyond data.max_length."""
        return "sources cut, and left out where the target is too long" if self._cuts else "left out"

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once when it answers."""
        return min(super().n_places(encoded), self.max_length) if self._cuts else super().n_places(encoded)

    @property
    def never(self) -> tuple[int, ...]:
        """The ids that no answer holds; sentinels of heed's own vocabulary among them, which write nothing."""
        return (*super().never, *(self.sentinels if isinstance(self.tokenizer, Tokenizer) else ()))

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer by beam search, or by sampling when the options say so; a source that was cut has {"cut": tokens left out}."""
        n_cut = (batch.mask("source").sum(1) - self.max_length).tolist()
        if not self._cuts or max(n_cut) <= 0:
            return super().predict(model, batch, options)
        rows = zip(batch["source"], batch.mask("source"), strict=True)
        shorter = collate([self._cut({"source": ids[mask]}) for ids, mask in rows])
        answers = super().predict(model, shorter, options)
        return [replace(one, details={"cut": n}) if n > 0 else one for one, n in zip(answers, n_cut, strict=True)]

    def note(self, answer: Answer) -> str | None:
        """Say what of a source was not read."""
        n_cut = answer.details.get("cut")
        return f"{unread('last', n_cut, 'source')}: data.max_length={self.max_length}" if n_cut else None

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that may choose the weights; `accuracy` then is the share of tokens."""
        return self.config.scores

    def metrics(self) -> TextToTextMetrics:
        """Return an empty counter of the scores that were chosen."""
        return TextToTextMetrics(self.config.scores, self.config.target_language)

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add answers; references are cleaned as the training targets were."""
        assert isinstance(metrics, TextToTextMetrics)
        asked = [self.asked(example) for example in examples]
        sources, references = [self.cleaned(one.text) for one in asked], [self.cleaned(example["target"]) for example in examples]
        n_cut = sum("cut" in answer.details for answer in answers)
        metrics.add([one.prefix for one in asked], sources, [answer.text for answer in answers], references, n_cut=n_cut)

    def advice(self, scores: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
        """Say where sources were cut."""
        n_cut = scores.get("sources_cut", 0)
        n = scores.get("n", n_cut)
        told = f"{n_cut:,} of {n:,} sources {were(n_cut)} cut at data.max_length={self.max_length} tokens: try a larger one."
        return [told] if n_cut else []


class Asked(NamedTuple):
    """What the model is asked: a prefix, "" for none, and the source with it in front."""

    prefix: str
    text: str


def _joined(prefix: str, source: str) -> str:
    return f"{prefix} {source}" if prefix else source


def _listed(prefixes: Sequence[str]) -> str:
    more = f" and {len(prefixes) - SHOWN_PREFIXES} more" if len(prefixes) > SHOWN_PREFIXES else ""
    return ", ".join(map(repr, prefixes[:SHOWN_PREFIXES])) + more
