"""Tokenizers of other makers: a pipeline in the format of the `tokenizers` library, whose ids are put into heed's order.

Everywhere in heed padding is 0, begin 1, end 2 and unknown 3. A vocabulary that has them elsewhere is permuted when it is imported, rows
of weights with it (heed/convert), and back when it is exported, so that nothing but this part knows of foreign ids.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from heed.data.text import GIVEN_CHARACTER, SURROGATE, byte_values, join_surrogates, starts_of_words
from heed.data.vocabulary import SPECIALS, ForeignVocabulary, for_the_eye
from heed.errors import CheckpointError, ConfigError

SPACE = "▁"  # stands for a space in SentencePiece-like vocabularies
CONTINUES = "##"  # begins a piece of WordPiece that goes on with a word
SENTINEL = "<extra_id_{}>"  # T5's names of what stands for a gap


@dataclass(frozen=True)
class Frame:
    """What stands around texts.

    Args:
        begin: the heed id that begins a text: 1, or 2 where the end of one text begins the next (GPT-2).
        begins_texts: whether a text that is continued begins with it, as its maker's tokenizer has it.
        ends_texts: whether a text that an encoder reads ends with the end token (BERT).
        separators: end tokens between two texts that an encoder reads (RoBERTa has 2).
        mask: the heed id of what stands for a hidden token, if there is one.
    """

    begin: int = 1
    begins_texts: bool = True
    ends_texts: bool = False
    separators: int = 1
    mask: int | None = None


class ForeignTokenizer(ForeignVocabulary):
    """A tokenizer of another maker between text and heed's ids; a `Part` that is saved as one JSON file.

    Tokens that stand for nothing else ("[MASK]", "<|user|>") are found in text, as their maker finds them; but to an encoder, which tells
    texts apart by their end tokens, a begin, end or padding token that a text spells is unknown.

    Args:
        pipeline: what tokenizer.json says.
        specials: the foreign ids of padding, begin, end and unknown; None for one that the vocabulary lacks.
        n_foreign: foreign ids, which may be more than the pipeline knows.
        frame: what stands around texts.
        settings: what tokenizer_config.json says, for exporting.
    """

    kind: ClassVar[str] = "foreign_tokenizer"

    def __init__(
        self,
        pipeline: Mapping[str, Any],
        specials: Sequence[int | None],
        n_foreign: int,
        *,
        frame: Frame | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(specials, n_foreign)
        self.pipeline = dict(pipeline)
        self.backend = Backend.from_str(json.dumps(self.pipeline))
        self.backend.no_truncation()
        self.backend.no_padding()
        self.frame = frame or Frame()
        self.settings = dict(settings or {})
        self.bos_id = self.frame.begin
        self.begins_texts, self.ends_texts = self.frame.begins_texts, self.frame.ends_texts
        self.separators = self.frame.separators
        self._ours = self._numbers(n_foreign)

    def _numbers(self, n_foreign: int) -> NDArray[np.int64]:
        """Return the heed id of each foreign one that comes out of text."""
        ours = np.full(n_foreign, self.unk_id, dtype=np.int64)
        for index, foreign in enumerate(self.ids):
            if foreign is not None:
                ours[foreign] = index
        for foreign in self.specials[: self.unk_id] if self.ends_texts else ():
            if foreign is not None:
                ours[foreign] = self.unk_id
        return ours

    @property
    def mask_id(self) -> int:
        """The id of what stands for a hidden token; raises ConfigError where there is none."""
        if self.frame.mask is None:
            raise ConfigError("this vocabulary has no token for what is hidden ([MASK], <mask>); import a model that was trained with one")
        return self.frame.mask

    def sentinels(self, n: int) -> list[int]:
        """Return the ids of what stands for the first n gaps of a text; raises ConfigError where there are fewer."""
        found = [self.backend.token_to_id(SENTINEL.format(number)) for number in range(n)]
        if None in found:
            raise ConfigError(f"this vocabulary has {found.index(None)} sentinels ({SENTINEL.format(0)} ...), expected {n}")
        return [int(self._ours[index]) for index in found]

    def named(self, token: str) -> int:
        """Return the id of a token by its text, such as "<|en|>"; raises ConfigError where there is none."""
        found = self.backend.token_to_id(token)
        if found is None:
            raise ConfigError(f"this vocabulary has no token {token!r}; name one of its own")
        return self.ids.index(found)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `encode` does."""
        encodings = self.backend.encode_batch_fast([*map(join_surrogates, texts)], add_special_tokens=False)
        return [self._ours[encoding.ids].tolist() if encoding.ids else [] for encoding in encodings]

    def with_places(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Return the ids of each text, and from which to which character each stands for; white space around it is not counted."""
        encodings = self.backend.encode_batch([*map(join_surrogates, texts)], add_special_tokens=False)
        return [self._placed(encoding, text) for encoding, text in zip(encodings, texts, strict=True)]

    def _placed(self, encoding: Encoding, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids = self._ours[encoding.ids].tolist() if encoding.ids else []
        given = (
            [*(match.start() for match in GIVEN_CHARACTER.finditer(text)), len(text)] if SURROGATE.search(text) else range(len(text) + 1)
        )
        return ids, [_without_space(text, given[start], given[end]) for start, end in encoding.offsets]

    def decode_batch(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each sequence of ids, as `decode` does."""
        foreign = [[index for one in ids if (index := self.ids[self.known(one)]) is not None] for ids in batch]
        return self.backend.decode_batch(foreign, skip_special_tokens=True)

    def token(self, index: int) -> str:
        """Return one token for the eye: "▁" is a space, "\\xe5" a byte that is no character by itself."""
        foreign = self.ids[self.known(index)]
        piece = self.pieces[index]
        if foreign is None or not piece:
            return (None if foreign is None else self.backend.id_to_token(foreign)) or (SPECIALS[index] if index < len(SPECIALS) else "")
        return for_the_eye(piece.decode("utf-8", "backslashreplace"))

    def word_starts(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which tokens (S,) of a text start a word, as heed's own tokenizer does; pieces of WordPiece that go on do not."""
        chosen = np.asarray(ids, dtype=np.int64)
        silent = np.array([not self.pieces[index] for index in chosen.tolist()], dtype=np.bool_)
        return starts_of_words([self.pieces[index] for index in chosen.tolist()], silent)

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of UTF-8 that each id writes, by id (V,); special tokens write nothing."""
        added = self.backend.get_added_tokens_decoder()
        spell = _spelling(self.pipeline)
        return [b"" if foreign is None else self._piece(foreign, added, spell) for foreign in self.ids]

    def _piece(self, foreign: int, added: Mapping[int, Any], spell: "Spelling") -> bytes:
        token = self.backend.id_to_token(foreign)
        if token is None or foreign in self.specials:
            return b""
        if foreign in added:
            return b"" if added[foreign].special else token.encode()
        return spell(token)

    def to_json(self) -> dict[str, Any]:
        """Return `tokenizer` (the pipeline), `specials`, `n_foreign`, `frame` and `settings`."""
        return {
            "specials": self.specials,
            "n_foreign": len(self._ours),
            "frame": vars(self.frame),
            "settings": self.settings,
            "tokenizer": self.pipeline,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build the tokenizer again; raises CheckpointError when the content is none."""
        try:
            specials, n_foreign = _checked(content["specials"], content["n_foreign"])
            frame, said = _checked_frame(Frame(**content["frame"]), n_foreign), dict(content["settings"])
            tokenizer = cls(content["tokenizer"], specials, n_foreign, frame=frame, settings=said)
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"not a tokenizer ({error!r}); restore the run folder from a copy") from error
        highest = max(tokenizer.backend.get_vocab(with_added_tokens=True).values(), default=-1)
        if highest >= n_foreign:
            raise CheckpointError(f"not a tokenizer: it knows the id {highest}, expected below {n_foreign}; restore the folder from a copy")
        return tokenizer


class Spelling:
    """What a piece of a vocabulary writes, in UTF-8."""

    def __call__(self, token: str) -> bytes:
        """Return the bytes of a piece; a space before a word is one of them."""
        return token.encode()


class BytePieces(Spelling):
    """Pieces of bytes, each of which stands as a printable character (GPT-2)."""

    def __call__(self, token: str) -> bytes:
        """Return the bytes; what is not in the alphabet stands for itself."""
        values = byte_values()
        return bytes(values[char] for char in token) if set(token) <= values.keys() else token.encode()


class WordPieces(Spelling):
    """Words and "##" continuations (BERT)."""

    def __call__(self, token: str) -> bytes:
        """Return a continuation, or a word behind a space."""
        return token.removeprefix(CONTINUES).encode() if token.startswith(CONTINUES) else f" {token}".encode()


class MarkedPieces(Spelling):
    """Pieces in which "▁" is a space (SentencePiece), and bytes such as <0x0A> where characters are none of them."""

    def __init__(self, *, byte_fallback: bool) -> None:
        self.byte_fallback = byte_fallback

    def __call__(self, token: str) -> bytes:
        """Return the bytes, with spaces for their marks."""
        if self.byte_fallback and len(token) == len("<0x00>") and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace(SPACE, " ").encode()


def _spelling(pipeline: Mapping[str, Any]) -> Spelling:
    """Return how the pieces of a pipeline are spelled."""
    model = pipeline.get("model") or {}
    if model.get("type") == "WordPiece":
        return WordPieces()
    if "ByteLevel" in {*_types(pipeline.get("decoder")), *_types(pipeline.get("pre_tokenizer"))}:
        return BytePieces()
    return MarkedPieces(byte_fallback=bool(model.get("byte_fallback")))


def _types(stage: Any) -> Iterator[str]:
    """Yield the types of a stage of a pipeline and of the stages inside it."""
    if isinstance(stage, Mapping):
        yield str(stage.get("type"))
        for inner in (*stage.get("pretokenizers", ()), *stage.get("decoders", ()), *stage.get("normalizers", ())):
            yield from _types(inner)


def _checked(specials: Any, n_foreign: Any) -> tuple[list[int | None], int]:
    """Return the foreign ids of special tokens; raises ValueError unless they are different ids of the vocabulary."""
    if not _is_whole(n_foreign) or n_foreign < 1 or not isinstance(specials, list) or len(specials) != len(SPECIALS):
        raise ValueError(f"expected {len(SPECIALS)} special tokens and the size of the vocabulary, found {specials!r} and {n_foreign!r}")
    known = [index for index in specials if index is not None]
    if len(set(known)) < len(known) or not all(_is_whole(index) and 0 <= index < n_foreign for index in known):
        raise ValueError(f"special tokens {specials!r} are not different ids below {n_foreign}")
    return specials, n_foreign


def _checked_frame(frame: Frame, n_foreign: int) -> Frame:
    """Return what stands around texts; raises ValueError for ids that cannot be and for what is neither true nor false."""
    truths = (frame.begins_texts, frame.ends_texts)
    if frame.begin not in (1, 2) or not all(isinstance(value, bool) for value in truths) or not _is_whole(frame.separators):
        raise ValueError(f"{frame} is not what stands around texts")
    if frame.mask is not None and not (_is_whole(frame.mask) and 0 <= frame.mask < n_foreign):
        raise ValueError(f"the mask has the id {frame.mask!r}, expected one below {n_foreign}")
    return frame


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _without_space(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the places of text[start:end] without white space around it; where it is all white space, itself."""
    inner = text[start:end]
    if not inner.strip():
        return start, end
    return start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
