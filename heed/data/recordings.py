"""How long recordings are, and whether they can be heard: each is decoded to its end once, and what was found is kept for the next run.

A header does not tell of damage behind it, so a recording is good only when all of it was decoded. The durations of good ones stand in
one file in the user's cache folder, `$XDG_CACHE_HOME/heed/durations` or else `~/.cache/heed/durations`, where a recording is known again
by its path, its size and when it was changed; of these only a hash is kept. The file may be deleted at any time. Where it cannot be
written, recordings are decoded again.

Left out: what is wrong with bad recordings, which are few, and are to be mended.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heed.data.audio import Wave, read_audio
from heed.errors import DataError, HeedError
from heed.files import replacing

RECORD = np.dtype([("key", "<u8"), ("seconds", "<f8")])
MOST_RECORDS = 1 << 21  # 32 MiB; of more the newer half stays
SHORTEST = 1e-6  # seconds; what is below was torn while it was written, or says that a recording is good no longer
CHECKS = 2  # to be raised when `read_audio` refuses more than before


class Recordings:
    """How long recordings are, or what is wrong with them."""

    def __init__(self, durations: "Durations | None", heard: Callable[[str, Wave], None] | None = None) -> None:
        """Begin with nothing heard.

        Args:
            durations: what is known from before; None: nothing.
            heard: given the path and the sound of every recording that is decoded; a DataError it raises is wrong with the recording.
        """
        self._durations, self._heard = durations, heard
        self._found: dict[str, float | str] = {}

    def fault(self, audio: str) -> str | None:
        """Say what is wrong with the recording of a path, which the message begins with; None for a good one."""
        found = self._looked_up(audio)
        return found if isinstance(found, str) else None

    def seconds(self, audio: str) -> float:
        """Return the length of the recording of a path; raises DataError for a bad one."""
        found = self._looked_up(audio)
        if isinstance(found, str):
            raise DataError(found)
        return found

    def forget(self, audio: str) -> None:
        """Take note that a recording cannot be heard after all, whatever was found before."""
        if self._durations is None or (key := key_of(audio)) is None:
            return
        if self._durations.find(key) is not None:
            self._durations.keep(key, 0.0)

    def _looked_up(self, audio: str) -> float | str:
        if audio not in self._found:
            self._found[audio] = self._remembered(audio)
        return self._found[audio]

    def _remembered(self, audio: str) -> float | str:
        key = None if self._durations is None else key_of(audio)  # before it is read: it may change meanwhile
        if self._durations is None or key is None:
            return self._measured(audio)
        known = self._durations.find(key)
        if known is not None:
            return known
        found = self._measured(audio)
        if isinstance(found, float):
            self._durations.keep(key, found)
        return found

    def _measured(self, audio: str) -> float | str:
        try:
            wave = read_audio(audio)
            if self._heard is not None:
                self._heard(audio, wave)
        except DataError as error:
            return str(error)
        return wave.seconds


class Durations:
    """Seconds by the key of a recording, in a file that is only ever appended to, so that several processes may write it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._new: dict[int, float] = {}

    @classmethod
    def of_user(cls) -> "Durations | None":
        """Return those in the user's cache folder; None for a user who has none."""
        folder = os.environ.get("XDG_CACHE_HOME", "")
        try:
            return cls((Path(folder) if os.path.isabs(folder) else Path.home() / ".cache") / "heed" / "durations")
        except RuntimeError:  # nobody has told where the home is
            return None

    def find(self, key: int) -> float | None:
        """Return the seconds of a good recording; None for one that is not known."""
        seconds = self._new.get(key)
        if seconds is None:
            keys, stored = self._stored
            place = int(np.searchsorted(keys, np.uint64(key), side="right")) - 1  # of several records the newest
            seconds = float(stored[place]) if place >= 0 and int(keys[place]) == key else 0.0
        return seconds if SHORTEST <= seconds < np.inf else None

    def keep(self, key: int, seconds: float) -> None:
        """Add a recording, as well as the file allows."""
        self._new[key] = seconds
        with suppress(OSError):  # without it the recording is decoded again, and that is all
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab", buffering=0) as file:
                torn = -file.tell() % RECORD.itemsize  # what a full disk left of a record becomes a whole one that says nothing
                file.write(bytes(torn) + np.array((key, seconds), RECORD).tobytes())

    @cached_property
    def _stored(self) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """The keys in order, (n,), and their seconds; equal ones in the order they were written."""
        records = self._read()
        order = np.argsort(records["key"], kind="stable")
        return records["key"][order], records["seconds"][order]

    def _read(self) -> NDArray[Any]:
        try:
            raw = self.file.read_bytes()
        except OSError:
            return np.zeros(0, RECORD)
        records = np.frombuffer(raw[: len(raw) - len(raw) % RECORD.itemsize], RECORD)
        if len(records) > MOST_RECORDS:
            records = records[-MOST_RECORDS // 2 :]
            with suppress(OSError, HeedError), replacing(self.file) as draft:
                draft.write_bytes(records.tobytes())
        return records


def key_of(audio: str) -> int | None:
    """Return a number for a file as it is now; None where there is none."""
    try:
        now = os.stat(audio)
    except (OSError, ValueError):
        return None
    words = f"{CHECKS}\0{os.path.abspath(audio)}\0{now.st_size}\0{now.st_mtime_ns}\0{now.st_ctime_ns}"
    return int.from_bytes(blake2b(os.fsencode(words), digest_size=8).digest(), "little")
