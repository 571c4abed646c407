import codecs
import gzip
from pathlib import Path

import pytest
from toy_files import MARKED

from heed.data.encodings import CHUNK_BYTES, read_lines, read_text, scan_text
from heed.errors import DataError

LINES = ["他们在跑。\tThey run.", "", "　好\u2028的\x85 \rno end", "一一一一一一\tĀĀ 一", "𠀀😀\té"]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_lines(path))
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize(("encoding", "mark"), MARKED)
def test_every_encoding_gives_the_same_lines_and_text(tmp_path: Path, encoding: str, mark: bytes, name: str) -> None:
    text = "\r\n".join(LINES)
    path = write(tmp_path / name, mark + text.encode(encoding))
    assert list(read_lines(path)) == list(read_lines(str(path))) == LINES
    assert read_text(path) == text
    assert (scan_text(path).encoding, scan_text(path).n_lines) == (encoding, len(LINES))


@pytest.mark.parametrize(("text", "n_lines"), [("", 0), ("\n", 1), ("a", 1), ("a\n", 1), ("a\n\nb", 3), ("a\r\n\r\n", 2)])
def test_lines_are_counted_as_they_are_read(tmp_path: Path, text: str, n_lines: int) -> None:
    path = write(tmp_path / "a.txt", text.encode())
    assert scan_text(path).n_lines == len(list(read_lines(path))) == n_lines


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "gb18030"])
def test_characters_across_chunk_borders_are_read_whole(tmp_path: Path, encoding: str) -> None:
    long = "x" + "国人民" * (CHUNK_BYTES // 5)
    path = write(tmp_path / "a.txt", f"{long}\n好\n".encode(encoding))
    assert list(read_lines(path)) == [long, "好"]
    assert read_text(path) == f"{long}\n好\n"


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        (b"source\ttarget\nok\tok\nx\xff\xffy\tz\n", 21),
        ("source\ttarget\nMänner läuft für\tx\n".encode("latin-1"), 15),
        (b"source\ttarget\nM\xe4nner\tM\xe4rchen\n", 15),
        ("source\ttarget\n好\t好".encode()[:-1], 18),
        ("source\ttarget\na\tb".encode("utf-16-le") + b"x", 34),
        (b"source\ttarget\na\tb\x00\n", 17),
        ("source\ttarget\n好的\t你好".encode() + b"\xff\n", 27),
        (codecs.BOM_UTF32_LE + "source\ttarget\n".encode("utf-32-le"), 2),
        (codecs.BOM_UTF8 + b"source\ttarget\n\xb0\xa1\tb\n", 17),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_place(tmp_path: Path, content: bytes, offset: int) -> None:
    path = write(tmp_path / "a.txt", content)
    message = refusal(path)
    assert "a.txt: byte" in message
    assert "save the file as UTF-8" in message
    if b"\x00" not in content[:17] or offset in (2, 34):
        assert f"byte {offset} " in message
    with pytest.raises(DataError) as caught:
        read_text(path)
    assert str(caught.value) == message


def test_a_nul_is_named_for_no_other_encoding_would_make_it_text(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.txt", "Ada läuft, Bo\0ruht".encode()))
    assert message == (
        f"{tmp_path / 'a.txt'}: byte 14 is NUL, which no text holds; remove it (tr -d '\\000'), or save the file as UTF-8 if it is of "
        "another encoding"
    )


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    "text", ["Привет, мир\n", "中文文本，没有空格。\n", "ひらがな です\n", "नमस्ते दुनिया\n", "hello world\n", "안녕 세상\n"]
)
def test_utf_16_without_a_mark_is_known_by_its_gaps_in_any_script(tmp_path: Path, encoding: str, text: str) -> None:
    assert read_text(write(tmp_path / "a.txt", text.encode(encoding))) == text


@pytest.mark.parametrize("n_before", [0, 1])  # of two-byte units the NUL is one half or the other
@pytest.mark.parametrize("text", ["a b\nc d\n", "Ada sees Bo\n", "ein Bär läuft\n", "一只 狗\n"])
def test_a_nul_beside_a_space_makes_no_utf_16_of_a_text(tmp_path: Path, text: str, n_before: int) -> None:
    before, after = text.split(" ", 1)
    for damaged in (f"{before}\0 {after}", f"{before} \0{after}"):
        assert "is NUL, which no text holds" in refusal(write(tmp_path / "a.txt", ("x" * n_before + damaged).encode()))


def test_a_cut_or_false_gzip_file_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{n} times\t他们在跑。\n" for n in range(500)).encode())
    for content in [whole[:-20], whole[:60], b"plain text", whole[:-8] + b"\0" * 8, whole[:30] + b"\xff\xff\xff" + whole[33:]]:
        path = tmp_path / "a.txt.gz"
        path.write_bytes(content)
        assert "is cut off or no gzip file" in refusal(path)


def test_a_missing_file_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path / "words.txt", b"a\n")
    assert f"did you mean {tmp_path / 'words.txt'}?" in refusal(tmp_path / "wrods.txt")
    assert "no folder" in refusal(tmp_path / "absent" / "words.txt")
    assert "is a folder; expected a file" in refusal(tmp_path)
