"""The losses against torch's, their definitions and finite differences."""

import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.model import cross_entropy, vocabulary_loss
from heed.model.losses import LossSum, class_loss, decision_loss

IGNORE = 0


class Case(NamedTuple):
    """Hidden vectors, the matrix of the head, and what should have come out."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    smoothing: float
    ignore: int | None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw up to 300 tokens, which are up to five chunks, with or without smoothing and ignored targets."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    n, n_classes, d_model = draw(st.integers(1, 300)), draw(st.integers(2, 19)), draw(st.integers(1, 7))
    shape = draw(st.sampled_from([(n,), (1, n), (n, 1)]))
    return Case(
        torch.randn(*shape, d_model),
        torch.randn(n_classes, d_model),
        torch.randint(0, n_classes, shape),
        draw(st.sampled_from([0.0, 0.1, 0.5])),
        draw(st.sampled_from([None, IGNORE])),
    )


def by_torch(logits: Tensor, case: Case) -> Tensor:
    ignored = -100 if case.ignore is None else case.ignore
    return F.cross_entropy(
        logits.flatten(0, -2), case.targets.flatten(), label_smoothing=case.smoothing, ignore_index=ignored, reduction="sum"
    )


def ours(case: Case, hidden: Tensor, weight: Tensor) -> LossSum:
    return vocabulary_loss(hidden, weight, case.targets, smoothing=case.smoothing, ignore=case.ignore)


@given(case=cases())
def test_cross_entropy_equals_torch_and_its_units_are_the_counted_targets(case: Case) -> None:
    logits = case.hidden @ case.weight.T
    loss = cross_entropy(logits, case.targets, smoothing=case.smoothing, ignore=case.ignore)
    counted = case.targets != (-1 if case.ignore is None else case.ignore)
    torch.testing.assert_close(loss.total, by_torch(logits, case), rtol=1e-5, atol=1e-4)
    assert loss.units == counted.sum()
    assert loss.right == (logits.argmax(-1) == case.targets)[counted].sum()


@given(case=cases(), n_absent=st.integers(1, 3))
def test_classes_that_are_absent_change_neither_loss_nor_gradients_of_the_others(case: Case, n_absent: int) -> None:
    n_classes, d_model = case.weight.shape
    place = torch.randperm(n_classes + n_absent)  # of all classes, the absent ones last
    larger = torch.full((n_classes + n_absent, d_model), 9.0).index_copy(0, place[:n_classes], case.weight)
    hidden, weight = case.hidden.clone().requires_grad_(), larger.requires_grad_()
    targets, ignore = place[case.targets], None if case.ignore is None else int(place[case.ignore])
    loss = vocabulary_loss(hidden, weight, targets, absent=place[n_classes:], smoothing=case.smoothing, ignore=ignore)
    plain = [case.hidden.clone().requires_grad_(), case.weight.clone().requires_grad_()]
    expected = ours(case, *plain)
    torch.testing.assert_close(tuple(loss), tuple(expected), rtol=1e-5, atol=1e-4)
    loss.total.backward()
    expected.total.backward()
    assert weight.grad is not None
    torch.testing.assert_close([hidden.grad, weight.grad[place[:n_classes]]], [one.grad for one in plain], rtol=1e-5, atol=1e-4)
    assert not weight.grad[place[n_classes:]].any()


@given(case=cases(), chunk_logits=st.sampled_from([1, 700, 1500, 1 << 21]))
def test_vocabulary_loss_equals_cross_entropy_in_value_and_gradient_for_every_chunk_size(case: Case, chunk_logits: int) -> None:
    leaves = [[case.hidden.clone().requires_grad_(), case.weight.clone().requires_grad_()] for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heed.model.losses.CHUNK_LOGITS", chunk_logits)
        patch.setattr("heed.model.losses.FEWEST_ROWS", 64)
        loss = ours(case, *leaves[0])
    logits = leaves[1][0] @ leaves[1][1].T
    expected = cross_entropy(logits, case.targets, smoothing=case.smoothing, ignore=case.ignore)
    torch.testing.assert_close(loss.total, expected.total, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(loss.total, by_torch(logits, case), rtol=1e-5, atol=1e-4)
    assert (loss.units, loss.right) == (expected.units, expected.right)
    for total in (loss.total, expected.total):
        torch.autograd.backward(total * 2.5)
    for mine, reference in zip(*leaves, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_bias_of_the_head_is_learned_as_from_its_logits(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heed.model.losses.CHUNK_LOGITS", 1)
    monkeypatch.setattr("heed.model.losses.FEWEST_ROWS", 4)
    targets = torch.randint(0, 7, (11,))
    leaves = [torch.randn(shape, requires_grad=True) for shape in ((11, 3), (7, 3), (7,))]
    hidden, weight, bias = leaves
    loss = vocabulary_loss(hidden, weight, targets, bias=bias, smoothing=smoothing)
    expected = cross_entropy(hidden @ weight.T + bias, targets, smoothing=smoothing)
    torch.testing.assert_close(loss.total, expected.total, rtol=1e-5, atol=1e-5)
    assert loss.right == expected.right
    found, wanted = (torch.autograd.grad(one.total * 2.5, leaves) for one in (loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    (alone,) = torch.autograd.grad(vocabulary_loss(hidden.detach(), weight.detach(), targets, bias=bias, smoothing=smoothing).total, bias)
    torch.testing.assert_close(alone * 2.5, wanted[2], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert not vocabulary_loss(hidden, weight, targets, bias=bias).total.requires_grad


@given(case=cases())
def test_bfloat16_autocast_stays_close_to_float32(case: Case) -> None:
    hidden, weight = case.hidden.clone().requires_grad_(), case.weight.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = ours(case, hidden, weight)
    assert loss.total.dtype == torch.float32
    torch.autograd.backward(loss.total)
    exact_hidden, exact_weight = case.hidden.clone().requires_grad_(), case.weight.clone().requires_grad_()
    exact = by_torch(exact_hidden @ exact_weight.T, case)
    torch.autograd.backward(exact)
    n = case.targets.numel()
    torch.testing.assert_close(loss.total / n, exact / n, rtol=2e-2, atol=2e-2)
    assert hidden.grad is not None
    assert weight.grad is not None
    assert exact_weight.grad is not None
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32
    torch.testing.assert_close(weight.grad / n, exact_weight.grad / n, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(hidden.grad, exact_hidden.grad, rtol=2e-2, atol=5e-2)  # of single tokens: measured 0.033 in 500 cases


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_equal_finite_differences(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heed.model.losses.CHUNK_LOGITS", 1)
    monkeypatch.setattr("heed.model.losses.FEWEST_ROWS", 64)
    hidden = torch.randn(70, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 5, (70,))
    assert torch.autograd.gradcheck(
        lambda hidden, weight: vocabulary_loss(hidden, weight, targets, smoothing=smoothing, ignore=IGNORE).total, (hidden, weight)
    )


@pytest.mark.parametrize("autocast", [False, True])
def test_a_batch_of_ignored_targets_counts_nothing_and_has_zero_gradients(autocast: bool) -> None:
    hidden, weight = torch.randn(2, 3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    targets = torch.full((2, 3), IGNORE)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = [
            vocabulary_loss(hidden, weight, targets, smoothing=0.1, ignore=IGNORE),
            cross_entropy(hidden @ weight.T, targets, smoothing=0.1, ignore=IGNORE),
        ]
    for loss in losses:
        assert [part.item() for part in loss] == [0, 0, 0]
        gradients = torch.autograd.grad(loss.total, (hidden, weight))
        assert all(bool((gradient == 0).all()) for gradient in gradients)


def test_the_smoothed_loss_equals_its_definition() -> None:
    logits, targets, s = torch.randn(6, 5, dtype=torch.float64), torch.randint(0, 5, (6,)), 0.2
    expected = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        log_norm = math.log(sum(math.exp(x) for x in row))
        log_p = [x - log_norm for x in row]
        expected += -(1 - s) * log_p[target] - s * sum(log_p) / len(log_p)
    torch.testing.assert_close(cross_entropy(logits, targets, smoothing=s).total.item(), expected)
    torch.testing.assert_close(vocabulary_loss(logits, torch.eye(5).double(), targets, smoothing=s).total.item(), expected)


def test_ignored_tokens_have_no_gradient_however_wild_they_are() -> None:
    hidden = torch.randn(3, 4)
    hidden[1] = torch.nan
    hidden.requires_grad_()
    loss = vocabulary_loss(hidden, torch.randn(5, 4), torch.tensor([2, IGNORE, 3]), ignore=IGNORE)
    [gradient] = torch.autograd.grad(loss.total, hidden)
    assert bool(loss.total.isfinite())
    assert bool((gradient[1] == 0).all())
    assert bool((gradient[[0, 2]] != 0).all())


def test_the_sum_over_parts_of_a_batch_is_the_sum_over_the_batch() -> None:
    hidden, weight, targets = torch.randn(10, 4), torch.randn(5, 4), torch.randint(0, 5, (10,))
    whole = vocabulary_loss(hidden, weight, targets, ignore=IGNORE)
    parts = [vocabulary_loss(hidden[rows], weight, targets[rows], ignore=IGNORE) for rows in (slice(0, 3), slice(3, 10))]
    for i in range(3):
        torch.testing.assert_close(whole[i], parts[0][i] + parts[1][i])


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_stay_finite(size: float) -> None:
    weight = torch.eye(3) * size
    hidden = torch.eye(3)[:2].requires_grad_()
    loss = vocabulary_loss(hidden, weight, torch.tensor([0, 2]))
    expected = F.cross_entropy(hidden @ weight.T, torch.tensor([0, 2]), reduction="sum")
    torch.testing.assert_close(loss.total, expected)
    assert bool(torch.autograd.grad(loss.total, hidden)[0].isfinite().all())


def test_evaluating_without_gradients_gives_the_same_loss_and_no_graph() -> None:
    hidden, weight, targets = torch.randn(6, 4), torch.randn(5, 4, requires_grad=True), torch.randint(0, 5, (6,))
    training = vocabulary_loss(hidden, weight, targets)
    for silent in (torch.no_grad, torch.inference_mode):
        with silent():
            loss = vocabulary_loss(hidden, weight, targets)
        assert not loss.total.requires_grad
        torch.testing.assert_close(loss.total, training.total.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_either_input_may_be_frozen(frozen: str) -> None:
    hidden, weight = torch.randn(6, 4), torch.randn(5, 4)
    free = weight if frozen == "hidden" else hidden
    free.requires_grad_()
    targets = torch.randint(0, 5, (6,))
    expected = F.cross_entropy(hidden @ weight.T, targets, reduction="sum")
    mine = torch.autograd.grad(vocabulary_loss(hidden, weight, targets).total, free)
    torch.testing.assert_close(mine, torch.autograd.grad(expected, free), rtol=1e-5, atol=1e-5)


class Texts(NamedTuple):
    """Logits (B, C) of texts, their classes (B,), which classes apply (B, C), and the options of a loss."""

    logits: Tensor
    classes: Tensor
    applies: Tensor
    smoothing: float
    weights: Tensor | None


@st.composite
def judged_texts(draw: st.DrawFn) -> Texts:
    """Draw up to nine texts, with or without smoothing and weights of the classes."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    n, n_classes = draw(st.integers(1, 9)), draw(st.integers(2, 7))
    return Texts(
        3 * torch.randn(n, n_classes, dtype=torch.float64, requires_grad=True),
        torch.randint(0, n_classes, (n,)),
        torch.rand(n, n_classes) < 0.4,
        draw(st.sampled_from([0.0, 0.1, 0.5])),
        5 * torch.rand(n_classes) if draw(st.booleans()) else None,
    )


