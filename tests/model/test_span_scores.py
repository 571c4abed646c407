"""Spans, windows behind a head, and the loss over places, against definitions that try every one."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from heed.model.losses import place_loss
from heed.model.spans import best_spans
from heed.model.windows import cut_behind


@pytest.mark.parametrize("longest", [1, 3, 9])
def test_the_best_spans_are_those_of_trying_all(longest: int) -> None:
    N, S, K = 3, 7, 5
    torch.manual_seed(longest)
    log_p, allowed = torch.randn(N, S, 2), torch.rand(N, S) > 0.3
    found = best_spans(log_p, allowed, longest=longest, n_best=K)
    for n in range(N):
        legal = [(i, j) for i, j in itertools.product(range(S), repeat=2) if allowed[n, i] and allowed[n, j] and 0 <= j - i < longest]
        expected = sorted(((float(log_p[n, i, 0] + log_p[n, j, 1]), i, j) for i, j in legal), reverse=True)[:K]
        rows = zip(found.log_p[n].tolist(), found.firsts[n].tolist(), found.lasts[n].tolist(), strict=True)
        assert [row for row in rows if math.isfinite(row[0])] == expected


@given(
    lengths=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 15)), min_size=1, max_size=4),
    overlap=st.integers(0, 3),
    tail=st.integers(0, 1),
)
def test_every_window_repeats_head_and_tail_around_a_part_of_the_rest(lengths: list[tuple[int, int]], overlap: int, tail: int) -> None:
    size = 9
    whole = [head + rest + tail for head, rest in lengths]
    ids = torch.zeros(len(lengths), max(whole), dtype=torch.long)
    for row, length in enumerate(whole):
        ids[row, :length] = torch.arange(length) + 100 * (row + 1)
    found = cut_behind(ids, ids > 0, torch.tensor([head for head, _ in lengths]), size=size, overlap=overlap, tail=tail)
    for row, (head, rest) in enumerate(lengths):
        mine = [found.ids[n][found.mask[n]].tolist() for n in torch.nonzero(found.rows == row)[:, 0]]
        text = ids[row, : whole[row]].tolist()
        parts = [one[head : len(one) - tail] for one in mine]
        assert all(one[:head] == text[:head] and one[len(one) - tail :] == text[whole[row] - tail :] for one in mine)
        assert all(len(one) == min(size, whole[row]) for one in mine)
        assert list(dict.fromkeys(itertools.chain(*parts))) == text[head : head + rest]
        assert all(part == list(range(part[0], part[0] + len(part))) for part in parts if part)
        assert all(len(set(one) & set(other)) >= overlap for one, other in itertools.pairwise(parts))
    assert (found.ids[found.mask] == ids[found.rows[:, None], found.places][found.mask]).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_over_places_is_the_cross_entropy_of_the_allowed_ones_alone(smoothing: float) -> None:
    torch.manual_seed(1)
    logits, targets = torch.randn(3, 6), torch.tensor([0, 2, 5])
    allowed = torch.tensor([[1, 1, 0, 0, 1, 0], [1, 0, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]], dtype=torch.bool)
    total, units, right = place_loss(logits, allowed, targets, smoothing=smoothing)
    expected, n_right = 0.0, 0
    for row in range(3):
        places = torch.nonzero(allowed[row])[:, 0].tolist()
        kept, target = logits[row, places][None], torch.tensor([places.index(int(targets[row]))])
        expected += float(F.cross_entropy(kept, target, label_smoothing=smoothing))
        n_right += int(kept.argmax() == target)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert (int(units), int(right)) == (3, n_right)
