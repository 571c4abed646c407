"""Sound made worse on purpose: other speeds, other volumes, and noise at a stated level below speech.

Waves are float32 samples (n,) between -1 and 1, in and out; whatever is drawn by chance comes from the generator that is given. Speed and
pitch change together, as on a tape (Ko et al. 2015, Audio Augmentation for Speech Recognition). Left out: rooms and their echoes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from heed.data.audio import FULL_SCALE, Samples, read_audio, resampled
from heed.errors import DataError

HIGHEST_PEAK = 1 - 1 / FULL_SCALE  # the largest 16-bit sample, so that `to_hops` has nothing to clip
SILENT_REFERENCE = 10 ** (-40 / 20)  # level of noise where there is no speech to compare with: 40 dB below full scale
LOWEST_OCTAVE_HERTZ = 60.0  # below it microphones differ as they do there
MAINS_HERTZ = (50, 60)
HUM_HARMONICS = 8
STEADY = "steady"
ALONE_DECIBELS = (-70.0, -30.0)  # of full scale: from what a quiet room leaves to a loud fan beside the microphone
SILENT_SHARE = 0.25  # of what is heard with nobody speaking: digital silence, as a muted microphone sends
QUIET_DECIBELS = 20.0  # below speech: what is heard before and behind it is softer by at least as much

Floats = np.ndarray[Any, np.dtype[np.float64]]
Draw = np.random.Generator


def change_speed(wave: Samples, factor: float) -> Samples:
    """Return a wave (n,) played `factor` times as fast, (n / factor,), so that pitch rises with speed; raises MissingExtra."""
    return wave if factor == 1 else resampled(wave, factor, 1.0)


def change_volume(wave: Samples, decibels: float) -> Samples:
    """Return a wave louder by so many decibels, or by as many as leave its peak below 1, so that nothing is clipped."""
    peak = _peak(wave)
    gain = 10 ** (decibels / 20)
    return _scaled(wave, min(gain, HIGHEST_PEAK / peak) if peak else gain)


def change_tone(wave: Samples, sample_rate: int, decibels: float, draw: Draw) -> Samples:
    """Return a wave (n,) as through another microphone: each frequency up to so many decibels louder or softer, smoothly.

    A gain is drawn for each octave from LOWEST_OCTAVE_HERTZ up, and drawn through in between on a logarithmic axis; phases stay. A wave
    that would leave the range of 16-bit samples is made softer as a whole.
    """
    octaves = np.arange(max(2, int(np.log2(sample_rate / 2 / LOWEST_OCTAVE_HERTZ)) + 2))
    gains = draw.uniform(-decibels, decibels, len(octaves))
    padded = 1 << (len(wave) + sample_rate // 10).bit_length()  # what rings beyond the end does not come round to the beginning
    octave = np.log2(np.maximum(np.fft.rfftfreq(padded, 1 / sample_rate), 1.0) / LOWEST_OCTAVE_HERTZ)
    curve = 10 ** (np.interp(octave, octaves, gains) / 20)
    changed = np.fft.irfft(np.fft.rfft(wave, padded) * curve, padded)[: len(wave)]
    return _scaled(changed, min(1.0, HIGHEST_PEAK / (_peak(changed) or 1.0)))


def white(n: int, draw: Draw) -> Samples:
    """Return noise (n,) of unit power with equal power at all frequencies."""
    return _of_unit_power(draw.standard_normal(n))


def pink(n: int, draw: Draw) -> Samples:
    """Return noise (n,) of unit power with equal power in every octave: power falls with frequency."""
    padded = 1 << max(n - 1, 1).bit_length()  # lengths with large prime factors are slow to transform
    spectrum = np.fft.rfft(draw.standard_normal(padded))
    falling = 1 / np.sqrt(np.maximum(np.arange(len(spectrum)), 1))
    return _of_unit_power(np.fft.irfft(spectrum * falling, padded)[:n])


def hum(n: int, sample_rate: int, draw: Draw) -> Samples:
    """Return the hum (n,) of mains of 50 or 60 Hz and its overtones, of unit power; their loudness and phases are drawn."""
    mains = int(draw.choice(MAINS_HERTZ))
    orders = np.arange(1, HUM_HARMONICS + 1)
    loudness = draw.random(HUM_HARMONICS) / orders * (orders * mains < sample_rate / 2)
    phasors = loudness * np.exp(2j * np.pi * draw.random(HUM_HARMONICS))
    turning = np.exp(2j * np.pi * mains / sample_rate * np.arange(n))  # whose powers are the overtones
    return _of_unit_power(np.polynomial.polynomial.polyval(turning, [0, *phasors]).imag)


def babble(waves: Sequence[Samples], n: int, draw: Draw) -> Samples:
    """Return many voices at once (n,), of unit power: each wave equally loud, from a drawn place on, and again from its beginning.

    Raises:
        DataError: there are no waves, or they are all silent.
    """
    voices = [wave for wave in waves if _power(wave)]
    if not voices:
        raise DataError(f"babble is made of other recordings, but of {len(waves)} given none holds any sound; give some with speech")
    return _of_unit_power(sum((_of_unit_power(_fitted(voice, n, draw)) for voice in voices), np.zeros(n)))


def mix_at_snr(wave: Samples, noise: Samples, decibels: float, *, start: int | Draw = 0, speech: Samples | None = None) -> Samples:
    """Return a wave with noise so many decibels below it: 10 log10(power of the wave / power of the noise as added).

    Powers are means over all samples. A silent wave gets noise of 40 dB below full scale; silent noise changes nothing. A mixture that
    would leave the range of 16-bit samples is made softer as a whole.

    Args:
        wave: (n,).
        noise: (m,); as much as is needed is cut out of it, and it begins again where it is too short.
        start: the sample at which the noise begins, or the generator that draws it.
        speech: what the noise is compared with; the wave where it is None.
    """
    added = _fitted(noise, len(wave), start).astype(np.float64)
    speech_power, noise_power = _power(wave if speech is None else speech), _power(added)
    if not noise_power:
        return wave
    level = np.sqrt(speech_power) * 10 ** (-decibels / 20) if speech_power else SILENT_REFERENCE
    mixture = wave + added * (level / np.sqrt(noise_power))
    return _scaled(mixture, min(1.0, HIGHEST_PEAK / (_peak(mixture) or 1.0)))


class NoiseSource:
    """Noise of any length: steady (white, pink or hum, as drawn), or cut out of a recording."""

    def __init__(self, sample_rate: int, recording: Samples | None = None) -> None:
        self.sample_rate, self.recording = sample_rate, recording

    @classmethod
    def named(cls, what: str, sample_rate: int) -> "NoiseSource":
        """Return what a setting names: `steady`, or the path of a recording; raises DataError, for one of silence, too."""
        if what == STEADY:
            return cls(sample_rate)
        recording = read_audio(what, sample_rate=sample_rate).samples
        if not _power(recording):
            raise DataError(f"{what}: holds nothing but silence; expected a recording of noise, or {STEADY}")
        return cls(sample_rate, recording)

    def __call__(self, n: int, draw: Draw) -> Samples:
        """Return noise (n,) of unit power; of a recording, silence where the part that was drawn is silent."""
        if self.recording is not None:
            return _of_unit_power(_fitted(self.recording, n, draw))
        kind = draw.integers(3)
        return hum(n, self.sample_rate, draw) if kind == 2 else (white, pink)[kind](n, draw)

    def alone(self, n: int, draw: Draw, *, loudest: float = ALONE_DECIBELS[1]) -> Samples:
        """Return what a microphone hears (n,) when nobody speaks: digital silence, or noise at a drawn level, in decibels of full scale."""
        if draw.random() < SILENT_SHARE:
            return np.zeros(n, dtype=np.float32)
        return change_volume(self(n, draw), draw.uniform(ALONE_DECIBELS[0], max(ALONE_DECIBELS[0], loudest)))


def surrounded(wave: Samples, draw: Draw, longest: int, room: NoiseSource) -> Samples:
    """Return a wave with up to `longest` samples before it and behind it in which nobody speaks; each number of them is as likely."""
    before, after = (int(draw.integers(longest + 1)) for _ in range(2))
    level = 10 * np.log10(_power(wave) or 1.0)
    quiet = room.alone(before + after, draw, loudest=min(ALONE_DECIBELS[1], level - QUIET_DECIBELS))
    return np.concatenate([quiet[:before], wave, quiet[before:]])


def disturbed(
    wave: Samples,
    draw: Draw,
    *,
    speed: float = 0.0,
    volume_db: float = 0.0,
    equaliser_db: float = 0.0,
    sample_rate: int = 16_000,
    noise: NoiseSource | None = None,
    noise_db: tuple[float, float] = (5.0, 30.0),
    quiet: int = 0,
    room: NoiseSource | None = None,
) -> Samples:
    """Return a wave (n,) changed by chance, for training; its length changes with its speed.

    Args:
        speed: played up to this share faster or slower; 0.1 draws a factor from 0.9 to 1.1.
        volume_db: up to so many decibels louder or softer, the noise with it.
        equaliser_db: frequencies up to so many decibels louder or softer, before noise comes in; see `change_tone`.
        sample_rate: of the wave, for its frequencies.
        noise: what is mixed in; None for nothing.
        noise_db: decibels of speech over noise, drawn from the first to the second.
        quiet: at most so many samples are put before it, and behind it, in which nobody speaks.
        room: what is heard in these.
    Raises:
        MissingExtra: the speed changes and soxr is not installed.
    """
    if speed:
        wave = change_speed(wave, draw.uniform(1 - speed, 1 + speed))
    if equaliser_db:
        wave = change_tone(wave, sample_rate, equaliser_db, draw)
    speech = wave
    if quiet and room is not None:
        wave = surrounded(wave, draw, quiet, room)
    if noise is not None:
        wave = mix_at_snr(wave, noise(len(wave), draw), draw.uniform(*noise_db), speech=speech)
    return change_volume(wave, draw.uniform(-volume_db, volume_db)) if volume_db else wave


def mixed_examples(waves: Sequence[Samples], noise: str, decibels: float, n_voices: int, draw: Draw) -> list[Samples]:
    """Return each wave with `white` noise, or with `babble` of up to `n_voices` of the others, so many decibels below it.

    Raises:
        DataError: babble is asked for, and there are no other waves with speech.
    """
    return [mix_at_snr(wave, _noise_for(index, waves, noise, n_voices, draw), decibels) for index, wave in enumerate(waves)]


def _noise_for(index: int, waves: Sequence[Samples], noise: str, n_voices: int, draw: Draw) -> Samples:
    n = len(waves[index])
    if noise == "white":
        return white(n, draw)
    assert noise == "babble", noise
    others = [other for other in range(len(waves)) if other != index and _power(waves[other])]
    if others:
        others = draw.choice(others, min(n_voices, len(others)), replace=False).tolist()
    return babble([waves[other] for other in others], n, draw)


def _fitted(noise: Samples, n: int, start: int | Draw) -> Samples:
    """Return n samples of noise from a given or drawn place on; it begins again where it ends."""
    if not len(noise):
        return np.zeros(n, dtype=np.float32)
    if isinstance(start, np.random.Generator):
        start = int(start.integers(len(noise) - n + 1 if len(noise) > n else len(noise)))
    return noise[(start + np.arange(n)) % len(noise)]


def _power(wave: Samples | Floats) -> float:
    return float(np.mean(np.square(wave, dtype=np.float64))) if len(wave) else 0.0


def _peak(wave: Samples | Floats) -> float:
    return float(np.abs(wave).max(initial=0.0))


def _of_unit_power(wave: Samples | Floats) -> Samples:
    """Scale a wave so that the mean of its squares is 1; silence stays silence."""
    return _scaled(wave, 1 / np.sqrt(_power(wave) or 1.0))


def _scaled(wave: Samples | Floats, factor: float) -> Samples:
    return (wave * factor).astype(np.float32)
