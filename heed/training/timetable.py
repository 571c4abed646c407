"""How many updates a run makes, and after which of them it validates and saves."""

import math
from dataclasses import dataclass

from heed.config import TrainConfig

CALIBRATION_STEPS = 20  # updates timed before it is first told how many fit into train.minutes; told anew after twice as many, and so on
CALIBRATED_SHARE = 0.5  # of train.minutes, after which it stays, so that the learning rate falls evenly
MOST_EVALUATIONS = 20
DEFAULT_EPOCHS, FEWEST_STEPS, MOST_STEPS = 10, 1000, 20_000  # when neither steps, epochs nor minutes are asked for
EVALUATION_SHARE = 0.93  # of train.minutes, what is left for updates when validation and the last checkpoint are paid for


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

    def fitting_steps(self, step: int, seconds: float) -> int | None:
        """Return how many updates fit into train.minutes, given what so many took; None where that is not to be told anew.

        The first updates of a run say little: they wait for memory, may be of shorter examples, and machines change their pace.
        """
        if self.planned_steps() is not None or self.config.minutes is None:
            return None
        doublings, rest = divmod(step, CALIBRATION_STEPS)
        if rest or doublings.bit_count() != 1 or (doublings > 1 and seconds > 60 * self.config.minutes * CALIBRATED_SHARE):
            return None
        left = 60 * self.config.minutes * EVALUATION_SHARE - seconds
        return max(step + 1, step + int(left / (seconds / step)))

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
