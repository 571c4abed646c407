"""Normalisations of transcripts, held against their definitions."""

import unicodedata
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.transcripts import NORMALISATIONS, Normalisation, normalised
from heed.errors import ConfigError

# Letters and marks of several scripts, both apostrophes, what is removed, and what only NFC, folding or lower case change.
PIECES = "aA'’ʼ-.,!?\u0301\u3099ΣςİßÉ你好か・ー한、。 \u3000\n\t$%≠;क\u093f5…“”_‘"
texts = st.text(st.sampled_from(PIECES), max_size=12) | st.text(max_size=12)


@pytest.mark.parametrize("name", NORMALISATIONS)
@given(text=texts)
def test_a_second_time_changes_nothing(name: str, text: str) -> None:
    once = normalised(text, name)
    assert normalised(once, name) == once


@given(texts)
def test_every_normalisation_leaves_nfc_and_single_spaces(text: str) -> None:
    for name in NORMALISATIONS:
        found = normalised(text, name)
        assert found == " ".join(found.split())
        assert unicodedata.is_normalized("NFC", found)


@given(texts)
def test_none_changes_composition_and_white_space_alone(text: str) -> None:
    assert normalised(text, "none") == " ".join(unicodedata.normalize("NFC", text).split())


@given(texts)
def test_lower_leaves_no_letter_that_has_a_small_one(text: str) -> None:
    found = normalised(text, "lower")
    assert found == unicodedata.normalize("NFC", found.lower())


@given(texts)
def test_words_leaves_no_punctuation_but_apostrophes_between_two_characters(text: str) -> None:
    found = normalised(text, "words")
    assert not [char for char in found.replace("'", "") if unicodedata.category(char)[0] in "PS"]
    padded = f" {found} "
    assert all(" " not in padded[i - 1 : i + 2] and "''" not in padded[i - 1 : i + 2] for i, char in enumerate(padded) if char == "'")


@given(texts)
def test_words_keeps_every_letter_digit_and_mark_in_order(text: str) -> None:
    def letters(text: str) -> str:
        return unicodedata.normalize("NFD", "".join(char for char in text if unicodedata.category(char)[0] in "LNM"))

    if "ʼ" not in text:  # Unicode calls it a letter; it is an apostrophe here
        assert letters(normalised(text, "words")) == letters(normalised(text, "lower"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don’t turn  on the Light!", "don't turn on the light"),
        ("'Tis the dogs' “well-known” rock'n'roll…", "tis the dogs well known rock'n'roll"),
        ("L'eau, c’est la vie", "l'eau c'est la vie"),
        ("U.S. costs: $3.50 (5 %)", "u s costs 3 50 5"),
        ("a,b_c", "a b c"),
        ("你好，世界！", "你好世界"),
        ("我们用 GPU 训练。好", "我们用 gpu 训练好"),
        ("東京・タワー", "東京タワー"),
        ("안녕, 세계!", "안녕 세계"),
        ("हिन्दी, ठीक।", "हिन्दी ठीक"),
        ("cafe\u0301", "caf\u00e9"),
        ("?!", ""),
    ],
)
def test_words_of_several_scripts(text: str, words: str) -> None:
    assert normalised(text, "words") == words


@pytest.mark.parametrize("name", ["none", "lower"])
def test_chinese_keeps_its_punctuation_where_only_words_removes_it(name: str) -> None:
    assert normalised(" 你好，  世界！", name) == "你好， 世界！"


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"'word' is not one of none, lower, words; did you mean 'words'"):
        normalised("a", "word")


def test_the_names_a_setting_may_take_are_those_there_are() -> None:
    assert list(get_args(Normalisation)) == list(NORMALISATIONS)
