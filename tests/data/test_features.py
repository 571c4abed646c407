"""Features of speech: equal to their definitions and to librosa, row by row, batch or stream."""

import json
import math
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from heed.data import features as module
from heed.data.feature_settings import FeatureSettings, mel_of_hz
from heed.data.features import (
    DELTA_REACH,
    FLOOR,
    PRIOR_FRAMES,
    Features,
    FeatureStream,
    cosines,
    mel_filters,
    window_values,
)
from heed.data.parts import load_parts, save_parts
from heed.errors import CheckpointError, ConfigError, DataError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import librosa
import scipy.fft
import scipy.signal

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


def close(found: Any, expected: Any, limit: float) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= limit


# Windows, filters, cosines


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


# Features of a wave


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
    soundfile = pytest.importorskip("soundfile")
    paths = recordings(shared_data / name)
    if not paths:
        pytest.skip(f"needs the recordings of {name} in ../shared/data")
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


# Rows, batches, lengths


def test_a_second_has_98_frames() -> None:
    assert raw(PLAIN, np.zeros(RATE)).shape == (98, 80)


@pytest.mark.parametrize("settings", [SMALL, replace(SMALL, frame_ms=20), replace(SMALL, frame_ms=10), replace(SMALL, hop_ms=20)], ids=str)
def test_the_number_of_frames_is_that_of_windows_that_fit(settings: FeatureSettings) -> None:
    part = Features(settings)
    for T in range(1, 9):
        x, mask = part(torch.zeros(2, T, settings.hop))
        fitting = len(range(0, T * settings.hop - settings.window_length + 1, settings.hop))
        assert x.shape == (2, max(1, fitting), 8)
        assert mask.all()
        assert part.n_frames(torch.tensor([[0, T]])).tolist() == [[0, max(1, fitting)]]


def test_nothing_has_no_frames() -> None:
    x, mask = Features(RICH)(torch.zeros(2, 0, RICH.hop, dtype=torch.int16))
    assert x.shape == (2, 0, 21)
    assert mask.shape == (2, 0)
    x, mask = Features(RICH)(torch.ones(2, 6, RICH.hop), torch.tensor([[True] * 6, [False] * 6]))
    assert mask.sum(1).tolist() == [4, 0]
    assert not x[1].any()
    assert x.isfinite().all()


def test_a_row_shorter_than_a_window_is_filled_up_with_zeros() -> None:
    wave = noise(SMALL.hop)
    close(raw(SMALL, wave), raw(SMALL, np.concatenate([wave, np.zeros(2 * SMALL.hop)])), 1e-6)


@pytest.mark.parametrize("normalise", ["none", "utterance", "global", "running"])
@pytest.mark.parametrize("base", [SMALL, RICH], ids=["plain", "rich"])
def test_a_row_answers_in_a_batch_as_alone(normalise: Any, base: FeatureSettings) -> None:
    part = Features.fit(replace(base, normalise=normalise), [noise(4000, seed=9)])
    lengths = [1, 2, 3, 7, 20, 33]
    waves = [torch.tensor(noise(n * base.hop, seed=n)).view(n, base.hop) for n in lengths]
    hops = torch.full((len(lengths), 35, base.hop), torch.nan, dtype=torch.float64)
    for row, wave in enumerate(waves):
        hops[row, : len(wave)] = wave
    x, mask = part(hops, torch.arange(35) < torch.tensor(lengths)[:, None])
    raw_x, raw_mask = part.raw(hops, torch.arange(35) < torch.tensor(lengths)[:, None])
    assert x.shape == (len(lengths), 33, part.n_features)
    for row, wave in enumerate(waves):
        for found, found_mask, alone in [(x, mask, part(wave[None])[0][0]), (raw_x, raw_mask, part.raw(wave[None])[0][0])]:
            assert found_mask[row].tolist() == [True] * len(alone) + [False] * (33 - len(alone))
            close(found[row, : len(alone)], alone, 1e-5)
            assert not found[row, len(alone) :].any()


