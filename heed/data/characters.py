"""Characters: the smallest vocabulary of a text, and the bytes that tokens write."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

from heed.data.foreign import ForeignTokenizer
from heed.data.text import Tokenizer, byte_values, join_surrogates
from heed.data.vocabulary import SPECIALS, Vocabulary, for_the_eye
from heed.errors import CheckpointError, ConfigError, DataError

UNKNOWN = "\ufffd"  # what an unknown character is read as


class Characters(Vocabulary):
    """A vocabulary of characters, from which any text of known ones comes back exactly; a `Part` that is saved as one JSON file.

    Characters are code points, white space and line ends among them. `Words` with unit="characters" folds white space instead.

    Args:
        characters: by id, those behind the special tokens.
    """

    kind: ClassVar[str] = "characters"

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = [*SPECIALS, *characters]
        self._ids = {character: index for index, character in enumerate(self.characters) if index >= len(SPECIALS)}

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int) -> Self:
        """Take the most frequent characters of texts, which are read once; equally frequent ones in the order of text.

        Raises:
            ConfigError: a size that holds no more than the special tokens.
            DataError: no text has anything in it.
        """
        if vocab_size <= len(SPECIALS):
            raise ConfigError(f"task.vocab_size={vocab_size} is not above {len(SPECIALS)}, what special tokens need")
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(join_surrogates(text))
        if not counts:
            raise DataError("no text to take characters from: none was left for training, or every text is empty; check the data files")
        ranked = sorted(counts, key=lambda character: (-counts[character], character))
        return cls(ranked[: vocab_size - len(SPECIALS)])

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without begin and end; a character that is not in the vocabulary is unknown (id 3)."""
        return [self._ids.get(character, self.unk_id) for character in join_surrogates(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; an unknown character is U+FFFD, other special tokens are nothing.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        return "".join(self._read(index) for index in ids)

    def token(self, index: int) -> str:
        """Return one character for the eye: "▁" is a space."""
        return for_the_eye(self.characters[self.known(index)])

    def _read(self, index: int) -> str:
        if self.known(index) == self.unk_id:
            return UNKNOWN
        return "" if index < len(SPECIALS) else self.characters[index]

    def to_json(self) -> dict[str, Any]:
        """Return `characters`, by id behind the special tokens."""
        return {"characters": "".join(self.characters[len(SPECIALS) :])}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build the vocabulary again; raises CheckpointError when the content is none."""
        characters = content.get("characters")
        if not isinstance(characters, str) or not characters or len(set(characters)) < len(characters):
            raise CheckpointError("not a vocabulary of characters, each of which stands there once; restore the run folder from a copy")
        return cls(list(characters))


def spellings(tokenizer: Tokenizer | Characters | ForeignTokenizer) -> list[bytes]:
    """Return the bytes of UTF-8 that every id writes, by id; special tokens write nothing."""
    if isinstance(tokenizer, ForeignTokenizer):
        return tokenizer.pieces
    if isinstance(tokenizer, Characters):
        written = [character.encode() for character in tokenizer.characters[len(SPECIALS) :]]
    else:
        values, backend = byte_values(), tokenizer.backend
        pieces = (backend.id_to_token(index) or "" for index in range(len(SPECIALS), tokenizer.vocab_size))
        written = [bytes(values[char] for char in piece) for piece in pieces]
    return [b"" for _ in SPECIALS] + written
