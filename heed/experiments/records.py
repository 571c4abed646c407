"""What the folder of an experiment remembers: its settings and the hashes of its data, so that a later call goes on with the same only."""

import json
import shutil
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from heed.errors import CheckpointError, ConfigError, DataError
from heed.files import held, parse_json, replacing
from heed.run import RunConfig
from heed.training.origin import Origin
from heed.training.prepare import Hashes, check_metric, data_hashes, hashes_of
from heed.training.signals import Interrupted

RECORD = "experiment.json"
RUNS = "*/config.yaml"
BEGUN = (RUNS, "study.journal")  # what an experiment that has begun leaves
NOTHING = "nothing"  # how a setting that is not there is told

Json = dict[str, Any]


def check_begin(config: RunConfig, varied: Container[str] = ()) -> None:
    """Refuse, before anything is written, settings that no run of an experiment could begin with; raises ConfigError.

    Args:
        varied: paths of settings that the runs have values of their own for.
    """
    if config.data.train is None and "data.train" not in varied:
        raise ConfigError("data.train is not set: name the file of your examples, such as data.train=rows.csv")
    check_metric(config, config.build_task())


def record_of(config: RunConfig, **others: Any) -> Json:
    """Return what an experiment is of: every setting, what else it was given, and the hashes of its data; raises DataError without them."""
    if config.init is not None:
        others["init_sha256"] = Origin.open(config.init, own_task=config.task["name"]).sha256
    content = {"settings": {**config.model_dump(), **others}, "data_sha256": data_hashes(config.data)}
    found: Json = json.loads(json.dumps(content))
    return found


@contextmanager
def experiment(folder: Path, record: Json) -> Iterator[None]:
    """Hold a folder for an experiment, which goes on if it was begun there before; one that ends before its first run leaves nothing.

    Args:
        record: from `record_of`.
    Raises:
        ConfigError: the folder holds something else, or the experiment with other settings.
        DataError: a data file changed since it was begun.
        TrainingError: another process is at work in the folder.
        Interrupted: a signal stopped one of its runs.
    """
    if folder.exists() and not (folder / RECORD).is_file() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ConfigError(f"{folder}: exists already and is never overwritten; choose another --to")
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        new = not (folder / RECORD).is_file()
        if not new and any(any(folder.glob(pattern)) for pattern in BEGUN):
            _check_same(folder, _read(folder / RECORD), record)
        with _gone_unless_begun(folder) if new else nullcontext():
            with replacing(folder / RECORD) as draft:
                draft.write_text(json.dumps(record, ensure_ascii=False, indent=1), encoding="utf-8")
            try:
                yield
            except Interrupted as stopped:  # of a run: resumed alone, it would be none of this experiment's
                how = f"the same command once more (what is done stands in {folder})"
                raise Interrupted(stopped.number, stopped.step, stopped.folder, how) from stopped


@contextmanager
def _gone_unless_begun(folder: Path) -> Iterator[None]:
    """Remove a folder that was made for an experiment, if that fails before there is a run to go on with."""
    try:
        yield
    except BaseException:
        if not any(folder.glob(RUNS)):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _read(path: Path) -> Json:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        return {"settings": dict(content["settings"]), "data_sha256": dict(content["data_sha256"])}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error!r}); restore it from a copy, or choose another --to") from error


def _check_same(folder: Path, before: Json, now: Json) -> None:
    """Refuse to go on with other settings or other data."""
    then, asked = (dict(_leaves(record["settings"])) for record in (before, now))
    for path in dict.fromkeys([*asked, *then]):
        a, b = then.get(path, NOTHING), asked.get(path, NOTHING)
        if a != b:
            raise ConfigError(
                f"{folder}: was made with {path}={_shown(a)}, now it is {_shown(b)}; choose another --to, or remove the folder"
            )
    for split, files in now["data_sha256"].items():
        if before["data_sha256"].get(split) != files:
            source = now["settings"]["data"][split]
            raise DataError(f"data.{split}={source}: changed since {folder} was begun; bring back the file, or choose another --to")


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and value of every setting."""
    for name, value in content.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def has_begun(place: Path) -> bool:
    """Return whether there is a run to go on with; what an earlier call left before it came to that is removed."""
    if (place / "config.yaml").is_file():
        return True
    shutil.rmtree(place, ignore_errors=True)
    return False


def check_data(place: Path, record: Json) -> None:
    """Refuse a run that was trained on other data than its experiment was begun with, which may change while that is at work."""
    hashes: Hashes = hashes_of(place)
    for split, files in record["data_sha256"].items():
        if hashes.get(split) != files:
            raise DataError(
                f"{place}: was trained on another data.{split} than the rest of the experiment; bring back the file and remove {place}"
            )
