"""Recordings are heard to their end once: what was found is known again for as long as the file is the same, and never for longer."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from heed.data import recordings
from heed.data.audio import Wave, read_audio
from heed.data.recordings import RECORD, Durations, Recordings, key_of
from heed.errors import DataError

RATE = 2000


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that is given the name of every file that is decoded."""
    names: list[str] = []

    def counted(audio: str) -> Wave:
        names.append(Path(audio).name)
        return read_audio(audio)

    monkeypatch.setattr(recordings, "read_audio", counted)
    return names


def record(path: Path, n_samples: int, level: float = 0.25) -> str:
    soundfile.write(path, np.full(n_samples, level), RATE)
    return str(path)


def test_a_recording_is_known_again_by_whoever_opens_the_file(tmp_path: Path, decoded: list[str]) -> None:
    audio, file = record(tmp_path / "a.wav", 700), tmp_path / "deep" / "durations"
    first = Recordings(Durations(file))
    assert [first.fault(audio), first.seconds(audio), first.fault(audio)] == [None, 0.35, None]
    later = Recordings(Durations(file))
    assert [later.fault(audio), later.seconds(audio)] == [None, 0.35]
    assert decoded == ["a.wav"]
    assert b"a.wav" not in file.read_bytes()


@pytest.mark.parametrize("keeps_times", [False, True])
def test_a_file_that_was_changed_is_heard_again_though_its_size_and_time_are_kept(
    tmp_path: Path, decoded: list[str], keeps_times: bool
) -> None:
    audio, durations = record(tmp_path / "a.wav", 700), tmp_path / "durations"
    Recordings(Durations(durations)).fault(audio)
    before = os.stat(audio)
    Path(audio).write_bytes(b"no sound".ljust(before.st_size))
    if keeps_times:
        os.utime(audio, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(audio).st_size == before.st_size
    fault = Recordings(Durations(durations)).fault(audio)
    assert fault is not None
    assert fault.startswith(f"{audio}: is no audio")
    assert decoded == ["a.wav", "a.wav"]


def test_bad_recordings_are_not_remembered_and_have_no_length(tmp_path: Path, decoded: list[str]) -> None:
    broken, missing = tmp_path / "broken.wav", str(tmp_path / "missing.wav")
    broken.write_bytes(b"RIFF no sound at all")
    for _ in range(2):
        heard = Recordings(Durations(tmp_path / "durations"))
        assert "is no audio" in str(heard.fault(str(broken)))
        assert "no such file" in str(heard.fault(missing))
        with pytest.raises(DataError, match=r"broken\.wav: is no audio"):
            heard.seconds(str(broken))
    assert len(decoded) == 4
    assert not (tmp_path / "durations").exists()


def test_what_the_ear_finds_wrong_is_a_fault(tmp_path: Path) -> None:
    def refuse(path: str, wave: Wave) -> None:
        raise DataError(f"{path}: has {len(wave.samples)} samples")

    audio = record(tmp_path / "a.wav", 30)
    for _ in range(2):
        assert Recordings(Durations(tmp_path / "durations"), heard=refuse).fault(audio) == f"{audio}: has 30 samples"


def test_a_recording_that_turned_out_bad_is_forgotten(tmp_path: Path, decoded: list[str]) -> None:
    audio, durations = record(tmp_path / "a.wav", 700), tmp_path / "durations"
    first = Recordings(Durations(durations))
    first.fault(audio)
    first.forget(audio)
    first.forget(str(tmp_path / "never-heard.wav"))
    assert durations.stat().st_size == 2 * RECORD.itemsize
    Recordings(Durations(durations)).fault(audio)
    assert decoded == ["a.wav", "a.wav"]
    Recordings(Durations(durations)).fault(audio)
    assert decoded == ["a.wav", "a.wav"]  # the newest record holds


@pytest.mark.parametrize("n_left", range(1, RECORD.itemsize))
def test_a_torn_record_says_nothing_and_harms_no_later_one(tmp_path: Path, n_left: int) -> None:
    file = tmp_path / "durations"
    for key, seconds in ((1, 1.5), (1 << 63, 2.5)):
        Durations(file).keep(key, seconds)
    file.write_bytes(file.read_bytes()[: RECORD.itemsize + n_left])
    assert [Durations(file).find(key) for key in (1, 1 << 63)] == [1.5, None]
    Durations(file).keep(3, 3.5)
    assert [Durations(file).find(key) for key in (0, 1, 1 << 63, 3)] == [None, 1.5, None, 3.5]


def test_of_many_records_the_newer_half_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_RECORDS", 10)
    file = tmp_path / "durations"
    for key in range(12):
        Durations(file).keep(key, 1.0 + key)
    assert [Durations(file).find(key) for key in range(12)] == [None] * 7 + [1.0 + key for key in range(7, 12)]
    assert file.stat().st_size == 5 * RECORD.itemsize


def test_without_a_place_to_write_recordings_are_heard_all_the_same(tmp_path: Path, decoded: list[str]) -> None:
    audio, taken = record(tmp_path / "a.wav", 700), tmp_path / "taken"
    taken.write_bytes(b"")
    for durations in (None, Durations(taken / "durations"), Durations(tmp_path)):
        heard = Recordings(durations)
        assert [heard.fault(audio), heard.seconds(audio)] == [None, 0.35]
    assert len(decoded) == 3


def test_the_cache_of_the_user_is_where_the_system_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = []
    for given in (str(tmp_path), "not/absolute", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        monkeypatch.setenv("HOME", "/home/of/nobody")
        durations = Durations.of_user()
        assert durations is not None
        found.append(durations.file)
    assert found == [tmp_path / "heed/durations", *[Path("/home/of/nobody/.cache/heed/durations")] * 2]

    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    assert Durations.of_user() is None


def test_files_are_told_apart_by_where_they_lie(tmp_path: Path) -> None:
    one, other = (record(tmp_path / name, 20) for name in ("a.wav", "b.wav"))
    assert len({key_of(one), key_of(other), key_of(str(tmp_path / "missing.wav"))}) == 3
    assert key_of(one) == key_of(one)
    assert key_of("a\0b") is None
