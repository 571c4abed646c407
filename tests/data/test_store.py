"""The store: what goes in comes out, from disk, and a store that is there is whole."""

import contextlib
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.data.store import Encoded, Store, write_store
from heed.errors import CheckpointError, DataError

whole_numbers = st.integers(-(2**31), 2**31 - 1)
examples = st.lists(
    st.tuples(
        st.lists(whole_numbers, max_size=5), st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), max_size=4), whole_numbers
    ),
    max_size=6,
)


def encode(ids: list[int], frames: list[list[float]], label: int) -> Encoded:
    return {
        "ids": torch.tensor(ids, dtype=torch.long),
        "frames": torch.tensor(frames, dtype=torch.float32).view(-1, 3),
        "real": torch.tensor(ids) > 0,
        "label": torch.tensor(label),
    }


def assert_equal(found: Encoded, expected: Encoded) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0, equal_nan=True)


def numbered(*lengths: int) -> list[tuple[int, Encoded]]:
    return [(10 * i, {"ids": torch.arange(length) + i}) for i, length in enumerate(lengths)]


@given(rows=examples)
def test_examples_come_back_as_they_were(tmp_path: Path, rows: list[tuple[list[int], list[list[float]], int]]) -> None:
    encoded = [encode(*row) for row in rows]
    store = write_store(tmp_path / "store", ((7 * i, one) for i, one in enumerate(encoded)))
    assert len(store) == len(encoded)
    assert store.rows.tolist() == [7 * i for i in range(len(encoded))]
    for found, expected in zip(Store(tmp_path / "store"), encoded, strict=True):
        assert_equal(found, expected)


@pytest.mark.parametrize(
    ("given_type", "returned"),
    [
        (torch.int64, torch.int64),
        (torch.int32, torch.int64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float16),
        (torch.bool, torch.bool),
    ],
)
def test_types_are_kept_and_whole_numbers_are_int64(tmp_path: Path, given_type: torch.dtype, returned: torch.dtype) -> None:
    value = torch.tensor([[1, 0], [0, 1], [1, 1]]).to(given_type)
    store = write_store(tmp_path / "store", [(0, {"x": value, "one": value[0, 0]})])
    assert_equal(store[0], {"x": value.to(returned), "one": value[0, 0].to(returned)})


