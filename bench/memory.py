"""Peak memory of training on parallel text, and on ten slightly different copies of it.

Run: heed bench memory "DIR/train.{en,de}"
"""

import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import sys, resource
from pathlib import Path
from heed.training.train import fit_recipe
fit_recipe("translation", {"data": {"train": sys.argv[1]}, "train": {"steps": 5}}, Path(sys.argv[2]), force=False, quiet=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mib(source: str, folder: Path) -> int:
    """Train five steps in a fresh process and return its peak resident memory."""
    done = subprocess.run([sys.executable, "-c", CHILD, source, str(folder)], check=True, capture_output=True, text=True)
    return int(done.stdout)


def main(arguments: list[str]) -> None:
    """Measure and print."""
    source = arguments[0]
    stem, _, suffixes = source.rpartition(".")
    languages = suffixes.strip("{}").split(",")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for language in languages:
            lines = Path(f"{stem}.{language}").read_text(encoding="utf-8").splitlines()
            copies = (f"{line} {copy}" for copy in range(10) for line in lines)
            (folder / f"large.{language}").write_text("".join(f"{line}\n" for line in copies), encoding="utf-8")
        small = peak_mib(source, folder / "small")
        large = peak_mib(f"{folder}/large.{suffixes}", folder / "run")
    print(f"peak memory: {small} MiB, ten times the data: {large} MiB ({large / small - 1:+.1%})")
