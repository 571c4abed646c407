"""Every setting of a run: how a recipe, what is laid over it and the run it starts from become one, and how it is read back."""

import difflib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import Field, model_validator

from heed.config import (
    DataConfig,
    DecodeConfig,
    LoraConfig,
    Settings,
    TrainConfig,
    find_recipe,
    merge,
    read_yaml,
    recipe_folder,
    searching,
    validate,
)
from heed.errors import CheckpointError, ConfigError
from heed.model.config import ModelConfig, of_chosen_kinds
from heed.run.folder import FORMAT, no_run
from heed.tasks import TASKS, Task, find_task
from heed.tasks.inheritance import check_cutting, check_stack, taken_settings


class RunConfig(Settings):
    """Every setting of a run."""

    seed: int = Field(default=1, ge=0, lt=2**63, description="governs weights, order, dropout and the split of validation data")
    init: str | None = Field(
        default=None, description="a run folder to start from: its model settings, what cuts its examples, and every weight that fits"
    )
    task: dict[str, Any] = Field(description="name of the task, and its own settings")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    lora: LoraConfig = LoraConfig()
    decode: DecodeConfig = DecodeConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.lora.rank and self.init is None:
            raise ValueError(f"lora.rank={self.lora.rank} learns beside the weights of another run; name it with init=RUN, or leave it out")
        longest, setting = max((self.model.max_length, "max_length"), (self.model.source_length, "max_source_length"))
        setting = setting if self.model.max_source_length else "max_length"
        if self.model.positions == "learned" and self.data.max_length > longest:
            raise ValueError(
                f"data.max_length={self.data.max_length} is more than model.{setting}={longest}, the longest sequence "
                f"that learned positions know; lower the one or raise the other"
            )
        return self

    def build_task(self, *, trust: bool = True) -> Task:
        """Return the task without its parts; raises ConfigError when its settings are wrong."""
        kind = find_task(str(self.task.get("name")), trust=trust)
        settings = validate(kind.settings, {key: value for key, value in self.task.items() if key != "name"}, "task")
        return kind.suited(settings)(settings, label_smoothing=self.train.label_smoothing, max_length=self.data.max_length)


def resolve(
    recipe: str | Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, base: Mapping[str, Any] | None = None
) -> RunConfig:
    """Lay overrides over a recipe (a YAML file, the name of one that ships, or plain values) and write out every setting.

    Args:
        base: what holds where neither says anything, instead of the defaults.
    Raises:
        ConfigError: no such recipe, or a setting that is unknown, of the wrong type, or does not fit another or the run of `init`.
        CheckpointError: `init` names no run.
    """
    layers = [_layer(one) for one in (base or {}, _recipe_content(recipe), overrides or {})]
    content = functools.reduce(merge, layers)
    kind, source = _task_class(content), content.get("init")
    origin = None if source is None else _origin_of(str(source), kind, content["task"]["name"])
    content = content if origin is None else _laid_between(layers, origin.settings)
    content = merge(_fitting(kind.usual(content["task"]), content), content)
    config = validate(RunConfig, content)
    task = config.build_task()
    if origin is not None:
        check_cutting(kind, task.config, origin.settings, str(source))
        check_stack(config.model, origin.model, str(source))
    for layer in layers:
        config.decode.check_given(layer.get("decode", {}))
        task.check_decoding(config.decode, layer.get("decode", {}))
    return config.replace(task={"name": config.task["name"], **task.config.model_dump()})


