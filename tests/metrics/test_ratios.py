"""Quotients of sums, and the rows of numbers that are summed."""

import numpy as np
import pytest
from sklearn.metrics import f1_score as sklearn_f1

from heed.metrics.ratios import divide, f1_score, mean_score
from heed.metrics.rows import Rows


def test_where_there_is_nothing_to_divide_by_the_answer_is_the_one_that_was_given() -> None:
    found = divide(np.array([[3.0], [0.0]]), np.array([2.0, 0.0]), nothing=-7.0)
    assert found.tolist() == [[1.5, -7.0], [0.0, -7.0]]


def test_a_mean_is_that_of_the_values_that_were_summed() -> None:
    values = np.random.default_rng(0).normal(size=(5, 8))
    sums = np.stack([values.sum(1), np.full(5, 8.0)], axis=1)
    np.testing.assert_allclose(mean_score(sums), values.mean(1), rtol=1e-12)
    assert mean_score(np.zeros((1, 2))).tolist() == [0.0]


def test_f1_is_that_of_scikit_learn() -> None:
    true, found = np.random.default_rng(1).integers(0, 2, size=(2, 40))
    sums = np.array([(true * found).sum(), found.sum(), true.sum()], dtype=np.float64)
    assert float(f1_score(sums)) == pytest.approx(sklearn_f1(true, found), abs=1e-12)
    assert float(f1_score(np.zeros(3))) == 0.0


@pytest.mark.parametrize("cuts", [[], [1], [0, 4, 4, 6]])
def test_rows_are_the_same_table_in_however_many_batches_they_come(cuts: list[int]) -> None:
    numbers = np.random.default_rng(2).normal(size=(7, 3))
    rows = Rows(3)
    for part in np.split(numbers, cuts):
        rows.add(part.T.copy().T)  # as columns put side by side lie in memory
    assert len(rows) == 7
    assert rows.table.tolist() == numbers.tolist()
