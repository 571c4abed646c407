import io
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from heed.data.audio import OGG_PAGE_BYTES, Wave, from_hops, pcm_samples, read_audio, to_hops
from heed.errors import DataError, MissingExtra

RATE = 8000
N_SAMPLES = 6101
# Format and subtype, and how far a sample may be off: half a step of rounding and half of scaling, or what listening would not find.
EXACT = {
    ("WAV", "PCM_U8"): 1 / 128,
    ("WAV", "PCM_16"): 2 / 2**16,
    ("WAV", "PCM_24"): 2 / 2**24,
    ("WAV", "PCM_32"): 1e-7,
    ("WAV", "FLOAT"): 0,
    ("WAV", "DOUBLE"): 0,
    ("FLAC", "PCM_16"): 2 / 2**16,
    ("FLAC", "PCM_24"): 2 / 2**24,
}
LOSSY = {("OGG", "VORBIS"): 0.03, ("MP3", "MPEG_LAYER_III"): 0.03}
LOSSY = {form: error for form, error in LOSSY.items() if form[0] in soundfile.available_formats()}
FORMS = [*EXACT, *LOSSY]


def sine(hertz: float, rate: float, n: int) -> np.ndarray[Any, Any]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(n) / rate)


def tones(n: int = N_SAMPLES, n_channels: int = 1) -> np.ndarray[Any, Any]:
    """Return (n, n_channels) of different sines."""
    return np.stack([sine(300 + 170 * channel, RATE, n) for channel in range(n_channels)], axis=1).astype(np.float32)


