"""What all vocabularies have in common, whatever they cut a text into."""

import pytest

from heed.data.characters import Characters
from heed.data.spelling import Spelling
from heed.data.text import Tokenizer
from heed.data.vocabulary import SPECIALS, Vocabulary, for_the_eye
from heed.data.words import Words

TEXTS = ["the dog sees the cat", "a\tcat\n"]
VOCABULARIES: list[Vocabulary] = [
    Tokenizer.train(TEXTS, algorithm="bpe", vocab_size=270),
    Words.train(TEXTS, unit="words", vocab_size=300),
    Words.train(TEXTS, unit="characters", vocab_size=300),
    Characters.train(TEXTS, vocab_size=30),
    Spelling({"a": [".", "-"], "b": ["-"]}),
]
each = pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=["sub-words", "words", "letters", "characters", "spelling"])


@each
def test_special_tokens_have_the_lowest_ids_and_never_come_out_of_text(vocabulary: Vocabulary) -> None:
    assert [vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id] == list(range(len(SPECIALS)))
    assert not {vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id} & set(vocabulary.encode("a <pad> <bos> <eos>"))
    assert vocabulary.absent == []


@each
def test_ids_outside_a_vocabulary_are_refused_with_those_that_it_has(vocabulary: Vocabulary) -> None:
    last = vocabulary.vocab_size - 1
    assert vocabulary.known(last) == last
    for index in (-1, vocabulary.vocab_size):
        with pytest.raises(ValueError, match=rf"id {index} is outside the vocabulary: expected 0 to {last}"):
            vocabulary.decode([index])


@each
def test_a_batch_is_cut_and_read_as_its_texts_alone(vocabulary: Vocabulary) -> None:
    batch = vocabulary.encode_batch(["a b", "", "ab"])
    assert batch == [vocabulary.encode(text) for text in ("a b", "", "ab")]
    assert vocabulary.decode_batch(batch) == [vocabulary.decode(ids) for ids in batch]


def test_the_unknown_share_is_of_all_that_texts_are_cut_into() -> None:
    words = VOCABULARIES[1]
    assert words.unknown_share(["the zebra", "the dog"]) == 1 / 4
    assert words.unknown_share([]) == words.unknown_share([""]) == 0


def test_nothing_that_is_shown_moves_a_terminal() -> None:
    assert for_the_eye(" a\n\x1b[2J\u202eé") == "▁a\\n\\x1b[2J\\u202eé"
