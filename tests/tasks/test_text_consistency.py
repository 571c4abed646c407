"""Texts that an update reads twice (task.consistency): the loss by its definition, what is drawn anew, and what stays as it was."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_classifiers import LABELS, SHAPE, TRAIN, VALID, model_for, prepared_in, task_for, texts_with_labels, trained

from heed.config import merge
from heed.data.batch import Batch, collate
from heed.data.rows import Example
from heed.errors import ConfigError
from heed.model.losses import LossSum, class_divergence, class_loss, decision_divergence
from heed.run import Run
from heed.tasks.text_classification import TextClassification
from heed.training.log import TrainingLog
from heed.training.trainer import Trainer

ALPHA = 0.7
TWO_WAYS: dict[str, dict[str, Any]] = {"once": {}, "both": {"consistency": ALPHA}}


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def apart(p: Sequence[float], q: Sequence[float]) -> float:
    """Return the mean of KL in both directions."""
    return (kl(p, q) + kl(q, p)) / 2


def both_ways(share: float) -> tuple[float, float]:
    return share, 1 - share


def twice(task: TextClassification, rows: Sequence[Example]) -> Batch:
    """Lay rows side by side, and all of them again."""
    return collate(task.encode_all([*rows, *rows], training=True), [*range(len(rows))] * 2)


def test_the_divergence_of_classes_equals_its_definition_and_so_do_its_gradients() -> None:
    first, second = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    p, q = first.softmax(-1), second.softmax(-1)
    expected = ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2
    found = class_divergence(first, second)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, [first, second]), torch.autograd.grad(expected, [first, second]))


def test_the_divergence_of_decisions_is_that_of_two_classes_for_each() -> None:
    first, second = (torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    as_classes = [torch.stack([logits, torch.zeros_like(logits)], dim=-1).flatten(0, 1) for logits in (first, second)]  # (15, 2)
    found, expected = decision_divergence(first, second), class_divergence(*as_classes)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, [first, second]), torch.autograd.grad(expected, [first, second]))


@pytest.mark.parametrize("divergence", [class_divergence, decision_divergence])
def test_answers_far_apart_have_a_finite_divergence_also_in_half_precision(divergence: Any) -> None:
    logits = (1e4 * torch.eye(3)).bfloat16().requires_grad_()
    found = divergence(logits, -logits.detach())
    assert found.dtype == torch.float32
    assert 1e3 < found.item() < math.inf
    assert bool(torch.autograd.grad(found, logits)[0].isfinite().all())
    assert divergence(logits, logits).item() == 0


def read_twice(task: TextClassification, rows: Sequence[Example]) -> tuple[LossSum, torch.Tensor]:
    """Return the loss of rows that training reads twice, and the logits (2B, C) that it rests on."""
    model = model_for(task, dropout=0.5).train()
    batch = twice(task, rows)
    with torch.no_grad():
        torch.manual_seed(3)
        found = task.loss(model, batch)
        torch.manual_seed(3)
        return found, task.judge(model, batch)[0].double()


@pytest.mark.parametrize("weights", ["none", {"cold": 3.0}])
def test_the_loss_is_the_mean_of_both_passes_and_the_weighted_divergence(weights: Any) -> None:
    rows = TRAIN[:7]
    task = task_for(consistency=ALPHA, class_weights=weights)
    found, logits = read_twice(task, rows)
    shares = logits.softmax(-1).tolist()
    total, n_right = 0.0, 0
    for row, p, q in zip(rows, shares[:7], shares[7:], strict=True):
        wanted = LABELS.index(row["label"])
        factor = 3.0 if weights != "none" and row["label"] == "cold" else 1.0
        assert apart(p, q) > 0
        total += factor * (-math.log(p[wanted]) - math.log(q[wanted])) / 2 + ALPHA * apart(p, q)
        n_right += (max(p) == p[wanted]) + (max(q) == q[wanted])
    assert found.total.item() == pytest.approx(total, rel=1e-5)
    assert (found.units.item(), found.right.item()) == (7, n_right / 2)


def test_of_several_labels_each_decision_has_a_divergence_of_its_own() -> None:
    rows = texts_with_labels(5, seed=3)
    task = task_for(rows, multi_label=True, consistency=ALPHA)
    found, logits = read_twice(task, rows)
    shares = logits.sigmoid().tolist()
    total = 0.0
    for row, p, q in zip(rows, shares[:5], shares[5:], strict=True):
        for name, a, b in zip(LABELS, p, q, strict=True):
            losses = [-math.log(share if name in row["label"] else 1 - share) for share in (a, b)]
            total += sum(losses) / 2 + ALPHA * apart(both_ways(a), both_ways(b))
    assert found.total.item() == pytest.approx(total, rel=1e-5)
    assert found.units.item() == 5 * len(LABELS)


def test_where_nothing_is_drawn_the_loss_is_that_of_one_pass_and_so_is_the_gradient() -> None:
    rows = TRAIN[:7]
    task, plain = task_for(consistency=ALPHA, drop_words=0.1), task_for()
    model = model_for(plain).train()
    losses = [task.loss(model, twice(task, rows)), plain.loss(model, collate(plain.encode_all(rows, training=True)))]
    for found, expected in zip(*losses, strict=True):
        torch.testing.assert_close(found, expected, check_dtype=False, rtol=1e-5, atol=1e-5)
    mine, expected_gradients = (
        torch.autograd.grad(loss.total, [p for p in model.parameters() if p.requires_grad], allow_unused=True) for loss in losses
    )
    torch.testing.assert_close(mine, expected_gradients, rtol=1e-4, atol=1e-5)


def test_validation_reads_a_text_once() -> None:
    task, plain = task_for(consistency=ALPHA), task_for()
    model = model_for(task, dropout=0.5).eval()
    batch = collate(task.encode_all(TRAIN[:7], training=True), range(7))
    with torch.no_grad():
        assert [one.item() for one in task.loss(model, batch)] == [one.item() for one in plain.loss(model, batch)]


def trainer_of(folder: Path, **settings: Any) -> Trainer:
    folder.mkdir()
    prepared, _ = prepared_in(folder, TRAIN[:30], VALID[:9], **settings)
    return Trainer(prepared, TrainingLog(prepared.run.folder, tensorboard=False, quiet=True))


def test_an_update_lays_its_rows_in_twice_and_leaves_other_words_out_the_second_time(tmp_path: Path) -> None:
    once, both = (trainer_of(tmp_path / name, task={"drop_words": 0.4, **more}) for name, more in TWO_WAYS.items())
    (rows, *_), *_ = once.epoch(0)
    assert rows.tolist() == both.epoch(0)[0][0].tolist()  # train.batch_tokens counts a text once
    plain, doubled = (trainer._training_batch(rows) for trainer in (once, both))
    assert doubled.rows == 2 * plain.rows
    assert doubled["label"].tolist() == 2 * plain["label"].tolist()
    halves = [[ids[mask].tolist() for ids, mask in zip(one["text"], one.mask("text"), strict=True)] for one in (plain, doubled)]
    assert halves[1][: len(rows)] == halves[0]
    assert halves[1][len(rows) :] != halves[0]


def test_parts_of_a_batch_add_up_to_its_loss_and_units(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path / "run", task={"drop_words": 0.4, "consistency": ALPHA})
    (rows, *_), *_ = trainer.epoch(0)
    trainer.model.train()
    whole = trainer._loss(trainer._training_batch(rows))
    parts = [trainer._loss(trainer._training_batch(part)) for part in (rows[:2], rows[2:])]
    for i in range(3):
        torch.testing.assert_close(whole[i], parts[0][i] + parts[1][i], rtol=1e-5, atol=1e-5)


def test_a_run_counts_units_and_tokens_once(tmp_path: Path) -> None:
    units, speeds = [], []
    for name, more in TWO_WAYS.items():
        (tmp_path / name).mkdir()
        run = trained(tmp_path / name, TRAIN[:30], VALID[:9], model={"dropout": 0.3}, task=more, train={"steps": 3})
        lines = [line for line in metrics_of(run) if "units" in line]
        units.append([line["units"] for line in lines])
        speeds.append([line["tokens_per_second"] / line["units_per_second"] * line["units"] for line in lines])  # tokens of a step
    assert units[0] == units[1]
    assert speeds[0] == pytest.approx(speeds[1], rel=1e-9)


KINDS: dict[str, dict[str, Any]] = {
    "hierarchical": {"model": {"hierarchical": True}},
    "windows": {"task": {"overlap": 1, "train_windows": 2}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_texts_read_by_sentence_or_in_drawn_windows_are_compared_too(tmp_path: Path, kind: str) -> None:
    settings = merge({"model": {"dropout": 0.3}, "task": {"consistency": ALPHA}, "data": {"max_length": 3}}, KINDS[kind])
    trainer = trainer_of(tmp_path / "run", **settings)
    (rows, *_), *_ = trainer.epoch(0)
    task, model, batch = trainer.task, trainer.model.train(), trainer._training_batch(rows)
    assert isinstance(task, TextClassification)
    torch.manual_seed(3)
    found = task.loss(model, batch)
    torch.manual_seed(3)
    logits = task.judge(model, batch, most=task.config.train_windows)[0]
    usual = class_loss(logits, batch["label"], smoothing=task.label_smoothing)
    divergence = class_divergence(*logits.chunk(2))
    assert divergence.item() > 1e-4
    torch.testing.assert_close(found.total, usual.total / 2 + ALPHA * divergence, rtol=1e-5, atol=1e-5)
    assert found.units.item() == len(rows)


def metrics_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_answers_of_both_passes_come_closer_the_more_consistency_weighs(tmp_path: Path) -> None:
    distances = []
    for name, weight in (("little", 1e-3), ("much", 30.0)):
        (tmp_path / name).mkdir()
        shares = {"consistency": weight}
        run = trained(tmp_path / name, TRAIN, VALID, model={"dropout": 0.3}, task=shares, train={"steps": 60, "evaluate_every": 60})
        assert isinstance(run.task, TextClassification)
        torch.manual_seed(5)
        with torch.no_grad():
            logits, _ = run.task.judge(run.model.train(), twice(run.task, VALID))
        distances.append(class_divergence(*logits.chunk(2)).item())
    assert distances[1] < distances[0] / 2


@pytest.mark.parametrize("more", [{"drop_words": 0.1}, {"swap_words": 0.1}])
def test_consistency_without_anything_drawn_is_refused(more: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"task\.consistency=0\.7 would be ignored: without dropout and augmentation"):
        task_for(consistency=ALPHA).shape(SHAPE)
    task_for(consistency=ALPHA, **more).shape(SHAPE)
    task_for(consistency=ALPHA).shape(SHAPE.replace(dropout=0.1))
    task_for().shape(SHAPE)


def test_a_negative_consistency_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.consistency: .*greater than or equal to 0, found -1"):
        prepared_in(tmp_path, TRAIN[:30], VALID[:9], task={"consistency": -1})


def test_a_text_too_large_for_memory_may_be_read_once() -> None:
    assert task_for(consistency=ALPHA).memory_advice(90) == "read it once (task.consistency=0)"