@given(texts=judged_texts())
def test_the_loss_of_classes_equals_its_definition_and_torchs_with_weights_and_smoothing(texts: Texts) -> None:
    logits, classes, _, s, weights = texts
    loss = class_loss(logits, classes, smoothing=s, weights=weights)
    factors = torch.ones(logits.size(1)).double() if weights is None else weights.double()
    expected = torch.zeros(()).double()
    for row, wanted in zip(logits, classes, strict=True):
        log_p = row - row.exp().sum().log()
        shares = torch.full_like(row, s / len(row))
        shares[wanted] += 1 - s
        expected = expected - (factors * shares * log_p).sum()
    torch.testing.assert_close(loss.total, expected)
    by_torch = F.cross_entropy(logits, classes, factors, label_smoothing=s, reduction="sum")
    torch.testing.assert_close(loss.total, by_torch)
    gradients = [torch.autograd.grad(total, logits) for total in (loss.total, expected)]
    torch.testing.assert_close(*gradients)
    assert loss.units == len(classes)
    assert loss.right == (logits.argmax(-1) == classes).sum()


@given(texts=judged_texts())
def test_the_loss_of_decisions_equals_its_definition_and_torchs_with_weights_and_smoothing(texts: Texts) -> None:
    logits, _, applies, s, weights = texts
    loss = decision_loss(logits, applies, smoothing=s, weights=weights)
    factors = torch.ones(logits.size(1)).double() if weights is None else weights.double()
    wanted = (1 - s) * applies.double() + s / 2
    expected = -(factors * wanted * logits.sigmoid().log() + (1 - wanted) * (1 - logits.sigmoid()).log()).sum()
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.total, F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=factors, reduction="sum"))
    gradients = [torch.autograd.grad(total, logits) for total in (loss.total, expected)]
    torch.testing.assert_close(*gradients)
    assert loss.units == applies.numel()
    right_rows = sum(bool(((one.sigmoid() > 0.5) == wanted).all()) for one, wanted in zip(logits, applies, strict=True))
    assert loss.right == right_rows * applies.size(1)


