"""Recordings that a tiny model learns to read in seconds: every letter is a tone of its own, with silence between.

Imported by test modules before pytest could rewrite it, hence: PYTEST_DONT_REWRITE.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 2000  # samples a second
TONES = {"a": 200.0, "b": 350.0, "c": 550.0, "d": 800.0}  # hertz
TONE_SECONDS, GAP_SECONDS = 0.08, 0.06
SETTINGS: dict[str, Any] = {
    "n_mels": 12,
    "speed": 0.0,
    "volume_db": 0.0,
    "silence_share": 0.0,
    "quiet_seconds": 0.0,
    "frequency_masks": 0,
    "time_masks": 0,
}
MODEL: dict[str, Any] = {"d_model": 32, "n_heads": 2, "n_layers": 1, "d_ff": 48, "dropout": 0.0, "kernel_size": 5, "subsampling": 2}


def tones(text: str, *, noise: float = 0.01, seed: int = 0) -> NDArray[np.float32]:
    """Return a text as sound (n,); a space is a longer silence."""
    gap = np.zeros(round(GAP_SECONDS * RATE))
    time = np.arange(round(TONE_SECONDS * RATE)) / RATE
    parts = [gap]
    for letter in text:
        parts += [0.5 * np.sin(2 * np.pi * TONES[letter] * time) if letter != " " else np.zeros(len(time)), gap]
    wave = np.concatenate([*parts, gap])
    return np.asarray(wave + noise * np.random.default_rng(seed).standard_normal(len(wave)), np.float32)


def texts(n: int, seed: int = 0) -> list[str]:
    """Return different texts of one to three words."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < n:
        found[" ".join("".join(draw.choices("abcd", k=draw.randint(1, 3))) for _ in range(draw.randint(1, 3)))] = None
    return list(found)


def write_recordings(folder: Path, n: int, seed: int = 0) -> list[dict[str, str]]:
    """Write recordings; return a row for each, with its absolute path and its text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, text in enumerate(texts(n, seed)):
        path = folder / f"{number}.wav"
        soundfile.write(path, tones(text, seed=number), RATE, subtype="PCM_16")
        rows.append({"audio": str(path), "text": text})
    return rows


def write_manifest(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Write rows as TSV with a header."""
    lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path
