"""Several documents in one row: they teach what they teach alone, and none sees another."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import WORDS, write_rows
from toy_writers import SIZES, model_for

import heed
from heed.config import DecodeConfig, merge, validate
from heed.data.batch import Batch, collate
from heed.data.layout import Packing
from heed.data.store import Encoded
from heed.errors import ConfigError
from heed.files import sha256
from heed.model import Causal, attention, same_text_mask
from heed.run import resolve
from heed.tasks.text_generation import TextGeneration, TextGenerationSettings
from heed.training.checkpoint import checkpoints
from heed.training.log import TrainingLog
from heed.training.prepare import prepare
from heed.training.train import fit_on
from heed.training.trainer import Trainer

CONTEXT = 40
KINDS: dict[str, dict[str, Any]] = {
    "learned": {"positions": "learned", "max_length": CONTEXT},
    "sinusoidal": {"positions": "sinusoidal"},
    "sinusoidal_halves": {"positions": "sinusoidal_halves", "norm_place": "after"},
    "rotary": {"positions": "rotary", "n_kv_heads": 2},
    "relative": {"positions": "relative", "scaled": False},
    "none": {"positions": "none"},
}


def texts(n: int, seed: int = 4, most: int = 5) -> list[dict[str, str]]:
    """Return documents of one to `most` words."""
    draw = random.Random(seed)
    return [{"text": " ".join(draw.choices(list(WORDS), k=draw.randint(1, most)))} for _ in range(n)]


def task_of(**settings: Any) -> TextGeneration:
    given = {"tokens": "characters", "packed": True, **settings}
    task = TextGeneration(validate(TextGenerationSettings, given), max_length=CONTEXT)
    task.prepare(texts(40))
    return task


@pytest.fixture(scope="module")
def task() -> TextGeneration:
    return task_of()


@pytest.fixture(params=list(KINDS))
def model(task: TextGeneration, request: pytest.FixtureRequest) -> Causal:
    return model_for(task, **KINDS[request.param])


def windows(task: TextGeneration) -> list[Encoded]:
    """Return documents of a window each, and the windows of two long ones, of which the first alone has a begin token."""
    long = [{"text": "the old tree " * n} for n in (8, 10)]
    return [window for one in task.encode_all(texts(16, seed=8) + long) for window in task.pieces(one)]


def packed(examples: Sequence[Encoded]) -> Batch:
    """Lay examples into full rows, as the only batch of an epoch has them."""
    packing = Packing(CONTEXT)
    lengths = np.array([[len(one["text"])] for one in examples], dtype=np.int32)
    (rows,) = packing.batches(lengths, 10_000, seed=2, epoch=0)
    return packing.collate([examples[row] for row in rows])


def taught(task: TextGeneration, model: Causal, batches: Sequence[Batch]) -> list[torch.Tensor]:
    """Return the loss of batches, added up, what it counted, and its gradient by every parameter."""
    found = [task.loss(model, batch) for batch in batches]
    total = torch.stack([one.total for one in found]).sum()
    counts = [sum(one.units for one in found), sum(one.right for one in found)]
    return [total.detach(), *map(torch.as_tensor, counts), *torch.autograd.grad(total, list(model.parameters()), allow_unused=True)]


def assert_alike(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1.0, float(other.abs().max())))


@pytest.fixture(params=["as a whole", "in runs"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mix short rows either way, one of which is for longer ones."""
    monkeypatch.setattr(attention, "RUN", 16 if request.param == "in runs" else CONTEXT)


@pytest.mark.usefixtures("way")
def test_packed_documents_teach_what_they_teach_in_rows_of_their_own(task: TextGeneration, model: Causal) -> None:
    found = windows(task)
    batch = packed(found)
    assert len(batch) < 0.7 * len(found)
    assert sum(one["text"][0] != task.tokenizer.bos_id for one in found) > 3  # windows in the middle of a document
    alone = taught(task, model, [collate([one]) for one in found])
    assert_alike(taught(task, model, [batch]), alone)
    crossed = Batch({**batch.tensors, "places": torch.arange(batch["text"].size(1)).expand(batch["text"].shape)}, batch.masks)
    with pytest.raises(AssertionError):  # as a control: with cross-talk
        assert_alike(taught(task, model, [crossed]), alone)


def test_recomputing_packed_rows_teaches_the_same(task: TextGeneration) -> None:
    model, batch = model_for(task, **KINDS["relative"]), packed(windows(task))
    expected = taught(task, model, [batch])
    model.stack.recompute = True
    assert_alike(taught(task, model.train(), [batch]), expected)


def test_any_division_of_a_packed_batch_teaches_the_same(task: TextGeneration) -> None:
    model, found = model_for(task, **KINDS["learned"]), windows(task)
    parts = [packed([found[i] for i in part]) for part in np.array_split(np.arange(len(found)), 5)]
    assert_alike(taught(task, model, parts), taught(task, model, [packed(found)]))


@pytest.mark.usefixtures("way")
def test_changing_one_document_changes_no_others_logits_by_a_bit(task: TextGeneration, model: Causal) -> None:
    batch = packed(windows(task))
    numbers = (batch["places"] == 0).cumsum(-1)
    changed = (numbers == 2) & batch.mask("text")
    other = torch.where(changed, (batch["text"] + 3) % task.tokenizer.vocab_size, batch["text"])
    with torch.no_grad():
        before, after = (model.head(model.hidden_of_texts(ids, batch["places"])) for ids in (batch["text"], other))
    assert changed.any(1).sum() > 3
    assert ((numbers == 3) & batch.mask("text")).any()
    assert torch.equal(before[~changed], after[~changed])
    assert (before[changed] != after[changed]).any(-1).all()


