"""From a folder in Hugging Face's layout to a run folder of heed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heed.config import merge
from heed.convert.families import find_family
from heed.convert.family import Family, Groups
from heed.convert.folder import Folder, Settings, Weights, read_object
from heed.convert.table import Entry, names_of, take_all
from heed.errors import CheckpointError, ConfigError
from heed.files import parse_json, sha256
from heed.model.config import ModelConfig
from heed.model.models import build_model
from heed.run import Run, RunConfig, check_stored, distinct, new_folder, resolve

SHOWN = 8  # names listed in a line
BODIES = ("stem.", "stack.", "source_stem.", "target_stem.", "encoder.", "decoder.")  # what no task begins anew
CHANGEABLE = ("dropout",)  # settings of a model that do not change what it computes when it answers
POOLING = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
SENTENCES = "sentence_similarity"


@dataclass(frozen=True)
class Imported:
    """What came of importing.

    Args:
        run: the run that was made.
        kind: the class of the foreign model.
        unused: tensors of the file that the run has no use for.
        fresh: tensors of heed's model that the file lacks, drawn anew.
        dtypes: the types of numbers the file holds; the run's are float32.
    """

    run: Run
    kind: str
    unused: list[str]
    fresh: list[str]
    dtypes: list[str]

    def lines(self) -> list[str]:
        """Return what a person wants to know, as lines for a terminal."""
        n = sum(tensor.numel() for tensor in distinct(self.run.model).values())
        said = [f"{self.kind} -> {self.run.task.name}: {n:,} numbers, all in float32 (the file: {', '.join(self.dtypes)})"]
        said += [f"not used: {_some(self.unused)}"] if self.unused else []
        said += [f"new, not trained yet, for the file has none: {_some(self.fresh)}"] if self.fresh else []
        return [*said, f"run folder: {self.run.folder}"]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def import_folder(
    source: str | Path, to: str | Path, *, task: str | None = None, settings: Mapping[str, Any] | None = None, force: bool = False
) -> Imported:
    """Turn a folder in Hugging Face's layout into a run folder, on which every verb of heed works.

    Args:
        source: the folder, with config.json, safetensors and the files of a tokenizer.
        to: the run folder to make; one that exists is refused unless `force`.
        task: what it is to be used for, where that is not what its class is for; what its head lacks is then drawn anew.
        settings: settings laid over what the folder says, such as {"task": {"pair": True}}; those of the model are its own.
    Raises:
        CheckpointError: the folder is not whole, or not what it says.
        ConfigError: heed cannot compute what its settings ask for.
    """
    folder = Folder(Path(source))
    said = task or (SENTENCES if folder.has("modules.json") else None)
    family, kind = find_family(folder.settings, said)
    wanted = said or family.classes[kind]
    table_kind = kind if family.classes[kind] == wanted else family.class_for(wanted)  # with the head that is wanted
    weights = folder.weights()
    weights.under(family.prefix)
    groups = family.refined(family.settings(folder.settings, table_kind), folder, weights)
    config = _config(folder, groups, wanted, settings or {})
    built = config.build_task()
    _check_sizes(folder, config.model, weights)
    family.adopt(folder, built)
    shaped = config.replace(model=built.shape(config.model), task={"name": wanted, **built.config.model_dump()})
    entries = family.entries(shaped.model, built, table_kind)
    fresh = _fresh(shaped.model, entries, weights.names, asked=task is not None, where=folder.path)
    unused = weights.stored_names(name for name in weights.names - names_of(entries) if not name.endswith(family.buffers))
    about = _about(folder, family, kind, unused, fresh)
    with new_folder(Path(to), force=force) as keep:
        run = Run.create(Path(to), shaped, built, about={"imported": about})
        try:
            fill(run.model, entries, weights)
        except CheckpointError as error:
            raise CheckpointError(f"{folder.path}: {error}; fetch config.json and the weights again") from error
        run.model.eval()
        run.save()
        keep()
    dtypes = sorted(str(dtype).removeprefix("torch.") for dtype in weights.dtypes)
    return Imported(run, kind, unused, fresh, dtypes)


def _check_sizes(folder: Folder, model: ModelConfig, weights: Weights) -> None:
    """Raise CheckpointError where config.json asks for far more than the weights hold, before memory is taken for it."""
    stored, size = weights.n_numbers(), folder.settings.whole("vocab_size")
    check_stored(model, stored, f"{folder.path}: config.json and the weights do not belong together")
    if not 0 < size <= stored:
        raise CheckpointError(f"{folder.settings.where}: vocab_size={size}, but the weights hold {stored:,} numbers; fetch both again")


def _about(folder: Folder, family: Family, kind: str, unused: list[str], fresh: list[str]) -> dict[str, Any]:
    """Return what config.yaml remembers of where a run came from; exporting reads `family`, `class` and `generation`."""
    return {
        "folder": str(folder.path),
        "config_sha256": sha256(folder.path / "config.json"),
        "family": family.model_type,
        "class": kind,
        "dtype": folder.settings.get("dtype", folder.settings.get("torch_dtype", "float32")),
        "unused": unused,
        "fresh": fresh,
        "generation": folder.generation.content,
    }


def _config(folder: Folder, groups: Groups, task: str, settings: Mapping[str, Any]) -> RunConfig:
    """Return the settings of the run: those of the folder, and over them those of the caller."""
    refused = next((name for name in settings.get("model", {}) if name not in CHANGEABLE), None)
    if refused is not None:
        raise ConfigError(f"model.{refused}: is what {folder.path / 'config.json'} says, and cannot be another; leave it out")
    if task == SENTENCES:
        groups = merge(groups, sentence_settings(folder))
    plain = {name: entry.get_default(call_default_factory=True) for name, entry in ModelConfig.model_fields.items()}
    theirs: dict[str, Any] = {**groups, "task": {"name": task, **groups.get("task", {})}, "model": {**plain, **groups["model"]}}
    theirs["decode"] = {"precision": "float32", **groups.get("decode", {})}  # which answers as the model did where it came from
    try:
        resolve(theirs)
    except ConfigError as error:
        raise ConfigError(f"{folder.settings.where}: asks for what heed cannot compute: {error}") from error
    return resolve(merge(theirs, settings))


def sentence_settings(folder: Folder) -> Groups:
    """Return what a folder of sentence-transformers says: how tokens become one vector, and how many are read.

    Raises:
        ConfigError: it has a step that heed cannot take, such as a layer behind the pooling.
    """
    if not folder.has("modules.json"):
        return {}
    groups: Groups = {"task": {"normalise": False}}
    for module in _modules(folder):
        kind, path = str(module.get("type")).rpartition(".")[2], str(module.get("path", ""))
        where = f"{folder.path / 'modules.json'}: the step {kind}"
        if kind == "Pooling":
            groups["task"]["pooling"] = _pooling(Settings(read_object(folder.path / path / "config.json"), str(folder.path / path)))
        elif kind == "Normalize":
            groups["task"]["normalise"] = True
        elif kind != "Transformer" or path:
            raise ConfigError(f"{where} at {path!r}, expected Transformer, Pooling and Normalize; heed cannot compute it")
    reading = Settings(folder.read("sentence_bert_config.json"), str(folder.path / "sentence_bert_config.json"))
    reading.only("do_lower_case", False, why="heed does not lower-case texts: if the tokenizer does, as most do, set it to false there")
    asking = Settings(folder.read("config_sentence_transformers.json"), str(folder.path / "config_sentence_transformers.json"))
    asking.only("default_prompt_name", why="heed puts no prompt before a text: set it to null there, and write the prompt yourself")
    longest = reading.get("max_seq_length", None)
    if isinstance(longest, int):
        groups["data"] = {"max_length": longest}
    return groups


def _modules(folder: Folder) -> list[dict[str, Any]]:
    try:
        modules = parse_json((folder.path / "modules.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder.path / 'modules.json'}: cannot be read as JSON ({error}); fetch it again") from error
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{folder.path / 'modules.json'}: expected a list of steps; fetch it again")
    return modules


def _pooling(theirs: Settings) -> str:
    """Return how heed pools; raises ConfigError for ways it does not know, or several at once."""
    wanted = sorted(name for name, value in theirs.content.items() if name.startswith("pooling_mode") and value is True)
    if len(wanted) != 1 or wanted[0] not in POOLING:
        raise ConfigError(f"{theirs.where}: {', '.join(wanted) or 'no pooling_mode'}, expected one of {', '.join(POOLING)}")
    return POOLING[wanted[0]]


def _fresh(model: ModelConfig, entries: list[Entry], names: set[str], *, asked: bool, where: Path) -> list[str]:
    """Return the tensors of a model that a file lacks.

    Args:
        asked: whether the task was chosen by the caller, so that a head may be missing.
    Raises:
        CheckpointError: one is missing that is not of a head, or any where the task was not chosen.
    """
    with torch.device("meta"):
        needed = set(distinct(build_model(model)))
    given = {ours for one in entries for ours in one.ours if one.found(names)}
    fresh = sorted(needed - given)
    missing = [name for name in fresh if not asked or name.startswith(BODIES)]
    if missing:
        theirs = {ours: one.theirs for one in entries for ours in one.ours}
        name = missing[0]
        of_head = not asked and not name.startswith(BODIES)
        hint = "name the task with --task so that its head begins anew" if of_head else "fetch config.json and the weights again"
        raise CheckpointError(f"{where}: the weights lack {theirs.get(name) or name}, of which heed makes {name}; {hint}")
    return fresh


def fill(model: torch.nn.Module, entries: list[Entry], weights: Weights) -> None:
    """Copy what a file holds into a model; raises CheckpointError where it does not fit."""
    ours = distinct(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    with torch.no_grad():
        for name, tensor in take_all(entries, weights.names, weights.read, shapes):
            ours[name].copy_(tensor)
