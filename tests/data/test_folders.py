import hashlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from heed.data.read import ReadLog, data_files, hash_files, read_examples
from heed.data.rows import Example
from heed.errors import DataError

KINDS = {"text": "text", "label": "label"}
# IMDb as it is unpacked, in the order in which its reviews are read.
REVIEWS = {
    "neg/1_1.txt": "Awful.",
    "neg/20_3.txt": "Worse.\r\n\r\nThe worst.\n",
    "pos/0_9.txt": " Fine<br />film",
    "pos/2_10.txt": "很好看",
    "pos/10_7.txt": "Good\u2028enough",
}
OTHERS = {
    "unsup/0_0.txt": "Who knows?",
    "labeledBow.feat": "9 0:9 1:1",
    "urls_pos.txt": "http://example.org",
    ".DS_Store/1.txt": "x",
    "pos/._0_9.txt": "\x00\x05",
}
EXAMPLES = [{"text": text, "label": path[:3], "file": path} for path, text in REVIEWS.items()]


def write(folder: Path, files: dict[str, str], encoding: str = "utf-8") -> Path:
    for name, text in reversed(files.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode(encoding))
    return folder


def read(source: object, **options: Any) -> list[Example]:
    return list(read_examples(str(source), **{"required": KINDS, **options}))


def refusal(source: object, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(source, **options)
    return str(caught.value)


@pytest.fixture
def imdb(tmp_path: Path) -> Path:
    return write(tmp_path / "aclImdb" / "train", {**REVIEWS, **OTHERS})


def test_each_file_is_an_example_of_its_folders_class_in_natural_order(imdb: Path) -> None:
    write(imdb, {"pos/notes.md": "", "pos/more.txt.bak": "x", "neg/a.wav": ""})
    log = ReadLog()
    assert read(imdb, log=log) == read(f"{imdb}/") == EXAMPLES
    assert (log.format, log.encoding, log.rows, log.bad, log.ignored) == ("folder", "", len(REVIEWS), 0, 3)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gb18030"])
def test_texts_are_the_same_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    files = {f"{label}/{n}.txt": f"第{n}部很好看的电影, {label}\n" for label in ("a", "b") for n in range(3)}
    assert [row["text"] for row in read(write(tmp_path, files, encoding))] == list(files.values())


def test_classes_with_numbers_are_in_natural_order(tmp_path: Path) -> None:
    names = ["1", "2", "10", "01b", "x2", "x10"]
    write(tmp_path, {f"{name}/a.TXT": "x" for name in names})
    assert [row["label"] for row in read(tmp_path)] == ["1", "01b", "2", "10", "x2", "x10"]


@pytest.mark.parametrize(("content", "fault"), [(b"", "is empty"), (b" \r\n", "is empty"), (b"good M\xe4rchen", "byte 6 is not text")])
def test_a_bad_file_is_named_by_its_path_or_skipped(imdb: Path, content: bytes, fault: str) -> None:
    bad = imdb / "pos" / "1_8.txt"
    bad.write_bytes(content)
    message = refusal(imdb)
    assert message.startswith(f"{bad}: {fault}")
    assert message.count(str(bad)) == 1
    assert message.endswith("; mend the file, or set data.bad_rows=skip to leave such files out")
    log = ReadLog()
    assert read(imdb, bad_rows="skip", log=log) == EXAMPLES
    assert (log.bad, log.rows) == (1, len(EXAMPLES))
    assert log.bad_examples[0].startswith(f"{bad}: {fault}")


def test_a_file_that_cannot_be_read_is_a_bad_one(imdb: Path) -> None:
    gone = imdb / "pos" / "5_5.txt"
    gone.write_text("x", encoding="utf-8")
    log = ReadLog()
    rows = read_examples(str(imdb), required=KINDS, bad_rows="skip", log=log)
    gone.unlink()
    assert list(rows) == EXAMPLES
    assert log.bad_examples[0].startswith(f"{gone}: cannot be read (")


def test_a_class_without_texts_is_named(imdb: Path) -> None:
    write(imdb, {"odd/1.wav": "", "odd/2.wav": "", "odd/3.wav": "", "odd/10.wav": ""})
    message = refusal(imdb)
    assert message.startswith(f"{imdb / 'odd'}: holds no .txt file but 1.wav, 2.wav, 3.wav and 1 more; ")
    assert f"every folder in {imdb} stands for a class" in message
    with pytest.raises(DataError, match=r"odd: holds no \.txt file"):
        data_files(str(imdb))


def test_the_folder_above_class_folders_is_refused_with_the_right_one(imdb: Path) -> None:
    message = refusal(imdb.parent)
    assert message.startswith(f"{imdb}: holds the folder neg, but stands for a class, ")
    assert f"such as {imdb}, " in message


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, "nothing"),
        ({"a.csv": "text,label\n", "b.doc": "x"}, "a.csv, b.doc"),
        ({"unsup/1.txt": "x", ".hidden/1.txt": "x"}, "unsup/"),
    ],
)
def test_a_folder_without_classes_says_what_it_holds_and_what_is_expected(tmp_path: Path, files: dict[str, str], found: str) -> None:
    message = refusal(write(tmp_path, files))
    assert message.startswith(f"{tmp_path}: is a folder that holds {found}; expected .tsv, ")
    assert "one folder of .txt files per class" in message


