"""Files that are replaced whole or not at all, and what a full disk says."""

import errno
import hashlib
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

from heed.errors import DataError, TrainingError
from heed.files import encodable, explain_full_disk, parse_json, read_metrics, replacing, sha256


def test_the_new_file_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"  # until it is whole
        assert draft.parent == path.parent  # on one disk, so that the change is a rename
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def write_half(path: Path, stop: BaseException) -> None:
    with replacing(path) as draft:
        draft.write_text("half of the n")
        raise stop


@pytest.mark.parametrize("stop", [RuntimeError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("old", ["old", None])
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, stop: BaseException, old: str | None) -> None:
    path = tmp_path / "x.json"
    if old is not None:
        path.write_text(old)
    with pytest.raises(TrainingError if isinstance(stop, OSError) else type(stop)):
        write_half(path, stop)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == ([("x.json", "old")] if old else [])


def test_a_draft_that_was_never_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "x.json"):
        pass
    assert (tmp_path / "x.json").read_text() == "old"


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    OSError(errno.EFBIG, "File too large"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=repr)
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(TrainingError, match=r"x: the disk is full; .*heed train --resume") as caught, explain_full_disk(tmp_path / "x"):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "no"), SafetensorError("invalid header"), DataError("no"), KeyError("os error 28")]
)
def test_other_errors_are_passed_on_as_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, explain_full_disk(tmp_path / "x"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("content", [b"", b"heed", bytes(range(256)) * 5000])
def test_sha256_is_that_of_the_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert sha256(tmp_path / "x") == hashlib.sha256(content).hexdigest()


def test_a_file_may_be_read_by_whom_the_user_lets_read_whatever_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "x") as draft:
        draft.touch(mode=0o600)
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_lines_of_metrics_are_those_about_a_step_that_are_whole(tmp_path: Path) -> None:
    assert list(read_metrics(tmp_path)) == []
    lines = [
        '{"step": 1, "loss": 2.5}',
        "[]",
        '{"loss": 3}',
        '{"step": "2"}',
        "[" * 100_000,
        '{"step": 3, "valid": {"loss": 1}}',
        '{"step": 9, "va',
    ]
    (tmp_path / "metrics.jsonl").write_bytes("\n".join(lines).encode() + b"\xff")
    assert list(read_metrics(tmp_path)) == [{"step": 1, "loss": 2.5}, {"step": 3, "valid": {"loss": 1}}]


@pytest.mark.parametrize("text", ["läuft 好 👩", "half \ud83d, other half \udc00", "\ud83d\udc69 in two", ""])
def test_json_with_halves_of_surrogate_pairs_can_be_written_and_read_back(text: str) -> None:
    written = encodable(json.dumps(text, ensure_ascii=False)).encode()
    assert parse_json(written.decode()).encode("utf-16-le", "surrogatepass") == text.encode("utf-16-le", "surrogatepass")
    if "\ud83d" not in text:
        assert encodable(text) == text
