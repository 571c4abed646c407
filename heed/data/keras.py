"""Keras' IMDb file, `imdb.npz`: reviews as lists of word numbers, pickled into NumPy arrays in a zip file.

Nothing is run that a pickle asks for, not even NumPy's own functions, which are not made to withstand forged arguments: each name that
NumPy writes into pickles is given a stand-in that keeps what it is told, and any other is refused. Unlike other sources this one is
held in memory while it is read, so the sizes that a file declares are compared with its own before memory is taken for them. Left out:
Keras' other data sets.
"""

import io
import math
import pickle
import pickletools
import re
import reprlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.lib import format as npy

from heed.data.rows import Example, Row
from heed.errors import DataError
from heed.files import parse_json

SPLITS = ("train", "test")
WORD_INDEX = "imdb_word_index.json"
# Of keras.datasets.imdb.load_data(): what begins a text, what stands for nothing, and what is added to ranks.
START, UNUSED, INDEX_FROM = 1, 3, 3
UNKNOWN = "\ufffd"  # stands where a word was left out
SMALL_MEMBER = 1 << 20  # bytes that a member may unpack to in any case ...
MOST_TIMES_PACKED = 100  # ... and otherwise so many times its packed size; reviews are a third, padded to one length a thirtieth
TELLING_IDS = 1000  # of so many English words, some thirty are "a", whose rank in IMDb is UNUSED
# What the readers of zip files, NumPy's headers and pickles raise for files that are damaged or forged.
DAMAGES = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.PickleError,
)

Array = np.ndarray[Any, np.dtype[Any]]


def split_of(source: str) -> tuple[Path, str] | None:
    """Return file and split of `FILE.npz[:train|:test]`; None for a source of another form.

    Raises:
        DataError: there is no such split.
    """
    found = re.fullmatch(r"(.*\.npz)(?::([^/]*))?", source, re.DOTALL | re.IGNORECASE)
    if found is None:
        return None
    split = SPLITS[0] if found[2] is None else found[2]
    if split not in SPLITS:
        raise DataError(f"{source}: there is no split {split!r}; expected {' or '.join(f'{found[1]}:{name}' for name in SPLITS)}")
    return Path(found[1]).expanduser(), split


def word_index_beside(path: Path) -> Path | None:
    """Return the file of Keras' word index that lies beside the data, if one does."""
    beside = path.with_name(WORD_INDEX)
    return beside if beside.is_file() else None


def imdb_rows(source: str, *, text: str, label: str) -> Iterator[Row]:
    """Load a split and return its rows, numbered from 1: {text: words with spaces between, label: a number}, or what is wrong with one.

    A word is written as the word index beside the file has it, or as its rank by frequency where there is no index.

    Raises:
        DataError: the file is damaged, is not Keras' IMDb or asks for something to be run; or the word index is not one.
    """
    place = split_of(source)
    assert place is not None
    path, split = place
    texts, labels = _load(source, path, split)
    index = word_index_beside(path)
    words = None if index is None else _words_by_rank(index)
    offset = _offset(texts)

    def row(stored: object, value: object) -> Example | str:
        ids = _ids(stored)
        if ids is None:
            return f"x_{split} holds {reprlib.repr(stored)}; expected a list of word numbers, none below 0"
        return {text: _text(ids, offset, words), label: value}

    return ((number, row(*pair)) for number, pair in enumerate(zip(texts, labels, strict=True), 1))


def _load(source: str, path: Path, split: str) -> tuple[Array | list[Any], list[Any]]:
    """Return texts and labels of a split as they are stored."""
    try:
        with zipfile.ZipFile(path) as archive:
            texts, labels = (_array(archive, f"{name}_{split}") for name in "xy")
    except DAMAGES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{source}: cannot be read ({reason}); expected imdb.npz as Keras hands it out, with x_train, y_train, x_test and y_test"
        ) from error
    if len(texts) != len(labels):
        raise DataError(f"{source}: x_{split} holds {len(texts)} texts and y_{split} {len(labels)} labels; expected a label for each text")
    return texts, labels if isinstance(labels, list) else labels.tolist()


