import itertools
import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_runs import TINY, ToyData, Train

import heed
from heed.config import merge
from heed.data.batch import Batch, collate
from heed.data.order import batches
from heed.errors import ConfigError, TrainingError
from heed.files import sha256
from heed.model.losses import LossSum
from heed.model.models import Model
from heed.run import Run, load_weights, resolve
from heed.tasks.translation import Translation
from heed.training.checkpoint import Progress, checkpoints, fault, place_of
from heed.training.log import TrainingLog
from heed.training.prepare import prepare, reopen
from heed.training.signals import Interrupted
from heed.training.timetable import CALIBRATION_STEPS
from heed.training.trainer import Trainer

pytest_plugins = ["toy_runs"]

MakeTrainer = Callable[..., Trainer]
Rows = np.ndarray[Any, Any]


def lines_of(run: Run | Path) -> list[dict[str, Any]]:
    folder = run.folder if isinstance(run, Run) else run
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def evaluations(run: Run) -> list[dict[str, Any]]:
    return [line for line in lines_of(run) if "valid" in line]


@pytest.fixture(scope="module")
def make_trainer(toy_data: ToyData, tmp_path_factory: pytest.TempPathFactory) -> MakeTrainer:
    """Return a maker of trainers that have not made a step; all have the same weights and data."""

    def make(**overrides: Any) -> Trainer:
        folder = tmp_path_factory.mktemp("trainer")
        base = merge(TINY, {"data": toy_data.both, "model": {"dropout": 0.0}})
        log = TrainingLog(folder, tensorboard=False, quiet=True)
        return Trainer(prepare(resolve(base, overrides), folder, log.say), log)

    return make


@pytest.fixture(scope="module")
def pair_of_trainers(make_trainer: MakeTrainer) -> tuple[Trainer, Trainer]:
    return make_trainer(), make_trainer()


def reset(trainer: Trainer, weights: dict[str, torch.Tensor]) -> None:
    trainer.model.load_state_dict(weights)
    trainer.optimizer.state.clear()
    trainer.progress.step = 0


def gradients(trainer: Trainer) -> list[torch.Tensor]:
    return [parameter.grad for parameter in trainer.model.parameters() if parameter.grad is not None]


def cut(rows: Rows, places: Sequence[int]) -> list[Rows]:
    return [part for part in np.split(rows, sorted(set(places))) if len(part)]


