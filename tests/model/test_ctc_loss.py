"""The CTC loss against the sum over all alignments, torch's, and finite differences; and what it counts as right."""

import itertools
from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.model import ctc_loss
from heed.model.losses import BLANK, LossSum


def collapse(ids: Sequence[int]) -> list[int]:
    """Leave out repetitions, then blanks."""
    return [label for label, _ in itertools.groupby(ids) if label != BLANK]


def by_alignments(logits: Tensor, labels: Sequence[int]) -> Tensor:
    """Return -log of the summed probability of all ids (S,) that collapse to the labels; logits (S, V)."""
    p = logits.softmax(-1)
    total = torch.zeros((), dtype=logits.dtype)
    for ids in itertools.product(range(p.size(1)), repeat=p.size(0)):
        if collapse(ids) == list(labels):
            total = total + torch.stack([p[place, label] for place, label in enumerate(ids)]).prod()
    return -total.log()


def padded(rows: Sequence[Sequence[int]], rubbish: int = 2) -> tuple[Tensor, Tensor]:
    """Lay rows of labels below each other, with rubbish behind them; returns them and their mask."""
    mask = torch.arange(max(1, *map(len, rows))) < torch.tensor([len(row) for row in rows])[:, None]
    targets = torch.full(mask.shape, rubbish)
    targets[mask] = torch.tensor([label for row in rows for label in row], dtype=torch.long)
    return targets, mask


def places(lengths: Sequence[int], n_places: int) -> Tensor:
    """Return a mask (B, S) of as many real places."""
    return torch.arange(n_places) < torch.tensor(lengths)[:, None]


LABELS = [[1], [1, 2], [2, 2], [1, 2, 1], [], [2, 1]]
LENGTHS = [4, 5, 3, 4, 3, 2]


def test_the_loss_equals_the_sum_over_all_alignments() -> None:
    logits, mask = torch.randn(6, 5, 3, dtype=torch.float64), places(LENGTHS, 5)
    expected = torch.stack([by_alignments(logits[i, :n], labels) for i, (n, labels) in enumerate(zip(LENGTHS, LABELS, strict=True))])
    torch.testing.assert_close(ctc_loss(logits, mask, *padded(LABELS)).total, expected.sum(), rtol=1e-10, atol=1e-10)
    for i, labels in enumerate(LABELS):
        one = ctc_loss(logits[i : i + 1], mask[i : i + 1], *padded([labels]))
        torch.testing.assert_close(one.total, expected[i], rtol=1e-10, atol=1e-10)


