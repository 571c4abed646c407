"""Beam search over made-up models whose scores depend on the whole beginning: against all sequences there are."""

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.decode.filters import NEVER
from heed.decode.kernels import CHUNK
from heed.decode.search import BeamSearch, Step, continuations
from heed.errors import TrainingError

END = 2
Scorer = Callable[[Sequence[int]], Tensor]  # the ids so far -> logits (V,)


def toy_model(seed: int, vocab_size: int, *, spread: float = 2.0, impossible: float = 0.0) -> Scorer:
    """Return logits that are random, but always the same for the same beginning; a share of them is impossible."""

    def logits(ids: Sequence[int]) -> Tensor:
        draw = torch.Generator().manual_seed(hash((seed, *ids)) % 2**62)
        drawn = torch.randn(vocab_size, generator=draw) * spread
        drawn[torch.rand(vocab_size, generator=draw) < impossible] = NEVER
        return drawn

    return logits


def rows_of(step: Step) -> list[int]:
    return list(range(step.tokens.numel())) if step.rows is None else step.rows.tolist()


def search(
    models: Sequence[Scorer], limits: list[int], *, beams: int, penalty: float = 1.0, n_best: int = 1, early: bool = True
) -> BeamSearch:
    """Run a search in which row r of source s is scored by models[s]."""
    run = BeamSearch(limits, beams=beams, length_penalty=penalty, n_best=n_best, end=END, early=early)
    beginnings = [(model, ()) for model in models for _ in range(beams)]
    while (step := run.advance(torch.stack([model(ids) for model, ids in beginnings]))) is not None:
        pairs = zip(rows_of(step), step.tokens.tolist(), strict=True)
        beginnings = [(beginnings[row][0], (*beginnings[row][1], token)) for row, token in pairs]
    return run


def every_answer(model: Scorer, limit: int, penalty: float) -> list[tuple[float, list[int]]]:
    """Score every sequence that ends within the limit, best first."""
    vocab_size = model(()).numel()
    found = []
    for length in range(limit):
        for ids in itertools.product([i for i in range(vocab_size) if i != END], repeat=length):
            log_p = sum(float(model(ids[:i]).log_softmax(-1)[token]) for i, token in enumerate((*ids, END)))
            found.append((log_p / (length + 1) ** penalty, list(ids)))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", [-1.0, -0.3, 0.0, 0.6, 1.0, 2.5])
def test_a_beam_as_wide_as_the_space_finds_the_best_of_all_sequences(penalty: float) -> None:
    model = toy_model(3, 5)
    expected = every_answer(model, 4, penalty)
    [found] = search([model], [4], beams=len(expected), penalty=penalty, n_best=10).results()
    assert [hypothesis.ids for hypothesis in found] == [ids for _, ids in expected[:10]]
    assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _ in expected[:10]], abs=1e-5)


random_models = st.tuples(st.integers(0, 2**40), st.integers(3, 9), st.sampled_from([0.3, 2.0, 6.0]), st.sampled_from([0.0, 0.3]))
settings = st.fixed_dictionaries({"beams": st.integers(1, 7), "penalty": st.sampled_from([-0.5, 0.0, 0.6, 1.0, 3.0])})


@given(description=random_models, limits=st.lists(st.integers(1, 7), min_size=1, max_size=4), settings=settings, data=st.data())
def test_leaving_off_early_never_changes_the_answer(
    description: tuple[int, int, float, float], limits: list[int], settings: dict[str, float], data: st.DataObject
) -> None:
    seed, vocab_size, spread, impossible = description
    beams, penalty = int(settings["beams"]), settings["penalty"]
    n_best = data.draw(st.integers(1, beams))
    models = [toy_model(seed + i, vocab_size, spread=spread, impossible=impossible) for i in range(len(limits))]
    early, late = (search(models, limits, beams=beams, penalty=penalty, n_best=n_best, early=early) for early in (True, False))
    assert early.results() == late.results()
    assert early.length <= late.length


@given(description=random_models, limits=st.lists(st.integers(1, 6), min_size=2, max_size=5), settings=settings)
def test_a_source_alone_is_answered_as_among_others(
    description: tuple[int, int, float, float], limits: list[int], settings: dict[str, float]
) -> None:
    seed, vocab_size, spread, impossible = description
    beams, penalty = int(settings["beams"]), settings["penalty"]
    models = [toy_model(seed + i, vocab_size, spread=spread, impossible=impossible) for i in range(len(limits))]
    together = search(models, limits, beams=beams, penalty=penalty, n_best=beams).results()
    for model, limit, found in zip(models, limits, together, strict=True):
        assert found == search([model], [limit], beams=beams, penalty=penalty, n_best=beams).results()[0]


