"""Settings of features that cannot be are refused, by their path and with what can be."""

import math
from dataclasses import replace
from typing import Any

import pytest

from heed.data import feature_settings as module
from heed.data.feature_settings import FeatureSettings
from heed.data.features import mel_filters
from heed.errors import ConfigError

PLAIN = FeatureSettings(16_000, normalise="none")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"window": "flat"}, r"task.window='flat' is not one of hann, hamming"),
        ({"kind": "mel"}, r"task.features='mel' is not one of log_mel, mfcc"),
        ({"normalise": True}, r"task.normalise=True is not one of none, utterance, global, running"),
        ({"deltas": 3}, r"task.deltas=3 is not one of 0, 1, 2"),
        ({"sample_rate": 999}, r"task.sample_rate=999 is not 1000 to"),
        ({"frame_ms": 0}, r"task.frame_ms=0 is not above 0"),
        ({"frame_ms": math.nan}, r"task.frame_ms=nan is not above 0"),
        ({"frame_ms": 1001}, r"task.frame_ms=1001 is not above 0 and up to 1000"),
        ({"hop_ms": 0}, r"task.hop_ms=0 is not above 0"),
        ({"hop_ms": 26}, r"task.hop_ms=26 is not above 0 and up to task.frame_ms=25"),
        ({"hop_ms": 1e-9}, r"task.hop_ms=1e-09 is 1.6e-08 samples at task.sample_rate=16000, not a whole"),
        (
            {"sample_rate": 22050},
            r"task.hop_ms=10 is 220.5 samples at task.sample_rate=22050, not a whole number; choose a multiple of 20 ms",
        ),
        ({"n_mels": 0}, r"task.n_mels=0 is not 1 to"),
        ({"n_mels": 10**9}, r"task.n_mels=1000000000 is not 1 to"),
        ({"n_mels": 111}, r"task.n_mels=111 is too many: band \d+, .* Hz, lies between .* \(every 40 Hz\); lower it to 110, or raise"),
        ({"kind": "mfcc", "n_mfcc": 81}, r"task.n_mfcc=81 is not 1 to task.n_mels=80"),
        ({"kind": "mfcc", "n_mfcc": 0}, r"task.n_mfcc=0 is not 1 to task.n_mels=80"),
        ({"n_mfcc": 20}, r"task.n_mfcc=20 would be ignored by task.features=log_mel"),
        ({"lowest_hz": -1}, r"task.lowest_hz=-1 and task.highest_hz=8000 are not in order"),
        ({"lowest_hz": 300, "highest_hz": 300}, r"task.lowest_hz=300 and task.highest_hz=300 are not in order"),
        ({"highest_hz": 8001}, r"task.highest_hz=8001 are not in order between 0 and 8000 Hz"),
        ({"highest_hz": math.nan}, r"are not in order"),
        ({"n_mels": 1, "lowest_hz": 40, "highest_hz": 80}, r"task.n_mels=1 is too many: band 1, 40.0 to 80.0 Hz"),
        ({"n_mels": 1, "lowest_hz": 0, "highest_hz": 39}, r"task.n_mels=1 is too many: band 1, 0.0 to 39.0 Hz"),
        ({"n_mels": 1, "lowest_hz": 41, "highest_hz": 79}, r"task.n_mels=1 is too many: band 1, 41.0 to 79.0 Hz.*; raise task.frame_ms"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused_by_their_path(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        replace(PLAIN, **changes)


@pytest.mark.parametrize(("rate", "frame_ms"), [(4000, 25), (8000, 25), (16_000, 20), (48_000, 25)])
def test_the_number_of_bands_that_is_advised_is_the_most_that_fit(rate: int, frame_ms: float) -> None:
    settings = FeatureSettings(rate, frame_ms=frame_ms, n_mels=20)
    with pytest.raises(ConfigError) as refused:
        replace(settings, n_mels=500)
    advised = int(str(refused.value).split("lower it to ")[1].split(",")[0])
    assert mel_filters(replace(settings, n_mels=advised)).sum(0).min() > 0
    with pytest.raises(ConfigError, match=rf"lower it to {advised},"):
        replace(settings, n_mels=advised + 1)


def test_bands_are_refused_exactly_where_one_would_hold_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = set()
    for n in range(90, 130):
        try:
            replace(PLAIN, n_mels=n)
        except ConfigError:
            refused.add(n)
    monkeypatch.setattr(module, "_empty_band", lambda bins, edges: None)
    assert refused == {n for n in range(90, 130) if mel_filters(replace(PLAIN, n_mels=n)).sum(0).min() == 0}
    assert refused
