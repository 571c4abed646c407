"""Language models: training a GPT of 10 M parameters, writing and reading with a GPT of GPT-2's shape (124 M), in tokens per second.

Run: heed bench language [rounds]
Four tables; on a GPU it is GPT-2's shape that is trained. Weights are random, except in the last, which says what rounding them costs a
small model trained on the source of Python's own library. With NANOGPT=FOLDER in the environment a checkout of nanoGPT takes part.
"""

import dataclasses
import math
import os
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from heed.bench.compare import KEPT_MEMORY, Side, compare, median_seconds, ours, report, theirs
from heed.config import DecodeConfig, TrainConfig
from heed.decode import generate
from heed.device import choose_answering_precision, choose_device, choose_precision, keep_memory
from heed.model import Causal, ModelConfig, build_model, count_parameters, vocabulary_loss
from heed.model.packed import pack
from heed.training.optim import build_optimizer

GPT = {"architecture": "causal", "activation": "gelu_tanh", "positions": "learned", "embedding_scale": False}
SMALL = ModelConfig(**GPT, d_model=384, n_heads=6, n_layers=6, d_ff=1536, vocab_size=65, max_length=256, dropout=0.2)  # type: ignore[arg-type]
GPT2 = ModelConfig(**GPT, d_model=768, n_heads=12, n_layers=12, d_ff=3072, vocab_size=50257, max_length=1024, dropout=0.0)  # type: ignore[arg-type]
PROMPT, WRITTEN, READ = 16, 128, 512


@dataclasses.dataclass(frozen=True)
class Work:
    """What is trained: a model on batches of B texts of T tokens."""

    title: str
    config: ModelConfig
    batch: tuple[int, int]


ON_CPU = Work("Training a GPT of 10 M parameters, 4 x 256 tokens", SMALL, (4, 256))
ON_GPU = Work("Training GPT-2's shape (124 M), 16 x 1,024 tokens", GPT2, (16, 1024))


def main(arguments: list[str]) -> None:
    """Compare."""
    rounds = int(arguments[0]) if arguments else 3
    on_gpu = choose_device("auto").type == "cuda"
    rows = [Side("heed", ours("language", "train", "auto"))]
    rows += [Side("heed, torch.compile", ours("language", "train", "compile"))] if on_gpu else []
    for system in ["hf", *(["nano"] if os.environ.get("NANOGPT") else [])]:
        name = {"hf": "Hugging Face", "nano": "nanoGPT"}[system]
        kinds = ("bf16", "compile") if on_gpu else ("bf16", "fp32")
        rows += [Side(f"{name}, {kind}", theirs("language", "train", system, kind), KEPT_MEMORY) for kind in kinds]
    compare("language-training", (ON_GPU if on_gpu else ON_CPU).title, "tokens/s", rows, rounds=rounds)
    precisions = ("auto", "float32") if on_gpu else ("auto", "bfloat16", "float32")
    for kind, title in (
        ("write", f"Writing {WRITTEN} tokens with GPT-2's shape (124 M), one text"),
        ("read", f"Reading {READ} tokens with it"),
    ):
        rows = [Side(f"heed {precision}", ours("language", kind, precision)) for precision in precisions]
        rows += [Side(f"Hugging Face, {precision}", theirs("language", kind, "hf", precision)) for precision in ("bf16", "fp32")]
        compare(f"language-{kind}", title, "tokens/s", rows, rounds=rounds)
    rows = [Side("heed auto", ours("language", "judge", ",".join(precisions)))]
    compare("language-rounding", "Reading held-out text with a trained GPT of 10 M parameters", "tokens/s", rows, rounds=1)


def side(kind: str, precision: str) -> None:
    """Train, write, read or judge with heed."""
    keep_memory()
    torch.manual_seed(1)
    {"train": _train, "write": _write, "read": _read, "judge": _judge}[kind](precision)


