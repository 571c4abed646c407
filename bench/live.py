"""An hour of speech through `heed predict RUN --stream`: memory, computing and errors, one twelfth of the time after the other.

Recordings of DATA come one after the other in random order, with pauses between them, as fast as they are taken. A program that keeps
anything of what it has heard grows; one that loses its place, or drifts, makes more errors the longer it listens.

Run: heed bench live RUN DATA [minutes]
"""

import json
import subprocess
import sys
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import heed
from heed.data.audio import read_audio
from heed.data.read import Example, read_examples
from heed.data.transcripts import NORMALISATIONS
from heed.errors import DataError
from heed.metrics.speech import SpeechMetrics

MINUTES = 60.0
PARTS = 12  # of the time, each with a line of its own
LOADED_SECONDS = 10.0  # are more than a pipe holds: when they are written, the program has begun to read
EARLY_SECONDS = 0.3  # CTC may place a word so much before its recording begins
PAUSE_SECONDS = (1.0, 3.0)  # between recordings: from and to
HISS = 3e-4  # of pauses, as a microphone has it
STEP_SECONDS = 0.1  # of sound written at a time
CLOCK_TICKS = 100  # a second, of /proc/PID/stat
SEED = 0


class Said(NamedTuple):
    """A transcript and when it begins, in seconds of the stream."""

    start: float
    text: str


@dataclass(frozen=True)
class Use:
    """What a process has used when so many seconds of the stream were written."""

    heard: float
    memory_mib: float
    computing: float


def main(arguments: list[str]) -> None:
    """Listen and print."""
    run = heed.load(arguments[0], device="cpu")
    minutes = float(arguments[2]) if len(arguments) > 2 else MINUTES
    rate, normalisation = int(run.config.task["sample_rate"]), str(run.config.task["transcripts"])
    examples = list(read_examples(arguments[1], required=run.task.columns))
    said: list[Said] = []
    command = [sys.executable, "-c", "from heed.cli import main; main()", "predict", arguments[0], "--stream", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        finals: list[Said] = []
        reader = threading.Thread(target=_collect, args=(child.stdout, finals))
        reader.start()
        uses: list[Use] = []
        with suppress(BrokenPipeError):  # it has ended, and says why
            _write(child, _speech(examples, rate, 60 * minutes, said), rate, 60 * minutes, uses)
            child.stdin.close()
        reader.join()
    if child.returncode or len(uses) <= PARTS:
        raise DataError(f"{arguments[0]}: heed predict --stream ended with {child.returncode}; what it said stands above")
    _print(uses, said, _answers(said, finals), normalisation)


def _speech(examples: list[Example], rate: int, seconds: float, said: list[Said]) -> Iterator[NDArray[np.float32]]:
    """Yield recordings and the pauses between them until so many seconds are over, and note what is said when."""
    draw = np.random.default_rng(SEED)
    now = 0.0
    while now < seconds:
        example = examples[int(draw.integers(len(examples)))]
        pause = HISS * draw.standard_normal(round(draw.uniform(*PAUSE_SECONDS) * rate)).astype(np.float32)
        wave = np.concatenate([pause, read_audio(example["audio"], sample_rate=rate).samples])
        said.append(Said(now + len(pause) / rate, example["text"]))
        now += len(wave) / rate
        yield wave


def _write(child: "subprocess.Popen[bytes]", waves: Iterator[NDArray[np.float32]], rate: int, seconds: float, uses: list[Use]) -> None:
    """Write sound into a process, and look at it when it has begun to read, and when each part of the time is over."""
    assert child.stdin is not None
    looks = [LOADED_SECONDS, *(LOADED_SECONDS + (seconds - LOADED_SECONDS) * n / PARTS for n in range(1, PARTS + 1))]
    n_samples, step = 0, round(STEP_SECONDS * rate)
    for wave in waves:
        raw = (np.clip(wave, -1, 1) * 32767).astype("<i2")
        for begin in range(0, len(raw), step):
            child.stdin.write(raw[begin : begin + step].tobytes())
            n_samples += len(raw[begin : begin + step])
            if len(uses) < len(looks) and n_samples / rate >= looks[len(uses)]:
                uses.append(_use(child.pid, n_samples / rate))


def _use(pid: int, heard: float) -> Use:
    """Ask Linux what a process holds and has computed."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    times = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return Use(heard, int(status["VmRSS"].split()[0]) / 1024, (int(times[11]) + int(times[12])) / CLOCK_TICKS)


def _collect(lines: IO[bytes], finals: list[Said]) -> None:
    """Read what is heard; of partial texts nothing is kept."""
    for line in lines:
        event: dict[str, Any] = json.loads(line)
        if event["type"] == "final":
            finals.append(Said(event["start"], event["text"]))


def _answers(said: list[Said], finals: list[Said]) -> list[str]:
    """Return what was heard of each recording: of several finals in one, all."""
    starts = [one.start for one in said]
    heard: list[list[str]] = [[] for _ in said]
    for final in finals:
        heard[max(0, bisect_right(starts, final.start + EARLY_SECONDS) - 1)].append(final.text)
    return [" ".join(texts) for texts in heard]


def _print(uses: list[Use], said: list[Said], answers: list[str], normalisation: str) -> None:
    """Print a line for each part of the time, and what the last differs in from the first."""
    print(f"{'minutes':>8} {'memory, MiB':>12} {'real-time factor':>17} {'WER':>8}")
    for before, use in pairwise(uses):
        metrics = SpeechMetrics(normalisation, NORMALISATIONS[normalisation])
        part = [(one.text, answer) for one, answer in zip(said, answers, strict=True) if before.heard <= one.start < use.heard]
        metrics.add([answer for _, answer in part], [text for text, _ in part])
        factor = (use.computing - before.computing) / (use.heard - before.heard)
        wer = metrics.scores(resamples=1).scores["wer"].value if part else float("nan")
        print(f"{use.heard / 60:8.1f} {use.memory_mib:12.1f} {factor:17.4f} {wer:8.2%}")
    print(f"memory grew by {uses[-1].memory_mib - uses[1].memory_mib:+.1f} MiB from the first line to the last")