@given(description=random_models, limit=st.integers(1, 7), settings=settings)
def test_answers_are_sorted_distinct_within_the_limit_and_scored_by_their_probability(
    description: tuple[int, int, float, float], limit: int, settings: dict[str, float]
) -> None:
    seed, vocab_size, spread, impossible = description
    beams, penalty = int(settings["beams"]), settings["penalty"]
    model = toy_model(seed, vocab_size, spread=spread, impossible=impossible)
    [found] = search([model], [limit], beams=beams, penalty=penalty, n_best=beams).results()
    assert [hypothesis.score for hypothesis in found] == sorted((hypothesis.score for hypothesis in found), reverse=True)
    assert len({tuple(hypothesis.ids) for hypothesis in found}) == len(found) <= beams
    for ids, score, log_probability in found:
        log_p = sum(float(model(ids[:i]).log_softmax(-1)[token]) for i, token in enumerate([*ids, END]))
        assert len(ids) + 1 <= limit
        assert END not in ids
        assert log_probability == pytest.approx(log_p, abs=1e-4)
        assert score == pytest.approx(log_p / (len(ids) + 1) ** penalty, abs=1e-4, rel=1e-5)


def test_a_search_without_impossible_tokens_finds_something_for_every_source() -> None:
    models = [toy_model(seed, 8) for seed in range(20)]
    assert all(search(models, [1 + i % 4 for i in range(20)], beams=3).results())


def test_being_cut_off_costs_what_the_end_costs() -> None:
    logits = torch.tensor([0.0, 8.0, 0.0])
    [[found]] = search([lambda ids: logits], [3], beams=1).results()
    log_p = logits.log_softmax(-1)
    assert found.ids == [1, 1]
    assert found.log_probability == pytest.approx(float(2 * log_p[1] + log_p[END]))


@pytest.mark.parametrize("vocab_size", [3, 4])
def test_more_beams_than_tokens_are_no_harm(vocab_size: int) -> None:
    model = toy_model(1, vocab_size)
    [found] = search([model], [2], beams=11, n_best=11).results()
    assert [hypothesis.ids for hypothesis in found] == [ids for _, ids in every_answer(model, 2, 1.0)]


def test_a_source_that_can_never_end_gives_no_answer_and_does_not_disturb_the_other() -> None:
    endless = torch.tensor([0.0, 1.0, NEVER, 2.0])
    nothing = torch.full((4,), NEVER)
    healthy = toy_model(5, 4)
    found = search([lambda ids: endless, healthy, lambda ids: nothing], [4, 4, 4], beams=3, n_best=2).results()
    assert found == [[], *search([healthy], [4], beams=3, n_best=2).results(), []]


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(TrainingError, match="NaN"):
        search([lambda ids: torch.tensor([0.0, math.nan, 0.0])], [4], beams=2)


def test_ended_sources_leave_the_batch_and_the_rest_stay_side_by_side() -> None:
    beams = 3
    run = BeamSearch([1, 5, 5, 2], beams=beams, length_penalty=1.0, n_best=1, end=END, early=False)
    logits = torch.tensor([1.0, 0.5, -9.0, 0.2, 0.1, 0.6])
    n_rows, sources = 4 * beams, [[0, 1, 2, 3]]
    while (step := run.advance(logits.repeat(n_rows, 1))) is not None:
        n_rows = step.tokens.numel()
        continued = [row // beams for row in rows_of(step)]
        assert all(continued[i] == continued[i - i % beams] for i in range(n_rows))
        sources.append([sources[-1][group] for group in continued[::beams]])
    assert sources == [[0, 1, 2, 3], [1, 2, 3], [1, 2], [1, 2], [1, 2]]


def test_of_equal_answers_the_shorter_is_kept_first() -> None:
    certain = torch.tensor([NEVER, 0.0, 0.0])
    [found] = search([lambda ids: certain], [2], beams=2, penalty=1.0, n_best=2).results()
    assert [(ids, round(score, 6)) for ids, score, _ in found] == [([], -0.693147), ([1], -0.693147)]


@given(n=st.integers(1, 12), width=st.integers(12, 40 * CHUNK), impossible=st.sampled_from([0, 5, 1]), seed=st.integers(0, 2**40))
def test_continuations_are_the_likeliest_tokens(n: int, width: int, impossible: int, seed: int) -> None:
    logits = 10 * torch.randn(3, width, generator=torch.Generator().manual_seed(seed))
    if impossible:
        logits[1:, ::impossible] = NEVER
    tokens, scores, ends = (torch.from_numpy(found) for found in continuations(logits, n, END))
    log_p = logits.log_softmax(-1)
    log_p = log_p.masked_fill(log_p.isnan(), NEVER)
    torch.testing.assert_close(scores, log_p.topk(n).values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ends, log_p[:, END], rtol=1e-5, atol=1e-5)
    possible = scores > NEVER
    torch.testing.assert_close(log_p.gather(1, tokens)[possible], scores[possible], rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in (ids[some].tolist() for ids, some in zip(tokens, possible, strict=True)))


def test_of_equal_tokens_the_lower_numbers_come_first() -> None:
    tokens, _, _ = continuations(torch.zeros(2, 3 * CHUNK), 4, END)
    assert tokens.tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("others", [0.0, NEVER, math.nan])
@pytest.mark.parametrize("place", [0, 1, 3 * CHUNK - 1])
def test_a_score_that_is_no_number_is_seen_wherever_it_stands(bad: float, others: float, place: int) -> None:
    logits = torch.full((2, 3 * CHUNK), others)
    logits[0, place] = bad
    with pytest.raises(TrainingError, match="NaN"):
        continuations(logits, 3, END)
