"""Question answering: the part of a context that answers a question, or that none does (extractive; Devlin et al. 2019, section 4.2).

An encoder reads `begin question END context` and says of every place of the context how likely the answer starts and ends there. A context
that does not fit into data.max_length tokens is read in windows, each behind the question, which overlap by task.overlap. The begin token
stands for "not here": a window learns it where the answer is not wholly inside, or where there is none. The answer is the likeliest part
over all windows, as exactly the characters of the context; how likely none is, is told by the window that is surest of one.

Where training holds questions without an answer, none is given when its log p leads that of the likeliest part by more than a threshold,
which is fitted on the validation data for the highest F1 and saved with the run.

Left out: answers of several parts, yes and no, and numbers that stand nowhere in the context.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch
from heed.data.calibration import NoAnswer
from heed.data.excerpts import as_code_points, excerpt
from heed.data.foreign import ForeignTokenizer
from heed.data.parts import Part
from heed.data.quality import row_hash
from heed.data.questions import QuestionSurvey, survey_questions
from heed.data.rows import Example
from heed.data.squad import ANSWER, START, answers_fault
from heed.data.store import Encoded
from heed.data.text import Tokenizer, cleans
from heed.errors import ConfigError
from heed.metrics.answers import SCORES, AnswerMetrics
from heed.model.config import ModelConfig
from heed.model.losses import LossSum, place_loss
from heed.model.models import Encoder, Model
from heed.model.spans import best_spans
from heed.model.windows import Windows, cut_behind, in_parts, starts_of
from heed.tasks.base import RANKING, Answer, Metrics, Task
from heed.terminal import unread

USUAL_LENGTH = 384  # tokens of a window (Devlin et al. 2019)
USUAL_OVERLAP = 128
LOOKED_AT = 2000  # validation questions whose answers are compared with the borders of sub-words
NOWHERE = 0  # the place of the begin token, which stands for no answer
ALIKE = 20  # spans of tokens that may quote the same characters: one has up to four bytes at either end, and white space does not count


class QuestionAnsweringSettings(Settings):
    """What is particular to question answering."""

    vocab_size: int = Field(default=16000, ge=300, description="sub-words to learn")
    algorithm: Literal["bpe", "unigram"] = Field(default="bpe", description="how sub-words are learned")
    overlap: int | None = Field(
        default=None,
        ge=0,
        description=f"tokens of a long context that neighbouring windows share; default {USUAL_OVERLAP}, less where windows are short",
    )
    max_answer_tokens: int = Field(default=30, ge=1, description="longest answer")


class Context(NamedTuple):
    """A context: its ids, where the characters of each start and end (C, 2), and its code points (L, 16)."""

    ids: list[int]
    spans: npt.NDArray[np.int64]
    characters: Tensor


class Found(NamedTuple):
    """A part of a context as an answer: its log p, its text, and from which to which character it stands."""

    log_p: float
    text: str
    start: int
    end: int


class Judged(NamedTuple):
    """What a window says: its best spans as log p with the first and last token of the context, and the log p of no answer."""

    spans: list[tuple[float, int, int]]
    nowhere: float


class QuestionAnswering(Task):
    """From a question and a context to the part of the context that answers it."""

    name: ClassVar[str] = "question_answering"
    inputs: ClassVar[dict[str, str]] = {"question": "text", "context": "text"}
    outputs: ClassVar[dict[str, str]] = {"answers": "answers"}
    noticed: ClassVar[tuple[str, ...]] = (ANSWER, START, "title")
    architecture: ClassVar[str] = "encoder"
    counts_framing: ClassVar[bool] = True
    counts_tokens: ClassVar[bool] = False
    undivided: ClassVar[tuple[str, str]] = ("article or context", "articles or contexts")
    reads: frozenset[str] = RANKING
    settings: ClassVar[type[Settings]] = QuestionAnsweringSettings
    cutting: ClassVar[tuple[str, ...]] = ("vocab_size", "algorithm")
    group_names: ClassVar[dict[str, str]] = {"best": "Best answered", "median": "In the middle", "worst": "Most confidently wrong"}
    config: QuestionAnsweringSettings
    n_cut = 0  # questions of the training data that are longer than half a window

    @classmethod
    def usual(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what holds where nobody says otherwise: long windows, vectors that tell question from context, no smoothing."""
        model = {"architecture": cls.architecture, "n_segments": 2}
        return {"model": model, "data": {"max_length": USUAL_LENGTH}, "train": {"label_smoothing": 0.0}}

    def fault(self, example: Example) -> str | None:
        """Say which answer does not stand in the context where it should."""
        return answers_fault(example)

    def together(self, example: Example) -> str:
        """Return the article's title, or the context where there is none: other questions about either are no fair test."""
        title = example.get("title")
        return title if isinstance(title, str) and title.strip() else str(example["context"])

    def inherit(self, other: Task) -> None:
        """Take over a tokenizer; raises ConfigError for one that cleans texts, for answers are quoted from contexts as they stand."""
        super().inherit(other)
        if cleans(self.inherited["tokenizer"]):
            raise ConfigError(
                f"init: the tokenizer of a {other.name} run cleans texts, so that answers could not be quoted; start from another"
            )

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> QuestionSurvey:
        """Count lengths, questions without an answer, duplicates, and contexts that stand in two splits."""
        return survey_questions(examples, others)

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the sub-words, unless they are inherited, and whether there are questions without an answer."""
        self.parts = dict(self.inherited)
        if "tokenizer" not in self.parts:
            texts = (text for _, rows in groupby(examples, lambda example: example["context"]) for text in _texts(rows))
            learned = Tokenizer.train(texts, algorithm=self.config.algorithm, vocab_size=self.config.vocab_size, cleaning=False, apart=True)
            self.parts["tokenizer"] = learned
        questions = [example["question"] for example in examples]
        self.n_cut = sum(len(ids) > self._longest_question for ids in self.tokenizer.encode_batch(questions))
        if any(not example["answers"] for example in examples):
            self.parts["no_answer"] = NoAnswer()
        return self.parts

    @property
    def tokenizer(self) -> Tokenizer | ForeignTokenizer:
        """What cuts questions and contexts."""
        return cast(Tokenizer | ForeignTokenizer, self.parts["tokenizer"])

    @property
    def no_answer(self) -> NoAnswer | None:
        """When a question is given no answer; None where each has one."""
        return cast(NoAnswer | None, self.parts.get("no_answer"))

    @property
    def _tail(self) -> int:
        """End tokens behind a context."""
        return int(self.tokenizer.ends_texts)

    @property
    def _longest_question(self) -> int:
        """Tokens of a question that are read: it has half a window at most."""
        return self.max_length // 2

    @property
    def _room(self) -> int:
        """Tokens of the context in a window behind the longest question."""
        return self.max_length - self._longest_question - 1 - self.tokenizer.separators - self._tail

    @property
    def overlap(self) -> int:
        """Tokens that neighbouring windows share: those of task.overlap, or what is usual, but at most half of the shortest window."""
        usual = USUAL_OVERLAP if self._room > USUAL_OVERLAP else self._room // 2
        return usual if self.config.overlap is None else self.config.overlap

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return the size of the vocabulary, and warn of questions that are cut and of answers that cannot be quoted."""
        warnings = []
        if self.n_cut:
            questions = "1 question has" if self.n_cut == 1 else f"{self.n_cut:,} questions have"
            most = f"{self._longest_question} tokens, half of data.max_length"
            warnings.append(f"{questions} more than {most}: the rest is not read unless data.max_length is raised")
        looked_at = [example for example in islice(valid, LOOKED_AT) if example["answers"]]
        if n_inside := self._n_inside(looked_at):
            warnings.append(
                f"of {len(looked_at):,} validation answers {n_inside:,} begin or end inside a sub-word, and cannot be given exactly; "
                "sub-words that are learned here, without init, keep the characters of scripts without spaces apart"
            )
        return {"vocabulary": {"size": self.tokenizer.vocab_size}} | ({"warnings": warnings} if warnings else {})

    def _n_inside(self, examples: Sequence[Example]) -> int:
        """Count the examples whose answer begins or ends inside a token of their context."""
        borders = {
            text: (set(context.spans[:, 0].tolist()), set(context.spans[:, 1].tolist()))
            for text, context in self._contexts([example["context"] for example in examples]).items()
        }
        places = ((borders[example["context"]], _learned(example["answers"])) for example in examples)
        return sum(start not in starts or end not in ends for (starts, ends), (start, end) in places)

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the sizes of the vocabulary and of the head, which scores each place as the first and as the last of the answer."""
        if model.architecture != "encoder" or model.hierarchical:
            found = "model.hierarchical=true" if model.hierarchical else f"model.architecture={model.architecture}"
            raise ConfigError(f"{found}: question answering needs a plain encoder; leave it out")
        if self.overlap >= self._room:
            raise ConfigError(
                f"task.overlap={self.overlap} does not fit data.max_length={self.max_length}: behind a long question a window has "
                f"room for {self._room} tokens of the context; lower the one or raise the other"
            )
        return model.replace(vocab_size=self.tokenizer.vocab_size, n_tags=2, n_classes=None, masked_lm=False)

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Encode many examples at once, each of their contexts once.

        `text` are the ids (S,), `context` is where those of the context start (), `cut` how many tokens of the question are left out (),
        `spans` where the characters of each token of the context start and end (C, 2), `characters` its code points (L, 16), and `answers`
        the places of the answer's first and last token (1, 2): those of the begin token for none, -1 where no token stands for it.
        """
        contexts = self._contexts([example["context"] for example in examples])
        questions = self.tokenizer.encode_batch([example["question"] for example in examples])
        encoded = []
        for example, question in zip(examples, questions, strict=True):
            context = contexts[example["context"]]
            one = self._joined(question, context)
            if training:
                one["answers"] = torch.tensor([_place_of(example["answers"], context.spans, int(one["context"]))])
            encoded.append(one)
        return encoded

    def _contexts(self, texts: Iterable[str]) -> dict[str, Context]:
        different = list(dict.fromkeys(texts))
        found = self.tokenizer.with_places(different)
        return {
            text: Context(ids, np.array(places, dtype=np.int64).reshape(-1, 2), as_code_points(text))
            for text, (ids, places) in zip(different, found, strict=True)
        }

    def _joined(self, question: list[int], context: Context) -> Encoded:
        """Put a question before its context."""
        begin, end = self.tokenizer.bos_id, self.tokenizer.eos_id
        head = [begin, *question[: self._longest_question], *[end] * self.tokenizer.separators]
        return {
            "text": torch.tensor([*head, *context.ids, *[end] * self._tail], dtype=torch.long),
            "context": torch.tensor(len(head)),
            "cut": torch.tensor(max(0, len(question) - self._longest_question)),
            "spans": torch.from_numpy(context.spans),
            "characters": context.characters,
        }

    def pieces(self, encoded: Encoded) -> Iterator[Encoded]:
        """Yield the windows of an example, each with the places of the answer in it; those without it learn the begin token."""
        text, head = encoded["text"], int(encoded["context"])
        first, last = encoded["answers"][0].tolist()
        if first < 0:
            return
        size, end = self.max_length - head - self._tail, text.size(0) - self._tail
        for start in starts_of(end - head, size, self.overlap):
            inside = head + start <= first and last < head + start + size
            yield {
                "text": torch.cat([text[:head], text[head + start : min(end, head + start + size)], text[end:]]),
                "context": encoded["context"],
                "answers": torch.tensor([[first - start, last - start] if inside else [NOWHERE, NOWHERE]]),
            }

    @property
    def long_examples(self) -> str:
        """Say what becomes of contexts beyond data.max_length."""
        return "read in windows"

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once."""
        return min(encoded["text"].size(0), self.max_length)

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the cross-entropy of the first and of the last place, over the places of the context and that of the begin token."""
        assert isinstance(model, Encoder)
        mask = batch.mask("text")
        logits = model.tag_logits(batch["text"], mask)
        allowed = self._in_context(mask, batch["context"])
        allowed[:, NOWHERE] = True
        smoothing = self.label_smoothing if model.training else 0.0
        first, last = (place_loss(logits[..., i], allowed, batch["answers"][:, 0, i], smoothing=smoothing) for i in range(2))
        return LossSum(first.total + last.total, first.units + last.units, first.right + last.right)

    def _in_context(self, mask: Tensor, heads: Tensor) -> Tensor:
        """Return which places are of the context (N, W), given which are real (N, W) and how many stand before it (N,)."""
        place = torch.arange(mask.size(1), device=mask.device)
        return (place >= heads[:, None]) & (place < mask.sum(1, keepdim=True) - self._tail)

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer with the likeliest part of each context."""
        assert isinstance(model, Encoder)
        ids, heads = batch["text"], batch["context"]
        windows = cut_behind(ids, batch.mask("text"), heads, size=self.max_length, overlap=self.overlap, tail=self._tail)
        judged = [one for part in in_parts(windows) for one in self._judged(model, part, heads[part.rows], ALIKE * options.n_best)]
        n_windows = torch.bincount(windows.rows, minlength=len(batch)).tolist()
        cut, spans, characters = batch["cut"].tolist(), batch["spans"].cpu(), batch["characters"].cpu()
        answers, at = [], 0
        for row, n in enumerate(n_windows):
            mine, at = judged[at : at + n], at + n
            found = _quoted((one for window in mine for one in window.spans), spans[row], characters[row], options.n_best)
            way = ({"windows": n} if n > 1 else {}) | ({"cut": cut[row]} if cut[row] else {})
            answers.append(self._answer(found, min(window.nowhere for window in mine), way, options.n_best))
        return answers

    def _judged(self, model: Encoder, windows: Windows, heads: Tensor, n_best: int) -> list[Judged]:
        """Find the best spans of each window, given how many tokens stand before the context (N,)."""
        logits = model.tag_logits(windows.ids, windows.mask).double()
        context = self._in_context(windows.mask, heads)
        allowed = context.clone()
        allowed[:, NOWHERE] = True
        log_p = logits.masked_fill(~allowed[..., None], torch.finfo(torch.float32).min).log_softmax(1)
        best = best_spans(log_p, context, longest=self.config.max_answer_tokens, n_best=n_best)
        firsts, lasts = (windows.places.gather(1, places.clamp(max=log_p.size(1) - 1)) - heads[:, None] for places in best[1:])
        rows = zip(best.log_p.tolist(), firsts.tolist(), lasts.tolist(), log_p[:, NOWHERE].sum(-1).tolist(), strict=True)
        return [Judged([one for one in zip(*spans, strict=True) if math.isfinite(one[0])], nowhere) for *spans, nowhere in rows]

    def _answer(self, found: Sequence[Found], nowhere: float, way: Mapping[str, int], n_best: int) -> Answer:
        """Answer with the best of what was found, or with nothing, given the log p of that; runners-up make it n_best answers."""
        none = {"no_answer": math.exp(nowhere), **way}
        if not found:
            return Answer("", math.exp(nowhere), details=none)
        best, *others = (Answer(one.text, math.exp(one.log_p), details={"start": one.start, "end": one.end}) for one in found)
        none["no_answer_lead"] = nowhere - found[0].log_p
        if self.no_answer is not None and none["no_answer_lead"] > self.no_answer.threshold:
            return Answer("", math.exp(nowhere), (best, *others)[: n_best - 1], {"abstained": True, "likeliest": best.text, **none})
        return Answer(best.text, best.score, tuple(others), {**best.details, **none})

    def metrics(self) -> AnswerMetrics:
        """Return an empty counter of scores."""
        return AnswerMetrics()

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that all data have."""
        return SCORES

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add answers with the texts that were right."""
        assert isinstance(metrics, AnswerMetrics)
        for answer, example in zip(answers, examples, strict=True):
            metrics.add(
                answer.text,
                [one["text"] for one in example["answers"]],
                context=row_hash(example["context"]),
                likeliest=answer.details.get("likeliest"),
                lead=answer.details.get("no_answer_lead", math.inf),
                sure=answer.score or 0.0,
            )

    @property
    def calibrates(self) -> bool:
        """Whether some questions may be given no answer."""
        return self.no_answer is not None

    def calibrate(self, metrics: Metrics) -> None:
        """Fit the threshold, where the validation data hold questions without an answer."""
        assert isinstance(metrics, AnswerMetrics)
        if metrics.n_without_answer:
            self.parts["no_answer"] = NoAnswer(metrics.best_threshold())

    def answer_length(self, answer: Answer) -> int:
        """Return 1: an answer is a place in the context."""
        return 1

    def mistakes(self, metrics: Metrics) -> npt.NDArray[np.intp]:
        """Return which answers share nothing with a right one, the most confident first."""
        assert isinstance(metrics, AnswerMetrics)
        return metrics.mistakes()

    def memory_advice(self, length: int) -> str:
        """Say what makes a training example smaller: a smaller window."""
        return f"read smaller windows (data.max_length={min(length, self.max_length) // 2})"

    def note(self, answer: Answer) -> str | None:
        """Say that a question was cut, or that no answer was given."""
        if n_cut := answer.details.get("cut"):
            return f"{unread('last', n_cut, 'question')}; ask in fewer words"
        return f"no answer; the likeliest part would be {answer.details['likeliest']!r}" if "abstained" in answer.details else None


def _texts(rows: Iterator[Example]) -> Iterator[str]:
    """Yield the context that rows share, and their questions."""
    first = next(rows)
    yield from (first["context"], first["question"])
    yield from (row["question"] for row in rows)


def _learned(answers: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return where the answer that most references name, the first of several such, starts and ends without white space around it."""
    (text, start), _ = Counter((answer["text"], answer["start"]) for answer in answers).most_common(1)[0]
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip())


