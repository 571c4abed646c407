"""Losses: each returns a sum over units and what it counted, and is divided once, after every micro-batch and rank is added.

`vocabulary_loss` fuses the projection onto the vocabulary with the cross-entropy: logits exist for a few hundred tokens at a time
only, and their gradient is formed while they are at hand (as in Liger and Cut Cross-Entropy, Wijmans et al. 2024).
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_LOGITS = 1 << 21  # logits held at a time: 8 MiB in float32, which stay in the cache between the passes over them
FEWEST_ROWS = 256  # but no fewer tokens: the gradient of all weights is read and written once for each chunk
BLANK = 0  # CTC's label for nothing new; no token has it, for it is the id of padding


class LossSum(NamedTuple):
    """A loss before division: its sum, the units it is a sum over, and how many of them were predicted right."""

    total: Tensor
    units: Tensor
    right: Tensor


def cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, ignore: int | None = None) -> LossSum:
    """Sum the smoothed cross-entropy: (1 - s) * -log p(target) + s * mean over classes of -log p (Szegedy et al. 2016).

    Args:
        logits: (..., V); targets: (...), class ids.
        smoothing: s, the probability spread evenly over all classes.
        ignore: targets of this id do not count.
    """
    logits, targets = _at_least_float32(logits.reshape(-1, logits.size(-1))), targets.reshape(-1)
    counted = torch.ones_like(targets, dtype=torch.bool) if ignore is None else targets != ignore
    logits, targets = logits[counted], targets[counted]
    total = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    right = logits.gather(-1, targets[:, None])[:, 0] >= logits.amax(-1) if targets.numel() else counted[:0]
    return LossSum(total, counted.sum(), right.sum())


def vocabulary_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    absent: Tensor | None = None,
    smoothing: float = 0.0,
    ignore: int | None = None,
) -> LossSum:
    """Sum the smoothed cross-entropy of `hidden @ weight.T + bias` without ever holding all logits; equals `cross_entropy` of them.

    Args:
        hidden: (..., D); weight: (V, D), the matrix of the vocabulary head; targets: (...), token ids.
        bias: (V,), of the vocabulary head, if it has one.
        absent: (n,), ids that stand for nothing: they have no probability, and smoothing gives them none.
        smoothing, ignore: as for `cross_entropy`.
    """
    hidden, targets = hidden.reshape(-1, hidden.size(-1)), targets.reshape(-1)
    counted = None if ignore is None else targets != ignore
    if counted is not None and not bool(counted.all()):
        hidden, targets = hidden[counted], targets[counted]
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    if not torch.is_grad_enabled():  # or the forward pass would form gradients that nobody asks for
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    total, right = _VocabularyLoss.apply(hidden, weight, bias, targets, absent, smoothing)  # type: ignore[no-untyped-call]
    return LossSum(total, torch.tensor(targets.numel(), device=hidden.device), right)


def class_loss(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None) -> LossSum:
    """Sum the smoothed cross-entropy of one class for each row, over rows.

    Args:
        logits: (B, C); targets: (B,), class ids.
        weights: (C,), factors on the rows of each class.
    """
    logits = _at_least_float32(logits)
    weights = None if weights is None else weights.to(logits)
    total = F.cross_entropy(logits, targets, weights, label_smoothing=smoothing, reduction="sum")
    units = torch.tensor(targets.numel(), device=logits.device)
    return LossSum(total, units, (logits.argmax(-1) == targets).sum())


def place_loss(logits: Tensor, allowed: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> LossSum:
    """Sum the smoothed cross-entropy of one of the allowed places for each row, over rows.

    Args:
        logits: (B, S); allowed: (B, S), True where an answer may stand; targets: (B,), allowed places.
        smoothing: the probability spread evenly over the allowed places.
    """
    logits = _at_least_float32(logits).masked_fill(~allowed, torch.finfo(torch.float32).min)
    log_p = logits.log_softmax(-1)
    total = -log_p.gather(-1, targets[:, None])[:, 0]
    if smoothing:
        mean = log_p.masked_fill(~allowed, 0.0).sum(-1) / allowed.sum(-1)
        total = (1 - smoothing) * total - smoothing * mean
    units = torch.tensor(targets.numel(), device=logits.device)
    return LossSum(total.sum(), units, (logits.argmax(-1) == targets).sum())


def decision_loss(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None) -> LossSum:
    """Sum the smoothed binary cross-entropy over decisions: each of C classes may apply to a row or not.

    Right are the decisions of rows in which all are right, so that their share is that of right rows.

    Args:
        logits: (B, C); targets: (B, C), True where a class applies.
        weights: (C,), factors on the decisions that a class applies.
    """
    logits = _at_least_float32(logits)
    wanted = targets.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    weights = None if weights is None else weights.to(logits)
    total = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weights, reduction="sum")
    units = torch.tensor(targets.numel(), device=logits.device)
    right_rows = ((logits > 0) == targets.bool()).all(-1).sum()
    return LossSum(total, units, right_rows * targets.size(-1))


def class_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Sum over rows how far two distributions over classes lie apart: the mean of KL(p || q) and KL(q || p) (Liang et al. 2021).

    Args:
        first, second: (B, C), logits of p and q.
    Returns:
        (), which goes with the units of `class_loss`.
    """
    log_p, log_q = (_at_least_float32(logits).log_softmax(-1) for logits in (first, second))
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum() / 2


