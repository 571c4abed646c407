import tracemalloc
from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest

from heed.errors import ConfigError, DataError
from heed.metrics import intervals
from heed.metrics.intervals import NORMAL_QUANTILE, Floats, Score, bootstrap, interval, paired_bootstrap, resampled_sums, wilson_interval


def mean(sums: Floats) -> Floats:
    """Score rows of (sum, count)."""
    return sums[:, 0] / sums[:, 1]


def rows_of(values: Floats) -> Floats:
    return np.stack([values, np.ones_like(values)], axis=1)


def normal_rows(n: int, seed: int, shift: float = 0.0) -> Floats:
    return rows_of(np.random.default_rng(seed).normal(shift, 1.0, n))


def index_bootstrap(statistics: Floats, resamples: int, seed: int) -> Floats:
    """Resample by the definition: draw indices, add up the rows they name."""
    rng = np.random.default_rng(seed)
    return np.stack([statistics[rng.integers(len(statistics), size=len(statistics))].sum(axis=0) for _ in range(resamples)])


def test_the_value_is_the_score_of_all_rows_and_the_interval_that_of_the_definition() -> None:
    rows = normal_rows(80, seed=1, shift=2.0)
    score = bootstrap(rows, mean, resamples=20_000)
    low, high = np.percentile(mean(index_bootstrap(rows, 20_000, seed=5)), [2.5, 97.5])
    assert score.value == pytest.approx(rows[:, 0].mean(), rel=1e-12)
    # The standard error of a 2.5 % point of 20 000 normal draws is 0.019 standard deviations of the mean, here 0.002.
    assert score.low == pytest.approx(low, abs=0.01)
    assert score.high == pytest.approx(high, abs=0.01)


def test_the_interval_covers_the_truth_at_about_its_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(400):
        lengths = rng.integers(1, 9, size=150)
        errors = rng.binomial(lengths, 0.3)
        score = bootstrap(np.stack([errors, lengths], axis=1), mean, resamples=300, seed=trial)
        covered += score.low <= 0.3 <= score.high
    # Standard error of the rate: 0.011; percentiles of 300 resamples and 150 rows lose about another 0.01.
    assert 0.91 <= covered / 400 <= 0.98


def test_a_seed_fixes_the_interval_and_another_seed_moves_it() -> None:
    rows = normal_rows(50, seed=2)
    assert bootstrap(rows, mean, seed=3) == bootstrap(rows, mean, seed=3)
    assert bootstrap(rows, mean, seed=3) != bootstrap(rows, mean, seed=4)


def test_drawing_block_by_block_keeps_the_number_of_draws_and_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = normal_rows(103, seed=3)
    monkeypatch.setattr(intervals, "BLOCK_ROWS", 10)
    monkeypatch.setattr(intervals, "BLOCK_CELLS", 70)
    sums = resampled_sums(rows, resamples=6000)[1:]
    expected = index_bootstrap(rows, 6000, seed=9)
    assert (sums[:, 1] == 103).all()
    np.testing.assert_allclose(sums[:, 0].mean(), expected[:, 0].mean(), atol=0.6)  # four standard errors of the difference
    np.testing.assert_allclose(sums[:, 0].std(), expected[:, 0].std(), rtol=0.05)


def test_every_row_is_drawn_once_per_resample_on_average() -> None:
    sums = resampled_sums(np.eye(6), resamples=20_000)[1:]
    assert (sums.sum(axis=1) == 6).all()
    np.testing.assert_allclose(sums.mean(axis=0), 1.0, atol=0.03)
    np.testing.assert_allclose(sums.var(axis=0), 5 / 6, atol=0.05)  # binomial(6, 1/6)


def test_metrics_over_the_same_rows_share_their_resamples() -> None:
    rows = np.random.default_rng(4).integers(0, 9, size=(40, 5))
    together = resampled_sums(rows, resamples=30, seed=6)
    np.testing.assert_array_equal(together[:, [3, 1]], resampled_sums(rows[:, [3, 1]], resamples=30, seed=6))


def test_memory_does_not_grow_with_the_number_of_rows() -> None:
    def peak(n: int) -> int:
        rows = np.ones((n, 2), dtype=np.int32)
        tracemalloc.start()
        resampled_sums(rows, resamples=4)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(6 * intervals.BLOCK_ROWS) < 1.1 * peak(2 * intervals.BLOCK_ROWS)


