"""From a recipe to the first step: survey the data, fit the parts, write config.yaml, encode the examples into stores."""

import contextlib
import difflib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import heed
from heed.adapters import Adapters
from heed.config import DataConfig, read_yaml
from heed.data.order import batches, padding_share
from heed.data.quality import as_compared, row_hash
from heed.data.read import Example, ReadLog, hash_files, read_examples
from heed.data.store import Encoded, Store, write_store
from heed.device import describe_machine
from heed.errors import ConfigError, DataError
from heed.files import encodable, parse_json, replacing
from heed.run import LOSS_METRICS, Run, RunConfig
from heed.tasks import Task
from heed.training.folds import Bools, Folds
from heed.training.origin import Origin, inheritance_line

CHUNK = 1000  # examples encoded at a time
SHOWN_CLASSES = 8
SPLIT_WORDS = {"train": "training", "valid": "validation"}
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
        for number, example in enumerate(chain.from_iterable(map(self.task.divided, stream))):
            if self.chosen is None or self.chosen(number, example):
                yield number, example
        self.log = log  # of a reading that came to the end

    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self.numbered())

    def only(self, rows: Bools) -> "Split":
        """Return some of the rows of the source, given which of all of them, (n,)."""
        return Split(self.source, self.data, self.task, lambda number, _: bool(rows[number]))


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
    check_metric(config, task)
    origin = None if config.init is None else Origin.open(config.init, own_task=config.task["name"])
    data = splits(config, task)
    say(f"reading {data['train'].source}")
    report = _divide(config, task, data)
    say(f"fitting {task.name} parts")
    if origin is not None:
        task.inherit(origin.task)
    task.prepare(data["train"])
    report |= task.findings(data["valid"])
    about = {"data_sha256": data_hashes(config.data), "machine": describe_machine()}
    run = Run.create(folder, config, task, about=about | ({} if origin is None else {"init_sha256": origin.sha256}))
    if origin is not None:
        report["init"] = origin.lend(run.model, task)
        _adapt(run, origin, report["init"]["new"])
    train, valid = (_encode(run, data[name], name) for name in ("train", "valid"))
    n_test = _look_through_test(run, data)
    others = [name for name in ("valid", "test") if getattr(config.data, name) is not None]
    report |= {"reading": asdict(data["train"].log), "reading_others": {name: asdict(data[name].log) for name in others}}
    report |= {"too_long": train.n_long, "too_long_valid": valid.n_long, "max_length": config.data.max_length}
    report |= {"unlearnable": dict(train.unlearnable), "unlearnable_valid": dict(valid.unlearnable)}
    report |= {"long_examples": task.long_examples, **_figures(run, train.store, valid.store, n_test)}
    _check_pools(config, task, report)
    (folder / "data_report.json").write_text(encodable(json.dumps(report, ensure_ascii=False, indent=1)), encoding="utf-8")
    for line in summary(report):
        say(line)
    return Prepared(run, train.store, valid.store)


def _adapt(run: Run, origin: Origin, new: list[str]) -> None:
    """Put adapters beside weights that were taken over, where lora.rank asks for them; what they belong to is remembered."""
    lora = run.config.lora
    if not lora.rank:
        return
    adapters = Adapters(origin.sha256, lora.rank, lora.alpha, list(lora.targets), new)
    adapters.write(run.folder)
    if not lora.merge:
        shutil.copyfile(origin.path, run.folder / "model.safetensors")
    run.adapt(adapters)


def _check_pools(config: RunConfig, task: Task, report: Mapping[str, Any]) -> None:
    """Refuse batches of single examples where a task learns by telling those of a batch apart; raises ConfigError."""
    if not task.divisible and report["batches"] == report["examples"]["train"]:
        raise ConfigError(
            f"train.batch_tokens={config.train.batch_tokens}: every batch holds a single example, and {task.name} learns by telling the "
            "examples of a batch apart; raise it, or give more examples"
        )


def check_metric(config: RunConfig, task: Task) -> None:
    """Refuse a train.best_metric that no evaluation will yield; raises ConfigError."""
    wanted, scores = config.train.best_metric, task.score_names
    if scores is None or wanted in (*LOSS_METRICS, *scores):
        return
    known = list(dict.fromkeys([*LOSS_METRICS, *scores]))
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"train.best_metric={wanted} is not one of {', '.join(known)}, which {task.name} knows{hint}")


def _look_through_test(run: Run, data: Mapping[str, Split]) -> int | None:
    """Read the test data, so that what is wrong with them is found now and not when training has ended; remember the rows of a fold.

    Returns:
        how many examples they are; None without test data.
    """
    if "test" not in data:
        return None
    if run.config.data.folds is None:
        return sum(1 for _ in data["test"])
    return len(write_store(run.folder / "store" / "test", ((row, {}) for row, _ in data["test"].numbered())))


