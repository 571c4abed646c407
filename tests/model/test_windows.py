"""Windows over long sequences: that they cover everything, and what is in them."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.model.windows import cut_windows, mean_of_windows, starts_of

# a window's tokens, and those it shares with the next
shapes = st.integers(1, 9).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1)))
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
