"""Features of speech as Whisper hears them: log-mel energies of a window of fixed length, below which silence is added.

The power spectrum of frames that are centred on their time, in bands of Slaney's mel scale of equal area; log10, at most 8 below the
window's loudest; (x + 4) / 4. Computed in float64, as heed's own features are. Source: Radford et al. 2022, section 2.2; Slaney 1998.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.nn.functional import pad

from heed.data.features import FLOOR, INT16_SCALE
from heed.errors import CheckpointError, ConfigError, DataError

TOP_HZ = 8000.0  # where the last band ends, whatever the rate
LINEAR_UP_TO = 1000.0  # Hz; below, Slaney's scale is linear with 15 mels, above logarithmic with 27 mels for a factor of 6.4
LOUDEST_TO_FLOOR = 8.0  # powers of ten
LONGEST_SECONDS = 600


@dataclass(frozen=True)
class WhisperSettings:
    """What is computed of a window.

    Attributes:
        sample_rate: samples per second.
        n_fft: samples of a frame.
        hop: samples from frame to frame.
        n_mels: bands.
        seconds: of a window, which every recording is filled up to.
    Raises:
        ConfigError: a value is out of range, or a window is no whole number of hops.
    """

    sample_rate: int = 16_000
    n_fft: int = 400
    hop: int = 160
    n_mels: int = 80
    seconds: int = 30

    def __post_init__(self) -> None:
        if self.sample_rate < 2 * TOP_HZ:
            raise ConfigError(f"task.sample_rate={self.sample_rate}: task.features=whisper needs at least {2 * TOP_HZ:.0f}")
        if not 0 < self.hop <= self.n_fft <= self.sample_rate:
            raise ConfigError(
                f"frames of {self.n_fft} samples every {self.hop} are not what task.features=whisper can be; use 25 and 10 ms"
            )
        if not 1 <= self.seconds <= LONGEST_SECONDS or self.n_samples % self.hop:
            raise ConfigError(f"task.piece_seconds={self.seconds}: task.features=whisper needs whole hops of {self.hop} samples, as 30 has")
        if not 1 <= self.n_mels <= self.n_fft:
            raise ConfigError(f"task.n_mels={self.n_mels} is not 1 to {self.n_fft}")

    @property
    def n_samples(self) -> int:
        """Samples of a window."""
        return self.sample_rate * self.seconds

    @property
    def n_frames(self) -> int:
        """Frames of a window."""
        return self.n_samples // self.hop


class _Constants(NamedTuple):
    window: Tensor  # (n_fft,)
    mel: Tensor  # (n_fft // 2 + 1, n_mels)


class WhisperFeatures:
    """What turns waves into features of whole windows; a `Part` that is saved as one JSON file."""

    kind: ClassVar[str] = "whisper_features"

    def __init__(self, settings: WhisperSettings) -> None:
        self.settings = settings
        self._by_device: dict[torch.device, _Constants] = {}

    @property
    def n_features(self) -> int:
        """Features of a frame, F."""
        return self.settings.n_mels

    @property
    def hop(self) -> int:
        """Samples from frame to frame, and in each hop of the input."""
        return self.settings.hop

    def n_frames(self, n_hops: Tensor) -> Tensor:
        """Return how many frames rows of so many hops have: all that a window has."""
        return torch.full_like(n_hops, self.settings.n_frames)

    def __call__(self, hops: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the features of waves.

        Args:
            hops: (B, T, hop), int16 or float in [-1, 1].
            mask: (B, T), True = real, all real hops before any padding; None is all real.
        Returns:
            (B, n_frames, F) float32 and its mask (B, n_frames), all True: the silence behind a recording is heard too.
        Raises:
            DataError: a recording is longer than a window.
        """
        x = self._logarithm(hops, mask)
        loudest = x.amax((1, 2), keepdim=True)
        x = (torch.maximum(x, loudest - LOUDEST_TO_FLOOR) + 4) / 4
        return x.float(), torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    def raw(self, hops: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute natural logarithms of the energies of the frames that begin in real hops, and which of them are real."""
        x = self._logarithm(hops, mask)[:, : hops.size(1)] * math.log(10)
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        return x.masked_fill(~real[:, :, None], 0).float(), real

    def _logarithm(self, hops: Tensor, mask: Tensor | None) -> Tensor:
        """Return log10 of the energies of whole windows, (B, n_frames, F) in float64."""
        _, T, hop = hops.shape
        assert hop == self.hop, f"hops of {hop} samples, expected {self.hop}"
        if self.settings.n_frames < T:
            raise DataError(
                f"a recording of {T} hops is longer than the window of {self.settings.n_frames} that task.features=whisper hears; "
                f"leave longer ones out (data.max_length={self.settings.n_frames})"
            )
        wave = (hops.double() / INT16_SCALE if hops.dtype == torch.int16 else hops.double()).flatten(1)
        if mask is not None:
            wave = wave.masked_fill(~mask.repeat_interleave(hop, dim=1), 0)
        half = self.settings.n_fft // 2
        wave = pad(wave, (0, self.settings.n_samples - wave.size(1)))
        wave = pad(wave[:, None], (half, half), mode="reflect")[:, 0]
        constants = self._on(wave.device)
        frames = wave.unfold(1, self.settings.n_fft, self.hop)[:, : self.settings.n_frames]  # the one at the end of the window is not used
        spectrum = torch.fft.rfft(frames * constants.window)  # (B, n_frames, n_bins)
        power = spectrum.real.square() + spectrum.imag.square()
        energy: Tensor = power @ constants.mel
        return energy.clamp(min=FLOOR).log10()

    def _on(self, device: torch.device) -> _Constants:
        if device not in self._by_device:
            with torch.inference_mode(False):  # what is made in it could not be differentiated through later
                window = torch.hann_window(self.settings.n_fft, periodic=True, dtype=torch.float64, device=device)
                self._by_device[device] = _Constants(window, slaney_filters(self.settings).to(device))
        return self._by_device[device]

    def to_json(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {"settings": asdict(self.settings)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build them again; raises CheckpointError."""
        try:
            if set(content) != {"settings"} or set(content["settings"]) != set(asdict(WhisperSettings())):
                raise ValueError(f"expected settings {', '.join(asdict(WhisperSettings()))}")
            return cls(TypeAdapter(WhisperSettings).validate_json(json.dumps(content["settings"]), strict=True))
        except (ValidationError, TypeError, ValueError, ConfigError) as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise CheckpointError(f"not features of speech ({found}); restore the run folder from a copy") from error


def slaney_mel(hz: float) -> float:
    """Return the mel of a frequency on Slaney's scale: 15 for 1000 Hz."""
    if hz < LINEAR_UP_TO:
        return 15 * hz / LINEAR_UP_TO
    return 15 + 27 * math.log(hz / LINEAR_UP_TO) / math.log(6.4)


def slaney_filters(settings: WhisperSettings) -> Tensor:
    """Return the weight of each frequency in each band, (n_fft // 2 + 1, n_mels), float64: triangles that are 2 / width high."""
    mels = torch.linspace(0, slaney_mel(TOP_HZ), settings.n_mels + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels / 15, 6.4 ** ((mels - 15) / 27)) * LINEAR_UP_TO
    begin, peak, end = edges[:-2], edges[1:-1], edges[2:]
    bins = torch.arange(settings.n_fft // 2 + 1, dtype=torch.float64)[:, None] * settings.sample_rate / settings.n_fft
    height = torch.minimum((bins - begin) / (peak - begin), (end - bins) / (end - peak)).clamp(min=0)
    return height * 2 / (end - begin)
