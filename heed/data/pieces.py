"""Pieces of text as Marian's models know them: a SentencePiece unigram model cuts, and a vocabulary of its own numbers the pieces.

Text is normalised as SentencePiece does it (rules of replacement, the longest first), which the `tokenizers` library does only in part.
The cutting itself is that library's. Left out: where in the text a piece stands, and sampling. Source: Kudo 2018 (unigram), and Kudo &
Richardson 2018, section 3.2 (normalisation by a table of replacements).
"""

import base64
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as Backend
from tokenizers import models

from heed.data.text import SURROGATE
from heed.data.vocabulary import SPECIALS, ForeignVocabulary
from heed.errors import CheckpointError

SPACE = "▁"
CODE = re.compile(r">>.*?<<", re.DOTALL)  # names the wished language in front of a source


class Replacements:
    """What text becomes before it is cut: at each place the longest key of a precompiled table is replaced.

    The table is the length of a double-array trie in bytes, the trie as 32-bit units, and then what the keys become, each ended by a zero
    byte. A unit holds the byte that leads to it, how far its children are away, and whether a key ends there (Yata's darts-clone).
    """

    def __init__(self, table: bytes) -> None:
        (n_bytes,) = struct.unpack_from("<I", table) if table else (0,)
        self._units = struct.unpack_from(f"<{n_bytes // 4}I", table, 4) if table else ()
        self._texts = table[4 + n_bytes :]

    def __call__(self, text: str) -> str:
        """Return the text with all replacements made."""
        if not self._units:
            return text
        raw, place, written = text.encode(), 0, bytearray()
        while place < len(raw):
            end, new = self._longest(raw, place)
            if end == place:
                end = place + _length_of_character(raw[place])
                new = raw[place:end]
            written += new
            place = end
        return written.decode()

    def _longest(self, raw: bytes, place: int) -> tuple[int, bytes]:
        """Return where the longest key that begins at a place ends, and what it becomes; the place itself where there is none."""
        units, end, new = self._units, place, -1
        node = _children(units[0])
        for i in range(place, len(raw)):
            node ^= raw[i]
            if node >= len(units) or units[node] & 0x800000FF != raw[i]:
                break
            unit = units[node]
            node ^= _children(unit)
            if unit >> 8 & 1:
                end, new = i + 1, units[node] & 0x7FFFFFFF
        return end, b"" if new < 0 else self._texts[new : self._texts.index(0, new)]


def _children(unit: int) -> int:
    """Return how far the children of a unit are away, to be taken exclusively-or with its own place."""
    return (unit >> 10) << ((unit & (1 << 9)) >> 6)


def _length_of_character(first: int) -> int:
    """Return how many bytes of UTF-8 a character has that begins with a byte."""
    return 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