def test_how_many_spectra_are_computed_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hops = torch.tensor(noise(3 * 17 * SMALL.hop)).view(3, 17, SMALL.hop)
    whole = Features(RICH)(hops)[0]
    for at_once in (1, 6, 12, 44, 45, 46):
        monkeypatch.setattr(module, "FRAMES_AT_ONCE", {"cpu": at_once})
        close(Features(RICH)(hops)[0], whole, 1e-6)


# Normalisation


def test_statistics_are_those_of_all_frames_together() -> None:
    settings = replace(RICH, normalise="global")
    waves = [noise(n, seed=n, size=size) for n, size in [(5, 0.1), (100, 0.5), (4001, 1e-3), (2345, 0.1)]]
    part = Features.fit(settings, (wave if len(wave) > 200 else torch.tensor(wave) for wave in [*waves, np.zeros(0)]))
    frames = np.concatenate([raw(settings, wave).astype(np.float64) for wave in waves])
    assert part.statistics is not None
    assert part.statistics.frames == len(frames)
    close(part.statistics.mean, frames.mean(0), 1e-5)
    close(part.statistics.deviation, frames.std(0), 1e-5)
    found = part(hops_of(waves[3], settings.hop))[0][0]
    close(found, (raw(settings, waves[3]) - frames.mean(0)) / frames.std(0), 1e-3)


def test_waves_and_their_hops_give_the_same_statistics() -> None:
    settings = replace(SMALL, normalise="global")
    wave = int16(noise(1000))
    hops = hops_of(wave, settings.hop)[0]
    assert (
        Features.fit(settings, [wave]).to_json()
        == Features.fit(settings, [hops]).to_json()
        == Features.fit(settings, [hops.numpy()]).to_json()
    )


def test_statistics_of_loud_and_steady_features_keep_their_digits() -> None:
    """A sum of squares in float32, or one minus the square of the mean, would lose a deviation this small beside its mean."""
    settings = replace(SMALL, normalise="global")
    waves = [tone(1000, 4000, 4000, size=0.5 + 1e-5 * n) for n in range(5)]
    part = Features.fit(settings, waves)
    assert part.statistics is not None
    once = [Features(SMALL)._unnormalised(hops_of(wave, settings.hop), None)[0][0] for wave in waves]
    close(part.statistics.deviation, torch.cat(once).std(0, correction=0), 1e-9)


@pytest.mark.parametrize("normalise", ["none", "utterance"])
def test_training_data_is_not_read_without_need(normalise: Any) -> None:
    def unread() -> Any:
        raise AssertionError
        yield

    assert Features.fit(replace(SMALL, normalise=normalise), unread()).statistics is None


@pytest.mark.parametrize("waves", [[], [np.zeros(0)]])
def test_no_audio_to_fit_is_refused(waves: list[Any]) -> None:
    with pytest.raises(DataError, match="no audio"):
        Features.fit(replace(SMALL, normalise="global"), waves)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_wave_that_is_not_finite_is_refused_by_its_number(value: float) -> None:
    wave = noise(1000)
    wave[500] = value
    with pytest.raises(DataError, match=r"recording 2 .*NaN or infinite"):
        Features.fit(replace(SMALL, normalise="running"), [noise(1000), wave])


def test_utterances_have_mean_0_and_deviation_1() -> None:
    hops = torch.tensor(noise(2 * 40 * RICH.hop)).view(2, 40, RICH.hop)
    mask = torch.arange(40) < torch.tensor([[40], [23]])
    x, frames = Features(replace(RICH, normalise="utterance"))(hops, mask)
    for row, real in zip(x, frames, strict=True):
        close(row[real].mean(0), np.zeros(21), 1e-5)
        close(row[real].std(0, correction=0), np.ones(21), 1e-4)


