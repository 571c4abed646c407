"""Steps that fail: numbers that are not finite, and memory that runs out."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_runs import TINY, ToyData, Train

from heed.config import merge
from heed.errors import TrainingError
from heed.run import Run
from heed.training.faults import explaining_lack_of_memory, first_fault, is_out_of_memory
from heed.training.log import TrainingLog
from heed.training.prepare import prepare
from heed.training.trainer import Trainer

pytest_plugins = ["toy_runs"]


class Through(nn.Module):
    """Applies a function to values or to gradients."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def root_of_nothing(x: Tensor) -> Tensor:
    """Return zeros whose gradients are infinite."""
    return (x * 0).sqrt()


@pytest.mark.parametrize(
    ("function", "expected"),
    [(lambda x: x / 0, "output of 1"), (lambda x: x * math.nan, "output of 1"), (root_of_nothing, "gradient at 0"), (lambda x: x, None)],
)
def test_the_first_place_that_is_not_finite_is_named(function: Callable[[Tensor], Tensor], expected: str | None) -> None:
    model = nn.Sequential(nn.Linear(3, 3), Through(function), nn.Linear(3, 1))
    x = torch.randn(4, 3)
    assert first_fault(model, lambda: model(x).sum()) == expected
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_parameter_and_a_loss_that_are_not_finite_are_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    assert first_fault(model, lambda: model(torch.ones(1, 3)).sum() * math.inf) == "loss"
    with torch.no_grad():
        model[1].bias.fill_(math.nan)
    assert first_fault(model, lambda: model(torch.ones(1, 3)).sum()) == "parameter 1.bias"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried ..."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


@pytest.mark.parametrize(("error", "said"), [(MemoryError(), "MemoryError"), (MemoryError("no room\nfor 8 bytes"), "no room")])
def test_a_lack_of_memory_is_one_line_even_where_the_error_has_no_words(tmp_path: Path, error: MemoryError, said: str) -> None:
    words = rf"^memory ran out \({said}\); use a smaller model.*heed train --resume {tmp_path}$"
    with pytest.raises(TrainingError, match=words), explaining_lack_of_memory(tmp_path):
        raise error


def test_torch_words_a_lack_of_memory_as_expected() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.fixture
def make_trainer(toy_data: ToyData, tmp_path: Path) -> Callable[..., Trainer]:
    """Return a maker of trainers on the toy data, without dropout, that have made no step."""

    def make(name: str = "run", **train: Any) -> Trainer:
        from heed.run import resolve

        settings = merge(TINY, {"data": toy_data.both, "model": {"dropout": 0.0}, "train": train})
        log = TrainingLog(tmp_path / name, tensorboard=False, quiet=True)
        return Trainer(prepare(resolve(settings), tmp_path / name, log.say), log)

    return make


def short_of_memory(trainer: Trainer, most: int) -> list[int]:
    """Let a trainer run out of memory on more than `most` rows at once; returns how many were asked for, in order."""
    asked: list[int] = []
    loss = trainer._loss

    def failing(batch: Any) -> Any:
        asked.append(len(batch))
        if len(batch) > most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes. Error code 12")
        return loss(batch)

    trainer._loss = failing  # type: ignore[method-assign]
    return asked


def test_what_does_not_fit_is_computed_in_halves_to_the_same_weights(
    make_trainer: Callable[..., Trainer], capfd: pytest.CaptureFixture[str]
) -> None:
    plain, short = make_trainer("plain", accumulate=2), make_trainer("short", accumulate=2)
    short.log.console.quiet = False
    most = max(rows.size for group in short.epoch(0) for rows in group) // 3
    asked = short_of_memory(short, most)
    for step, group in enumerate(plain.epoch(0)[:4], start=1):
        totals = [trainer._gradients(step, group) for trainer in (plain, short)]
        assert totals[0].figures() == pytest.approx(totals[1].figures())
        assert float(totals[0].units) == float(totals[1].units)
        for one, other in zip(plain.model.parameters(), short.model.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)
    assert short.progress.halvings == 2
    assert capfd.readouterr().err.count("out of memory") == 2  # in halves, in quarters, and never again
    assert sum(n > most for n in asked) == 2


