"""Reading what a run folder holds for its report. A file that is absent is no fault; one that is damaged is named."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heed.config import read_yaml
from heed.errors import CheckpointError, HeedError
from heed.files import parse_json, read_metrics
from heed.report.wording import is_number
from heed.run.folder import no_run
from heed.run.weights import stored_shapes

if TYPE_CHECKING:
    from heed.tasks.base import Task

Json = dict[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """The content of a run folder, but for its weights; what is absent is empty.

    Attributes:
        config, config_text: config.yaml, read and as it stands.
        manifest, data: manifest.json and data_report.json.
        training, validation: the two kinds of lines of metrics.jsonl, in order.
        evaluations: the files of evaluations/, those made at the end of training first.
        n_parameters: numbers in model.safetensors, 0 without the file.
    """

    config: Json
    config_text: str
    manifest: Json
    data: Json
    training: list[Json]
    validation: list[Json]
    evaluations: list[Json]
    n_parameters: int


def read_run_files(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises:
        CheckpointError: it is no run folder, or a file in it is damaged.
        ConfigError: config.yaml is damaged.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise no_run(folder)
    lines = [line for line in read_metrics(folder) if is_number(line["step"])]
    return RunFiles(
        config=read_yaml(path),
        config_text=path.read_text(encoding="utf-8"),
        manifest=read_json(folder / "manifest.json"),
        data=read_json(folder / "data_report.json"),
        training=[line for line in lines if "loss" in line],
        validation=[line for line in lines if isinstance(line.get("valid"), dict)],
        evaluations=read_evaluations(folder),
        n_parameters=count_stored(folder / "model.safetensors"),
    )


def read_json(path: Path) -> Json:
    """Return the object in a JSON file, {} if there is no such file; raises CheckpointError when it holds anything else."""
    if not path.is_file():
        return {}
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); restore it from a copy, or delete it to do without") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected an object; restore it from a copy, or delete it")
    return content


def read_evaluations(folder: Path) -> list[Json]:
    """Return what evaluations/ holds: test, valid, then the others by name."""
    paths = sorted((folder / "evaluations").glob("*.json"), key=lambda path: (path.stem != "test", path.stem != "valid", path.name))
    return [{"name": path.stem, **read_json(path)} for path in paths if not path.name.startswith(".")]


def count_stored(path: Path) -> int:
    """Count the numbers in a safetensors file by its header; 0 for a file that is absent or damaged, which `Run.load` refuses."""
    try:
        return sum(math.prod(shape) for shape in stored_shapes(path).values())
    except CheckpointError:
        return 0


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def listed(value: object) -> list[Any]:
    """Return a list as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []


def mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings of a list; none of anything else."""
    return [one for one in listed(value) if isinstance(one, Mapping)]


def task_of(config: Json) -> "type[Task] | None":
    """Return the class of the run's task; None for a task that is not heed's own, whose code is not run here."""
    from heed.tasks import find_task

    task = config.get("task")
    with contextlib.suppress(HeedError):
        return find_task(str(task.get("name") if isinstance(task, dict) else task), trust=False)
    return None
