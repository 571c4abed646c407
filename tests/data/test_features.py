"""Features of speech: equal to their definitions and to librosa."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_waves import PLAIN, RATE, RICH, SMALL, close, hops_of, int16, noise, raw, tone

from heed.data.feature_settings import FeatureSettings, mel_of_hz
from heed.data.features import FLOOR, Features, cosines, mel_filters, window_values

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import librosa
import scipy.fft
import scipy.signal
import soundfile

SIGNALS = {
    "tone": int16(tone(1000)),
    "deep tone": int16(tone(123.4, size=0.5)),
    "unrounded tone": tone(1000),
    "noise": int16(noise(RATE)),
    "chirp": int16(np.sin(2 * np.pi * np.cumsum(np.linspace(50, 7900, RATE)) / RATE) * 0.7),
    "faint": int16(noise(RATE, size=1e-4)),
    "click": np.eye(1, RATE, 5000)[0],
    "steps": int16(np.repeat(noise(RATE // 8), 8)),
}


def in_one(wave: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a wave as librosa wants it, in float64."""
    return wave / 32768 if wave.dtype == np.int16 else wave.astype(np.float64)


def librosa_log_mel(wave: np.ndarray[Any, Any], settings: FeatureSettings) -> np.ndarray[Any, Any]:
    """Return the log energies of a wave, padded to whole hops, (T', n_mels)."""
    energies = librosa.feature.melspectrogram(
        y=in_one(hops_of(wave, settings.hop).numpy().ravel()),
        sr=settings.sample_rate,
        n_fft=settings.window_length,
        hop_length=settings.hop,
        window=getattr(scipy.signal.windows, settings.window)(settings.window_length, sym=True),
        center=False,
        n_mels=settings.n_mels,
        fmin=settings.lowest_hz,
        fmax=settings.top_hz,
        htk=True,
        norm=None,
        dtype=np.float64,
    )
    return np.log(np.maximum(energies, FLOOR)).T


def frames_of(wave: np.ndarray[Any, Any], settings: FeatureSettings) -> list[np.ndarray[Any, Any]]:
    starts = range(0, len(wave) - settings.window_length + 1, settings.hop)
    return [wave[start : start + settings.window_length] for start in starts]


@pytest.mark.parametrize(("name", "share"), [("hann", 0.5), ("hamming", 0.54)])
@pytest.mark.parametrize("frame_ms", [20, 25, 31.25])
def test_windows_equal_their_definition(name: Any, share: float, frame_ms: float) -> None:
    window = window_values(replace(PLAIN, window=name, frame_ms=frame_ms)).numpy()
    n = np.arange(round(16 * frame_ms))
    close(window, share - (1 - share) * np.cos(2 * np.pi * n / (len(n) - 1)), 1e-12)
    end = {"hann": 0.0, "hamming": 0.08}[name]
    close(window[[0, -1]], [end, end], 1e-12)


def test_1000_hz_is_999_99_mel() -> None:
    assert mel_of_hz(1000) == pytest.approx(999.99, abs=0.005)
    assert mel_of_hz(0) == 0


@pytest.mark.parametrize(
    "settings",
    [
        PLAIN,
        SMALL,
        replace(PLAIN, n_mels=23, lowest_hz=0, highest_hz=7600),
        FeatureSettings(22_050, frame_ms=25, hop_ms=20, n_mels=64),
        FeatureSettings(8000, n_mels=40),
    ],
    ids=str,
)
def test_filters_are_the_triangles_of_librosa(settings: FeatureSettings) -> None:
    expected = librosa.filters.mel(
        sr=settings.sample_rate,
        n_fft=settings.window_length,
        n_mels=settings.n_mels,
        fmin=settings.lowest_hz,
        fmax=settings.top_hz,
        htk=True,
        norm=None,
        dtype=np.float64,
    )
    close(mel_filters(settings).T, expected, 1e-9)


@pytest.mark.parametrize(("n", "n_kept"), [(80, 13), (7, 7), (5, 1)])
def test_cosines_are_the_orthonormal_dct(n: int, n_kept: int) -> None:
    values = np.random.default_rng(0).normal(size=(3, n))
    close(values @ cosines(n, n_kept).numpy(), scipy.fft.dct(values, type=2, norm="ortho")[:, :n_kept], 1e-12)


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("window", ["hann", "hamming"])
def test_log_energies_equal_librosa(name: str, window: Any) -> None:
    settings = replace(PLAIN, window=window)
    close(raw(settings, SIGNALS[name]), librosa_log_mel(SIGNALS[name], settings), 1e-3)


