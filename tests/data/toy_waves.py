"""What the tests of features share: small waves, settings for them, and features that are fitted to some."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from heed.data.feature_settings import FeatureSettings
from heed.data.features import Features, FeatureStream

RATE = 16_000
PLAIN = FeatureSettings(RATE, normalise="none")
# Small and odd: 8 bands of 100 samples that hop by 40, at a rate of 4 kHz.
SMALL = FeatureSettings(4000, n_mels=8, lowest_hz=50, normalise="none")
RICH = replace(SMALL, kind="mfcc", n_mfcc=5, deltas=2, zero_crossings=True, spectral_entropy=True)


def tone(hz: float, n: int = RATE, rate: int = RATE, size: float = 0.9) -> np.ndarray[Any, Any]:
    return size * np.sin(2 * np.pi * hz * np.arange(n) / rate + 0.1)


def int16(wave: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.round(wave * 32767).astype(np.int16)


def noise(n: int, seed: int = 0, size: float = 0.1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0, size, n)


def hops_of(wave: np.ndarray[Any, Any], hop: int) -> torch.Tensor:
    """Cut a wave into hops (1, T, hop), the last filled up with zeros: a definition of its own."""
    T = math.ceil(len(wave) / hop)
    hops = np.zeros((T, hop), dtype=wave.dtype)
    hops.reshape(-1)[: len(wave)] = wave
    return torch.tensor(hops)[None]


def raw(settings: FeatureSettings, wave: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x, mask = Features(replace(settings, normalise="none"))(hops_of(wave, settings.hop))
    assert mask.all()
    return x[0].numpy()


def close(found: Any, expected: Any, limit: float) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= limit


def streamed(part: Features, wave: torch.Tensor, cuts: list[int]) -> list[torch.Tensor]:
    stream = FeatureStream(part)
    return [*(stream.push(wave[begin:end]) for begin, end in pairwise([0, *sorted(cuts), len(wave)])), stream.finish()]


STREAMED = [replace(base, normalise=normalise) for base in (SMALL, RICH) for normalise in ("none", "global", "running")]
FITTED = [Features.fit(settings, [noise(4000, seed=3)]) for settings in STREAMED]
