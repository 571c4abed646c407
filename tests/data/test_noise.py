from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from heed.data.audio import from_hops, to_hops
from heed.data.noise import (
    HIGHEST_PEAK,
    NoiseSource,
    babble,
    change_speed,
    change_tone,
    change_volume,
    disturbed,
    hum,
    mix_at_snr,
    mixed_examples,
    pink,
    surrounded,
    white,
)
from heed.errors import DataError

RATE = 8000
Wave = np.ndarray[Any, Any]
STEADY_NOISES: dict[str, Callable[[int, np.random.Generator], Wave]] = {
    "white": white,
    "pink": pink,
    "hum": lambda n, draw: hum(n, RATE, draw),
}


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sine(hertz: float, n: int, loudness: float = 0.5) -> Wave:
    return (loudness * np.sin(2 * np.pi * hertz * np.arange(n) / RATE)).astype(np.float32)


def power(wave: Wave) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64)))


def decibels(of: Wave, to: Wave) -> float:
    return 10 * np.log10(power(of) / power(to))


def loudest_hertz(wave: Wave) -> float:
    """Return the frequency of a sine, to a hundredth of one bin."""
    n = 100 * len(wave)
    return float(np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave)), n)))) * RATE / n


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.0, 1.1, 1.25])
def test_speed_changes_length_and_pitch_by_the_same_factor(factor: float) -> None:
    wave = change_speed(sine(440, 8000), factor)
    assert wave.dtype == np.float32
    assert len(wave) == pytest.approx(8000 / factor, abs=1)
    assert loudest_hertz(wave) == pytest.approx(440 * factor, abs=0.1)
    middle = slice(500, -500)
    np.testing.assert_allclose(wave[middle], sine(440 * factor, len(wave))[middle], atol=1e-4)


@pytest.mark.parametrize("change", [-40.0, -3.0, 0.0, 5.9])
def test_volume_changes_by_the_decibels_asked_for(change: float) -> None:
    wave = sine(440, 800)
    assert decibels(change_volume(wave, change), wave) == pytest.approx(change, abs=1e-3)


@pytest.mark.parametrize("loudness", [0.5, 1.0, 3.0])
def test_a_louder_wave_is_never_clipped(loudness: float) -> None:
    louder = change_volume(sine(440, 800, loudness), 30)
    assert np.abs(louder).max() == pytest.approx(HIGHEST_PEAK)
    np.testing.assert_allclose(from_hops(to_hops(louder, 8)), louder, atol=0.51 / 2**15)
    assert decibels(louder, sine(440, 800, HIGHEST_PEAK)) == pytest.approx(0, abs=0.01)


def test_silence_stays_silent_however_loud() -> None:
    assert not change_volume(np.zeros(5, dtype=np.float32), 30).any()


@pytest.mark.parametrize("noise", STEADY_NOISES)
@pytest.mark.parametrize("n", [0, 1, 2, 5, 8000])
def test_steady_noise_has_the_length_asked_for_and_unit_power(noise: str, n: int) -> None:
    wave = STEADY_NOISES[noise](n, drawn())
    assert (wave.dtype, wave.shape) == (np.float32, (n,))
    if n:
        assert power(wave) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("noise", STEADY_NOISES)
def test_noise_is_drawn_from_the_generator_alone(noise: str) -> None:
    make = STEADY_NOISES[noise]
    np.testing.assert_array_equal(make(64, drawn(1)), make(64, drawn(1)))
    assert not np.array_equal(make(64, drawn(1)), make(64, drawn(2)))


@pytest.mark.parametrize(("noise", "slope"), [("white", 0.0), ("pink", -1.0)])
def test_power_falls_with_frequency_as_the_colour_says(noise: str, slope: float) -> None:
    n = 1 << 16
    spectrum = np.square(np.abs(np.fft.rfft(STEADY_NOISES[noise](n, drawn()))))
    edges = 2 ** np.arange(6, 15)  # octaves
    densities = [spectrum[low : 2 * low].mean() for low in edges]
    assert np.polyfit(np.log(edges), np.log(densities), 1)[0] == pytest.approx(slope, abs=0.05)


def test_hum_is_mains_and_its_overtones_and_nothing_else() -> None:
    found = set()
    for seed in range(8):
        spectrum = np.square(np.abs(np.fft.rfft(hum(RATE, RATE, drawn(seed)))))  # one second, so that bins are hertz
        loud = np.flatnonzero(spectrum > 1e-9 * spectrum.sum())
        mains = 50 if not (loud % 50).any() else 60
        found.add(mains)
        assert not (loud % mains).any()
        assert 1 < len(loud) <= 8
    assert found == {50, 60}


