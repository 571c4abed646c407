"""Speech recognition on one core: seconds of computing per second of sound, offline and live, and how late a word appears.

Run: heed bench speech RUN DATA [recordings]
"""

import statistics
import time
from itertools import islice
from typing import Any

import numpy as np
import torch

import heed
from heed.data.audio import read_audio
from heed.data.read import read_examples
from heed.run import Run
from heed.tasks.live import Event

STEP_SECONDS = 0.1  # of sound given to the live recogniser at a time


def main(arguments: list[str]) -> None:
    """Answer recordings one by one, then feed them live as fast as they are taken, and print medians."""
    torch.set_num_threads(1)
    run = heed.load(arguments[0])
    n = int(arguments[2]) if len(arguments) > 2 else 100
    examples = list(islice(read_examples(arguments[1], required=run.task.columns), n))
    rate = int(run.config.task["sample_rate"])
    waves = [read_audio(example["audio"], sample_rate=rate).samples for example in examples]
    seconds = sum(map(len, waves)) / rate
    run.predict(examples[0])  # packs the weights, and on a new machine waits for the compiler
    begun = time.perf_counter()
    for example in examples:
        run.predict(example)
    print(f"offline, one at a time, reading included: real-time factor {(time.perf_counter() - begun) / seconds:.4f}")
    begun = time.perf_counter()
    run.predict(examples)
    print(f"offline, all at once: real-time factor {(time.perf_counter() - begun) / seconds:.4f} ({seconds:.0f} s of sound)")
    if run.config.task["streaming"]:
        _live(run, waves, rate)


def _live(run: Run, waves: list[Any], rate: int) -> None:
    factors, late = [], []
    for wave in waves:
        begun = time.perf_counter()
        shown = _followed(run, wave, rate)
        factors.append((time.perf_counter() - begun) / (len(wave) / rate))
        late += _lateness(shown)
    print(f"live, {STEP_SECONDS:g} s at a time: real-time factor {statistics.median(factors):.4f} (median over {len(waves)} recordings)")
    if late:
        found = np.percentile(late, [50, 90])
        print(f"a word appears {found[0]:.2f} s after its end (median of {len(late)}; 9 of 10 within {found[1]:.2f} s), computing included")


def _followed(run: Run, wave: Any, rate: int) -> list[tuple[float, Event]]:
    """Return every event with the time it appeared at, had the sound come as it was spoken."""
    live = run.live(run.config.decode)
    raw = (np.clip(wave, -1, 1) * 32767).astype("<i2").tobytes()
    step = 2 * round(STEP_SECONDS * rate)
    shown: list[tuple[float, Event]] = []
    for begin in range(0, len(raw), step):
        begun = time.perf_counter()
        events = live.push(raw[begin : begin + step])
        heard = min(len(raw), begin + step) / 2 / rate
        shown += [(heard + time.perf_counter() - begun, event) for event in events]
    return shown + [(len(wave) / rate, event) for event in live.finish()]


def _lateness(shown: list[tuple[float, Event]]) -> list[float]:
    """Return for each word of the final texts how long after its end it first stood there, for good."""
    late = []
    final = [event for _, event in shown if event.kind == "final"]
    for event in final:
        words = [word["word"] for word in event.words]
        for n, word in enumerate(event.words, start=1):
            first = next((when for when, one in shown if one.text.split()[:n] == words[:n] and when >= word["end"] - 0.5), None)
            if first is not None:
                late.append(max(0.0, first - word["end"]))
    return late
