"""How a classifier reads texts that are longer than it sees at once: in windows, cut, or sentence by sentence."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from heed.data.batch import collate
from heed.data.foreign import ForeignTokenizer
from heed.data.store import Encoded, Store
from heed.data.text import Tokenizer
from heed.data.words import Words
from heed.errors import ConfigError
from heed.model.windows import Windows, cut_pairs, cut_windows, first_windows, framed_windows, shortened
from heed.tasks.text_settings import TextClassificationSettings

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；\n])")
OF_WINDOWS = ("long_texts", "overlap", "train_windows")  # settings that say how texts are cut
READ_TOGETHER = 1 << 14  # tokens of texts, padding included, that `texts_of` yields at a time
LEAST_OF_PAIR = 3  # tokens of a window: one of each text, and the end between them


@dataclass(frozen=True)
class LongTexts:
    """The way that long texts are read.

    Attributes:
        size: tokens of a window, without what frames it (data.max_length).
        overlap: tokens that neighbouring windows share.
        begin, end: ids that frame a window; None for no end.
        separators: how many ends stand between two texts.
        pair: whether examples are two texts, with one end between them.
        cuts: whether only the beginning of a long text is read.
        by_sentence: whether a hierarchical model reads whole texts, whose sentences are marked by ends.
    """

    size: int
    overlap: int
    begin: int
    end: int | None
    separators: int
    pair: bool
    cuts: bool
    by_sentence: bool

    @classmethod
    def of(
        cls, config: TextClassificationSettings, tokenizer: Tokenizer | Words | ForeignTokenizer, size: int, *, by_sentence: bool
    ) -> Self:
        """Return what settings and a tokenizer ask for."""
        cuts = config.long_texts == "truncate" and not by_sentence
        end = Tokenizer.eos_id if tokenizer.ends_texts else None
        overlap = 0 if cuts else config.overlap
        return cls(size, overlap, tokenizer.bos_id, end, tokenizer.separators, bool(config.pair), cuts, by_sentence)

    def check(self, config: TextClassificationSettings) -> None:
        """Raise ConfigError where the settings of windows do not fit the model or the length of a window."""
        if self.by_sentence:
            ignored = next((name for name in OF_WINDOWS if config.changed(name)), None)
            if ignored is not None:
                raise ConfigError(f"task.{ignored} would be ignored with model.hierarchical=true, which reads whole texts; leave it out")
            return
        if not self.cuts and self.overlap >= self.size:
            raise ConfigError(f"task.overlap={self.overlap} does not fit data.max_length={self.size}, the tokens of a window; lower it")
        if self.pair and self.size < LEAST_OF_PAIR:
            raise ConfigError(
                f"data.max_length={self.size} has no room for a token of each text and the end between them; make it {LEAST_OF_PAIR} "
                "or more"
            )

    @property
    def fate(self) -> str:
        """Say what becomes of texts beyond data.max_length."""
        return "cut" if self.cuts else "read by their sentences" if self.by_sentence else "read in windows"

    @property
    def n_framing(self) -> int:
        """Tokens around those of a window: begin, and what else its tokenizer puts there."""
        return 1 + int(self.end is not None) + (self.separators - 1 if self.pair else 0)

    def fitted(self, ids: Tensor) -> Tensor:
        """Return of a text (S,) what training is given: all, or what is left of it where it is cut; of two texts the longer first."""
        if not self.cuts or ids.size(0) <= self.size:
            return ids
        if not self.pair:
            return ids[: self.size]
        end = int((ids == Tokenizer.eos_id).int().argmax())
        n_first, n_second = shortened(end, ids.size(0) - end - 1, self.size - 1)
        return torch.cat([ids[:n_first], ids[end : end + 1 + n_second]])

    def read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return what is read of texts (B, S) at all, in however many windows: their ids + 1 (B, L), 0 for padding."""
        if not self.cuts:
            return torch.where(mask, ids + 1, 0)
        return pad_sequence([self.fitted(text[real]) + 1 for text, real in zip(ids, mask, strict=True)], batch_first=True)

    def windows(self, ids: Tensor, mask: Tensor, most: int | None = None) -> Windows:
        """Cut texts (B, S) into windows, each with a begin token and, where the tokenizer has it so, an end token.

        Args:
            most: windows of a text; of more, so many are drawn. None leaves all.
        """
        sizes = {"size": self.size, "overlap": self.overlap}
        if self.pair:
            ends = ((ids == Tokenizer.eos_id) & mask).int().argmax(1)
            cut = cut_pairs(ids, mask, ends, **sizes, most=most)
        else:
            cut = cut_windows(ids, mask, **sizes, most=most)
        cut = first_windows(cut) if self.cuts else cut
        repeated = Tokenizer.eos_id if self.pair and self.separators > 1 else None
        return framed_windows(cut, begin=self.begin, end=self.end, separator=repeated)

    def way(self, length: int, n_windows: int) -> dict[str, int]:
        """Say of a text of so many tokens how it was read, if not at once and whole."""
        if self.cuts:
            return {"cut": length - self.size} if length > self.size else {}
        return {"windows": n_windows} if n_windows > 1 else {}


def with_ends(text: str, tokenizer: Tokenizer | Words | ForeignTokenizer, longest: int) -> list[int]:
    """Return the ids of a text with an end after each sentence, and in sentences of more than `longest` tokens after so many."""
    sentences = [sentence for sentence in SENTENCE_END.split(text) if sentence.strip()]
    pieces = (ids[start : start + longest] for ids in tokenizer.encode_batch(sentences) for start in range(0, len(ids), longest))
    return [token for piece in pieces for token in (*piece, Tokenizer.eos_id)]


def texts_of(store: Store) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the ids (B, S) of encoded texts with their masks, a few at a time: one that is very long stands alone."""
    some: list[Encoded] = []
    for i in range(len(store)):
        text = store[i]["text"]
        if some and (len(some) + 1) * max(len(text), *(len(one["text"]) for one in some)) > READ_TOGETHER:
            yield _laid(some)
            some = []
        some.append({"text": text})
    yield _laid(some)


def _laid(texts: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    batch = collate(texts)
    return batch["text"], batch.mask("text")