@settings(max_examples=12)
@given(st.permutations(range(17)), st.lists(st.integers(1, 16), max_size=16))
def test_any_division_into_micro_batches_is_the_same_step(
    pair_of_trainers: tuple[Trainer, Trainer], order: list[int], places: list[int]
) -> None:
    big, split = pair_of_trainers
    weights = {name: tensor.clone() for name, tensor in big.model.state_dict().items()}
    rows = np.array(order) * 3
    assert len(set(big.lengths[rows].max(axis=1).tolist())) > 3  # ragged
    for trainer, group in ((big, [rows]), (split, cut(rows, places))):
        reset(trainer, weights)
        trainer.update(group)
    for a, b in zip(gradients(big), gradients(split), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    step_a, step_b = lines_of(big.run)[-1], lines_of(split.run)[-1]
    for figure in ("loss", "accuracy", "grad_norm", "lr"):
        assert step_a[figure] == pytest.approx(step_b[figure], rel=1e-6), figure
    reset(big, weights)
    reset(split, weights)


def test_the_gradient_of_an_update_is_that_of_the_mean_loss_per_token(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(train={"clip": 0.0})
    rows = [np.array([0, 4, 9]), np.array([20])]
    trainer.update(rows)
    ours = [gradient.clone() for gradient in gradients(trainer)]
    trainer.model.zero_grad()
    reopened = Run.open(trainer.run.folder, trust=False)
    batch = collate([trainer.train_data[int(row)] for row in np.concatenate(rows)])
    reopened.model.train()
    total, units, *_ = reopened.task.loss(reopened.model, batch)
    torch.autograd.backward(total / units)
    for gradient, parameter in zip(ours, reopened.model.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


def test_training_takes_the_threads_it_is_given_and_gives_them_back(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, seen, update = make_trainer(train={"threads": 3, "steps": 2}), [], Trainer.update

    def noting(self: Trainer, group: list[Any]) -> None:
        seen.append(torch.get_num_threads())
        update(self, group)

    monkeypatch.setattr(Trainer, "update", noting)
    trainer.fit()
    assert seen == [3, 3]
    assert torch.get_num_threads() == 1


def test_gradients_are_clipped_to_the_norm_and_logged_before_clipping(make_trainer: MakeTrainer) -> None:
    free, clipped = make_trainer(train={"clip": 0.0}), make_trainer(train={"clip": 0.01})
    for trainer in (free, clipped):
        trainer.update([np.arange(9)])
    norms = [torch.nn.utils.get_total_norm(gradients(trainer)).item() for trainer in (free, clipped)]
    assert norms[0] == pytest.approx(lines_of(free.run)[0]["grad_norm"], rel=1e-5)
    assert lines_of(clipped.run)[0]["grad_norm"] == pytest.approx(norms[0], rel=1e-5)
    assert norms[1] == pytest.approx(0.01, rel=1e-4)


def test_bfloat16_gives_the_loss_of_float32_but_for_rounding(make_trainer: MakeTrainer) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(train={"precision": precision})
        trainer.update([np.arange(20)])
        losses.append(lines_of(trainer.run)[0]["loss"])
        assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)


def test_an_epoch_shows_every_example_once_and_the_next_in_another_order(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(train={"accumulate": 3})
    n_updates = trainer.timetable.updates_per_epoch
    groups = list(itertools.islice(trainer._groups(), 2 * n_updates))
    epochs = [[row for group in part for rows in group for row in rows.tolist()] for part in (groups[:n_updates], groups[n_updates:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(len(trainer.train_data)))
    assert epochs[0] != epochs[1]
    assert {len(group) for group in groups[: n_updates - 1]} == {3}


def test_batches_keep_to_the_token_budget(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    division = batches(trainer.lengths, 250, seed=1, epoch=0)
    assert all(len(rows) * trainer.lengths[rows].max() <= 250 for rows in division)


def test_the_same_seed_gives_the_same_weights_to_the_bit_and_another_seed_others(train: Train) -> None:
    runs = [train(name, seed=seed) for name, seed in (("a", 5), ("b", 5), ("c", 6))]
    first, same, other = (sha256(run.folder / "model.safetensors") for run in runs)
    assert first == same
    assert first != other


def test_training_draws_nothing_from_the_callers_generators(train: Train) -> None:
    torch.manual_seed(1)
    a = train("a")
    torch.manual_seed(2)
    np.random.seed(2)
    b = train("b")
    assert sha256(a.folder / "model.safetensors") == sha256(b.folder / "model.safetensors")


def test_metrics_hold_loss_accuracy_gradient_norm_rate_speed_and_padding_of_every_logged_step(train: Train) -> None:
    run = train()
    steps = [line for line in lines_of(run) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    names = {"step", "epoch", "loss", "accuracy", "grad_norm", "lr", "units", "units_per_second", "tokens_per_second", "padding", "seconds"}
    assert all(line.keys() == names for line in steps)
    assert all(0 <= line["padding"] < 1 and line["units_per_second"] > 0 and 0 <= line["accuracy"] <= 1 for line in steps)


def test_the_loss_of_a_logged_step_is_the_smoothed_loss_of_its_batch(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    rows = np.arange(5)
    batch = collate([trainer.train_data[int(row)] for row in rows])
    trainer.model.train()
    with torch.no_grad():
        logits = trainer.model(batch["source"], batch.mask("source"), torch.cat([torch.full((5, 1), 1), batch["target"][:, :-1]], 1))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), ignore_index=0, label_smoothing=0.1)
    trainer.update([rows])
    assert lines_of(trainer.run)[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_the_last_step_is_evaluated_once(train: Train) -> None:
    run = train(train={"evaluate_every": 4, "steps": 10})
    assert [line["step"] for line in evaluations(run)] == [4, 8, 10]
    run = train("exact", train={"evaluate_every": 5, "steps": 10, "lr": 3.0, "clip": 0})
    assert [line["step"] for line in evaluations(run)] == [5, 10]


@pytest.mark.parametrize(("metric", "values"), [("loss", [4.0, 2.0, 3.0]), ("accuracy", [0.1, 0.4, 0.3])])
def test_the_run_folder_and_the_returned_model_have_the_weights_of_the_best_evaluation(
    train: Train, monkeypatch: pytest.MonkeyPatch, metric: str, values: list[float]
) -> None:
    figures = iter(values)
    monkeypatch.setattr(Trainer, "validate", lambda trainer: {"loss": 9.0, "accuracy": 0.0, metric: next(figures)})
    run = train(train={"steps": 9, "evaluate_every": 3, "best_metric": metric})
    assert [line["best"] for line in evaluations(run)] == [True, True, False]
    best = mean_of([place_of(run.folder / "checkpoints", 6)], run)
    assert all(torch.equal(tensor, best[name]) for name, tensor in run.model.state_dict().items())
    assert sha256(run.folder / "model.safetensors") == sha256(place_of(run.folder / "checkpoints", 6) / "model.safetensors")


def test_early_stopping_stops_after_the_patience_and_keeps_the_best(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([4.0, 5.0, 3.0, 3.0, 3.5, 1.0])
    monkeypatch.setattr(Trainer, "validate", lambda trainer: {"loss": next(losses), "accuracy": 0.5})
    run = train(train={"steps": 400, "evaluate_every": 2, "early_stopping": 2})
    assert [line["step"] for line in evaluations(run)] == [2, 4, 6, 8, 10]
    assert sha256(run.folder / "model.safetensors") == sha256(place_of(run.folder / "checkpoints", 6) / "model.safetensors")


def test_the_validation_loss_is_that_of_the_weights_without_smoothing_or_dropout(train: Train) -> None:
    run = train(train={"steps": 4}, model={"dropout": 0.5})
    trainer = Trainer(reopen(run.folder, print), TrainingLog(run.folder, tensorboard=False, quiet=True))
    load_weights(trainer.model, run.folder / "model.safetensors")
    total, units = 0.0, 0
    run.model.eval()
    for example in trainer.valid_data:
        batch = collate([example])
        logits = run.model(batch["source"], None, torch.cat([torch.ones(1, 1).long(), batch["target"][:, :-1]], 1))
        total += torch.nn.functional.cross_entropy(logits[0], batch["target"][0], reduction="sum").item()
        units += batch["target"].numel()
    figures = trainer.validate()
    assert figures["loss"] == pytest.approx(total / units, rel=1e-5)
    assert figures["perplexity"] == pytest.approx(np.exp(total / units), rel=1e-4)
    assert evaluations(run)[-1]["valid"]["loss"] == pytest.approx(total / units, rel=1e-5)


def test_only_the_newest_checkpoints_and_the_best_are_kept(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([4.0, 2.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr(Trainer, "validate", lambda trainer: {"loss": next(losses), "accuracy": 0.5})
    run = train(train={"steps": 10, "evaluate_every": 2, "keep": 2})
    assert [int(place.name[5:]) for place in checkpoints(run.folder / "checkpoints")] == [10, 8, 4]


def mean_of(places: Sequence[Path], config: Run) -> dict[str, torch.Tensor]:
    models = [Run.open(config.folder).model for _ in places]
    for model, place in zip(models, places, strict=True):
        load_weights(model, place / "model.safetensors")
    return {name: torch.stack([model.state_dict()[name] for model in models]).mean(0) for name in models[0].state_dict()}


@pytest.mark.parametrize("mean_is_better", [True, False])
def test_the_mean_of_the_last_evaluations_is_kept_only_when_it_is_better(
    train: Train, monkeypatch: pytest.MonkeyPatch, mean_is_better: bool
) -> None:
    losses = iter([4.0, 2.0, 3.0, 1.0 if mean_is_better else 5.0])
    monkeypatch.setattr(Trainer, "validate", lambda trainer: {"loss": next(losses), "accuracy": 0.5})
    run = train(train={"steps": 9, "evaluate_every": 3, "checkpoint_every": 1, "average": 2})
    places = [place_of(run.folder / "checkpoints", step) for step in ((6, 9) if mean_is_better else (6,))]
    for name, expected in mean_of(places, run).items():
        torch.testing.assert_close(run.model.state_dict()[name], expected, rtol=1e-6, atol=1e-7)
    loaded = heed.load(str(run.folder))
    assert all(torch.equal(tensor, run.model.state_dict()[name]) for name, tensor in loaded.model.state_dict().items())
    assert lines_of(run)[-1] == {"step": 9, "average": {"checkpoints": 2, "loss": 1.0 if mean_is_better else 5.0}}


def test_averaging_over_more_evaluations_than_there_are_leaves_the_fresh_weights_out(train: Train) -> None:
    run = train(train={"steps": 9, "evaluate_every": 3, "average": 50})
    average = next(line["average"] for line in lines_of(run) if "average" in line)
    assert average["checkpoints"] == 3


def test_a_score_of_the_task_can_choose_the_weights(train: Train, toy_data: ToyData) -> None:
    run = train(train={"steps": 6, "evaluate_every": 3, "best_metric": "chrf"}, data={"valid": str(toy_data.test)})
    assert evaluations(run)
    assert all({"loss", "accuracy", "chrf", "bleu"} <= line["valid"].keys() for line in evaluations(run))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_update_is_noticed_by_what_answers(make_trainer: MakeTrainer, optimizer: str) -> None:
    """A fused optimizer does not count the changes it makes to a parameter; without the count, an old packed copy would go on answering."""
    trainer = make_trainer(train={"optimizer": optimizer})
    before = trainer.run._answering_model(torch.float32)
    assert trainer.run._answering_model(torch.float32) is before
    trainer.update(trainer.epoch(0)[0])
    assert trainer.run._answering_model(torch.float32) is not before


def test_an_unknown_score_is_refused_with_those_there_are(train: Train, toy_data: ToyData) -> None:
    with pytest.raises(ConfigError, match=r"best_metric=rouge is not one of loss, accuracy, perplexity, .*bleu"):
        train(train={"best_metric": "rouge"}, data={"valid": str(toy_data.test)})


def test_a_diverging_loss_stops_the_run_with_step_rows_cause_and_the_last_good_checkpoint(train: Train, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as error:
        train(train={"steps": 300, "lr": 1e18, "warmup": 0, "clip": 0, "schedule": "constant", "checkpoint_every": 1})
    folder = tmp_path / "run"
    last = checkpoints(folder / "checkpoints")[0]
    message = str(error.value)
    assert f"step {int(last.name[5:]) + 1}: the " in message
    assert "training examples " in message
    assert "learning rate is too high" in message
    assert str(last) in message
    assert fault(last) is None
    assert all(np.isfinite(line["loss"]) for line in lines_of(folder))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_names_the_rows_of_its_batch(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    trainer = make_trainer()
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    loss = Translation.loss

    def broken(task: Translation, model: Model, batch: Batch) -> LossSum:
        total, units, right = loss(task, model, batch)
        return LossSum(total * (bad if 7 in batch.rows else 1), units, right)

    monkeypatch.setattr(Translation, "loss", broken)
    with pytest.raises(
        TrainingError, match=rf"step 1: the loss is {bad}; it arose in the loss \(training examples 3, 5, 8, 1\); the update was not"
    ):
        trainer.update([np.array([2, 4]), np.array([7, 0])])
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())


def test_a_validation_loss_that_is_no_number_stops_the_run(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()
    monkeypatch.setattr(trainer, "validate", lambda: {"loss": float("nan"), "accuracy": 0.0})
    with pytest.raises(TrainingError, match=r"step \d+: the validation loss is nan"):
        trainer.fit()


def test_minutes_alone_fix_the_number_of_steps_that_fit(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(train={"steps": None, "minutes": 1.0, "schedule": "cosine"})
    assert trainer.progress.total_steps is None
    seconds = itertools.count()
    monkeypatch.setattr("heed.training.trainer.time.monotonic", lambda: next(seconds) * 0.25)
    trainer.fit()
    total = trainer.progress.total_steps
    assert total is not None
    assert CALIBRATION_STEPS < total <= 240
    assert lines_of(trainer.run)[-1]["seconds"] <= 62


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_writes_a_checkpoint_and_gives_the_handlers_back(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    trainer = make_trainer()
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    loss = Translation.loss

    def interrupted(task: Translation, model: Model, batch: Batch) -> LossSum:
        if trainer.progress.step == 4:
            os.kill(os.getpid(), number)
        return loss(task, model, batch)

    monkeypatch.setattr(Translation, "loss", interrupted)
    with pytest.raises(Interrupted, match=r"after step 5; nothing is lost, go on with: heed train --resume") as stop:
        trainer.fit()
    assert stop.value.exit_code == 128 + number
    assert fault(place_of(trainer.folder, 5)) is None
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


def test_a_second_signal_stops_at_once(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer()

    def interrupted_twice(task: Translation, model: Model, batch: Batch) -> LossSum:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal should have ended the step")

    monkeypatch.setattr(Translation, "loss", interrupted_twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()


def test_training_goes_on_after_an_evaluation_of_sentences_longer_than_any_position_table(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(
        model={"positions": "sinusoidal", "max_length": 4}, train={"steps": 4, "evaluate_every": 2, "best_metric": "loss"}
    )
    trainer.fit()
    assert trainer.progress.step == 4


def test_of_equal_scores_the_one_with_the_lower_loss_is_best_also_after_resuming(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(train={"steps": 5, "evaluate_every": 1, "best_metric": "accuracy"})
    losses = {1: 1.0, 2: 3.0, 3: 3.0, 4: 2.0, 5: 2.5}
    best_steps: list[int | None] = []

    def validate(one: Trainer) -> dict[str, float]:
        return {"loss": losses[one.progress.step], "accuracy": 0.5 if one.progress.step > 1 else 0.25}

    def stop(n: int, value: float) -> bool:
        best_steps.append(trainer.progress.best_step)
        return n == 3

    monkeypatch.setattr(Trainer, "validate", validate)
    trainer.fit(stop)
    assert best_steps == [1, 2, 2]  # the score comes first, and of equal losses the earlier
    trainer._stopped = False
    trainer.resume()
    assert (trainer.progress.best_value, trainer.progress.best_loss) == (0.5, 3.0)
    trainer.fit()
    assert (trainer.progress.best_step, trainer.progress.best_loss) == (4, 2.0)


def test_a_best_value_of_before_losses_were_kept_with_it_stays_best_of_equals(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(train={"best_metric": "accuracy"})
    trainer.progress = Progress.from_json({"step": 4, "best_value": 0.5, "best_step": 4})
    assert not trainer._is_better({"loss": 0.1, "accuracy": 0.5})
    assert trainer._is_better({"loss": 9.0, "accuracy": 0.6})


def test_a_score_that_validation_does_not_give_is_refused_with_those_it_gives(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(train={"best_metric": "accuracy"})
    loss = Translation.loss
    monkeypatch.setattr(Translation, "loss", lambda task, model, batch: tuple(loss(task, model, batch))[:2])  # none are told right
    with pytest.raises(
        TrainingError, match=r"train\.best_metric=accuracy: the validation data give no such score, but loss, perplexity, bleu"
    ):
        trainer.validate()


def test_a_score_of_the_task_can_choose_the_weights_on_held_out_rows(train: Train) -> None:
    run = train(train={"steps": 6, "evaluate_every": 3, "best_metric": "chrf"})
    assert evaluations(run)
    assert all({"loss", "chrf"} <= line["valid"].keys() for line in evaluations(run))
