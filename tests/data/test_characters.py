"""Characters, and the bytes that tokens write."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.characters import Characters, spellings
from heed.data.parts import load_parts, save_parts
from heed.data.text import Tokenizer
from heed.data.vocabulary import SPECIALS
from heed.errors import CheckpointError, ConfigError, DataError

ALPHABET = "ab \n\t\r好🙂\u0301"
known = st.text(st.sampled_from(ALPHABET))


@pytest.fixture(scope="module")
def characters() -> Characters:
    return Characters.train([ALPHABET, "aab"], vocab_size=300)


@given(text=known)
def test_a_text_of_known_characters_comes_back_exactly(characters: Characters, text: str) -> None:
    ids = characters.encode(text)
    assert len(ids) == len(text)
    assert characters.decode(ids) == text
    assert characters.decode([characters.bos_id, *ids, characters.eos_id, characters.pad_id]) == text
    assert characters.encode_batch([text, ""]) == [ids, []]


def test_special_tokens_cannot_be_spelled(characters: Characters) -> None:
    every = Characters.train(["".join(SPECIALS)], vocab_size=300)
    assert min(every.encode("".join(SPECIALS))) >= len(SPECIALS)
    assert every.decode(every.encode("<eos>")) == "<eos>"


def test_unknown_characters_are_one_token_each_and_counted(characters: Characters) -> None:
    assert characters.encode("axb") == [characters.encode("a")[0], characters.unk_id, characters.encode("b")[0]]
    assert characters.decode(characters.encode("axb")) == "a\ufffdb"
    assert characters.unknown_share(["axb", "a"]) == 0.25
    assert characters.unknown_share([]) == 0


def test_the_most_frequent_characters_are_kept_and_ties_go_in_order_of_text() -> None:
    found = Characters.train(["cab", "cb", "c"], vocab_size=len(SPECIALS) + 2)
    assert found.characters == [*SPECIALS, "c", "b"]
    assert Characters.train(["ba"], vocab_size=300).characters == [*SPECIALS, "a", "b"]


def test_lone_surrogates_are_mended_as_everywhere() -> None:
    found = Characters.train(["a\ud800"], vocab_size=300)
    assert found.decode(found.encode("\ud800a")) == "\ufffda"


def test_characters_are_saved_and_loaded(tmp_path: Path, characters: Characters) -> None:
    save_parts(tmp_path, {"tokenizer": characters})
    again = load_parts(tmp_path)["tokenizer"]
    assert isinstance(again, Characters)
    assert again.characters == characters.characters


@pytest.mark.parametrize("content", [{}, {"characters": ""}, {"characters": "aba"}, {"characters": ["a"]}])
def test_content_that_is_no_vocabulary_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="not a vocabulary of characters"):
        Characters.from_json(content)


def test_nothing_to_learn_from_and_no_room_are_told() -> None:
    with pytest.raises(DataError, match="every text is empty"):
        Characters.train(["", ""], vocab_size=300)
    with pytest.raises(ConfigError, match="vocab_size=4"):
        Characters.train(["a"], vocab_size=4)


def test_tokens_are_shown_for_the_eye_and_foreign_ids_refused(characters: Characters) -> None:
    shown = {characters.token(i) for i in characters.encode("a \n好")}
    assert shown == {"a", "▁", "\\n", "好"}
    for wrong in (-1, characters.vocab_size):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            characters.decode([wrong])


@given(text=known.filter(bool))
def test_spellings_of_characters_and_sub_words_are_the_text_in_bytes(characters: Characters, text: str) -> None:
    written = spellings(characters)
    assert b"".join(written[i] for i in characters.encode(text)) == text.encode()
    tokenizer = Tokenizer.train(["a good text 好 good", "a good end"], algorithm="bpe", vocab_size=290, cleaning=False)
    written = spellings(tokenizer)
    assert b"".join(written[i] for i in tokenizer.encode(text)) == b" " + text.encode()
    assert written[: len(SPECIALS)] == [b""] * len(SPECIALS)
    assert all(written[len(SPECIALS) :])
