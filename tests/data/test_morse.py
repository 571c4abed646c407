"""Morse code: timing by the recommendation, noise of the stated level, different messages in every split."""

from pathlib import Path

import numpy as np
import pytest

from heed.data.audio import read_audio
from heed.data.morse import (
    BAND_HZ,
    CODE,
    LONGEST_CHARACTERS,
    SAMPLE_RATE,
    WORDS_A_MINUTE,
    Hand,
    envelope,
    fading,
    keying,
    messages,
    transmitted,
    write_morse,
)
from heed.data.read import read_examples


def exact(words_a_minute: float = 20.0) -> Hand:
    """Return a machine's hand."""
    return Hand(words_a_minute, 600.0, dash=3.0, letter_gap=3.0, word_gap=7.0, jitter=0.0)


def test_paris_and_the_space_behind_it_are_fifty_dots() -> None:
    spans = list(keying("PARIS PARIS", exact(), np.random.default_rng(0)))
    down_and_up = [seconds / exact().dot_seconds for _, seconds in spans]
    assert sum(down_and_up) == pytest.approx(2 * 50 - 7)
    assert 60 / (50 * exact().dot_seconds) == pytest.approx(20)


def test_elements_letters_and_words_are_one_three_and_seven_dots_apart() -> None:
    spans = [(down, round(seconds / exact().dot_seconds, 6)) for down, seconds in keying("AN T", exact(), np.random.default_rng(0))]
    dot, dash, one, three, seven = (True, 1), (True, 3), (False, 1), (False, 3), (False, 7)
    assert spans == [dot, one, dash, three, dash, one, dot, seven, dash]


def test_no_two_characters_have_one_code() -> None:
    assert len(set(CODE.values())) == len(CODE)
    assert all(set(code) <= set(".-") for code in CODE.values())


def test_a_human_hand_is_uneven_and_an_exact_one_is_not() -> None:
    human = Hand(20.0, 600.0, 3.0, 3.0, 7.0, jitter=0.1)
    dots = {seconds for down, seconds in keying("EEEE", human, np.random.default_rng(1)) if down}
    assert len(dots) == 4
    assert len({seconds for down, seconds in keying("EEEE", exact(), np.random.default_rng(1)) if down}) == 1


@pytest.mark.parametrize("decibels", [-3.0, 0.0, 12.0])
def test_noise_has_the_stated_level_in_the_band(decibels: float, monkeypatch: pytest.MonkeyPatch) -> None:
    text, hand = "PARIS " * 20, exact(12.0)
    monkeypatch.setattr("heed.data.morse.FADING_DECIBELS", 0.0)
    draws = [np.random.default_rng(3) for _ in range(2)]
    noisy = transmitted(text, hand, decibels, draws[0])
    spectrum = np.abs(np.fft.rfft(noisy)) ** 2
    hertz = np.fft.rfftfreq(len(noisy), 1 / SAMPLE_RATE)
    quiet = (hertz > 1000) & (hertz < 1900)  # noise alone
    noise_in_band = spectrum[quiet].mean() * ((hertz > 0) & (hertz < BAND_HZ)).sum()
    tone = spectrum[np.abs(hertz - hand.tone_hz) < 100].sum() - spectrum[quiet].mean() * (np.abs(hertz - hand.tone_hz) < 100).sum()
    shape = envelope(text, hand, draws[1])
    down = np.flatnonzero(shape > 0.1)
    sent = (down[-1] + 1 - down[0]) / len(shape)  # share of the time
    found = 10 * np.log10(tone / sent / noise_in_band)
    assert found == pytest.approx(decibels, abs=0.5)


def test_fading_is_a_factor_between_the_deepest_and_one() -> None:
    factor = fading(8 * SAMPLE_RATE, np.random.default_rng(2))
    assert factor.max() <= 1
    assert factor.min() >= 10 ** (-8.0 / 20) - 1e-6


def test_messages_differ_fit_and_can_be_keyed() -> None:
    first = messages(300, "1:train")
    second = messages(100, "1:held out", first)
    assert len({*first, *second}) == 400
    assert all(len(text) <= LONGEST_CHARACTERS and set(text) <= {*CODE, " "} and text == " ".join(text.split()) for text in first + second)
    assert messages(300, "1:train") == first
    assert messages(300, "2:train") != first


def test_quick_hands_let_each_speed_be_heard_for_as_long() -> None:
    draw = np.random.default_rng(7)
    dots = np.array([Hand.drawn(draw, quick=True).dot_seconds for _ in range(20_000)])
    middle = sum(WORDS_A_MINUTE) / 2
    slow = dots[dots > 1.2 / middle].sum()
    assert abs(slow / dots.sum() - 0.5) < 0.02
    assert WORDS_A_MINUTE[0] <= 1.2 / dots.max()
    assert 1.2 / dots.min() <= WORDS_A_MINUTE[1]


def test_the_first_training_messages_are_quick_even_and_clear_and_noise_grows_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heed.data.morse.N_QUICK", 12)
    monkeypatch.setattr("heed.data.morse.N_CLEAR", 8)
    monkeypatch.setattr("heed.data.morse.N_DIMMED", 6)
    paths = write_morse(tmp_path / "morse", n_train=40, n_valid=2, n_test=2)
    rows = list(read_examples(str(paths["train"]), required={"audio": "audio", "text": "transcript"}))
    texts, speeds, levels = [row["text"] for row in rows], [float(row["speed"]) for row in rows], [float(row["level"]) for row in rows]
    assert [len(text) for text in texts[:8]] == sorted(len(text) for text in texts[:8])
    assert min(speeds[:12]) >= 28
    assert min(speeds[12:]) < 28
    assert min(levels[:8]) >= 15
    middle = [(clear + noisy) / 2 for clear, noisy in zip((15.0, 25.0), (-2.0, 3.0), strict=True)]
    assert levels[10] >= middle[0] - 0.1  # the eleventh, of which half the way is done
    assert min(levels[14:]) < 6
    assert sorted(texts) == sorted(messages(40, "1:train"))


def test_what_is_written_is_read_as_speech_and_written_once(tmp_path: Path) -> None:
    paths = write_morse(tmp_path / "morse", n_train=4, n_valid=2, n_test=2)
    rows = {name: list(read_examples(str(path), required={"audio": "audio", "text": "transcript"})) for name, path in paths.items()}
    assert [len(rows[name]) for name in ("train", "valid", "test")] == [4, 2, 2]
    assert {row["level"] for row in rows["test"]} == {"0.0"}
    wave = read_audio(rows["train"][0]["audio"])
    assert wave.sample_rate == SAMPLE_RATE
    assert 0.2 < np.abs(wave.samples).max() < 1
    before = paths["train"].stat().st_mtime_ns
    write_morse(tmp_path / "morse", n_train=4, n_valid=2, n_test=2)
    assert paths["train"].stat().st_mtime_ns == before