@given(n_rows=st.integers(1, 4), n_places=st.integers(1, 12), n_labels=st.integers(1, 5), seed=st.integers(0, 999))
def test_the_loss_equals_torchs_row_by_row(n_rows: int, n_places: int, n_labels: int, seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(n_rows, n_places, 7, dtype=torch.float64, requires_grad=True)
    lengths, target_lengths = torch.randint(1, n_places + 1, (n_rows,)), torch.randint(0, n_labels + 1, (n_rows,))
    targets, target_mask = torch.randint(1, 7, (n_rows, n_labels)), torch.arange(n_labels) < target_lengths[:, None]
    loss = ctc_loss(logits, places(lengths.tolist(), n_places), targets, target_mask)
    rows = []
    for i, (n, length) in enumerate(zip(lengths.tolist(), target_lengths.tolist(), strict=True)):
        log_p = logits[i, :n].log_softmax(-1)
        row = F.ctc_loss(log_p, targets[i, :length], torch.tensor(n), torch.tensor(length), reduction="none")
        rows.append(row if bool(row.isfinite()) else torch.zeros_like(row))
    expected = torch.stack(rows).sum()
    torch.testing.assert_close(loss.total, expected, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(loss.total, logits)[0]
    assert bool((found[~places(lengths.tolist(), n_places)] == 0).all())
    if bool(torch.stack(rows).any()):
        torch.testing.assert_close(found, torch.autograd.grad(expected, logits)[0].nan_to_num(), rtol=1e-8, atol=1e-10)


def test_gradients_equal_finite_differences() -> None:
    logits, mask, (targets, target_mask) = torch.randn(6, 5, 3, dtype=torch.float64, requires_grad=True), places(LENGTHS, 5), padded(LABELS)
    assert torch.autograd.gradcheck(lambda x: ctc_loss(x, mask, targets, target_mask).total, logits)


def test_labels_that_do_not_fit_their_places_add_no_loss_and_no_gradient_but_count() -> None:
    rows, lengths = [[1, 1], [1, 2, 3], [1], [2, 1], [1, 1]], [2, 2, 0, 2, 3]  # the last two fit
    logits = torch.randn(5, 3, 4, requires_grad=True)
    loss = ctc_loss(logits, places(lengths, 3), *padded(rows))
    two = torch.tensor(2)
    fitting = [
        F.ctc_loss(logits[i, :n].log_softmax(-1), torch.tensor(rows[i]), torch.tensor(n), two, reduction="sum") for i, n in ((3, 2), (4, 3))
    ]
    torch.testing.assert_close(loss.total, torch.stack(fitting).sum(), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss.total, logits)
    assert bool(gradient.isfinite().all())
    assert (gradient != 0).flatten(1).any(1).tolist() == [False, False, False, True, True]
    assert loss.units.item() == 2 + 3 + 1 + 2 + 2


def test_a_row_without_labels_asks_for_blanks_and_counts_as_one() -> None:
    logits, nothing = torch.randn(2, 4, 3), (torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0, dtype=torch.bool))
    for targets, target_mask in (nothing, padded([[], []])):
        loss = ctc_loss(logits, places([4, 2], 4), targets, target_mask)
        log_p = logits.log_softmax(-1)[..., BLANK]
        torch.testing.assert_close(loss.total, -(log_p[0].sum() + log_p[1, :2].sum()), rtol=1e-5, atol=1e-5)
        assert loss.units.item() == 2


def saying(rows: Sequence[Sequence[int]], n_places: int) -> Tensor:
    """Return logits (B, S, 5) whose greedy ids are these, with other labels behind them."""
    ids = torch.tensor([[*row, *[4] * (n_places - len(row))] for row in rows])
    return F.one_hot(ids, 5) * 3.0 + torch.rand(*ids.shape, 5)


@pytest.mark.parametrize(
    ("said", "labels", "right"),
    [
        ([1, 1, 0, 2], [1, 2], 2),
        ([1, 0, 1, 2], [1, 1, 2], 3),
        ([1, 1, 1, 2], [1, 1, 2], 0),
        ([0, 0, 0, 0], [], 1),
        ([0, 3, 0, 0], [], 0),
        ([1, 2, 3, 1], [1, 2, 3], 0),  # one label too many
        ([1, 2, 0, 0], [1, 2, 3], 0),  # one too few
        ([1, 2, 0, 0], [1, 2, 2], 0),
        ([2, 2], [2], 1),  # what stands behind the last place is not heard
        ([3, 0, 3, 3], [3, 3], 2),
        ([], [1], 0),
        ([], [], 1),
    ],
)
def test_labels_are_right_in_rows_whose_greedy_answer_is(said: list[int], labels: list[int], right: int) -> None:
    loss = ctc_loss(saying([said], 6), places([len(said)], 6), *padded([labels], rubbish=3))
    assert loss.right.item() == right


def random_case(seed: int) -> tuple[list[list[int]], list[list[int]]]:
    """Draw what is said and what should have been, which often agree."""
    generator = torch.Generator().manual_seed(seed)
    said = [torch.randint(0, 3, (n,), generator=generator).tolist() for n in (5, 3, 0, 4, 6)]
    return said, [collapse(row) if i % 2 else [1, 2] for i, row in enumerate(said)]


@given(seed=st.integers(0, 999))
def test_a_batch_counts_what_its_rows_count(seed: int) -> None:
    said, labels = random_case(seed)
    loss = ctc_loss(saying(said, 6), places([len(row) for row in said], 6), *padded(labels, rubbish=1))
    expected = sum(max(1, len(row)) for ids, row in zip(said, labels, strict=True) if collapse(ids) == row)
    assert loss.right.item() == expected
    assert loss.units.item() == sum(max(1, len(row)) for row in labels)


def test_the_loss_of_bfloat16_logits_is_formed_in_float32() -> None:
    logits, mask = torch.randn(6, 5, 3).bfloat16(), places(LENGTHS, 5)
    loss = ctc_loss(logits, mask, *padded(LABELS))
    assert loss.total.dtype == torch.float32
    torch.testing.assert_close(loss.total, ctc_loss(logits.float(), mask, *padded(LABELS)).total, rtol=0, atol=0)
    assert isinstance(loss, LossSum)
