"""What a run that starts from another one (`init`) takes over of its settings, and which of its own do not fit that.

The stack, its sizes and what texts are cut into are those of the weights; what a task derives from its data, and what no weight depends on,
is the new run's own.
"""

from collections.abc import Mapping
from typing import Any

from heed.config import Settings
from heed.errors import ConfigError
from heed.model.config import ModelConfig
from heed.tasks.base import Task

# set by the task
DERIVED = (
    "vocab_size",
    "source_vocab_size",
    "absent_ids",
    "n_classes",
    "n_tags",
    "n_features",
    "masked_lm",
    "ctc",
    "frozen_embedding",
)
WITHOUT_SETTING = {"cleaning": False}  # what a task does that has no such setting, where that is not the default of those that have it
READ_AS = {"words": "text"}  # inputs of one kind that are cut as those of another
# Settings of what has no weight, or new ones.
OF_NO_WEIGHT = ("dropout", "pooling", "class_hidden", "hierarchical", "n_document_layers", "n_grams", "n_gram_rows", "max_length")

MOST_FRAMING = 4  # tokens around two texts: begin, two between them, end


def taken_settings(kind: type[Task], other: Task, model: ModelConfig) -> dict[str, Any]:
    """Return the settings that a run of a task takes over from a run of another, given its task and model.

    Those of the task that say how examples are cut, and that the other does not know, are at their defaults or as the other does it.

    Raises:
        ConfigError: one reads texts and the other sound, or their models are of different architectures.
    """
    ours, theirs = ("".join(sorted({READ_AS.get(form, form) for form in task.inputs.values()})) for task in (kind, other))
    if ours != theirs:
        raise ConfigError(f"a {other.name} run reads {theirs}, and {kind.name} {ours}; start from one that reads the same")
    others = {*DERIVED, "architecture"} - {"n_features"}  # without which learned positions would be counted as those of tokens
    shape = {name: value for name, value in model.model_dump().items() if name not in others}
    usual = {name: kind.settings.model_fields[name].get_default(call_default_factory=True) for name in kind.cutting}
    cutting = {name: getattr(other.config, name, WITHOUT_SETTING.get(name, value)) for name, value in usual.items()}
    wanted = kind.usual(cutting).get("model", {}).get("architecture", kind.architecture)
    if wanted != model.architecture:
        raise ConfigError(f"its model is of architecture={model.architecture}, and {kind.name} needs {wanted}; start from another run")
    return {"model": shape, "task": cutting, "data": {"max_length": _longest(kind, other, model)}}


def _longest(kind: type[Task], other: Task, model: ModelConfig) -> int:
    """Return how many tokens of a text are read: as many as the other run reads, as far as there are places for what stands around them."""
    if model.positions != "learned" or kind.counts_framing or not other.counts_framing:
        return other.max_length
    return max(1, min(other.max_length, model.max_length - MOST_FRAMING))


def check_cutting(kind: type[Task], settings: Settings, taken: Mapping[str, Any], source: str) -> None:
    """Refuse settings of a task that say how examples are cut otherwise than the run that it starts from; raises ConfigError."""
    for name in kind.cutting:
        found, expected = getattr(settings, name), taken["task"][name]
        if found != expected and name not in kind.retold:
            raise ConfigError(
                f"task.{name}={found} would be ignored: examples are cut as those of init={source}, where it is {expected}; leave it out"
            )


def check_stack(model: ModelConfig, other: ModelConfig, source: str) -> None:
    """Refuse a model whose stack is not that of the weights it is to start from; raises ConfigError naming the first setting."""
    free = {*DERIVED, *OF_NO_WEIGHT} - ({"max_length"} if model.positions == "learned" else set())
    for name in ModelConfig.model_fields:
        found, expected = getattr(model, name), getattr(other, name)
        if name not in free and found != expected:
            raise ConfigError(
                f"model.{name}={found} does not fit init={source}, whose weights are of model.{name}={expected}; "
                f"leave it out, or start from another run"
            )