def content(samples: np.ndarray[Any, Any], form: tuple[str, str] = ("WAV", "PCM_16"), rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form[0], subtype=form[1])
    return file.getvalue()


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_audio(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rms(error: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "said.wav"


@pytest.mark.parametrize(("form", "n_channels"), [(form, n) for form in FORMS for n in (1, 2, 3) if n < 3 or form[0] != "MP3"])
def test_what_is_read_is_the_mean_of_the_channels_that_were_written(tmp_path: Path, form: tuple[str, str], n_channels: int) -> None:
    written = tones(n_channels=n_channels)
    file = tmp_path / f"said.{form[0].lower()}"
    file.write_bytes(content(written, form))
    wave = read_audio(file)
    assert (wave.sample_rate, wave.samples.dtype, wave.samples.shape) == (RATE, np.float32, (N_SAMPLES,))
    assert wave.seconds == N_SAMPLES / RATE
    error = wave.samples - written.mean(axis=1)
    if form in EXACT:
        assert np.abs(error).max() <= EXACT[form] + 1e-7 * (n_channels > 1)
    else:
        assert rms(error) < LOSSY[form]
        assert rms(wave.samples) == pytest.approx(rms(written.mean(axis=1)), rel=0.02)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_bytes_are_read_as_the_file_that_holds_them(path: Path, form: tuple[str, str]) -> None:
    raw = content(tones(), form)
    path.write_bytes(raw)
    expected = read_audio(str(path))
    for source in (raw, bytearray(raw), memoryview(raw)):
        np.testing.assert_array_equal(read_audio(source).samples, expected.samples)


def test_whole_numbers_are_scaled_by_their_range_as_files_of_them_are() -> None:
    short = np.array([-(2**15), -7, 0, 1, 2**15 - 1], dtype=np.int16)
    expected = short / 2**15
    for array in (short, short.astype(np.int32) * 2**16, expected, expected.astype(np.float32), short.astype(">i2")):
        np.testing.assert_array_equal(read_audio(array, given_rate=RATE).samples, expected)
    np.testing.assert_array_equal(read_audio(content(short)).samples, expected)
    small = np.array([0, 1, 128, 255], dtype=np.uint8)
    np.testing.assert_array_equal(read_audio(small, given_rate=RATE).samples, [-1, -127 / 128, 0, 127 / 128])
    signed = np.array([-128, 0, 127], dtype=np.int8)
    np.testing.assert_array_equal(read_audio(signed, given_rate=RATE).samples, [-1, 0, 127 / 128])


def test_an_array_is_read_as_the_file_that_holds_it_whichever_side_its_channels_are_on() -> None:
    frames = tones(n_channels=3)
    expected = read_audio(content(frames, ("WAV", "FLOAT")))
    for array in (frames, frames.T, np.asfortranarray(frames)):
        wave = read_audio(array, given_rate=RATE)
        assert wave.sample_rate == RATE
        np.testing.assert_array_equal(wave.samples, expected.samples)
    few = frames[:2]  # (2, 3): two samples of three channels are as likely as three of two; fewer rows than columns, so channels
    np.testing.assert_allclose(read_audio(few, given_rate=RATE).samples, few.mean(axis=0), rtol=1e-6)
    square = frames[:3]
    np.testing.assert_allclose(read_audio(square, given_rate=RATE).samples, square.mean(axis=1), rtol=1e-6)


def test_an_array_is_taken_to_have_the_rate_that_is_asked_for_unless_its_own_is_given() -> None:
    array = sine(440, 16_000, 1600)
    assert len(read_audio(array, sample_rate=RATE).samples) == 1600
    assert len(read_audio(array, sample_rate=RATE, given_rate=16_000).samples) == 800
    assert read_audio(content(array), given_rate=16_000).sample_rate == RATE
    assert "its sample rate is not given" in refusal(array)
    for rate in (0, -8000, 999, 8000.5, "8000"):
        assert f"its sample rate is {rate!r}; expected" in refusal(array, given_rate=rate)


def test_the_callers_array_is_not_changed_by_changing_the_wave() -> None:
    array = tones()[:, 0]
    copy = array.copy()
    read_audio(array, given_rate=RATE).samples[:] = 0
    np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("old", "new"), [(8000, 16_000), (16_000, 8000), (44_100, 16_000), (48_000, 16_000), (22_050, 8000), (11_025, 16_000)]
)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.75, 0.9])
def test_a_sine_is_the_same_sine_at_another_rate(old: int, new: int, share: float) -> None:
    hertz = share * min(old, new) / 2
    wave = read_audio(2 * sine(hertz, old, 2 * old).astype(np.float32), given_rate=old, sample_rate=new)
    assert wave.sample_rate == new
    assert len(wave.samples) == 2 * new
    middle = slice(new // 10, -new // 10)
    assert rms((wave.samples - 2 * sine(hertz, new, 2 * new))[middle]) < 1e-5


@given(n=st.integers(1, 3000), rates=st.tuples(*[st.sampled_from([8000, 11_025, 16_000, 44_100, 48_000])] * 2))
def test_a_recording_lasts_as_long_at_another_rate(n: int, rates: tuple[int, int]) -> None:
    expected = n * rates[1] / rates[0]
    if expected > 0.5:
        wave = read_audio(np.zeros(n, dtype=np.float32), given_rate=rates[0], sample_rate=rates[1])
        assert len(wave.samples) in {int(np.floor(expected + 0.5)), int(np.ceil(expected - 0.5))}


def test_what_the_new_rate_cannot_hold_is_filtered_out() -> None:
    wave = read_audio(sine(6000, 16_000, 32_000), given_rate=16_000, sample_rate=8000)
    assert rms(wave.samples[800:-800]) < 1e-3


def test_without_a_rate_asked_for_the_files_stays(path: Path) -> None:
    soundfile.write(path, tones(), 11_025)
    assert read_audio(path).sample_rate == 11_025
    resampled = read_audio(path, sample_rate=16_000)
    assert (resampled.sample_rate, len(resampled.samples)) == (16_000, pytest.approx(N_SAMPLES * 16_000 / 11_025, abs=1))


@pytest.mark.parametrize("form", FORMS, ids="-".join)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_file_that_was_cut_off_is_refused(path: Path, form: tuple[str, str], share: float, as_bytes: bool) -> None:
    draw = np.random.default_rng(0)
    raw = content(np.repeat(tones(40_000), 2, axis=0) + draw.normal(0, 0.1, (80_000, 1)), form)
    path.write_bytes(raw[: int(share * len(raw))])
    message = refusal(path.read_bytes(), name=str(path)) if as_bytes else refusal(path)
    assert message.startswith(f"{path}: is cut off ")
    assert message.endswith("; copy or convert it again")
    if form[0] == "OGG":  # whose header does not say how long it is
        readable = float(message.partition("about ")[2].split()[0])
    else:
        readable, announced = (float(message.partition(before)[2].split()[0]) for before in ("damaged: ", "of the "))
        assert announced == 10
    assert 10 * share - 2 < readable < 10 * share + 2


def test_a_wav_file_without_its_last_byte_is_cut_off(path: Path) -> None:
    raw = content(tones())
    path.write_bytes(raw[:-1])
    with pytest.raises(DataError, match=r"is cut off or damaged: 0\.76 of the 0\.76 seconds"):
        read_audio(path)
    assert len(read_audio(raw).samples) == N_SAMPLES


def test_chunks_around_the_samples_of_a_wav_file_do_not_confuse_its_length() -> None:
    raw = content(tones()[:, :1])
    extra = b"note" + struct.pack("<I", 3) + b"abc\0"
    with_notes = raw[:12] + extra + raw[12:] + extra
    with_notes = with_notes[:4] + struct.pack("<I", len(with_notes) - 8) + with_notes[8:]
    np.testing.assert_array_equal(read_audio(with_notes).samples, read_audio(raw).samples)
    assert "is cut off" in refusal(raw[:12] + extra + raw[12:-100])


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000])
def test_a_wav_file_written_to_a_pipe_is_as_long_as_it_is(size: int) -> None:
    raw = content(tones())
    place = raw.index(b"data") + 4
    piped = raw[:place] + struct.pack("<I", size) + raw[place + 4 :]
    np.testing.assert_array_equal(read_audio(piped).samples, read_audio(raw).samples)


