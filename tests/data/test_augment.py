"""Changed training texts: how often what happens, and what never does."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.augment import Augmenter, Bools, Ids, read_synonyms
from heed.errors import DataError

VOCABULARY, N_WORDS, DRAWS = 60, 20, 600
TEXT = np.arange(10, 10 + N_WORDS)
# Words of one to three tokens, by their ids: only the first token of each starts a word.
WORDS = [(10,), (11, 40), (12, 41, 42), (13,), (14, 43)]


def whole(ids: Ids) -> Bools:
    """Say that every token is a word."""
    return np.ones(len(ids), dtype=bool)


def starts(ids: Ids) -> Bools:
    """Say that tokens below 40 start words."""
    return ids < 40


shares = st.floats(0, 0.95)
texts = st.lists(st.integers(4, VOCABULARY - 1), max_size=12).map(lambda ids: np.array(ids, dtype=np.int64))


def changed(augmenter: Augmenter, text: Ids, seed: int) -> list[int]:
    found: list[int] = augmenter(text, np.random.default_rng(seed)).tolist()
    return found


def words_of(ids: list[int]) -> list[tuple[int, ...]]:
    """Cut ids before every token that starts a word."""
    bounds = [i for i, token in enumerate(ids) if i and token < 40]
    return [tuple(ids[a:b]) for a, b in zip([0, *bounds], [*bounds, len(ids)], strict=True)]


def test_words_are_left_out_at_their_share() -> None:
    augmenter = Augmenter(whole, [], drop=0.3, swap=0.0, replace=0.0)
    left = [len(changed(augmenter, TEXT, seed)) / N_WORDS for seed in range(DRAWS)]
    # One word, drawn anew each time, stays in any case. The standard error is 0.0042.
    assert 1 - np.mean(left) == pytest.approx(0.3 * (1 - 1 / N_WORDS), abs=0.015)
    assert len(set(left)) > 5


def test_every_word_is_left_out_as_often_as_any_other() -> None:
    augmenter = Augmenter(whole, [], drop=0.5, swap=0.0, replace=0.0)
    stays = np.mean([np.isin(TEXT, changed(augmenter, TEXT, seed)) for seed in range(DRAWS)], axis=0)
    assert np.abs(stays - (0.5 + 0.5 / N_WORDS)).max() < 0.1  # five standard errors


def test_words_change_places_with_the_next_at_their_share() -> None:
    augmenter = Augmenter(whole, [], drop=0.0, swap=0.2, replace=0.0)
    swaps = []
    for seed in range(DRAWS):
        found = np.array(changed(augmenter, TEXT, seed))
        # Swaps of neighbours from left to right, each place once, make as many pairs stand the wrong way round.
        swaps.append(int(np.triu(found[:, None] > found).sum()))
    assert np.mean(swaps) / (N_WORDS - 1) == pytest.approx(0.2, abs=0.02)


@given(texts, shares, st.integers(0, 99))
def test_swapping_alone_keeps_all_ids(text: Ids, swap: float, seed: int) -> None:
    found = changed(Augmenter(starts, [], drop=0.0, swap=swap, replace=0.0), text, seed)
    assert sorted(found) == sorted(text.tolist())


def test_words_are_replaced_at_their_share_and_only_by_their_synonyms() -> None:
    groups = [[(10,), (50,), (51,)], [(11,), (52,)]]
    augmenter = Augmenter(whole, groups, drop=0.0, swap=0.0, replace=0.4)
    found = np.array([changed(augmenter, TEXT, seed) for seed in range(DRAWS)])
    assert set(found[:, 0].tolist()) == {10, 50, 51}
    assert set(found[:, 1].tolist()) == {11, 52}
    assert (found[:, 2:] == TEXT[2:]).all()  # words that no group holds
    assert (found[:, :2] != TEXT[:2]).mean() == pytest.approx(0.4, abs=0.06)  # the standard error is 0.014
    assert (found[:, 0] == 50).mean() == pytest.approx(0.2, abs=0.06)


def test_a_word_of_several_groups_takes_the_synonyms_of_all() -> None:
    augmenter = Augmenter(whole, [[(10,), (50,)], [(51,), (10,)], [(50,), (52,)]], drop=0.0, swap=0.0, replace=0.9)
    assert {changed(augmenter, TEXT[:1], seed)[0] for seed in range(99)} == {10, 50, 51}


def test_a_synonym_may_have_another_number_of_tokens() -> None:
    augmenter = Augmenter(starts, [[WORDS[0], WORDS[2]]], drop=0.0, swap=0.0, replace=0.99)
    found = {tuple(changed(augmenter, np.array([*WORDS[0], *WORDS[1]]), seed)) for seed in range(9)}
    assert (*WORDS[2], *WORDS[1]) in found
    assert found <= {(*WORDS[0], *WORDS[1]), (*WORDS[2], *WORDS[1])}


def test_a_synonym_of_several_words_is_replaced_as_a_whole() -> None:
    """As "New York" by "NYC", or in a script without spaces a word of two sub-words."""
    long, short, part = (*WORDS[0], *WORDS[1]), WORDS[2], WORDS[0]
    augmenter = Augmenter(starts, [[long, short], [part, WORDS[3]]], drop=0.0, swap=0.0, replace=0.5)
    text = np.array([*WORDS[4], *long, *part, *WORDS[4]])
    found = {tuple(changed(augmenter, text, seed)) for seed in range(60)}
    firsts, seconds = (long, short), (part, WORDS[3])  # the longest first: part of it is no word of its own
    assert found == {(*WORDS[4], *one, *other, *WORDS[4]) for one in firsts for other in seconds}


def test_what_is_one_synonym_is_dropped_and_swapped_in_one_piece() -> None:
    long = (*WORDS[0], *WORDS[3])
    augmenter = Augmenter(starts, [[long, WORDS[1]]], drop=0.4, swap=0.4, replace=1e-9)
    text = np.array([*WORDS[4], *long, *WORDS[2]])
    for seed in range(60):
        found = changed(augmenter, text, seed)
        assert (10 in found) == (13 in found)
        assert 10 not in found or found[found.index(10) + 1] == 13


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9), shares, shares, shares, st.integers(0, 99))
def test_words_of_several_tokens_stay_whole(words: list[tuple[int, ...]], drop: float, swap: float, replace: float, seed: int) -> None:
    augmenter = Augmenter(starts, [[WORDS[1], WORDS[3]]], drop, swap, replace)
    found = words_of(changed(augmenter, np.array([token for word in words for token in word]), seed))
    allowed = set(words) | ({WORDS[1], WORDS[3]} if {WORDS[1], WORDS[3]} & set(words) else set())
    assert 1 <= len(found) <= len(words)
    assert set(found) <= allowed


@given(texts.filter(len), st.integers(0, 99))
def test_at_least_one_word_stays(text: Ids, seed: int) -> None:
    found = changed(Augmenter(starts, [], drop=0.99, swap=0.0, replace=0.0), text, seed)
    assert set(words_of(found)) <= set(words_of(text.tolist()))
    assert found


@given(texts, shares, shares, shares, st.integers(0, 99))
def test_the_same_seed_gives_the_same_text_and_leaves_the_original_as_it_was(
    text: Ids, drop: float, swap: float, replace: float, seed: int
) -> None:
    augmenter = Augmenter(starts, [[(10,), (11,), (12,)]], drop, swap, replace)
    before = text.copy()
    assert changed(augmenter, text, seed) == changed(augmenter, text, seed)
    np.testing.assert_array_equal(text, before)


def test_another_seed_gives_another_text() -> None:
    augmenter = Augmenter(whole, [], drop=0.2, swap=0.2, replace=0.0)
    assert len({tuple(changed(augmenter, TEXT, seed)) for seed in range(20)}) == 20


@given(texts, st.integers(0, 99))
def test_without_shares_nothing_changes(text: Ids, seed: int) -> None:
    found = Augmenter(starts, [[(10,), (11,)]], drop=0.0, swap=0.0, replace=0.0)(text, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, text)
    assert found.dtype == np.int64


def test_synonyms_stand_one_group_a_line_between_tabs_or_commas(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("big\tlarge\thuge \n\n film, movie,\n好\t很好\n", encoding="utf-8")
    assert read_synonyms(str(path)) == [["big", "large", "huge"], ["film", "movie"], ["好", "很好"]]


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [("\n \n", "", "no words"), ("big\tlarge\n\nfilm\n", ":3", "'film' alone"), ("a,,\n", ":1", "'a' alone")],
)
def test_a_file_without_groups_is_refused(tmp_path: Path, content: str, line: str, found: str) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"synonyms\.txt{line}: expected a group of synonyms on each line.*found {found}"):
        read_synonyms(str(path))


def test_a_file_of_synonyms_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_synonyms(str(tmp_path / "none.txt"))
