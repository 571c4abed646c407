"""SIGINT and SIGTERM while training: the first lets the step be finished, a second one stops at once."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """A signal asked training to stop; the checkpoint is written."""

    def __init__(self, number: int, step: int, folder: Path, how: str | None = None) -> None:
        """Say how to go on: by resuming the run in `folder`, or `how` says."""
        how = how or f"heed train --resume {folder}"
        super().__init__(f"{signal.Signals(number).name} after step {step:,}; nothing is lost, go on with: {how}")
        self.number, self.step, self.folder = number, step, folder
        self.exit_code = 128 + number


class StopSignal:
    """The signal that asked training to stop; `number` is None as long as none did."""

    def __init__(self) -> None:
        self.number: int | None = None

    def obey(self, step: int, folder: Path) -> None:
        """Raise Interrupted where a signal asked to stop; the checkpoint of the step is written."""
        if self.number is not None:
            raise Interrupted(self.number, step, folder)

    @contextlib.contextmanager
    def noted(self, say: Callable[[str], None]) -> Iterator[None]:
        """Note signals so that the step can be finished, and give their handlers back afterwards."""

        def note(number: int, frame: FrameType | None) -> None:
            if self.number is not None:
                raise KeyboardInterrupt
            self.number = number
            say(f"{signal.Signals(number).name}: finishing the step and writing a checkpoint; once more to stop at once")

        try:
            before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: signals go elsewhere
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
