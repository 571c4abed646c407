"""The command line: help, streams, versions, wrong words, and what all verbs refuse."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy_runs import Command, ToyData

import heed

pytest_plugins = ["toy_runs"]


def test_help_comes_without_waiting_for_torch() -> None:
    code = "import sys; from heed import cli; sys.argv = ['heed', '--help']\ntry: cli.main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")
    for verb in ("train", "crossvalidate", "tune", "compare-models", "evaluate", "predict", "compare", "inspect", "demo"):
        assert verb in done.stdout


def finished(*arguments: str, out: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with its standard output led to where a shell leads it."""
    module = [sys.executable, "-m", "heed.cli", *arguments]
    return subprocess.run(["bash", "-c", f'"$@" {out}', "bash", *module], capture_output=True, text=True, check=False)


def test_a_reader_that_has_gone_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-m", "heed.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_cannot_be_printed_is_one_clear_line(option: str) -> None:
    done = finished(option, out="> /dev/full")
    assert done.returncode == 1
    assert re.fullmatch(r"heed: standard output: .*; what was printed is not whole: free some space, or print elsewhere\n", done.stderr)


def test_closed_streams_swallow_what_is_printed() -> None:
    assert finished("--version", out=">&-").returncode == 0
    done = finished("predict", "nowhere", out="2>&-")
    assert (done.returncode, done.stdout) == (1, "")


def test_the_version_is_the_packages(command: Command) -> None:
    assert command("--version").out == f"heed {heed.__version__}\n"


@pytest.mark.parametrize("arguments", [["fly"], ["train", "--nope"], ["evaluate"], ["predict"]])
def test_a_wrong_command_line_is_one_line_and_exit_code_1(command: Command, arguments: list[str]) -> None:
    assert "heed --help" in command(*arguments).complaint


@pytest.mark.parametrize("name", ["config.yaml", "parts/tokenizer.json", "model.safetensors", "manifest.json"])
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_run_folder_with_a_flipped_byte_is_refused(command: Command, run_copy: Path, toy_data: ToyData, name: str, verb: str) -> None:
    content = bytearray((run_copy / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (run_copy / name).write_bytes(content)
    done = command(verb, run_copy, toy_data.test if verb == "evaluate" else "the dog")
    assert str(run_copy) in done.complaint
    assert "from a copy" in done.complaint
    assert done.out == ""


def test_no_run_is_one_clear_line(command: Command, tmp_path: Path, toy_data: ToyData) -> None:
    for arguments in (["predict", tmp_path, "x"], ["evaluate", tmp_path, toy_data.test], ["train", "--resume", tmp_path]):
        assert "not a run folder" in command(*arguments).complaint
