"""The training loop, flat: batches, loss, gradients, step; evaluation, checkpoints and stopping between steps.

Any division of a batch into micro-batches is the same step, because losses are summed and divided once. Every random draw of a step
follows from (seed, step) and every batch from (seed, epoch), so a resumed run goes on to the same bits.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heed.data.batch import Batch
from heed.data.order import Rows
from heed.data.store import Store
from heed.device import choose_device, choose_precision, give_back_memory, tidy_memory
from heed.errors import TrainingError
from heed.evaluation import evaluate_examples
from heed.metrics import LESS_IS_BETTER
from heed.model.block import Stack
from heed.model.lora import is_adapted
from heed.model.losses import LossSum
from heed.run import distinct, fill, load_weights
from heed.training.checkpoint import (
    Progress,
    average_weights,
    checkpoints,
    fault,
    forget_old,
    load_checkpoint,
    newest_whole,
    other_machine,
    place_of,
    save_checkpoint,
)
from heed.training.division import names_of_rows, validation_rows
from heed.training.faults import explaining_lack_of_memory, first_fault, is_out_of_memory
from heed.training.log import TrainingLog
from heed.training.optim import build_optimizer, learning_rate
from heed.training.prepare import Prepared
from heed.training.signals import StopSignal
from heed.training.timetable import Timetable

Stop = Callable[[int, float], bool]

TOLD_CHANGE = 0.05  # of the number of steps that fit into train.minutes, by which it has to change to be told again


@dataclass
class Totals:
    """Sums over the micro-batches of an update, or of several."""

    loss: Tensor | float = 0.0
    units: Tensor | float = 0
    right: Tensor | float | None = 0
    tokens: int = 0
    padded: int = 0

    def add(self, result: LossSum | tuple[Tensor, Tensor], batch: Batch) -> None:
        """Add the result of one micro-batch."""
        self.loss = self.loss + result[0].detach().double()
        self.units = self.units + result[1]
        self.right = self.right + result[2] if self.right is not None and len(result) > 2 else None
        self.tokens += batch.n_tokens
        self.padded += batch.n_padded

    def figures(self) -> dict[str, float]:
        """Return loss and accuracy per unit."""
        units = max(1.0, float(self.units))
        figures = {"loss": float(self.loss) / units}
        return figures if self.right is None else figures | {"accuracy": float(self.right) / units}


class Trainer:
    """Trains one run; `fit` is the loop."""

    def __init__(self, prepared: Prepared, log: TrainingLog) -> None:
        self.run = prepared.run
        self.config = self.run.config.train
        self.task = self.run.task
        self.train_data, self.valid_data = prepared.train, prepared.valid
        self.lengths = self.train_data.lengths()
        self.log = log
        self.device = choose_device(self.config.device)
        self.precision = choose_precision(self.config.precision, self.device)
        self.model = self.run.model.to(self.device)
        for module in self.model.modules():
            if isinstance(module, Stack):
                module.recompute = self.config.recompute
        self._parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = build_optimizer(self.model, self.config, self.precision)
        self.timetable = Timetable(self.config, updates_per_epoch=len(self.epoch(0)))
        self.progress = Progress(total_steps=self.timetable.planned_steps())
        self.folder = self.run.folder / "checkpoints"
        self.stop_signal = StopSignal()
        self._drawn = 0  # seed of the present step
        self._stop: Stop | None = None
        self._stopped = False
        self.started = time.monotonic()

    def resume(self) -> None:
        """Go back to the newest whole checkpoint."""
        place, faults = newest_whole(self.folder)
        for line in faults:
            self.log.say(f"not used: {line}")
        self.progress = load_checkpoint(place, self.model, self.optimizer)
        self.log.rewind(self.progress.step)
        self.log.say(f"resuming after step {self.progress.step:,}")
        changes = other_machine(place)
        if changes:
            self.log.say(f"the weights may differ in their last bits from those of an unbroken run: {'; '.join(changes)}")
        if self.progress.best_step is not None:
            self._restore_best(place_of(self.folder, self.progress.best_step))

    def _restore_best(self, best: Path) -> None:
        """Bind the best weights again: the run may have died between writing them and the manifest."""
        problem = fault(best)
        if problem is None:
            self._keep_best(best)
        else:
            self.log.say(f"not used: {best}: {problem}; the best weights stay those of {self.run.folder}")

    @contextlib.contextmanager
    def threads(self) -> Iterator[None]:
        """Take as many threads as train.threads says, and afterwards as many as before."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.config.threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def fit(self, stop: Stop | None = None) -> None:
        """Train until the steps, the minutes or the patience are used up, then keep the best weights.

        Args:
            stop: asked after each evaluation, with how many there were and its value of train.best_metric, whether to stop there.
        Raises:
            TrainingError: the loss or a gradient is not a finite number.
            Interrupted: SIGINT or SIGTERM arrived; the step was finished and a checkpoint written.
        """
        self._stop = stop
        with self.threads(), self.stop_signal.noted(self.log.say), explaining_lack_of_memory(self.run.folder):
            self.started = time.monotonic() - self.progress.seconds
            if self.progress.step == 0:
                save_checkpoint(self.folder, self.model, self.optimizer, self.progress)
            for group in self._groups():
                if self._finished():
                    break
                self.update(group)
                self._after_update()
            if self.progress.step not in self.progress.evaluated:
                self._evaluate()
            self.stop_signal.obey(self.progress.step, self.run.folder)
        self._finish()

    def update(self, group: list[Rows]) -> None:
        """Make one step from the rows of its micro-batches."""
        step = self.progress.step + 1
        begun = time.perf_counter()
        totals = self._gradients(step, group)
        norm = self._scale_gradients(float(totals.units))
        unsound = self._unsound(step, totals, norm, group)
        rate = learning_rate(step, self.config, d_model=self.run.config.model.d_model, total_steps=self.progress.total_steps)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        if unsound is None:
            self.optimizer.step()
            torch.autograd.graph.increment_version(self._parameters)  # a fused optimizer does not, and packed copies ask for it
            self._note(step, totals, norm, rate, time.perf_counter() - begun)
        else:
            self.progress.step, self.progress.seconds = step, time.monotonic() - self.started
            self.log.record({"step": step, "skipped": unsound, "seconds": self.progress.seconds})

    def _gradients(self, step: int, group: list[Rows]) -> Totals:
        """Sum the gradients of an update's micro-batches; where memory runs out, in halves from then on."""
        while True:
            self._begin(step)
            totals, rows = Totals(), group[0]
            try:
                for rows in self._parts(group):
                    self._add_gradients(rows, totals)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return totals
            self._halve(rows)  # here, where the error no longer holds what did not fit

    def _add_gradients(self, rows: Rows, totals: Totals) -> None:
        batch = self._training_batch(rows)
        result = self._loss(batch)
        torch.autograd.backward(result[0])
        totals.add(result, batch)

    def _begin(self, step: int) -> None:
        """Draw what a step draws, and start from no gradients."""
        self._drawn = _mix(self.run.config.seed, step)
        torch.manual_seed(self._drawn)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)

    def _loss(self, batch: Batch) -> LossSum | tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return self.task.loss(self.model, batch)

    def _parts(self, group: list[Rows]) -> list[Rows]:
        """Divide micro-batches as often as memory has asked for."""
        parts = [part for rows in group for part in np.array_split(rows, 2**self.progress.halvings)]
        return [part for part in parts if part.size]

    def _halve(self, rows: Rows) -> None:
        """Divide micro-batches in two from now on, because these rows did not fit; raises TrainingError when it is only one."""
        if rows.size == 1:
            length, name = int(self.lengths[rows].max()), names_of_rows(self.train_data.rows[rows].tolist())
            raise TrainingError(
                f"training example {name}: its {length:,} tokens alone do not fit into memory; "
                f"{self.task.memory_advice(length)}, or try train.recompute=true or a smaller model"
            )
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        give_back_memory()
        self.progress.halvings += 1
        parts = 2**self.progress.halvings
        same = "updates stay the same but for what dropout draws"
        pools = "rows are told from those of their part alone from now on, which teaches less: try train.recompute=true, or a smaller model"
        self.log.say(f"out of memory: each batch is computed in {parts} parts from here on; {same if self.task.divisible else pools}")

    def _groups(self) -> Iterator[list[Rows]]:
        """Yield the micro-batches of each update, from where the run stands, epoch after epoch."""
        while True:
            for group in self.epoch(self.progress.epoch)[self.progress.group :]:
                self.progress.group += 1
                yield group
            self.progress.epoch, self.progress.group = self.progress.epoch + 1, 0

    def epoch(self, number: int) -> list[list[Rows]]:
        """Return the micro-batches of each update of an epoch."""
        division = self.task.layout.batches(
            self.lengths, self.config.batch_tokens, seed=self.run.config.seed, epoch=number, curriculum=self.config.curriculum
        )
        return [division[i : i + self.config.accumulate] for i in range(0, len(division), self.config.accumulate)]

    def _batch(self, store: Store, rows: Rows) -> Batch:
        return self.task.layout.collate([store[int(row)] for row in rows], store.rows[rows].tolist()).to(self.device)

    def _training_batch(self, rows: Rows) -> Batch:
        """Lay training examples side by side, as often as the task passes them, each changed as its augmentation does at this step."""
        examples = [self.train_data[int(row)] for row in rows] * self.task.passes
        if self.task.augments:
            seeds = [[self._drawn, int(row), number] for number in range(self.task.passes) for row in rows]
            examples = [self.task.augmented(one, np.random.default_rng(seed)) for one, seed in zip(examples, seeds, strict=True)]
        return self.task.layout.collate(examples, self.train_data.rows[rows].tolist() * self.task.passes).to(self.device)

    def _scale_gradients(self, units: float) -> float:
        """Divide the summed gradients by the units, clip them, and return their norm before clipping."""
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients, foreach=True)) / max(1.0, units)
        scale = 1 / max(1.0, units)
        if self.config.clip and norm > self.config.clip:
            scale *= self.config.clip / norm
        torch._foreach_mul_(gradients, scale)
        return norm

    def _unsound(self, step: int, totals: Totals, norm: float, group: list[Rows]) -> str | None:
        """Say what is not finite about a step, if it is to be skipped; raises TrainingError when it is not."""
        loss = float(totals.loss)
        if math.isfinite(loss) and math.isfinite(norm):
            return None
        rows = np.concatenate([self.train_data.rows[rows] for rows in group])
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {norm}"
        shown = names_of_rows(rows[:8].tolist()) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
        place = self._place_of_fault(step, group)
        self.progress.skipped += 1
        if self.progress.skipped <= self.config.skip_bad_steps:
            self.log.say(f"step {step:,}: {what} ({place}; training examples {shown}); skipped, {self.progress.skipped} so far")
            return place
        raise TrainingError(
            f"step {step:,}: {what}; it arose in the {place} (training examples {shown}); the update was not applied. {self._advice()}"
        )

    def _place_of_fault(self, step: int, group: list[Rows]) -> str:
        """Compute a step again, and name the place where the first number arose that is not finite."""
        self._begin(step)
        for rows in self._parts(group):
            batch = self._training_batch(rows)
            place = first_fault(self.model, lambda batch=batch: self._loss(batch)[0])  # type: ignore[misc]
            if place is not None:
                return place
        return "sum of gradients"

    def _advice(self) -> str:
        kept = checkpoints(self.folder)
        return (
            f"Most likely the learning rate is too high: try train.lr={self.config.lr / 3:.1e} or a longer train.warmup. "
            f"The last good checkpoint is {kept[0] if kept else 'none'}"
        )

    def _note(self, step: int, totals: Totals, norm: float, rate: float, seconds: float) -> None:
        self.progress.step = step
        self.progress.seconds = time.monotonic() - self.started
        logged = step % self.config.log_every == 0 or step == 1
        line = {
            "step": step,
            "epoch": self.progress.epoch + self.progress.group / self.timetable.updates_per_epoch,
            **totals.figures(),
            "grad_norm": norm,
            "lr": rate,
            "units": float(totals.units),
            "units_per_second": float(totals.units) / seconds,
            "tokens_per_second": (float(totals.units) if self.task.counts_tokens else totals.tokens / self.task.passes) / seconds,
            "padding": 1 - totals.tokens / max(1, totals.padded),
            "seconds": self.progress.seconds,
        }
        if logged:
            self.log.record(line)
        self.log.progress(step, self.progress.total_steps, line, plain=logged, token_name=self.task.token_name)

    def _after_update(self) -> None:
        step = self.progress.step
        self._calibrate(step)
        if self.timetable.validates(step, self.progress.total_steps):
            self._evaluate()
        elif self.timetable.saves(step, self.progress.total_steps) or self.stop_signal.number is not None:
            self._checkpoint()
        self.stop_signal.obey(step, self.run.folder)

    def _evaluate(self) -> None:
        """Score the validation data, remember the best, and write a checkpoint."""
        if self.device.type == "cpu":
            tidy_memory()  # here and not more often: the pages are faulted in again by the next updates
        begun = time.monotonic()
        step = self.progress.step
        figures = self.validate()
        value = figures[self.config.best_metric]
        if not (math.isfinite(figures["loss"]) and math.isfinite(value)):
            what = "loss" if not math.isfinite(figures["loss"]) else self.config.best_metric
            raise TrainingError(f"step {step:,}: the validation {what} is {figures[what]}. {self._advice()}")
        better = self._is_better(figures)
        self.progress.evaluations_without_better = 0 if better else self.progress.evaluations_without_better + 1
        self.progress.n_evaluations += 1
        if better:
            self.progress.best_value, self.progress.best_loss, self.progress.best_step = value, figures["loss"], step
        self.progress.evaluated = [*self.progress.evaluated, step][-self.config.average :]
        self.progress.seconds = time.monotonic() - self.started
        # The line comes before the checkpoint: resuming drops lines that are ahead of their checkpoint, but cannot make up missing ones.
        self.log.record({"step": step, "valid": figures, "seconds": self.progress.seconds, "best": better})
        place = self._checkpoint()
        if better:
            self._keep_best(place)
        self._stopped = self._stop is not None and self._stop(self.progress.n_evaluations, value)
        self.progress.evaluation_seconds = time.monotonic() - begun
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.log.say(f"step {step:,}  valid: {shown}{'  (best)' if better else ''}  in {self.progress.evaluation_seconds:.1f} s")

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Return loss, accuracy and, when the best weights are chosen by a score, the task's scores on the validation data."""
        self.model.eval()
        totals = Totals()
        for rows in self._parts(self.task.layout.sequential_batches(self.valid_data.lengths(), self.config.batch_tokens)):
            batch = self._batch(self.valid_data, rows)
            totals.add(self._loss(batch), batch)
        figures = totals.figures()
        figures["perplexity"] = math.exp(min(100.0, figures["loss"]))
        if self.config.best_metric not in figures:
            figures |= self._task_scores(figures)
        return figures

    def _task_scores(self, figures: dict[str, float]) -> dict[str, float]:
        config = self.run.config
        options = config.decode.replace(beams=1, n_best=1)
        scores = evaluate_examples(self.run, validation_rows(self.run), options, resamples=1).scores.to_json()
        values = {name: score["value"] for name, score in scores.items() if isinstance(score, dict) and "value" in score}
        if self.config.best_metric not in values:
            raise TrainingError(
                f"train.best_metric={self.config.best_metric}: the validation data give no such score, but "
                f"{', '.join([*figures, *values])}; choose one of these, or validate on other data"
            )
        return values

    def _is_better(self, figures: dict[str, float]) -> bool:
        """Return whether validation figures are better than the best: by train.best_metric, and where that is equal by the loss."""
        value, best, best_loss = figures[self.config.best_metric], self.progress.best_value, self.progress.best_loss
        if best is None:
            return True
        if value == best:
            return best_loss is not None and figures["loss"] < best_loss
        return value < best if self.config.best_metric in LESS_IS_BETTER else value > best

    def _checkpoint(self) -> Path:
        place = save_checkpoint(self.folder, self.model, self.optimizer, self.progress)
        averaged = self.progress.evaluated if self.config.average > 1 else []
        forget_old(self.folder, keep=self.config.keep, steps=[self.progress.best_step, *averaged])
        return place

    def _keep_best(self, place: Path) -> None:
        """Make the weights of a checkpoint those the run folder answers with."""
        latest = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        load_weights(self.model, place / "model.safetensors")
        self.run.save()
        self.model.load_state_dict(latest)

    def _finish(self) -> None:
        """Leave the best weights, or the mean of the last checkpoints when that is better, in the run folder and in the model."""
        adapted = is_adapted(self.model)
        self._take_best()
        places = [place_of(self.folder, step) for step in self.progress.evaluated]
        if len(places) > 1 and is_adapted(self.model) == adapted:
            self._try_average(places)
        self.run.fold()
        self.model.eval()

    def _take_best(self) -> None:
        """Fill the model with its best weights; adapters that the run folder has folded in are those of a checkpoint."""
        best = None if self.progress.best_step is None else place_of(self.folder, self.progress.best_step)
        if best is not None and is_adapted(self.model) and fault(best) is None:
            load_weights(self.model, best / "model.safetensors")
        else:
            self.run.fold()
            self.run.restore()

    def _try_average(self, places: list[Path]) -> None:
        best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        fill(distinct(self.model), average_weights(places), places[-1])
        figures = self.validate()
        value, better = figures[self.config.best_metric], self._is_better(figures)
        self.log.say(
            f"mean of the last {len(places)} checkpoints: valid {self.config.best_metric} {value:.4g}{'  (best)' if better else ''}"
        )
        self.log.record({"step": self.progress.step, "average": {"checkpoints": len(places), self.config.best_metric: value}})
        if better:
            self.run.save()
        else:
            self.model.load_state_dict(best)

    def _finished(self) -> bool:
        out_of_time = self.config.minutes is not None and time.monotonic() - self.started > 60 * self.config.minutes
        out_of_steps = self.progress.total_steps is not None and self.progress.step >= self.progress.total_steps
        return out_of_time or out_of_steps or self._stopped or self._stopped_early()

    def _stopped_early(self) -> bool:
        return 0 < self.config.early_stopping <= self.progress.evaluations_without_better

    def _calibrate(self, step: int) -> None:
        """Set the number of steps that fit into train.minutes, whenever their speed is known better; it is part of the run."""
        fitting = self.timetable.fitting_steps(step, self.progress.seconds, self.progress.evaluation_seconds)
        if fitting is None:
            return
        known = self.progress.total_steps
        self.progress.total_steps = fitting
        if known is None or abs(fitting - known) > TOLD_CHANGE * known:
            self.log.say(f"{fitting:,} steps fit into {self.config.minutes:g} minutes{'' if known is None else ', by now'}")


def _mix(seed: int, step: int) -> int:
    """Return a seed for one step, unrelated to those of its neighbours."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
