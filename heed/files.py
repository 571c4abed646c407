"""Writing files so that a reader finds the old one or the new one whole, never half; and hashing them."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from heed.errors import TrainingError


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encodable(text: str) -> str:
    """Return a text that can be written: halves of surrogate pairs, which UTF-8 cannot hold, as \\ud83d, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def parse_json(text: str) -> Any:
    """Return what a JSON text says; raises ValueError for anything else, and for one that is nested too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_metrics(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of metrics.jsonl that are about a step; those torn by a crash are passed over, for training writes them again."""
    path = folder / "metrics.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from (line for line in map(_object, file) if isinstance(line.get("step"), int | float))


def _object(line: str) -> dict[str, Any]:
    """Return the JSON object on a line; an empty one for anything else."""
    try:
        content = parse_json(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a draft path beside `path`; on success it is flushed to disk and takes the place of `path`.

    Raises:
        TrainingError: the disk is full; the old file is untouched.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with explain_full_disk(path):
            draft.touch()
            mode = draft.stat().st_mode
            draft.unlink()  # so that a block that writes nothing fails instead of emptying the file
            yield draft
            draft.chmod(mode)  # safetensors makes files that nobody else may read
            flush(draft)
            os.replace(draft, path)
            flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run folder against other processes that would write into it; it is let go when the process ends, however it ends.

    Raises:
        TrainingError: another process holds it.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.seek(0)
                raise TrainingError(
                    f"{folder}: process {file.read() or 'unknown'} is training in this folder; wait for it, or choose another folder"
                ) from error
            # Some network file systems know no locks; two processes there are the user's to keep apart.
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def flush(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn the errors of a full disk into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise full_disk(path) from error
        raise
    except Exception as error:  # safetensors reports a failed write as its own exception, with the system's words in it
        if type(error).__module__.startswith("safetensors") and ("os error 28" in str(error) or "os error 27" in str(error)):
            raise full_disk(path) from error
        raise


def full_disk(path: Path) -> TrainingError:
    """Return the error that tells what to do about a full disk."""
    return TrainingError(
        f"{path}: the disk is full; what was whole before still is. Free some space and try again; a run that has begun goes on with: "
        f"heed train --resume RUN"
    )
