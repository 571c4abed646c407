"""What every vocabulary has, whatever it cuts a text into: four special tokens with the lowest ids, and one way to show a token."""

from collections.abc import Iterable, Sequence

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


class Vocabulary:
    """What stands between texts and ids.

    Attributes:
        pad_id, bos_id, eos_id, unk_id: of padding, of begin and end, and of what is unknown.
        ends_texts: whether a text that an encoder reads ends with the end token.
        separators: end tokens between two texts that an encoder reads.
    """

    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    unk_id: int = 3
    ends_texts: bool = False
    separators: int = 1

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        raise NotImplementedError

    @property
    def absent(self) -> list[int]:
        """Ids that stand for nothing: nothing is ever written with them. Only vocabularies of other makers have some."""
        return []

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without begin and end; no text gives no ids."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `encode` does; a vocabulary defines at least one of the two."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens skipped; raises ValueError for an id outside the vocabulary."""
        return self.decode_batch([ids])[0]

    def decode_batch(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each sequence of ids, as `decode` does; a vocabulary defines at least one of the two."""
        return [self.decode(ids) for ids in batch]

    def unknown_share(self, texts: Iterable[str]) -> float:
        """Return which share of what some texts are cut into is not in the vocabulary; 0 for no text."""
        n_unknown = n_all = 0
        for text in texts:
            ids = self.encode(text)
            n_unknown += ids.count(self.unk_id)
            n_all += len(ids)
        return n_unknown / max(1, n_all)

    def known(self, index: int) -> int:
        """Return an id as an int; raises ValueError for one outside the vocabulary."""
        if not 0 <= index < self.vocab_size:
            raise ValueError(f"id {index} is outside the vocabulary: expected 0 to {self.vocab_size - 1}")
        return int(index)


class ForeignVocabulary(Vocabulary):
    """A vocabulary of another maker under heed's ids: the special tokens first, then all its other tokens in its own order.

    Attributes:
        specials: the foreign ids of padding, begin, end and unknown; None for one that there is not.
        ids: the foreign id of each of heed's.
    """

    def __init__(self, specials: Sequence[int | None], n_foreign: int) -> None:
        self.specials = list(specials)
        known = set(self.specials)
        self.ids: list[int | None] = [*self.specials, *(index for index in range(n_foreign) if index not in known)]

    @property
    def vocab_size(self) -> int:
        """Number of heed's ids, special tokens included."""
        return len(self.ids)

    @property
    def absent(self) -> list[int]:
        """Heed's ids that the foreign vocabulary lacks: nothing is ever written with them."""
        return [index for index, foreign in enumerate(self.ids) if foreign is None]


def for_the_eye(text: str) -> str:
    """Return a token as it is shown: "▁" is a space, "\\n" a line end."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text.replace(" ", "▁"))