def _layer(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that are laid over others with what they say in short written out."""
    layer = _task_mapping(content)
    decode = layer.get("decode")
    return {**layer, "decode": searching(decode)} if isinstance(decode, Mapping) else layer


def _fitting(usual: dict[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a task's usual settings those of a kind of model that is not chosen."""
    chosen = merge(usual, content).get("model")
    if not isinstance(chosen, dict):
        return usual
    kept = of_chosen_kinds(chosen)
    return {**usual, "model": {name: value for name, value in usual.get("model", {}).items() if name in kept}}


class _Origin(NamedTuple):
    """What is known of the run that `init` names: the settings that are taken over, and its model's."""

    settings: dict[str, Any]
    model: ModelConfig


def _origin_of(source: str, kind: type[Task], name: str) -> _Origin:
    """Read what a run of a task of that name takes over; of others that are not part of heed no code is run."""
    try:
        other = read_config(Path(source).expanduser())
        task = other.build_task(trust=other.task.get("name") == name)
        decode = {"precision": other.decode.precision} if other.decode.changed("precision") else {}
        return _Origin({**taken_settings(kind, task, other.model), "decode": decode}, other.model)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"init={source}: {error}") from error


def _laid_between(layers: Sequence[Mapping[str, Any]], taken: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over each other, those of the run that `init` names directly below the layer that names it."""
    naming = max(place for place, layer in enumerate(layers) if layer.get("init") is not None)
    taken = _fitting(dict(taken), functools.reduce(merge, layers, {}))
    return functools.reduce(merge, [*layers[:naming], taken, *layers[naming:]], {})


def _task_class(content: Mapping[str, Any]) -> type[Task]:
    task = content.get("task")
    if not isinstance(task, dict) or not isinstance(task.get("name"), str):
        raise ConfigError(f"task.name: expected {' or '.join(TASKS)}, or a path such as package.module:Class, found {task!r}")
    return find_task(task["name"])


def _recipe_content(recipe: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(recipe, Mapping):
        return {key: value for key, value in recipe.items() if key != "search"}
    path = find_recipe(recipe)
    if path is not None:
        content = read_yaml(path)
        content.pop("search", None)  # for `heed tune`
        if "format" in content:  # config.yaml of a run: how it came about is not a setting
            content = {key: value for key, value in content.items() if key in RunConfig.model_fields}
            content["model"] = of_chosen_kinds(content.get("model", {}))
            content["decode"] = _of_use(validate(DecodeConfig, content.get("decode", {}), "decode"))
        return content
    if ":" in recipe and not recipe.endswith((".yaml", ".yml")):
        return {"task": {"name": recipe}}
    raise _no_recipe(recipe)


def _no_recipe(recipe: str) -> ConfigError:
    shipped = sorted(file.stem for file in recipe_folder().glob("*.yaml"))
    near = difflib.get_close_matches(Path(recipe).stem, shipped, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(shipped)}"
    return ConfigError(f"{recipe}: no such recipe file, and not one that ships; {hint}")


def _of_use(decode: DecodeConfig) -> dict[str, Any]:
    """Return settings of decoding without those of a search where answers are drawn."""
    content = decode.model_dump()
    return {**content, "sample": True, "beams": 1} if decode.sampling else content


def _task_mapping(content: Mapping[str, Any]) -> dict[str, Any]:
    """Allow `task: translation` for `task: {name: translation}`."""
    content = dict(content)
    if isinstance(content.get("task"), str):
        content["task"] = {"name": content["task"]}
    return content


def usual_settings(task: Task, config: RunConfig) -> dict[str, Any]:
    """Return the settings of a task, as configured, that nobody needs to give: those of the recipe of its name, and below them its own."""
    recipe = _layer(_recipe_content(config.task["name"]))
    return merge(_fitting(task.usual(config.task), config.model_dump()), recipe)


def read_config(folder: Path) -> RunConfig:
    """Read config.yaml of a run folder; raises CheckpointError or ConfigError."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise no_run(folder)
    content = read_yaml(path)
    if content.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}; this run was written by another version of heed")
    if isinstance(content.get("model"), dict):  # runs of earlier versions may hold settings that nothing read
        content["model"] = of_chosen_kinds(content["model"])
    return validate(RunConfig, {key: value for key, value in content.items() if key in RunConfig.model_fields})
