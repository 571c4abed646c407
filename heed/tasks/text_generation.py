"""Text generation: a decoder-only language model that continues a text, and says how likely one is.

A document becomes ids with a begin token, and an end token where it ends. Long documents are divided into pieces of some
PIECE_CONTEXTS contexts, which are held out, learned and scored as examples of their own, so that a single book can be split; each
begins with the begin token. A piece is learned in consecutive windows of data.max_length tokens, in which every token is foretold once.
Attention and positions begin anew in each, so that no text sees another. Windows are rows of a batch, beside others of their length, which
leaves little padding: 2 % of it with five thousand documents of some 20 tokens, less with more, and more only where an epoch has but a few
batches. With task.packed several stand behind one another in a row (`heed.data.layout.Packing`) and see each other no more than before:
for batches that mix all lengths, and nearly all have one shape. Scores are of rows of their own.

Beyond its context a model never goes: a longer prompt keeps its last data.max_length tokens, and an answer that reaches the end of the
context goes on after its second half has been read again; answers say both. A longer text is scored in windows that overlap by
half, so that every token but the first has half a context before it or all there is.

Left out: chat turns and their templates, and filling in the middle.
"""

import codecs
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch
from heed.data.characters import Characters, spellings
from heed.data.documents import CONTINUES, PIECE_CONTEXTS, divided
from heed.data.foreign import ForeignTokenizer
from heed.data.layout import Layout, Packing
from heed.data.parts import Part
from heed.data.rows import Example
from heed.data.store import Encoded
from heed.data.text import MIN_VOCAB_SIZE, Tokenizer, join_surrogates
from heed.data.unlabelled import TextSurvey, survey_texts
from heed.decode.generate import Watcher, generate, stream
from heed.decode.search import Hypothesis
from heed.decode.windowed import Windowed
from heed.errors import ConfigError, DataError
from heed.metrics.language import SCORE_FUNCTIONS, LanguageMetrics, unknown_remarks
from heed.model.config import ModelConfig
from heed.model.losses import LossSum, vocabulary_loss
from heed.model.models import Causal, Model
from heed.model.windows import WINDOW_TOKENS, Windows, cut_windows
from heed.tasks.base import WRITING, Answer, Metrics, Task
from heed.terminal import unread

NEVER = (Tokenizer.pad_id, Tokenizer.bos_id, Tokenizer.unk_id)
USUAL_VOCABULARY = 8000
VOCABULARY_ROWS = 2000  # validation texts whose unknown characters are counted
LOGITS = 1 << 23  # scores held at a time then

Spelling = Sequence[bytes]  # what each id writes


class TextGenerationSettings(Settings):
    """What is particular to text generation."""

    tokens: Literal["subwords", "characters", "bytes"] = Field(default="subwords", description="what a text is cut into")
    vocab_size: int = Field(
        default=USUAL_VOCABULARY, ge=300, description="tokens to know: sub-words to learn, or the most frequent characters"
    )
    algorithm: Literal["bpe", "unigram"] = Field(default="bpe", description="how sub-words are learned")
    documents: Literal["file", "paragraphs"] = Field(
        default="file", description="what a document is: a file or a row of a table, or each of its paragraphs (blank lines between)"
    )

    packed: bool = Field(
        default=False,
        description="learn from several documents behind one another in each row, none of which sees another, so that rows are full",
    )

    @model_validator(mode="after")
    def _fits_task(self) -> "TextGenerationSettings":
        if self.tokens == "bytes" and self.vocab_size != USUAL_VOCABULARY:
            raise ValueError(
                f"task.vocab_size={self.vocab_size} would be ignored with task.tokens=bytes, of which there are 256; leave it out"
            )
        if self.tokens != "subwords" and self.algorithm != "bpe":
            raise ValueError(f"task.algorithm={self.algorithm} would be ignored with task.tokens={self.tokens}; leave it out")
        return self


class Prompt(NamedTuple):
    """What an answer continues: the ids that fit into the context, how many before them do not, and how many of all are unknown."""

    ids: list[int]
    n_cut: int
    n_unknown: int = 0


