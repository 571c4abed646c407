"""Means and deviations that features are brought to 0 and 1 by, and the statistics they rest on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy_waves import RICH, SMALL, close, hops_of, int16, noise, raw, tone

from heed.data.features import PRIOR_FRAMES, Features
from heed.errors import ConfigError, DataError


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