def test_running_normalisation_hears_the_past_behind_a_prior() -> None:
    part = Features.fit(replace(RICH, normalise="running"), [noise(4000, seed=1), noise(4000, seed=2, size=0.01)])
    wave = noise(60 * RICH.hop, size=0.3)
    x = raw(RICH, wave).astype(np.float64)
    assert part.statistics is not None
    mean, deviation = np.array(part.statistics.mean), np.array(part.statistics.deviation)
    # The prior as real frames: half of them a deviation above the mean, half below.
    prior = np.concatenate([np.tile(mean + deviation, (PRIOR_FRAMES // 2, 1)), np.tile(mean - deviation, (PRIOR_FRAMES // 2, 1))])
    heard = [np.concatenate([prior, x[: t + 1]]) for t in range(len(x))]
    close(part(hops_of(wave, RICH.hop))[0][0], [(now - h.mean(0)) / h.std(0) for now, h in zip(x, heard, strict=True)], 1e-3)


@pytest.mark.parametrize("normalise", ["global", "running"])
def test_statistics_that_are_missing_are_asked_for(normalise: Any) -> None:
    with pytest.raises(ConfigError, match=rf"task.normalise={normalise} needs the statistics.*fit"):
        Features(replace(SMALL, normalise=normalise))


# Streams


def streamed(part: Features, wave: torch.Tensor, cuts: list[int]) -> list[torch.Tensor]:
    stream = FeatureStream(part)
    return [*(stream.push(wave[begin:end]) for begin, end in pairwise([0, *sorted(cuts), len(wave)])), stream.finish()]


STREAMED = [replace(base, normalise=normalise) for base in (SMALL, RICH) for normalise in ("none", "global", "running")]
FITTED = [Features.fit(settings, [noise(4000, seed=3)]) for settings in STREAMED]


@given(
    part=st.sampled_from(FITTED),
    length=st.integers(0, 1500),
    shares=st.lists(st.floats(0, 1), max_size=8),
    rounded=st.booleans(),
)
def test_a_stream_gives_the_features_of_the_whole_wave(part: Features, length: int, shares: list[float], rounded: bool) -> None:
    wave = int16(noise(length, seed=length)) if rounded else noise(length, seed=length)
    found = torch.cat(streamed(part, torch.tensor(wave), [int(share * length) for share in shares]))
    expected = part(hops_of(wave, part.hop))[0][0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [SMALL, replace(SMALL, deltas=1), RICH], ids=lambda settings: f"{settings.deltas} deltas")
@pytest.mark.parametrize("step", [1, 37, 100, 250])
def test_a_stream_gives_each_frame_as_soon_as_it_is_known(settings: FeatureSettings, step: int) -> None:
    stream, n_given = FeatureStream(Features(settings)), 0
    for n in range(step, 1001, step):
        n_given += len(stream.push(torch.zeros(step)))
        complete = max(0, 1 + (n - settings.window_length) // settings.hop)
        assert n_given == max(0, complete - DELTA_REACH * settings.deltas)


def test_a_stream_is_ready_for_the_next_wave_after_the_end_of_one() -> None:
    part = FITTED[-1]
    stream, wave = FeatureStream(part), torch.tensor(noise(777))
    first, second = (torch.cat([stream.push(wave), stream.finish()]) for _ in range(2))
    assert torch.equal(first, second)
    assert stream.finish().shape == (0, part.n_features)


def held_bytes(stream: FeatureStream) -> int:
    """Return how much memory the tensors of a stream keep alive, those they are a part of included."""
    heard = stream._heard
    held = [stream._samples, stream._frames, *([heard.total, heard.squares] if heard is not None else [])]
    return sum(tensor.untyped_storage().nbytes() for tensor in held)


def test_a_stream_remembers_no_more_after_long_than_after_short() -> None:
    stream, held = FeatureStream(FITTED[-1]), []
    for step in range(400):
        stream.push(torch.tensor(noise(130, seed=step)))
        held.append(held_bytes(stream))
    assert max(held[200:]) <= max(held[10:200])
    stream.push(torch.tensor(noise(50_000)))
    assert held_bytes(stream) <= max(held)


def test_a_stream_over_whole_utterances_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task.normalise=utterance needs the whole.*task.normalise=running"):
        FeatureStream(Features(replace(SMALL, normalise="utterance")))


# Parts


@pytest.mark.parametrize("part", [*FITTED, Features(replace(RICH, normalise="utterance", highest_hz=1999.5))], ids=range(7))
def test_features_come_back_from_their_file(tmp_path: Path, part: Features) -> None:
    save_parts(tmp_path, {"features": part})
    again = load_parts(tmp_path)["features"]
    assert isinstance(again, Features)
    assert again.settings == part.settings
    assert again.statistics == part.statistics
    hops = torch.tensor(noise(30 * SMALL.hop)).view(1, 30, SMALL.hop)
    assert torch.equal(again(hops)[0], part(hops)[0])
    content = json.loads((tmp_path / "features.json").read_text(encoding="utf-8"))
    assert content == {"kind": "features", **part.to_json()}


def broken(*path: str, value: Any) -> dict[str, Any]:
    """Return the file of good features with one value changed, or left out when it is `...`."""
    content: dict[str, Any] = json.loads(json.dumps(FITTED[1].to_json()))
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


FAULTS: list[tuple[tuple[str, ...], Any]] = [
    (("settings",), ...),
    (("settings",), None),
    (("settings",), []),
    (("settings", "hop_ms"), ...),
    (("settings", "colour"), "red"),
    (("settings", "sample_rate"), "16000"),
    (("settings", "sample_rate"), 4000.5),
    (("settings", "n_mels"), 8.0),
    (("settings", "n_mels"), True),
    (("settings", "n_mels"), 9),
    (("settings", "n_mels"), 500),
    (("settings", "zero_crossings"), 1),
    (("settings", "window"), "flat"),
    (("settings", "normalise"), "none"),
    (("statistics",), ...),
    (("statistics",), None),
    (("statistics",), 7),
    (("statistics", "mean"), ...),
    (("statistics", "mean"), [0.0] * 7),
    (("statistics", "mean"), ["0"] * 8),
    (("statistics", "mean"), [True] * 8),
    (("statistics", "mean"), [math.nan] * 8),
    (("statistics", "mean"), [10**400] * 8),
    (("statistics", "deviation"), [-0.1] * 8),
    (("statistics", "deviation"), "11111111"),
    (("statistics", "frames"), 0),
    (("statistics", "frames"), 1.5),
    (("statistics", "frames"), True),
]


@pytest.mark.parametrize(("path", "value"), FAULTS, ids=range(len(FAULTS)))
def test_a_broken_file_is_refused_by_its_path(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    (tmp_path / "features.json").write_text(json.dumps({"kind": "features", **broken(*path, value=value)}))
    with pytest.raises(CheckpointError, match=r"features\.json: not features of speech \(.*restore the run folder"):
        load_parts(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("part", FITTED, ids=range(len(FITTED)))
def test_a_gpu_gives_what_the_cpu_gives(part: Features) -> None:
    hops, mask = torch.tensor(noise(2 * 30 * SMALL.hop)).view(2, 30, SMALL.hop), torch.arange(30) < torch.tensor([[30], [11]])
    found, found_mask = part(hops.cuda(), mask.cuda())
    assert found.is_cuda
    close(found.cpu(), part(hops, mask)[0], 1e-5)
    assert torch.equal(found_mask.cpu(), part(hops, mask)[1])
    close(torch.cat(streamed(part, hops[0].flatten().cuda(), [50, 333])).cpu(), part(hops[:1])[0][0], 1e-5)


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


def test_a_stream_has_no_loudest_yet() -> None:
    with pytest.raises(ConfigError, match=r"task\.range_db needs the loudest of the whole utterance"):
        FeatureStream(Features(replace(SMALL, range_db=40.0)))


def test_features_of_a_run_that_is_older_than_a_setting_are_read() -> None:
    content = FITTED[1].to_json()
    del content["settings"]["range_db"]
    assert Features.from_json(content).settings == FITTED[1].settings
