"""heed: a Transformer system from a file of your own data to a trained, measured and served model."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from heed.errors import CheckpointError, ConfigError, DataError, HeedError, MissingExtra, TrainingError
    from heed.run import Run
    from heed.tasks import Answer
    from heed.verbs import train

_HOMES = {
    "train": "heed.verbs",
    "Run": "heed.run",
    "Answer": "heed.tasks",
    "HeedError": "heed.errors",
    "ConfigError": "heed.errors",
    "DataError": "heed.errors",
    "CheckpointError": "heed.errors",
    "TrainingError": "heed.errors",
    "MissingExtra": "heed.errors",
}

__all__ = ["Answer", "CheckpointError", "ConfigError", "DataError", "HeedError", "MissingExtra", "Run", "TrainingError", "load", "train"]


def load(folder: str, *, device: str = "auto", trust: bool = False) -> "Run":
    """Open a run folder, checking every file; raises CheckpointError."""
    from heed.run import Run

    return Run.load(folder, device=device, trust=trust)


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `heed --help` need not wait for torch."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'heed' has no attribute {name!r}")
