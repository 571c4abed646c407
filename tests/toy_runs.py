"""Fixtures for everything that needs data or a trained run: a language of a dozen words, and models that learn it in a second.

A pytest plugin, loaded by the modules that use it, so that they share one trained run. They also import from it, before pytest could
rewrite it, hence: PYTEST_DONT_REWRITE.
"""

import json
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import heed
from heed import cli
from heed.config import dump_yaml, merge, read_yaml
from heed.run import Run, write_manifest

WORDS = {
    "the": "der",
    "one": "ein",
    "dog": "Hund",
    "cat": "Katze",
    "man": "Mann",
    "tree": "Baum",
    "sees": "sieht",
    "finds": "findet",
    "likes": "mag",
    "big": "groß",
    "small": "klein",
    "old": "alt",
}
DECISIVE = {"red": "warm", "blue": "cold", "grey": "plain"}  # words that decide the label of a text, which no other text holds
TINY: dict[str, Any] = {
    "task": {"name": "translation", "vocab_size": 300},
    "model": {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24, "dropout": 0.1},
    "train": {"steps": 12, "batch_tokens": 250, "warmup": 4, "precision": "float32", "tensorboard": False, "log_every": 1},
    "decode": {"beams": 2, "max_length": 30, "precision": "float32"},
}
TINY_TEXTS: dict[str, Any] = {
    "task": {"name": "text_classification", "tokens": "words", "vocab_size": 300},
    "model": {"d_model": 16, "n_heads": 2, "n_layers": 1, "d_ff": 24, "dropout": 0.0},
    "train": {"steps": 3, "batch_tokens": 120, "lr": 0.02, "warmup": 2, "precision": "float32", "tensorboard": False, "log_every": 1},
    "decode": {"precision": "float32"},
}


def toy_pairs(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return sentences of unequal length, translated word by word."""
    draw = random.Random(seed)
    sentences = [draw.choices(list(WORDS), k=draw.randint(1, 7)) for _ in range(n)]
    return [{"source": " ".join(words), "target": " ".join(WORDS[word] for word in words)} for words in sentences]


def write_pairs(path: Path, pairs: Sequence[dict[str, str]]) -> Path:
    """Write pairs as TSV with a header."""
    rows = ["source\ttarget", *(f"{pair['source']}\t{pair['target']}" for pair in pairs)]
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def toy_texts(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Return different texts of unequal length, in the order of their labels again and again; one word of a text decides its label."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < n:
        decisive = list(DECISIVE)[len(found) % len(DECISIVE)]
        words = draw.choices(list(WORDS), k=draw.randint(1, 7))
        words[draw.randrange(len(words))] = decisive
        found[" ".join(words)] = DECISIVE[decisive]
    return [{"text": text, "label": label} for text, label in found.items()]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows of any columns as TSV with a header; of a list, texts stand with "|" between them, anything else as JSON."""
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _cell(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return "|".join(value) if all(isinstance(one, str) for one in value) else json.dumps(value, ensure_ascii=False)


class Census:
    """Counts the examples that are held in memory at once."""

    def __init__(self) -> None:
        self.alive = self.most = 0

    def counted(self, example: dict[str, Any]) -> dict[str, Any]:
        """Return the example as one that is counted for as long as anything holds it."""
        self.alive += 1
        self.most = max(self.most, self.alive)
        return _Counted(example, self)


class _Counted(dict[str, Any]):
    def __init__(self, example: dict[str, Any], census: Census) -> None:
        super().__init__(example)
        self.census = census

    def __del__(self) -> None:
        self.census.alive -= 1


def as_arguments(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Return nested settings as key=value, but for the name of the task."""
    pairs: list[str] = []
    for key, value in settings.items():
        if isinstance(value, dict):
            pairs += as_arguments(value, f"{prefix}{key}.")
        elif prefix + key != "task.name":
            pairs.append(f"{prefix}{key}={str(value).lower() if isinstance(value, bool) else value}")
    return pairs


@dataclass(frozen=True)
class ToyData:
    """Files of the toy language."""

    train: Path
    valid: Path
    test: Path

    @property
    def both(self) -> dict[str, str]:
        """Settings for training and validation."""
        return {"train": str(self.train), "valid": str(self.valid)}


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> ToyData:
    """Write 200 training, 30 validation and 12 test pairs."""
    folder = tmp_path_factory.mktemp("toy")
    files = [write_pairs(folder / f"{name}.tsv", toy_pairs(n, n)) for name, n in (("train", 200), ("valid", 30), ("test", 12))]
    return ToyData(*files)


Train = Callable[..., Run]


@pytest.fixture
def train(toy_data: ToyData, tmp_path: Path) -> Train:
    """Return a function that trains a tiny model on the toy data, with settings laid over TINY, into `tmp_path / name`."""

    def make(name: str = "run", *, force: bool = False, **settings: Any) -> Run:
        data = {"data": {"train": str(toy_data.train)}}
        return heed.train(merge(TINY, data), to=tmp_path / name, force=force, quiet=True, **settings)

    return make


@pytest.fixture(scope="session")
def toy_run(toy_data: ToyData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that knows some of the toy language; tests leave it as it is."""
    settings = merge(TINY, {"data": toy_data.both, "train": {"steps": 250, "lr": 0.02, "evaluate_every": 125}})
    return heed.train(settings, to=tmp_path_factory.mktemp("runs") / "toy", quiet=True)


@pytest.fixture(scope="session")
def pair_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that judges two texts together; tests leave it as it is."""
    folder, texts = tmp_path_factory.mktemp("pairs"), toy_texts(60)
    rows = [{"text": one["text"], "text_pair": other["text"], "label": one["label"]} for one, other in zip(texts, texts[::-1], strict=True)]
    files = {name: str(write_rows(folder / f"{name}.tsv", some)) for name, some in (("train", rows[:45]), ("valid", rows[45:]))}
    return heed.train({**TINY_TEXTS, "data": files}, to=folder / "run", quiet=True)


@pytest.fixture
def run_copy(toy_run: Run, tmp_path: Path) -> Path:
    """Return a copy of the toy run's folder that a test may spoil."""
    return shutil.copytree(toy_run.folder, tmp_path / "copied run")


def edit_config(folder: Path, **changes: Any) -> None:
    """Change config.yaml and bind it again, as somebody might by hand."""
    content = merge(read_yaml(folder / "config.yaml"), changes)
    (folder / "config.yaml").write_text(dump_yaml(content), encoding="utf-8")
    write_manifest(folder)


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of a user's error; asserts that it is one line, the last, and that nothing was answered."""
        assert self.code == 1, self
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("heed: ")]
        assert len(lines) == 1, self.err
        assert self.err.rstrip("\n").splitlines()[-1] == lines[0]
        return lines[0]


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Return a function that runs the command line in this process."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["heed", *map(str, arguments)])
        capsys.readouterr()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            with pytest.raises(SystemExit) as stop:
                cli.main()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)  # at once: pytest's own output may be going to a file
        captured = capsys.readouterr()
        code = stop.value.code
        return Outcome(code if isinstance(code, int) else 0, captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, before)