def reopen(folder: Path, say: Say, *, trust: bool = False, allow_changed_data: bool = False) -> Prepared:
    """Open what `prepare` made, for training that goes on; stores that were deleted are encoded again.

    Raises:
        DataError: a data file is no longer what the run was started on, and that was not allowed.
    """
    run = Run.open(folder, trust=trust)
    if run.config.lora.rank:
        run.adapt(Adapters.read(folder))
    data = splits(run.config, run.task)
    hashes = _hashes(data, say)
    before = hashes_of(folder)
    changed = [name for name in data if name in hashes and name in before and hashes[name] != before[name]]
    if changed and not allow_changed_data:
        name = changed[0]
        raise DataError(
            f"data.{name}={data[name].source}: changed since this run was started; bring back the file, start a new run, or go on with "
            "its present examples: --allow-changed-data"
        )
    stores = folder / "store"
    names = ("train", "valid") if run.config.data.folds is None else ("train", "valid", "test")
    whole = all((stores / name / "store.json").is_file() for name in names)
    if changed or not whole:
        say(f"encoding the data again: {' and '.join(changed) + ' changed' if changed else 'the store of the run folder is gone'}")
        _divide(run.config, run.task, data)
        _encode(run, data["train"], "train")
        _encode(run, data["valid"], "valid")
        _look_through_test(run, data)
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


def data_hashes(data: DataConfig) -> Hashes:
    """Return the hashes of the files of each split that the settings name; raises DataError when one is not there."""
    named = {"train": data.train, "valid": data.valid, "test": data.test}
    return {name: hash_files(source) for name, source in named.items() if source is not None}


def hashes_of(folder: Path) -> Hashes:
    """Return the hashes of the data that a run was started on, or was last allowed to go on with."""
    remembered = dict(read_yaml(folder / "config.yaml").get("data_sha256") or {})
    with contextlib.suppress(OSError, ValueError):
        remembered |= parse_json((folder / "store" / "sha256.json").read_text(encoding="utf-8"))
    return remembered


def _remember(folder: Path, hashes: Hashes) -> None:
    with replacing(folder / "store" / "sha256.json") as draft:
        draft.write_text(json.dumps(hashes), encoding="utf-8")


def scored_rows(run: Run) -> Iterator[Example] | None:
    """Yield the examples held out of the training data for validation; None when validation data was given."""
    return None if run.config.data.valid is not None else _held_out(run, "valid")


def tested_rows(run: Run) -> Iterator[Example] | None:
    """Yield the examples of the fold that is tested on once training has ended; None without data.folds."""
    return None if run.config.data.folds is None else _held_out(run, "test")


def _held_out(run: Run, name: str) -> Iterator[Example] | None:
    """Yield the rows of the training data that stand in one of the run's stores; None where it is gone."""
    data, place = run.config.data, run.folder / "store" / name
    if data.train is None or not (place / "store.json").is_file():
        return None
    rows = set(Store(place).rows.tolist())
    return iter(Split(data.train, data, run.task, lambda number, _: number in rows))


def _divide(config: RunConfig, task: Task, data: dict[str, Split]) -> dict[str, Any]:
    """Survey the data, then leave out faulty rows if that was asked for, and hold out what is to be held out; changes `data`.

    Returns:
        what the data report says about it.
    """
    task.settle(next(iter(data["train"])))
    survey = task.survey(data["train"], {name: split for name, split in data.items() if name != "train"})
    if survey.refused and not (config.data.filter or config.data.allow_leaks):
        raise DataError(f"{data['train'].source}: {survey.refused}")
    keep = np.asarray(survey.keep) if config.data.filter else np.ones(len(survey.keep), dtype=np.bool_)
    report = {"train": survey.to_json(), "filtered": int(np.count_nonzero(~keep))}
    log = data["train"].log
    if config.data.folds is not None:
        report["held_out"] = _take_fold(data, config, keep)
    elif "valid" not in data:
        report["held_out"] = _hold_out(data, config, keep)
    else:
        data["train"] = data["train"].only(keep)
    data["train"].log = log
    return report


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
    return f"{share:.1%} of the training examples, as there is no data.valid: chosen by a hash of their inputs and seed {seed}"


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
        f"the {n_test:,} examples of fold {fold} are the test data, which are scored once at the end and choose nothing"
    )


class _Encodings(NamedTuple):
    """The store of a split, how many examples are longer than data.max_length, and of how many nothing can be learned, by the reason."""

    store: Store
    n_long: int
    unlearnable: Counter[str]


