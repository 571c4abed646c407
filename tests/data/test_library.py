"""The built-in corpus of text generation: source as it stands, split by name, and functions told from what is none."""

import ast
import inspect
import json
import sysconfig
from pathlib import Path

import pytest

from heed.data import library
from heed.data.library import PERCENT, first_function, library_documents, library_files, parses, split_of, write_library
from heed.errors import DataError

ROOT = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_library(tmp_path_factory.mktemp("library"))


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_documents_are_files_of_the_library_to_the_byte(paths: dict[str, Path]) -> None:
    for path in paths.values():
        for row in rows(path):
            assert row["text"].encode() == (ROOT / row["file"]).read_bytes()


def test_no_file_stands_in_two_splits_and_every_split_is_of_its_size(paths: dict[str, Path]) -> None:
    names = {split: {row["file"] for row in rows(path)} for split, path in paths.items()}
    assert names.keys() == PERCENT.keys()
    assert sum(map(len, names.values())) == len(set().union(*names.values()))
    n_files = len(library_files(ROOT))
    for split, found in names.items():
        expected = PERCENT[split] / 100 * n_files
        assert abs(len(found) - expected) < 4 * expected**0.5 + 0.05 * n_files  # empty files are left out


def test_what_others_wrote_or_programs_did_is_left_out() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in library_files(ROOT)}
    assert {"ast.py", "json/decoder.py", "textwrap.py"} <= names
    assert not any(name.startswith(("test/", "site-packages/", "encodings/", "idlelib/", "_sysconfigdata")) for name in names)


def test_which_split_a_file_belongs_to_hangs_on_its_name_alone() -> None:
    splits = [split_of(f"{n}.py") for n in range(5000)]
    for split, percent in PERCENT.items():
        assert abs(splits.count(split) / 5000 - percent / 100) < 0.02
    assert None in splits


def test_files_without_text_or_in_another_encoding_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LEAST_BYTES", 1)
    for n in range(400):
        (tmp_path / f"m{n}.py").write_text(f"x = {n}\n")
    train = sorted(f"m{n}.py" for n in range(400) if split_of(f"m{n}.py") == "train")
    (tmp_path / train[0]).write_bytes(b"# \xe4\n")
    (tmp_path / train[1]).write_text(" \n")
    assert [row["file"] for row in library_documents(tmp_path)["train"]] == train[2:]


def test_a_python_without_its_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "os.py").write_text("x = 1\n")
    with pytest.raises(DataError, match=r"\d+ bytes of Python source .*own: heed train text_generation"):
        write_library(tmp_path / "data", tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose a folder you may write to"):
        write_library(tmp_path / "file" / "data")


def test_a_function_ends_at_a_blank_line_outside_of_its_docstring() -> None:
    function = 'def f(x):\n    """Say.\n\n    More.\n    """\n    return """a""" + x'
    assert first_function(function + "\n\ndef g(): pass") == function
    assert first_function(function) == function
    assert first_function('def f():\n    """never closed\n\nx') == 'def f():\n    """never closed\n\nx'


@pytest.mark.parametrize("indent", ["", "    "])
def test_what_parses_is_what_python_takes_for_source_however_far_it_is_indented(indent: str) -> None:
    source = inspect.getsource(first_function)
    ast.parse(source)
    assert parses("\n".join(indent + line for line in source.split("\n")))
    for wrong in ("def f(:\n    pass", "def f():", "def f():\nreturn", '"""', "x = (", "\0", "def f():\n    return 1\n  return 2"):
        assert not parses(indent + wrong)
    assert parses("x = '\\d'")  # of which Python warns
