"""Rewriting: what the tasks share that read one text and write another, with an encoder and a decoder."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch
from heed.data.foreign import ForeignTokenizer
from heed.data.pieces import PieceTokenizer
from heed.data.rows import Example
from heed.data.text import Tokenizer, clean
from heed.decode import Hypothesis, generate
from heed.errors import ConfigError
from heed.model.attention import record_attention
from heed.model.config import ModelConfig
from heed.model.losses import LossSum, vocabulary_loss
from heed.model.models import Model, Seq2Seq
from heed.tasks.base import WRITING, Answer, Task

TextTokenizer = Tokenizer | ForeignTokenizer | PieceTokenizer


class RewritingSettings(Settings):
    """How both texts are cut, and what language answers are in."""

    vocab_size: int = Field(default=8000, ge=300, description="sub-words to learn (for each side when separate)")
    algorithm: Literal["bpe", "unigram"] = Field(default="bpe", description="how sub-words are learned")
    cleaning: bool = Field(default=True, description="remove HTML and control characters, fold white space, NFC")
    target_language: str | None = Field(
        default=None, description="code such as de or zh, for scoring; found from the references when absent"
    )


class Rewriting(Task):
    """From a text to another."""

    inputs: ClassVar[dict[str, str]] = {"source": "text"}
    outputs: ClassVar[dict[str, str]] = {"target": "text"}
    architecture: ClassVar[str] = "seq2seq"
    reads: frozenset[str] = WRITING
    config: RewritingSettings

    @property
    @abstractmethod
    def source_tokenizer(self) -> TextTokenizer:
        """What cuts the text that is read."""

    @property
    @abstractmethod
    def target_tokenizer(self) -> TextTokenizer:
        """What cuts the text that is written."""

    def train_tokenizer(self, texts: Iterable[str]) -> Tokenizer:
        """Learn the sub-words of texts."""
        return Tokenizer.train(texts, algorithm=self.config.algorithm, vocab_size=self.config.vocab_size, cleaning=self.config.cleaning)

    def check_architecture(self, model: ModelConfig) -> None:
        """Raise ConfigError unless the model reads with an encoder and writes with a decoder."""
        if model.architecture != "seq2seq":
            raise ConfigError(f"model.architecture: {self.name.replace('_', ' ')} needs seq2seq, found {model.architecture}")

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the smoothed cross-entropy of every target token given those before it."""
        assert isinstance(model, Seq2Seq)
        target = batch["target"]
        hidden = model.hidden(batch["source"], batch.mask("source"), self.shifted(target))
        smoothing = self.label_smoothing if model.training else 0.0
        head = model.head
        return vocabulary_loss(
            hidden, head.weight, target, bias=head.bias, absent=head.absent, smoothing=smoothing, ignore=Tokenizer.pad_id
        )

    def shifted(self, target: Tensor) -> Tensor:
        """Return what the decoder reads: the begin token, then the target but its last token; (B, T) -> (B, T)."""
        return torch.cat([target.new_full((target.size(0), 1), self.target_tokenizer.bos_id), target[:, :-1]], dim=1)

    @property
    def never(self) -> tuple[int, ...]:
        """The ids that no answer holds."""
        tokenizer = self.target_tokenizer
        return tokenizer.pad_id, tokenizer.bos_id, tokenizer.unk_id

    def longest_answer(self, n_source: int, most: int) -> int:
        """Return how many of at most `most` tokens an answer to a source of `n_source` tokens may have."""
        return most

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer by beam search, or by sampling when the options say so."""
        n_tokens = batch.mask("source").sum(1).tolist()
        found = self.written(model, batch, options)
        return [self._answer(best, empty=n <= 1) for best, n in zip(found, n_tokens, strict=True)]

    def written(self, model: Model, batch: Batch, options: DecodeConfig) -> list[list[Hypothesis]]:
        """Return the ids of the best answers to every source."""
        assert isinstance(model, Seq2Seq)
        source, mask = batch["source"], batch.mask("source")
        tokenizer = self.target_tokenizer
        prefix = source.new_full((len(batch), 1), tokenizer.bos_id)
        room = model.config.max_length if model.config.positions == "learned" else options.max_length
        limits = [self.longest_answer(n, room) for n in mask.sum(1).tolist()]
        return generate(model, source, mask, prefix, end=tokenizer.eos_id, options=options, limits=limits, never=self.never)

    def _answer(self, hypotheses: Sequence[Hypothesis], *, empty: bool) -> Answer:
        if empty or not hypotheses:  # nothing but the end token to rewrite, or no answer of any probability
            return Answer("", 0.0)
        texts = self.target_tokenizer.decode_batch([hypothesis.ids for hypothesis in hypotheses])
        first, *others = [Answer(text, hypothesis.score) for text, hypothesis in zip(texts, hypotheses, strict=True)]
        return Answer(first.text, first.score, tuple(others))

    def cleaned(self, text: str) -> str:
        """Return a reference as the training targets were."""
        return clean(text) if self.config.cleaning else text

    def answer_length(self, answer: Answer) -> int:
        """Return how many sub-words an answer has."""
        return len(self.target_tokenizer.encode(answer.text))

    def pictures(self, model: Model, example: Example, answer: Answer) -> dict[str, Any] | None:
        """Return the alignment of one answer: cross-attention of the last decoder block, averaged over heads."""
        assert isinstance(model, Seq2Seq)
        source = self.encode(example)["source"]
        target = torch.tensor([*self.target_tokenizer.encode(answer.text), self.target_tokenizer.eos_id])
        if model.config.positions == "learned" and target.numel() > model.config.max_length:
            return None  # broken characters of an answer can take more tokens to write down than they had
        with torch.inference_mode(), record_attention(model) as weights:
            device = model.head.weight.device
            model(source[None].to(device), None, self.shifted(target[None]).to(device))
        last = max((name for name in weights if "cross" in name), key=lambda name: (len(name), name))
        return {
            "source": [self.source_tokenizer.token(i) for i in source.tolist()],
            "target": [self.target_tokenizer.token(i) for i in target.tolist()],
            "weights": [[round(w, 4) for w in row] for row in weights[last][0][0].mean(0).tolist()],  # (B, H, T, S) -> (T, S)
        }


def with_end(tokenizer: TextTokenizer, texts: Sequence[str]) -> list[Tensor]:
    """Return the ids of each text and an end token behind them."""
    return [torch.tensor([*ids, tokenizer.eos_id]) for ids in tokenizer.encode_batch(texts)]
