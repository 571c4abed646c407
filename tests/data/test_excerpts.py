"""Places of tokens in their texts, and texts that are quoted from numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.excerpts import ROW, as_code_points, excerpt
from heed.data.text import Tokenizer, join_surrogates
from heed.errors import ConfigError

TOKENIZERS = [
    Tokenizer.train(["the dog sees 三只狗, naïve 🙂 the dog\n the"] * 3, algorithm=algorithm, vocab_size=size, cleaning=False)
    for algorithm, size in (("bpe", 290), ("unigram", 280))
]
texts = st.text(st.sampled_from("the dog 三只狗好ïé🙂👩\u200d🚀\n\t\ud83d\ude00\ud800"), max_size=20) | st.text(max_size=10)


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["bpe", "unigram"])
@given(text=texts)
def test_places_are_those_of_the_bytes_of_each_sub_word(tokenizer: Tokenizer, text: str) -> None:
    ((ids, places),) = tokenizer.with_places([text])
    assert ids == tokenizer.encode(text)
    owner = [i for i, char in enumerate(_characters(text)) for _ in join_surrogates(char).encode()]  # the character of each byte
    bounds = [0]
    for char in _characters(text):
        bounds.append(bounds[-1] + len(char))
    at = -1 if text else 0  # the space put in front is a byte of no character
    for index, place in zip(ids, places, strict=True):
        piece = tokenizer._pieces[index]
        mine = list(range(at, at + len(piece)))
        at += len(piece)
        if len(piece) > 1 and piece.startswith(b" "):
            mine = mine[1:]
        mine = [byte for byte in mine if byte >= 0]
        expected = (bounds[owner[mine[0]]], bounds[owner[mine[-1]] + 1]) if mine else (0, 0)
        assert place == expected
    assert at == len(owner)


def _characters(text: str) -> list[str]:
    """Return the characters of a text, of which a pair of surrogates is one."""
    found: list[str] = []
    for char in text:
        if found and len(found[-1]) == 1 and "\ud800" <= found[-1] <= "\udbff" and "\udc00" <= char <= "\udfff":
            found[-1] += char
        else:
            found.append(char)
    return found


def test_many_texts_have_the_places_of_each() -> None:
    texts = ["the dog", "", "三只狗 sees"]
    for tokenizer in TOKENIZERS:
        assert tokenizer.with_places(texts) == [tokenizer.with_places([text])[0] for text in texts]


def test_a_tokenizer_that_cleans_knows_no_places() -> None:
    with pytest.raises(ConfigError, match="cleaning=False"):
        Tokenizer.train(["a dog"], algorithm="bpe", vocab_size=270).with_places(["a dog"])


@given(st.text(st.characters(), max_size=40), st.integers(0, 40), st.integers(0, 40))
def test_an_excerpt_is_the_slice_of_the_text(text: str, start: int, end: int) -> None:
    end = min(end, len(text))
    assert excerpt(as_code_points(text), min(start, end), end) == text[min(start, end) : end]
    assert as_code_points(text).shape == (max(1, -(-len(text) // ROW)), ROW)
