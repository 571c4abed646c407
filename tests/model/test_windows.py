"""Windows over long sequences: that they cover everything, and what is in them."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.model.windows import cut_pairs, cut_windows, first_windows, framed, mean_of_windows, pair_windows, shortened, starts_of

# a window's tokens, and those it shares with the next
shapes = st.integers(1, 9).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))
pair_shapes = st.integers(3, 14).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))
seeds = st.integers(0, 2**31)


def ragged(lengths: list[int], extra: int) -> tuple[Tensor, Tensor]:
    """Return ids (B, S), with noise where nothing should be read, and the mask."""
    n_places = max(lengths) + extra
    return torch.randint(1, 1000, (len(lengths), n_places)), torch.arange(n_places) < torch.tensor(lengths)[:, None]


@given(length=st.integers(0, 60), shape=shapes)
def test_windows_cover_every_token_and_share_what_they_should_with_their_neighbours(length: int, shape: tuple[int, int]) -> None:
    size, overlap = shape
    starts = starts_of(length, size, overlap)
    assert {place for start in starts for place in range(start, start + size)} >= set(range(length))
    assert starts[0] == 0
    assert starts[-1] + size == max(length, size)
    for first, second in itertools.pairwise(starts):
        assert first < second
        assert first + size - second >= overlap
    assert len(starts) == 1 + max(0, -(-(length - size) // (size - overlap)))  # no more than it takes


@given(lengths=st.lists(st.integers(0, 15), min_size=1, max_size=4), extra=st.integers(0, 3), shape=shapes, seed=seeds)
def test_a_window_holds_the_tokens_from_its_start_on_and_their_places(
    lengths: list[int], extra: int, shape: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    (ids, mask), (size, overlap) = ragged(lengths, extra), shape
    windows = cut_windows(ids, mask, size=size, overlap=overlap)
    expected = [(row, start) for row, length in enumerate(lengths) for start in starts_of(length, size, overlap)]
    assert windows.rows.tolist() == [row for row, _ in expected]
    assert windows.ids.shape == windows.mask.shape == windows.places.shape == (len(expected), max(1, min(size, max(lengths))))
    for n, (row, start) in enumerate(expected):
        end = min(start + size, lengths[row])
        assert windows.ids[n][windows.mask[n]].tolist() == ids[row, start:end].tolist()
        assert windows.places[n][windows.mask[n]].tolist() == list(range(start, end))
        assert windows.mask[n].tolist() == sorted(windows.mask[n].tolist(), reverse=True)  # real on the left
    assert not windows.ids[~windows.mask].any()


def drawn(seed: int, most: int) -> list[tuple[int, int]]:
    """Return row and start of the windows drawn of texts of 40, 3 and 20 tokens: 13, 1 and 6 of them."""
    ids, mask = ragged([40, 3, 20], 0)
    torch.manual_seed(seed)
    windows = cut_windows(ids, mask, size=5, overlap=2, most=most)
    return list(zip(windows.rows.tolist(), windows.places[:, 0].tolist(), strict=True))


@pytest.mark.parametrize("most", [1, 4, 12])
def test_of_too_many_windows_so_many_are_drawn_without_repetition(most: int) -> None:
    every = drawn(0, 100)
    assert [row for row, _ in every] == [0] * 13 + [1] + [2] * 6
    found = drawn(1, most)
    assert set(found) <= set(every)
    assert len(set(found)) == len(found)
    assert [sum(row == i for row, _ in found) for i in range(3)] == [min(most, 13), 1, min(most, 6)]


def test_which_windows_are_drawn_depends_on_torchs_seed_and_all_have_a_chance() -> None:
    assert drawn(1, 4) == drawn(1, 4)
    assert {window for seed in range(60) for window in drawn(seed, 4)} == set(drawn(0, 100))  # misses one with chance 1e-8


def test_truncating_leaves_the_first_window_of_each_sequence() -> None:
    ids, mask = ragged([40, 3, 20], 0)
    windows = first_windows(cut_windows(ids, mask, size=5, overlap=2))
    assert windows.rows.tolist() == [0, 1, 2]
    assert [one[real].tolist() for one, real in zip(windows.ids, windows.mask, strict=True)] == [
        row[:length].tolist() for row, length in zip(ids, (5, 3, 5), strict=True)
    ]


@given(n_first=st.integers(0, 20), n_second=st.integers(0, 20), room=st.integers(0, 20))
def test_two_texts_lose_tokens_of_the_longer_until_they_fit(n_first: int, n_second: int, room: int) -> None:
    first, second = n_first, n_second
    while first + second > room:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    assert shortened(n_first, n_second, room) == (first, second)


@given(n_first=st.integers(0, 60), n_second=st.integers(0, 60), shape=pair_shapes)
def test_every_window_holds_both_texts_and_all_windows_hold_every_token(n_first: int, n_second: int, shape: tuple[int, int]) -> None:
    size, overlap = shape
    windows = pair_windows(n_first, n_second, size=size, overlap=overlap)
    for n_tokens, parts in ((n_first, [window[:2] for window in windows]), (n_second, [window[2:] for window in windows])):
        assert {place for start, n in parts for place in range(start, start + n)} == set(range(n_tokens))
        assert all(n > 0 for _, n in parts) or n_tokens == 0
        assert parts[0][0] == 0
        assert sum(parts[-1]) == n_tokens
        for (first, n), (second, _) in itertools.pairwise(parts):
            assert 0 <= second - first <= n - overlap * n // size
        if n_tokens <= (size - 1) // 2:
            assert set(parts) == {(0, n_tokens)}
    assert all(n_first + n_second < size for _, n_first, _, n_second in windows)
    assert len(set(windows)) == len(windows)
    if n_first + n_second < size:
        assert windows == [(0, n_first, 0, n_second)]


@given(lengths=st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=4), shape=pair_shapes, seed=seeds)
def test_a_window_of_a_pair_is_a_part_of_each_with_the_end_between(
    lengths: list[tuple[int, int]], shape: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    (size, overlap), end = shape, 2000
    ids, mask = ragged([first + 1 + second for first, second in lengths], 2)
    ends = torch.tensor([first for first, _ in lengths])
    ids[torch.arange(len(lengths)), ends] = end
    windows = cut_pairs(ids, mask, ends, size=size, overlap=overlap)
    expected = [(row, *one) for row, (n, m) in enumerate(lengths) for one in pair_windows(n, m, size=size, overlap=overlap)]
    assert windows.rows.tolist() == [row for row, *_ in expected]
    for n, (row, first, n_first, second, n_second) in enumerate(expected):
        text, other = ids[row, : lengths[row][0]], ids[row, lengths[row][0] + 1 : sum(lengths[row]) + 1]
        parts = [*text[first : first + n_first].tolist(), end, *other[second : second + n_second].tolist()]
        assert windows.ids[n][windows.mask[n]].tolist() == parts
        assert ids[row][windows.places[n][windows.mask[n]]].tolist() == parts
        assert windows.mask[n].tolist() == sorted(windows.mask[n].tolist(), reverse=True)  # real on the left
    assert not windows.ids[~windows.mask].any()
    few = cut_pairs(ids, mask, ends, size=size, overlap=overlap, most=2)
    assert all((few.rows == row).sum() == min(2, (windows.rows == row).sum()) for row in range(len(lengths)))


@given(rows=st.lists(st.integers(0, 4), min_size=1, max_size=9), seed=seeds)
def test_a_sequence_gets_the_mean_over_its_windows_and_without_any_zeros(rows: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    values = torch.randn(len(rows), 3)
    found = mean_of_windows(values, torch.tensor(rows), 6)
    for sequence in range(6):
        own = [values[n] for n, row in enumerate(rows) if row == sequence]
        expected = torch.stack(own).mean(0) if own else torch.zeros(3)
        torch.testing.assert_close(found[sequence], expected, rtol=1e-5, atol=1e-6)


def test_every_window_gets_its_share_of_the_gradient() -> None:
    values, weight = torch.randn(4, 3, requires_grad=True), torch.randn(2, 3)
    torch.autograd.backward((mean_of_windows(values, torch.tensor([0, 1, 0, 0]), 2) * weight).sum())
    torch.testing.assert_close(values.grad, torch.stack([weight[0] / 3, weight[1], weight[0] / 3, weight[0] / 3]))


def test_a_begin_and_an_end_token_stand_around_the_real_tokens_of_each_sequence() -> None:
    rows = [[5, 6, 7], [8], []]
    ids = torch.tensor([[*row, *[0] * (3 - len(row))] for row in rows])
    mask = torch.tensor([[place < len(row) for place in range(3)] for row in rows])
    for end in (None, 9):
        found, real = framed(ids, mask, begin=4, end=end)
        behind = [] if end is None else [end]
        assert [row[keep].tolist() for row, keep in zip(found, real, strict=True)] == [[4, *row, *behind] for row in rows]
        assert not found[~real].any()
