"""Packing: which texts stand behind one another, that each comes once, and how little of a row stays empty."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heed.data.layout import Layout, Packing, best_fit, in_turn
from heed.data.order import BATCHES_IN_ORDER, Lengths, Rows
from heed.data.store import Encoded
from heed.errors import ConfigError

SIZE = 12
n_read_lists = st.lists(st.integers(1, SIZE), min_size=1, max_size=80)


def as_lengths(n_read: list[int]) -> Lengths:
    return np.array(n_read, dtype=np.int32)[:, None] + 1


def texts_of(n_read: list[int]) -> list[Encoded]:
    """Return texts of which no id stands in another, nor twice."""
    ends = np.cumsum(np.array(n_read) + 1)
    return [{"text": torch.arange(int(end) - n, int(end) + 1)} for n, end in zip(n_read, ends, strict=True)]


def short_documents(n: int, seed: int = 0) -> Lengths:
    """Return lengths of texts of about 20 tokens, half of them within 40 % of that."""
    lengths = np.random.default_rng(seed).lognormal(3.0, 0.5, n).clip(2, 250)
    return lengths.astype(np.int32)[:, None]


def plain(division: list[Rows]) -> list[list[int]]:
    return [rows.tolist() for rows in division]


def divisions(lengths: Lengths, budget: int, **settings: Any) -> tuple[list[Rows], list[Rows]]:
    packing = Packing(SIZE)
    return packing.batches(lengths, budget, seed=3, epoch=0, **settings), packing.sequential_batches(lengths, budget)


@given(st.lists(st.integers(0, SIZE), max_size=60))
def test_each_item_goes_where_it_leaves_the_least_room(sizes: list[int]) -> None:
    rooms: list[int] = []
    for size, row in zip(sizes, best_fit(sizes, SIZE).tolist(), strict=True):
        fitting = [room for room in rooms if room >= max(1, size)]
        if row == len(rooms):
            assert not fitting
            rooms.append(SIZE)
        elif size:
            assert rooms[row] == min(fitting)
        rooms[row] -= size
    assert all(room >= 0 for room in rooms)


@given(n_read=n_read_lists, budget=st.integers(SIZE, 70), curriculum=st.booleans())
def test_every_text_comes_once_and_no_batch_exceeds_the_budget(n_read: list[int], budget: int, curriculum: bool) -> None:
    packing = Packing(SIZE)
    for division in divisions(as_lengths(n_read), budget, curriculum=curriculum):
        assert sorted(row for rows in plain(division) for row in rows) == list(range(len(n_read)))
        for rows in plain(division):
            batch = packing.collate([texts_of(n_read)[row] for row in rows])
            assert batch["text"].size(1) <= SIZE
            assert batch["text"].numel() <= budget


@given(n_read=n_read_lists, budget=st.integers(SIZE, 70))
def test_the_rows_of_a_batch_are_those_that_were_filled_though_only_their_order_is_kept(n_read: list[int], budget: int) -> None:
    by_length = np.argsort(-np.array(n_read), kind="stable")
    row_of = best_fit([n_read[i] for i in by_length], SIZE)
    filled = {frozenset(by_length[row_of == row].tolist()) for row in range(int(row_of.max()) + 1)}
    laid = set()
    for rows in plain(Packing(SIZE).sequential_batches(as_lengths(n_read), budget)):
        left = iter(rows)
        laid |= {frozenset(next(left) for _ in row) for row in in_turn([n_read[i] for i in rows], SIZE)}
    assert laid == filled


@given(n_read=n_read_lists, n_parts=st.integers(1, 5))
def test_a_batch_says_what_is_read_what_is_foretold_and_where_each_text_begins(n_read: list[int], n_parts: int) -> None:
    """Any part of it does too, and every token but the first of a text is foretold once, from the one before it in its own text."""
    for part in np.array_split(np.arange(len(n_read)), min(n_parts, len(n_read))):
        texts = [texts_of(n_read)[row] for row in part]
        batch = Packing(SIZE).collate(texts, part.tolist())
        mask = batch.mask("text")
        read, wanted, places = (batch[key][mask].tolist() for key in ("text", "wanted", "places"))
        starts = [i for i, place in enumerate(places) if place == 0]
        bounds = zip(starts, [*starts[1:], len(places)], strict=True)
        assert [[*read[start:end], wanted[end - 1]] for start, end in bounds] == [one["text"].tolist() for one in texts]
        assert all(after == before + 1 for before, after in zip(read, wanted, strict=True))
        assert not any(bool(batch[key][~mask].any()) for key in ("text", "wanted", "places"))
        assert batch.rows == part.tolist()
        assert batch.n_tokens == sum(n_read[row] for row in part)
        assert batch.n_padded == batch["text"].numel()


@given(n_read=n_read_lists)
def test_the_lengths_of_examples_tell_how_many_places_their_batch_will_have(n_read: list[int]) -> None:
    rows = np.random.default_rng(len(n_read)).permutation(len(n_read))[:9]
    for layout in (Layout(), Packing(SIZE)):
        assert layout.n_places(as_lengths(n_read), rows) == layout.collate([texts_of(n_read)[row] for row in rows]).n_padded


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_of_many_short_documents_less_than_two_percent_are_padding(size: int) -> None:
    lengths, packing, padded = np.minimum(short_documents(3000), size + 1), Packing(size), 0
    texts = texts_of((lengths[:, 0] - 1).tolist())
    division = packing.batches(lengths, 2048, seed=1, epoch=0)
    for rows in division:
        batch = packing.collate([texts[row] for row in rows])
        padded += batch.n_padded
    share = 1 - int((lengths - 1).sum()) / padded
    assert share == pytest.approx(packing.padding_share(lengths, division))
    assert share < 0.02


def test_no_update_learns_from_a_remnant() -> None:
    packing, lengths = Packing(10), as_lengths([10] * 33)
    assert sorted(map(len, packing.batches(lengths, 160, seed=0, epoch=0))) == [11, 11, 11]
    assert sorted(map(len, packing.batches(lengths[:31], 160, seed=0, epoch=0))) == [15, 16]


def test_what_stands_beside_what_follows_from_seed_and_epoch_and_is_new_in_each() -> None:
    packing, lengths = Packing(64), short_documents(300)
    first = plain(packing.batches(lengths, 128, seed=5, epoch=2))
    assert first == plain(packing.batches(lengths, 128, seed=5, epoch=2))
    for seed, epoch in ((5, 3), (6, 2)):
        other = plain(packing.batches(lengths, 128, seed=seed, epoch=epoch))
        shared = {frozenset(rows) for rows in first} & {frozenset(rows) for rows in other}
        assert not shared


def test_a_curriculum_keeps_the_texts_of_its_first_epoch_near_their_places() -> None:
    packing, lengths = Packing(16), as_lengths([7] * 1000)
    ordered = np.concatenate(packing.batches(lengths, 16, seed=1, epoch=0, curriculum=True))
    moved = np.abs(ordered - np.arange(1000)).max()
    assert moved <= 3 * BATCHES_IN_ORDER < np.abs(np.concatenate(packing.batches(lengths, 16, seed=1, epoch=0)) - np.arange(1000)).max()
    assert not np.array_equal(ordered, np.arange(1000))


def test_a_budget_below_a_single_row_is_refused() -> None:
    Packing(32).check_budget(32)
    with pytest.raises(ConfigError, match=r"train\.batch_tokens=31 holds no packed row of data\.max_length=32 tokens; raise it to 32"):
        Packing(32).check_budget(31)
