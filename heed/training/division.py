"""Which examples are trained on, validated on and tested on; and reading those of a run again.

Examples of data.extra are numbered -1, -2 and so on, where those of data.train count from 0.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from heed.data.quality import as_compared, row_hash
from heed.data.rows import Example
from heed.data.store import Store
from heed.errors import ConfigError, DataError
from heed.run import Run, RunConfig
from heed.tasks import Task
from heed.tasks.base import Survey
from heed.tasks.split import Split
from heed.terminal import counted
from heed.training.folds import Bools, Folds

LEAST_HELD_OUT, MOST_HELD_OUT = 10, 2000


def splits(config: RunConfig, task: Task) -> dict[str, Split]:
    """Return the training and validation data, and the test data and extra training data if any, as streams."""
    data = config.data
    if data.train is None:
        raise ConfigError("data.train is not set: name the file of your examples, such as data.train=pairs.tsv")
    found = {"train": Split(data.train, data, task)}
    if data.valid is not None:
        found["valid"] = Split(data.valid, data, task)
    if data.test is not None:
        found["test"] = Split(data.test, data, task)
    if data.extra is not None:
        found["extra"] = Split(data.extra, data, task)
    return found


def extra_number(place: int) -> int:
    """Return the number of an example of data.extra, given its place there, or the other way round."""
    return -1 - place


def names_of_rows(numbers: Iterable[int]) -> str:
    """Name training examples for people."""
    return ", ".join(str(number + 1) if number >= 0 else f"{extra_number(number) + 1} of data.extra" for number in numbers)


def divide(config: RunConfig, task: Task, data: dict[str, Split]) -> dict[str, Any]:
    """Survey the data, then leave out faulty rows if that was asked for, and hold out what is to be held out; changes `data`.

    Returns:
        what the data report says about it.
    """
    task.settle(next(iter(data["train"])))
    whole = {name: split for name, split in data.items() if name not in ("train", "extra")}
    survey, keep = _surveyed(data["train"], whole, config)
    report = {"train": survey.to_json(), "filtered": int(np.count_nonzero(~keep))}
    log = data["train"].log
    if "extra" in data:
        # What is held out of data.train, if anything, is not known yet: an extra example must not stand anywhere in it.
        scored = {} if "valid" in data and config.data.folds is None else {"train": data["train"]}
        extra, kept = _surveyed(data["extra"], {**whole, **scored}, config)
        report |= {"extra": extra.to_json(), "filtered_extra": int(np.count_nonzero(~kept))}
        data["extra"] = data["extra"].only(kept)
    if config.data.folds is not None:
        report["held_out"] = _take_fold(data, config, keep)
    elif "valid" not in data:
        report["held_out"] = _hold_out(data, config, keep)
    else:
        data["train"] = data["train"].only(keep)
    data["train"].log = log
    return report


def _surveyed(split: Split, others: Mapping[str, Split], config: RunConfig) -> tuple[Survey, Bools]:
    """Survey training examples, and return which of them to keep; raises DataError where they may not be trained on."""
    survey = split.task.survey(split, others)
    if survey.refused and not (config.data.filter or config.data.allow_leaks):
        raise DataError(f"{split.source}: {survey.refused}")
    return survey, np.asarray(survey.keep) if config.data.filter else np.ones(len(survey.keep), dtype=np.bool_)


def held_out_share(n_rows: int, wanted: float) -> float:
    """Return the share of rows to validate on: what data.valid_share says, within limits."""
    n_rows = max(1, n_rows)
    return min(max(wanted, LEAST_HELD_OUT / n_rows), MOST_HELD_OUT / n_rows, 0.5)


def _hold_out(data: dict[str, Split], config: RunConfig, keep: Bools) -> str:
    """Divide into what is trained and validated on by a hash of the inputs, so that equal ones never stand on both sides; say so."""
    source, seed = data["train"], config.seed
    share = held_out_share(len(keep), config.data.valid_share)
    if source.task.together(next(iter(source))) is not None:
        return _hold_out_together(data, seed, share, keep)

    def held_out(example: Example) -> bool:
        return row_hash(seed, *(as_compared(example[key]) for key in source.task.wanted)) < share * 2**64

    data["train"] = Split(source.source, source.data, source.task, lambda row, one: bool(keep[row]) and not held_out(one))
    data["valid"] = Split(source.source, source.data, source.task, lambda row, one: bool(keep[row]) and held_out(one))
    return f"about {share:.1%} of the training examples, as there is no data.valid: chosen by a hash of their inputs and seed {seed}"


def _hold_out_together(data: dict[str, Split], seed: int, share: float, keep: Bools) -> str:
    """Hold out all rows that share something, such as an article, again and again until they are enough; say so."""
    source, shared = data["train"], data["train"].task.together
    counts = Counter(shared(example) for row, example in source.numbered() if keep[row])
    wanted, n_held_out = share * counts.total(), 0
    chosen: set[str | None] = set()
    for name, n in sorted(counts.items(), key=lambda one: row_hash(seed, one[0])):
        if n_held_out < wanted and 2 * (n_held_out + n) <= counts.total():
            chosen.add(name)
            n_held_out += n
    if not chosen:
        raise DataError(
            f"{source.source}: nothing can be held out to validate on: of the {len(counts):,} parts that have to stay together (articles, "
            "or contexts without a title) each has more than half of the rows; name validation data with data.valid"
        )
    data["train"] = Split(source.source, source.data, source.task, lambda row, one: bool(keep[row]) and shared(one) not in chosen)
    data["valid"] = Split(source.source, source.data, source.task, lambda row, one: bool(keep[row]) and shared(one) in chosen)
    return (
        f"{n_held_out:,} of the {counts.total():,} training examples, as there is no data.valid: {len(chosen):,} of {len(counts):,} whole "
        f"articles or contexts, chosen by a hash and seed {seed}"
    )


def _take_fold(data: dict[str, Split], config: RunConfig, keep: Bools) -> str:
    """Divide into a fold to test on, rows of the others to validate on, and the rest; say so."""
    source, folds, fold, group = data["train"], config.data.folds, config.data.fold, config.data.group
    assert folds is not None
    division = Folds(source, source.task, folds=folds, group=group, seed=config.seed, keep=keep)
    n_test = int(np.count_nonzero(division.numbers == fold))
    n_others = int(np.count_nonzero(keep)) - n_test
    share = held_out_share(n_others, config.data.valid_share)
    sides = division.sides(fold, share=share)
    for name, rows in sides.items():
        data[name] = source.only(rows)
    n_valid, in_groups = int(np.count_nonzero(sides["valid"])), division.validates_on_groups(fold, share)
    few = f" from all values of {group}, which are too few to spare one," if group and not in_groups else ""
    whole = f" in whole values of {group}" if group and in_groups else few
    return (
        f"{n_valid:,} of the {n_others:,} examples outside fold {fold} of {folds}, drawn{whole} by seed {config.seed}; "
        f"fold {fold}, {counted(n_test, 'example')}, is the test data, which are scored once at the end and choose nothing"
    )


def validation_rows(run: Run) -> Iterable[Example]:
    """Return the examples that the weights are chosen on; raises DataError where those held out of the training data are not known."""
    data = run.config.data
    if data.valid is not None:
        return Split(data.valid, data, run.task)
    held_out = scored_rows(run)
    if held_out is None:
        raise DataError(f"{run.folder / 'store'}: is gone, and with it which training examples were held out; train again")
    return held_out


def scored_rows(run: Run) -> Iterator[Example] | None:
    """Yield the examples held out of the training data for validation; None when validation data was given."""
    return None if run.config.data.valid is not None else rows_of(run, "valid")


def tested_rows(run: Run) -> Iterator[Example] | None:
    """Yield the examples of the fold that is tested on once training has ended; None without data.folds."""
    return None if run.config.data.folds is None else rows_of(run, "test")


def rows_of(run: Run, name: str) -> Iterator[Example] | None:
    """Yield the examples of data.train and data.extra in one of the run's stores (train, valid, test); None where it is gone."""
    data, place = run.config.data, run.folder / "store" / name
    if data.train is None or not (place / "store.json").is_file():
        return None
    rows = set(Store(place).rows.tolist())
    own: Iterator[Example] = iter(Split(data.train, data, run.task, lambda number, _: number in rows))
    if data.extra is None or min(rows, default=0) >= 0:
        return own
    return chain(own, Split(data.extra, data, run.task, lambda place, _: extra_number(place) in rows))