def _array(archive: zipfile.ZipFile, name: str) -> Array | list[Any]:
    """Return an array of the file; as a list where its items are pickled."""
    file = io.BytesIO(_member(archive, f"{name}.npy"))  # read to its end, so that damage is found before a pickle is looked at
    read_header = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read_header(file)
    if dtype.hasobject:
        _check_numbers(file.getvalue()[file.tell() :])
        pickled = _Unpickler(file).load()
        if not isinstance(pickled, _Array):
            raise ValueError(f"{name} is no array")
        return [item.items() if isinstance(item, _Array) else item for item in pickled.items()]
    if not shape:
        raise ValueError(f"{name} is a single value")
    array = np.frombuffer(file.read(), dtype)
    return array.reshape(shape[::-1]).T if by_columns else array.reshape(shape)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if name not in archive.namelist():
        raise ValueError(f"it holds {', '.join(archive.namelist()) or 'nothing'}, but no {name}")
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that NumPy does not write")
    n_packed = min(info.compress_size, Path(str(archive.filename)).stat().st_size)
    if info.file_size > max(SMALL_MEMBER, MOST_TIMES_PACKED * n_packed):
        raise ValueError(f"{name} would unpack from {n_packed:,} to {info.file_size:,} bytes, which no reviews do")
    return archive.read(info)


def _check_numbers(content: bytes) -> None:
    """Refuse a pickle that numbers its objects beyond its bytes, because memory is taken for all lower numbers.

    Raises:
        ValueError, IndexError: it does, or is damaged.
    """
    file, place = io.BytesIO(content), 0
    while (step := STEPS[content[place]]) != STOP:
        place = place + step if step else _behind(file, place, len(content))


def _behind(file: io.BytesIO, place: int, n_bytes: int) -> int:
    """Return where the instruction ends that begins at a place of a pickle; raises ValueError for a number beyond its bytes."""
    file.seek(place)
    instruction = INSTRUCTIONS.get(file.read(1))
    if instruction is None or instruction.arg is None:
        raise ValueError("its pickle holds what is no instruction")
    number = instruction.arg.reader(file)
    if instruction.name in NUMBERING and number > n_bytes:
        raise ValueError(f"its pickle numbers an object {number:,}, but has {n_bytes:,} bytes")
    return file.tell()


def _step(instruction: pickletools.OpcodeInfo | None) -> int:
    """Return the bytes from an instruction to the next; 0 where they depend on what stands there, or where there is more to look at."""
    if instruction is None or instruction.name in NUMBERING:
        return 0
    if instruction.arg is None:
        return STOP if instruction.name == "STOP" else 1
    return 1 + instruction.arg.n if instruction.arg.n >= 0 else 0


STOP = -1
NUMBERING = ("PUT", "LONG_BINPUT")  # instructions that give an object a number by which others refer to it, above 255 too
INSTRUCTIONS = {one.code.encode("latin-1"): one for one in pickletools.opcodes}
STEPS = [_step(INSTRUCTIONS.get(bytes([code]))) for code in range(256)]


class _StandIn:
    """What a pickle finds under a name of NumPy's; it has no state, so that a pickle cannot change what the name stands for either."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError(f"it sets the state of {type(self).__name__}")


class _DType(_StandIn):
    """Stands for numpy.dtype: keeps the type's name, such as i8, and its byte order."""

    order = "="

    def __init__(self, name: object, *_: object) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def numbers(self, raw: bytes) -> list[int]:
        """Return the whole numbers that bytes stand for; raises ValueError for another type."""
        name = f"{self.order}{self.name}"
        if not re.fullmatch("[<>|=][iu][1248]", name):
            raise ValueError(f"it holds values of type {name!r}, which is none of whole numbers")
        numbers: list[int] = np.frombuffer(raw, name).tolist()
        return numbers