def test_one_row_has_an_interval_of_no_width() -> None:
    assert bootstrap(np.array([[3, 4]]), mean) == Score(0.75, 0.75, 0.75)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
@settings(max_examples=50, deadline=None)
def test_the_interval_holds_the_value_whatever_the_resamples_scored(scores: list[float]) -> None:
    score = interval(np.array(scores))
    assert score.low <= score.value <= score.high
    assert score.value == scores[0]


def test_groups_are_drawn_whole() -> None:
    groups = ["ann", "bob", "ann", "cid", "bob"]
    rows = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]])
    sums = resampled_sums(rows, groups=groups, resamples=200)
    assert sums[0].tolist() == [2, 2, 1]
    taken = sums[1:] / [2, 2, 1]
    assert (taken == taken.round()).all()
    assert (taken.sum(axis=1) == 3).all()


def test_groups_widen_the_interval_of_dependent_rows_to_that_of_their_means() -> None:
    rng = np.random.default_rng(5)
    speaker = np.repeat(np.arange(30), 20)
    rows = rows_of(rng.normal(size=30)[speaker] + 0.1 * rng.normal(size=600))
    alone, clustered = bootstrap(rows, mean), bootstrap(rows, mean, groups=speaker)
    by_speaker = bootstrap(rows.reshape(30, 20, 2).sum(axis=1), mean)
    np.testing.assert_allclose(astuple(clustered), astuple(by_speaker), rtol=1e-12)
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)  # sqrt(20) = 4.5 in expectation


def test_groups_of_one_row_each_change_nothing() -> None:
    rows = normal_rows(25, seed=6)
    assert bootstrap(rows, mean, groups=range(25)) == bootstrap(rows, mean)


@pytest.mark.parametrize(("rows", "found"), [(np.ones((0, 2)), r"\(0, 2\)"), (np.ones(3), r"\(3,\)")])
def test_no_rows_are_refused(rows: Floats, found: str) -> None:
    with pytest.raises(DataError, match=found):
        bootstrap(rows, mean)


def test_a_count_that_is_not_finite_is_refused_by_its_row() -> None:
    with pytest.raises(DataError, match="row 1 "):
        bootstrap(np.array([[1.0, 1.0], [np.nan, 1.0]]), mean)


def test_no_resamples_and_missing_group_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="resamples is 0"):
        bootstrap(np.ones((2, 2)), mean, resamples=0)
    with pytest.raises(DataError, match="1 group labels for 2 examples"):
        bootstrap(np.ones((2, 2)), mean, groups=["ann"])


def test_a_paired_test_sees_a_difference_that_single_intervals_hide() -> None:
    hard = np.random.default_rng(7).normal(0, 5, 200)
    noise = np.random.default_rng(8).normal(0.3, 1, 200)
    comparison = paired_bootstrap(rows_of(hard), rows_of(hard + noise), mean)
    assert comparison.b.low < comparison.a.value < comparison.b.high
    assert comparison.p_value < 0.01
    assert comparison.difference.low > 0
    assert comparison.difference.value == pytest.approx(noise.mean(), abs=1e-12)


@pytest.mark.parametrize("groups", [None, ["one speaker"] * 7])
def test_one_example_or_one_group_shows_no_difference(groups: list[str] | None) -> None:
    n = 1 if groups is None else len(groups)
    few, many = np.array([[1, 10]] * n), np.array([[9, 10]] * n)

    def share(sums: Floats) -> Floats:
        return sums[:, 0] / sums[:, 1]

    assert paired_bootstrap(few, many, share, groups=groups).p_value == 1
    assert paired_bootstrap(np.tile(few, (20, 1)), np.tile(many, (20, 1)), share).p_value < 0.01


def test_a_paired_test_calls_about_one_in_twenty_null_differences_significant() -> None:
    called = 0
    for seed in range(400):
        a, b = normal_rows(60, seed=2 * seed), normal_rows(60, seed=2 * seed + 1)
        called += paired_bootstrap(a, b, mean, resamples=300, seed=seed).p_value < 0.05
    assert 0.02 <= called / 400 <= 0.085  # standard error 0.011; 60 rows add about 0.01