def test_hum_has_nothing_that_the_rate_cannot_hold() -> None:
    for seed in range(6):
        spectrum = np.square(np.abs(np.fft.rfft(hum(300, 300, drawn(seed)))))
        assert set(np.flatnonzero(spectrum > 1e-9 * spectrum.sum())) <= {50, 60, 100, 120}


def test_babble_of_one_voice_is_that_voice_from_a_drawn_place_on() -> None:
    voice = (np.arange(1, 12) / 40).astype(np.float32)
    heard = babble([voice], 11, drawn())
    turns = [np.roll(voice, -turn) / np.sqrt(power(voice)) for turn in range(11)]
    assert sum(np.allclose(heard, turn, rtol=1e-5) for turn in turns) == 1
    twice = babble([voice], 22, drawn())
    np.testing.assert_array_equal(twice[:11], twice[11:])


def test_babble_has_every_voice_as_loud_as_the_others() -> None:
    voices = [sine(hertz, 8000, loudness) for hertz, loudness in [(300, 0.01), (500, 0.9), (700, 0.2)]]
    heard = babble([*voices, np.zeros(8000, dtype=np.float32)], 8000, drawn())
    assert (heard.dtype, power(heard)) == (np.float32, pytest.approx(1, abs=1e-5))
    spectrum = np.square(np.abs(np.fft.rfft(heard)))
    shares = spectrum[[300, 500, 700]] / spectrum.sum()
    np.testing.assert_allclose(shares, 1 / 3, atol=1e-4)


@pytest.mark.parametrize("waves", [[], [np.zeros(5, dtype=np.float32)], [np.zeros(0, dtype=np.float32)]])
def test_babble_of_nobody_is_refused(waves: list[Wave]) -> None:
    with pytest.raises(DataError, match=f"of {len(waves)} given none holds any sound"):
        babble(waves, 7, drawn())


@given(
    snr=st.floats(0, 60),
    n=st.integers(1, 300),
    n_noise=st.integers(1, 700),
    loudness=st.floats(1e-3, 0.1),
    start=st.none() | st.integers(0, 900),
)
def test_noise_lies_as_far_below_speech_as_asked(snr: float, n: int, n_noise: int, loudness: float, start: int | None) -> None:
    draw = drawn()
    wave = (loudness * draw.uniform(-1, 1, n)).astype(np.float32)
    mixture = mix_at_snr(wave, 5 * pink(n_noise, draw), snr, start=draw if start is None else start)
    assert (mixture.dtype, mixture.shape) == (np.float32, wave.shape)
    assert decibels(wave, mixture - wave) == pytest.approx(snr, abs=0.1)


@pytest.mark.parametrize("snr", [20, 10, 5, 0, -5])
def test_the_level_is_exact_where_wave_and_noise_can_be_told_apart(snr: float) -> None:
    wave, noise = sine(400, 4000, 0.1), sine(1000, 4000, 0.7)
    spectrum = np.square(np.abs(np.fft.rfft(mix_at_snr(wave, noise, snr))))
    assert 10 * np.log10(spectrum[200] / spectrum[500]) == pytest.approx(snr, abs=0.01)


def test_a_mixture_that_would_clip_is_made_softer_as_a_whole() -> None:
    wave, noise = sine(400, 4000, 0.9), sine(1000, 4000)
    mixture = mix_at_snr(wave, noise, 0)
    assert np.abs(mixture).max() == pytest.approx(HIGHEST_PEAK)
    spectrum = np.square(np.abs(np.fft.rfft(mixture)))
    assert spectrum[200] == pytest.approx(spectrum[500], rel=1e-3)
    assert spectrum[200] < np.square(np.abs(np.fft.rfft(wave)))[200]


def test_noise_too_short_begins_again_and_noise_too_long_is_cut_where_it_is_said() -> None:
    wave = np.array([0.1, -0.1] * 4, dtype=np.float32)
    short, long = np.array([1, 2, 3], dtype=np.float32), np.arange(1, 21, dtype=np.float32)
    for noise, start in [(short, 0), (short, 2), (long, 0), (long, 12)]:
        added = mix_at_snr(wave, noise, 10, start=start) - wave
        expected = np.array([noise[(start + i) % len(noise)] for i in range(8)])
        np.testing.assert_allclose(added / added[0], expected / expected[0], rtol=1e-4)


