import io
import json
import os
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from heed.data import keras
from heed.data.read import ReadLog, data_files, hash_files, read_examples
from heed.data.rows import Example
from heed.errors import DataError
from heed.files import sha256

KINDS = {"text": "text", "label": "label"}
RANKS = {"train": [[5, 7, 2], [9, 1, 3, 4], [8]], "test": [[6], [2, 2]]}
LABELS = {"train": [1, 0, 1], "test": [0, 1]}
ROWS = {
    split: [{"text": " ".join(map(str, ranks)), "label": str(label)} for ranks, label in zip(RANKS[split], LABELS[split], strict=True)]
    for split in RANKS
}
WORDS = {"the": 1, "and": 2, "a": 3, "of": 4, "to": 5, "is": 6, "it's": 7, "in": 8, "été": 9}
WORD_OF = {rank: word for word, rank in WORDS.items()}

Texts = Sequence[Any]


def loaded(texts: Iterable[Sequence[int]]) -> list[list[int]]:
    """Do what keras.datasets.imdb.load_data() does: begin with 1 and add 3."""
    return [[1, *(rank + 3 for rank in ranks)] for ranks in texts]


def padded(texts: Iterable[Sequence[int]], length: int) -> list[list[int]]:
    """Do what keras.utils.pad_sequences() does: fill up with 0, and cut, from the front."""
    return [[0] * (length - len(ids)) + list(ids[-length:]) for ids in texts]


def ragged(texts: Texts) -> Any:
    array = np.empty(len(texts), dtype=object)
    for i, text in enumerate(texts):
        array[i] = text
    return array


def save(path: Path, change: Callable[[list[list[int]]], Any] = ragged) -> Path:
    """Write a file as Keras hands it out; with `change`, its texts in another form."""
    texts = {f"x_{split}": change(RANKS[split]) for split in RANKS}
    np.savez(path, **texts, **{f"y_{split}": np.array(LABELS[split]) for split in RANKS})
    return path


