"""The comparisons of `heed bench`: how sides are run and summed up, not how fast they are."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from toy_runs import Command

from heed import bench
from heed.bench import compare as compare_module
from heed.bench.compare import Side, compare, run_side
from heed.errors import ConfigError, HeedError

pytest_plugins = ["toy_runs"]


def counting(log: Path, name: str, rate: float) -> Side:
    """Return a side that notes its turn and reports a rate."""
    code = f"open({str(log)!r}, 'a').write({name!r}); print('noise'); print('{{\"rate\": {rate}, \"padding\": 0.5}}')"
    return Side(name, [sys.executable, "-c", code])


def test_sides_run_in_turn_and_are_compared_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare_module, "RESULTS", tmp_path / "bench")
    monkeypatch.setattr(compare_module, "ceilings", lambda: {"read_GB/s": 30.0})
    log = tmp_path / "log"
    content = compare("toy", "A toy", "things/s", [counting(log, "a", 30.0), counting(log, "b", 10.0)], rounds=2)
    assert log.read_text() == "abab"
    assert [side["ratio"] for side in content["sides"]] == [1.0, 3.0]
    assert json.loads((tmp_path / "bench" / "toy.json").read_text()) == content
    assert (tmp_path / "bench" / "toy.png").stat().st_size > 1000
    page = (tmp_path / "bench" / "README.md").read_text()
    row = "| b | 10 | 10 to 10 | 3.00 | padding 0.5 |"
    assert row in page
    assert row in capsys.readouterr().out


def test_a_side_that_fails_stops_the_comparison_with_its_last_words() -> None:
    with pytest.raises(HeedError, match=r"broken: .* failed: .*no such luck"):
        run_side(Side("broken", [sys.executable, "-c", "raise SystemExit('no such luck')"]))


def test_every_figure_is_listed_and_can_be_run() -> None:
    lines = bench.listing()
    for name in bench.NAMES:
        assert any(line.startswith(f"heed bench {name}") for line in lines)
        assert callable(importlib.import_module(f"heed.bench.{name}").main)


@pytest.mark.parametrize("name", ["answering", "live", "memory", "plan", "quality", "saving", "start", "training"])
def test_a_figure_that_needs_data_says_so(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"heed bench {name} .*DIR|heed bench {name} RUN"):
        bench.run_bench(name, [])


@pytest.mark.parametrize("asked", [["live", "--help"], ["live", "-h"], ["live", "runs/mine", "--help"]])
def test_help_for_a_figure_is_what_its_module_says(asked: list[str], command: Command) -> None:
    done = command("bench", *asked)
    assert done.out.strip() == bench.explained("live")
    assert "Run: heed bench live RUN DATA" in done.out


def test_help_without_a_figure_lists_all(command: Command) -> None:
    shown = command("bench", "--help").out
    assert "heed bench [OPTIONS] [name]" in shown
    assert shown.rstrip().endswith("\n".join(bench.listing()))


def test_an_unknown_figure_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"there is none; choose answering, attention"):
        bench.run_bench("beauty", [])
