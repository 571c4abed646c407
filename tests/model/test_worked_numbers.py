"""The worked numbers that tutorials print wrong, in their right values (each computed once in numpy with float64)."""

import math

import pytest
import torch
from torch import Tensor

from heed.model import attend, attention_weights, sinusoid_table


def tokens(*rows: list[float]) -> Tensor:
    """Lay tokens out as one batch and one head: (1, 1, T, E), in float64."""
    return torch.tensor([[rows]], dtype=torch.float64)


def column(*values: float) -> Tensor:
    """Lay scalars out as one token each: (1, 1, T, 1)."""
    return tokens(*([value] for value in values))


def assert_prints(found: Tensor, expected: list[list[float]], digits: int = 4) -> None:
    """Check that (1, 1, T, E) prints as the expected rows, to that many decimals."""
    torch.testing.assert_close(found[0, 0].double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0.5001 * 10**-digits)


def scores(q: Tensor, k: Tensor) -> list[list[float]]:
    table: list[list[float]] = (q @ k.transpose(-1, -2))[0, 0].tolist()
    return table


SOFTMAX_123 = [0.0900, 0.2447, 0.6652]


def test_n1_one_token_of_three_features_gets_its_own_value_back() -> None:
    q, k, v = tokens([1, 2, 3]), tokens([1, 2, 3]), tokens([3, 2, 1])
    assert scores(q, k)[0][0] / math.sqrt(3) == pytest.approx(8.0829, abs=5e-5)
    assert_prints(attention_weights(q, k), [[1.0]])
    assert_prints(attend(q, k, v), [[3, 2, 1]])
    assert_prints(attend(q, k, q), [[1, 2, 3]])


def test_n1_three_tokens_of_one_feature_get_mixtures_between_1_and_3() -> None:
    x = column(1, 2, 3)
    assert_prints(attention_weights(x, x), [SOFTMAX_123, [0.0159, 0.1173, 0.8668], [0.0024, 0.0473, 0.9503]])
    assert_prints(attend(x, x, column(3, 2, 1)), [[1.4248], [1.1491], [1.0520]])
    assert_prints(attend(x, x, x), [[2.5752], [2.8509], [2.9480]])


def test_n2_heads_with_projections_of_their_own_differ_from_one_head() -> None:
    x = column(1, 2, 3)
    heads = torch.cat([x, -x], dim=1)  # two heads: (1, 2, T, 1), each with its own projection
    mixed = attend(heads, torch.cat([x, x], dim=1), torch.cat([x, x], dim=1))
    assert mixed.shape == (1, 2, 3, 1)
    assert_prints(mixed[:, :1], [[2.5752], [2.8509], [2.9480]])
    assert_prints(mixed[:, 1:], [[1.4248], [1.1491], [1.0520]])


def test_n3_positions_of_an_odd_width_end_on_a_sine() -> None:
    row = sinusoid_table(2, 3)[1].tolist()
    assert row == pytest.approx([0.8415, 0.5403, 0.0022], abs=5e-5)
    assert row[2] == pytest.approx(0.0021544, abs=5e-8)
    assert math.sqrt(1 - row[2] ** 2) == pytest.approx(0.9999977, abs=5e-8)  # the cosine that would follow
    assert sinusoid_table(2, 4)[1].tolist() == pytest.approx([0.8415, 0.5403, 0.0100, 0.99995], abs=5e-5)


def test_n4_and_n6_the_softmax_of_1_2_3() -> None:
    one, keys = column(1), column(1, 2, 3)
    assert_prints(attention_weights(one, keys), [SOFTMAX_123])
    assert_prints(attention_weights(one, keys, scale=1 / math.sqrt(3)), [[0.1679, 0.2992, 0.5329]])


def test_n5_n6_n7_equal_queries_give_equal_rows_and_sums_of_values() -> None:
    q, k = column(1, 1, 1), column(1, 2, 3)
    assert scores(q, k) == [[1, 2, 3]] * 3
    assert_prints(attention_weights(q, k), [SOFTMAX_123] * 3)
    assert_prints(attend(q, k, k), [[2.5752]] * 3)
    wrong_weights = torch.tensor([1 / 6, 1 / 3, 1 / 2], dtype=torch.float64)
    assert float(wrong_weights @ k[0, 0, :, 0]) == pytest.approx(7 / 3)


def test_n8_one_projection_cannot_make_all_queries_one() -> None:
    x = column(1, 2, 3)
    solution = torch.linalg.lstsq(x[0, 0], torch.ones(3, 1, dtype=torch.float64))
    assert float((x[0, 0] @ solution.solution - 1).abs().max()) > 0.1
    assert_prints(attend(x, x, x), [[2.5752], [2.8509], [2.9480]])


TWO = tokens([1, 2], [4, 5])
THREE = tokens([1, 2, 3], [4, 5, 6])


def test_n9_scores_are_queries_times_transposed_keys() -> None:
    assert (TWO @ TWO)[0, 0].tolist() == [[9, 12], [24, 33]]
    assert scores(TWO, TWO) == [[5, 14], [14, 41]]
    assert scores(THREE, THREE) == [[14, 32], [32, 77]]


def test_n10_softmax_over_a_row() -> None:
    one = column(1)
    assert_prints(attention_weights(one, column(5, 9)), [[0.0180, 0.9820]])
    assert_prints(attention_weights(one, column(21, 29)), [[0.000335, 0.999665]], digits=6)


def test_n11_the_mixture_of_those_weights() -> None:
    values = tokens([1, 2], [4, 5])
    printed = tokens([0.095, 0.905], [0.422, 0.578])
    assert_prints(printed @ values, [[3.715, 4.715], [2.734, 3.734]], digits=3)
    identity = tokens([1, 0], [0, 1])  # queries that pick the scores [5, 9] and [21, 29] out of the keys
    right = attend(identity, tokens([5, 21], [9, 29]), values, scale=1.0)
    assert_prints(right, [[3.946, 4.946], [3.999, 4.999]], digits=3)


def test_n12_the_output_is_one_vector_per_token() -> None:
    scaled = torch.tensor(scores(THREE, THREE)) / math.sqrt(3)
    torch.testing.assert_close(scaled, torch.tensor([[8.083, 18.475], [18.475, 44.456]]), rtol=0, atol=5.1e-4)
    weights = attention_weights(THREE, THREE)[0, 0].tolist()
    assert weights[0] == pytest.approx([3.07e-5, 0.99997], rel=2e-3)
    assert weights[1] == pytest.approx([5.2e-12, 1], rel=1e-2)
    assert_prints(attend(THREE, THREE, THREE), [[3.9999, 4.9999, 5.9999], [4, 5, 6]])