def test_a_flac_file_that_does_not_say_how_long_it_is_is_refused() -> None:
    raw = bytearray(content(tones(), ("FLAC", "PCM_16")))
    raw[21] &= 0xF0  # the number of samples: 36 bits of the stream's header
    raw[22:26] = bytes(4)
    assert "its header does not say how long it is" in refusal(bytes(raw))


def test_a_flac_file_that_announces_months_is_refused_without_asking_for_the_memory() -> None:
    raw = bytearray(content(tones(), ("FLAC", "PCM_16")))
    raw[21] |= 0x0F
    assert "is cut off or damaged: 0." in refusal(bytes(raw))


@pytest.mark.skipif("MP3" not in soundfile.available_formats(), reason="this libsndfile knows no MP3")
def test_an_mp3_file_that_announces_years_is_refused_without_asking_for_the_memory() -> None:
    raw = content(tones(40_000), ("MP3", "MPEG_LAYER_III"))
    n_frames = next(raw.index(mark) + 8 for mark in (b"Info", b"Xing") if mark in raw)
    assert "is cut off or damaged: 0.00 of the " in refusal(raw[:n_frames] + b"\x7f\xff\xff\xff" + raw[n_frames + 4 :])


@pytest.mark.skipif("MP3" not in soundfile.available_formats(), reason="this libsndfile knows no MP3")
@pytest.mark.parametrize(
    ("share", "fault"), [(0.01, "is no audio that can be read (it holds no whole frame of sound)"), (0.3, "is cut off or damaged: ")]
)
def test_a_torn_mp3_file_is_told_by_us_and_not_by_its_decoder(share: float, fault: str, capfd: pytest.CaptureFixture[str]) -> None:
    raw = content(tones(40_000), ("MP3", "MPEG_LAYER_III"))
    assert fault in refusal(raw[: round(share * len(raw))])
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


@pytest.mark.parametrize("factor", [32_768.0, 128.0])
def test_floats_of_another_range_are_refused_and_loud_ones_are_not(factor: float) -> None:
    wave = tones(4000) / np.abs(tones(4000)).max()
    with pytest.raises(DataError, match=rf"audio: its samples reach {factor:,.0f}, but floats lie between -1 and 1; divide them"):
        read_audio(wave * factor, given_rate=8000)
    assert "its samples reach" in refusal(content(wave * factor, ("WAV", "FLOAT")))
    assert len(read_audio(wave * 4, given_rate=8000).samples) == 4000


def test_damage_in_the_middle_of_a_flac_file_is_found() -> None:
    raw = bytearray(content(tones(40_000), ("FLAC", "PCM_16")))
    middle = len(raw) // 2
    raw[middle : middle + 40] = bytes(40)
    assert "is cut off or damaged: " in refusal(bytes(raw))