@pytest.mark.parametrize(
    "required",
    [["source", "target"], ["text"], {"text": "text"}, {"text": "text", "label": "labels"}, {**KINDS, "text_pair": "text"}],
)
def test_a_task_that_asks_for_other_columns_is_refused(imdb: Path, required: object) -> None:
    message = refusal(imdb, required=required)
    assert f"{imdb}: class folders fill one text and its label, but this task asks for " in message


def test_columns_are_named_as_the_task_and_its_other_files_name_them(imdb: Path) -> None:
    asked = {"document": "text", "sentiment": "label"}
    found = [{"document": row["text"], "sentiment": row["label"], "file": row["file"]} for row in EXAMPLES]
    assert read(imdb, required=asked) == read(imdb, required=asked, rename={"document": "review", "sentiment": "stars"}) == found
    assert read(imdb, required=()) == EXAMPLES


def test_files_are_listed_and_hashed_as_one(imdb: Path) -> None:
    assert data_files(str(imdb)) == [imdb / name for name in REVIEWS]
    expected = hashlib.sha256()
    for name, text in REVIEWS.items():
        expected.update(name.encode() + b"\0" + hashlib.sha256(text.encode()).digest())
    assert hash_files(str(imdb)) == hash_files(f"{imdb}/") == {"train": expected.hexdigest()}


def test_the_hash_follows_names_and_contents_of_texts_and_nothing_else(imdb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hash_files(str(imdb))
    write(imdb, {"unsup/1_0.txt": "x", "notes.txt": "x", "pos/notes.md": "x"})
    monkeypatch.chdir(imdb)
    assert hash_files(".") == first
    (imdb / "pos" / "0_9.txt").rename(imdb / "pos" / "0_8.txt")
    renamed = hash_files(str(imdb))
    write(imdb, {"pos/0_8.txt": "Fine film"})
    assert len({str(found) for found in (first, renamed, hash_files(str(imdb)))}) == 3


def test_names_that_are_no_utf8_can_be_written_down(tmp_path: Path) -> None:
    write(tmp_path, {"pos/1.txt": "x"})
    (tmp_path / "pos" / os.fsdecode(b"M\xfcnchen.txt")).write_text("y", encoding="utf-8")
    assert [row["file"].encode() for row in read(tmp_path)] == [b"pos/1.txt", b"pos/M?nchen.txt"]
    assert len(hash_files(str(tmp_path))) == 1


def test_only_one_text_is_in_memory_at_a_time(tmp_path: Path) -> None:
    size, n_files = 300_000, 30
    write(tmp_path, {f"{label}/{n}.txt": label * size for label in ("a", "b") for n in range(n_files // 2)})
    tracemalloc.start()
    n_read = sum(1 for _ in read_examples(str(tmp_path), required=KINDS))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_read == n_files
    assert peak < 5 * size