def test_a_drawn_place_lies_anywhere_in_long_noise_and_never_across_its_end() -> None:
    wave = np.array([0.1, -0.1], dtype=np.float32)
    noise = np.array([1, 2, 4, 8, 16], dtype=np.float32)
    draw = drawn()
    ratios = {round(float(np.divide(*(mix_at_snr(wave, noise, 0, start=draw) - wave))), 3) for _ in range(40)}
    assert ratios == {0.5}
    firsts = {int(np.argmax(mix_at_snr(wave, np.eye(5, dtype=np.float32)[2], 0, start=draw) - wave)) for _ in range(40)}
    assert firsts == {0, 1}


def test_a_silent_wave_gets_noise_at_40_decibels_below_full_scale() -> None:
    for snr in (0, 20):
        mixture = mix_at_snr(np.zeros(4000, dtype=np.float32), white(4000, drawn()), snr)
        assert 10 * np.log10(power(mixture)) == pytest.approx(-40, abs=0.01)


@pytest.mark.parametrize("noise", [np.zeros(5, dtype=np.float32), np.zeros(0, dtype=np.float32)])
def test_silent_noise_changes_nothing(noise: Wave) -> None:
    wave = sine(440, 80)
    np.testing.assert_array_equal(mix_at_snr(wave, noise, 0, start=drawn()), wave)


def test_a_wave_of_no_samples_stays_one() -> None:
    assert mix_at_snr(np.zeros(0, dtype=np.float32), white(5, drawn()), 0).shape == (0,)


def test_a_steady_source_makes_all_three_noises_of_unit_power() -> None:
    source, draw = NoiseSource.named("steady", RATE), drawn()
    kinds = set()
    for _ in range(30):
        wave = source(RATE, draw)
        assert power(wave) == pytest.approx(1, abs=1e-5)
        spectrum = np.square(np.abs(np.fft.rfft(wave)))
        loud = np.flatnonzero(spectrum > 1e-9 * spectrum.sum())
        kinds.add("hum" if len(loud) <= 8 else "pink" if spectrum[:100].sum() > spectrum[-1000:].sum() else "white")
    assert kinds == {"white", "pink", "hum"}


def test_a_recording_of_noise_is_brought_to_the_rate_and_cut_at_drawn_places(tmp_path: Path) -> None:
    path = tmp_path / "fan.wav"
    soundfile.write(path, sine(440, RATE), 2 * RATE)  # so it is a sine of 880 Hz
    source, draw = NoiseSource.named(str(path), RATE), drawn()
    cuts = [source(500, draw) for _ in range(5)]
    assert all(loudest_hertz(cut) == pytest.approx(880, abs=3) for cut in cuts)
    assert all(power(cut) == pytest.approx(1, abs=1e-5) for cut in cuts)
    assert len({tuple(cut) for cut in cuts}) == 5


def test_a_recording_of_silence_is_no_noise(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "quiet.wav", np.zeros(50), RATE)
    with pytest.raises(DataError, match=r"quiet\.wav: holds nothing but silence; expected a recording of noise, or steady"):
        NoiseSource.named(str(tmp_path / "quiet.wav"), RATE)
    with pytest.raises(DataError, match="no such file"):
        NoiseSource.named(str(tmp_path / "steedy"), RATE)


def test_nobody_speaking_is_digital_silence_or_soft_noise() -> None:
    source, draw = NoiseSource(RATE), drawn()
    levels = [10 * np.log10(power(source.alone(800, draw)) or 1e-30) for _ in range(200)]
    soft = [level for level in levels if level > -300]
    assert 0.15 < 1 - len(soft) / 200 < 0.35
    assert -70.1 < min(soft) < -60
    assert -40 < max(soft) < -29.9


def test_another_microphone_changes_frequencies_within_what_is_asked_for_and_moves_nothing() -> None:
    draw = drawn()
    changes: dict[float, list[float]] = {hertz: [] for hertz in (200.0, 1000.0, 3000.0)}
    for _ in range(60):
        for hertz, seen in changes.items():
            wave = sine(hertz, 8000, 0.1)
            changed = change_tone(wave, RATE, 12.0, draw)
            middle = slice(2000, 6000)
            seen.append(decibels(changed[middle], wave[middle]))
            assert np.corrcoef(changed[middle], wave[middle])[0, 1] > 0.999
    for seen in changes.values():
        assert -12.1 < min(seen) < -6
        assert 6 < max(seen) < 12.1


def test_a_flat_microphone_changes_nothing() -> None:
    wave = sine(440, 803, 0.3) + sine(1700, 803, 0.2)
    np.testing.assert_allclose(change_tone(wave, RATE, 0.0, drawn()), wave, atol=1e-6)