class PieceTokenizer(ForeignVocabulary):
    """Sub-words of a SentencePiece unigram model, numbered by a list that may hold other pieces too, such as those of the other language.

    What the model does not cover is looked up in the list as it stands, so that characters of the other language are known as well.
    Texts cannot spell special tokens.

    Args:
        pieces: with their log-probabilities, one that stands for what is unknown among them.
        unknown: which of them stands for what is unknown.
        charsmap: the table of what text becomes before it is cut, in base64; empty for none.
        names: the piece of each foreign id, None where an id has none.
        specials: the foreign ids of padding, begin, end and unknown; None for one that there is not.
        original: the file that pieces and replacements are from, in base64, for exporting.
    """

    kind: ClassVar[str] = "piece_tokenizer"
    mask_id: ClassVar[int] = 3

    def __init__(
        self,
        pieces: Sequence[tuple[str, float]],
        unknown: int,
        *,
        charsmap: str,
        names: Sequence[str | None],
        specials: Sequence[int | None],
        original: str,
    ) -> None:
        super().__init__(specials, len(names))
        self.pieces, self.unknown = list(pieces), unknown
        self.charsmap, self._replacements = charsmap, Replacements(base64.b64decode(charsmap, validate=True))
        self.names, self.original = list(names), original
        self.backend = Backend(models.Unigram(self.pieces, unk_id=unknown, byte_fallback=False))
        self.vocabulary = [None if index is None else self.names[index] for index in self.ids]  # of heed's ids
        self._numbers = {piece: i for i, piece in enumerate(self.vocabulary) if piece is not None and i >= len(SPECIALS)}

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `encode` does."""
        codes = [CODE.match(text) for text in texts]
        rest = [text if code is None else text[code.end() :] for text, code in zip(texts, codes, strict=True)]
        cut = self.backend.encode_batch(
            [self.normalised(text) for text in rest], add_special_tokens=False
        )  # the fast one leaves the pieces' names out
        named = [encoding.tokens if code is None else [code[0], *encoding.tokens] for encoding, code in zip(cut, codes, strict=True)]
        return [[self._numbers.get(piece, self.unk_id) for piece in pieces] for pieces in named]

    def normalised(self, text: str) -> str:
        """Return a text as it is cut: replaced, without superfluous spaces, a space before every word written as `SPACE`."""
        text = self._replacements(SURROGATE.sub("\ufffd", text))
        text = re.sub(" {2,}", " ", text.strip(" "))
        return (SPACE + text).replace(" ", SPACE) if text else ""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens skipped.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        pieces = [self.token(i) for i in ids if i not in range(len(SPECIALS))]
        return "".join(pieces).replace(SPACE, " ").strip()

    def token(self, index: int) -> str:
        """Return one piece for the eye; "▁" is a space."""
        return SPECIALS[index] if self.known(index) < len(SPECIALS) else self.vocabulary[index] or ""

    def word_starts(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which pieces (S,) of a text start a word: the first, special ones and what follows them, and those behind a space."""
        chosen = np.asarray(ids, dtype=np.int64)
        special = chosen < len(SPECIALS)
        starts = np.array([self.token(i).startswith(SPACE) for i in chosen.tolist()], dtype=np.bool_) | special
        starts[:1] = True
        starts[1:] |= special[:-1]
        return starts

    def to_json(self) -> dict[str, Any]:
        """Return what it is made of by name."""
        return {
            "pieces": [list(pair) for pair in self.pieces],
            "unknown": self.unknown,
            "charsmap": self.charsmap,
            "names": self.names,
            "specials": self.specials,
            "original": self.original,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build the tokenizer again; raises CheckpointError when the content is none."""
        fault = _fault(content)
        if fault:
            raise CheckpointError(f"not a tokenizer of pieces: {fault}; restore the run folder from a copy")
        pieces = [(piece, float(score)) for piece, score in content["pieces"]]
        more = {name: content[name] for name in ("charsmap", "names", "specials", "original")}
        try:
            return cls(pieces, content["unknown"], **more)
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"not a tokenizer of pieces ({error!r}); restore the run folder from a copy") from error


def _fault(content: Mapping[str, Any]) -> str | None:
    """Say what is wrong with what a part file holds, or return None."""
    names = ("pieces", "unknown", "charsmap", "names", "specials", "original")
    if set(content) != set(names):
        return f"expected {', '.join(names)}, found {', '.join(map(str, content))}"
    if not _are(content["pieces"], _is_scored) or type(content["unknown"]) is not int:
        return "its pieces are not a list of texts with numbers"
    if not 0 <= content["unknown"] < len(content["pieces"]):
        return f"piece {content['unknown']} for what is unknown is not one of {len(content['pieces'])}"
    if not _are(content["names"], lambda one: one is None or isinstance(one, str)):
        return "its names are not a list of pieces"
    if not isinstance(content["charsmap"], str) or not isinstance(content["original"], str):
        return "its charsmap or the original is no text in base64"
    return _fault_of_specials(content["specials"], len(content["names"]))


def _fault_of_specials(specials: object, n: int) -> str | None:
    if not _are(specials, lambda one: one is None or (type(one) is int and 0 <= one < n)):
        return f"its special tokens {specials!r} are not ids below {n}"
    assert isinstance(specials, list)
    known = [one for one in specials if one is not None]
    if len(specials) != len(SPECIALS) or len(set(known)) < len(known):
        return f"its special tokens {specials!r} are not {len(SPECIALS)} different ones"
    return None


def _is_scored(one: object) -> bool:
    return isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and type(one[1]) in (int, float)


def _are(values: object, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and all(map(fits, values))