@given(texts=judged_texts(), cut=st.integers(0, 9))
def test_losses_of_texts_are_sums_over_the_members_of_a_batch(texts: Texts, cut: int) -> None:
    logits, classes, applies, s, weights = texts
    for function, targets in ((class_loss, classes), (decision_loss, applies)):
        whole = function(logits, targets, smoothing=s, weights=weights)
        parts = [function(logits[rows], targets[rows], smoothing=s, weights=weights) for rows in (slice(0, cut), slice(cut, None))]
        for i in range(3):
            torch.testing.assert_close(whole[i], parts[0][i] + parts[1][i])


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_of_texts_stay_finite_also_in_half_precision(size: float) -> None:
    logits, wanted = (size * torch.eye(3)).bfloat16().requires_grad_(), torch.tensor([0, 2, 1])
    weights = torch.tensor([1.0, 2.0, 3.0])
    for loss in (class_loss(logits, wanted, weights=weights), decision_loss(logits, torch.eye(3).long(), weights=weights)):
        assert loss.total.dtype == torch.float32
        assert bool(loss.total.isfinite())
        assert bool(torch.autograd.grad(loss.total, logits)[0].isfinite().all())


def test_knowing_nothing_costs_the_logarithm_of_the_number_of_classes_and_of_two_for_a_decision() -> None:
    classes, decisions = class_loss(torch.zeros(4, 7), torch.arange(4)), decision_loss(torch.zeros(4, 7), torch.rand(4, 7) < 0.5)
    assert float(classes.total / classes.units) == pytest.approx(math.log(7), rel=1e-6)
    assert float(decisions.total / decisions.units) == pytest.approx(math.log(2), rel=1e-6)
