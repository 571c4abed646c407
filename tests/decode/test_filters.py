"""Filters of logits, against their definitions over plain lists."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import NoRepeatNGramLogitsProcessor

from heed.decode.filters import (
    NEVER,
    NO_TOKEN,
    apply_temperature,
    discourage,
    forbid,
    forbid_repeats,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    log_probabilities,
)
from heed.errors import TrainingError

scores = st.floats(-30, 30, width=32)
rows = st.integers(1, 9).flatmap(lambda width: st.lists(st.lists(scores, min_size=width, max_size=width), min_size=1, max_size=3))


def softmax(row: list[float]) -> list[float]:
    highest = max(row)
    powers = [math.exp(score - highest) for score in row]
    return [power / sum(powers) for power in powers]


def kept(filtered: Tensor) -> list[set[int]]:
    return [{i for i, score in enumerate(row) if score > NEVER} for row in filtered.tolist()]


@given(rows=rows, temperature=st.floats(1e-3, 1e3))
def test_temperature_raises_the_probabilities_to_one_over_it(rows: list[list[float]], temperature: float) -> None:
    found = apply_temperature(torch.tensor(rows), temperature).softmax(-1)
    expected = torch.tensor([softmax([score / temperature for score in row]) for row in rows])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [1e-6, 1e-40, 5e-324])
def test_the_smallest_temperature_leaves_the_best_token_alone(temperature: float) -> None:
    logits = torch.tensor([[3.0, 70.0, NEVER, 69.0]])
    assert apply_temperature(logits, temperature).softmax(-1).tolist() == [[0.0, 1.0, 0.0, 0.0]]


@given(rows=rows, k=st.integers(0, 12))
def test_top_k_keeps_what_is_no_less_likely_than_the_kth(rows: list[list[float]], k: int) -> None:
    filtered = keep_top_k(torch.tensor(rows), k)
    for row, survivors in zip(rows, kept(filtered), strict=True):
        least = sorted(row, reverse=True)[min(k, len(row)) - 1] if k else min(row)
        assert survivors == {i for i, score in enumerate(row) if score >= least}
    assert filtered[filtered > NEVER].tolist() == torch.tensor(rows)[filtered > NEVER].tolist()


@given(rows=rows, p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_holds_p(rows: list[list[float]], p: float) -> None:
    for row, survivors in zip(rows, kept(keep_top_p(torch.tensor(rows), p)), strict=True):
        probabilities = softmax(row)
        held = sum(probabilities[i] for i in survivors)
        least = min(probabilities[i] for i in survivors)
        assert held >= p - 1e-5  # it holds p,
        assert held - least < p + 1e-5  # not without its least likely member,
        assert all(probabilities[i] <= least + 1e-7 for i in range(len(row)) if i not in survivors)  # and no likelier one was left out


def test_top_p_keeps_one_token_at_least() -> None:
    assert kept(keep_top_p(torch.tensor([[0.0, 5.0, 1.0]]), 1e-9)) == [{1}]


@given(rows=rows, p=st.floats(0.001, 1))
def test_min_p_keeps_what_is_at_least_p_times_as_likely_as_the_likeliest(rows: list[list[float]], p: float) -> None:
    for row, survivors in zip(rows, kept(keep_min_p(torch.tensor(rows), p)), strict=True):
        shares = [share / max(softmax(row)) for share in softmax(row)]
        assert survivors >= {i for i, share in enumerate(shares) if share > p * 1.0001}
        assert survivors <= {i for i, share in enumerate(shares) if share > p * 0.9999}


def test_min_p_of_0_keeps_all_and_of_1_the_likeliest() -> None:
    logits = torch.tensor([[0.0, 5.0, NEVER, 1.0]])
    assert kept(keep_min_p(logits, 0.0)) == [{0, 1, 3}]
    assert kept(keep_min_p(logits, 1.0)) == [{1}]


@given(rows=rows, penalty=st.floats(0.5, 4), past=st.lists(st.integers(0, 8), max_size=5))
def test_scores_of_tokens_in_the_past_are_divided_or_multiplied_and_no_others(
    rows: list[list[float]], penalty: float, past: list[int]
) -> None:
    past = [token for token in past if token < len(rows[0])]
    found = discourage(torch.tensor(rows), torch.tensor([past] * len(rows), dtype=torch.long), penalty)
    for row, changed in zip(rows, found.tolist(), strict=True):
        expected = [(s / penalty if s > 0 else s * penalty) if i in past else s for i, s in enumerate(row)]
        assert changed == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_each_row_has_a_past_of_its_own() -> None:
    logits = torch.tensor([[2.0, -2.0, 4.0], [2.0, -2.0, 4.0]])
    assert discourage(logits, torch.tensor([[0, 0], [1, 2]]), 2.0).tolist() == [[1.0, -2.0, 4.0], [2.0, -4.0, 2.0]]


def test_a_past_that_begins_later_is_discouraged_as_if_it_stood_alone() -> None:
    logits = torch.tensor([[2.0, -2.0, 4.0]] * 2)
    padded = torch.tensor([[NO_TOKEN, NO_TOKEN, 1], [NO_TOKEN, 2, 0]])
    alone = [discourage(logits[:1], torch.tensor([past]), 2.0) for past in ([1], [2, 0])]
    assert torch.equal(discourage(logits, padded, 2.0), torch.cat(alone))


N_TOKENS = 4
END = 3
pasts = st.lists(st.integers(0, N_TOKENS - 1), min_size=1, max_size=14)


def repeats(past: list[int], n: int) -> set[int]:
    """Return the tokens behind which the last n tokens stand in the text already."""
    held = [past[i : i + n] for i in range(len(past) - n + 1)]
    return {token for token in range(N_TOKENS) if token != END and n and [*past, token][-n:] in held}


@given(several=st.lists(pasts, min_size=1, max_size=3), n=st.integers(0, 6))
def test_what_would_repeat_a_run_of_n_tokens_is_forbidden_and_nothing_else(several: list[list[int]], n: int) -> None:
    longest = max(map(len, several))
    past = torch.tensor([[NO_TOKEN] * (longest - len(one)) + one for one in several])
    logits = torch.randn(len(several), N_TOKENS)
    found = forbid_repeats(logits.clone(), past, n, end=END)
    assert kept(found) == [set(range(N_TOKENS)) - repeats(one, n) for one in several]
    assert torch.equal(found[found > NEVER], logits[found > NEVER])


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_same_is_forbidden_as_transformers_forbids(n: int) -> None:
    n_forbidden = 0
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        past, logits = torch.randint(0, 3, (4, 17), generator=draw), torch.randn(4, 7, generator=draw)
        expected = NoRepeatNGramLogitsProcessor(n)(past, logits.clone())
        assert torch.equal(forbid_repeats(logits.clone(), past, n, end=6), expected)
        n_forbidden += int((expected == NEVER).sum())
    assert n_forbidden > 0


def test_filters_do_not_revive_what_is_forbidden() -> None:
    logits = torch.tensor([[NEVER, 2.0, NEVER, 1.0, 0.0]])
    for shaped in (
        apply_temperature(logits, 0.5),
        keep_top_k(logits, 4),
        keep_top_p(logits, 0.999999),
        keep_top_k(logits, 9),
        keep_min_p(logits, 0.01),
        discourage(logits, torch.tensor([[0, 1, 2]]), 1.5),
        forbid_repeats(logits.clone(), torch.tensor([[0, 2]]), 1, end=1),
    ):
        assert kept(shaped) == [{1, 3, 4}]


def test_forbid_takes_tokens_out_of_every_row_and_leaves_the_others() -> None:
    logits = torch.arange(8.0).view(2, 4)
    assert forbid(logits.clone(), torch.tensor([0, 3])).tolist() == [[NEVER, 1.0, 2.0, NEVER], [NEVER, 5.0, 6.0, NEVER]]
    assert forbid(logits.clone(), torch.tensor([], dtype=torch.long)).tolist() == logits.tolist()


@given(rows=rows)
def test_log_probabilities_are_the_log_of_softmax(rows: list[list[float]]) -> None:
    expected = torch.tensor([softmax(row) for row in rows])
    torch.testing.assert_close(log_probabilities(torch.tensor(rows)).exp(), expected, rtol=1e-4, atol=1e-6)


def test_log_probabilities_are_float32_whatever_the_logits_are() -> None:
    assert log_probabilities(torch.randn(2, 3).bfloat16()).dtype == torch.float32


def test_a_row_without_any_possible_token_gives_never_throughout() -> None:
    log_p = log_probabilities(torch.tensor([[NEVER, NEVER], [0.0, 0.0], [NEVER, 4.0]]))
    assert log_p.tolist() == [[NEVER, NEVER], [pytest.approx(math.log(0.5))] * 2, [NEVER, 0.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
def test_scores_that_are_no_numbers_are_refused(bad: float, place: tuple[int, int]) -> None:
    logits = torch.tensor([[0.0, 1.0, NEVER], [NEVER, NEVER, NEVER]])
    logits[place] = bad
    with pytest.raises(TrainingError, match=r"NaN or infinite.*lower train\.lr"):
        log_probabilities(logits)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: apply_temperature(x, 2.0),
        lambda x: keep_top_k(x, 1),
        lambda x: keep_top_p(x, 0.5),
        lambda x: keep_min_p(x, 0.5),
        lambda x: discourage(x, torch.tensor([[1]]), 2.0),
    ],
)
def test_shaping_leaves_its_input_as_it_was(change: Callable[[Tensor], Tensor]) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    change(logits)
    assert logits.tolist() == [[0.0, 1.0, 2.0]]