def test_a_document_is_read_alike_wherever_it_stands_in_a_row(task: TextGeneration, model: Causal) -> None:
    one, other = (window["text"][:9] for window in windows(task)[-2:])
    places = torch.arange(9).repeat(2)[None]
    with torch.no_grad():
        first, second = (model.hidden_of_texts(torch.cat(pair)[None], places) for pair in ((one, other), (other, one)))
        alone = model.hidden(one[None])
    torch.testing.assert_close(first[:, :9], alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second[:, 9:], alone, rtol=1e-5, atol=1e-5)


def test_the_mask_of_texts_joins_the_tokens_of_each() -> None:
    numbers = torch.tensor([[1, 1, 2, 2, 2], [1, 2, 3, 3, 4]])
    mask = same_text_mask(numbers)
    assert mask.shape == (2, 1, 5, 5)
    for row in range(2):
        for query in range(5):
            for key in range(5):
                assert bool(mask[row, 0, query, key]) == (numbers[row, query] == numbers[row, key])


# --- whole runs


def recipe_of(folder: Path, **settings: Any) -> dict[str, Any]:
    """Return the settings of a small run that packs."""
    recipe: dict[str, Any] = {
        "task": {"name": "text_generation", "tokens": "characters", "packed": True},
        "data": {"train": str(write_rows(folder / "texts.tsv", texts(150, most=9))), "max_length": 90, "allow_leaks": True},
        "model": {**SIZES, "dropout": 0.1},
        "train": {"steps": 16, "batch_tokens": 90, "precision": "float32", "tensorboard": False, "log_every": 1, "lr": 0.01},
    }
    return merge(recipe, settings)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def trainer_of(folder: Path, **settings: Any) -> Trainer:
    folder.mkdir()
    prepared = prepare(resolve(recipe_of(folder, **settings)), folder / "run", lambda text: None)
    return Trainer(prepared, TrainingLog(prepared.run.folder, tensorboard=False, quiet=True))


def test_an_epoch_foretells_every_token_once_and_counts_it_once(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "own", train={"accumulate": 3})
    with trainer.log:
        for group in trainer.epoch(0):
            trainer.update(group)
    lines = lines_of(trainer.run.folder)
    n_tokens = int((trainer.train_data.lengths() - 1).sum())
    assert sum(line["units"] for line in lines) == n_tokens
    batches = [[trainer.train_data[int(row)] for row in rows] for group in trainer.epoch(0) for rows in group]
    n_places = sum(trainer.task.layout.collate(batch)["text"].numel() for batch in batches)
    assert sum(line["units"] / (1 - line["padding"]) for line in lines) == pytest.approx(n_places)


def test_validating_in_packed_rows_finds_the_loss_of_rows_of_their_own(tmp_path: Path) -> None:
    found = [trainer_of(tmp_path / name, task={"packed": name == "packed"}).validate() for name in ("packed", "own")]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-6)
    assert found[0]["accuracy"] == found[1]["accuracy"]


def test_scores_are_of_texts_in_rows_of_their_own(task: TextGeneration) -> None:
    model, unpacked = model_for(task), task_of(packed=False)
    batch = collate(task.encode_all(texts(5, seed=1)))
    with torch.inference_mode():
        found, expected = (one.examiner.predict(model, batch, DecodeConfig()) for one in (task, unpacked))
    assert found == expected


def test_a_packed_run_that_was_stopped_in_an_epoch_ends_with_the_bits_of_one_that_was_not(tmp_path: Path) -> None:
    settings = {"steps": 28, "batch_tokens": 100, "accumulate": 2, "evaluate_every": 28, "checkpoint_every": 7, "keep": 9}
    run = heed.train(recipe_of(tmp_path, train=settings), to=tmp_path / "whole", quiet=True)
    stopped = shutil.copytree(run.folder, tmp_path / "stopped")
    for place in checkpoints(stopped / "checkpoints"):
        if int(place.name[5:]) > 7:
            shutil.rmtree(place)
    epochs = {line["step"]: line["epoch"] for line in lines_of(run.folder) if "epoch" in line}
    assert epochs[7] % 1 > 0  # in the middle of an epoch
    assert epochs[28] > epochs[7] + 1
    (stopped / "model.safetensors").unlink()
    fit_on(stopped, quiet=True)
    assert sha256(stopped / "model.safetensors") == sha256(run.folder / "model.safetensors")
    kept = ("step", "loss", "units", "padding", "valid")
    assert [{key: line.get(key) for key in kept} for line in lines_of(stopped)] == [
        {key: line.get(key) for key in kept} for line in lines_of(run.folder)
    ]


def test_what_packing_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_tokens=89 holds no packed row of data\.max_length=90"):
        heed.train(recipe_of(tmp_path, train={"batch_tokens": 89}), to=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"task\.packed: unknown setting"):
        resolve({"task": {"name": "translation", "packed": True}, "data": {"train": "pairs.tsv"}})


@pytest.mark.parametrize(
    "fields", [{"attention": kind} for kind in ("windowed", "low_rank", "chunked")] + [{"mixer": kind} for kind in ("lstm", "hybrid")]
)
def test_what_would_carry_something_over_a_documents_bounds_is_for_encoders_only(tmp_path: Path, fields: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"needs architecture=encoder.*found causal"):
        resolve(recipe_of(tmp_path, model=fields))