@pytest.mark.parametrize("name", SIGNALS)
def test_cepstra_equal_librosa(name: str) -> None:
    settings = replace(PLAIN, kind="mfcc", n_mfcc=20, n_mels=40)
    log_mel = librosa_log_mel(SIGNALS[name], settings)
    close(raw(settings, SIGNALS[name]), librosa.feature.mfcc(S=log_mel.T, n_mfcc=20, dct_type=2, norm="ortho").T, 1e-3)


@pytest.mark.parametrize("name", SIGNALS)
def test_energies_are_those_of_torch_stft(name: str) -> None:
    samples = torch.tensor(in_one(SIGNALS[name]))
    spectrum = torch.stft(samples, 400, 160, window=window_values(PLAIN), center=False, return_complex=True)
    energies = spectrum.abs().square().T @ mel_filters(PLAIN)
    close(raw(PLAIN, SIGNALS[name]), energies.clamp(min=FLOOR).log(), 1e-5)


def recordings(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.flac"))[::40] or sorted(folder.rglob("*.wav"))[::500]


@pytest.mark.parametrize(("name", "n_mels"), [("an4", 80), ("fsdd", 40)])
def test_real_recordings_give_what_librosa_gives(shared_data: Path, name: str, n_mels: int) -> None:
    paths = recordings(shared_data / name)
    assert paths
    for path in paths:
        wave, rate = soundfile.read(path, dtype="int16")
        settings = FeatureSettings(rate, n_mels=n_mels, normalise="none")
        log_mel = librosa_log_mel(wave, settings)
        close(raw(settings, wave), log_mel, 1e-3)
        cepstra = raw(replace(settings, kind="mfcc", deltas=1), wave)
        expected = scipy.fft.dct(log_mel, norm="ortho")[:, :13]
        close(cepstra[:, :13], expected, 1e-3)
        close(cepstra[:, 13:], librosa.feature.delta(expected, width=5, axis=0, mode="nearest"), 1e-3)


def slopes(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Fit a line to five frames around each, the ends repeated: its slope by least squares."""
    padded = np.concatenate([values[:1], values[:1], values, values[-1:], values[-1:]])
    return np.array([np.polyfit(range(-2, 3), padded[t : t + 5], 1)[0] for t in range(len(values))])


@pytest.mark.parametrize("n_hops", [3, 4, 9, 40])
def test_deltas_are_slopes_of_lines_fitted_to_five_frames(n_hops: int) -> None:
    wave = noise(n_hops * SMALL.hop)
    found = raw(replace(SMALL, deltas=2), wave)
    static = raw(SMALL, wave)
    close(found[:, :8], static, 0)
    close(found[:, 8:16], slopes(static), 1e-5)
    close(found[:, 16:], slopes(slopes(static)), 1e-5)
    close(found[:, 8:16], librosa.feature.delta(static, width=5, axis=0, mode="nearest"), 1e-5)


@pytest.mark.parametrize("name", SIGNALS)
def test_zero_crossings_are_changes_of_sign_per_sample(name: str) -> None:
    wave = SIGNALS[name]
    found = raw(replace(PLAIN, zero_crossings=True), wave)[:, -1]
    close(found, [sum((a < 0) != (b < 0) for a, b in pairwise(frame)) / 400 for frame in frames_of(wave.tolist(), PLAIN)], 1e-6)
    expected = librosa.feature.zero_crossing_rate(in_one(wave), frame_length=400, hop_length=160, center=False, threshold=0)[0]
    close(found, expected, 1e-6)


def test_a_tone_of_1_khz_crosses_zero_once_in_eight_samples() -> None:
    assert raw(replace(PLAIN, zero_crossings=True), SIGNALS["tone"])[:, -1] == pytest.approx(0.125, abs=0.003)


@pytest.mark.parametrize("name", SIGNALS)
def test_spectral_entropy_equals_its_definition(name: str) -> None:
    found = raw(replace(PLAIN, spectral_entropy=True), SIGNALS[name])[:, -1]
    window = window_values(PLAIN).numpy()
    power = np.maximum(np.abs(np.fft.rfft([frame * window for frame in frames_of(in_one(SIGNALS[name]), PLAIN)])) ** 2, FLOOR)
    share = power / power.sum(1, keepdims=True)
    close(found, -(share * np.log(share)).sum(1) / np.log(201), 1e-5)


def test_noise_has_nearly_the_highest_entropy_and_a_tone_nearly_none() -> None:
    entropy = {name: raw(replace(PLAIN, spectral_entropy=True), SIGNALS[name])[:, -1] for name in ("noise", "tone")}
    assert 0.85 < entropy["noise"].min() <= entropy["noise"].max() < 1
    assert 0 < entropy["tone"].max() < 0.3


def test_the_features_of_a_frame_stand_in_the_order_that_is_promised() -> None:
    wave = noise(30 * SMALL.hop)
    found = raw(RICH, wave)
    assert found.shape[1] == Features(RICH).n_features == RICH.n_features == 7 * 3
    for place, settings in [
        (slice(0, 5), replace(SMALL, kind="mfcc", n_mfcc=5)),
        (slice(5, 6), replace(SMALL, zero_crossings=True)),
        (slice(6, 7), replace(SMALL, spectral_entropy=True)),
    ]:
        close(found[:, place], raw(settings, wave)[:, -(place.stop - place.start) :], 1e-6)
    close(found[:, 7:14], slopes(found[:, :7]), 1e-5)


@pytest.mark.parametrize("normalise", ["none", "utterance", "global", "running"])
def test_silence_is_finite(normalise: Any) -> None:
    settings = replace(RICH, kind="log_mel", n_mfcc=13, normalise=normalise)
    silence = torch.zeros(1, 30, settings.hop, dtype=torch.int16)
    found = Features.fit(settings, [noise(4000)])
    assert found(silence)[0].isfinite().all()
    assert Features.fit(settings, [np.zeros(4000)])(silence)[0].abs().max() < (25 if normalise == "none" else 1e-3)
    close(found.raw(silence)[0][0, :, :8], np.full((28, 8), math.log(FLOOR)), 1e-5)


def test_integers_are_scaled_to_one() -> None:
    wave = int16(noise(4000))
    close(raw(RICH, wave), raw(RICH, (wave / 32768).astype(np.float32)), 1e-6)
    assert raw(SMALL, wave).dtype == np.float32


def test_autocast_changes_nothing() -> None:
    hops = hops_of(int16(noise(4000)), SMALL.hop)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = Features(RICH)(hops)
    assert found.dtype == torch.float32
    assert torch.equal(found, Features(RICH)(hops)[0])


def test_gradients_reach_the_samples_even_after_inference() -> None:
    part = Features(replace(RICH, normalise="utterance"))
    hops = hops_of(noise(4000), SMALL.hop)
    with torch.inference_mode():
        part(hops)
    hops.requires_grad_()
    part(hops)[0].square()[..., 0].cumsum(1).sum().backward()
    assert hops.grad is not None
    assert 0 < hops.grad.abs().max() < math.inf


@pytest.mark.parametrize("deltas", [0, 1])
def test_energies_within_a_range_are_told_from_the_loudest_and_end_at_its_lowest(deltas: int) -> None:
    settings = replace(SMALL, deltas=0, spectral_entropy=True)
    wave = torch.from_numpy(int16(tone(700, 1600, 4000) * np.linspace(0.001, 1, 1600)))
    plain, _ = Features(settings)(wave.reshape(1, -1, 40))
    ranged, _ = Features(replace(settings, range_db=30.0, deltas=deltas))(wave.reshape(1, -1, 40))
    energies = plain[..., :8]
    expected = (energies - energies.max()).clamp(min=-30 * math.log(10) / 10)
    torch.testing.assert_close(ranged[..., :8], expected)
    torch.testing.assert_close(ranged[..., 8], plain[..., 8])
    assert (ranged[..., :8] == ranged[..., :8].min()).sum() > 8


def test_a_range_makes_levels_alike_and_does_not_depend_on_the_rest_of_the_batch() -> None:
    features = Features(replace(SMALL, range_db=40.0))
    loud = torch.from_numpy(tone(500, 800, 4000) + noise(800, size=0.01)).reshape(1, -1, 40)
    both = torch.cat([loud, 0.02 * loud])
    (first, second), _ = features(both)
    torch.testing.assert_close(first, second)
    padded = torch.cat([torch.nn.functional.pad(0.02 * loud, (0, 0, 0, 9)), torch.rand(1, 29, 40, dtype=torch.float64) - 0.5])
    mask = torch.arange(29) < torch.tensor([[20], [29]])
    alone, _ = features(0.02 * loud)
    torch.testing.assert_close(features(padded, mask)[0][:1, : alone.size(1)], alone)


def test_energies_without_level_are_told_from_their_mean_and_no_volume_changes_them() -> None:
    settings = replace(SMALL, deltas=0, spectral_entropy=True)
    wave = torch.from_numpy(tone(700, 1600, 4000) + noise(1600, size=0.1)).reshape(1, -1, 40)
    plain, _ = Features(settings)(wave)
    found, _ = Features(replace(settings, without_level=True))(wave)
    energies = plain[..., :8]
    torch.testing.assert_close(found[..., :8], energies - energies.mean(-1, keepdim=True))
    torch.testing.assert_close(found[..., 8], plain[..., 8])
    torch.testing.assert_close(Features(replace(settings, without_level=True))(0.01 * wave)[0], found)
    assert not torch.allclose(Features(settings)(0.01 * wave)[0], plain)