def test_what_another_microphone_hears_stays_within_the_range() -> None:
    draw = drawn()
    assert max(np.abs(change_tone(sine(440, 800, 0.99), RATE, 30.0, draw)).max() for _ in range(20)) <= HIGHEST_PEAK


@pytest.mark.parametrize("loudness", [0.5, 0.01])
def test_what_is_heard_before_and_behind_a_wave_is_much_softer_and_of_any_length_up_to_the_longest(loudness: float) -> None:
    wave, draw, longest = sine(440, 800, loudness), drawn(), 400
    before, behind = [], []
    for _ in range(80):
        found = surrounded(wave, draw, longest, NoiseSource(RATE))
        places = np.flatnonzero(np.all(np.lib.stride_tricks.sliding_window_view(found, len(wave)) == wave, axis=1))
        assert len(places) == 1
        before.append(int(places[0]))
        behind.append(len(found) - len(wave) - before[-1])
        quiet = np.concatenate([found[: before[-1]], found[before[-1] + len(wave) :]])
        if len(quiet) and power(quiet):
            assert decibels(wave, quiet) > min(19, 10 * np.log10(power(wave)) + 69)  # never below the softest noise there is
    for lengths in (before, behind):
        assert min(lengths) < 40
        assert 360 < max(lengths) <= longest
    assert abs(np.corrcoef(before, behind)[0, 1]) < 0.3


def test_noise_is_as_far_below_the_speech_whatever_quiet_stands_around_it() -> None:
    wave = sine(440, 800)
    options: dict[str, Any] = {"quiet": 4000, "room": NoiseSource(RATE)}
    for seed in range(20):
        plain = disturbed(wave, drawn(seed), **options)
        noisy = disturbed(wave, drawn(seed), noise=NoiseSource(RATE), noise_db=(10, 10), **options)
        scale = float(noisy @ plain / (plain @ plain)) if np.abs(noisy).max() >= HIGHEST_PEAK - 1e-6 else 1.0
        assert decibels(wave, noisy / scale - plain) == pytest.approx(10, abs=0.3 if scale != 1.0 else 0.01)


def test_nothing_is_disturbed_unless_it_is_asked_for() -> None:
    wave = sine(440, 800)
    np.testing.assert_array_equal(disturbed(wave, drawn()), wave)


def test_disturbed_waves_vary_within_what_is_asked_for() -> None:
    wave, draw = sine(440, 8000, 0.1), drawn()
    factors = [8000 / len(disturbed(wave, draw, speed=0.1)) for _ in range(60)]
    assert 0.9 <= min(factors) < 0.92
    assert 1.08 < max(factors) <= 1.1002
    changes = [decibels(disturbed(wave, draw, volume_db=6), wave) for _ in range(60)]
    assert -6.001 <= min(changes) < -5
    assert 5 < max(changes) <= 6.001
    levels = [decibels(wave, disturbed(wave, draw, noise=NoiseSource(RATE), noise_db=(5, 15)) - wave) for _ in range(60)]
    assert 4.99 < min(levels) < 6.5
    assert 13.5 < max(levels) < 15.01


def test_everything_at_once_depends_on_the_generator_alone() -> None:
    options: dict[str, Any] = {"speed": 0.2, "volume_db": 9.0, "noise": NoiseSource(RATE), "noise_db": (0.0, 3.0)}
    first, again, other = (disturbed(sine(440, 800), drawn(seed), **options) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_examples_get_white_noise_or_the_babble_of_the_others() -> None:
    waves = [sine(hertz, n, 0.1) for hertz, n in [(400, 4000), (600, 2000), (1000, 8000)]]
    for kind in ("white", "babble"):
        noisy = mixed_examples(waves, kind, 5, 6, drawn())
        assert [decibels(wave, mixture - wave) for wave, mixture in zip(waves, noisy, strict=True)] == pytest.approx([5] * 3, abs=0.1)
    spectrum = np.square(np.abs(np.fft.rfft(mixed_examples(waves, "babble", 5, 6, drawn())[0] - waves[0])))
    np.testing.assert_allclose(spectrum[[300, 500]] / spectrum.sum(), 0.5, atol=0.01)  # 600 and 1000 Hz, and nothing of its own
    one_voice = np.square(np.abs(np.fft.rfft(mixed_examples(waves, "babble", 5, 1, drawn())[0] - waves[0])))
    assert one_voice[[300, 500]].max() > 0.99 * one_voice.sum()


def test_a_lonely_recording_has_no_babble() -> None:
    with pytest.raises(DataError, match="babble is made of other recordings"):
        mixed_examples([sine(400, 80)], "babble", 5, 6, drawn())
