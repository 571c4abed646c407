"""Runs that have learned to write down tones, and what the tests of speech recognition ask of them.

Imported by test modules before pytest could rewrite it, hence: PYTEST_DONT_REWRITE.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toy_recordings import MODEL, RATE, SETTINGS, texts, tones, write_manifest, write_recordings

import heed
from heed.run import Run, resolve
from heed.tasks.base import Answer
from heed.tasks.speech_recognition import SpeechRecognition

TRAIN: dict[str, Any] = {
    "lr": 0.01,
    "warmup": 10,
    "precision": "float32",
    "tensorboard": False,
    "batch_tokens": 1500,
    "label_smoothing": 0.0,
}
EXACT = {"beams": 1, "precision": "float32"}


def trained(folder: Path, steps: int = 150, **task: Any) -> Run:
    rows = write_recordings(folder / "recordings", 48)
    train = write_manifest(folder / "train.tsv", rows)
    recipe = {
        "task": {"name": "speech_recognition", **SETTINGS, **task},
        "data": {"train": str(train), "valid": str(train), "allow_leaks": True},
        "model": {**MODEL, **({"chunk": 4, "left_chunks": 2} if task.get("streaming") else {})},
        "train": {**TRAIN, "steps": steps, "evaluate_every": steps},
        "decode": EXACT,
    }
    return heed.train(recipe, to=folder / "run", quiet=True)


@pytest.fixture(scope="session")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("ctc"))


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("joint"), objective="joint")


@pytest.fixture(scope="session")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("streaming"), streaming=True, silence_share=0.1)


def recordings(n: int = 6) -> list[dict[str, Any]]:
    return [{"audio": tones(text, seed=90 + i), "sample_rate": RATE, "text": text} for i, text in enumerate(texts(n, seed=5))]


def answers(run: Run, examples: Sequence[dict[str, Any]], **options: Any) -> list[Answer]:
    found = run.predict(list(examples), **options)
    assert isinstance(found, list)
    return found


def build(rows: Sequence[dict[str, Any]], **settings: Any) -> SpeechRecognition:
    """Return a task whose parts are fitted to rows."""
    task = resolve({"task": {"name": "speech_recognition", **SETTINGS, **settings}}).build_task()
    assert isinstance(task, SpeechRecognition)
    task.settle(rows[0])
    task.prepare(rows)
    task.prepare_own(rows)
    return task
