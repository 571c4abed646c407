"""Language models: training a GPT of 10 M parameters, writing and reading with a GPT of GPT-2's shape (124 M), in tokens per second.

Run: heed bench language [rounds]
Three tables. Weights are random: only speed is measured here. With NANOGPT=FOLDER in the environment a checkout of nanoGPT takes part.
"""

import os
import time
from typing import cast

import torch

from heed.bench.compare import KEPT_MEMORY, Side, compare, median_seconds, ours, report, theirs
from heed.config import DecodeConfig, TrainConfig
from heed.decode import generate
from heed.device import choose_answering_precision, choose_precision, keep_memory
from heed.model import Causal, ModelConfig, build_model, count_parameters, vocabulary_loss
from heed.model.packed import pack
from heed.training.optim import build_optimizer

GPT = {"architecture": "causal", "activation": "gelu_tanh", "positions": "learned", "embedding_scale": False}
SMALL = ModelConfig(**GPT, d_model=384, n_heads=6, n_layers=6, d_ff=1536, vocab_size=65, max_length=256, dropout=0.2)  # type: ignore[arg-type]
GPT2 = ModelConfig(**GPT, d_model=768, n_heads=12, n_layers=12, d_ff=3072, vocab_size=50257, max_length=1024)  # type: ignore[arg-type]
PROMPT, WRITTEN, READ = 16, 128, 512


def main(arguments: list[str]) -> None:
    """Compare."""
    rounds = int(arguments[0]) if arguments else 3
    rows = [Side("heed", ours("language", "train"))]
    for system in ["hf", *(["nano"] if os.environ.get("NANOGPT") else [])]:
        name = {"hf": "Hugging Face", "nano": "nanoGPT"}[system]
        rows += [
            Side(f"{name}, {precision}", theirs("language", "train", system, precision), KEPT_MEMORY) for precision in ("bf16", "fp32")
        ]
    compare("language-training", "Training a GPT of 10 M parameters, 4 x 256 tokens", "tokens/s", rows, rounds=rounds)
    for kind, title in (
        ("write", f"Writing {WRITTEN} tokens with GPT-2's shape (124 M), one text"),
        ("read", f"Reading {READ} tokens with it"),
    ):
        rows = [Side(f"heed {precision}", ours("language", kind, precision)) for precision in ("auto", "int8", "float32")]
        rows += [Side(f"Hugging Face, {precision}", theirs("language", kind, "hf", precision)) for precision in ("bf16", "fp32")]
        compare(f"language-{kind}", title, "tokens/s", rows, rounds=rounds)


def side(kind: str, precision: str = "auto") -> None:
    """Train, write or read with heed."""
    {"train": _train, "write": _write, "read": _read}[kind](precision)


def _train(_: str) -> None:
    keep_memory()
    torch.manual_seed(1)
    model = cast(Causal, build_model(SMALL)).train()
    precision = choose_precision("auto", torch.device("cpu"))
    optimizer = build_optimizer(model, TrainConfig(lr=1e-3, weight_decay=0.1), precision)
    data = torch.randint(0, 65, (4, 257))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = vocabulary_loss(model.hidden(data[:, :-1]), model.head.weight, data[:, 1:])
        (loss.total / loss.units).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    rate = data[:, 1:].numel() / median_seconds(step, warm=3, n=25)
    report(rate, TFLOPs=6 * count_parameters(model) * rate / 1e12)


def _answering(precision: str) -> tuple[Causal, int]:
    """Return the model packed, and its number of parameters."""
    keep_memory()
    torch.manual_seed(1)
    model = cast(Causal, build_model(GPT2)).eval()
    return pack(model, choose_answering_precision(precision, torch.device("cpu"))), count_parameters(model)


def _write(precision: str) -> None:
    (model, n_parameters), prompt = _answering(precision), torch.randint(0, 50257, (1, PROMPT))
    options = DecodeConfig(beams=1, max_length=WRITTEN)

    def write() -> float:
        begun = time.perf_counter()
        (found,) = generate(model, None, None, prompt, end=0, options=options)
        assert len(found[0].ids) == WRITTEN - 1  # and the end, which random weights do not choose before they must
        return time.perf_counter() - begun

    rate = WRITTEN / sorted(write() for _ in range(4))[1]
    width = {"int8": 1, "float32": 4}.get(precision, 2)
    report(rate, weights_GB_per_second=width * n_parameters * rate / 1e9)


def _read(precision: str) -> None:
    (model, n_parameters), prompt = _answering(precision), torch.randint(0, 50257, (1, READ + 1))
    with torch.inference_mode():
        rate = READ / median_seconds(lambda: model.start(None, None, prompt), n=7)
    report(rate, TFLOPs=2 * (n_parameters - 50257 * 768) * rate / 1e12)
