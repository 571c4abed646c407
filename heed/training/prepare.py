"""From a recipe to the first step: survey the data, fit the parts, write config.yaml, encode the examples into stores."""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import heed
from heed.adapters import Adapters
from heed.config import DataConfig, read_yaml
from heed.data.read import hash_files
from heed.data.rows import Example
from heed.data.store import Encoded, Store, write_store
from heed.device import describe_machine
from heed.errors import ConfigError, DataError
from heed.files import encodable, parse_json, replacing
from heed.hints import nearest
from heed.run import Run, RunConfig
from heed.tasks import Task
from heed.tasks.split import Joined, Split
from heed.terminal import unit_of
from heed.training.division import divide, extra_number, splits
from heed.training.origin import Origin
from heed.training.summary import SPLIT_WORDS, summary

CHUNK = 1000  # examples encoded at a time, where the task does not hold fewer
LOSS_METRICS = ("loss", "accuracy", "perplexity")  # what validating yields without generating answers

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What the training loop needs."""

    run: Run
    train: Store
    valid: Store
    changed: tuple[str, ...] = ()  # data that is no longer what the run was started on, and was allowed


def prepare(config: RunConfig, folder: Path, say: Say) -> Prepared:
    """Make everything that training needs in `folder`."""
    task = config.build_task()
    check_metric(config, task)
    task.check_columns(config.data.columns, config.data.group)
    task.layout.check_budget(config.train.batch_tokens)
    origin = None if config.init is None else Origin.open(config.init, own_task=config.task["name"])
    data = splits(config, task)
    say(f"reading {data['train'].source}")
    report = divide(config, task, data)
    say(f"fitting {task.name} parts")
    if origin is not None:
        task.inherit(origin.task)
    task.prepare(data["train"] if "extra" not in data else Joined([data["train"], data["extra"]]))
    task.prepare_own(data["train"])
    report |= task.findings(data["valid"])
    about = {"data_sha256": data_hashes(config.data), "machine": describe_machine()}
    run = Run.create(folder, config, task, about=about | ({} if origin is None else origin.remembered()))
    if origin is not None:
        report["init"] = origin.lend(run.model, task)
        _adapt(run, origin, report["init"]["new"])
    train, valid = _encode(run, data, "train"), _encode(run, data, "valid")
    task.start(run.model, train.store)
    n_test = _look_through_test(run, data)
    others = [name for name in ("valid", "test", "extra") if getattr(config.data, name) is not None]
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
    base_sha256 = origin.sha256 if lora.merge else origin.write(run.folder / "model.safetensors")
    adapters = Adapters(base_sha256, lora.rank, lora.alpha, list(lora.targets), new)
    adapters.write(run.folder)
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
    near = nearest(wanted, known)
    hint = f"; did you mean {near}?" if near else ""
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
        divide(run.config, run.task, data)
        _encode(run, data, "train")
        _encode(run, data, "valid")
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
    named = {"train": data.train, "valid": data.valid, "test": data.test, "extra": data.extra}
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


class _Encodings(NamedTuple):
    """The store of a split, how many examples are longer than data.max_length, and of how many nothing can be learned, by the reason."""

    store: Store
    n_long: int
    unlearnable: Counter[str]


def _numbered(data: Mapping[str, Split], name: str) -> Iterator[tuple[int, Example]]:
    """Yield the examples of a split with their numbers, those of data.extra behind those that are trained on."""
    yield from data[name].numbered()
    if name == "train" and "extra" in data:
        yield from ((extra_number(place), example) for place, example in data["extra"].numbered())


def _encode(run: Run, data: Mapping[str, Split], name: str) -> _Encodings:
    """Encode a split into the run's store; raises DataError where there is nothing to use, or most of it is useless."""
    split = data[name]
    n_long, unlearnable = 0, Counter[str]()

    def fitted() -> Iterator[tuple[int, Encoded]]:
        nonlocal n_long
        for number, encoded in _encoded(run.task, _numbered(data, name)):
            pieces = list(run.task.pieces(encoded))
            n_long += _length(encoded, pieces) > run.config.data.max_length
            for piece in pieces:
                unlearnable.update(filter(None, [run.task.unlearnable(piece)]))
                yield number, piece

    store = write_store(run.folder / "store" / name, fitted())
    if not len(store):
        limit = f"data.max_length={run.config.data.max_length} {unit_of(next(iter(run.task.inputs)))}"
        why = f"all {n_long} are longer than {limit}" if n_long else "none were left"
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
    while chunk := list(islice(stream, task.window or CHUNK)):
        yield from zip((number for number, _ in chunk), task.encode_all([example for _, example in chunk], training=True), strict=True)


def _figures(run: Run, train: Store, valid: Store, n_test: int | None) -> dict[str, Any]:
    lengths, config = train.lengths(), run.config.train
    layout = run.task.layout
    division = layout.batches(lengths, config.batch_tokens, seed=run.config.seed, epoch=0, curriculum=config.curriculum)
    names = [key for key, kind in train.keys.items() if not kind["scalar"]]
    n_extra = int(np.count_nonzero(train.rows < 0))
    longest = dict(zip(names, lengths.max(axis=0).tolist(), strict=True))
    tokens = dict(zip(names, lengths.sum(axis=0).tolist(), strict=True))
    return {
        "examples": {
            "train": len(train),
            **({"extra": n_extra} if n_extra else {}),
            "valid": len(valid),
            **({} if n_test is None else {"test": n_test}),
        },
        "tokens": {name: count for name, count in tokens.items() if longest[name] != 1},  # a key that is never longer is no sequence
        "longest": {name: count for name, count in longest.items() if count != 1},
        "batches": len(division),
        "padding": round(layout.padding_share(lengths, division), 4),
        "heed": heed.__version__,
    }
