"""What makes a folder a run: the hashes that bind its files together, and how a new one comes to be without harm to what was there."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from heed.adapters import DESCRIPTION, NUMBERS
from heed.errors import CheckpointError, ConfigError
from heed.files import held, parse_json, replacing, sha256

FORMAT = 2  # of the run folder; 1 turned other pairs of features by rotary positions


def write_manifest(folder: Path) -> None:
    """Write the SHA-256 of every file that answering needs."""
    hashes = {str(path.relative_to(folder)): sha256(path) for path in _bound_files(folder)}
    with replacing(folder / "manifest.json") as draft:
        draft.write_text(json.dumps({"format": FORMAT, "sha256": hashes}, indent=1), encoding="utf-8")


def _bound_files(folder: Path) -> list[Path]:
    adapters = [path for name in (DESCRIPTION, NUMBERS) if (path := folder / name).is_file()]
    return [folder / "config.yaml", *sorted((folder / "parts").glob("*.json")), folder / "model.safetensors", *adapters]


def verify(folder: Path) -> None:
    """Check every file of a run folder against manifest.json; raises CheckpointError naming the first that differs."""
    if not (folder / "config.yaml").is_file():
        raise no_run(folder)
    manifest = folder / "manifest.json"
    if (folder / NUMBERS).is_file() and not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder}: holds adapters and no weights; make a run of them: heed import {folder} --base OTHER --to RUN")
    if not manifest.is_file():
        raise CheckpointError(
            f"{folder}: training has not written its first weights yet (no manifest.json); try heed train --resume {folder}"
        )
    hashes = _read_manifest(manifest)
    for path in (folder / "parts", manifest, *_bound_files(folder)):
        if path.is_symlink():
            raise CheckpointError(f"{path}: is a symbolic link, which may lead anywhere; put the file itself there")
    present = {str(path.relative_to(folder)) for path in _bound_files(folder)}
    if set(hashes) != present:
        raise CheckpointError(f"{folder}: manifest.json lists {sorted(hashes)}, the folder has {sorted(present)}; restore it from a copy")
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            raise CheckpointError(
                f"{path}: was changed or damaged after training (its SHA-256 differs from manifest.json); restore it from a copy"
            )


def _read_manifest(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each file by its name; raises CheckpointError."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        hashes, version = dict(content["sha256"]), content["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error!r}); restore it from a copy") from error
    if version != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}, found {version!r}; restore it from a copy")
    return hashes


def no_run(folder: Path) -> CheckpointError:
    """Return the error about a folder that is no run."""
    foreign = (folder / "config.json").is_file()
    hint = f"make a run of it first: heed import {folder} --to RUN" if foreign else "expected what heed train --to wrote"
    return CheckpointError(f"{folder}: not a run folder (no config.yaml); {hint}")


def _is_replaceable(folder: Path, *, force: bool) -> bool:
    """Return whether a run is there that may go; raises ConfigError when what is there has to stay."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    is_run = (folder / "config.yaml").is_file()
    if not force:
        way_out = ", or say --force to replace it" if is_run else ""
        raise ConfigError(f"{folder}: exists already and is never overwritten; choose another --to{way_out}")
    if not is_run:
        raise ConfigError(f"{folder}: is not a run folder, so --force does not delete it; choose another --to")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{folder}: is the folder you are in, or holds it, so it cannot be replaced; go to another, or choose another --to"
        )
    return True


@contextmanager
def new_folder(folder: Path, *, force: bool) -> Iterator[Callable[[], None]]:
    """Make an empty folder for a run, and yield what to call when it is worth keeping.

    An error before that call removes the folder and brings back the run it was to replace.

    Raises:
        ConfigError: something is there already and may not go, or no folder can be made there.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.replaced") if _is_replaceable(folder, force=force) else None
    if aside is not None:
        with held(folder):  # a run that is being trained is not pulled away from under its process
            os.replace(folder, aside)
    kept = False

    def keep() -> None:
        nonlocal kept
        kept = True
        if aside is not None:
            shutil.rmtree(aside)

    try:
        _make(folder)
        yield keep
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
            if aside is not None:
                os.replace(aside, folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: no folder can be made there ({error.strerror}); choose another --to") from error