def decision_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Sum over decisions what `class_divergence` sums over rows: each is a distribution of its own, over yes and no.

    Args:
        first, second: (B, C), logits of yes.
    Returns:
        (), which goes with the units of `decision_loss`.
    """
    first, second = _at_least_float32(first), _at_least_float32(second)
    return ((first.sigmoid() - second.sigmoid()) * (first - second)).sum() / 2  # as logit p is log p - log(1 - p)


def ctc_loss(logits: Tensor, mask: Tensor, targets: Tensor, target_mask: Tensor) -> LossSum:
    """Sum -log p(labels | logits), where p adds up all ways to spread the labels over the places (Graves et al. 2006, eq. 3 and 8).

    A row whose labels do not fit its places, which takes as many as there are labels and one between any two that are alike, adds
    nothing to the loss and has no gradient. Units are labels, one for a row without any. Right are those of rows whose greedy answer is
    exactly right: with right / units, accuracy is the share of labels that stand in faultless rows.

    Args:
        logits: (B, S, V), scores of the labels at each place; label 0, the id of padding, is the blank.
        mask: (B, S), True = real, on the left.
        targets: (B, L), labels from 1; target_mask: (B, L), True = real, on the left.
    """
    lengths, target_lengths = mask.sum(1), target_mask.sum(1)
    targets = targets.masked_fill(~target_mask, BLANK)
    log_p = _at_least_float32(logits).log_softmax(-1).transpose(0, 1)
    total = F.ctc_loss(log_p, targets, lengths, target_lengths, blank=BLANK, reduction="sum", zero_infinity=True)
    units = target_lengths.clamp(min=1)
    found = _collapsed(logits.argmax(-1).masked_fill(~mask, BLANK), targets.size(1))
    right_rows = (found == F.pad(targets, (0, 1))).all(1)
    return LossSum(total, units.sum(), (units * right_rows).sum())


def _collapsed(ids: Tensor, n_labels: int) -> Tensor:
    """Leave out repetitions and blanks of ids (B, S).

    Returns:
        (B, n_labels + 1), as many labels with 0 where there are fewer, and another that is not 0 where there are more.
    """
    new = (ids != BLANK) & (ids != F.pad(ids, (1, 0), value=BLANK)[:, :-1])
    places = torch.where(new, new.cumsum(1) - 1, n_labels).clamp(max=n_labels)
    return ids.new_zeros(ids.size(0), n_labels + 1).scatter_reduce(1, places, ids * new, "amax")


class _VocabularyLoss(torch.autograd.Function):
    """Projection and cross-entropy in chunks of rows; the backward pass only scales what the forward pass stored."""

    @staticmethod
    def forward(  # noqa: PLR0917 - what is differentiated stands in one row
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, absent: Tensor | None, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        needed = hidden.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        sum_dtype = torch.promote_types(weight.dtype, torch.float32)
        total = torch.zeros((), dtype=sum_dtype, device=hidden.device)
        right = torch.zeros((), dtype=torch.long, device=hidden.device)
        d_hidden = torch.empty_like(hidden) if needed else None
        d_weight = torch.zeros(weight.shape, dtype=sum_dtype, device=weight.device) if needed else None
        d_bias = torch.zeros(weight.size(0), dtype=sum_dtype, device=weight.device) if needed and bias is not None else None
        rows = max(FEWEST_ROWS, CHUNK_LOGITS // weight.size(0))
        with torch.autocast(hidden.device.type, enabled=False):
            for start in range(0, hidden.size(0), rows):
                h, t = hidden[start : start + rows], targets[start : start + rows, None]
                logits = h @ weight.t()
                loss, n_right, d_logits = _chunk(logits if bias is None else logits.to(sum_dtype) + bias, t, absent, smoothing)
                total += loss
                right += n_right
                if d_bias is not None:
                    d_bias += d_logits.sum(0)
                if d_hidden is not None and d_weight is not None:
                    d_logits = d_logits.to(weight.dtype)
                    torch.mm(d_logits, weight, out=d_hidden[start : start + rows])
                    d_weight += d_logits.t() @ h
        if d_hidden is not None and d_weight is not None:
            ctx.save_for_backward(d_hidden, d_weight, d_bias)
        ctx.mark_non_differentiable(right)
        ctx.weight_dtype, ctx.bias_dtype = weight.dtype, None if bias is None else bias.dtype
        return total, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None, None]:
        d_hidden, d_weight, d_bias = ctx.saved_tensors
        of_bias = None if d_bias is None else (d_bias * d_total).to(ctx.bias_dtype)
        return d_hidden * d_total.to(d_hidden.dtype), (d_weight * d_total).to(ctx.weight_dtype), of_bias, None, None, None


def _chunk(logits: Tensor, targets: Tensor, absent: Tensor | None, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss sum, number right, and the gradient of the logits (N, V) for targets (N, 1); classes that are absent have none."""
    logits = _at_least_float32(logits)
    if absent is not None:
        return _chunk_without(logits, targets, absent, smoothing)
    n_classes = logits.size(-1)
    highest = logits.amax(-1, keepdim=True)
    at_target = logits.gather(-1, targets)
    n_right = (at_target >= highest).sum()  # a target that shares the highest score counts as right; argmax takes 20 times as long
    mean = logits.mean(-1, keepdim=True)
    p = logits.sub_(highest).exp_()
    norm = p.sum(-1, keepdim=True)
    log_norm = norm.log() + highest
    loss = (log_norm - (1 - smoothing) * at_target - smoothing * mean).sum()
    d_logits = p.div_(norm).sub_(smoothing / n_classes) if smoothing else p.div_(norm)
    d_logits.scatter_add_(-1, targets, torch.full_like(at_target, smoothing - 1))
    return loss, n_right, d_logits


def _chunk_without(logits: Tensor, targets: Tensor, absent: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `_chunk` does with the other classes alone."""
    present = torch.ones(logits.size(-1), dtype=torch.bool, device=logits.device).index_fill(0, absent, False)
    place = present.long().cumsum(0) - 1  # of each class among those
    loss, n_right, d_present = _chunk(logits[:, present], place[targets], None, smoothing)
    d_logits = torch.zeros_like(logits)
    d_logits[:, present] = d_present
    return loss, n_right, d_logits


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
