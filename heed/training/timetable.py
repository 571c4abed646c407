"""How many updates a run makes, and after which of them it validates and saves."""

import math
from dataclasses import dataclass

from heed.config import TrainConfig

CALIBRATION_STEPS = 20  # updates timed before it is first told how many fit into train.minutes
CALIBRATIONS = 4  # times at least that it is told anew before there are twice as many updates
CALIBRATED_SHARE = 0.95  # of train.minutes, after which it stays
MOST_EVALUATIONS = 20
DEFAULT_EPOCHS, FEWEST_STEPS, MOST_STEPS = 10, 1000, 20_000  # when neither steps, epochs nor minutes are asked for
EVALUATION_SHARE = 0.07  # of train.minutes, what the last validation with its checkpoint may take while none is known


@dataclass(frozen=True)
class Timetable:
    """What settings say of when things are done, given how many updates an epoch has."""

    config: TrainConfig
    updates_per_epoch: int

    def planned_steps(self) -> int | None:
        """Return how many updates were asked for; None when only minutes were."""
        if self.config.steps is not None:
            return self.config.steps
        if self.config.epochs is not None:
            return max(1, round(self.config.epochs * self.updates_per_epoch))
        return None if self.config.minutes is not None else min(max(DEFAULT_EPOCHS * self.updates_per_epoch, FEWEST_STEPS), MOST_STEPS)

    def fitting_steps(self, step: int, seconds: float, evaluation_seconds: float | None = None) -> int | None:
        """Return how many updates fit into train.minutes, given what so many took; None where that is not to be told anew.

        The first updates of a run say little: they wait for memory, may be of shorter examples, and machines change their pace. It is
        told again and again, so that the learning rate has fallen when the time is up.

        Args:
            seconds: what the updates so far took, with the validations between them.
            evaluation_seconds: what the last validation took, None before the first.
        """
        if self.planned_steps() is not None or self.config.minutes is None:
            return None
        budget = 60 * self.config.minutes
        every = CALIBRATION_STEPS << max(0, (step // (CALIBRATIONS * CALIBRATION_STEPS)).bit_length() - 1)
        if step % every or (step > CALIBRATION_STEPS and seconds > CALIBRATED_SHARE * budget):
            return None
        reserve = EVALUATION_SHARE * budget if evaluation_seconds is None else evaluation_seconds
        return max(step + 1, step + int((budget - reserve - seconds) / (seconds / step)))

    def validates(self, step: int, total_steps: int | None) -> bool:
        """Return whether validation follows an update, of so many that there will be (None: not known yet)."""
        return step % self._evaluate_every(total_steps) == 0

    def saves(self, step: int, total_steps: int | None) -> bool:
        """Return whether a checkpoint follows an update, which one does after every validation too."""
        return step % (self.config.checkpoint_every or self._evaluate_every(total_steps)) == 0

    def _evaluate_every(self, total_steps: int | None) -> int:
        if self.config.evaluate_every is not None:
            return self.config.evaluate_every
        return max(self.updates_per_epoch, math.ceil(total_steps / MOST_EVALUATIONS) if total_steps else 0)
