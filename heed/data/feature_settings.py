"""What is computed of a wave, and whether it can be: the settings of features of speech, and the mel bands that they ask for."""

import json
import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, get_args

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from heed.errors import ConfigError

Window = Literal["hann", "hamming"]
FeatureKind = Literal["log_mel", "mfcc"]
Normalisation = Literal["none", "utterance", "global", "running"]

USUAL_N_MFCC = 13
LARGEST_N_MELS = 512
LONGEST_FRAME_MS = 1000
LOWEST_RATE, HIGHEST_RATE = 1000, 384_000
ROUNDING_HZ = 1e-6  # of a band's ends; a frequency that lies on one has no weight
YOUNGER = frozenset({"range_db", "without_level"})  # than some runs, in which they have their defaults


@dataclass(frozen=True)
class FeatureSettings:
    """What is computed of a wave.

    Attributes:
        sample_rate: samples per second.
        frame_ms: length of a frame in milliseconds, to the nearest sample; the FFT is as long.
        hop_ms: from the start of one frame to the next, in milliseconds; a whole number of samples.
        window: what a frame is multiplied by, in its symmetric form: its ends are 0 (hann) or 0.08 (hamming).
        kind: log energies of mel bands, or their cepstrum (MFCC).
        n_mels: mel bands, triangles of height 1 at equal steps of the HTK scale.
        n_mfcc: cepstral coefficients that are kept; of mfcc only.
        lowest_hz: where the first band begins.
        highest_hz: where the last band ends; None is half the rate.
        deltas: 1 appends how fast each feature changes, 2 also how fast this does.
        zero_crossings: append the changes of sign per sample.
        spectral_entropy: append the entropy of the power spectrum, from 0 (one frequency) to 1 (all alike).
        normalise: to mean 0 and deviation 1: over the utterance, by the training data, or by what was heard so far.
        range_db: log_mel: decibels below the loudest energy of the recording, at least 1, that are told apart; what lies further below
            counts as the last of them, and every energy is told from the loudest. None tells them as they are.
        without_level: log_mel: tell the log energies of a frame from their mean, so that how loud it is plays no part.
    Raises:
        ConfigError: a value is out of range, or two do not go together.
    """

    sample_rate: int
    frame_ms: float = 25
    hop_ms: float = 10
    window: Window = "hann"
    kind: FeatureKind = "log_mel"
    n_mels: int = 80
    n_mfcc: int = USUAL_N_MFCC
    lowest_hz: float = 20
    highest_hz: float | None = None
    deltas: Literal[0, 1, 2] = 0
    zero_crossings: bool = False
    spectral_entropy: bool = False
    normalise: Normalisation = "utterance"
    range_db: float | None = None
    without_level: bool = False

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_times()
        self._check_bands()

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return round(self.sample_rate * self.hop_ms / 1000)

    @property
    def window_length(self) -> int:
        """Samples of a frame."""
        return round(self.sample_rate * self.frame_ms / 1000)

    @property
    def n_bins(self) -> int:
        """Frequencies of the spectrum."""
        return self.window_length // 2 + 1

    @property
    def top_hz(self) -> float:
        """Where the last band ends."""
        return self.sample_rate / 2 if self.highest_hz is None else self.highest_hz

    @property
    def n_static(self) -> int:
        """Features of a frame without deltas."""
        return (self.n_mels if self.kind == "log_mel" else self.n_mfcc) + self.zero_crossings + self.spectral_entropy

    @property
    def n_features(self) -> int:
        """Features of a frame, F."""
        return self.n_static * (1 + self.deltas)

    def _check_choices(self) -> None:
        choices: dict[str, tuple[Any, Any]] = {
            "window": (self.window, Window),
            "features": (self.kind, FeatureKind),
            "normalise": (self.normalise, Normalisation),
            "deltas": (self.deltas, Literal[0, 1, 2]),
        }
        for name, (value, allowed) in choices.items():
            if value not in get_args(allowed):
                raise ConfigError(f"task.{name}={value!r} is not one of {', '.join(map(str, get_args(allowed)))}")

    def _check_times(self) -> None:
        if not LOWEST_RATE <= self.sample_rate <= HIGHEST_RATE:
            raise ConfigError(f"task.sample_rate={self.sample_rate} is not {LOWEST_RATE} to {HIGHEST_RATE} samples per second")
        if not 0 < self.frame_ms <= LONGEST_FRAME_MS:
            raise ConfigError(
                f"task.frame_ms={self.frame_ms:g} is not above 0 and up to {LONGEST_FRAME_MS}; frames of speech have 20 to 30"
            )
        if not 0 < self.hop_ms <= self.frame_ms:
            raise ConfigError(
                f"task.hop_ms={self.hop_ms:g} is not above 0 and up to task.frame_ms={self.frame_ms:g}; no sample may fall between frames"
            )
        samples = self.sample_rate * self.hop_ms / 1000
        if self.hop < 1 or abs(samples - self.hop) > 1e-6:
            whole = 1000 // math.gcd(self.sample_rate, 1000)
            raise ConfigError(
                f"task.hop_ms={self.hop_ms:g} is {samples:g} samples at task.sample_rate={self.sample_rate}, not a whole number; choose a "
                f"multiple of {whole} ms, or a rate such as 16000"
            )

    def _check_bands(self) -> None:
        if not 1 <= self.n_mels <= LARGEST_N_MELS:
            raise ConfigError(f"task.n_mels={self.n_mels} is not 1 to {LARGEST_N_MELS}")
        if self.kind == "mfcc" and not 1 <= self.n_mfcc <= self.n_mels:
            raise ConfigError(f"task.n_mfcc={self.n_mfcc} is not 1 to task.n_mels={self.n_mels}, the bands they are computed from")
        if self.kind != "mfcc" and self.n_mfcc != USUAL_N_MFCC:
            raise ConfigError(f"task.n_mfcc={self.n_mfcc} would be ignored by task.features={self.kind}; leave it out or choose mfcc")
        if not 0 <= self.lowest_hz < self.top_hz <= self.sample_rate / 2:
            raise ConfigError(
                f"task.lowest_hz={self.lowest_hz:g} and task.highest_hz={self.top_hz:g} are not in order between 0 and "
                f"{self.sample_rate / 2:g} Hz, half of task.sample_rate"
            )
        bins = bin_frequencies(self.sample_rate, self.window_length)
        empty = _empty_band(bins, band_edges(self.lowest_hz, self.top_hz, self.n_mels))
        if empty is not None:
            raise ConfigError(self._too_many_bands(empty))

    def _too_many_bands(self, empty: int) -> str:
        begin, _, end = band_edges(self.lowest_hz, self.top_hz, self.n_mels)[empty : empty + 3].tolist()
        bins = bin_frequencies(self.sample_rate, self.window_length)
        enough = _most_bands(bins, self.lowest_hz, self.top_hz, self.n_mels)
        return (
            f"task.n_mels={self.n_mels} is too many: band {empty + 1}, {begin:.1f} to {end:.1f} Hz, lies between the frequencies that a "
            f"frame of {self.frame_ms:g} ms tells apart (every {self.sample_rate / self.window_length:g} Hz); "
            + (f"lower it to {enough}, or raise task.frame_ms" if enough else "raise task.frame_ms")
        )


