"""Start-up: `heed --help`, and the first answer of a saved run against importing torch, in seconds.

Run: heed bench start RUN ["a sentence"] [rounds]
"""

import statistics
import subprocess
import sys
import time


def main(arguments: list[str]) -> None:
    """Time whole processes, in turn."""
    run, text = arguments[0], arguments[1] if len(arguments) > 1 else "A dog runs."
    rounds = int(arguments[2]) if len(arguments) > 2 else 5
    heed = [sys.executable, "-m", "heed.cli"]
    commands = {
        "heed --help": [*heed, "--help"],
        "import torch": [sys.executable, "-c", "import torch"],
        "heed predict": [*heed, "predict", run, text],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        print(f"{name}: median {medians[name]:.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    print(f"heed predict takes {medians['heed predict'] - medians['import torch']:.2f} s more than importing torch")