def test_swapping_the_systems_turns_the_sign_and_keeps_the_p_value() -> None:
    a, b = normal_rows(40, seed=10), normal_rows(40, seed=11)
    forth, back = paired_bootstrap(a, b, mean), paired_bootstrap(b, a, mean)
    assert back.difference.value == -forth.difference.value
    assert back.p_value == forth.p_value


def test_a_system_does_not_differ_from_itself() -> None:
    rows = normal_rows(30, seed=12)
    comparison = paired_bootstrap(rows, rows, mean)
    assert comparison.p_value == 1.0
    assert comparison.difference == Score(0.0, 0.0, 0.0)


def test_systems_on_different_examples_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(3, 2\), system b of \(2, 2\)"):
        paired_bootstrap(np.ones((3, 2)), np.ones((2, 2)), mean)


def test_json_rounds_and_holds_no_negative_zero() -> None:
    rows = normal_rows(9, seed=13)
    content = paired_bootstrap(rows, rows, mean).to_json()
    assert content["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert str(Score(-1e-9, -0.123456, 2.0).to_json()) == "{'value': 0.0, 'low': -0.1235, 'high': 2.0}"


def bleu_of(metric: BLEU, sums: Floats) -> Floats:
    return np.array([metric._compute_score_from_stats(row.tolist()).score for row in sums])


def noisy_systems() -> tuple[list[str], list[str], list[str]]:
    """Return references and two systems, the second a little better than the first."""
    rng = np.random.default_rng(14)
    references: list[str] = []
    worse: list[str] = []
    better: list[str] = []
    for _ in range(150):
        words = [f"w{word}" for word in rng.integers(0, 50, size=rng.integers(4, 15))]
        references.append(" ".join(words))
        for system, rate in ((worse, 0.26), (better, 0.235)):
            system.append(" ".join("x" if rng.random() < rate else word for word in words))
    return references, worse, better


def test_the_paired_test_agrees_with_sacrebleu() -> None:
    references, worse, better = noisy_systems()
    systems: list[tuple[str, Sequence[str]]] = [("a", worse), ("b", better)]
    metric = BLEU()
    stats_a, stats_b = (np.array(metric._extract_corpus_statistics(system, [references])) for system in (worse, better))
    ours = paired_bootstrap(stats_a, stats_b, lambda sums: bleu_of(metric, sums), resamples=2000)
    randomised = PairedTest(systems, {"BLEU": BLEU()}, [references], "ar", n_samples=2000)()[1]["BLEU"][1]
    bootstrapped = PairedTest(systems, {"BLEU": BLEU()}, [references], "bs", n_samples=2000)()[1]["BLEU"][1]
    assert not isinstance(randomised, str)
    assert not isinstance(bootstrapped, str)
    assert ours.b.value == pytest.approx(sacrebleu.corpus_bleu(better, [references]).score, abs=1e-9)
    assert (ours.b.high - ours.b.low) / 2 == pytest.approx(bootstrapped.ci, rel=0.1)
    # Two-sided against two-sided; the two tests differ in what they resample, and each p carries an error of 0.01.
    assert 0.05 < ours.p_value < 0.9
    assert ours.p_value == pytest.approx(randomised.p_value, abs=0.05)
    # sacreBLEU's own bootstrap p is another function of the same resamples: computed from ours, it is theirs.
    sums_a, sums_b = resampled_sums(stats_a, resamples=2000), resampled_sums(stats_b, resamples=2000)
    differences = np.abs(bleu_of(metric, sums_b) - bleu_of(metric, sums_a))
    theirs = (differences[1:] - differences[1:].mean() > differences[0]).mean()
    assert theirs == pytest.approx(bootstrapped.p_value, abs=0.04)


@pytest.mark.parametrize(("n_right", "n"), [(0, 7), (1, 5), (5, 5), (13, 20), (990, 1000)])
def test_wilsons_interval_holds_the_shares_under_which_what_was_seen_is_not_too_rare(n_right: int, n: int) -> None:
    """Its ends are the shares p from which the observed one lies just so many of p's own standard errors away."""
    low, high = wilson_interval(n_right, n)
    for p in (low, high):
        assert (n_right / n - p) ** 2 == pytest.approx(NORMAL_QUANTILE**2 * p * (1 - p) / n, abs=1e-12)
    assert 0 <= low <= n_right / n <= high <= 1
    assert low < high


def test_of_nothing_any_share_may_be_right() -> None:
    assert wilson_interval(0, 0) == (0, 1)
