"""Collating: padding, masks, and moving."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heed.data.batch import Batch, collate

PAIR = [{"ids": torch.tensor([5, 6, 7]), "frames": torch.ones(1, 2)}, {"ids": torch.tensor([8]), "frames": torch.full((4, 2), 3.0)}]


def test_sequences_are_padded_with_zero_to_the_longest_and_masked() -> None:
    batch = collate(PAIR)
    assert batch["ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.mask("ids").tolist() == [[True, True, True], [True, False, False]]
    assert batch["frames"][:, :, 0].tolist() == [[1, 0, 0, 0], [3, 3, 3, 3]]
    assert batch.mask("frames").tolist() == [[True, False, False, False], [True] * 4]
    assert {key: value.dtype for key, value in batch.tensors.items()} == {"ids": torch.int64, "frames": torch.float32}


@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=5), tail=st.sampled_from([(), (2,), (3, 2)]))
def test_under_the_mask_stands_what_was_given_and_elsewhere_zero(lengths: list[int], tail: tuple[int, ...]) -> None:
    values = [torch.randn(length, *tail) for length in lengths]
    batch = collate([{"x": value} for value in values])
    assert batch["x"].shape == (len(lengths), max(lengths), *tail)
    assert batch["x"][batch.mask("x")].equal(torch.cat(values))
    assert not batch["x"][~batch.mask("x")].any()
    assert (batch.n_tokens, batch.n_padded) == (sum(lengths), len(lengths) * max(lengths))


def test_scalars_are_stacked_and_have_no_mask() -> None:
    batch = collate([{"label": torch.tensor(3)}, {"label": torch.tensor(1)}])
    assert batch["label"].tolist() == [3, 1]
    assert len(batch) == 2
    assert (batch.n_tokens, batch.n_padded) == (0, 0)
    with pytest.raises(KeyError):
        batch.mask("label")


def test_bool_sequences_stay_bool() -> None:
    batch = collate([{"real": torch.tensor([True])}, {"real": torch.tensor([True, True])}])
    assert batch["real"].tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("rows", [[4, 9], (4, 9), np.array([4, 9])])
def test_rows_are_remembered_as_plain_numbers(rows: list[int]) -> None:
    assert collate(PAIR, rows).rows == [4, 9]
    assert collate(PAIR).rows == []


def test_a_batch_says_which_keys_it_has() -> None:
    assert "ids" in collate(PAIR)
    assert "label" not in collate(PAIR)


def test_moving_to_where_it_is_copies_nothing() -> None:
    batch = collate(PAIR)
    assert batch.to(torch.device("cpu")) is batch


@pytest.mark.parametrize(
    "device", ["meta", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
)
def test_moving_takes_everything_along(device: str) -> None:
    moved = collate(PAIR, [4, 9]).to(torch.device(device))
    assert isinstance(moved, Batch)
    assert {value.device.type for value in [*moved.tensors.values(), *moved.masks.values()]} == {device}
    assert moved.rows == [4, 9]
    if device == "cuda":
        assert moved.to(torch.device("cpu"))["ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