def test_the_division_is_remembered_when_training_goes_on(
    train: Train, make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from heed.training.checkpoint import load_checkpoint, save_checkpoint

    trainer = make_trainer("short")
    trainer.progress.halvings = 3
    place = save_checkpoint(trainer.folder, trainer.model, trainer.optimizer, trainer.progress)
    assert load_checkpoint(place, trainer.model, trainer.optimizer).halvings == 3
    rows = np.arange(20)
    assert [part.size for part in trainer._parts([rows])] == [3, 3, 3, 3, 2, 2, 2, 2]


def test_an_example_that_does_not_fit_alone_is_named_with_its_length(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    short_of_memory(trainer, 0)
    group = trainer.epoch(0)[0]
    row, length = group[0][0], int(trainer.lengths[group[0][0]].max())
    with pytest.raises(
        TrainingError, match=rf"training example {row + 1}: its {length} tokens alone do not fit into memory.*max_length={length - 1}"
    ):
        trainer.update(group)


def test_an_error_that_is_not_about_memory_is_not_swallowed(make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    monkeypatch.setattr(trainer, "_loss", lambda batch: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match=r"size|shape"):
        trainer.update(trainer.epoch(0)[0])


def spoil(trainer: Trainer, steps: set[int]) -> None:
    """Let the first block of the decoder put out NaN in some steps."""
    module = trainer.model.get_submodule("decoder.blocks.0.feed_forward")

    def look(_: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        return output * math.nan if trainer.progress.step + 1 in steps and trainer.model.training else None

    module.register_forward_hook(look)


def test_a_loss_that_is_not_finite_names_the_module_where_it_arose(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer()
    spoil(trainer, {2})
    first, second = trainer.epoch(0)[:2]
    trainer.update(first)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    with pytest.raises(TrainingError, match=r"step 2: the loss is nan; it arose in the output of decoder\.blocks\.0\.feed_forward"):
        trainer.update(second)
    assert all(torch.equal(one, other) for one, other in zip(before, trainer.model.parameters(), strict=True))


def test_as_many_bad_steps_as_allowed_are_skipped_and_one_more_stops_the_run(make_trainer: Callable[..., Trainer]) -> None:
    trainer = make_trainer(skip_bad_steps=2)
    spoil(trainer, {2, 3, 5})
    groups = trainer.epoch(0)
    trainer.update(groups[0])
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.update(groups[1])
    trainer.update(groups[2])
    assert all(torch.equal(one, other) for one, other in zip(before, trainer.model.parameters(), strict=True))
    assert trainer.progress.step == 3
    trainer.update(groups[3])
    assert not all(torch.equal(one, other) for one, other in zip(before, trainer.model.parameters(), strict=True))
    with pytest.raises(TrainingError, match="step 5"):
        trainer.update(groups[4])
    lines = [json.loads(line) for line in trainer.log.path.read_text().splitlines()]
    assert [line["step"] for line in lines if "skipped" in line] == [2, 3]


def test_a_plan_says_what_training_then_takes(toy_data: ToyData, train: Train) -> None:
    from heed.training.plan import make_plan

    settings = merge(TINY, {"data": toy_data.both})
    plan = make_plan(settings, {})
    run: Run = train(data={"valid": str(toy_data.valid)})
    assert plan.parameters == sum(parameter.numel() for parameter in run.model.parameters())
    assert plan.steps == 12
    assert plan.examples == 200
    size = sum(path.stat().st_size for path in next((run.folder / "checkpoints").glob("step-00000012")).iterdir())
    assert plan.checkpoint_mib == pytest.approx(size / 2**20, rel=0.02)
    assert any("12 steps" in line for line in plan.lines())