def read_settings(content: Any) -> FeatureSettings:
    """Build settings from a part file; raises ValueError, TypeError or ConfigError."""
    odd = set(content) ^ {field.name for field in fields(FeatureSettings)}
    if odd - YOUNGER:
        raise ValueError(f"settings that are missing or unknown: {', '.join(sorted(map(str, odd)))}")
    try:
        return _settings_reader().validate_json(json.dumps(content), strict=True)  # strict Python values would have to be settings already
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}={first['input']!r}: {first['msg']}") from error


@cache
def _settings_reader() -> TypeAdapter[FeatureSettings]:
    return TypeAdapter(FeatureSettings)


def mel_of_hz(hz: float) -> float:
    """Return the mel of a frequency on HTK's scale: 2595 log10(1 + f / 700), 999.99 for 1000 Hz."""
    return 2595 * math.log10(1 + hz / 700)


def band_edges(lowest_hz: float, top_hz: float, n_mels: int) -> Tensor:
    """Return where mel bands begin, peak and end, in Hz, (n_mels + 2,): band i has the edges i, i + 1 and i + 2."""
    mels = torch.linspace(mel_of_hz(lowest_hz), mel_of_hz(top_hz), n_mels + 2, dtype=torch.float64)
    return 700 * (10 ** (mels / 2595) - 1)


def bin_frequencies(sample_rate: int, window_length: int) -> Tensor:
    """Return the frequencies of the spectrum in Hz, (n_bins,)."""
    return torch.arange(window_length // 2 + 1, dtype=torch.float64) * sample_rate / window_length


def _empty_band(bins: Tensor, edges: Tensor) -> int | None:
    """Return the first band, from 0, in which no frequency of the spectrum lies."""
    held = torch.searchsorted(bins, edges[2:] - ROUNDING_HZ) - torch.searchsorted(bins, edges[:-2] + ROUNDING_HZ)
    empty = (held <= 0).nonzero()
    return int(empty[0]) if len(empty) else None


def _most_bands(bins: Tensor, lowest_hz: float, top_hz: float, limit: int) -> int:
    """Return the largest number of bands up to a limit of which none is empty; 0 when there is none."""
    return next((n for n in range(limit, 0, -1) if _empty_band(bins, band_edges(lowest_hz, top_hz, n)) is None), 0)
