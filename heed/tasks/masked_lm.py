"""Masked language modelling: an encoder learns from texts without labels by foretelling tokens that are hidden (Devlin et al. 2019).

Of the tokens of a window task.mask_share are chosen; of these 80 % are read as the mask, 10 % as a random token and 10 % as they are. What
is chosen is drawn anew whenever a window is read (Liu et al. 2019, section 4.1), by the trainer's draw for the update and the row.
Validation and scoring hide tokens that follow from the text alone, so that runs of one vocabulary are scored on the same. The loss is of
chosen places alone, and so is the product with the vocabulary.

Texts are cut as a text classifier that starts from such a run (`init`) cuts them: a begin token, then up to data.max_length tokens, and
an end token where the tokenizer has texts end with one. Long documents are read in consecutive windows; a document of many contexts is
divided into pieces first, which are held out, learned and scored as examples of their own.

Left out: telling whether one sentence follows another, which Liu et al. (2019, section 4.2) found of no use.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch, collate
from heed.data.documents import PIECE_CONTEXTS, divided
from heed.data.foreign import ForeignTokenizer
from heed.data.masking import NOTHING, Masking
from heed.data.parts import Part
from heed.data.rows import Example
from heed.data.store import Encoded
from heed.data.text import Tokenizer
from heed.data.unlabelled import TextSurvey, survey_texts
from heed.data.vocabulary import SPECIALS
from heed.data.words import Preparation
from heed.errors import ConfigError, DataError
from heed.metrics.masked import SCORE_FUNCTIONS, MaskedMetrics
from heed.model.config import ModelConfig
from heed.model.heads import MaskedHead
from heed.model.losses import LossSum, vocabulary_loss
from heed.model.models import Encoder, Model
from heed.model.windows import WINDOW_TOKENS, framed
from heed.tasks.base import RANKING, Answer, Metrics, Task

MASK = "<mask>"  # how a person writes what is to be foretold
USUAL_FILLS = 5  # tokens that are told for each mask
LOGITS = 1 << 23  # scores held at a time then
SHOWN_CHARACTERS = 60  # of a text in a message


class MaskedLMSettings(Settings):
    """What is particular to masked language modelling."""

    vocab_size: int = Field(default=8000, ge=300, description="sub-words to learn")
    algorithm: Literal["bpe", "unigram"] = Field(default="bpe", description="how sub-words are learned")
    cleaning: bool = Field(default=True, description="remove HTML and control characters, fold white space, NFC")
    lower: bool = Field(default=False, description="lower-case texts")
    documents: Literal["file", "paragraphs"] = Field(
        default="file", description="what a document is: a file or a row of a table, or each of its paragraphs (blank lines between)"
    )
    mask_share: float = Field(default=0.15, gt=0, lt=1, description="share of the tokens that are to be foretold")
    whole_words: bool = Field(default=False, description="choose words with all their sub-words, rather than single sub-words")


class Blank(NamedTuple):
    """A window of a text with masks: where it begins, and which of its places are to be foretold in it rather than in a neighbour."""

    row: int
    start: int
    places: list[int]


class MaskedLM(Task):
    """From a text with masks to the words that may stand there."""

    name: ClassVar[str] = "masked_lm"
    inputs: ClassVar[dict[str, str]] = {"text": "text"}
    outputs: ClassVar[dict[str, str]] = {}
    architecture: ClassVar[str] = "encoder"
    counts_tokens: ClassVar[bool] = False
    reads: frozenset[str] = RANKING
    settings: ClassVar[type[Settings]] = MaskedLMSettings
    heirlooms: ClassVar[tuple[str, ...]] = ("tokenizer", "preparation")
    cutting: ClassVar[tuple[str, ...]] = ("vocab_size", "algorithm", "cleaning", "lower")
    group_names: ClassVar[dict[str, str]] = {"best": "Best foretold", "median": "In the middle", "worst": "Worst foretold"}
    config: MaskedLMSettings

    @classmethod
    def usual(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what holds where nobody says otherwise: no smoothing, which costs likelihood, and several tokens for each mask."""
        return {**super().usual(settings), "train": {"label_smoothing": 0.0}, "decode": {"n_best": USUAL_FILLS}}

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> TextSurvey:
        """Count lengths, duplicates and leaks."""
        return survey_texts(examples, others)

    def inherit(self, other: Task) -> None:
        """Take over what cuts a text into sub-words, and what is done to it before."""
        super().inherit(other)
        kind = type(self.inherited.get("tokenizer"))
        if not issubclass(kind, Tokenizer | ForeignTokenizer):
            raise ConfigError(f"init: cuts texts into {kind.__name__.lower()}, and {self.name} needs sub-words; start from another run")

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the sub-words."""
        preparation = Preparation(cleaning=self.config.cleaning, lower=self.config.lower, stop_words="none")
        self.parts = {"preparation": preparation, **self.inherited}
        if "tokenizer" not in self.parts:
            texts = (preparation(example["text"]) for example in examples)
            size = self.config.vocab_size
            self.parts["tokenizer"] = Tokenizer.train(texts, algorithm=self.config.algorithm, vocab_size=size, cleaning=False, apart=True)
        return self.parts

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return the size of the vocabulary."""
        return {"vocabulary": {"size": self.tokenizer.vocab_size}}

    @property
    def tokenizer(self) -> Tokenizer | ForeignTokenizer:
        """What cuts a text."""
        return cast(Tokenizer | ForeignTokenizer, self.parts["tokenizer"])

    @property
    def preparation(self) -> Preparation:
        """What is done to a text before it is cut; nothing for an imported model."""
        return cast(Preparation, self.parts.get("preparation", Preparation(cleaning=False, lower=False, stop_words="none")))

    @cached_property
    def masking(self) -> Masking:
        """What hides tokens."""
        starts = self.tokenizer.word_starts if self.config.whole_words else None
        return Masking(self.tokenizer.mask_id, self.ordinary, share=self.config.mask_share, starts=starts)

    @cached_property
    def ordinary(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ids that text consists of, (n,): all but the special ones."""
        return np.setdiff1d(np.arange(len(SPECIALS), self.tokenizer.vocab_size), [self.tokenizer.mask_id])

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the size of the vocabulary and the head that foretells words."""
        if model.architecture != "encoder" or model.hierarchical:
            found = "model.hierarchical=true" if model.hierarchical else f"model.architecture={model.architecture}"
            raise ConfigError(f"{found}: masked language modelling needs a plain encoder; leave it out")
        if model.positions == "learned" and self.max_length + self._n_around > model.max_length:
            raise ConfigError(
                f"data.max_length={self.max_length} and {self._n_around} tokens around it do not fit model.max_length={model.max_length}, "
                "the places that learned positions know; raise the one or lower the other"
            )
        return model.replace(vocab_size=self.tokenizer.vocab_size, masked_lm=True, n_classes=None, n_tags=None)

    @property
    def _n_around(self) -> int:
        """How many tokens stand around a window."""
        return 2 if self.tokenizer.ends_texts else 1

    def divided(self, example: Example) -> Iterator[Example]:
        """Return the documents of a row, and the pieces of long ones."""
        return divided(example, PIECE_CONTEXTS * self.max_length, self.config.documents)

    def unanswerable(self, example: Example) -> str | None:
        """Say that a text has no mask."""
        text, tokenizer = example["text"], self.tokenizer
        own = tokenizer.token(tokenizer.mask_id) if isinstance(tokenizer, ForeignTokenizer) else MASK
        return None if MASK in text or own in text else _without_mask(text)

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Return the ids of texts, without what stands around them; a mask in what is asked is the mask token."""
        texts = [example["text"] for example in examples]
        found = self.tokenizer.encode_batch([*map(self.preparation, texts)]) if training else self.asked(texts)
        return [{"text": torch.tensor(ids, dtype=torch.long)} for ids in found]

    def asked(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts in which MASK, or the tokenizer's own, stands for a token; it takes the space before it along."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer, ForeignTokenizer):
            own = tokenizer.token(tokenizer.mask_id) if any(MASK in text for text in texts) else MASK
            return tokenizer.encode_batch([self.preparation(text.replace(MASK, own)) for text in texts])
        return [self._around_masks(text, tokenizer) for text in texts]

    def _around_masks(self, text: str, tokenizer: Tokenizer) -> list[int]:
        *before, last = text.split(MASK)
        first, *others = [*(part.removesuffix(" ") for part in before), last]
        ids = tokenizer.encode(self.preparation(first))
        for part in others:
            ids += [tokenizer.mask_id, *self._behind_mask(part, tokenizer)]
        return ids

    def _behind_mask(self, part: str, tokenizer: Tokenizer) -> list[int]:
        """Return the ids of what follows a mask, with the space that it begins with, if any: tokenizers put one before a text."""
        prepared = self.preparation(part)
        if part.startswith(" ") or (part[:1].isspace() and not prepared[:1].isspace()):
            return tokenizer.encode(prepared.removeprefix(" "))
        return tokenizer.encode_inside([prepared])[0]

    def pieces(self, encoded: Encoded) -> Iterator[Encoded]:
        """Yield the windows of a text, of data.max_length tokens at most."""
        return ({"text": window} for window in torch.split(encoded["text"], self.max_length) if len(window))

    @property
    def long_examples(self) -> str:
        """Say what becomes of texts beyond data.max_length."""
        return "read in consecutive windows"

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once."""
        return min(encoded["text"].size(0), self.max_length) + self._n_around

    @property
    def augments(self) -> bool:
        """Whether training examples are changed: tokens are hidden anew each time."""
        return True

    def augmented(self, encoded: Encoded, draw: np.random.Generator) -> Encoded:
        """Return what is read of a window and which tokens are to be foretold, (S, 2)."""
        return {"text": torch.from_numpy(self.masking(encoded["text"].numpy(), draw))}

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the cross-entropy of the chosen tokens; of texts that come as they are, those that the text alone chooses."""
        assert isinstance(model, Encoder)
        ids, mask = batch["text"], batch.mask("text")
        if ids.dim() == 2:
            ids = collate([{"text": one} for one in self._hidden(ids, mask)])["text"].to(ids.device)
        read, truth = ids.unbind(-1)
        head, vectors = self._foretelling(model, read, mask, truth != NOTHING)
        smoothing = self.label_smoothing if model.training else 0.0
        return vocabulary_loss(head.hidden(vectors), head.weight, truth[truth != NOTHING], bias=head.bias, smoothing=smoothing)

    def _hidden(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Hide tokens of texts (B, S) as the texts alone have it; each (S_i, 2)."""
        lengths = mask.sum(1).tolist()
        return [torch.from_numpy(self.masking.fixed(row[:n])) for row, n in zip(ids.cpu().numpy(), lengths, strict=True)]

    def _foretelling(self, model: Encoder, read: Tensor, mask: Tensor, chosen: Tensor) -> tuple[MaskedHead, Tensor]:
        """Return the head and the vectors of the chosen places (N, D) of windows, given all three as (B, S)."""
        assert model.masked_head is not None
        tokenizer = self.tokenizer
        x = model(*framed(read, mask, begin=tokenizer.bos_id, end=tokenizer.eos_id if tokenizer.ends_texts else None))
        return model.masked_head, x[:, 1 : 1 + read.size(1)][chosen]

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer with the text whose masks are filled, and for each mask the likeliest tokens; raises DataError where there is no mask."""
        assert isinstance(model, Encoder)
        texts = _rows(batch)
        blanks = [blank for row, ids in enumerate(texts) for blank in self._blanks(row, ids)]
        fills: list[list[tuple[list[int], list[float]]]] = [[] for _ in texts]
        for part in self._at_once(blanks):
            found = self._fills(model, [texts[blank.row] for blank in part], part, options.n_best, batch["text"].device)
            for blank, some in zip(part, found, strict=True):
                fills[blank.row] += some
        return [self._filled(ids, some) for ids, some in zip(texts, fills, strict=True)]

    def _blanks(self, row: int, ids: Tensor) -> list[Blank]:
        """Return the windows in which the masks of a text are foretold, each as near the middle of one as can be."""
        places = (ids == self.tokenizer.mask_id).nonzero()[:, 0].tolist()
        if not places:
            raise DataError(_without_mask(self.tokenizer.decode(ids.tolist())))
        last = max(0, len(ids) - self.max_length)
        found: dict[int, list[int]] = {}
        for place in places:
            found.setdefault(min(max(0, place - self.max_length // 2), last), []).append(place)
        return [Blank(row, start, some) for start, some in found.items()]

    def _at_once(self, windows: Sequence[Blank]) -> Iterator[Sequence[Blank]]:
        size = max(1, WINDOW_TOKENS // self.max_length)
        return (windows[first : first + size] for first in range(0, len(windows), size))

    def _fills(
        self, model: Encoder, texts: Sequence[Tensor], blanks: Sequence[Blank], n_best: int, device: torch.device
    ) -> list[list[tuple[list[int], list[float]]]]:
        """Return for each mask of each window the likeliest ordinary tokens and their probabilities."""
        windows = [ids[blank.start : blank.start + self.max_length] for ids, blank in zip(texts, blanks, strict=True)]
        batch = collate([{"text": ids} for ids in windows]).to(device)
        chosen = torch.zeros_like(batch.mask("text"))
        for row, blank in enumerate(blanks):
            chosen[row, [place - blank.start for place in blank.places]] = True
        head, vectors = self._foretelling(model, batch["text"], batch.mask("text"), chosen)
        ordinary = torch.from_numpy(self.ordinary).to(device)
        found: list[tuple[list[int], list[float]]] = []
        for part in _in_parts(head, vectors):
            likeliest = part.softmax(-1)[:, ordinary].topk(min(n_best, len(ordinary)))
            found += zip(ordinary[likeliest.indices].tolist(), likeliest.values.tolist(), strict=True)
        stream = iter(found)
        return [[next(stream) for _ in blank.places] for blank in blanks]

    def _filled(self, ids: Tensor, fills: Sequence[tuple[list[int], list[float]]]) -> Answer:
        """Return a text (S,) with its masks filled, in their order."""
        written = ids.clone()
        written[ids == self.tokenizer.mask_id] = torch.tensor([tokens[0] for tokens, _ in fills])
        told = [
            [{"token": self.tokenizer.token(token), "probability": share} for token, share in zip(*some, strict=True)] for some in fills
        ]
        score = float(np.log([max(shares[0], np.finfo(np.float64).tiny) for _, shares in fills]).sum())
        return Answer(self.tokenizer.decode(written.tolist()), score, details={"fills": told})

    @property
    def examiner(self) -> "MaskedLM":
        """The same task, but it hides tokens of whole texts itself, and answers how well they were foretold."""
        return Examination(self.config, self.parts, label_smoothing=self.label_smoothing, max_length=self.max_length)

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that may choose the weights."""
        return tuple(SCORE_FUNCTIONS)

    def memory_advice(self, length: int) -> str:
        """Say what to set where a window does not fit into memory."""
        return f"read less at once (data.max_length={max(1, self.max_length // 2)})"

    def metrics(self) -> MaskedMetrics:
        """Return an empty counter of hidden tokens."""
        return MaskedMetrics()

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add how hidden tokens were foretold, as the examiner answered; raises DataError for answers that fill masks."""
        assert isinstance(metrics, MaskedMetrics)
        if any("hidden" not in answer.details for answer in answers):
            raise DataError("a masked language model is scored on tokens that are hidden for it, not on masks; score it with heed evaluate")
        right, log_p, hidden = ([answer.details[name] for answer in answers] for name in ("right", "log_likelihood", "hidden"))
        metrics.add(right, log_p, hidden)

    def answer_length(self, answer: Answer) -> int:
        """Return how many tokens were foretold."""
        return int(answer.details["hidden"]) if "hidden" in answer.details else len(answer.details["fills"])


class Examination(MaskedLM):
    """Says how well hidden tokens are foretold, which follow from each window of a text alone."""

    reads: frozenset[str] = frozenset()

    def unanswerable(self, example: Example) -> str | None:
        """Say nothing: texts need no masks."""
        return None

    def asked(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of texts, in which a mask is a word like any other."""
        return self.tokenizer.encode_batch([*map(self.preparation, texts)])

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer with {"log_likelihood", "right", "hidden"}: log p (natural) of the hidden tokens, how many were named, and how many."""
        assert isinstance(model, Encoder)
        windows = [(row, window) for row, ids in enumerate(_rows(batch)) for window in self.pieces({"text": ids})]
        totals = torch.zeros(len(batch), 3, dtype=torch.float64)
        size = max(1, WINDOW_TOKENS // self.max_length)
        for first in range(0, len(windows), size):
            part = windows[first : first + size]
            of_row, figures = self._examined(model, part, batch["text"].device)
            totals.index_add_(0, of_row, figures)
        return [
            Answer("", p / max(1, n), details={"log_likelihood": p, "right": round(right), "hidden": round(n)})
            for p, right, n in totals.tolist()
        ]

    def _examined(self, model: Encoder, windows: Sequence[tuple[int, Encoded]], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return for each hidden token of windows its row (N,), and (N, 3): log p, whether it was named, and 1."""
        hidden = [{"text": torch.from_numpy(self.masking.fixed(window["text"].numpy()))} for _, window in windows]
        batch = collate(hidden).to(device)
        read, truth = batch["text"].unbind(-1)
        chosen = truth != NOTHING
        head, vectors = self._foretelling(model, read, batch.mask("text"), chosen)
        rows = torch.tensor([row for row, _ in windows])[:, None].expand(chosen.shape)[chosen.cpu()]
        found = []
        for logits, targets in zip(_in_parts(head, vectors), _split(head, truth[chosen]), strict=True):
            log_p = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0].double()
            right = (logits.argmax(-1) == targets).double()
            found.append(torch.stack([log_p, right, torch.ones_like(log_p)], dim=1).cpu())
        return rows, torch.cat(found)


def _without_mask(text: str) -> str:
    return f"{text[:SHOWN_CHARACTERS]!r} has no {MASK}; write {MASK} where a word is to be foretold, such as 'the {MASK} sees'"


def _rows(batch: Batch) -> list[Tensor]:
    """Return the ids of each text of a batch without padding, (S,) each."""
    lengths = batch.mask("text").sum(1).tolist()
    return [row[:n] for row, n in zip(batch["text"].cpu(), lengths, strict=True)]


def _split(head: MaskedHead, values: Tensor) -> Iterable[Tensor]:
    """Divide values of places (N, ...) so that the scores of all words at them are not too many."""
    return torch.split(values, max(1, LOGITS // head.weight.size(0)))


def _in_parts(head: MaskedHead, vectors: Tensor) -> Iterator[Tensor]:
    """Yield the scores of all words at places (N, D), some places at a time: (n, V) in float32."""
    return (head(part).float() for part in _split(head, vectors))