def test_an_ogg_file_of_more_than_one_page_with_something_behind_it_is_whole() -> None:
    raw = content(np.random.default_rng(0).normal(0, 0.1, 400_000), ("OGG", "VORBIS"))
    assert len(raw) > OGG_PAGE_BYTES
    assert len(read_audio(raw + b"tag").samples) == 400_000


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "is empty (0 bytes)"),
        (b"hello, this is no sound\n" * 99, "is no audio that can be read (Format not recognised); expected WAV, FLAC, OGG or MP3"),
        (b"RIFF\x24\0\0\0WAVE", "is no audio that can be read ("),
        (bytes(5000), "is no audio that can be read ("),
        (content(np.zeros((0, 1))), "has a header but no samples"),
        (content(tones())[:44], "is cut off or damaged: 0.00 of the 0.76 seconds"),
        (content(tones(), rate=20), "its sample rate is 20; expected samples a second"),
    ],
)
def test_what_is_no_recording_says_so(path: Path, raw: bytes, fault: str) -> None:
    path.write_bytes(raw)
    assert refusal(path).startswith(f"{path}: {fault}")
    assert refusal(raw).startswith(f"audio: {fault}")
    assert refusal(raw, name="input 3").startswith(f"input 3: {fault}")


def test_names_that_mean_headerless_sound_to_libsndfile_mean_nothing(tmp_path: Path) -> None:
    for name in ("said.raw", "said.vox", "said.gsm", "said"):
        (tmp_path / name).write_bytes(content(tones()))
        assert len(read_audio(tmp_path / name).samples) == N_SAMPLES
        (tmp_path / name).write_bytes(b"hello" * 500)
        assert "is no audio that can be read" in refusal(tmp_path / name)


def test_a_name_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"M\xfcnchen.wav")
    file.write_bytes(content(tones()))
    assert len(read_audio(str(file)).samples) == N_SAMPLES


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, path: Path) -> None:
    path.write_bytes(content(tones()))
    assert refusal(tmp_path / "sad.wav") == f"{tmp_path / 'sad.wav'}: no such file; did you mean {path}?"
    assert refusal(str(tmp_path / "sad.wav"), name="input 3").startswith(f"input 3: {tmp_path / 'sad.wav'}: no such file")
    assert refusal(tmp_path) == f"{tmp_path}: is a folder; expected a file"
    assert "cannot be read (" in refusal("x" * 5000)
    assert "no such file" in refusal("said\0.wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(path: Path) -> None:
    path.write_bytes(content(tones()))
    path.chmod(0)
    assert refusal(path).startswith(f"{path}: cannot be read (")


@pytest.mark.parametrize("source", [None, 3, ["a"], {"bytes": b""}])
def test_what_is_neither_path_nor_bytes_nor_array_is_refused(source: object) -> None:
    assert f"audio: is of type {type(source).__name__}; expected the path of a recording" in refusal(source)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_samples_that_are_no_numbers_are_refused_with_their_place(path: Path, value: float, subtype: str, n_channels: int) -> None:
    samples = tones(n_channels=n_channels)
    samples[4800:4803, 0] = value
    path.write_bytes(content(samples, ("WAV", subtype)))
    fault = "3 of its samples are no finite numbers, the first at 0.600 seconds"
    assert refusal(path).startswith(f"{path}: {fault}")
    assert fault in refusal(samples, given_rate=RATE)
    assert fault in refusal(samples, given_rate=RATE, sample_rate=16_000)


def test_infinite_samples_of_both_signs_are_refused_with_no_warning() -> None:
    assert "1 of its samples" in refusal(np.array([[0, 0], [np.inf, -np.inf], [0, 0]]), given_rate=RATE)
    assert "1 of its samples" in refusal(np.array([0, 1e300, 0]), given_rate=RATE)


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.zeros(0), "is an array without samples"),
        (np.zeros((0, 2)), "is an array without samples"),
        (np.zeros((5, 0)), "is an array without samples"),
        (np.zeros((3, 2, 4)), "is an array of shape (3, 2, 4); expected (samples,) or (samples, channels)"),
        (np.array(0.5), "is an array of shape ()"),
        (np.zeros(5, dtype=np.int64), "is an array of int64; expected floats between -1 and 1, or whole numbers"),
        (np.zeros(5, dtype=bool), "is an array of bool"),
        (np.zeros(5, dtype=complex), "is an array of complex128"),
        (np.array(["a"]), "is an array of <U1"),
    ],
)
def test_an_array_that_is_no_sound_is_refused(array: np.ndarray[Any, Any], fault: str) -> None:
    assert refusal(array, given_rate=RATE, name="input 1").startswith(f"input 1: {fault}")


