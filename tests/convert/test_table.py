"""The two-way table: every change undoes itself, and rotary rows turn as those of their makers do."""

import pytest
import torch
from torch import Tensor

from heed.convert.table import Change, RotaryRows, Transposed, VocabularyRows, entry, give_all, take_all
from heed.errors import CheckpointError, ConfigError
from heed.model.positions import rotate, rotation

ROWS = [None, 3, 0, None, 1, 2, 4]


@pytest.mark.parametrize(
    ("change", "shape"), [(Transposed(), (3, 5)), (VocabularyRows(ROWS), (5, 4)), (VocabularyRows(ROWS), (5,)), (RotaryRows(3), (12, 5))]
)
def test_a_change_undoes_itself(change: Change, shape: tuple[int, ...]) -> None:
    theirs = torch.randn(shape)
    assert torch.equal(change.give(change.take(theirs)), theirs)


def test_rows_of_a_vocabulary_stand_where_their_ids_do() -> None:
    theirs = torch.randn(5, 4)
    ours = VocabularyRows(ROWS).take(theirs)
    for i, index in enumerate(ROWS):
        assert torch.equal(ours[i], torch.zeros(4) if index is None else theirs[index])
    with pytest.raises(CheckpointError, match="has 6 rows, expected one for each of 5 ids"):
        VocabularyRows(ROWS).take(torch.randn(6, 4))


def turned_by_halves(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Turn feature i with i + E/2, as Llama's code does it: x (T, E)."""
    half = x.size(-1) // 2
    rates = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions[:, None] * rates
    first, second = x[:, :half].double(), x[:, half:].double()
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1).float()


def test_scores_of_rotated_queries_and_keys_are_those_of_rotated_halves() -> None:
    H, E, D, T, base = 3, 8, 5, 4, 77.0
    x, positions = torch.randn(T, D), torch.arange(2, 2 + T)
    theirs = [torch.randn(H * E, D) for _ in range(2)]
    ours = [RotaryRows(H).take(weight) for weight in theirs]
    q, k = ((x @ weight.t()).view(T, H, E).transpose(0, 1)[None] for weight in ours)  # (1, H, T, E)
    turn = rotation(positions, E, base)
    found = rotate(q, turn) @ rotate(k, turn).transpose(-1, -2)
    for head in range(H):
        a, b = (turned_by_halves((x @ weight.t()).view(T, H, E)[:, head], positions, base) for weight in theirs)
        torch.testing.assert_close(found[0, head], a @ b.t(), rtol=1e-5, atol=1e-5)


def test_one_tensor_of_theirs_may_be_several_of_ours() -> None:
    table = [entry(["q", "k", "v"], "qkv", Transposed())]
    theirs = {"qkv": torch.randn(4, 6)}
    shapes: dict[str, tuple[int, ...]] = {"q": (2, 4), "k": (2, 4), "v": (2, 4)}
    ours = dict(take_all(table, set(theirs), theirs.__getitem__, shapes))
    assert torch.equal(torch.cat([ours["q"], ours["k"], ours["v"]]), theirs["qkv"].t())
    assert torch.equal(give_all(table, ours)["qkv"], theirs["qkv"])
    with pytest.raises(CheckpointError, match=r"qkv: has the shape \(4, 6\), of which q would be \(2, 4\), expected \(2, 5\)"):
        dict(take_all(table, set(theirs), theirs.__getitem__, {**shapes, "q": (2, 5)}))


def test_what_has_no_place_with_them_is_refused() -> None:
    with pytest.raises(ConfigError, match="x: no tensor"):
        give_all([entry("b", "b")], {"b": torch.ones(2), "x": torch.zeros(1)})
