"""Other vocal tracts: a stretched axis is the features of a stretched spectrum, and nothing else is touched."""

import math

import pytest
import torch

from heed.data.feature_settings import FeatureSettings, band_edges
from heed.data.features import Features
from heed.data.vocal_tract import STRETCHED_SHARE, stretch_frequencies, stretched_bands

SETTINGS = FeatureSettings(sample_rate=8000, n_mels=30, normalise="none")


def tone(hz: float) -> torch.Tensor:
    """Return hops (1, T, hop) of half a second of a tone."""
    features = Features(SETTINGS)
    wave = 0.5 * torch.sin(2 * math.pi * hz * torch.arange(4000, dtype=torch.float64) / 8000)
    return wave.reshape(1, -1, features.hop)


def loudest(x: torch.Tensor) -> float:
    """Return the centre of the band (B, T, F) with the most energy, in Hz."""
    centres = band_edges(SETTINGS.lowest_hz, SETTINGS.top_hz, SETTINGS.n_mels)[1:-1]
    return float(centres[x.exp().mean((0, 1)).argmax()])


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_a_tone_is_heard_where_a_vocal_tract_of_that_length_would_put_it(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = Features(SETTINGS)(tone(1000.0))
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 1.0 if factor > 1 else 0.0, dtype=torch.float64))
    heard = loudest(stretch_frequencies(x, abs(factor - 1), SETTINGS))
    width = 1000 / factor * 0.08  # of a band at these frequencies, about
    assert heard == pytest.approx(1000 / factor, abs=width)


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.0, 1.2])
def test_the_axis_rises_from_its_beginning_to_its_top(factor: float) -> None:
    places = stretched_bands(torch.tensor([factor], dtype=torch.float64), SETTINGS)[0]
    assert (places.diff() >= 0).all()
    assert places[0] >= 0
    assert places[-1] <= SETTINGS.n_mels - 1
    centres = band_edges(SETTINGS.lowest_hz, SETTINGS.top_hz, SETTINGS.n_mels)[1:-1]
    mel = torch.log1p(centres / 700)
    read = 700 * torch.expm1(mel[0] + places * (mel[1] - mel[0]))
    inside = (centres < STRETCHED_SHARE * SETTINGS.top_hz * min(1, 1 / factor)) & (places > 0)
    assert inside.sum() > 10
    torch.testing.assert_close(read[inside], factor * centres[inside])


def test_a_factor_of_one_changes_nothing() -> None:
    places = stretched_bands(torch.ones(1, dtype=torch.float64), SETTINGS)
    torch.testing.assert_close(places[0], torch.arange(30, dtype=torch.float64))


def test_deltas_stretch_with_their_energies_and_other_features_stay() -> None:
    settings = FeatureSettings(sample_rate=8000, n_mels=11, deltas=1, zero_crossings=True, normalise="none")
    x = torch.randn(3, 7, settings.n_features)
    changed = stretch_frequencies(x, 0.2, settings, torch.Generator().manual_seed(4))
    energies = stretch_frequencies(
        x[..., :11], 0.2, FeatureSettings(sample_rate=8000, n_mels=11, normalise="none"), torch.Generator().manual_seed(4)
    )
    deltas = stretch_frequencies(
        x[..., 12:23], 0.2, FeatureSettings(sample_rate=8000, n_mels=11, normalise="none"), torch.Generator().manual_seed(4)
    )
    torch.testing.assert_close(changed[..., :11], energies)
    torch.testing.assert_close(changed[..., 12:23], deltas)
    torch.testing.assert_close(changed[..., [11, 23]], x[..., [11, 23]])
    assert not torch.equal(changed, x)


def test_each_row_has_a_factor_of_its_own() -> None:
    x = torch.randn(1, 5, 30).expand(2, -1, -1)
    first, second = stretch_frequencies(x, 0.2, SETTINGS, torch.Generator().manual_seed(1))
    assert not torch.equal(first, second)
