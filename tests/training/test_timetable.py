"""When things are done: how many updates there are, and after which of them validation and checkpoints come."""

from typing import Any

import pytest

from heed.config import TrainConfig
from heed.training.timetable import CALIBRATION_STEPS, Timetable


def timetable(updates_per_epoch: int = 7, **train: Any) -> Timetable:
    return Timetable(TrainConfig(**train), updates_per_epoch)


def test_the_number_of_updates_is_that_of_steps_or_epochs_and_some_where_nothing_is_asked_for() -> None:
    assert timetable(steps=30).planned_steps() == 30
    assert timetable(epochs=2.5).planned_steps() == round(2.5 * 7)
    assert timetable(epochs=0.01).planned_steps() == 1
    assert timetable(minutes=1.0).planned_steps() is None
    assert [timetable(n).planned_steps() for n in (1, 300, 9000)] == [1000, 10 * 300, 20_000]


def test_as_many_updates_fit_as_their_pace_leaves_time_for_besides_validation() -> None:
    given = timetable(minutes=2.0)
    assert given.fitting_steps(CALIBRATION_STEPS - 1, 5.0) is None
    step, seconds = 2 * CALIBRATION_STEPS, 10.0
    total = given.fitting_steps(step, seconds)
    assert total is not None
    assert 0.9 * 120 < total * seconds / step <= 120
    assert given.fitting_steps(CALIBRATION_STEPS, 500.0) == CALIBRATION_STEPS + 1  # late already: one more, and then it ends
    assert timetable(steps=9, minutes=2.0).fitting_steps(step, seconds) is None


def test_how_many_fit_is_told_anew_four_to_eight_times_per_doubling_until_the_time_is_nearly_over() -> None:
    given = timetable(minutes=2.0)
    told = [step // CALIBRATION_STEPS for step in range(1, 1001) if given.fitting_steps(step, 0.01 * step) is not None]
    assert told == [1, 2, 3, 4, 5, 6, 7, *range(8, 16, 2), *range(16, 32, 4), *range(32, 51, 8)]
    assert given.fitting_steps(2 * CALIBRATION_STEPS, 113.0) is not None
    assert given.fitting_steps(2 * CALIBRATION_STEPS, 115.0) is None
    assert given.fitting_steps(CALIBRATION_STEPS, 115.0) is not None  # late before it was ever told


def test_time_is_kept_for_a_validation_as_long_as_the_last_one() -> None:
    given = timetable(minutes=2.0)
    step, seconds = 4 * CALIBRATION_STEPS, 40.0
    assert given.fitting_steps(step, seconds, 20.0) == step + int((120 - 20 - 40) / (seconds / step))
    assert given.fitting_steps(step, seconds, 90.0) == step + 1


@pytest.mark.parametrize(("total", "expected"), [(None, 7), (100, 7), (1000, 50)])
def test_validation_comes_after_an_epoch_and_seldom_enough_for_the_whole_training(total: int | None, expected: int) -> None:
    given = timetable()
    assert [step for step in range(1, 101) if given.validates(step, total)] == list(range(expected, 101, expected))
    assert [step for step in range(1, 101) if given.saves(step, total)] == list(range(expected, 101, expected))


def test_validation_and_checkpoints_come_as_often_as_they_are_asked_for() -> None:
    given = timetable(evaluate_every=6, checkpoint_every=4)
    assert [step for step in range(1, 13) if given.validates(step, 12)] == [6, 12]
    assert [step for step in range(1, 13) if given.saves(step, 12)] == [4, 8, 12]
