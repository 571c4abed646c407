import gzip
from pathlib import Path
from typing import Any

import pytest

from heed.data.read import ReadLog, read_examples
from heed.data.rows import Example
from heed.errors import DataError

FILE = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
# NN B-NP O

# sent_id = 3
北京 NNP I-NP B-LOC


Ada NNP O B-PER
"""
WANTED = {"tokens": "words", "tags": "tags"}


def read(path: Path, content: str | bytes, required: dict[str, str] | None = None, **options: Any) -> list[Example]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_examples(str(path), required=WANTED if required is None else required, **options))


EXPECTED = [
    {"tokens": ["EU", "rejects", "#"], "tags": ["B-ORG", "O", "O"]},
    {"tokens": ["北京"], "tags": ["B-LOC"]},
    {"tokens": ["Ada"], "tags": ["B-PER"]},
]


@pytest.mark.parametrize("name", ["x.conll", "x.bio", "x.iob2", "x.txt"])
def test_sentences_are_the_first_and_last_columns_between_blank_lines(tmp_path: Path, name: str) -> None:
    log = ReadLog()
    assert read(tmp_path / name, FILE, log=log) == EXPECTED
    assert log.format == "conll"


def test_tabs_other_encodings_and_gzip_give_the_same_rows(tmp_path: Path) -> None:
    tabs = "\n".join(line if line[:1] in ("#", "-") and "=" in line else line.replace(" ", "\t") for line in FILE.split("\n"))
    assert read(tmp_path / "tabs.conll", tabs) == EXPECTED
    assert read(tmp_path / "utf16.conll", FILE.encode("utf-16")) == EXPECTED
    assert read(tmp_path / "x.conll.gz", gzip.compress(FILE.replace("\n", "\r\n").encode())) == EXPECTED


def test_a_token_may_hold_spaces_where_tabs_are_the_columns(tmp_path: Path) -> None:
    assert read(tmp_path / "x.conll", "New York\tB-LOC\n3 1/2\tO\n") == [{"tokens": ["New York", "3 1/2"], "tags": ["B-LOC", "O"]}]


def test_a_header_names_the_columns(tmp_path: Path) -> None:
    rows = read(tmp_path / "x.conll", FILE, header=["tokens", "pos", "tags", "names"])
    assert rows[0] == {
        "tokens": ["EU", "rejects", "#"],
        "pos": ["NNP", "VBZ", "NN"],
        "tags": ["B-NP", "B-VP", "B-NP"],
        "names": ["B-ORG", "O", "O"],
    }
    renamed = read(tmp_path / "x.conll", FILE, header=["word", "pos", "chunk", "ner"], rename={"tokens": "word", "tags": "ner"})
    assert [{key: row[key] for key in WANTED} for row in renamed] == EXPECTED


def test_tokens_alone_are_enough_where_no_tags_are_wanted(tmp_path: Path) -> None:
    assert read(tmp_path / "x.conll", "Ada\nwas\n\nhere\n", {"tokens": "words"}) == [{"tokens": ["Ada", "was"]}, {"tokens": ["here"]}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a O\nb\n\nc O\n", r"x.conll:2: 'b' has 1 column, the first token 2; give every token as many"),
        ("a O\n\nb X O\n", r"x.conll:3: 'b X O' has 3 columns, the first token 2"),
        ("\n\na\nb\n", r"x.conll:3: 'a' has no tag; expected a token and its tag on each line"),
        ("\n \n", r"it holds no rows"),
    ],
)
def test_uneven_lines_are_told_by_their_number(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path / "x.conll", content)


def test_a_header_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.conll:3: has 4 columns, but data.header names 2"):
        read(tmp_path / "x.conll", FILE, header=["tokens", "tags"])


def test_bad_sentences_are_skipped_where_that_is_asked_for(tmp_path: Path) -> None:
    log = ReadLog()
    assert read(tmp_path / "x.conll", "a O\nb\n\nc O\n", bad_rows="skip", log=log) == [{"tokens": ["c"], "tags": ["O"]}]
    assert log.bad == 1
    assert log.bad_examples[0].endswith("x.conll:2: 'b' has 1 column, the first token 2; give every token as many")


@pytest.mark.parametrize(
    ("row", "tokens", "tags"),
    [
        ('{"tokens": ["New York", "x"], "tags": ["B-LOC", "O"]}', ["New York", "x"], ["B-LOC", "O"]),
        ('{"tokens": "Ada was", "tags": "B-PER O"}', "Ada was", ["B-PER", "O"]),
        ('{"tokens": "[\\"Ada\\", \\"was\\"]", "tags": "[\\"B-PER\\", \\"O\\"]"}', ["Ada", "was"], ["B-PER", "O"]),
        ('{"tokens": "[ Ada ]", "tags": [3, 0, 1]}', "[ Ada ]", ["3", "0", "1"]),
    ],
)
def test_rows_hold_lists_or_texts(tmp_path: Path, row: str, tokens: object, tags: object) -> None:
    assert read(tmp_path / "x.jsonl", row) == [{"tokens": tokens, "tags": tags}]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"tokens": [], "tags": []}', "column 'tokens' is empty"),
        ('{"tokens": ["a", " "], "tags": ["O", "O"]}', "of which one is empty"),
        ('{"tokens": ["a", 3], "tags": ["O", "O"]}', "expected a list of words, or a text with white space"),
        ('{"tokens": ["a"], "tags": [null]}', "column 'tags' is"),
    ],
)
def test_what_are_no_words_is_refused(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path / "x.jsonl", row)