def pickled_npy(content: bytes, n: int = 3) -> bytes:
    """Return a pickle as the content of an array file for n objects."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (n,)})
    return file.getvalue() + content


def number_npy(array: Any) -> bytes:
    file = io.BytesIO()
    npy.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.npy", content)
    return path


def forged(path: Path, content: bytes) -> Path:
    """Write a file whose training texts are the given pickle."""
    return zipped(path, {"x_train": pickled_npy(content), "y_train": number_npy(np.array(LABELS["train"]))})


def read(source: object, **options: Any) -> list[Example]:
    return list(read_examples(str(source), **{"required": KINDS, **options}))


def refusal(source: object, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **options)
    message = str(caught.value)
    assert message.startswith(f"{source}:")
    assert "\n" not in message
    return message


def test_the_file_as_keras_hands_it_out_gives_ranks_and_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "imdb.npz")
    log = ReadLog()
    assert read(path, log=log) == read(f"{path}:train") == ROWS["train"]
    assert read(f"{path}:test") == ROWS["test"]
    assert (log.format, log.encoding, log.rows) == ("keras", "", 3)


FORMS: dict[str, Callable[[list[list[int]]], Any]] = {
    "loaded": lambda texts: ragged(loaded(texts)),
    "loaded and padded": lambda texts: np.array(padded(loaded(texts), 6), dtype=np.int32),
    "loaded and padded, a matrix by columns": lambda texts: np.asfortranarray(padded(loaded(texts), 7)),
    "loaded and padded, as objects": lambda texts: np.array(padded(loaded(texts), 6), dtype=object),
    "loaded, an array for each text": lambda texts: ragged([np.array(ids, dtype=">i4") for ids in loaded(texts)]),
    "loaded, with NumPy's numbers": lambda texts: ragged([list(np.array(ids, dtype=np.uint16)) for ids in loaded(texts)]),
    "padded": lambda texts: np.array(padded(texts, 5), dtype=np.uint8),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path: Path, form: str) -> None:
    path = save(tmp_path / "IMDb.NPZ.npz", FORMS[form])
    assert {split: read(f"{path}:{split}") for split in RANKS} == ROWS


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_version_of_pickles_gives_the_same_rows(tmp_path: Path, protocol: int) -> None:
    assert read(forged(tmp_path / "imdb.npz", pickle.dumps(ragged(RANKS["train"]), protocol))) == ROWS["train"]


def test_the_names_of_older_numpy_are_known(tmp_path: Path) -> None:
    texts = ragged([np.array(ids) for ids in RANKS["train"]])
    content = pickle.dumps(texts, 2)
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != content
    assert read(forged(tmp_path / "imdb.npz", old)) == ROWS["train"]


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "imdb.npz"
    np.savez_compressed(path, x_train=ragged(RANKS["train"]), y_train=np.array(LABELS["train"], dtype=float))
    assert read(path) == ROWS["train"]


@pytest.mark.parametrize("change", [ragged, FORMS["loaded"]])
def test_a_word_index_beside_the_file_turns_ranks_into_words(tmp_path: Path, change: Callable[[list[list[int]]], Any]) -> None:
    path = save(tmp_path / "imdb.npz", change)
    index = tmp_path / "imdb_word_index.json"
    index.write_text(json.dumps(WORDS, ensure_ascii=False), encoding="utf-8")
    expected = [" ".join(WORD_OF[rank] for rank in ranks) for ranks in RANKS["train"]]
    assert [row["text"] for row in read(path)] == expected
    assert data_files(f"{path}:test") == [path, index]
    assert hash_files(str(path)) == {path.name: sha256(path), index.name: sha256(index)}


def test_words_that_were_left_out_leave_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "imdb.npz"
    np.savez(path, x_train=ragged([[0, 1, 8, 2, 5], [1, 2, 999]]), y_train=np.array([0, 1]))
    assert [row["text"] for row in read(path)] == ["5 \ufffd 2", "\ufffd 996"]
    (tmp_path / "imdb_word_index.json").write_text(json.dumps(WORDS), encoding="utf-8")
    assert [row["text"] for row in read(path)] == ["to \ufffd and", "\ufffd \ufffd"]


def test_texts_cut_from_the_front_are_still_known_as_loaded(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    texts = [rng.integers(1, 40, size=n).tolist() for n in rng.integers(10, 60, size=70)]
    length, labels = 30, np.zeros(len(texts), dtype=int)
    assert sum(len(ranks) < length for ranks in texts) not in (0, len(texts))
    for name, stored in [("raw", ragged(texts)), ("cut", np.array(padded(loaded(texts), length)))]:
        np.savez(tmp_path / f"{name}.npz", x_train=stored, y_train=labels)
    assert [row["text"] for row in read(tmp_path / "raw.npz")] == [" ".join(map(str, ranks)) for ranks in texts]
    assert [row["text"] for row in read(tmp_path / "cut.npz")] == [" ".join(map(str, ranks[-length:])) for ranks in texts]


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("place", ["the array", "a text", "a number"])
@pytest.mark.parametrize(("function", "name"), [(os.system, f"{os.name}.system"), (eval, "builtins.eval"), (np.save, "numpy.save")])
def test_a_pickle_that_calls_something_is_refused_without_running_it(
    tmp_path: Path, function: Callable[..., Any], name: str, place: str
) -> None:
    trace = tmp_path / "trace.npy"
    arguments = {"system": f"touch '{trace}'", "eval": f"open({str(trace)!r}, 'w')", "save": str(trace)}
    call = Call(function, arguments[name.rpartition(".")[2]], *([0] if function is np.save else []))
    content = {"the array": call, "a text": ragged([[5], call, [8]]), "a number": ragged([[5], [call], [8]])}[place]
    path = forged(tmp_path / "imdb.npz", pickle.dumps(content, 4))
    message = refusal(path, bad_rows="skip")
    assert f"it asks for {name!r}" in message
    assert "nothing of it was run" in message
    assert not trace.exists()


def test_the_pickles_of_that_test_do_run_where_they_are_trusted(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(ragged([[5], Call(os.system, f"touch '{trace}'")])))
    assert trace.exists()


class State:
    """An object whose pickle is that of an array with another state."""

    def __init__(self, *state: Any) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        return np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state


OBJECT, NUMBER = np.dtype(object), np.dtype(np.int64)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04",
        b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93.",  # the class itself
        b"\x80\x02cnumpy\ndtype\n(N}X\x05\x00\x00\x00orderK\x01stb.",  # a state for the class
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # an array without a state
        b"\x80\x02cnumpy\ndtype\n(N}X\x05\x00\x00\x00orderK\x01st\x85R.",
        b"\x80\x02c_codecs\nencode\nK\x01K\x02\x86R.",
        b"\x80\x02Pname\n.",
        b"\x80\x04r\xff\xff\xff",
        pickle.dumps([[5], [7], [8]]),
        pickle.dumps({"x": [5]}),
        pickle.dumps(None),
        pickle.dumps(ragged(RANKS["train"]))[:-20],
        pickle.dumps(State(1, (3,), OBJECT, False, [[5]])),
        pickle.dumps(State(1, (10**12,), OBJECT, False, [[5]])),
        pickle.dumps(State(1, ("3",), OBJECT, False, [[5], [7], [8]])),
        pickle.dumps(State(1, (), OBJECT, False, [[5]])),
        pickle.dumps(State(1, None, OBJECT, False, [[5]])),
        pickle.dumps(State(1, (3,), OBJECT, False, None)),
        pickle.dumps(State(1, (3,), OBJECT, False, b"\0" * 24)),
        pickle.dumps(State(1, (3,), None, False, b"\0" * 24)),
        pickle.dumps(State("x")),
        pickle.dumps(ragged([[5], State(1, (2,), NUMBER, False, b"\0" * 8), [8]])),
        pickle.dumps(ragged([[5], State(1, (1,), NUMBER, False, b"\0" * 7), [8]])),
        pickle.dumps(ragged([[5], np.array([0.5]), [8]])),
        pickle.dumps(ragged([[5], [np.float64(0.5)], [8]])),
    ],
)
def test_a_forged_pickle_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    assert "expected imdb.npz as Keras hands it out" in refusal(forged(tmp_path / "imdb.npz", content))
    assert read(save(tmp_path / "good.npz")) == ROWS["train"]


def test_a_member_that_unpacks_to_far_more_than_the_file_holds_is_refused_before_it_does(tmp_path: Path) -> None:
    bomb = number_npy(np.zeros((1 << 12, 1 << 10)))  # 32 MiB in 32 KiB
    path = zipped(tmp_path / "imdb.npz", {"x_train": bomb, "y_train": number_npy(np.zeros(1 << 12))}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < len(bomb) / 500
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "x_train.npy would unpack from " in message
    assert f" to {len(bomb):,} bytes" in message
    assert peak < len(bomb) / 8


def test_the_size_that_a_directory_declares_is_not_believed_either(tmp_path: Path) -> None:
    path = save(tmp_path / "imdb.npz")
    content = bytearray(path.read_bytes())
    place = content.index(b"x_train.npy", content.index(b"PK\x01\x02"))  # in the directory, behind 46 bytes about the file
    content[place - 26 : place - 18] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(content)
    assert "would unpack from" in refusal(path)


@pytest.mark.parametrize("number", [b"r\xff\xff\xff\x0f", b"p268435455\n", b"r\x00\x10\x00\x00"])
def test_a_pickle_that_numbers_objects_beyond_its_bytes_is_refused_before_memory_is_taken(tmp_path: Path, number: bytes) -> None:
    path = forged(tmp_path / "imdb.npz", b"\x80\x02]" + number + b"]q\x00.")
    assert "its pickle numbers an object" in refusal(path)


def test_many_objects_may_have_as_many_numbers(tmp_path: Path) -> None:
    texts = [[1 + n % 9, 10 + n] for n in range(700)]
    content = pickle.dumps(ragged(texts), 2)
    assert b"r" in {code.code.encode() for code, _, _ in pickletools.genops(content)}  # numbers above 255
    path = zipped(tmp_path / "imdb.npz", {"x_train": pickled_npy(content, 700), "y_train": number_npy(np.arange(700) % 2)})
    assert [row["text"] for row in read(path)] == [" ".join(map(str, ranks)) for ranks in texts]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "imdb.npz")
    whole = path.read_bytes()
    turned = whole.index(b"numpy._core")
    for content in [b"", b"PK", whole[:-30], whole[: len(whole) // 2], whole[:turned] + b"N" + whole[turned + 1 :]]:
        path.write_bytes(content)
        assert "cannot be read (" in refusal(path)


def test_arrays_that_are_missing_or_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "imdb.npz"
    texts, labels = pickled_npy(pickle.dumps(ragged(RANKS["train"]))), number_npy(np.array([0, 1]))
    assert "it holds x_train.npy, y.npy, but no y_train.npy" in refusal(zipped(path, {"x_train": texts, "y": labels}))
    assert "it holds nothing, but no x_test.npy" in refusal(f"{zipped(path, {})}:test")
    assert "x_train holds 3 texts and y_train 2 labels" in refusal(zipped(path, {"x_train": texts, "y_train": labels}))
    assert "y_train is a single value" in refusal(zipped(path, {"x_train": texts, "y_train": number_npy(np.array(1))}))
    assert "cannot be read (" in refusal(zipped(path, {"x_train": b"no array", "y_train": labels}))
    assert "cannot be read (" in refusal(zipped(path, {"x_train": number_npy(np.zeros((3, 2), int))[:-8], "y_train": labels}))
    packed = zipped(path, {"x_train": texts, "y_train": labels}, zipfile.ZIP_BZIP2)
    assert "compressed in a way that NumPy does not write" in refusal(packed)


@pytest.mark.parametrize("text", ["5 7", [5, -7], [5, 7.0], [True], [[5]], None, {5: 7}])
def test_a_text_that_is_no_list_of_word_numbers_is_a_bad_row(tmp_path: Path, text: object) -> None:
    path = tmp_path / "imdb.npz"
    np.savez(path, x_train=ragged([[5], text, [8]]), y_train=np.array([0, 0, 1]))
    log = ReadLog()
    assert f"{path}:2: x_train holds " in refusal(path)
    assert read(path, bad_rows="skip", log=log) == [{"text": "5", "label": "0"}, {"text": "8", "label": "1"}]
    assert (log.rows, log.bad) == (2, 1)


def test_an_empty_text_and_a_broken_label_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "imdb.npz"
    np.savez(path, x_train=np.array([[0, 5], [0, 0], [8, 9]]), y_train=np.array([0, 1, 0.5]))
    assert f"{path}:2: column 'text' is empty" in refusal(path)
    log = ReadLog()
    assert read(path, bad_rows="skip", log=log) == [{"text": "5", "label": "0"}]
    assert log.bad_examples[1].startswith(f"{path}:3: column 'label' is 0.5")
    np.savez(path, x_train=np.array([5, 7, 8]), y_train=np.array([0, 1, 0]))
    assert "none of its 3 rows can be used" in refusal(path, bad_rows="skip")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"the": "1"}', '{"the": null}', '{"the": [1]}'])
def test_a_word_index_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = save(tmp_path / "imdb.npz")
    index = tmp_path / keras.WORD_INDEX
    index.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="is no word index") as caught:
        read(path)
    assert str(caught.value).startswith(f"{index}: ")


@pytest.mark.parametrize("required", [["source", "target"], ["text"], {"text": "text", "label": "labels"}, {**KINDS, "id": "text"}])
def test_a_task_that_asks_for_other_columns_is_refused(tmp_path: Path, required: object) -> None:
    message = refusal(save(tmp_path / "imdb.npz"), required=required)
    assert "Keras' IMDb fills one text and its label, but this task asks for " in message


def test_columns_are_named_as_the_task_and_its_other_files_name_them(tmp_path: Path) -> None:
    path = save(tmp_path / "imdb.npz")
    asked = {"sentiment": "label", "document": "text"}
    found = [{"document": row["text"], "sentiment": row["label"]} for row in ROWS["train"]]
    assert read(path, required=asked) == read(path, required=asked, rename={"document": "review"}) == found
    assert [row["text"] for row in read(path, required=())] == [row["text"] for row in ROWS["train"]]


def test_a_split_or_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "imdb.npz")
    for split in ("valid", "", "Train"):
        message = refusal(f"{path}:{split}")
        assert f"there is no split {split!r}; expected {path}:train or {path}:test" in message
    with pytest.raises(DataError, match="no such file; did you mean"):
        read(f"{tmp_path / 'imbd.npz'}:test")
