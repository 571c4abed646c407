"""Features of a stream are those of the whole wave, as soon as they can be known."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_waves import FITTED, RICH, SMALL, hops_of, int16, noise, streamed

from heed.data.feature_settings import FeatureSettings
from heed.data.features import DELTA_REACH, Features, FeatureStream
from heed.errors import ConfigError


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


@pytest.mark.parametrize(
    "settings", [SMALL, replace(SMALL, deltas=1, without_level=True), RICH], ids=lambda settings: f"{settings.deltas} deltas"
)
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


def test_a_stream_has_no_loudest_yet() -> None:
    with pytest.raises(ConfigError, match=r"task\.range_db needs the loudest of the whole utterance"):
        FeatureStream(Features(replace(SMALL, range_db=40.0)))
