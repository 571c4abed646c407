"""Translation: a sentence in, the same sentence in another language out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Literal, cast

from pydantic import Field

from heed.config import Settings
from heed.data.parts import Part
from heed.data.quality import survey_pairs
from heed.data.rows import Example
from heed.data.store import Encoded
from heed.data.text import Tokenizer
from heed.metrics import SCORE_FUNCTIONS, TranslationMetrics
from heed.model.config import ModelConfig
from heed.tasks.base import Answer, Metrics, Survey
from heed.tasks.rewriting import Rewriting, RewritingSettings, with_end


class TranslationSettings(RewritingSettings):
    """What is particular to translation."""

    vocab: Literal["joint", "separate"] = Field(default="joint", description="one vocabulary for both languages, or one each")


class Translation(Rewriting):
    """From a sentence to the same in another language."""

    name: ClassVar[str] = "translation"
    settings: ClassVar[type[Settings]] = TranslationSettings
    heirlooms: ClassVar[tuple[str, ...]] = ("tokenizer", "source_tokenizer", "target_tokenizer")
    cutting: ClassVar[tuple[str, ...]] = ("vocab_size", "vocab", "algorithm", "cleaning")
    config: TranslationSettings

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the sub-words of both languages."""
        if self.inherited:
            self.parts = dict(self.inherited)
        elif self.config.vocab == "joint":
            texts = (text for example in examples for text in (example["source"], example["target"]))
            self.parts = {"tokenizer": self.train_tokenizer(texts)}
        else:
            self.parts = {f"{side}_tokenizer": self.train_tokenizer(example[side] for example in examples) for side in ("source", "target")}
        return self.parts

    @property
    def source_tokenizer(self) -> Tokenizer:
        """Sub-words of the source language."""
        return cast(Tokenizer, self.parts.get("source_tokenizer") or self.parts["tokenizer"])

    @property
    def target_tokenizer(self) -> Tokenizer:
        """Sub-words of the target language."""
        return cast(Tokenizer, self.parts.get("target_tokenizer") or self.parts["tokenizer"])

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the vocabulary sizes."""
        self.check_architecture(model)
        source_size = None if self.config.vocab == "joint" else self.source_tokenizer.vocab_size
        target = self.target_tokenizer
        return model.replace(vocab_size=target.vocab_size, source_vocab_size=source_size, absent_ids=target.absent)

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> Survey:
        """Count empty sides, copies, duplicates, odd length ratios and leaks."""
        return survey_pairs(examples, other_splits=others)

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Return source ids with an end token and, for training, target ids with one."""
        encoded = [{"source": ids} for ids in with_end(self.source_tokenizer, [example["source"] for example in examples])]
        if training:
            targets = with_end(self.target_tokenizer, [example["target"] for example in examples])
            for pair, ids in zip(encoded, targets, strict=True):
                pair["target"] = ids
        return encoded

    def longest_answer(self, n_source: int, most: int) -> int:
        """Return how many of at most `most` tokens a translation of `n_source` tokens may have."""
        return min(most, longest_translation(n_source))

    def metrics(self) -> TranslationMetrics:
        """Return an empty counter of BLEU and its companions."""
        return TranslationMetrics(self.config.target_language)

    @property
    def score_names(self) -> Sequence[str]:
        """The scores of translations."""
        return list(SCORE_FUNCTIONS)

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add translations; references are cleaned as the training targets were."""
        assert isinstance(metrics, TranslationMetrics)
        sources, references = ([self.cleaned(example[side]) for example in examples] for side in ("source", "target"))
        metrics.add(sources, [answer.text for answer in answers], references)


def longest_translation(n_source: int) -> int:
    """Return how many tokens a translation of a source of `n_source` tokens may have: room for any pair of languages, not for loops."""
    return 2 * n_source + 20
