"""Pretrained word vectors: every format gives the same, words without a vector follow the rule, and damaged files are refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.vectors import MISSING_SHOWN, matrix, read_vectors
from heed.data.vocabulary import SPECIALS
from heed.errors import DataError


def as_lines(table, end="\n"):
    return "".join(f"{word} {' '.join(repr(float(value)) for value in row)}{end}" for word, row in table.items())


def as_header(table):
    return f"{len(table)} {len(next(iter(table.values())))}\n"


def as_records(table, end=b"\n"):
    return as_header(table).encode() + b"".join(word.encode() + b" " + row.astype("<f4").tobytes() + end for word, row in table.items())


WRITERS = {
    "glove": lambda table: as_lines(table).encode(),
    "glove with a mark": lambda table: b"\xef\xbb\xbf" + as_lines(table, "\r\n").encode(),
    "word2vec": lambda table: (as_header(table) + as_lines(table)).encode(),
    "word2vec of fastText": lambda table: (as_header(table) + as_lines(table, " \n")).encode(),
    "word2vec without a last line end": lambda table: (as_header(table) + as_lines(table)).encode().removesuffix(b"\n"),
    "word2vec binary": as_records,
    "word2vec binary without line ends": lambda table: as_records(table, b""),
}
KINDS = ("word2vec binary", "word2vec", "glove")  # longest first: what the name of a writer begins with


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def drawn_table(words, dimension=3):
    draw = np.random.default_rng(5)
    return {word: draw.normal(size=dimension).astype(np.float32) for word in words}


TABLE = drawn_table(["the", ",", "Paris", "don't", "北京", "a\xa0b", "</s>"])


@pytest.mark.parametrize("name", ["v.txt", "v.gz"])
@pytest.mark.parametrize("writer", WRITERS)
def test_every_format_gives_the_same_vectors(tmp_path, writer, name):
    path = write(tmp_path / name, WRITERS[writer](TABLE))
    wanted = {"北京", "the", "don't", "unheard", "a\xa0b"}
    vectors = read_vectors(str(path), wanted)
    assert vectors.words == vectors.spellings == sorted(wanted - {"unheard"})
    assert vectors.values.dtype == np.float32
    np.testing.assert_array_equal(vectors.values, np.stack([TABLE[word] for word in vectors.words]))
    assert vectors.dimension == 3
    assert vectors.format == next(kind for kind in KINDS if writer.startswith(kind))


@given(
    table=st.integers(1, 4).flatmap(
        lambda dimension: st.dictionaries(
            st.text(st.characters(categories=["L"]), min_size=1),
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=dimension, max_size=dimension),
            min_size=1,
        )
    ),
    writer=st.sampled_from(sorted(WRITERS)),
)
def test_values_come_back_bit_by_bit(tmp_path, table, writer):
    rows = {word: np.array(values, dtype=np.float32) for word, values in table.items()}
    rows["0"] = np.zeros_like(next(iter(rows.values())))  # no text holds its bytes, so the binary is told from text however small
    vectors = read_vectors(write(tmp_path / "v", WRITERS[writer](rows)), dict.fromkeys(rows, 1))
    assert vectors.words == sorted(rows)
    assert vectors.values.tobytes() == np.stack([rows[word] for word in sorted(rows)]).tobytes()


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_records_may_lie_across_the_chunks_that_are_read(tmp_path, monkeypatch, chunk, end):
    monkeypatch.setattr("heed.data.vectors.CHUNK_BYTES", chunk)
    vectors = read_vectors(write(tmp_path / "v.bin", as_records(TABLE, end)), set(TABLE))
    np.testing.assert_array_equal(vectors.values, np.stack([TABLE[word] for word in sorted(TABLE)]))


def test_words_of_glove_may_hold_spaces(tmp_path):
    table = drawn_table([". .", "the", "at name@domain.com"])
    vectors = read_vectors(write(tmp_path / "v", as_lines(table).encode()), set(table))
    assert vectors.words == sorted(table)
    np.testing.assert_array_equal(vectors.values, np.stack([table[word] for word in sorted(table)]))


def test_the_first_of_two_vectors_counts(tmp_path):
    vectors = read_vectors(write(tmp_path / "v", b"the 1 2\nof 3 4\nthe 5 6\n"), {"the"})
    assert vectors.values.tolist() == [[1, 2]]


def test_a_word_is_looked_for_as_it_is_then_in_lower_case_then_with_a_capital(tmp_path):
    path = write(tmp_path / "v", as_lines(drawn_table(["paris", "Berlin", "the", "The"])).encode())
    vectors = read_vectors(path, {"Paris", "berlin", "BERLIN", "The", "THE", "rome"})
    assert dict(zip(vectors.words, vectors.spellings, strict=True)) == {
        "Paris": "paris",
        "berlin": "Berlin",
        "BERLIN": "Berlin",
        "The": "The",
        "THE": "the",
    }
    coverage = matrix([*SPECIALS, "Paris", "berlin", "rome", "The"], vectors, seed=0)[1]
    assert (coverage["by_lower_case"], coverage["by_capital"], coverage["found"]) == (1, 1, 3)


def test_the_matrix_holds_what_was_found_and_zero_for_padding(tmp_path):
    vectors = read_vectors(write(tmp_path / "v", as_lines(TABLE).encode()), {*TABLE, *SPECIALS})
    vocabulary = [*SPECIALS, "北京", "x", "the", "y"]
    values, coverage = matrix(vocabulary, vectors, seed=3, counts={"北京": 5, "x": 2, "the": 10, "y": 1, "outside": 2})
    assert (values.shape, values.dtype) == ((8, 3), np.float32)
    np.testing.assert_array_equal(values[[4, 6]], np.stack([TABLE["北京"], TABLE["the"]]))
    np.testing.assert_array_equal(values[0], np.zeros(3))
    assert np.all(values[[1, 2, 3, 5, 7]] != 0)
    assert coverage == {
        "words": 4,
        "found": 2,
        "share": 0.5,
        "by_lower_case": 0,
        "by_capital": 0,
        "missing": ["x", "y"],
        "share_of_text": 0.75,
    }


def test_special_tokens_are_never_looked_up(tmp_path):
    path = write(tmp_path / "v", b"the 1 2\n<unk> 900 900\n<eos> 900 900\nof 3 5\n")
    vectors = read_vectors(path, [*SPECIALS, "the", "of"])
    assert vectors.words == ["of", "the"]
    assert np.abs(matrix([*SPECIALS, "the"], vectors, seed=0)[0]).max() < 100
    with pytest.raises(DataError, match="none of the 0 words"):
        read_vectors(path, SPECIALS)


def test_words_without_a_vector_are_drawn_like_those_that_have_one(tmp_path):
    known = {f"k{n}": row for n, row in enumerate(np.random.default_rng(1).normal([5, -2], [1, 0.1], (40, 2)).astype(np.float32))}
    vectors = read_vectors(write(tmp_path / "v", as_lines(known).encode()), set(known))
    unknown = [f"u{n}" for n in range(3000)]
    values, coverage = matrix([*SPECIALS, *known, *unknown], vectors, seed=0)
    found, drawn = np.stack(list(known.values())), values[-3000:]
    assert np.all(np.abs(drawn.mean(0) - found.mean(0)) < 5 * found.std(0) / np.sqrt(3000))
    assert np.all(np.abs(drawn.std(0) / found.std(0) - 1) < 0.1)
    assert (coverage["found"], coverage["missing"]) == (40, unknown[:MISSING_SHOWN])
    np.testing.assert_array_equal(values, matrix([*SPECIALS, *known, *unknown], vectors, seed=0)[0])
    assert np.all(drawn != matrix([*SPECIALS, *known, *unknown], vectors, seed=1)[0][-3000:])


def test_the_order_of_a_set_changes_nothing(tmp_path):
    path = write(tmp_path / "v", as_lines(TABLE).encode())
    one, other = read_vectors(path, list(TABLE)), read_vectors(path, list(reversed(TABLE)))
    assert one.words == other.words
    vocabulary = [*SPECIALS, *TABLE, "x"]
    np.testing.assert_array_equal(matrix(vocabulary, one, seed=0)[0], matrix(vocabulary, other, seed=0)[0])


BINARY = as_records(TABLE)
SPOILED = {name: row * (np.nan if name == "Paris" else 1) for name, row in TABLE.items()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", ":1: '.n' is neither a word and its values"),
        (b"hello\n", ":1: 'hello.n' is neither a word and its values"),
        (b"the 1 2\nof 1\n", ":2: expected a word and 2 values, found 2 fields in all"),
        (b"the 1 2\n\nof 1 2 3\n", ":3: expected a word and 2 values, found 3 values"),
        (b"the 1 2\nof 1 x\n", ":2: 'x' is no number"),
        (b"the 1 x 2\nof 1 2 3\n", ":1: 'x' is no number"),
        (b"the 1 2\nof nan 2\n", ":2: value 1 is nan, expected a finite number"),
        (b"the 1 2\nof 2 -1e300\n", ":2: value 2 is -inf"),
        (b"2 2\nthe 1 2\n", "the header promises 2 words, but the file holds 1"),
        (b"1 2\nthe 1 2\nof 1 2\n", "the header promises 1 words, but the file holds 2"),
        (b"2 3\nthe 1 2\nof 1 2\n", ":2: expected a word and 3 values, found 3 fields"),
        (b"0 3\n", ":1: a header of 0 words"),
        (b"3 0\nthe\n", ":1: a header of 3 words of 0 values"),
        (b"3 999999999\nthe 1\n", ":1: a header of 3 words of 999999999 values"),
        (b"le 1 2\nla 3 4\n", "none of the 3 words of the vocabulary is among its 2 words"),
        (BINARY[:-5], "word 7 of 7 is cut off"),
        (BINARY[:-14], "word 7 of 7 is cut off"),
        (BINARY + b"x", "goes on after the 7 words"),
        (BINARY.replace(b"7 3\n", b"6 3\n", 1), "goes on after the 6 words"),
        (BINARY.replace(b"7 3\n", b"7 4\n", 1), "word 6 of 7 is cut off or no word with 4 values"),
        (b"2 2\nthe" + b"\x01" * 30_000 + b" 12345678of 12345678", "word 1 of 2 is cut off or no word"),
        (as_records(SPOILED), "word 3: value 1 is nan"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_place(tmp_path, content, said):
    path = write(tmp_path / "v.vec", content)
    with pytest.raises(DataError, match=rf"v\.vec:? ?{said}"):
        read_vectors(path, {"the", "of", "Paris"})


def test_damage_of_the_packing_and_a_missing_file_are_told(tmp_path: Path):
    whole = gzip.compress(as_lines(TABLE).encode())
    for content in (whole[:-10], b"the 1 2\n", whole[:30] + b"\xff" * 40):
        (tmp_path / "v.txt.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"v\.txt\.gz: is cut off or no gzip file.*copy the file again"):
            read_vectors(tmp_path / "v.txt.gz", set(TABLE))
    with pytest.raises(DataError, match=r"w\.txt\.gz: no such file; did you mean .*v\.txt\.gz"):
        read_vectors(tmp_path / "w.txt.gz", set(TABLE))
