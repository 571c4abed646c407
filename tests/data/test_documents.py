"""Documents: what names them, how files become rows, and where long texts are cut."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data import documents
from heed.data.documents import CONTINUES, cut_text, document_files, hash_documents, paragraphs, text_rows
from heed.errors import DataError

texts = st.text(st.sampled_from("ab \n\r\t.。!好\u3000"), max_size=60)


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def rows_of(*paths: Path, column: str = "text") -> list[dict[str, Any]]:
    rows = [row for _, row in text_rows(paths, column)]
    assert all(isinstance(row, dict) for row in rows)
    return [row for row in rows if isinstance(row, dict)]


def test_a_text_file_a_folder_of_them_and_a_pattern_name_documents(tmp_path: Path) -> None:
    b, a = (written(tmp_path / name, name) for name in ("b.txt", "a.TXT"))
    written(tmp_path / ".hidden.txt", "not this")
    written(tmp_path / "notes.md", "nor this")
    assert document_files(str(b)) == [b]
    assert document_files(str(tmp_path)) == [a, b]
    deep = written(tmp_path / "src" / "inner" / "code.py", "x = 1\n")
    top = written(tmp_path / "src" / "top.py", "y = 2\n")
    written(tmp_path / "src" / ".cache" / "old.py", "z = 3\n")
    assert document_files(f"{tmp_path}/src/**/*.py") == [deep, top]


@pytest.mark.parametrize("name", ["rows.tsv", "hf:some/name", "train.{en,de}", "folder"])
def test_what_names_other_data_names_no_documents(tmp_path: Path, name: str) -> None:
    written(tmp_path / "folder" / "class" / "text.txt", "a text of a class")
    assert document_files(name if name.startswith("hf:") else str(tmp_path / name)) is None


def test_a_file_or_pattern_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    written(tmp_path / "book.txt", "a book")
    with pytest.raises(DataError, match=r"book\.txt"):
        document_files(str(tmp_path / "bok.txt"))
    with pytest.raises(DataError, match="no file fits this pattern"):
        document_files(f"{tmp_path}/*.py")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_small_file_is_one_row_that_holds_it_as_it_stands(tmp_path: Path, encoding: str, packed: bool) -> None:
    text = "  第一行，好的。\r\n\n\tand a second\n"
    path = tmp_path / ("book.txt.gz" if packed else "book.txt")
    path.write_bytes(gzip.compress(text.encode(encoding)) if packed else text.encode(encoding))
    assert rows_of(path, column="body") == [{"body": text, "file": str(path)}]


@given(text=texts.filter(str.strip), block=st.integers(1, 9))
def test_rows_of_a_large_file_joined_are_the_file(tmp_path_factory: pytest.TempPathFactory, text: str, block: int) -> None:
    path = written(tmp_path_factory.mktemp("large") / "book.txt", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "BLOCK", block)
        rows = rows_of(path)
    assert all(0 < len(row["text"]) <= block for row in rows)
    assert "".join("".join(row["text"].split()) for row in rows) == "".join(text.split())  # blank blocks are left out
    assert [CONTINUES in row for row in rows[:-1]] == [True] * (len(rows) - 1)


def test_the_last_row_of_a_file_ends_its_document_and_the_next_file_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BLOCK", 8)
    first, second = written(tmp_path / "a.txt", "one two three"), written(tmp_path / "b.txt", "four")
    rows = rows_of(first, second)
    assert [(row["text"], row.get(CONTINUES)) for row in rows] == [("one two ", True), ("three", None), ("four", None)]
    assert [Path(row["file"]).name for row in rows] == ["a.txt", "a.txt", "b.txt"]


def test_a_blank_file_is_no_row_and_one_that_is_no_text_says_why(tmp_path: Path) -> None:
    blank, broken, good = written(tmp_path / "a.txt", " \n\n"), tmp_path / "b.txt", written(tmp_path / "c.txt", "good")
    broken.write_bytes(b"caf\xe9 au lait, r\xe9sum\xe9")
    (place, fault), (_, row) = text_rows([blank, broken, good])
    assert place == str(broken)
    assert isinstance(fault, str)
    assert fault.startswith("byte 3 is not text")
    assert row == {"text": "good", "file": str(good)}


def test_the_hash_of_documents_changes_with_their_content_names_and_order(tmp_path: Path) -> None:
    a, b = written(tmp_path / "a.txt", "one"), written(tmp_path / "b.txt", "two")
    hashes = [hash_documents(paths) for paths in ([a, b], [b, a], [a])]
    written(b, "twO")
    hashes.append(hash_documents([a, b]))
    hashes.append(hash_documents([a, b.rename(tmp_path / "c.txt")]))
    assert len(set(hashes)) == 5


@given(text=texts, size=st.integers(1, 20))
def test_pieces_joined_are_the_text_and_none_is_longer_than_asked(text: str, size: int) -> None:
    pieces = cut_text(text, size)
    assert "".join(pieces) == text
    assert all(len(piece) <= size for piece in pieces)
    assert all(len(piece) > size // 2 or size == 1 for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a line\nto be\n \nand more. x", "a line\nto be\n \n"),
        ("a line\nto be\nand. more of it", "a line\nto be\n"),
        ("some words. and some more, yes", "some words."),
        ("好的，我们一起去吧。然后我们回家吃饭睡觉了", "好的，我们一起去吧。"),
        ("somewords andmore without-end", "somewords "),
        ("wordswithoutanyendatallofthem", "wordswithoutany"),
    ],
)
def test_a_long_text_is_cut_where_a_reader_would_pause(text: str, first: str) -> None:
    assert cut_text(text, 15)[0] == first


@given(text=texts)
def test_paragraphs_hold_all_but_the_blank_lines_between_them(text: str) -> None:
    found = paragraphs(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(line.strip() for part in found for line in part.split("\n"))


def test_paragraphs_keep_their_lines_and_indentation() -> None:
    assert paragraphs("\n\n  one\ntwo\n\n \t\nthree\r\n\r\n\tfour\n") == ["  one\ntwo", "three", "\tfour"]