def test_too_little_to_be_anything_at_the_new_rate_is_refused() -> None:
    assert "is too short: 1 samples at 48000 a second are none at 8000" in refusal(np.zeros(1), given_rate=48_000, sample_rate=8000)


def test_what_is_longer_than_allowed_is_refused_before_it_is_decoded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(content(np.zeros(3600 * 1000, dtype=np.int16), rate=1000))
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was decoded"))
    expected = f"{path}: is 3600.0 seconds long, more than the 30 allowed; cut it into shorter pieces"
    assert refusal(path, longest_seconds=30) == expected
    assert "is 0.8 seconds long, more than the 0.7 allowed" in refusal(tones(), given_rate=RATE, longest_seconds=0.7)
    monkeypatch.undo()
    raw = content(tones(), ("FLAC", "PCM_16"))
    assert len(read_audio(raw, longest_seconds=N_SAMPLES / RATE).samples) == N_SAMPLES


@pytest.mark.parametrize("n", [0, 1, 6, 7, 8, 20])
def test_samples_cut_into_hops_and_joined_are_the_samples_with_zeros_behind(n: int) -> None:
    samples = (np.random.default_rng(n).integers(-(2**15), 2**15, n) / 2**15).astype(np.float32)
    hops = to_hops(samples, 7)
    assert (hops.dtype, hops.shape) == (np.int16, (-(-n // 7), 7))
    joined = from_hops(hops)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined[:n], samples)
    assert not joined[n:].any()


def test_hops_are_rounded_and_clipped() -> None:
    samples = np.array([1, 1.5, -1, -9, 0.4 / 2**15, 0.6 / 2**15, -1.4 / 2**15], dtype=np.float32)
    assert to_hops(samples, 7).tolist() == [[2**15 - 1, 2**15 - 1, -(2**15), -(2**15), 0, 1, -1]]


def test_raw_samples_are_those_of_a_wav_file_without_its_header() -> None:
    raw = content(tones())
    np.testing.assert_array_equal(pcm_samples(raw[44:]), read_audio(raw).samples)
    assert pcm_samples(b"\x00\x80\xff\x7f").tolist() == [-1, (2**15 - 1) / 2**15]
    assert len(pcm_samples(b"")) == 0
    with pytest.raises(DataError, match="holds 3 bytes, but a 16-bit sample has two"):
        pcm_samples(b"abc")


def test_missing_packages_name_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = content(tones())
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(MissingExtra, match=r"needs the package 'soxr'.*extra 'speech'"):
        read_audio(raw, sample_rate=16_000)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtra, match=r"reading input 3 needs the package 'soundfile'.*extra 'speech'"):
        read_audio(raw, name="input 3")
    assert read_audio(tones(), sample_rate=RATE).sample_rate == RATE


def test_a_wave_knows_how_long_it_is() -> None:
    assert Wave(np.zeros(12, dtype=np.float32), 8).seconds == 1.5


@pytest.mark.filterwarnings("ignore:'(aifc|audioop|sunau)' is deprecated:DeprecationWarning")  # modules that librosa.load looks for
def test_real_recordings_are_read_as_librosa_reads_them(shared_data: Path) -> None:
    import librosa

    for folder, rate in (("fsdd/recordings", 8000), ("an4/flac/fbbh", 16_000)):
        file = min((shared_data / folder).iterdir())
        for asked in (None, 16_000):
            expected, _ = librosa.load(file, sr=asked)
            wave = read_audio(file, sample_rate=asked)
            assert wave.sample_rate == (asked or rate)
            np.testing.assert_allclose(wave.samples, expected, atol=1e-5)


def test_hops_are_the_same_however_many_are_rounded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.random.default_rng(1).uniform(-1.2, 1.2, 1003).astype(np.float32)
    whole = to_hops(wave, 7)
    monkeypatch.setattr("heed.data.audio.BLOCK_SAMPLES", 10)
    np.testing.assert_array_equal(to_hops(wave, 7), whole)
    expected = np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)
    np.testing.assert_array_equal(whole.reshape(-1)[: len(wave)], expected)
