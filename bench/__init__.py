"""Every speed figure that heed quotes: `heed bench NAME`, one module for each name."""

import importlib
from pathlib import Path

from heed.errors import ConfigError

NAMES = ("answering", "attention", "classifier", "language", "lengths", "memory", "plan", "quality", "saving", "scale", "start", "training")


def listing() -> list[str]:
    """Return each name with its module's first line and how it is run."""
    lines = []
    for name in NAMES:
        text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        described, _, rest = text.removeprefix('"""').partition("\n")
        usage = next(line for line in rest.splitlines() if line.startswith("Run: ")).removeprefix("Run: ")
        lines += [usage, f"    {described}"]
    return lines


def run_bench(name: str, arguments: list[str]) -> None:
    """Run one; raises ConfigError when there is none of that name."""
    if name not in NAMES:
        raise ConfigError(f"bench {name}: there is none; choose {', '.join(NAMES)}")
    importlib.import_module(f"heed.bench.{name}").main(arguments)
