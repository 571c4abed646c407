"""From a recipe to the first step: survey the data, fit the parts, write config.yaml, encode the examples into stores."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import heed
from heed.config import DataConfig, read_yaml
from heed.data.order import batches, padding_share
from heed.data.read import Example, ReadLog, hash_files, read_examples
from heed.data.store import Encoded, Store, write_store
from heed.device import describe_machine
from heed.errors import ConfigError, DataError
from heed.files import parse_json, replacing
from heed.run import Run, RunConfig
from heed.tasks import Task
from heed.tasks.base import Survey
from heed.training.folds import as_compared, fold_numbers

CHUNK = 1000  # examples encoded at a time
SHOWN_CLASSES = 8
LEAST_HELD_OUT, MOST_HELD_OUT = 10, 2000

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What the training loop needs."""

    run: Run
    train: Store
    valid: Store
    changed: tuple[str, ...] = ()  # data that is no longer what the run was started on, and was allowed


class Split:
    """A stream of examples of one split, which can be read again and again."""

    def __init__(self, source: str, data: DataConfig, task: Task, chosen: Callable[[int, Example], bool] | None = None) -> None:
        self.source, self.data, self.task, self.chosen = source, data, task, chosen
        self.log = ReadLog()

    def numbered(self) -> Iterator[tuple[int, Example]]:
        """Yield (row number, example), numbers counting every usable row of the source."""
        log = ReadLog()
        stream = read_examples(
            self.source,
            required=self.task.columns,
            rename=self.data.columns,
            header=self.data.header,
            bad_rows=self.data.bad_rows,
            check=self.task.fault,
            log=log,
        )
        for number, example in enumerate(stream):
            if self.chosen is None or self.chosen(number, example):
                yield number, example
        self.log = log  # of a reading that came to the end

    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self.numbered())


def splits(config: RunConfig, task: Task) -> dict[str, Split]:
    """Return the training and validation data, and the test data if any, as streams."""
    data = config.data
    if data.train is None:
        raise ConfigError("data.train is not set: name the file of your examples, such as data.train=pairs.tsv")
    found = {"train": Split(data.train, data, task)}
    if data.valid is not None:
        found["valid"] = Split(data.valid, data, task)
    if data.test is not None:
        found["test"] = Split(data.test, data, task)
    return found


def prepare(config: RunConfig, folder: Path, say: Say) -> Prepared:
    """Make everything that training needs in `folder`."""
    task = config.build_task()
    data = splits(config, task)
    say(f"reading {data['train'].source}")
    survey, n_kept, share = _divide(config, task, data)
    report: dict[str, Any] = {"train": survey.to_json(), "filtered": len(survey.keep) - n_kept}
    if share is not None:
        report["held_out"] = _held_out_words(config, share)
    say(f"fitting {task.name} parts")
    task.prepare(data["train"])
    report |= task.findings(data["valid"])
    about = {"data_sha256": {name: hash_files(split.source) for name, split in data.items()}, "machine": describe_machine()}
    run = Run.create(folder, config, task, about=about)
    train, n_long = _encode(run, data["train"], "train")
    valid, n_long_valid = _encode(run, data["valid"], "valid")
    others = [name for name in ("valid", "test") if getattr(config.data, name) is not None]
    report |= {"reading": asdict(data["train"].log), "reading_others": {name: asdict(data[name].log) for name in others}}
    report |= {"too_long": n_long, "too_long_valid": n_long_valid, "max_length": config.data.max_length}
    report |= {"long_examples": task.long_examples, **_figures(run, train, valid)}
    (folder / "data_report.json").write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    for line in summary(report):
        say(line)
    return Prepared(run, train, valid)


def reopen(folder: Path, say: Say, *, trust: bool = False, allow_changed_data: bool = False) -> Prepared:
    """Open what `prepare` made, for training that goes on; stores that were deleted are encoded again.

    Raises:
        DataError: a data file is no longer what the run was started on, and that was not allowed.
    """
    run = Run.open(folder, trust=trust)
    data = splits(run.config, run.task)
    hashes = _hashes(data, say)
    changed = _changed(folder, data, hashes)
    if changed and not allow_changed_data:
        name = changed[0]
        raise DataError(
            f"data.{name}={data[name].source}: changed since this run was started; bring back the file, start a new run, or go on with "
            "its present examples: --allow-changed-data"
        )
    stores = folder / "store"
    whole = all((stores / name / "store.json").is_file() for name in ("train", "valid"))
    if changed or not whole:
        say(f"encoding the data again: {' and '.join(changed) + ' changed' if changed else 'the store of the run folder is gone'}")
        _divide(run.config, run.task, data)
        _encode(run, data["train"], "train")
        _encode(run, data["valid"], "valid")
        _remember(folder, hashes)
    return Prepared(run, Store(stores / "train"), Store(stores / "valid"), tuple(changed))