def _encode(run: Run, split: Split, name: str) -> _Encodings:
    """Encode a split into the run's store; raises DataError where there is nothing to use, or most of it is useless."""
    n_long, unlearnable = 0, Counter[str]()

    def fitted() -> Iterator[tuple[int, Encoded]]:
        nonlocal n_long
        for number, encoded in _encoded(run.task, split.numbered()):
            pieces = list(run.task.pieces(encoded))
            n_long += _length(encoded, pieces) > run.config.data.max_length
            for piece in pieces:
                unlearnable.update(filter(None, [run.task.unlearnable(piece)]))
                yield number, piece

    store = write_store(run.folder / "store" / name, fitted())
    if not len(store):
        why = f"all {n_long} are longer than data.max_length={run.config.data.max_length} tokens" if n_long else "none were left"
        why += "; give more rows" + (", or a file of their own (data.valid=FILE)" if name == "valid" and not n_long else "")
        raise DataError(f"{split.source}: no {name} examples to use: {why}")
    for why, n in unlearnable.items():
        if 2 * n > len(store):
            raise DataError(f"{split.source}: {n:,} of {len(store):,} {SPLIT_WORDS[name]} examples {why}")
    return _Encodings(store, n_long, unlearnable)


def _length(encoded: Encoded, pieces: Sequence[Encoded]) -> int:
    """Return how long an example is: what is learned of it counts, and not, say, the characters that an answer quotes."""
    learned = [value for key, value in encoded.items() if pieces and key in pieces[0]] or list(encoded.values())
    return max((value.size(0) for value in learned if value.dim()), default=1)


def _encoded(task: Task, numbered: Iterable[tuple[int, Example]]) -> Iterator[tuple[int, Encoded]]:
    stream = iter(numbered)
    while chunk := list(islice(stream, CHUNK)):
        yield from zip((number for number, _ in chunk), task.encode_all([example for _, example in chunk], training=True), strict=True)


def _figures(run: Run, train: Store, valid: Store, n_test: int | None) -> dict[str, Any]:
    lengths = train.lengths()
    division = batches(lengths, run.config.train.batch_tokens, seed=run.config.seed, epoch=0)
    names = [key for key, kind in train.keys.items() if not kind["scalar"]]
    longest = dict(zip(names, lengths.max(axis=0).tolist(), strict=True))
    tokens = dict(zip(names, lengths.sum(axis=0).tolist(), strict=True))
    return {
        "examples": {"train": len(train), "valid": len(valid), **({} if n_test is None else {"test": n_test})},
        "tokens": {name: count for name, count in tokens.items() if longest[name] != 1},  # a key that is never longer is no sequence
        "longest": {name: count for name, count in longest.items() if count != 1},
        "batches": len(division),
        "padding": round(padding_share(lengths, division), 4),
        "heed": heed.__version__,
    }


def summary(report: dict[str, Any]) -> list[str]:
    """Say in a few lines what a person should know about the data before training."""
    lines = [] if "init" not in report else [inheritance_line(report["init"])]
    lines.append(
        f"{report['examples']['train']:,} training and {report['examples']['valid']:,} validation examples; {_sizes(report['tokens'])}"
    )
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
    lines += [*report["train"].get("warnings", []), *report.get("warnings", [])]
    for names, n in report["train"].get("shared", {}).items():
        if n:
            lines.append(f"{n:,} examples stand both in the {names} data: what chooses the weights is then scored again, a little too well")
    lines += _useless_lines(report)
    if "held_out" in report:
        lines.append(f"held out {report['held_out']}")
    if "coverage" in report:
        found = report["coverage"]
        lines.append(f"word vectors for {found['found']:,} of {found['words']:,} words ({found['share']:.1%})")
    n_batches = "1 batch" if report["batches"] == 1 else f"{report['batches']:,} batches"
    lines.append(f"{n_batches} an epoch, {report['padding']:.1%} padding")
    return lines


def _sizes(counts: Mapping[str, int]) -> str:
    """Say how long the training examples are together; beside what a task itself calls tokens, the others are none."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) + ("" if "tokens" in counts else " tokens")


def _useless_lines(report: dict[str, Any]) -> Iterator[str]:
    """Say which rows are skipped, or too long, or teach nothing."""
    for reading in (report["reading"], *report["reading_others"].values()):
        if reading["bad"]:
            yield f"skipped {reading['bad']:,} bad rows of {reading['source']}, first: {reading['bad_examples'][0]}"
    for what, n_long in (("training", report["too_long"]), ("validation", report["too_long_valid"])):
        if n_long:
            yield f"{n_long:,} {what} examples longer than data.max_length={report['max_length']} tokens: {report['long_examples']}"
    for name, key in (("train", "unlearnable"), ("valid", "unlearnable_valid")):
        for why, n in report[key].items():
            yield f"{n:,} of {report['examples'][name]:,} {SPLIT_WORDS[name]} examples {why}"
