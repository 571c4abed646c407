"""Tagging: a tag for every word of a sentence, and the spans that these make up, such as names (Devlin et al. 2019, section 5.3).

A word is judged at its first sub-word. Sentences of more than data.max_length tokens are read in windows that overlap by task.overlap, and
every word is judged, and learned, in the window that shows most around it. Answers keep to the scheme of the tags: of all paths that it
allows the likeliest is found (Viterbi).

Left out: spans inside or across spans, and learned transitions (CRF).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.batch import Batch
from heed.data.excerpts import as_code_points, excerpt
from heed.data.foreign import ForeignTokenizer
from heed.data.labels import Labels, in_order
from heed.data.parts import Part
from heed.data.rows import Example
from heed.data.store import Encoded
from heed.data.tagged import TaggedSurvey, survey_tagged
from heed.data.tags import (
    WRITTEN,
    Scheme,
    Span,
    Tag,
    is_symbols,
    labels_for,
    parsed,
    scheme_of,
    spans_of,
    split_words,
    tags_fault,
    tags_of,
    words_in,
)
from heed.data.text import Tokenizer, cleans
from heed.decode.paths import best_paths
from heed.errors import ConfigError, DataError
from heed.metrics.tagging import SCORES, TaggingMetrics
from heed.model.config import ModelConfig
from heed.model.losses import LossSum, cross_entropy
from heed.model.models import Encoder, Model
from heed.model.windows import Windows, cut_behind, in_parts, most_context
from heed.tasks.base import Answer, Metrics, Task

BEGIN = 0  # the place of the begin token, where words are judged that no token stands for, such as control characters


class TaggingSettings(Settings):
    """What is particular to tagging."""

    scheme: Literal["bio", "iob1", "bilou", "bioes", "plain"] = Field(
        default="bio",
        description="how tags say which words are one span: bio (IOB2); iob1, which is turned into bio; bilou; bioes; plain: not at all",
    )
    strict: bool = Field(default=True, description="refuse spans that do not begin and end as the scheme wants; false: as seqeval")
    legal: bool = Field(default=True, description="answer no tags that may not follow each other; false takes the likeliest of each word")
    symbols_apart: bool | None = Field(
        default=None,
        description="a text is cut into words at symbols too, not only at white space; default: if symbols are words of the training data",
    )
    overlap: int = Field(default=32, ge=0, description="tokens of a long sentence that neighbouring windows share")
    vocab_size: int = Field(default=16000, ge=300, description="sub-words to learn")
    algorithm: Literal["bpe", "unigram"] = Field(default="bpe", description="how sub-words are learned")


class Sentence(NamedTuple):
    """A sentence as text, and from which to which character its words stand, (W, 2)."""

    text: str
    words: npt.NDArray[np.int64]


class Rules(NamedTuple):
    """Which tags may stand first (C,), follow each other (C, C), and stand last (C,)."""

    begins: Tensor
    follows: Tensor
    ends: Tensor


class Tagging(Task):
    """From the words of a sentence to their tags."""

    name: ClassVar[str] = "tagging"
    inputs: ClassVar[dict[str, str]] = {"tokens": "words"}
    outputs: ClassVar[dict[str, str]] = {"tags": "tags"}
    architecture: ClassVar[str] = "encoder"
    counts_framing: ClassVar[bool] = True
    counts_tokens: ClassVar[bool] = False
    reads: frozenset[str] = frozenset()
    settings: ClassVar[type[Settings]] = TaggingSettings
    cutting: ClassVar[tuple[str, ...]] = ("vocab_size", "algorithm")
    config: TaggingSettings

    @property
    def scheme(self) -> Scheme:
        """The scheme of the tags that are learned and answered."""
        return WRITTEN.get(self.config.scheme, self.config.scheme)

    def fault(self, example: Example) -> str | None:
        """Say what is wrong with the tags of a sentence: their number, an unknown one, or a span that is not whole."""
        tags, words = split_words(example["tags"]), split_words(example["tokens"])
        found = tags_fault(tags, words, self.config.scheme, strict=self.config.strict)
        if found is not None or "labels" not in self.parts:
            return found
        return next((self.labels.explain(tag) for tag in self.true_tags(example) if tag not in self.labels.labels), None)

    def true_spans(self, example: Example) -> list[Span]:
        """Return the spans that an example's tags make up."""
        return spans_of(split_words(example["tags"]), self.config.scheme)

    def true_tags(self, example: Example) -> list[str]:
        """Return an example's tags in the scheme that is learned."""
        return tags_of(self.true_spans(example), len(split_words(example["tags"])), self.scheme)

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> TaggedSurvey:
        """Count spans of each type, lengths, duplicates, sentences with several taggings, and leaks."""
        return survey_tagged(examples, others, scheme=self.config.scheme)

    def adopt(self, parts: Mapping[str, Part], labels: Sequence[str]) -> None:
        """Take over a tokenizer and the names of tags, which may be of another scheme."""
        super().adopt(parts, labels)
        self.parts["labels"] = Labels(labels, {})
        if any(parsed(label, self.scheme) is None for label in labels):
            self.config = self.config.replace(scheme=scheme_of(labels))

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the tags, how texts are cut into words, and the sub-words, unless these are inherited."""
        tags: Counter[str] = Counter()
        types: set[str] = set()
        symbols = False
        for example in examples:
            tags.update(self.true_tags(example))
            types.update(span.type for span in self.true_spans(example))
            symbols = symbols or any(map(is_symbols, split_words(example["tokens"])))
        if not types:
            raise DataError(
                f"the training data: all {tags.total():,} tokens have the tag O, so that there is nothing to learn; check the column of "
                "the tags (data.columns.tags=NAME)"
            )
        if self.config.symbols_apart is None:
            self.config = self.config.replace(symbols_apart=symbols)
        self.parts = {**self.inherited, "labels": Labels(labels_for(in_order(types), self.scheme), tags)}
        if "tokenizer" not in self.parts:
            texts = (" ".join(split_words(example["tokens"])) for example in examples)
            learned = Tokenizer.train(texts, algorithm=self.config.algorithm, vocab_size=self.config.vocab_size, cleaning=False)
            self.parts["tokenizer"] = learned
        elif cleans(self.tokenizer):
            raise ConfigError(
                "init: its tokenizer cleans texts (task.cleaning), so that places in them would be lost; start from a run trained with "
                "task.cleaning=false"
            )
        return self.parts

    @property
    def labels(self) -> Labels:
        """The tags."""
        return cast(Labels, self.parts["labels"])

    @property
    def types(self) -> list[str]:
        """The types of spans, in the order of their tags."""
        known = (parsed(label, self.scheme) for label in self.labels.labels)
        return list(dict.fromkeys(tag.type for tag in known if tag is not None and tag.type))

    @property
    def tokenizer(self) -> Tokenizer | ForeignTokenizer:
        """What cuts a sentence into tokens."""
        return cast(Tokenizer | ForeignTokenizer, self.parts["tokenizer"])

    @property
    def _tail(self) -> int:
        """End tokens behind a sentence."""
        return int(self.tokenizer.ends_texts)

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return the size of the vocabulary."""
        return {"vocabulary": {"size": self.tokenizer.vocab_size}}

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the sizes of the vocabulary and of the head; those of other tasks go."""
        if model.architecture != "encoder" or model.hierarchical:
            found = "model.hierarchical=true" if model.hierarchical else f"model.architecture={model.architecture}"
            raise ConfigError(f"{found}: tagging needs a plain encoder; leave it out")
        room = self.max_length - 1 - self._tail
        if self.config.overlap >= room:
            raise ConfigError(
                f"task.overlap={self.config.overlap} does not fit data.max_length={self.max_length}: a window has room for {room} tokens "
                "of a sentence; lower the one or raise the other"
            )
        odd = next((label for label in self.labels.labels if parsed(label, self.scheme) is None), None)
        if odd is not None:
            raise ConfigError(f"task.scheme={self.config.scheme} does not know the tag {odd!r}, which this model answers; try plain")
        sizes = {"vocab_size": self.tokenizer.vocab_size, "n_tags": len(self.labels.labels)}
        return model.replace(**sizes, n_classes=None, masked_lm=False)

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Encode many sentences at once.

        `tokens` are the ids (S,), with begin (and end); `words` for each word the place of its first token and from which to which
        character it stands (W, 3); `characters` the code points of the text (L, 16); `tags` the number of each word's tag (W,).
        """
        sentences = [self._sentence(example) for example in examples]
        found = self.tokenizer.with_places([sentence.text for sentence in sentences])
        encoded = [self._encoded(sentence, *placed) for sentence, placed in zip(sentences, found, strict=True)]
        if training:
            for one, example in zip(encoded, examples, strict=True):
                one["tags"] = torch.tensor([self.labels.index(tag) for tag in self.true_tags(example)], dtype=torch.long)
        return encoded

    def _sentence(self, example: Example) -> Sentence:
        """Return a sentence as text with its words; a list of words has one space between them."""
        tokens = example["tokens"]
        if isinstance(tokens, str):
            apart = self.config.symbols_apart is not False and example.get("tags") is None
            return Sentence(tokens, np.array(words_in(tokens, apart=apart), dtype=np.int64).reshape(-1, 2))
        ends = np.cumsum([len(word) + 1 for word in tokens], dtype=np.int64) - 1
        return Sentence(" ".join(tokens), np.stack([ends - [len(word) for word in tokens], ends], 1) if tokens else ends.reshape(0, 2))

    def _encoded(self, sentence: Sentence, ids: list[int], places: list[tuple[int, int]]) -> Encoded:
        end = [self.tokenizer.eos_id] * self._tail
        firsts = _first_tokens(sentence.words, np.array(places, dtype=np.int64).reshape(-1, 2))
        return {
            "tokens": torch.tensor([self.tokenizer.bos_id, *ids, *end], dtype=torch.long),
            "words": torch.from_numpy(np.concatenate([firsts[:, None], sentence.words], axis=1)),
            "characters": as_code_points(sentence.text),
        }

    def pieces(self, encoded: Encoded) -> Iterator[Encoded]:
        """Yield the windows of a sentence, each with the words that are learned in it."""
        ids, words = encoded["tokens"][None], encoded["words"]
        windows, chosen = self._windows(ids, torch.ones_like(ids, dtype=torch.bool))
        for tokens, real, places, learned in zip(windows.ids, windows.mask, windows.places, chosen, strict=True):
            there = torch.full((ids.size(1),), BEGIN).index_put((places[learned],), learned.nonzero()[:, 0])[words[:, 0]]
            mine = there != BEGIN
            if bool(mine.any()):
                moved = torch.cat([there[mine, None], words[mine, 1:]], 1)
                yield {"tokens": tokens[real], "words": moved, "tags": encoded["tags"][mine]}

    @property
    def long_examples(self) -> str:
        """Say what becomes of sentences beyond data.max_length."""
        return "read in windows"

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once."""
        return min(encoded["tokens"].size(0), self.max_length)

    def _windows(self, ids: Tensor, mask: Tensor) -> tuple[Windows, Tensor]:
        """Cut sentences (B, S) into windows, and choose in which each token is judged, (N, W)."""
        lengths = mask.sum(1)
        sizes = {"size": self.max_length, "overlap": self.config.overlap, "tail": self._tail}
        windows = cut_behind(ids, mask, torch.ones_like(lengths), **sizes)
        return windows, most_context(windows, lengths, head=1, tail=self._tail)

    def judge(self, model: Model, batch: Batch) -> Tensor:
        """Score the tags of every word of a batch; returns logits (B, W, C)."""
        assert isinstance(model, Encoder)
        ids, words = batch["tokens"], batch["words"]
        windows, chosen = self._windows(ids, batch.mask("tokens"))
        logits = torch.cat([model.tag_logits(part.ids, part.mask) for part in in_parts(windows)])  # (N, W, C)
        rows = windows.rows[:, None].expand_as(chosen)[chosen]
        judged = logits.new_zeros(*ids.shape, logits.size(-1)).index_put((rows, windows.places[chosen]), logits[chosen])
        return judged.gather(1, words[..., :1].expand(-1, -1, logits.size(-1)))

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the cross-entropy of every word's tag."""
        learned = batch.mask("words") & (batch["words"][..., 0] != BEGIN)
        smoothing = self.label_smoothing if model.training else 0.0
        return cross_entropy(self.judge(model, batch)[learned], batch["tags"][learned], smoothing=smoothing)

    @cached_property
    def rules(self) -> Rules:
        """Which tags may follow each other: all of them where answers need not be legal."""
        tags = [parsed(label, self.scheme) or Tag("S", label) for label in self.labels.labels]
        free = not self.config.legal
        whole = self.scheme in ("bilou", "bioes")
        begun = {tag.type for tag in tags if tag.role == "B"}  # a model of IOB1 may lack them

        def inside(tag: Tag) -> bool:
            return tag.role in "IE" and tag.type in begun

        def open_after(tag: Tag) -> bool:
            return whole and tag.role in "BI"

        def may_follow(one: Tag, other: Tag) -> bool:
            together = one.role in "BI" and other.role in "IE" and one.type == other.type
            return free or together or not (inside(other) or open_after(one))

        begins, ends = [free or not inside(tag) for tag in tags], [free or not open_after(tag) for tag in tags]
        return Rules(torch.tensor(begins), torch.tensor([[may_follow(a, b) for b in tags] for a in tags]), torch.tensor(ends))

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer with the spans of each sentence, and the tags they are made of."""
        mask = batch.mask("words")
        log_p = self.judge(model, batch).double().log_softmax(-1)
        rules = Rules(*(rule.to(log_p.device) for rule in self.rules))
        paths = best_paths(log_p, mask, begins=rules.begins, follows=rules.follows, ends=rules.ends)
        chosen = log_p.gather(2, paths[..., None])[..., 0].tolist()
        found = zip(paths.tolist(), chosen, batch["words"].tolist(), mask.sum(1).tolist(), self._texts(batch), strict=True)
        return [self._answer(text, words[:n], path[:n], sure[:n]) for path, sure, words, n, text in found]

    def _texts(self, batch: Batch) -> list[str]:
        rows = zip(batch["characters"].cpu(), batch.mask("characters").sum(1).tolist(), strict=True)
        return [excerpt(points[:n], 0, int((points[:n] >= 0).sum())) for points, n in rows]

    def _answer(self, text: str, words: list[list[int]], path: list[int], log_p: list[float]) -> Answer:
        tags, shares = [self.labels.labels[tag] for tag in path], np.exp(log_p).tolist()
        spans = [
            {
                "type": span.type,
                "start": words[span.start][1],
                "end": words[span.end - 1][2],
                "text": text[words[span.start][1] : words[span.end - 1][2]],
                "score": min(shares[span.start : span.end]),
                "words": [span.start, span.end],
            }
            for span in spans_of(tags, self.scheme)
        ]
        tokens = [text[start:end] for _, start, end in words]
        plain = self.scheme == "plain"
        shown = " ".join(f"{token}/{tag}" for token, tag in zip(tokens, tags, strict=True)) if plain else marked(text, spans)
        details = {**({} if plain else {"spans": spans}), "tags": tags, "tokens": tokens}
        return Answer(shown, float(np.exp(np.mean(log_p))) if log_p else 1.0, details=details)

    def metrics(self) -> TaggingMetrics:
        """Return an empty counter of scores."""
        return TaggingMetrics(self.types)

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that may choose the weights."""
        return SCORES

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add answers with the tags that were right; those of another scheme are judged by their spans."""
        assert isinstance(metrics, TaggingMetrics)
        for answer, example in zip(answers, examples, strict=True):
            right, answered = self.true_tags(example), answer.details["tags"]
            if "spans" in answer.details and self.scheme != "plain":
                found = [Span(span["type"], *span["words"]) for span in answer.details["spans"]]
                answered = tags_of(found, len(answered), self.scheme)
            else:
                found = spans_of(answered, "plain")
            if len(answered) != len(right):
                raise DataError(f"{len(answered)} tags were answered to a sentence of {len(right)} words; compare runs of one sort of tags")
            metrics.add(self.true_spans(example), found, n_right=sum(map(str.__eq__, answered, right)), n_words=len(right))

    def memory_advice(self, length: int) -> str:
        """Say what to set where a window does not fit into memory."""
        return f"read less at once (data.max_length={max(1, min(length, self.max_length) // 2)})"

    def answer_length(self, answer: Answer) -> int:
        """Return how many words were tagged."""
        return len(answer.details["tags"])


def _first_tokens(words: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the place of the first token that stands for a part of each word, (W, 2) and (S, 2) -> (W,), counting the begin token."""
    if not len(tokens):
        return np.full(len(words), BEGIN, dtype=np.int64)
    first = np.searchsorted(tokens[:, 1], words[:, 0], side="right")
    inside = tokens[np.minimum(first, len(tokens) - 1), 0] < words[:, 1]
    return np.where((first < len(tokens)) & inside, first + 1, BEGIN)


def marked(text: str, spans: Sequence[Mapping[str, Any]]) -> str:
    """Write a text with its spans in brackets, such as "[PER Ada Lovelace] was here"."""
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span["start"]], f"[{span['type']} {span['text']}]"]
        at = span["end"]
    return "".join([*pieces, text[at:]])