class _Array(_StandIn):
    """Stands for numpy.ndarray and for what makes one: keeps its shape and what it holds."""

    shape: tuple[int, ...] = (0,)
    dtype = _DType("")
    stored: Any = ()

    def __init__(self, *_: object) -> None:
        """Take the arguments of numpy.core.multiarray._reconstruct, which say nothing yet."""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, _, self.stored = state

    def items(self) -> list[Any]:
        """Return the items; rows of them where there are two axes."""
        flat = self.stored if isinstance(self.stored, list) else self.dtype.numbers(self.stored)
        n_rows, *others = self.shape
        width = math.prod(others)
        if n_rows * width != len(flat):
            raise ValueError(f"an array of shape {self.shape} holds {len(flat)} items")
        return [flat[i * width : (i + 1) * width] for i in range(n_rows)] if others and flat else flat


class _Number(_StandIn, int):
    """Stands for numpy.core.multiarray.scalar, which makes single numbers."""

    def __new__(cls, dtype: _DType, raw: bytes) -> Self:
        return super().__new__(cls, dtype.numbers(raw)[0])


class _Latin1(_StandIn, bytes):
    """Stands for _codecs.encode, by which the second version of pickles writes bytes down."""

    def __new__(cls, text: str, _: str) -> Self:
        return super().__new__(cls, text.encode("latin-1"))


STAND_INS: dict[str, type[_StandIn]] = {
    "numpy.core.multiarray._reconstruct": _Array,  # before NumPy 2
    "numpy._core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _Number,
    "numpy._core.multiarray.scalar": _Number,
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "_codecs.encode": _Latin1,
}


class _Unpickler(pickle.Unpickler):
    """Reads pickled arrays of lists of numbers and finds nothing that could do harm."""

    def find_class(self, module: str, name: str) -> type[_StandIn]:
        """Return the stand-in of what a pickle asks for; raises UnpicklingError where there is none."""
        asked = f"{module}.{name}"
        if asked not in STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {asked!r}, which no list of numbers needs, so nothing of it was run")
        return STAND_INS[asked]


def _ids(stored: object) -> list[int] | None:
    """Return the word numbers of a text; None where it is something else."""
    ids = stored.tolist() if isinstance(stored, np.ndarray) else stored
    if isinstance(ids, list) and set(map(type, ids)) <= {int, _Number} and min(ids, default=0) >= 0:
        return ids
    return None


def _offset(texts: Iterable[object]) -> int:
    """Return what was added to ranks: INDEX_FROM in arrays saved after keras.datasets.imdb.load_data(), 0 in the file that it loads.

    Loaded texts begin with START. When they are cut to one length, which Keras does from the front, some do not; these are known by
    UNUSED, which stands nowhere in loaded texts, but nearly everywhere in others: there it is the rank of "a".
    """
    beginnings: set[int] = set()
    n_ids, unused = 0, True
    for ids in filter(None, map(_ids, texts)):
        beginnings.update(islice(filter(None, ids), 1))
        n_ids += len(ids) - ids.count(0)
        unused = unused and UNUSED not in ids
    loaded = beginnings == {START} or (START in beginnings and unused and n_ids >= TELLING_IDS)
    return INDEX_FROM if loaded else 0


def _text(ids: Iterable[int], offset: int, words: Mapping[int, str] | None) -> str:
    last_mark = START if offset else 0  # numbers up to this one stand for no word
    ranks = (i - offset for i in ids if i > last_mark)
    if words is None:
        return " ".join(str(rank) if rank > 0 else UNKNOWN for rank in ranks)
    return " ".join(words.get(rank, UNKNOWN) for rank in ranks)


def _words_by_rank(path: Path) -> dict[int, str]:
    try:
        ranks = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(ranks, dict) or not set(map(type, ranks.values())) <= {int}:
            raise ValueError("it does not give words their ranks")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is no word index ({error}); put Keras' file there, or take this one away to read ranks") from error
    return {rank: word for word, rank in ranks.items()}
