"""Hidden tokens: how many, which never, whole words, and that draws alone decide."""

import math
from typing import Any

import numpy as np
import pytest

from heed.data.masking import NOTHING, Masking
from heed.data.text import Tokenizer

Ids = np.ndarray[Any, np.dtype[np.int64]]
MASK, VOCABULARY = 3, 50
ORDINARY = np.arange(4, VOCABULARY)
TEXT = np.array([7, 9, 4, 21, 13, 49, 8, 30, 7, 7, 19, 22, 5, 6, 41, 44, 45, 46, 11, 12])  # 20 tokens


def drawn(masking: Masking, n: int, text: Ids = TEXT) -> Ids:
    """Return so many draws of what is read and foretold, (n, S, 2)."""
    return np.stack([masking(text, np.random.default_rng([5, number])) for number in range(n)])


def within(count: int, n: int, share: float) -> bool:
    """Return whether a count lies within 4.5 standard deviations of a binomial's mean."""
    return bool(abs(count - n * share) <= 4.5 * math.sqrt(n * share * (1 - share)))


def test_of_the_tokens_15_percent_are_chosen_and_of_these_80_hidden_10_random_and_10_unchanged() -> None:
    found = drawn(Masking(MASK, ORDINARY, share=0.15), 4000)
    read, truth = found[..., 0], found[..., 1]
    chosen = truth != NOTHING
    assert (chosen.sum(1) == 3).all()
    assert (truth[chosen] == np.broadcast_to(TEXT, truth.shape)[chosen]).all()
    assert (read[~chosen] == np.broadcast_to(TEXT, read.shape)[~chosen]).all()
    n = int(chosen.sum())
    hidden, same = int((read[chosen] == MASK).sum()), int((read[chosen] == truth[chosen]).sum())
    assert within(hidden, n, 0.8)
    assert within(same, n, 0.1 + 0.1 / len(ORDINARY))  # a random token may be the true one
    assert within(n - hidden - same, n, 0.1 * (1 - 1 / len(ORDINARY)))
    assert all(within(int(count), len(found), 0.15) for count in chosen.sum(0))  # no place more often than another
    random = read[chosen & (read != MASK) & (read != truth)]
    assert set(random) == set(ORDINARY)


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (3, 1), (9, 1), (10, 2), (17, 3), (20, 3)])
def test_the_share_is_rounded_but_one_token_is_always_chosen(length: int, expected: int) -> None:
    found = Masking(MASK, ORDINARY, share=0.15)(TEXT[:length], np.random.default_rng(1))
    assert int((found[:, 1] != NOTHING).sum()) == expected


@pytest.mark.parametrize("whole", [False, True])
def test_special_tokens_are_neither_chosen_nor_drawn(whole: bool) -> None:
    text = np.array([1, 7, 3, 9, 2, 0, 17, 20, 3, 1, 2])
    mask = 20  # as of a foreign vocabulary, inside the ids of words
    ordinary = np.setdiff1d(ORDINARY, [mask])
    masking = Masking(mask, ordinary, share=0.5, starts=(lambda ids: np.ones(len(ids), dtype=bool)) if whole else None)
    found = drawn(masking, 500, text)
    chosen = found[..., 1] != NOTHING
    assert set(np.flatnonzero(chosen.any(0))) == {1, 3, 6}
    read = found[..., 0][chosen]
    assert set(read[read != mask]) <= set(ordinary)
    assert np.array_equal(Masking(mask, ordinary, share=0.5)(text[[0, 2, 4]], np.random.default_rng(1))[:, 1], [0, 0, 0])


def test_whole_words_are_chosen_with_all_their_tokens() -> None:
    starts = np.array([True, False, True, True, False, False] + [True, False] * 7)
    numbers = np.cumsum(starts)
    masking = Masking(MASK, ORDINARY, share=0.3, starts=lambda ids: starts[: len(ids)])
    found = drawn(masking, 300)
    chosen = found[..., 1] != NOTHING
    for row in chosen:
        words = set(numbers[row])
        assert set(numbers[~row]).isdisjoint(words)
        assert row.sum() in (5, 6)  # of 20; a word that does not fit is left out
    assert chosen.any(0).all()
    read = found[..., 0][chosen]
    assert within(int((read == MASK).sum()), len(read), 0.8)  # each token of a word has a fate of its own


def test_where_no_word_is_short_enough_one_is_chosen() -> None:
    masking = Masking(MASK, ORDINARY, share=0.15, starts=lambda ids: np.arange(len(ids)) % 5 == 0)
    assert {int((one[:, 1] != NOTHING).sum()) for one in drawn(masking, 50)} == {5}


def test_whole_words_of_a_tokenizer_are_words_of_the_text() -> None:
    tokenizer = Tokenizer.train(["the dog sees"], algorithm="bpe", vocab_size=270, cleaning=False)
    words = ["a", "tree", "finds", "the", "old", "man", "likes"]
    ids = np.array(tokenizer.encode(" ".join(words)))
    ordinary = np.arange(4, tokenizer.vocab_size)
    masking = Masking(tokenizer.mask_id, ordinary, share=0.3, starts=tokenizer.word_starts)
    for number in range(20):
        found = masking(ids, np.random.default_rng(number))
        hidden = tokenizer.decode(found[found[:, 1] != NOTHING, 1].tolist()).split()
        assert hidden
        assert set(hidden) <= set(words)


def test_draws_alone_decide_and_fixed_masks_follow_from_the_text() -> None:
    one, other = Masking(MASK, ORDINARY, share=0.15), Masking(MASK, ORDINARY, share=0.15)
    assert np.array_equal(one(TEXT, np.random.default_rng([1, 2])), other(TEXT, np.random.default_rng([1, 2])))
    assert len({one(TEXT, np.random.default_rng([1, row])).tobytes() for row in range(20)}) > 15
    assert np.array_equal(one.fixed(TEXT), other.fixed(TEXT))
    changed = [np.where(np.arange(len(TEXT)) == place, 33, TEXT) for place in range(len(TEXT))]
    assert len({(one.fixed(text)[:, 1] != NOTHING).tobytes() for text in changed}) > 10
