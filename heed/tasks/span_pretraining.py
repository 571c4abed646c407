"""Span pre-training: text_to_text with task.objective=spans, which learns from plain text by writing what was hidden in it.

A text is cut in consecutive windows, whose sides with their end tokens have at most data.max_length tokens. What is hidden in a window of
the validation data is a function of its tokens; in training it is drawn anew in each epoch. Scored are the hidden tokens alone, without the
sentinels between them. A model that was trained so fills gaps: "The <mask> barked".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from heed.config import DecodeConfig
from heed.data.batch import Batch, collate
from heed.data.documents import PIECE_CONTEXTS, divided
from heed.data.masking import FIXED_SEED
from heed.data.parts import Part
from heed.data.rows import Example
from heed.data.spans import Ids, SpanCorruption
from heed.data.store import Encoded
from heed.data.text import Tokenizer
from heed.data.unlabelled import TextSurvey, survey_texts
from heed.decode import Hypothesis
from heed.errors import ConfigError, DataError
from heed.metrics.masked import SCORE_FUNCTIONS, MaskedMetrics
from heed.model.config import ModelConfig
from heed.model.models import Model, Seq2Seq
from heed.tasks.base import Answer, Metrics
from heed.tasks.text_to_text import TextToText

MASK = "<mask>"  # stands for a gap in a text that is to be filled
SHOWN_CHARACTERS = 40  # of a text in a message
WINDOW_TOKENS = 1 << 12  # tokens of windows in the model at once when texts are scored


class SpanPretraining(TextToText):
    """From a text with gaps to what stood there."""

    inputs: ClassVar[dict[str, str]] = {"text": "text"}
    optional: ClassVar[dict[str, str]] = {}
    outputs: ClassVar[dict[str, str]] = {}
    group_names: ClassVar[dict[str, str]] = {"best": "Best foretold", "median": "In the middle", "worst": "Worst foretold"}

    def settle(self, example: Example) -> None:
        """Settle nothing: plain text has no prefixes."""

    @property
    def columns(self) -> dict[str, str]:
        """Return the text."""
        return self.inputs

    def fault(self, example: Example) -> str | None:
        """Find no fault in a text."""
        return None

    def unanswerable(self, example: Example) -> str | None:
        """Say how many gaps a text has, where these are none or too many."""
        text, most = example["text"], len(self.sentinels) - 1
        n_gaps = text.count(MASK)
        fault = f"text {text[:SHOWN_CHARACTERS]!r} has {n_gaps} gaps, expected 1 to {most}; write {MASK} for each"
        return None if 1 <= n_gaps <= most else fault

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> TextSurvey:
        """Count lengths, duplicates and leaks."""
        return survey_texts(examples, others)

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the sub-words."""
        self.parts = dict(self.inherited) or {"tokenizer": self.train_tokenizer(example["text"] for example in examples)}
        return self.parts

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the vocabulary size; raises ConfigError where not even the sides of a single token fit data.max_length."""
        shortest = max(self.corruption.sides(1)) + 1
        if self.max_length < shortest:
            raise ConfigError(
                f"data.max_length={self.max_length} has no room for a hidden token, the sentinels around it and an end; raise it to "
                f"{shortest} at least"
            )
        return super().shape(model)

    @cached_property
    def corruption(self) -> SpanCorruption:
        """What hides stretches."""
        return SpanCorruption(self.sentinels, share=self.config.mask_share, mean_span=self.config.mean_span)

    def divided(self, example: Example) -> Iterator[Example]:
        """Return the documents of a row, and the pieces of long ones, which are held out, learned and scored as examples of their own."""
        return divided(example, PIECE_CONTEXTS * self.max_length, self.config.documents)

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Return the ids of whole texts for training, and of texts with gaps for answering."""
        if training:
            encoded = self.tokenizer.encode_batch([example["text"] for example in examples])
            return [{"text": torch.tensor(ids, dtype=torch.long)} for ids in encoded]
        return [{"source": torch.tensor([*self._with_gaps(example["text"]), self.tokenizer.eos_id])} for example in examples]

    def _with_gaps(self, text: str) -> list[int]:
        """Return the ids of a text with sentinels for its marks."""
        fault = self.unanswerable({"text": text})
        if fault is not None:
            raise DataError(fault)
        first, *rest = text.split(MASK)
        ids = self.tokenizer.encode(first.rstrip())
        for sentinel, piece in zip(self.sentinels, rest, strict=False):
            ids += [sentinel, *self._behind(piece)]
        return ids

    def _behind(self, piece: str) -> list[int]:
        """Return the ids of what stands behind a gap: a mark that follows it directly is no new word."""
        if isinstance(self.tokenizer, Tokenizer) and not piece[:1].isspace():
            return self.tokenizer.encode_inside([piece.rstrip()])[0]
        return self.tokenizer.encode(piece.strip())

    def pieces(self, encoded: Encoded) -> Iterator[Encoded]:
        """Yield the windows of a text, each as a source with gaps and what stood there."""
        for window in self.windows(encoded["text"]):
            yield self._sides(window, np.random.default_rng([FIXED_SEED, crc32(np.ascontiguousarray(window).tobytes())]))

    def windows(self, ids: Tensor) -> list[Ids]:
        """Cut the ids of a text (S,) so that what is made of each fits data.max_length."""
        size = self.corruption.longest_text(self.max_length - 1)
        return [window.numpy() for window in torch.split(ids, size) if window.numel()]

    def _sides(self, ids: Ids, draw: np.random.Generator) -> Encoded:
        end = self.tokenizer.eos_id
        source, target = self.corruption(ids, draw)
        return {"source": torch.tensor([*source, end]), "target": torch.tensor([*target, end])}

    @property
    def augments(self) -> bool:
        """Whether training texts are changed: what is hidden is drawn anew."""
        return True

    def augmented(self, encoded: Encoded, draw: np.random.Generator) -> Encoded:
        """Hide other stretches of a window; its sides keep their lengths."""
        restored = self.corruption.restored(encoded["source"][:-1].tolist(), encoded["target"][:-1].tolist())
        return self._sides(np.array(restored), draw)

    def fitted(self, encoded: Encoded) -> Encoded | None:
        """Leave every text in, for it is read in windows."""
        return encoded

    @property
    def long_examples(self) -> str:
        """Say what becomes of texts beyond data.max_length."""
        return "read in consecutive windows"

    @property
    def never(self) -> tuple[int, ...]:
        """The ids that no answer holds."""
        return super(TextToText, self).never  # sentinels are written here

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Fill the gaps of texts: the answer is the text, with {"fills": [what was written into each gap]}."""
        rows = [ids[mask].tolist()[:-1] for ids, mask in zip(batch["source"], batch.mask("source"), strict=True)]
        found = self.written(model, batch, options)
        return [self._filled(row, hypotheses) for row, hypotheses in zip(rows, found, strict=True)]

    def _filled(self, source: Sequence[int], hypotheses: Sequence[Hypothesis]) -> Answer:
        if not hypotheses:  # no answer of any probability
            return Answer("", 0.0)
        first, *others = [self._filled_once(source, hypothesis) for hypothesis in hypotheses]
        return Answer(first.text, first.score, tuple(others), first.details)

    def _filled_once(self, source: Sequence[int], hypothesis: Hypothesis) -> Answer:
        gaps = [token for token in source if token in self.sentinels]
        fills = [self.corruption.restored([gap], hypothesis.ids) for gap in gaps]
        text = self.tokenizer.decode(self.corruption.restored(source, hypothesis.ids))
        return Answer(text, hypothesis.score, details={"fills": [text.strip() for text in self.tokenizer.decode_batch(fills)]})

    def note(self, answer: Answer) -> str | None:
        """Say nothing of an answer."""
        return None

    def answer_length(self, answer: Answer) -> int:
        """Return how many sub-words a filled text has, or how many hidden ones were scored."""
        n_hidden = answer.details.get("hidden")
        return super().answer_length(answer) if n_hidden is None else int(n_hidden)

    def pictures(self, model: Model, example: Example, answer: Answer) -> dict[str, Any] | None:
        """Draw nothing."""
        return None

    @property
    def examiner(self) -> "HiddenTokens":
        """The same task, but its answers say how well hidden tokens are foretold."""
        return HiddenTokens(self.config, self.parts, label_smoothing=self.label_smoothing, max_length=self.max_length)

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that may choose the weights."""
        return list(SCORE_FUNCTIONS)

    def metrics(self) -> MaskedMetrics:  # type: ignore[override]
        """Return an empty counter of accuracy and perplexity."""
        return MaskedMetrics()

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add how well hidden tokens were foretold, as the examiner answered; raises DataError for answers that fill gaps."""
        assert isinstance(metrics, MaskedMetrics)
        if any("hidden" not in answer.details for answer in answers):
            raise DataError("span pre-training is scored by what it foretells, not by gaps it fills; score it with heed evaluate")
        right, log_p, hidden = ([answer.details[name] for answer in answers] for name in ("right", "log_likelihood", "hidden"))
        metrics.add(right, log_p, hidden)

    def advice(self, scores: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
        """Give none."""
        return []


class HiddenTokens(SpanPretraining):
    """Says how well the hidden tokens of texts are foretold, each given those before it; what is hidden is a function of the text."""

    reads: frozenset[str] = frozenset()

    def unanswerable(self, example: Example) -> str | None:
        """Say nothing: texts need no gaps."""
        return None

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Return the ids of whole texts."""
        return super().encode_all(examples, training=True)

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once."""
        return min(encoded["text"].size(0), self.max_length)

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer with {"right", "log_likelihood", "hidden"}: tokens foretold right, log p (natural) of all, and how many they are."""
        assert isinstance(model, Seq2Seq)
        texts = [ids[mask].cpu() for ids, mask in zip(batch["text"], batch.mask("text"), strict=True)]
        windows = [(row, sides) for row, ids in enumerate(texts) for sides in self.pieces({"text": ids})]
        sums = np.zeros((len(texts), 3))
        at_once = max(1, WINDOW_TOKENS // self.max_length)
        for start in range(0, len(windows), at_once):
            rows, sides = zip(*windows[start : start + at_once], strict=True)
            np.add.at(sums, list(rows), self._foretold(model, collate(sides).to(batch["text"].device)))
        return [
            Answer("", log_p / max(1, hidden), details={"right": int(right), "log_likelihood": log_p, "hidden": int(hidden)})
            for right, log_p, hidden in sums.tolist()
        ]

    def _foretold(self, model: Seq2Seq, batch: Batch) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return tokens foretold right, log p and hidden tokens of each window (N, 3)."""
        target, mask = batch["target"], batch.mask("target")
        hidden = mask & ~torch.isin(target, torch.tensor([self.tokenizer.eos_id, *self.sentinels], device=target.device))
        vectors = model.hidden(batch["source"], batch.mask("source"), self.shifted(target))[hidden]  # (N, T, D) -> (n, D)
        log_p = model.head(vectors).float().log_softmax(-1)
        wanted = target[hidden]
        found = torch.stack([log_p.argmax(-1) == wanted, log_p.gather(-1, wanted[:, None])[:, 0], torch.ones_like(wanted)], dim=1)
        rows = hidden.nonzero()[:, 0]
        return torch.zeros(len(target), 3, dtype=torch.float64, device=target.device).index_add_(0, rows, found.double()).cpu().numpy()