def _place_of(answers: Sequence[Mapping[str, Any]], spans: npt.NDArray[np.int64], head: int) -> tuple[int, int]:
    """Return the places of the first and last token of the answer that is learned.

    Args:
        spans: (C, 2), where the characters of each token of the context start and end.
        head: tokens before the context.
    """
    if not answers:
        return NOWHERE, NOWHERE
    start, end = _learned(answers)
    first = int(np.searchsorted(spans[:, 1], start, side="right"))
    last = int(np.searchsorted(spans[:, 0], end, side="left")) - 1
    return (head + first, head + last) if first <= last else (-1, -1)


def _quoted(candidates: Iterable[tuple[float, int, int]], spans: Tensor, characters: Tensor, n_best: int) -> list[Found]:
    """Return the n_best spans of tokens that are different parts of the context, without white space around them, best first.

    Args:
        candidates: log p, first and last token of each.
        spans: (C, 2), where the characters of each token start and end; characters: (L, 16), code points of the context.
    """
    best: dict[tuple[int, int], Found] = {}
    for log_p, first, last in sorted(candidates, key=lambda one: -one[0]):
        if len(best) == n_best:
            break
        start, end = int(spans[first, 0]), int(spans[last, 1])
        text = excerpt(characters, start, end)
        start, text = start + len(text) - len(text.lstrip()), text.strip()
        if text:
            best.setdefault((start, start + len(text)), Found(log_p, text, start, start + len(text)))
    return list(best.values())
