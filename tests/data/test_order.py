"""The order of batches: every example once, within the budget, known from (seed, epoch), and with little padding."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heed.data.batch import collate
from heed.data.order import BATCHES_IN_ORDER, Lengths, Rows, batches, padding_share, sequential_batches
from heed.data.text import Tokenizer

Division = list[Rows]

lengths_lists = st.integers(1, 3).flatmap(lambda sides: st.lists(st.lists(st.integers(0, 30), min_size=sides, max_size=sides), max_size=60))


def as_lengths(lengths: list[list[int]]) -> Lengths:
    return np.array(lengths, dtype=np.int32).reshape(len(lengths), -1 if lengths else 1)


def plain(division: Division) -> list[list[int]]:
    return [rows.tolist() for rows in division]


def pairs(n: int = 400) -> Lengths:
    """Return lengths of source and target sentences that go together as translations do."""
    draw = np.random.default_rng(3)
    source = draw.integers(3, 40, n)
    return np.stack([source, np.maximum(1, source + draw.integers(-3, 4, n))], axis=1).astype(np.int32)


@given(lengths=lengths_lists, budget=st.integers(1, 90), seed=st.integers(0, 2**32), epoch=st.integers(0, 9))
def test_every_example_comes_exactly_once(lengths: list[list[int]], budget: int, seed: int, epoch: int) -> None:
    for division in (batches(as_lengths(lengths), budget, seed=seed, epoch=epoch), sequential_batches(as_lengths(lengths), budget)):
        assert sorted(row for rows in plain(division) for row in rows) == list(range(len(lengths)))
        assert all(rows for rows in plain(division))


@given(lengths=lengths_lists, budget=st.integers(1, 90), seed=st.integers(0, 2**32))
def test_only_a_lone_example_exceeds_the_budget(lengths: list[list[int]], budget: int, seed: int) -> None:
    for division in (batches(as_lengths(lengths), budget, seed=seed, epoch=0), sequential_batches(as_lengths(lengths), budget)):
        for rows in plain(division):
            longest = max(max(lengths[row]) for row in rows)
            assert len(rows) == 1 or len(rows) * max(1, longest) <= budget


@given(lengths=lengths_lists, budget=st.integers(1, 90))
def test_a_batch_ends_where_the_next_example_would_not_fit(lengths: list[list[int]], budget: int) -> None:
    division = plain(sequential_batches(as_lengths(lengths), budget))
    for rows, (following, *_) in itertools.pairwise(division):
        longest = max(max(lengths[row]) for row in [*rows, following])
        assert (len(rows) + 1) * longest > budget


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return plain(batches(pairs(), 200, seed=seed, epoch=epoch))

    orders = {(seed, epoch): order(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)}
    assert all(order(*key) == value for key, value in orders.items())
    assert len({str(value) for value in orders.values()}) == len(orders)
    compositions = {key: {frozenset(rows) for rows in value} for key, value in orders.items()}
    assert compositions[1, 0] != compositions[1, 1]  # not only the order of batches, also who shares one


def test_another_process_finds_the_same_order() -> None:
    program = (
        "import numpy as np; from heed.data.order import batches;"
        "lengths = np.random.default_rng(5).integers(1, 50, (200, 2)).astype(np.int32);"
        "print([rows.tolist() for rows in batches(lengths, 256, seed=11, epoch=4)])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    lengths = np.random.default_rng(5).integers(1, 50, (200, 2)).astype(np.int32)
    assert told.strip() == str(plain(batches(lengths, 256, seed=11, epoch=4)))


def test_long_and_short_batches_come_in_random_order() -> None:
    lengths = pairs(2000)
    longest = np.array([lengths[rows].max() for rows in batches(lengths, 200, seed=1, epoch=0)], dtype=float)
    assert len(longest) > 150
    place = np.arange(len(longest))
    assert abs(np.corrcoef(place, longest)[0, 1]) < 4 / len(longest) ** 0.5  # four standard errors of no correlation
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 4 / len(longest) ** 0.5


def test_for_answering_the_longest_come_first() -> None:
    lengths = pairs()
    longest = [int(lengths[rows].max()) for rows in sequential_batches(lengths, 200)]
    assert longest == sorted(longest, reverse=True)


@given(lengths=lengths_lists, budget=st.integers(1, 90))
def test_padding_share_is_what_collating_pads(lengths: list[list[int]], budget: int) -> None:
    division = batches(as_lengths(lengths), budget, seed=0, epoch=0)
    examples = [{str(side): torch.ones(length, dtype=torch.long) for side, length in enumerate(one)} for one in lengths]
    collated = [collate([examples[row] for row in rows]) for rows in plain(division)]
    n_padded = sum(batch.n_padded for batch in collated)
    expected = 1 - sum(batch.n_tokens for batch in collated) / n_padded if n_padded else 0.0
    assert padding_share(as_lengths(lengths), division) == pytest.approx(expected)


def test_no_examples_give_no_batches() -> None:
    none = np.zeros((0, 2), dtype=np.int32)
    assert batches(none, 10, seed=0, epoch=0) == []
    assert sequential_batches(none, 10) == []
    assert padding_share(none, []) == 0.0


def test_sentences_of_multi30k_are_padded_little(shared_data: Path) -> None:
    folder = shared_data / "multi30k"
    sides = [(folder / f"train.{suffix}").read_text(encoding="utf-8").splitlines() for suffix in ("en", "de")]
    tokenizer = Tokenizer.train([*sides[0][:3000], *sides[1][:3000]], algorithm="bpe", vocab_size=4000, cleaning=False)
    lengths = np.array([[len(ids) + 1 for ids in tokenizer.encode_batch(side)] for side in sides], dtype=np.int32).T
    assert padding_share(lengths, batches(lengths, 4096, seed=1, epoch=0)) <= 0.035


def test_a_curriculum_goes_through_the_first_epoch_as_the_file_stands_and_shuffles_the_others() -> None:
    lengths = np.random.default_rng(5).integers(1, 30, (2000, 2)).astype(np.int32)
    first = np.concatenate(batches(lengths, 120, seed=3, epoch=0, curriculum=True))
    assert sorted(first.tolist()) == list(range(2000))
    per_block = BATCHES_IN_ORDER * 120 / lengths.max(axis=1).mean()  # rows, about
    moved = np.abs(first - np.arange(2000))
    assert 0 < moved.max() < 1.5 * per_block
    again, shuffled = (batches(lengths, 120, seed=3, epoch=1, curriculum=curriculum) for curriculum in (True, False))
    assert [rows.tolist() for rows in again] == [rows.tolist() for rows in shuffled]


def test_batches_of_a_curriculum_are_padded_little_and_keep_the_budget() -> None:
    lengths = pairs(2000)
    division = batches(lengths, 400, seed=3, epoch=0, curriculum=True)
    assert max(len(rows) * int(lengths[rows].max()) for rows in division) <= 400
    as_they_stand = list(np.array_split(np.arange(2000), len(division)))
    assert padding_share(lengths, division) < 0.3 * padding_share(lengths, as_they_stand)