def _train(how: str) -> None:
    device = choose_device("auto")
    work = ON_GPU if device.type == "cuda" else ON_CPU
    model = cast(Causal, build_model(work.config)).to(device).train()
    data = torch.randint(0, cast(int, work.config.vocab_size), (work.batch[0], work.batch[1] + 1), device=device)
    step = _stepper(model, compiled=how == "compile")
    rate = data[:, 1:].numel() / median_seconds(lambda: step(data), warm=5, n=25)
    report(rate, TFLOPs=6 * count_parameters(model) * rate / 1e12)


def _stepper(model: Causal, *, compiled: bool = False) -> Callable[[Tensor], None]:
    """Return what makes one training step on texts (B, T + 1)."""
    device = model.head.weight.device
    precision = choose_precision("auto", device)
    optimizer = build_optimizer(model, TrainConfig(lr=1e-3, weight_decay=0.1), precision)
    hidden = torch.compile(model.hidden) if compiled else model.hidden

    def step(data: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            loss = vocabulary_loss(hidden(data[:, :-1]), model.head.weight, data[:, 1:])
        (loss.total / loss.units).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _answering(precision: str) -> tuple[Causal, int]:
    """Return the model packed, and its number of parameters."""
    device = choose_device("auto")
    model = cast(Causal, build_model(GPT2)).to(device).eval()
    return pack(model, choose_answering_precision(precision, device)), count_parameters(model)


def _bytes_a_weight(precision: str) -> int:
    return choose_answering_precision(precision, choose_device("auto")).itemsize


def _write(precision: str) -> None:
    (model, n_parameters), prompt = _answering(precision), torch.randint(0, 50257, (1, PROMPT), device=choose_device("auto"))
    options = DecodeConfig(beams=1, max_length=WRITTEN)

    def write() -> float:
        begun = time.perf_counter()
        (found,) = generate(model, None, None, prompt, end=0, options=options)
        assert len(found[0].ids) == WRITTEN - 1  # and the end, which random weights do not choose before they must
        return time.perf_counter() - begun

    rate = WRITTEN / sorted(write() for _ in range(4))[1]
    report(rate, weights_GB_per_second=_bytes_a_weight(precision) * n_parameters * rate / 1e9)


def _read(precision: str) -> None:
    (model, n_parameters), prompt = _answering(precision), torch.randint(0, 50257, (1, READ + 1), device=choose_device("auto"))
    with torch.inference_mode():
        rate = READ / median_seconds(lambda: model.start(None, None, prompt), n=7)
    report(rate, TFLOPs=2 * (n_parameters - 50257 * 768) * rate / 1e12)


def _judge(precisions: str) -> None:
    """Train the small model for a while, and say what held-out text costs it in each precision; the rate is the first one's."""
    device = choose_device("auto")
    model = cast(Causal, build_model(SMALL.replace(vocab_size=256, dropout=0.0))).to(device).train()
    step = _stepper(model)
    text = _library()
    train, held_out = text[: -(1 << 16)], text[-(1 << 16) :].view(-1, 4, 256).to(device)
    for data in _windows(train, 150):
        step(data.to(device))
    rates, notes = [], {}
    for name in precisions.split(","):
        packed = pack(model.eval(), choose_answering_precision(name, device))
        with torch.inference_mode():
            packed(held_out[0])  # waits for the compiler on a new machine
            begun, total = time.perf_counter(), 0.0
            for data in held_out:
                total -= float(packed(data[:, :-1]).log_softmax(-1).gather(-1, data[:, 1:, None]).sum())
        n_tokens = held_out[:, :, 1:].numel()
        rates.append(n_tokens / (time.perf_counter() - begun))
        notes[f"perplexity_{name}"] = round(math.exp(total / n_tokens), 3)
    report(rates[0], **notes)


def _library() -> Tensor:
    """Return a few million bytes of the source of Python's own library, the same every time on one installation."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return torch.frombuffer(bytearray(b"".join(file.read_bytes() for file in files)), dtype=torch.uint8).long()


def _windows(text: Tensor, n: int) -> Iterator[Tensor]:
    """Yield n batches (8, 257) from random places."""
    for _ in range(n):
        starts = torch.randint(0, text.numel() - 257, (8,))
        yield torch.stack([text[start : start + 257] for start in starts.tolist()])