def test_lengths_are_those_of_the_sequences(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", [(0, encode([1, 2], [[0.0] * 3], 5)), (1, encode([], [[1.0] * 3] * 4, 6))])
    assert store.lengths().tolist() == [[2, 1, 2], [0, 4, 0]]
    assert store.lengths().dtype == np.int32


def test_examples_of_scalars_count_as_one_long(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", ((i, {"x": torch.tensor(i)}) for i in range(3)))
    assert store.lengths().tolist() == [[1], [1], [1]]


def test_a_store_may_be_empty(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", [])
    assert len(store) == 0
    assert list(store) == []
    assert store.lengths().shape == (0, 1)


def test_values_stay_on_disk(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", numbered(3, 4))
    for mapped in (store.rows, *store._values.values(), *store._offsets.values()):
        assert isinstance(mapped.base, np.memmap)


def test_an_example_can_be_changed_without_changing_the_store(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", numbered(3))
    store[0]["ids"].fill_(9)
    assert store[0]["ids"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("i", [-1, 2])
def test_there_is_no_example_outside(tmp_path: Path, i: int) -> None:
    with pytest.raises(IndexError):
        write_store(tmp_path / "store", numbered(3, 4))[i]


def test_writing_replaces_the_old_store(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [(0, {"old": torch.tensor(1)})])
    write_store(tmp_path / "store", numbered(2))
    assert list(Store(tmp_path / "store").keys) == ["ids"]
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [[], numbered(2, 3)])
def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, stop: type[BaseException], before: list[tuple[int, Encoded]]) -> None:
    folder = tmp_path / "deep" / "store"
    if before:
        write_store(folder, before)

    def interrupted() -> Iterator[tuple[int, Encoded]]:
        yield from numbered(5, 6, 7)
        raise stop

    with pytest.raises(stop):
        write_store(folder, interrupted())
    assert [path.name for path in folder.parent.iterdir()] == (["store"] if before else [])
    if before:
        assert [one["ids"].tolist() for one in Store(folder)] == [[0, 1], [1, 2, 3]]


def test_the_draft_of_a_killed_writer_is_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1234)
    (tmp_path / ".store.1234.draft").mkdir()
    (tmp_path / ".store.1234.draft" / "left.values").write_bytes(b"half")
    write_store(tmp_path / "store", numbered(2))
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["ids.offsets", "ids.values", "rows", "store.json"]


ODD_SECOND = [
    ({"x": torch.zeros(2, 3), "more": torch.tensor(1)}, r"has \['more', 'x'\].*\['x'\]"),
    ({}, r"has \[\].*\['x'\]"),
    ({"x": torch.zeros(2, 4)}, r"'x' is Lx4 float32, but Lx3 float32"),
    ({"x": torch.zeros(2)}, r"'x' is L float32"),
    ({"x": torch.tensor(1.0)}, r"'x' is scalar float32"),
    ({"x": torch.zeros(2, 3).long()}, r"'x' is Lx3 int64, but Lx3 float32"),
]


@pytest.mark.parametrize(("odd", "message"), ODD_SECOND)
def test_an_example_unlike_the_first_is_refused_by_its_row(tmp_path: Path, odd: Encoded, message: str) -> None:
    with pytest.raises(DataError, match=f"row 41: .*{message}"):
        write_store(tmp_path / "store", [(40, {"x": torch.zeros(1, 3)}), (41, odd)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [torch.tensor(2**31), torch.tensor([1, -(2**31) - 1]), torch.tensor([-(2**63)])])
def test_a_number_that_does_not_fit_is_refused(tmp_path: Path, value: Tensor) -> None:
    with pytest.raises(DataError, match=r"row 5: 'x' holds -?\d+, beyond 32 bits"):
        write_store(tmp_path / "store", [(5, {"x": value})])


def test_a_type_that_is_not_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 5: 'x' is torch\.float64; a store holds"):
        write_store(tmp_path / "store", [(5, {"x": torch.zeros(2, dtype=torch.float64)})])


@pytest.mark.parametrize("name", ["ids.values", "ids.offsets", "rows", "store.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_store_that_is_not_whole_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    write_store(tmp_path / "store", numbered(3, 4))
    path = tmp_path / "store" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-3])
    with pytest.raises(CheckpointError, match="not a whole store"):
        Store(tmp_path / "store")


def test_several_writers_of_one_store_leave_one_whole_store(tmp_path: Path) -> None:
    def write(size: int) -> None:
        for _ in range(15):
            write_store(tmp_path / "store", ((row, {"ids": torch.full((size,), size)}) for row in range(size)))

    writers = [multiprocessing.get_context("fork").Process(target=write, args=(size,)) for size in (3, 30, 300)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        with contextlib.suppress(CheckpointError):  # for one moment between two stores there is none
            store = Store(tmp_path / "store")
            assert all(store[i]["ids"].tolist() == [len(store)] * len(store) for i in range(len(store)))
            seen.add(len(store))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(Store(tmp_path / "store")) in (3, 30, 300)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_a_store_is_of_one_writer_though_another_takes_its_place_while_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(size: int) -> None:
        write_store(tmp_path / "store", ((row, {"ids": torch.full((size,), size)}) for row in range(size)))

    write(3)
    mapped = np.memmap
    places = [tmp_path / "aside"]

    def late(*args: Any, **options: Any) -> Any:
        if places:
            (tmp_path / "store").rename(places.pop())
            write(30)
        return mapped(*args, **options)

    monkeypatch.setattr(np, "memmap", late)
    store = Store(tmp_path / "store")
    assert [example["ids"].tolist() for example in store] == [[3] * 3] * 3
    assert len(Store(tmp_path / "store")) == 30
