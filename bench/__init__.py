"""Every speed figure that heed quotes: `heed bench NAME`, one module for each name."""

import importlib
import shlex
from pathlib import Path

from heed.errors import ConfigError

NAMES = (
    "answering",
    "attention",
    "classifier",
    "language",
    "lengths",
    "live",
    "memory",
    "plan",
    "quality",
    "saving",
    "scale",
    "speech",
    "start",
    "training",
)


def listing() -> list[str]:
    """Return each name with its module's first line and how it is run."""
    return [line for name in NAMES for line in (_described(name)[0], f"    {_described(name)[1]}")]


def explained(name: str) -> str:
    """Return what is said of a bench at its beginning: what it measures, and how it is run; raises ConfigError when there is none."""
    return _text(name).removeprefix('"""').partition('"""')[0].strip()


def _described(name: str) -> tuple[str, str]:
    """Return how a bench is run, and what it measures."""
    what, _, rest = _text(name).removeprefix('"""').partition("\n")
    return next(line for line in rest.splitlines() if line.startswith("Run: ")).removeprefix("Run: "), what


def _text(name: str) -> str:
    """Return the source of a bench; raises ConfigError when there is none of that name."""
    if name not in NAMES:
        raise ConfigError(f"bench {name}: there is none; choose {', '.join(NAMES)}")
    return (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")


def run_bench(name: str, arguments: list[str]) -> None:
    """Run one; raises ConfigError when there is none of that name, or too little was said."""
    usage, _ = _described(name)
    needed = len(shlex.split(usage.partition("[")[0])) - len(["heed", "bench", name])
    if len(arguments) < needed:
        raise ConfigError(f"bench {name}: expected {usage}")
    importlib.import_module(f"heed.bench.{name}").main(arguments)