Hashes = dict[str, dict[str, str]]  # split -> file -> SHA-256


def _hashes(data: dict[str, Split], say: Say) -> Hashes:
    """Return the hashes of each split's files; those that are gone are not needed for going on, and are left out."""
    found = {}
    for name, split in data.items():
        try:
            found[name] = hash_files(split.source)
        except DataError as error:
            say(f"going on with the examples encoded before: {error}")
    return found


def _changed(folder: Path, data: dict[str, Split], hashes: Hashes) -> list[str]:
    """Name the splits whose files are not those that the run was started on, or last allowed to go on with."""
    remembered = dict(read_yaml(folder / "config.yaml").get("data_sha256") or {})
    with contextlib.suppress(OSError, ValueError):
        remembered |= parse_json((folder / "store" / "sha256.json").read_text(encoding="utf-8"))
    return [name for name in data if name in hashes and name in remembered and hashes[name] != remembered[name]]


def _remember(folder: Path, hashes: Hashes) -> None:
    with replacing(folder / "store" / "sha256.json") as draft:
        draft.write_text(json.dumps(hashes), encoding="utf-8")


def scored_rows(run: Run) -> Iterator[Example] | None:
    """Yield the examples held out of the training data for validation; None when validation data was given."""
    data, valid = run.config.data, run.folder / "store" / "valid"
    if data.valid is not None or data.train is None or not (valid / "store.json").is_file():
        return None
    rows = set(Store(valid).rows.tolist())
    return iter(Split(data.train, data, run.task, lambda number, _: number in rows))


def _divide(config: RunConfig, task: Task, data: dict[str, Split]) -> tuple[Survey, int, float | None]:
    """Survey the data, then leave out faulty rows if that was asked for and hold out validation data if there is none.

    Returns:
        what was found, how many rows are left, and the share of them that was held out (None: data.valid was given).
    """
    task.settle(next(iter(data["train"])))
    survey = task.survey(data["train"], {name: split for name, split in data.items() if name != "train"})
    if survey.refused and not (config.data.filter or config.data.allow_leaks):
        raise DataError(f"{data['train'].source}: {survey.refused}")
    keep = np.asarray(survey.keep) if config.data.filter else np.ones(len(survey.keep), dtype=bool)
    share = None
    log = data["train"].log
    if "valid" not in data:
        n_rows = max(1, len(keep))
        if config.data.folds is not None:
            data["train"], data["valid"] = _take_fold(data["train"], config)
            for split in (data["train"], data["valid"]):
                split.chosen = _both(split.chosen, lambda number, _: bool(keep[number]))
            data["train"].log = log
            return survey, int(keep.sum()), 1 / config.data.folds
        share = min(max(config.data.valid_share, LEAST_HELD_OUT / n_rows), MOST_HELD_OUT / n_rows, 0.5)
        data["train"], data["valid"] = _hold_out(data["train"], config.seed, share)
        data["valid"].chosen = _both(data["valid"].chosen, lambda number, _: bool(keep[number]))
    data["train"].chosen = _both(data["train"].chosen, lambda number, _: bool(keep[number]))
    data["train"].log = log
    return survey, int(keep.sum()), share


def _both(first: Callable[[int, Example], bool] | None, second: Callable[[int, Example], bool]) -> Callable[[int, Example], bool]:
    return second if first is None else lambda number, example: first(number, example) and second(number, example)