class TextGeneration(Task):
    """From the beginning of a text to its continuation."""

    name: ClassVar[str] = "text_generation"
    inputs: ClassVar[dict[str, str]] = {"text": "text"}
    outputs: ClassVar[dict[str, str]] = {}
    architecture: ClassVar[str] = "causal"
    continues: ClassVar[bool] = True
    reads: frozenset[str] = WRITING | {"stop"}
    settings: ClassVar[type[Settings]] = TextGenerationSettings
    cutting: ClassVar[tuple[str, ...]] = ("tokens", "vocab_size", "algorithm")
    group_names: ClassVar[dict[str, str]] = {"best": "Best foretold", "median": "In the middle", "worst": "Worst foretold"}
    config: TextGenerationSettings

    @classmethod
    def usual(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what holds where nobody says otherwise: no smoothing, which costs likelihood, and answers that are drawn."""
        return {**super().usual(settings), "train": {"label_smoothing": 0.0}, "decode": {"sample": True, "beams": 1}}

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> TextSurvey:
        """Count lengths, duplicates and leaks."""
        return survey_texts(examples, others)

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the sub-words, or collect the characters."""
        texts: Iterable[str] = (example["text"] for example in examples)
        if self.inherited:
            self.parts = dict(self.inherited)
        elif self.config.tokens == "characters":
            self.parts = {"tokenizer": Characters.train(texts, vocab_size=self.config.vocab_size)}
        elif self.config.tokens == "bytes":  # of which there is nothing to learn
            self.parts = {"tokenizer": Tokenizer.train(["any"], algorithm="bpe", vocab_size=MIN_VOCAB_SIZE, cleaning=False)}
        else:
            trained = Tokenizer.train(texts, algorithm=self.config.algorithm, vocab_size=self.config.vocab_size, cleaning=False)
            self.parts = {"tokenizer": trained}
        return self.parts

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return the size of the vocabulary, and which share of the validation text's characters it does not know."""
        found: dict[str, Any] = {"size": self.tokenizer.vocab_size}
        if isinstance(self.tokenizer, Characters):
            texts = [example["text"] for _, example in zip(range(VOCABULARY_ROWS), valid, strict=False)]
            found["unknown_share_valid"] = round(self.tokenizer.unknown_share(texts), 6)
        return {"vocabulary": found}

    @property
    def tokenizer(self) -> Tokenizer | Characters | ForeignTokenizer:
        """What cuts a text."""
        return cast(Tokenizer | Characters | ForeignTokenizer, self.parts["tokenizer"])

    @cached_property
    def spelling(self) -> Spelling:
        """What each id writes, in UTF-8."""
        return spellings(self.tokenizer)

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the size of the vocabulary."""
        if model.architecture != "causal":
            raise ConfigError(f"model.architecture: text generation needs causal, found {model.architecture}")
        return model.replace(vocab_size=self.tokenizer.vocab_size, absent_ids=self.tokenizer.absent)

    def divided(self, example: Example) -> Iterator[Example]:
        """Return the documents of a row, and the pieces of long ones."""
        return divided(example, PIECE_CONTEXTS * self.max_length, self.config.documents)

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Return the ids of texts between a begin and an end token; without the end where a document goes on."""
        encoded = self.tokenizer.encode_batch([example["text"] for example in examples])
        ends = ([] if example.get(CONTINUES) is True else [Tokenizer.eos_id] for example in examples)
        return [{"text": torch.tensor([self.tokenizer.bos_id, *ids, *end])} for ids, end in zip(encoded, ends, strict=True)]

    def pieces(self, encoded: Encoded) -> Iterator[Encoded]:
        """Yield the windows of a text: data.max_length tokens to read and the one behind them, which is the first of the next."""
        ids = encoded["text"]
        for start in range(0, ids.size(0) - 1, self.max_length):
            yield {"text": ids[start : start + self.max_length + 1]}

    @property
    def long_examples(self) -> str:
        """Say what becomes of texts beyond data.max_length."""
        return "read in consecutive windows"

    @property
    def layout(self) -> Layout:
        """How windows become rows of a batch."""
        return Packing(self.max_length) if self.config.packed else Layout()

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once."""
        return min(encoded["text"].size(0), self.max_length)

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the cross-entropy of every token given those before it in its own text."""
        assert isinstance(model, Causal)
        hidden, wanted = _foretelling(model, batch)
        smoothing = self.label_smoothing if model.training else 0.0
        head = model.head
        return vocabulary_loss(
            hidden, head.weight, wanted, bias=head.bias, absent=head.absent, smoothing=smoothing, ignore=Tokenizer.pad_id
        )

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Continue every text by sampling, or by search when the options say so."""
        assert isinstance(model, Causal)
        prompts, answers = self._prompts(batch), dict[int, Answer]()
        for group in self._groups(prompts, options.max_length, padded=batch["text"].device.type != "cpu"):
            found = self.continued(model, [prompts[i] for i in group], options, batch["text"].device)
            for i, hypotheses in zip(group, found, strict=True):
                answers[i] = self._answer(prompts[i], hypotheses, options)
        return [answers[i] for i in range(len(prompts))]

    def stream(self, model: Model, batch: Batch, options: DecodeConfig) -> Generator[str, None, Answer]:
        """Yield the continuation of a batch of one text as it is written: whole characters, and none that a stop string may take back.

        Returns:
            the answer without its score.
        Raises:
            ConfigError: the options ask for several answers, or for a search whose answer is known at its end only.
        """
        assert isinstance(model, Causal)
        (prompt,) = self._prompts(batch)
        prefix, writer = torch.tensor([prompt.ids], device=batch["text"].device), self._writer(prompt, options)
        decoder, watch = self._decoder(model, prompt, options), self._watch([prompt], options)
        written: list[str] = []
        n_tokens = 0
        for token in stream(decoder, None, prefix, end=Tokenizer.eos_id, options=options, never=self.never, watch=watch):
            n_tokens += 1
            if text := writer.add(token):
                written.append(text)
                yield text
        if text := writer.rest():
            written.append(text)
            yield text
        return Answer("".join(written), details=self._details(prompt, n_tokens, writer.stop, options))

    def _prompts(self, batch: Batch) -> list[Prompt]:
        """Return what is to be continued: the texts without their end tokens, and of long ones what fits into the context."""
        lengths = batch.mask("text").sum(1).tolist()
        texts = [row[:n] for row, n in zip(batch["text"].tolist(), lengths, strict=True)]
        open_texts = [self._open(ids) for ids in texts]
        return [Prompt(ids[-self.max_length :], max(0, len(ids) - self.max_length), ids.count(Tokenizer.unk_id)) for ids in open_texts]

    def _open(self, ids: list[int]) -> list[int]:
        """Return a text without its end token; and without a begin token that its tokenizer puts only where there is nothing else."""
        open_ids = ids[:-1] if len(ids) > 1 and ids[-1] == Tokenizer.eos_id else ids
        begins = not isinstance(self.tokenizer, ForeignTokenizer) or self.tokenizer.begins_texts
        return open_ids if begins or len(open_ids) == 1 else open_ids[1:]

    @property
    def never(self) -> tuple[int, ...]:
        """The ids that no answer holds; of a foreign vocabulary its own model decides, which gives what it lacks no probability."""
        return () if isinstance(self.tokenizer, ForeignTokenizer) else NEVER

    def _groups(self, prompts: Sequence[Prompt], longest: int, *, padded: bool) -> Iterable[list[int]]:
        """Return the places of prompts that are answered together.

        Those of one length are, so that nothing is padded and an answer is computed as it would be alone; a GPU, where many small groups
        would take far longer, is given all that end inside their context together.
        """
        groups: dict[int, list[int]] = {}
        for i, prompt in enumerate(prompts):
            together = padded and not self._leaves_context(prompt, longest)
            groups.setdefault(0 if together else len(prompt.ids), []).append(i)
        return groups.values()

    def _leaves_context(self, prompt: Prompt, n_written: int) -> bool:
        """Return whether the last of so many written tokens is foretold from more than a context."""
        return len(prompt.ids) + n_written - 1 > self.max_length

    def _decoder(self, model: Causal, prompt: Prompt, options: DecodeConfig) -> Causal | Windowed:
        return Windowed(model, self.max_length) if self._leaves_context(prompt, options.max_length) else model

    def continued(self, model: Causal, prompts: Sequence[Prompt], options: DecodeConfig, device: torch.device) -> list[list[Hypothesis]]:
        """Continue prompts together; those that may leave their context have to be of one length."""
        longest = max(prompts, key=lambda prompt: len(prompt.ids))
        prefix, mask = _left_padded([prompt.ids for prompt in prompts])
        return generate(
            self._decoder(model, longest, options),
            None,
            None if bool(mask.all()) else mask.to(device),
            prefix.to(device),
            end=Tokenizer.eos_id,
            options=options,
            never=self.never,
            watch=self._watch(prompts, options),
        )

    def _watch(self, prompts: Sequence[Prompt], options: DecodeConfig) -> Callable[[int], Watcher] | None:
        """Return what watches for stop strings in the answers to prompts, by their numbers; None where there are none."""
        return (lambda row: self._writer(prompts[row], options).ends_with) if options.stop else None

    def _writer(self, prompt: Prompt, options: DecodeConfig) -> "Writer":
        begins = prompt.ids == [self.tokenizer.bos_id] and self._spaces
        return Writer(self.spelling, options.stop, begins=begins)

    @cached_property
    def _spaces(self) -> bool:
        """Whether the tokenizer puts a space before a text."""
        return b"".join(self.spelling[index] for index in self.tokenizer.encode("a")).startswith(b" ")

    def _answer(self, prompt: Prompt, hypotheses: Sequence[Hypothesis], options: DecodeConfig) -> Answer:
        if not hypotheses:  # no answer of any probability
            return Answer("", 0.0)
        first, *others = [self._written(prompt, hypothesis, options) for hypothesis in hypotheses]
        return Answer(first.text, first.score, tuple(others), first.details)

    def _written(self, prompt: Prompt, hypothesis: Hypothesis, options: DecodeConfig) -> Answer:
        """Return an answer with what is to be known of it: what ended it, and what its context lacked."""
        writer = self._writer(prompt, options)
        text = "".join([*map(writer.add, hypothesis.ids), writer.rest()])
        return Answer(text, hypothesis.score, details=self._details(prompt, len(hypothesis.ids), writer.stop, options))

    def _details(self, prompt: Prompt, n_written: int, stop: str | None, options: DecodeConfig) -> dict[str, Any]:
        own = "end" if n_written + 1 < options.max_length else "max_length"  # at which an end is written whatever the model would
        details: dict[str, Any] = {"ended_by": own} if stop is None else {"ended_by": "stop", "stop": stop}
        details |= {"unknown": prompt.n_unknown} if prompt.n_unknown else {}
        details |= {"context_cut": prompt.n_cut} if prompt.n_cut else {}
        return details | ({"context_moved": True} if self._leaves_context(prompt, n_written + 1) else {})

    def note(self, answer: Answer) -> str | None:
        """Say what of the text so far the model did not see or know, and where it added nothing."""
        return "; ".join(self._notes(answer)) or None

    def _notes(self, answer: Answer) -> Iterator[str]:
        if n_unknown := answer.details.get("unknown"):
            verb, seen = ("is", "it") if n_unknown == 1 else ("are", "them")
            yield f"{n_unknown:,} of the text's characters {verb} unknown to the model, which never saw {seen} in training"
        if n_cut := answer.details.get("context_cut"):
            yield f"{unread('first', n_cut, 'text')}: this model sees {self.max_length:,} at once"
        elif answer.details.get("context_moved"):
            yield f"the text grew beyond the {self.max_length:,} tokens this model sees at once; what stood before them was forgotten"
        if not answer.text and "stop" not in answer.details:
            yield "nothing is added: for the model the text ends here"

    @property
    def examiner(self) -> "TextGeneration":
        """The same task, but its answers say how likely the texts are."""
        return Likelihood(self.config, self.parts, label_smoothing=self.label_smoothing, max_length=self.max_length)

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that may choose the weights."""
        return tuple(SCORE_FUNCTIONS)

    def advice(self, scores: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
        """Say where characters were unknown."""
        return [f"{remark}; task.tokens=subwords or bytes knows every character." for remark in unknown_remarks(scores)]

    def memory_advice(self, length: int) -> str:
        """Say what to set where a window does not fit into memory."""
        return f"read less at once (data.max_length={max(1, self.max_length // 2)})"

    def metrics(self) -> LanguageMetrics:
        """Return an empty counter of perplexity and bits per byte."""
        return LanguageMetrics()

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add how likely texts were, as the examiner answered; raises DataError for answers that continue them."""
        assert isinstance(metrics, LanguageMetrics)
        if any("log_likelihood" not in answer.details for answer in answers):
            raise DataError("a language model is scored by how likely it finds texts, not by what it writes; score it with heed evaluate")
        found = [answer.details for answer in answers]
        n_bytes = [len(join_surrogates(example["text"]).encode()) for example in examples]
        log_p, tokens, unknown = ([one[name] for one in found] for name in ("log_likelihood", "tokens", "unknown"))
        metrics.add(log_p, tokens, n_bytes, unknown)

    def answer_length(self, answer: Answer) -> int:
        """Return how many tokens a continuation has, or a text that was scored."""
        n_scored = answer.details.get("tokens")
        return len(self.tokenizer.encode(answer.text)) if n_scored is None else int(n_scored)


class Likelihood(TextGeneration):
    """Says how likely texts are: log p of their tokens, the end included, given the begin token."""

    reads: frozenset[str] = frozenset()

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer with {"log_likelihood", "tokens", "unknown"}: log p (natural), its tokens, and how many of them are unknown."""
        assert isinstance(model, Causal)
        text, mask = batch["text"], batch.mask("text")
        log_p = self.log_likelihood(model, text, mask).tolist()
        tokens, unknown = (mask.sum(1) - 1).tolist(), ((text == Tokenizer.unk_id) & mask).sum(1).tolist()
        return [
            Answer("", p / max(1, n), details={"log_likelihood": p, "tokens": n, "unknown": u})
            for p, n, u in zip(log_p, tokens, unknown, strict=True)
        ]

    def log_likelihood(self, model: Causal, ids: Tensor, mask: Tensor) -> Tensor:
        """Return log p of texts (B, S) with their mask (B, S), each token given at most data.max_length before it; (B,) in float64."""
        step = (self.max_length + 1) // 2
        windows = cut_windows(ids, mask, size=self.max_length + 1, overlap=self.max_length + 1 - step)
        wanted = _foretold_first(windows)
        total = torch.zeros(len(ids), dtype=torch.float64, device=ids.device)
        at_once = max(1, WINDOW_TOKENS // windows.ids.size(1))
        parts = (torch.split(values, at_once) for values in (windows.ids, wanted, windows.rows))
        for part, chosen, rows in zip(*parts, strict=True):
            hidden = model.hidden(part[:, :-1])[chosen]  # (N, W, D) -> (n, D)
            row_of = rows[:, None].expand(chosen.shape)[chosen]
            total.index_add_(0, row_of, _log_p(model, hidden, part[:, 1:][chosen]))
        return total


def _foretelling(model: Causal, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the vectors (B, T, D) from which the tokens of a batch, packed or not, are foretold, and these tokens (B, T)."""
    if "places" in batch:
        return model.hidden_of_texts(batch["text"], batch["places"]), batch["wanted"]
    text = batch["text"]
    return model.hidden(text[:, :-1]), text[:, 1:]  # padding is on the right, where no real token looks


def _foretold_first(windows: Windows) -> Tensor:
    """Return which tokens of windows behind the first (N, W - 1) no earlier window of the same text holds."""
    ends = (windows.places * windows.mask).amax(1)
    follows = windows.rows[1:] == windows.rows[:-1]
    before = torch.cat([ends.new_zeros(1), torch.where(follows, ends[:-1], 0)])
    return windows.mask[:, 1:] & (windows.places[:, 1:] > before[:, None])


def _log_p(model: Causal, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return log p of tokens (n,) given the vectors before them (n, D), in float64; never all scores at once."""
    at_once = max(1, LOGITS // model.head.weight.size(0))
    parts = zip(torch.split(hidden, at_once), torch.split(targets, at_once), strict=True)
    found = [model.head(part).float().log_softmax(-1).gather(-1, wanted[:, None])[:, 0] for part, wanted in parts]
    return torch.cat(found).double()


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Return ids padded on the left (B, P) and their mask (B, P)."""
    longest = max(map(len, rows))
    ids = [[Tokenizer.pad_id] * (longest - len(row)) + list(row) for row in rows]
    mask = [[False] * (longest - len(row)) + [True] * len(row) for row in rows]
    return torch.tensor(ids), torch.tensor(mask)


class Writer:
    """Turns ids into text as it becomes sure: whole characters only, and none that a stop string may take back.

    The answer ends before the stop string that is complete first. A character that is not whole at the end of an answer is left out.
    """

    def __init__(self, spelling: Spelling, stops: Sequence[str], *, begins: bool) -> None:
        """Begin an answer; `begins` takes the space off that a tokenizer puts before a text."""
        self.spelling, self.stops, self.begins = spelling, stops, begins
        self.stop: str | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def add(self, token: int) -> str:
        """Take a token and return the text that is sure now; nothing behind a stop string."""
        if self.stop is not None:
            return ""
        text = self._decoder.decode(self.spelling[token])
        if self.begins and text:
            text, self.begins = text.removeprefix(" "), False
        self._held += text
        found = min(((self._held.find(stop), stop) for stop in self.stops if stop in self._held), default=None)
        if found is not None:
            self.stop = found[1]
            return self._release(found[0])
        return self._release(len(self._held) - self._undecided())

    def ends_with(self, token: int) -> bool:
        """Take a token and return whether a stop string is complete with it."""
        self.add(token)
        return self.stop is not None

    def rest(self) -> str:
        """Return what was held back, at the end of an answer."""
        return "" if self.stop is not None else self._release(len(self._held))

    def _release(self, n: int) -> str:
        sure, self._held = self._held[:n], self._held[n:]
        return sure

    def _undecided(self) -> int:
        """Return how many characters at the end may begin a stop string."""
        return max((n for stop in self.stops for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0)
