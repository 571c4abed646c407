"""What the machine is and what it is fast at: device, precision, threads and the allocator."""

import contextlib
import ctypes
import os
import platform
import resource
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from heed.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

# glibc's mallopt parameters (malloc.h). Large temporaries are otherwise given back to the system and faulted in again every step.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4


def choose_device(name: str) -> torch.device:
    """Return the device a setting names; `auto` takes a GPU when there is one. Raises ConfigError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"train.device: {name!r} is not a device; use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"train.device: {name!r} is not supported; use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"train.device: {name!r} was asked for, but this machine has no usable GPU; use train.device=cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"train.device: {name!r} was asked for, but this machine has {torch.cuda.device_count()} GPU(s), counted from 0")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type of matrix products; `auto` takes bfloat16 where the hardware multiplies it natively."""
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def choose_answering_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the type of matrix products when answering; `auto` takes int8 where the hardware multiplies it natively."""
    if name == "auto" and has_fast_int8(device):
        return torch.int8
    if name != "int8":
        return choose_precision(name, device)
    if device.type != "cpu":
        raise ConfigError(f"decode.precision=int8 runs on CPUs only, found {device}; use bfloat16 there")
    return torch.int8


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 products run on their own units: AMX or AVX-512 BF16 on a CPU, Ampere or later on a GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = cpu_flags()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def has_fast_int8(device: torch.device) -> bool:
    """Return whether int8 products run on their own units: VNNI or AMX on a CPU."""
    return device.type == "cpu" and not cpu_flags().isdisjoint({"avx512_vnni", "avx_vnni", "amx_int8"})


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets Linux lists for the first processor; empty elsewhere."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def keep_memory() -> bool:
    """Tell glibc to keep freed memory for the next step instead of returning it page by page; returns whether it was told.

    Not where the process has a limit: memory that is kept in pieces would be missing there.
    """
    if not sys.platform.startswith("linux") or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return False
    if any(resource.getrlimit(kind)[0] != resource.RLIM_INFINITY for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1) and mallopt(M_TOP_PAD, 64 << 20))


def tidy_memory() -> None:
    """Give back the pages of free memory that lie between used ones; kept memory is otherwise cut into ever smaller pieces."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def give_back_memory() -> None:
    """Undo `keep_memory`, where memory is short: large blocks go back to the system at once, whatever that costs."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 1 << 16)
            mallopt(M_MMAP_THRESHOLD, 1 << 18)
            mallopt(M_TRIM_THRESHOLD, 1 << 20)
            mallopt(M_TOP_PAD, 0)
    tidy_memory()


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Map a function over items, as many at once as torch has threads, which they share.

    Operators of a few hundred microseconds gain little from a second thread, and pay for starting it every time.
    """
    threads = torch.get_num_threads()
    at_once = min(threads, len(items))
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)


def peak_memory_mib(device: torch.device | None = None) -> float:
    """Return the most memory this process has held, in MiB: on the GPU when one is used, else resident."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmHWM"):  # of this program alone; ru_maxrss goes on from the program that started it
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def describe_machine() -> dict[str, str | int]:
    """Return what a reader needs to place a figure: processor, cores, GPU, and versions."""
    machine: dict[str, str | int] = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a str of its own kind otherwise, which YAML does not know
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
