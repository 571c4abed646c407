import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from heed.config import TrainConfig
from heed.errors import CheckpointError, TrainingError
from heed.model import ModelConfig, build_model
from heed.training.checkpoint import (
    Progress,
    average_weights,
    checkpoints,
    fault,
    forget_old,
    load_checkpoint,
    newest_whole,
    place_of,
    save_checkpoint,
)
from heed.training.optim import build_optimizer


def model_and_optimizer(seed: int = 0, d_model: int = 8) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = build_model(ModelConfig(vocab_size=11, d_model=d_model, n_heads=2, n_layers=1, d_ff=12))
    optimizer = build_optimizer(model, TrainConfig())
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape)
    optimizer.step()
    return model, optimizer


def save(folder: Path, step: int, seed: int = 0) -> nn.Module:
    model, optimizer = model_and_optimizer(seed)
    save_checkpoint(folder, model, optimizer, Progress(step=step))
    return model


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Make the kernel refuse larger files, as a full disk refuses any."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_weights_optimizer_and_progress_come_back_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(seed=1)
    progress = Progress(step=7, epoch=2, group=3, seconds=1.25, total_steps=90, best_value=0.1, best_step=5, evaluated=[3, 5])
    place = save_checkpoint(tmp_path, model, optimizer, progress)
    other, other_optimizer = model_and_optimizer(seed=2)
    assert load_checkpoint(place, other, other_optimizer) == progress
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert optimizer.state[a].keys() == other_optimizer.state[b].keys()
        assert all(torch.equal(value, other_optimizer.state[b][key]) for key, value in optimizer.state[a].items())


def test_the_next_step_after_loading_is_the_step_that_would_have_been(tmp_path: Path) -> None:
    model, optimizer = model_and_optimizer(seed=1)
    place = save_checkpoint(tmp_path, model, optimizer, Progress(step=1))
    other, other_optimizer = model_and_optimizer(seed=2)
    load_checkpoint(place, other, other_optimizer)
    for both in zip(model.parameters(), other.parameters(), strict=True):
        gradient = torch.randn(both[0].shape)
        for parameter in both:
            parameter.grad = gradient.clone()
    optimizer.step()
    other_optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_nothing_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    save(tmp_path, 1)
    names = {path.name for path in place_of(tmp_path, 1).iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json"}


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    path = place_of(tmp_path, 20) / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "cut" else bytes([content[0] ^ 1]) + content[1:])
    place, faults = newest_whole(tmp_path)
    assert place == place_of(tmp_path, 10)
    assert len(faults) == 1
    assert str(place_of(tmp_path, 20)) in faults[0]


def test_no_whole_checkpoint_is_an_error_that_says_what_is_wrong_with_each(tmp_path: Path) -> None:
    save(tmp_path, 10)
    (place_of(tmp_path, 10) / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no whole checkpoint.*step-00000010"):
        newest_whole(tmp_path)


def test_state_of_another_model_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    model, optimizer = model_and_optimizer(d_model=12)
    with pytest.raises(CheckpointError, match="do not fit"):
        load_checkpoint(place_of(tmp_path, 1), model, optimizer)


def test_a_full_disk_leaves_the_checkpoints_before_and_no_draft(tmp_path: Path) -> None:
    save(tmp_path, 10)
    model, optimizer = model_and_optimizer()
    small = (place_of(tmp_path, 10) / "model.safetensors").stat().st_size // 2
    with largest_file(small), pytest.raises(TrainingError, match="the disk is full"):
        save_checkpoint(tmp_path, model, optimizer, Progress(step=20))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
    assert fault(place_of(tmp_path, 10)) is None


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 10, seed=1)
    model = save(tmp_path, 10, seed=2)
    other, optimizer = model_and_optimizer(seed=3)
    load_checkpoint(place_of(tmp_path, 10), other, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_old_checkpoints_go_but_the_newest_and_those_of_named_steps_stay(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20, 25):
        save(tmp_path, step)
    forget_old(tmp_path, keep=2, steps=[10, None])
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000025", "step-00000020", "step-00000010"]


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (9, 100, 10):
        save(tmp_path, step)
    assert [int(path.name[5:]) for path in checkpoints(tmp_path)] == [100, 10, 9]


def test_averaged_weights_are_the_mean(tmp_path: Path) -> None:
    models = [save(tmp_path, step, seed=step) for step in (1, 2, 3)]
    mean = average_weights([place_of(tmp_path, step) for step in (1, 2, 3)])
    for name, tensor in mean.items():
        expected = torch.stack([model.state_dict()[name] for model in models]).mean(0)
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)
