"""Translation: a sentence in, the same sentence in another language out (summaries and other rewriting work alike)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch
from heed.data.parts import Part
from heed.data.quality import survey_pairs
from heed.data.read import Example
from heed.data.store import Encoded
from heed.data.text import Tokenizer, clean
from heed.decode import Hypothesis, generate
from heed.errors import ConfigError
from heed.metrics import SCORE_FUNCTIONS, TranslationMetrics
from heed.model.attention import record_attention
from heed.model.config import ModelConfig
from heed.model.losses import LossSum, vocabulary_loss
from heed.model.models import Model, Seq2Seq
from heed.tasks.base import Answer, Metrics, Survey, Task


class TranslationSettings(Settings):
    """What is particular to translation."""

    vocab_size: int = Field(default=8000, ge=300, description="sub-words to learn (for each side when separate)")
    vocab: Literal["joint", "separate"] = Field(default="joint", description="one vocabulary for both languages, or one each")
    algorithm: Literal["bpe", "unigram"] = Field(default="bpe", description="how sub-words are learned")
    cleaning: bool = Field(default=True, description="remove HTML and control characters, fold white space, NFC")
    target_language: str | None = Field(
        default=None, description="code such as de or zh, for scoring; found from the references when absent"
    )


class Translation(Task):
    """Sequence to sequence, from text to text."""

    name: ClassVar[str] = "translation"
    inputs: ClassVar[dict[str, str]] = {"source": "text"}
    outputs: ClassVar[dict[str, str]] = {"target": "text"}
    architecture: ClassVar[str] = "seq2seq"
    settings: ClassVar[type[Settings]] = TranslationSettings
    config: TranslationSettings

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the sub-words of both languages."""
        if self.config.vocab == "joint":
            texts = (text for example in examples for text in (example["source"], example["target"]))
            self.parts = {"tokenizer": self._train(texts)}
        else:
            self.parts = {f"{side}_tokenizer": self._train(example[side] for example in examples) for side in ("source", "target")}
        return self.parts

    def _train(self, texts: Iterable[str]) -> Tokenizer:
        return Tokenizer.train(texts, algorithm=self.config.algorithm, vocab_size=self.config.vocab_size, cleaning=self.config.cleaning)

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
        if model.architecture != "seq2seq":
            raise ConfigError(f"model.architecture: translation needs seq2seq, found {model.architecture}")
        source_size = None if self.config.vocab == "joint" else self.source_tokenizer.vocab_size
        return model.replace(vocab_size=self.target_tokenizer.vocab_size, source_vocab_size=source_size)

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> Survey:
        """Count empty sides, copies, duplicates, odd length ratios and leaks."""
        return survey_pairs(examples, other_splits=others)

    def encode(self, example: Example, training: bool = False) -> Encoded:
        """Return source ids with an end token and, for training, target ids with one."""
        return self.encode_all([example], training)[0]

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Encode many pairs at once."""
        encoded = [{"source": ids} for ids in _with_end(self.source_tokenizer, [example["source"] for example in examples])]
        if training:
            targets = _with_end(self.target_tokenizer, [example["target"] for example in examples])
            for pair, ids in zip(encoded, targets, strict=True):
                pair["target"] = ids
        return encoded

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the smoothed cross-entropy of every target token given those before it."""
        assert isinstance(model, Seq2Seq)
        target = batch["target"]
        hidden = model.hidden(batch["source"], batch.mask("source"), _shifted(target))
        smoothing = self.label_smoothing if model.training else 0.0
        return vocabulary_loss(hidden, model.head.weight, target, smoothing=smoothing, ignore=Tokenizer.pad_id)

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Translate by beam search, or by sampling when the options say so."""
        assert isinstance(model, Seq2Seq)
        source, mask = batch["source"], batch.mask("source")
        n_tokens = mask.sum(1).tolist()
        prefix = source.new_full((len(batch), 1), Tokenizer.bos_id)
        never = (Tokenizer.pad_id, Tokenizer.bos_id, Tokenizer.unk_id)
        room = model.config.max_length if model.config.positions == "learned" else options.max_length
        limits = [min(room, longest_answer(n)) for n in n_tokens]
        found = generate(model, source, mask, prefix, end=Tokenizer.eos_id, options=options, limits=limits, never=never)
        return [self._answer(best, empty=n <= 1) for best, n in zip(found, n_tokens, strict=True)]

    def _answer(self, hypotheses: Sequence[Hypothesis], *, empty: bool) -> Answer:
        if empty or not hypotheses:  # nothing but the end token to translate, or no answer of any probability
            return Answer("", 0.0)
        texts = self.target_tokenizer.decode_batch([hypothesis.ids for hypothesis in hypotheses])
        first, *others = [Answer(text, hypothesis.score) for text, hypothesis in zip(texts, hypotheses, strict=True)]
        return Answer(first.text, first.score, tuple(others))

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
        sources, references = ([self._cleaned(example[side]) for example in examples] for side in ("source", "target"))
        metrics.add(sources, [answer.text for answer in answers], references)

    def _cleaned(self, text: str) -> str:
        return clean(text) if self.config.cleaning else text

    def answer_length(self, answer: Answer) -> int:
        """Return how many sub-words a translation has."""
        return len(self.target_tokenizer.encode(answer.text))

    def pictures(self, model: Model, example: Example, answer: Answer) -> dict[str, Any] | None:
        """Return the alignment of one translation: cross-attention of the last decoder block, averaged over heads."""
        assert isinstance(model, Seq2Seq)
        source = self.encode(example)["source"]
        target = torch.tensor([*self.target_tokenizer.encode(answer.text), Tokenizer.eos_id])
        if model.config.positions == "learned" and target.numel() > model.config.max_length:
            return None  # broken characters of an answer can take more tokens to write down than they had
        with torch.inference_mode(), record_attention(model) as weights:
            device = model.head.weight.device
            model(source[None].to(device), None, _shifted(target[None]).to(device))
        last = max((name for name in weights if "cross" in name), key=lambda name: (len(name), name))
        return {
            "source": [self.source_tokenizer.token(i) for i in source.tolist()],
            "target": [self.target_tokenizer.token(i) for i in target.tolist()],
            "weights": [[round(w, 4) for w in row] for row in weights[last][0][0].mean(0).tolist()],  # (B, H, T, S) -> (T, S)
        }


def longest_answer(n_source: int) -> int:
    """Return how many tokens an answer to a source of `n_source` tokens may have: room for any pair of languages, not for loops."""
    return 2 * n_source + 20


def _with_end(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tensor]:
    return [torch.tensor([*ids, Tokenizer.eos_id]) for ids in tokenizer.encode_batch(texts)]


def _shifted(target: Tensor) -> Tensor:
    """Return what the decoder reads: the begin token, then the target but its last token; (B, T) -> (B, T)."""
    return torch.cat([target.new_full((target.size(0), 1), Tokenizer.bos_id), target[:, :-1]], dim=1)
