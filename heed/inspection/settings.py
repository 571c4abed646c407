"""The settings of a run and of a recipe, with what they mean and how they differ from the defaults."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from heed.config import Settings, merge, parse_overrides, typed
from heed.inspection.layout import SHOWN_CHARACTERS, Findings, aligned
from heed.run import Run, RunConfig, resolve, usual_settings


def inspect_recipe(recipe: str, pairs: Sequence[str] = ()) -> tuple[Findings, list[str]]:
    """Show every setting that training by a recipe would have, with what it means; nothing is trained.

    Args:
        pairs: settings laid over the recipe.
    Returns:
        the findings (`recipe`, `task`, and `settings`: of each its value, its meaning, and its `choices` where only some words will do),
        and lines for a terminal.
    Raises:
        ConfigError: there is no such recipe, or a setting does not fit.
    """
    config = resolve(recipe, parse_overrides(pairs))
    fields, values = _fields(config), _by_path(config.model_dump())
    settings: Findings = {path: {"value": value, "meaning": fields[path].description or ""} for path, value in values.items()}
    for path, one in settings.items():
        if choices := _choices(fields[path].annotation):
            one["choices"] = choices
    lines = aligned([(path, word(one["value"]), _meaning(one)) for path, one in settings.items()])
    found: Findings = {"recipe": recipe, "task": config.task["name"], "settings": settings}
    return found, [f"{recipe}: settings of task {found['task']}, as they are without data", *(f"  {line}" for line in lines)]


def _fields(config: RunConfig) -> dict[str, FieldInfo]:
    """Return how every setting is described, by its path."""
    groups = {name: value for name, value in config if isinstance(value, Settings)} | {"task": config.build_task().config}
    fields = {f"{group}.{name}": field for group, value in groups.items() for name, field in type(value).model_fields.items()}
    return {**RunConfig.model_fields, **fields}


def _choices(annotation: object) -> list[str]:
    """Return the words that a type allows, if it allows no others."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for inner in get_args(annotation) for word in _choices(inner)]


def _meaning(setting: Findings) -> str:
    choices = f" ({' | '.join(setting['choices'])})" if "choices" in setting else ""
    return f"{setting['meaning']}{choices}"


def settings_of(run: Run) -> tuple[Findings, Findings]:
    """Return the settings that are not as the defaults are, each with its value and its default (if it has one), and the others."""
    values, defaults = _by_path(run.config.model_dump()), _defaults(run)
    changed = {path: {"value": value} for path, value in values.items() if path not in defaults or defaults[path] != value}
    for path, setting in changed.items():
        if path in defaults:
            setting["default"] = defaults[path]
    return changed, {path: value for path, value in values.items() if path not in changed}


def _defaults(run: Run) -> Findings:
    """Return what every setting that has a default would be if nobody gave it, which depends on the task and on its other settings."""
    defaults = _default_values(type(run.config)) | {"task": _default_values(type(run.task.config))}
    return _by_path(merge(defaults, usual_settings(run.task, run.config)))


def _default_values(kind: type[Settings]) -> Findings:
    defaults = {name: entry.get_default(call_default_factory=True) for name, entry in kind.model_fields.items() if not entry.is_required()}
    return {name: value.model_dump() if isinstance(value, Settings) else value for name, value in defaults.items()}


def _by_path(content: Mapping[str, Any]) -> Findings:
    """Name settings by their dotted path, without the task's name, which is no setting that has a default."""
    groups = {name: value if isinstance(value, dict) else {"": value} for name, value in content.items()}
    paths = {f"{group}.{name}".removesuffix("."): value for group, inner in groups.items() for name, value in inner.items()}
    return {path: value for path, value in paths.items() if path != "task.name"}


def word(value: object) -> str:
    """Write a value as it is typed in a setting."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = typed(value)
    if isinstance(value, list | dict) and len(text) > SHOWN_CHARACTERS:
        return f"{text[:SHOWN_CHARACTERS]} … ({len(value)} values; --json prints all)"
    return text or "''"
