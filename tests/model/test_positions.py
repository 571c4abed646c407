"""Positions: their definitions, and that each of them tells an order that attention alone does not see."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heed.errors import DataError
from heed.model import ModelConfig, build_model, sinusoid_table
from heed.model.positions import LearnedPositions, RelativeBias, RotaryPositions, SinusoidalPositions, rotate, rotation


@given(n=st.integers(1, 40), d_model=st.integers(1, 13))
def test_sinusoids_equal_the_formula_also_for_an_odd_width(n: int, d_model: int) -> None:
    wave = (math.sin, math.cos)
    expected = [[wave[j % 2](p / 10000 ** (2 * (j // 2) / d_model)) for j in range(d_model)] for p in range(n)]
    torch.testing.assert_close(sinusoid_table(n, d_model), torch.tensor(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("d_model", [6, 7])
def test_in_halves_all_sines_stand_before_all_cosines(d_model: int) -> None:
    in_turn = sinusoid_table(9, d_model)
    expected = torch.cat([in_turn[:, 0::2], in_turn[:, 1::2]], dim=1)
    assert torch.equal(sinusoid_table(9, d_model, halves=True), expected)
    layer = SinusoidalPositions(d_model, 4, halves=True)
    assert torch.equal(layer(torch.zeros(1, 9, d_model))[0], expected)  # beyond the length it was made for


def test_sinusoids_stay_exact_far_from_the_start() -> None:
    table = sinusoid_table(100_001, 4)
    expected = torch.tensor([math.sin(1e5), math.cos(1e5), math.sin(1e3), math.cos(1e3)])
    torch.testing.assert_close(table[100_000], expected, rtol=1e-6, atol=1e-6)


def test_sinusoids_are_added_to_the_embeddings() -> None:
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(SinusoidalPositions(6, 8)(x), x + sinusoid_table(5, 6), rtol=0, atol=0)


@pytest.mark.parametrize("n", [8, 9, 31])
def test_sinusoids_grow_beyond_the_length_they_were_made_for(n: int) -> None:
    layer = SinusoidalPositions(6, 8)
    with torch.inference_mode():
        layer(torch.zeros(1, n, 6))
    x = torch.zeros(1, n, 6, requires_grad=True)  # a table that grew while answering must still serve training
    grown = layer(x)
    torch.autograd.backward(grown.sum())
    torch.testing.assert_close(grown[0].detach(), sinusoid_table(n, 6), rtol=0, atol=0)
    assert not layer.state_dict()


def test_every_row_may_have_places_of_its_own() -> None:
    x, places = torch.randn(2, 3, 6), torch.tensor([[0, 1, 2], [0, 0, 1]])
    for layer in (SinusoidalPositions(6, 8), LearnedPositions(6, 8)):
        together = layer(x, 0, places)
        for row in range(2):
            torch.testing.assert_close(together[row : row + 1], layer(x[row : row + 1], 0, places[row : row + 1]))


def test_learned_positions_refuse_to_go_beyond_their_table() -> None:
    layer = LearnedPositions(6, 8)
    layer(torch.zeros(1, 8, 6))
    with pytest.raises(DataError, match=r"9 tokens does not fit model\.max_length=8"):
        layer(torch.zeros(1, 1, 6), 8)


def test_learned_positions_may_begin_behind_rows_that_stand_for_nothing() -> None:
    layer, x = LearnedPositions(6, 8, 2), torch.randn(2, 8, 6)
    rows = layer.embedding.weight
    assert rows.shape == (10, 6)
    assert torch.equal(layer(x), x + rows[2:])
    assert torch.equal(layer(x[:, :3], 5), x[:, :3] + rows[7:])
    places = torch.tensor([[0, 0, 1], [3, 4, 7]])
    assert torch.equal(layer(x[:, :3], 5, places), x[:, :3] + rows[places + 2])
    with pytest.raises(DataError, match=r"9 tokens does not fit model\.max_length=8"):
        layer(torch.zeros(2, 9, 6))


@pytest.mark.parametrize("layer", [SinusoidalPositions(6, 8), LearnedPositions(6, 8)])
def test_no_tokens_need_no_positions(layer: torch.nn.Module) -> None:
    assert layer(torch.zeros(2, 0, 6)).shape == (2, 0, 6)


@given(pairs=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_rotary_positions_turn_each_pair_by_its_angle(pairs: int, seed: int) -> None:
    torch.manual_seed(seed)
    x, places = torch.randn(2, 3, 4, 2 * pairs), torch.randint(0, 50, (4,))
    turned = rotate(x, rotation(places, 2 * pairs))
    for i in range(pairs):
        angle = places.double() * 10000.0 ** (-i / pairs)
        pair = torch.complex(x[..., 2 * i].double(), x[..., 2 * i + 1].double()) * torch.polar(torch.ones(4, dtype=torch.float64), angle)
        torch.testing.assert_close(turned[..., 2 * i].double(), pair.real, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(turned[..., 2 * i + 1].double(), pair.imag, rtol=1e-5, atol=1e-5)


@given(shift=st.integers(0, 2000), p=st.integers(0, 60), distance=st.integers(-60, 60), seed=st.integers(0, 2**31))
def test_a_rotary_score_depends_on_the_distance_alone(shift: int, p: int, distance: int, seed: int) -> None:
    torch.manual_seed(seed)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    there = abs(min(0, distance))

    def score(offset: int) -> torch.Tensor:
        at_query, at_key = (rotation(torch.tensor([place + offset]), 8) for place in (p + there, p + there + distance))
        return (rotate(q, at_query) * rotate(k, at_key)).sum()

    torch.testing.assert_close(score(0), score(shift), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_rotary_positions_keep_the_length_and_the_type(dtype: torch.dtype, tolerance: float) -> None:
    x = torch.randn(2, 3, 5, 8, dtype=dtype)
    turned = rotate(x, rotation(torch.arange(5) * 7, 8))
    assert turned.dtype == dtype
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=tolerance, atol=tolerance)


def test_rotary_positions_keep_float64_exact() -> None:
    x = torch.randn(1, 1, 1, 2, dtype=torch.float64)
    torch.testing.assert_close(rotate(x, rotation(torch.zeros(1), 2)), x, rtol=0, atol=0)


def test_the_base_of_rotary_positions_slows_all_pairs_but_the_first() -> None:
    turn = RotaryPositions(6, 100.0)(0, 5, None, torch.device("cpu"))
    for place in range(5):
        for pair in range(3):
            angle = place * 100.0 ** (-2 * pair / 6)
            assert complex(turn[place, pair]) == pytest.approx(complex(math.cos(angle), math.sin(angle)), abs=1e-6)


@pytest.mark.parametrize("context", [None, 40])
def test_slowed_rotary_positions_turn_as_llama_31_says(context: int | None) -> None:
    """Dubey et al. 2024: pairs whose wave is longer than the context are slowed in full, those of a quarter of it or less not at all."""
    d_head, base, factor = 12, 50.0, 8.0
    turn = RotaryPositions(d_head, base, factor=factor, context=context)(0, 9, None, torch.device("cpu"))
    kinds = set()
    for pair in range(d_head // 2):
        rate = base ** (-2 * pair / d_head)
        wave = 2 * math.pi / rate
        if context is None or wave > context:
            kind, rate = "slowed", rate / factor
        elif wave < context / 4:
            kind = "kept"
        else:
            smooth = (context / wave - 1) / (4 - 1)
            kind, rate = "between", (1 - smooth) * rate / factor + smooth * rate
        kinds.add(kind)
        for place in range(9):
            expected = complex(math.cos(place * rate), math.sin(place * rate))
            assert complex(turn[place, pair]) == pytest.approx(expected, abs=1e-6)
    assert kinds == ({"slowed"} if context is None else {"slowed", "between", "kept"})


def test_rotations_that_were_computed_once_are_those_of_their_positions() -> None:
    layer, cpu = RotaryPositions(6), torch.device("cpu")
    for first, end in ((0, 3), (2, 5), (70, 200), (0, 1)):
        torch.testing.assert_close(layer(first, end, None, cpu), rotation(torch.arange(first, end), 6), rtol=0, atol=0)
    positions = torch.tensor([[0, 0, 1], [3, 4, 5]])
    torch.testing.assert_close(layer(0, 6, positions, cpu), rotation(positions, 6), rtol=0, atol=0)
    assert layer(0, 6, positions, cpu).shape == (2, 1, 3, 3)


def bucket_of_t5(distance: int, *, causal: bool, n_buckets: int, max_distance: int) -> int:
    """Write the bucket of key position - query position out (Raffel et al. 2020; as in the released code)."""
    first = 0
    if causal:
        away = max(0, -distance)
    else:
        n_buckets //= 2
        first, away = (n_buckets if distance > 0 else 0), abs(distance)
    exact = n_buckets // 2
    if away < exact:
        return first + away
    share = math.log(away / exact) / math.log(max_distance / exact)
    return first + min(n_buckets - 1, exact + int(share * (n_buckets - exact) + 1e-9))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("n_buckets", "max_distance"), [(32, 128), (16, 64), (20, 50)])
def test_relative_buckets_equal_the_formula_of_t5(causal: bool, n_buckets: int, max_distance: int) -> None:
    distances = list(range(-300, 301))
    found = RelativeBias(3, causal=causal, n_buckets=n_buckets, max_distance=max_distance).bucket(torch.tensor(distances))
    expected = [bucket_of_t5(d, causal=causal, n_buckets=n_buckets, max_distance=max_distance) for d in distances]
    assert found.tolist() == expected


@pytest.mark.parametrize("causal", [True, False])
def test_a_relative_bias_is_one_number_per_head_and_distance(causal: bool) -> None:
    layer = RelativeBias(3, causal=causal)
    bias = layer(torch.arange(4, 9), torch.arange(9))
    assert bias.shape == (1, 3, 5, 9)
    for t in range(5):
        for s in range(9):
            bucket = bucket_of_t5(s - (t + 4), causal=causal, n_buckets=32, max_distance=128)
            torch.testing.assert_close(bias[0, :, t, s], layer.embedding.weight[bucket])


def test_without_positions_permuting_the_inputs_permutes_the_outputs(attention_path: str, tiny_config: Callable[..., ModelConfig]) -> None:
    model = build_model(tiny_config(architecture="encoder", positions="none")).eval()
    ids, order = torch.randint(1, 13, (2, 7)), torch.randperm(7)
    torch.testing.assert_close(model(ids[:, order]), model(ids)[:, order], rtol=1e-6, atol=2e-6)  # measured 1.01e-6 over 20 seeds


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary", "relative"])
def test_every_kind_of_positions_breaks_that_symmetry(positions: str, tiny_config: Callable[..., ModelConfig]) -> None:
    model = build_model(tiny_config(architecture="encoder", positions=positions)).eval()
    ids, order = torch.randint(1, 13, (2, 7)), torch.randperm(7)
    assert (model(ids[:, order]) - model(ids)[:, order]).abs().max() > 1e-2


@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_shifting_a_sequence_leaves_relative_kinds_of_positions_alone(positions: str, tiny_config: Callable[..., ModelConfig]) -> None:
    model = build_model(tiny_config(architecture="encoder", positions=positions)).eval()
    ids = torch.randint(1, 13, (1, 4))
    shifted = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
    mask = torch.arange(7)[None] >= 3
    torch.testing.assert_close(model(shifted, mask)[:, 3:], model(ids), rtol=1e-5, atol=1e-5)
