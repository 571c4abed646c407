"""Features of speech: short frames of a wave as log-mel energies or MFCCs, offline and as a stream.

Everything is computed in float64 on the device of the samples, whatever autocast says, and given as float32. The rounding of an FFT in
float32 is 1e-7 of the loudest frequency, which in the gaps beside a clean tone moves log energies by 0.05; in float64 by nothing, for
some 10 ms more per minute of audio on one core. Left out: pitch, and frames centred on their time (a window lies wholly in the samples).
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from heed.data.feature_settings import FeatureSettings, band_edges, bin_frequencies, read_settings
from heed.errors import CheckpointError, ConfigError, DataError

FLOOR = 1e-10  # of energies, before their logarithm: below the rounding of 16 bits (1e-8), so that only digital silence comes to lie on it
INT16_SCALE = 32768
DELTA_REACH = 2  # frames on either side that a delta is fitted to
PRIOR_FRAMES = 100  # frames for which the global statistics count when running ones begin: a second at the default hop
SMALLEST_DEVIATION = 1e-3  # divided by at least: what never changes (silence) stays near 0 and is not blown up
# Frames whose spectra are computed at once: 512 fit the cache of a CPU core; more keep a GPU busy, and memory bounded for an hour.
FRAMES_AT_ONCE = {"cpu": 1 << 9}
FRAMES_AT_ONCE_ELSEWHERE = 1 << 16


def window_values(settings: FeatureSettings) -> Tensor:
    """Return the window (W,), float64: a - (1 - a) cos(2 pi n / (W - 1)) with a = 0.5 (hann) or 0.54 (hamming)."""
    make = {"hann": torch.hann_window, "hamming": torch.hamming_window}[settings.window]
    return make(settings.window_length, periodic=False, dtype=torch.float64)


def mel_filters(settings: FeatureSettings) -> Tensor:
    """Return the weight of each frequency of the spectrum in each band, (n_bins, n_mels), float64; at most 1."""
    edges = band_edges(settings.lowest_hz, settings.top_hz, settings.n_mels)
    begin, peak, end = edges[:-2], edges[1:-1], edges[2:]
    bins = bin_frequencies(settings.sample_rate, settings.window_length)[:, None]
    return torch.minimum((bins - begin) / (peak - begin), (end - bins) / (end - peak)).clamp(min=0)


def cosines(n: int, n_kept: int) -> Tensor:
    """Return the first columns of the orthonormal DCT-II, (n, n_kept), float64: s_k cos(pi k (2 i + 1) / (2 n)), s_0^2 = 1/n, else 2/n."""
    angles = torch.outer(2 * torch.arange(n, dtype=torch.float64) + 1, torch.arange(n_kept, dtype=torch.float64)) * (math.pi / (2 * n))
    scale = torch.full((n_kept,), math.sqrt(2 / n), dtype=torch.float64)
    scale[0] = math.sqrt(1 / n)
    return angles.cos() * scale


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of each feature, F of each, over a number of frames."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    frames: int


class _Constants(NamedTuple):
    """What is multiplied with, on one device, float64; `mean` and `deviation` change nothing where there are no statistics."""

    window: Tensor  # (W,)
    mel: Tensor  # (n_bins, n_mels)
    dct: Tensor | None  # (n_mels, n_mfcc)
    mean: Tensor  # (F,)
    deviation: Tensor  # (F,)


class _Sums(NamedTuple):
    """What running normalisation has heard: frames, and over them the sums of x - mean and of its square, (B, F) each."""

    frames: int
    total: Tensor
    squares: Tensor


class Features:
    """What turns waves into features; a `Part` that is saved as one JSON file.

    A frame holds log energies or cepstral coefficients, then the zero-crossing rate and the spectral entropy if wanted, then the deltas
    of all of these, then the deltas of the deltas. Its numbers are:

    - energies: the power spectrum |rfft(frame * window)|^2, summed in triangles; log(max(energy, FLOOR)).
    - cepstrum: the orthonormal DCT-II of the log energies.
    - zero-crossing rate: neighbours of different sign (0 is positive) in a frame, divided by its samples.
    - spectral entropy: -sum p ln p / ln(n_bins) of p, the power spectrum (at least FLOOR) divided by its sum; 1 for silence.
    - deltas: sum_k k (x[t+k] - x[t-k]) / (2 sum_k k^2), k = 1, 2; the first and the last frame go on beyond the ends.

    A row of n samples has 1 + (n - window) // hop frames; one shorter than a window is filled up to one with zeros.

    Args:
        statistics: of the training data; needed by normalise=global and running, which `fit` finds.
    Raises:
        ConfigError: there are no statistics where they are needed.
    """

    kind: ClassVar[str] = "features"

    def __init__(self, settings: FeatureSettings, statistics: Statistics | None = None) -> None:
        if statistics is None and _needs_statistics(settings):
            raise ConfigError(f"task.normalise={settings.normalise} needs the statistics of training data; build the features by fit()")
        self.settings = settings
        self.statistics = statistics
        self._by_device: dict[torch.device, _Constants] = {}

    @classmethod
    def fit(cls, settings: FeatureSettings, waves: Iterable[NDArray[Any] | Tensor]) -> Self:
        """Build features for training data, which is read once, and only where normalisation needs its statistics.

        Args:
            waves: (n,) or hops (T, hop); int16 or float in [-1, 1].
        Raises:
            DataError: there is no frame in all the waves, or one of them holds NaN or infinity.
        """
        if not _needs_statistics(settings):
            return cls(settings)
        return cls(settings, _statistics_of(Features(replace(settings, normalise="none")), waves))

    @property
    def n_features(self) -> int:
        """Features of a frame, F."""
        return self.settings.n_features

    @property
    def hop(self) -> int:
        """Samples from frame to frame, and in each hop of the input."""
        return self.settings.hop

    @property
    def window_length(self) -> int:
        """Samples of a frame."""
        return self.settings.window_length

    def n_frames(self, n_hops: Tensor) -> Tensor:
        """Return how many frames rows of so many hops have, int64 of the same shape; at least one where there is a hop."""
        return torch.where(n_hops > 0, (n_hops - self._hops_per_frame + 1).clamp(min=1), 0)

    def __call__(self, hops: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute the normalised features of waves.

        Args:
            hops: (B, T, hop), int16 or float in [-1, 1].
            mask: (B, T), True = real, all real hops before any padding; None is all real. What stands at padding is never looked at.
        Returns:
            (B, T', F) float32, 0 at padding, and its mask (B, T').
        """
        x, frame_mask = self._unnormalised(hops, mask)
        return _padded_with_zeros(self._normalised(x, frame_mask), frame_mask), frame_mask

    def raw(self, hops: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute features as `__call__` does, without normalisation."""
        x, frame_mask = self._unnormalised(hops, mask)
        return _padded_with_zeros(x, frame_mask), frame_mask

    def to_json(self) -> dict[str, Any]:
        """Return settings and statistics by name."""
        content: dict[str, Any] = {"settings": asdict(self.settings), "statistics": None}
        if self.statistics is not None:
            mean, deviation = list(self.statistics.mean), list(self.statistics.deviation)
            content["statistics"] = {"mean": mean, "deviation": deviation, "frames": self.statistics.frames}
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build them again; raises CheckpointError."""
        try:
            settings = read_settings(content["settings"])
            return cls(settings, _read_statistics(content["statistics"], settings))
        except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
            found = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise CheckpointError(f"not features of speech ({found}); restore the run folder from a copy") from error

    @property
    def _hops_per_frame(self) -> int:
        """Hops that a frame begins in or reaches into."""
        return -(-self.window_length // self.hop)

    def _on(self, device: torch.device) -> _Constants:
        if device not in self._by_device:
            with torch.inference_mode(False):  # what is made in it could not be differentiated through later
                self._by_device[device] = _constants(self.settings, self.statistics, device)
        return self._by_device[device]

    def _unnormalised(self, hops: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return features (B, T', F) in float64, anything at padding, and their mask (B, T')."""
        B, T, hop = hops.shape
        assert hop == self.hop, f"hops of {hop} samples, expected {self.hop}"
        if mask is None:
            mask = torch.ones(B, T, dtype=torch.bool, device=hops.device)
        else:
            hops = hops.masked_fill(~mask[:, :, None], 0)
        n_frames = self.n_frames(mask.sum(1))
        if T == 0:
            return hops.new_zeros(B, 0, self.n_features, dtype=torch.float64), mask
        hops = pad(hops, (0, 0, 0, max(0, self._hops_per_frame - T)))
        x = self._within_range(self._static_of_rows(hops.flatten(1)), n_frames)
        return _with_deltas(x, n_frames, self.settings.deltas), torch.arange(x.size(1), device=x.device) < n_frames[:, None]

    def _within_range(self, x: Tensor, n_frames: Tensor) -> Tensor:
        """Tell the energies of rows (B, T', n_static) from the loudest of their frames (B,), settings.range_db down at most."""
        if self.settings.range_db is None:
            return x
        energies, others = x[..., : self.settings.n_mels], x[..., self.settings.n_mels :]
        real = torch.arange(x.size(1), device=x.device) < n_frames[:, None]
        loudest = energies.masked_fill(~real[:, :, None], -math.inf).amax((1, 2), keepdim=True)
        loudest = loudest.clamp(min=math.log(FLOOR))  # of a row without any frame
        lowest = -self.settings.range_db * math.log(10) / 10
        return torch.cat([(energies - loudest).clamp(min=lowest), others], dim=-1)

    def _static_of_rows(self, samples: Tensor) -> Tensor:
        """Return the features of (B, n) samples without deltas, (B, T', n_static) in float64, some frames at a time."""
        n_frames = 1 + (samples.size(1) - self.window_length) // self.hop
        at_once = max(1, FRAMES_AT_ONCE.get(samples.device.type, FRAMES_AT_ONCE_ELSEWHERE) // samples.size(0))
        reach = self.window_length - self.hop  # beyond the last frame's hop
        spans = [samples[:, start * self.hop : (start + at_once) * self.hop + reach] for start in range(0, n_frames, at_once)]
        return torch.cat([self._static(span) for span in spans], dim=1)

    def _static(self, samples: Tensor) -> Tensor:
        """Return the features without deltas of all frames that lie wholly in (B, n) samples, n at least a window."""
        constants = self._on(samples.device)
        wave = _as_float(samples)
        spectrum = torch.fft.rfft(wave.unfold(1, self.window_length, self.hop) * constants.window)  # (B, T', n_bins)
        power = spectrum.real.square() + spectrum.imag.square()  # half the time of abs() and of view_as_real()
        x = (power @ constants.mel).clamp(min=FLOOR).log()
        x = x - x.mean(-1, keepdim=True) if self.settings.without_level else x
        columns = [x if constants.dct is None else x @ constants.dct]
        if self.settings.zero_crossings:
            columns.append(_zero_crossings(wave, self.window_length, self.hop))
        if self.settings.spectral_entropy:
            columns.append(_spectral_entropy(power))
        return torch.cat(columns, dim=-1)

    def _normalised(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise whole rows (B, T', F), as the settings have it."""
        if self.settings.normalise == "utterance":
            return _by_row(x, mask)
        if self.settings.normalise == "running":
            return self._running(x, self._nothing_heard(x))[0]
        constants = self._on(x.device)
        return (x - constants.mean) / constants.deviation

    def _nothing_heard(self, x: Tensor) -> _Sums:
        """Return the sums before the first of the frames (B, T', F): as if PRIOR_FRAMES had been heard that are like the training data."""
        squares = PRIOR_FRAMES * self._on(x.device).deviation.square()
        return _Sums(PRIOR_FRAMES, torch.zeros_like(squares).expand(x.size(0), -1), squares.expand(x.size(0), -1))

    def _running(self, x: Tensor, heard: _Sums) -> tuple[Tensor, _Sums]:
        """Normalise each frame by the mean and the variance of all up to it, itself included; return also the sums behind the last."""
        if x.size(1) == 0:
            return x, heard
        centred = x - self._on(x.device).mean  # the squares stay small, so that their difference keeps its digits
        total = heard.total[:, None] + centred.cumsum(1)
        squares = heard.squares[:, None] + centred.square().cumsum(1)
        frames = heard.frames + torch.arange(1, x.size(1) + 1, device=x.device)[:, None]
        mean = total / frames
        variance = (squares / frames - mean.square()).clamp(min=SMALLEST_DEVIATION**2)
        return (centred - mean) / variance.sqrt(), _Sums(heard.frames + x.size(1), total[:, -1].clone(), squares[:, -1].clone())


class FeatureStream:
    """The features of a wave that arrives in pieces: the same as `Features` gives for all of it, in constant memory.

    Raises:
        ConfigError: the features are normalised over whole utterances.
    """

    def __init__(self, features: Features) -> None:
        if features.settings.range_db is not None:
            raise ConfigError("task.range_db needs the loudest of the whole utterance, which a stream does not have; leave it out")
        if features.settings.normalise == "utterance":
            raise ConfigError(
                "task.normalise=utterance needs the whole utterance before its first frame, which a stream does not have; train with "
                "task.normalise=running (or global, or none)"
            )
        self._features = features
        self._reach = DELTA_REACH * features.settings.deltas  # frames that deltas look ahead, and back
        self._start()

    def push(self, samples: Tensor) -> Tensor:
        """Take the next samples (n,), int16 or float in [-1, 1], and return the frames that are complete now, (t, F) float32."""
        self._n_samples += samples.numel()
        return self._answers(self._static(samples), last=False)

    def finish(self) -> Tensor:
        """Return the frames that are left, (t, F), and be ready for another wave; the last hop is filled up with zeros."""
        n_missing = -self._n_samples % self._features.hop
        if self._n_samples:
            n_missing = max(n_missing, self._features.window_length - self._n_samples)
        rest = self._answers(self._static(self._samples.new_zeros(n_missing)), last=True)
        self._start()
        return rest

    def _start(self) -> None:
        n_static = self._features.settings.n_static
        self._n_samples = 0
        self._samples = torch.zeros(0, dtype=torch.float64)  # from where the next frame begins
        self._frames = torch.zeros(1, 0, n_static, dtype=torch.float64)  # without deltas: those behind, then those not yet given
        self._n_behind = 0  # frames given already, which the deltas of the next ones look back at
        self._heard: _Sums | None = None

    def _static(self, samples: Tensor) -> Tensor:
        """Return the new frames without deltas, (1, t, n_static), and keep the samples from the next frame's start."""
        samples = torch.cat([self._samples.to(samples.device), _as_float(samples)])
        if samples.numel() < self._features.window_length:
            self._samples = samples
            return self._frames.new_zeros(1, 0, self._frames.size(2), device=samples.device)
        x = self._features._static_of_rows(samples[None])
        self._samples = samples[x.size(1) * self._features.hop :].clone()  # a slice alone would keep all samples in memory
        return x

    def _answers(self, x: Tensor, *, last: bool) -> Tensor:
        """Return the frames whose deltas are known with the new ones (1, t, n_static)."""
        x = torch.cat([self._frames.to(x.device), x], dim=1)
        begin = self._n_behind
        end = x.size(1) if last else max(begin, x.size(1) - self._reach)
        if begin == end:
            self._frames = x
            return x.new_zeros(0, self._features.n_features, dtype=torch.float32)
        with_deltas = _with_deltas(x, torch.tensor([x.size(1)], device=x.device), self._features.settings.deltas)
        self._n_behind = min(end, self._reach)
        self._frames = x[:, end - self._n_behind :].clone()
        return self._normalised(with_deltas[:, begin:end])[0].float()

    def _normalised(self, x: Tensor) -> Tensor:
        if self._features.settings.normalise != "running":
            return self._features._normalised(x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
        heard = self._features._nothing_heard(x) if self._heard is None else self._heard
        x, self._heard = self._features._running(x, heard)
        return x


def _as_float(samples: Tensor) -> Tensor:
    """Return samples in float64, int16 scaled to [-1, 1)."""
    return samples.double() / INT16_SCALE if samples.dtype == torch.int16 else samples.double()


def _zero_crossings(wave: Tensor, window_length: int, hop: int) -> Tensor:
    """Return the changes of sign inside each frame of (B, n) samples, divided by its samples, (B, T', 1)."""
    positive = wave >= 0
    changes = pad(positive[:, 1:] != positive[:, :-1], (1, 0)).cumsum(1)  # up to and with each sample
    inside = changes[:, window_length - 1 :: hop] - changes[:, : changes.size(1) - window_length + 1 : hop]
    return inside[:, :, None].double() / window_length


def _spectral_entropy(power: Tensor) -> Tensor:
    """Return the entropy of power spectra (B, T', n_bins) as a share of the highest there is, (B, T', 1)."""
    power = power.clamp(min=FLOOR)
    share = power / power.sum(-1, keepdim=True)
    return -(share * share.log()).sum(-1, keepdim=True) / math.log(power.size(-1))


def _with_deltas(x: Tensor, n_frames: Tensor, orders: int) -> Tensor:
    """Append to features (B, T', F), of which `n_frames` (B,) are real, so many orders of deltas: (B, T', F * (1 + orders))."""
    columns = [x]
    for _ in range(orders):
        columns.append(_delta(columns[-1], n_frames))
    return torch.cat(columns, dim=-1)


def _delta(x: Tensor, n_frames: Tensor) -> Tensor:
    """Return the slope at each frame (B, T', F) of a line fitted to the frames around it."""
    T = x.size(1)
    places = torch.arange(-DELTA_REACH, T + DELTA_REACH, device=x.device).clamp(min=0)
    places = torch.minimum(places, (n_frames - 1).clamp(min=0)[:, None])  # a row's own first and last frame go on beyond its ends
    x = x.gather(1, places[:, :, None].expand(-1, -1, x.size(2)))  # (B, T' + 2 * DELTA_REACH, F)
    steps = range(1, DELTA_REACH + 1)
    rise = torch.stack([k * (x[:, DELTA_REACH + k :][:, :T] - x[:, DELTA_REACH - k :][:, :T]) for k in steps]).sum(0)
    return rise / (2 * sum(k * k for k in steps))


def _by_row(x: Tensor, mask: Tensor) -> Tensor:
    """Bring each row's features (B, T', F) to mean 0 and deviation 1 over its real frames."""
    real, n_real = mask[:, :, None], mask.sum(1)[:, None, None].clamp(min=1)
    centred = x - x.where(real, 0).sum(1, keepdim=True) / n_real
    variance = centred.where(real, 0).square().sum(1, keepdim=True) / n_real
    return centred / variance.clamp(min=SMALLEST_DEVIATION**2).sqrt()


def _padded_with_zeros(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask[:, :, None], 0).float()


def _needs_statistics(settings: FeatureSettings) -> bool:
    return settings.normalise in ("global", "running")


def _constants(settings: FeatureSettings, statistics: Statistics | None, device: torch.device) -> _Constants:
    dct = cosines(settings.n_mels, settings.n_mfcc).to(device) if settings.kind == "mfcc" else None
    mean = torch.zeros(settings.n_features, dtype=torch.float64)
    deviation = torch.ones_like(mean)
    if statistics is not None:
        mean = torch.tensor(statistics.mean, dtype=torch.float64)
        deviation = torch.tensor(statistics.deviation, dtype=torch.float64).clamp(min=SMALLEST_DEVIATION)
    return _Constants(window_values(settings).to(device), mel_filters(settings).to(device), dct, mean.to(device), deviation.to(device))


def _statistics_of(features: Features, waves: Iterable[NDArray[Any] | Tensor]) -> Statistics:
    """Find mean and deviation over all frames of waves in one pass, wave by wave (Chan et al. 1979, eq. 2.1)."""
    n_frames, mean = 0, torch.zeros(features.n_features, dtype=torch.float64)
    squares = torch.zeros_like(mean)  # of the differences from the mean
    for number, wave in enumerate(waves, 1):
        x = features._unnormalised(_hops_of(wave, features.hop), None)[0][0].cpu()  # (T', F)
        if not x.isfinite().all():
            raise DataError(f"recording {number} of the training data holds NaN or infinite samples; leave it out or mend it")
        if not len(x):
            continue
        difference = x.mean(0) - mean
        n_all = n_frames + len(x)
        squares += (x - x.mean(0)).square().sum(0) + difference.square() * (n_frames * len(x) / n_all)
        mean += difference * (len(x) / n_all)
        n_frames = n_all
    if not n_frames:
        raise DataError("no audio to take the statistics of features from: the training data holds no recording, or only empty ones")
    return Statistics(tuple(mean.tolist()), tuple((squares / n_frames).sqrt().tolist()), n_frames)


def _hops_of(wave: NDArray[Any] | Tensor, hop: int) -> Tensor:
    """Return a wave (n,) or (T, hop) as (1, T, hop), the last hop filled up with zeros."""
    samples = (wave if isinstance(wave, Tensor) else torch.tensor(wave)).flatten()
    return pad(samples, (0, -samples.numel() % hop)).view(1, -1, hop)


def _read_statistics(content: Any, settings: FeatureSettings) -> Statistics | None:
    """Build statistics from a part file; raises ValueError, KeyError or TypeError."""
    if not _needs_statistics(settings):
        if content is not None:
            raise ValueError(f"statistics that normalise={settings.normalise} does not use")
        return None
    mean, deviation, frames = content["mean"], content["deviation"], content["frames"]
    for values in (mean, deviation):
        if not isinstance(values, list | tuple) or len(values) != settings.n_features or not all(map(_is_number, values)):
            raise ValueError(f"statistics that are not {settings.n_features} finite numbers ({str(values)[:80]})")
    if min(deviation) < 0 or not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
        raise ValueError(f"statistics with a negative deviation, or of {str(frames)[:80]} frames")
    return Statistics(tuple(map(float, mean)), tuple(map(float, deviation)), frames)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
