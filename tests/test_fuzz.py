"""A short round of `make fuzz`; the rounds so far found what the other cases of this suite now hold."""

from pathlib import Path

import fuzz
import pytest


def test_mutated_files_end_in_success_or_in_one_of_our_errors() -> None:
    found = fuzz.fuzz(1200, seed=7)
    assert {name: result["failures"] for name, result in found.items() if result["failures"]} == {}
    assert sum(result["tried"] for result in found.values()) >= 1190


def test_the_fuzzer_notices_what_is_not_one_of_our_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: Path) -> None:
        if len(path.read_bytes()) == 0:
            raise KeyError("empty")

    monkeypatch.setattr(fuzz, "targets", lambda run, folder: {"toy": fuzz.Target(broken, "toy", [b"seed"])})
    monkeypatch.setattr(fuzz.resource, "setrlimit", lambda kind, limits: None)
    (tmp_path / "work").mkdir()
    fuzz.work(str(tmp_path), "toy", 300, 1, str(tmp_path / "work"))
    printed = capsys.readouterr().out
    assert "KeyError" in printed
    assert '{"tried": 300}' in printed
