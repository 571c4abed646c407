"""Folders as data: class folders, such as IMDb as its authors publish it, and recordings with a text of the same name beside each.

A class folder holds the files of one class, and its name is the label; a `FileKind` says whether these are texts or recordings. Names
are listed before anything is read, and contents come one file at a time. Left out: folders within class folders, which are refused.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heed.data.encodings import read_text
from heed.data.rows import Row
from heed.errors import DataError
from heed.files import sha256

UNLABELLED = frozenset({"unsup"})  # beside pos and neg in IMDb: reviews that nobody has judged
SHOWN_NAMES = 3  # of what a folder holds, in messages


@dataclass(frozen=True)
class FileKind:
    """The files that stand for one kind of input.

    Attributes:
        suffixes: how their names end, in lower case.
        read: returns what a file holds; raises DataError, with the path and ": " ahead, for one that cannot be used.
    """

    suffixes: tuple[str, ...]
    read: Callable[[Path], Any]


@dataclass(frozen=True)
class ClassFolder:
    """One class: its folder, the names of its files in natural order, and how much else lies among them."""

    path: Path
    files: Sequence[str]
    n_ignored: int


def class_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that stand for classes, in natural order; hidden ones and those of `UNLABELLED` do not.

    Raises:
        DataError: the folder cannot be read.
    """
    return [folder / entry.name for entry in _entries(folder) if entry.is_dir() and entry.name not in UNLABELLED]


def list_classes(folder: Path, kind: FileKind) -> list[ClassFolder]:
    """List the files of every class.

    Raises:
        DataError: a class folder holds no file of the kind, or folders, or cannot be read.
    """
    return [_listed(path, kind) for path in class_folders(folder)]


def class_rows(classes: Iterable[ClassFolder], kind: FileKind, content: str, label: str) -> Iterator[Row]:
    """Yield the path of each file with {content: what it holds, label: its class, "file": CLASS/NAME}, or with what is wrong with it."""
    for one in classes:
        for name in one.files:
            path = one.path / name
            try:
                value = kind.read(path)
            except DataError as error:
                yield str(path), str(error).removeprefix(f"{path}: ")
            else:
                yield str(path), {content: value, label: _storable(one.path.name), "file": _storable(f"{one.path.name}/{name}")}


def list_recordings(folder: Path) -> ClassFolder:
    """List the recordings and texts in a folder at any depth, by their paths in it: in natural order, hidden ones left out.

    Raises:
        DataError: a folder cannot be read.
    """
    names = list(_within(folder))
    files = [name for name in names if name.lower().endswith((*RECORDINGS.suffixes, *TEXT_FILES.suffixes))]
    return ClassFolder(folder.absolute(), files, len(names) - len(files))


def holds_recordings(listed: ClassFolder) -> bool:
    """Tell whether a folder is one of recordings rather than of texts: one has its text beside it, or no class has texts."""
    recordings, texts = _split(listed.files)
    return bool(recordings) and (bool(recordings.keys() & texts.keys()) or not any("/" in stem for stem in texts))


def told_by_folder(listed: ClassFolder) -> bool:
    """Tell whether the name of a recording's folder says what it holds: all lie in folders of the folder, without texts beside them."""
    recordings, texts = _split(listed.files)
    return all(stem.count("/") == 1 for stem in recordings) and not any("/" in stem for stem in texts)


def recording_rows(listed: ClassFolder, audio: str, text: str) -> Iterator[Row]:
    """Yield the path of each recording with {audio: path, text: of the .txt file of the same name, "file": path in the folder}.

    In place of the columns stands what is wrong: there is no such text, it cannot be read, or there is only the text.
    """
    recordings, texts = _split(listed.files)
    for name in listed.files:
        stem, path = _stem(name), listed.path / name
        if not _is_text(name):
            yield _recording_row(listed.path, name, texts.get(stem), (audio, text))
        elif stem not in recordings:
            yield str(path), f"has no recording beside it; expected {' or '.join(path.stem + end for end in RECORDINGS.suffixes)}"


def hash_classes(classes: Iterable[ClassFolder]) -> str:
    """Return one SHA-256 for all files: over CLASS/NAME, a NUL and the SHA-256 of the content of each, in order.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for one in classes:
        for name in one.files:
            digest.update(os.fsencode(f"{one.path.name}/{name}") + b"\0" + _digest(one.path / name))
    return digest.hexdigest()


def holdings(folder: Path) -> str:
    """Say in a few words what a folder holds."""
    names = [entry.name + "/" * entry.is_dir() for entry in _entries(folder)]
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"{', '.join(names[:SHOWN_NAMES])}{more}" or "nothing"


def _recording_row(folder: Path, name: str, beside: str | None, columns: tuple[str, str]) -> Row:
    """Return the path of a recording and its columns, or of the file that is wrong and what is."""
    path = folder / name
    if beside is None:
        return str(path), f"has no text beside it; expected {path.stem}.txt with what is said"
    try:
        said = read_text(folder / beside).strip()
    except DataError as error:
        return str(folder / beside), str(error).removeprefix(f"{folder / beside}: ")
    return str(path), {columns[0]: str(path), columns[1]: said, "file": _storable(name)}


def _split(names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return recordings and texts by their names without suffix."""
    names = list(names)
    return {_stem(name): name for name in names if not _is_text(name)}, {_stem(name): name for name in names if _is_text(name)}


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _is_text(name: str) -> bool:
    return name.lower().endswith(TEXT_FILES.suffixes)


def _within(folder: Path, prefix: str = "") -> Iterator[str]:
    """Yield the paths of files in a folder and its folders, each folder's in natural order."""
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _within(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}"


def _listed(path: Path, kind: FileKind) -> ClassFolder:
    entries = _entries(path)
    inner = next((entry.name for entry in entries if entry.is_dir()), None)
    if inner is not None:
        raise DataError(
            f"{path}: holds the folder {inner}, but stands for a class, which holds files only; name the folder whose folders are the "
            f"classes, such as {path}, or move what is no class out of {path.parent}"
        )
    files = [entry.name for entry in entries if entry.name.lower().endswith(kind.suffixes)]
    if not files:
        raise DataError(
            f"{path}: holds no {' or '.join(kind.suffixes)} file but {holdings(path)}; every folder in {path.parent} stands for a "
            f"class, so fill this one or move it away"
        )
    return ClassFolder(path, files, len(entries) - len(files))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds in natural order, hidden files left out: `._0_9.txt` is a Mac's note about 0_9.txt and no text."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: _natural(entry.name))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error}); check that it is there and that you may read it") from error


def _natural(name: str) -> tuple[list[int | str], str]:
    """Return a key that puts 2 before 10; where the numbers are equal, as in 1 and 01, the name decides."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))], name


def _storable(name: str) -> str:
    """Return a name that can be written as UTF-8: of one that is no UTF-8 on disk, the strange bytes become question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")


def _digest(path: Path) -> bytes:
    try:
        return bytes.fromhex(sha256(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); check that it is there and that you may read it") from error


def _written_text(path: Path) -> str:
    """Return the text of a file; raises DataError for a blank one, too."""
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: is empty; expected text")
    return text


TEXT_FILES = FileKind((".txt",), _written_text)
RECORDINGS = FileKind((".wav", ".flac", ".ogg", ".mp3"), str)  # their paths: they are decoded by whoever needs the sound