def _hold_out(split: Split, seed: int, share: float) -> tuple[Split, Split]:
    """Divide by a hash of the inputs, so that equal inputs never stand on both sides."""
    inputs = list(split.task.wanted)

    def held_out(_: int, example: Example) -> bool:
        content = json.dumps([seed, *(as_compared(example[key]) for key in inputs)], ensure_ascii=False)
        return int.from_bytes(hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") < share * 2**64

    rest = Split(split.source, split.data, split.task, lambda number, example: not held_out(number, example))
    return rest, Split(split.source, split.data, split.task, held_out)


def _take_fold(split: Split, config: RunConfig) -> tuple[Split, Split]:
    """Divide into the other folds and one of them."""
    data = config.data
    assert data.folds is not None
    numbers = fold_numbers(split, split.task, folds=data.folds, group=data.group, seed=config.seed)
    rest = Split(split.source, data, split.task, lambda number, _: bool(numbers[number] != data.fold))
    return rest, Split(split.source, data, split.task, lambda number, _: bool(numbers[number] == data.fold))


def _held_out_words(config: RunConfig, share: float) -> str:
    if config.data.folds is not None:
        group = f", grouped by {config.data.group}" if config.data.group else ""
        return f"fold {config.data.fold} of {config.data.folds}{group}, divided by seed {config.seed}"
    return f"{share:.1%} of the training examples, as there is no data.valid: chosen by a hash of their inputs and seed {config.seed}"


def _encode(run: Run, split: Split, name: str) -> tuple[Store, int]:
    """Encode a split into the run's store; returns it and how many examples are longer than data.max_length."""
    n_long = 0

    def fitted() -> Iterator[tuple[int, Encoded]]:
        nonlocal n_long
        for number, encoded in _encoded(run.task, split.numbered()):
            n_long += max((value.size(0) for value in encoded.values() if value.dim()), default=1) > run.config.data.max_length
            kept = run.task.fitted(encoded)
            if kept is not None:
                yield number, kept

    store = write_store(run.folder / "store" / name, fitted())
    if not len(store):
        why = f"all {n_long} are longer than data.max_length={run.config.data.max_length} tokens" if n_long else "none were left"
        raise DataError(f"{split.source}: no {name} examples to use: {why}")
    return store, n_long


def _encoded(task: Task, numbered: Iterable[tuple[int, Example]]) -> Iterator[tuple[int, Encoded]]:
    stream = iter(numbered)
    while chunk := list(islice(stream, CHUNK)):
        yield from zip((number for number, _ in chunk), task.encode_all([example for _, example in chunk], training=True), strict=True)


def _figures(run: Run, train: Store, valid: Store) -> dict[str, Any]:
    lengths = train.lengths()
    division = batches(lengths, run.config.train.batch_tokens, seed=run.config.seed, epoch=0)
    names = [key for key, kind in train.keys.items() if not kind["scalar"]]
    longest = dict(zip(names, lengths.max(axis=0).tolist(), strict=True))
    tokens = dict(zip(names, lengths.sum(axis=0).tolist(), strict=True))
    return {
        "examples": {"train": len(train), "valid": len(valid)},
        "tokens": {name: count for name, count in tokens.items() if longest[name] != 1},  # a key that is never longer is no sequence
        "longest": {name: count for name, count in longest.items() if count != 1},
        "batches": len(division),
        "padding": round(padding_share(lengths, division), 4),
        "heed": heed.__version__,
    }


def summary(report: dict[str, Any]) -> list[str]:
    """Say in a few lines what a person should know about the data before training."""
    tokens = ", ".join(f"{count:,} {name}" for name, count in report["tokens"].items())
    lines = [f"{report['examples']['train']:,} training and {report['examples']['valid']:,} validation examples; {tokens} tokens"]
    classes = list(report["train"].get("classes", {}).items())
    if classes:
        shown = ", ".join(f"{name} {count:,}" for name, count in classes[:SHOWN_CLASSES])
        more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
        lines.append(f"{len(classes)} classes: {shown}{more}")
    for name, quantiles in report["train"].get("lengths", {}).items():
        if "text" in name:
            lines.append(f"{name.replace('_', ' in ')}: " + ", ".join(f"{point} {value:,}" for point, value in quantiles.items()))
    counts = {name: count for name, count in report["train"].get("counts", {}).items() if count}
    if counts:
        found = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        what = f"dropped {report['filtered']:,} of them" if report["filtered"] else "kept; data.filter=true drops them"
        lines.append(f"found {found} ({what})")
    for reading in (report["reading"], *report["reading_others"].values()):
        if reading["bad"]:
            lines.append(f"skipped {reading['bad']:,} bad rows of {reading['source']}, first: {reading['bad_examples'][0]}")
    for what, n_long in (("training", report["too_long"]), ("validation", report["too_long_valid"])):
        if n_long:
            lines.append(f"{n_long:,} {what} examples longer than data.max_length={report['max_length']} tokens: {report['long_examples']}")
    if "held_out" in report:
        lines.append(f"held out {report['held_out']}")
    if "coverage" in report:
        found = report["coverage"]
        lines.append(f"word vectors for {found['found']:,} of {found['words']:,} words ({found['share']:.1%})")
    lines.append(f"{report['batches']:,} batches an epoch, {report['padding']:.1%} padding")
    return lines
