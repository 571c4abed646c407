"""The choice of device and precision, and what is told of the machine."""

import platform
import resource
import subprocess
import sys

import pytest
import torch
import yaml

from heed import device
from heed.config import dump_yaml
from heed.errors import ConfigError

CPU = torch.device("cpu")
ON_LINUX = platform.system() == "Linux"


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for available in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        assert device.choose_device("auto").type == ("cuda" if available else "cpu")


def test_a_named_device_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device.choose_device(name) for name in ("cpu", "cuda", "cuda:1")] == [CPU, torch.device("cuda"), torch.device("cuda:1")]
    with pytest.raises(ConfigError, match=r"train\.device: 'cuda:2' was asked for, but this machine has 2 GPU\(s\), counted from 0"):
        device.choose_device("cuda:2")


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cuda:-1", "cuda:x", "meta", "mps", "xla"])
def test_what_is_no_usable_device_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"train.device: {name!r} .*use auto, cpu or cuda"):
        device.choose_device(name)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"'cuda' was asked for, but this machine has no usable GPU; use train\.device=cpu"):
        device.choose_device("cuda")


@pytest.mark.parametrize(
    ("flags", "precision"),
    [({"avx2", "avx512f"}, torch.float32), ({"avx512_bf16"}, torch.bfloat16), ({"amx_bf16"}, torch.bfloat16), (set(), torch.float32)],
)
def test_auto_precision_asks_the_processor(monkeypatch: pytest.MonkeyPatch, flags: set[str], precision: torch.dtype) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    assert device.choose_precision("auto", CPU) == precision


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni", "amx_int8"])
def test_answers_are_in_int8_where_the_processor_is_fast_at_it(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx512_bf16", flag}))
    assert device.choose_answering_precision("auto", CPU) == torch.int8
    assert device.choose_answering_precision("bfloat16", CPU) == torch.bfloat16
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    assert device.choose_answering_precision("auto", CPU) == torch.bfloat16
    assert device.choose_answering_precision("int8", CPU) == torch.int8


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((10, 0), torch.bfloat16)])
def test_auto_precision_asks_the_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert device.choose_precision("auto", torch.device("cuda")) == precision


def test_a_named_precision_is_taken_whatever_the_hardware() -> None:
    assert [device.choose_precision(name, CPU) for name in ("float32", "bfloat16")] == [torch.float32, torch.bfloat16]


@pytest.mark.skipif(not ON_LINUX, reason="needs /proc/cpuinfo")
def test_the_instruction_sets_are_those_the_system_lists() -> None:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        listed = next((line.partition(":")[2].split() for line in file if line.startswith("flags")), [])
    assert device.cpu_flags() == set(listed)


def test_the_description_of_the_machine_is_plain_and_says_the_versions() -> None:
    machine = device.describe_machine()
    assert machine["python"] == platform.python_version()
    assert machine["torch"] == torch.__version__
    assert machine["threads"] == torch.get_num_threads()
    assert machine["processor"]
    assert yaml.safe_load(dump_yaml(machine)) == machine


HOLDING = """
import torch
from heed.device import peak_memory_mib
before = peak_memory_mib()
held = torch.ones(round(before) + 64, 2**18)  # as many MiB
after = peak_memory_mib(torch.device("cpu"))
del held
print(before, after, peak_memory_mib())
"""


def test_peak_memory_never_falls_and_sees_what_was_held() -> None:
    done = subprocess.run([sys.executable, "-c", HOLDING], check=True, capture_output=True, text=True)  # what other tests held is not there
    before, after, last = map(float, done.stdout.split())
    assert after > before + 32
    assert last >= after - 4  # the kernel adds up its counters of each processor loosely


KEEPING = """
import resource, torch
from heed.device import keep_memory
torch.set_num_threads(1)
kept = keep_memory()
for _ in range(20):  # until the holes that small allocations leave are found again
    torch.ones(16, 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(6):
    torch.ones(16, 2**20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not ON_LINUX or platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    kept, faults = subprocess.run([sys.executable, "-c", KEEPING], capture_output=True, text=True, check=True).stdout.split()
    assert kept == "True"
    assert int(faults) < 3 * 2**26 // resource.getpagesize()  # otherwise the 2**26 bytes of each of the six are faulted in again


def test_the_allocator_is_left_alone_where_the_user_has_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert device.keep_memory() is False
