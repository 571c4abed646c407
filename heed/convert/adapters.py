"""Adapters on their own: out of a run that keeps them apart (`lora.merge=false`), and onto the run that they were learned beside.

A folder of them holds what they add to that run: its settings, the parts of its task, and some numbers. Weights it has none.
"""

import shutil
from pathlib import Path

from heed.adapters import DESCRIPTION, NUMBERS, Adapters
from heed.convert.exporting import check_free
from heed.errors import CheckpointError, ConfigError
from heed.files import explain_full_disk, sha256
from heed.run import Run, new_folder, verify, write_manifest

FILES = ("config.yaml", DESCRIPTION, NUMBERS)


def export_adapters(source: str | Path, to: str | Path) -> list[str]:
    """Write the adapters of a run to a folder of their own, and return what a person wants to know as lines.

    Raises:
        CheckpointError: the run folder is missing or not whole.
        ConfigError: the run has no adapters that stand apart, or the folder is there already.
    """
    to = Path(to)
    check_free(to)
    run = Run.load(source, device="cpu")
    if not (run.folder / NUMBERS).is_file():
        raise ConfigError(f"{run.folder}: keeps no adapters apart; train with init=RUN lora.rank=8 lora.merge=false")
    _copy(run.folder, to)
    n_bytes, base = (to / NUMBERS).stat().st_size, Adapters.read(to).base_sha256
    return [f"{to}: {n_bytes:,} bytes of adapters; they belong to weights whose SHA-256 begins with {base[:12]}"]


def import_adapters(source: str | Path, to: str | Path, *, base: str | Path, force: bool = False) -> Run:
    """Make a run of adapters and of the run that they were learned beside.

    Args:
        source: what `export_adapters` wrote; base: the other run's folder; to: the folder to make.
        force: replace a run folder that is there.
    Raises:
        CheckpointError: a folder is not whole.
        ConfigError: the adapters were learned beside other weights, or something is in the way.
    """
    source, base, to = Path(source), Path(base), Path(to)
    _check_there(source)
    verify(base)
    expected, found = Adapters.read(source).base_sha256, sha256(base / "model.safetensors")
    if found != expected:
        raise ConfigError(
            f"{base}: the adapters of {source} belong to weights with the SHA-256 {expected[:12]}..., found {found[:12]}...; "
            "name the run that they were learned beside"
        )
    with new_folder(to, force=force) as keep, explain_full_disk(to):
        _fill(source, to)
        shutil.copyfile(base / "model.safetensors", to / "model.safetensors")
        write_manifest(to)
        run = _loaded(source, to)
        keep()
    return run


def _loaded(source: Path, to: Path) -> Run:
    """Load the run that adapters were made into; an error says where they came from, for that run will not stay."""
    try:
        return Run.load(to, device="cpu")
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{source}/{str(error).removeprefix(f'{to}/')}") from error


def _check_there(source: Path) -> None:
    """Raise ConfigError where a folder is none of adapters."""
    for name in FILES:
        if not (source / name).is_file():
            raise ConfigError(f"{source}: has no {name}; expected what heed export --format lora wrote")


def _copy(source: Path, to: Path) -> None:
    with new_folder(to, force=False) as keep, explain_full_disk(to):
        _fill(source, to)
        keep()


def _fill(source: Path, to: Path) -> None:
    """Copy what adapters add."""
    for name in FILES:
        shutil.copyfile(source / name, to / name)
    (to / "parts").mkdir()
    for path in sorted((source / "parts").glob("*.json")):
        shutil.copyfile(path, to / "parts" / path.name)
