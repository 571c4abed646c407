"""Whisper's features against transformers' own, computed in float64 too."""

import json

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from heed.data.parts import load_parts, save_parts
from heed.data.whisper import WhisperFeatures, WhisperSettings
from heed.errors import CheckpointError, ConfigError, DataError


def waves(*lengths: int) -> list[np.ndarray]:
    """Noise that swells and fades over a tone, as 16-bit samples."""
    draw = np.random.default_rng(3)
    times = [np.arange(n) / 16_000 for n in lengths]
    return [(np.sin(2 * t) * (9000 * np.sin(2 * np.pi * 440 * t) + draw.normal(0, 900, len(t)))).astype(np.int16) for t in times]


def as_batch(recordings: list[np.ndarray], hop: int = 160) -> tuple[torch.Tensor, torch.Tensor]:
    """Hops (B, T, hop) with something loud at padding, which must not be heard, and their mask."""
    n_hops = [-(-len(wave) // hop) for wave in recordings]
    hops = torch.full((len(recordings), max(n_hops), hop), 12_345, dtype=torch.int16)
    for row, wave, n in zip(hops, recordings, n_hops, strict=True):
        row[:n] = 0
        row.view(-1)[: len(wave)] = torch.from_numpy(wave)
    return hops, torch.arange(max(n_hops)) < torch.tensor(n_hops)[:, None]


@pytest.mark.parametrize("n_mels", [80, 128])
def test_features_are_those_of_transformers(n_mels: int) -> None:
    recordings = waves(32_000, 20_011, 7)
    theirs = WhisperFeatureExtractor(feature_size=n_mels, chunk_length=2)
    padded = np.stack([np.pad(wave / 32768, (0, 32_000 - len(wave))) for wave in recordings])
    expected = theirs._np_extract_fbank_features(padded, "cpu")  # (B, F, T), without the rounding of an FFT in float32
    found, mask = WhisperFeatures(WhisperSettings(n_mels=n_mels, seconds=2))(*as_batch(recordings))
    np.testing.assert_allclose(found.transpose(1, 2).numpy(), expected, atol=1e-5)
    assert mask.all()
    assert mask.shape == (3, 200)


def test_the_call_that_people_use_gives_the_same() -> None:
    (wave,) = waves(25_000)
    theirs = WhisperFeatureExtractor(chunk_length=2)
    expected = theirs(wave / np.float32(32768), sampling_rate=16_000, return_tensors="pt")["input_features"]
    found, _ = WhisperFeatures(WhisperSettings(seconds=2))(*as_batch([wave]))
    torch.testing.assert_close(found.transpose(1, 2), expected, rtol=0, atol=1e-4)


def test_they_are_saved_as_a_part(tmp_path) -> None:
    features = WhisperFeatures(WhisperSettings(n_mels=12, seconds=1))
    save_parts(tmp_path, {"features": features})
    loaded = load_parts(tmp_path)["features"]
    assert isinstance(loaded, WhisperFeatures)
    assert loaded.settings == features.settings


@pytest.mark.parametrize("change", [{"n_mels": "80"}, {"seconds": 0}, {"hop": 1000}, {"sample_rate": 8000}, {"more": 1}])
def test_a_damaged_part_is_refused(change: dict) -> None:
    content = json.loads(json.dumps(WhisperFeatures(WhisperSettings()).to_json()))
    content["settings"] |= change
    with pytest.raises(CheckpointError, match="restore"):
        WhisperFeatures.from_json(content)


def test_a_recording_longer_than_a_window_is_refused() -> None:
    with pytest.raises(DataError, match="101 hops is longer than the window of 100"):
        WhisperFeatures(WhisperSettings(seconds=1))(torch.zeros(1, 101, 160))


def test_settings_that_no_window_fits_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.piece_seconds=1"):
        WhisperSettings(hop=163, seconds=1)


def test_the_spectrogram_of_a_report_has_a_frame_for_each_hop() -> None:
    hops, mask = as_batch(waves(8000, 3000))
    features = WhisperFeatures(WhisperSettings(seconds=2))
    raw, real = features.raw(hops, mask)
    assert raw.shape == (2, 50, 80)
    assert torch.equal(real, mask)
    whole, _ = features(hops, mask)
    scaled = (raw[0] / np.log(10) + 4) / 4
    torch.testing.assert_close(scaled.maximum(whole[0].min()), whole[0, :50], rtol=0, atol=1e-5)
