"""The command line of recognition while somebody speaks."""

import os
import sys
from types import SimpleNamespace

import pytest
from toy_runs import Command

from heed import cli
from heed.run import Run
from heed.tasks.live import Event

pytest_plugins = ["toy_runs"]


def test_a_partial_live_text_stays_in_its_line_and_a_final_one_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    for kind, text, shown in (("partial", "one two three", "\r\x1b[K…wo three"), ("final", "one two three", "\r\x1b[Kone two three\n")):
        cli._print_event(Event(kind, text, 0.0, 1.0), as_json=False, on_terminal=True)
        assert capsys.readouterr().out == shown
    cli._print_event(Event("partial", "one two three", 0.0, 1.0), as_json=False, on_terminal=False)
    assert capsys.readouterr().out == "...\tone two three\n"


class Parrot:
    """Stands for a live recogniser: every push is a partial text, and the end the final one."""

    remark: str | None = None

    def __init__(self) -> None:
        self.heard = b""

    def push(self, raw: bytes) -> list[Event]:
        self.heard += raw
        return [Event("partial", self.heard.decode(), 0.0, 1.0)]

    def finish(self) -> list[Event]:
        self.remark = "half a sample" if len(self.heard) % 2 else None
        return [Event("final", self.heard.decode(), 0.0, 1.0)]


@pytest.mark.parametrize(("sound", "noted"), [(b"ab", ""), (b"abc", "note: half a sample\n")])
def test_what_is_wrong_with_a_stream_is_noted_beside_its_texts(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: bytes, noted: str
) -> None:
    reads, writes = os.pipe()
    os.write(writes, sound)
    os.close(writes)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: reads))
    cli._follow(Parrot(), as_json=False)  # type: ignore[arg-type]
    os.close(reads)
    said = sound.decode()
    assert capfd.readouterr() == (f"...\t{said}\n0.00-1.00\t{said}\n", noted)


def test_a_run_that_hears_nothing_follows_no_stream(command: Command, toy_run: Run) -> None:
    assert (
        "a translation run hears nothing; a stream needs one of speech_recognition"
        in command("predict", toy_run.folder, "--stream").complaint
    )
