"""Settings: a recipe in YAML plus `key=value` overrides become validated, frozen objects.

Knows no model and no task: it holds the sections every run has (data, train, decode) and the machinery to read and check any section.
YAML is read with the rules of YAML 1.2 for numbers and booleans, so `5e-4` is a number and `no` is a word.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heed.errors import ConfigError


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), coerce_numbers_to_str=True)

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed."""
        return type(self).model_validate({**self.model_dump(), **changes})


class DataConfig(Settings):
    """Where examples come from and which of them are used."""

    train: str | None = Field(None, description="training examples: a file, DIR/train.{en,de}, or hf:NAME")
    valid: str | None = Field(None, description="examples for choosing weights; without it a seeded share of the training data")
    test: str | None = Field(None, description="examples scored once at the end of training; never used to choose anything")
    columns: dict[str, str] = Field(default_factory=dict, description="our column name -> the name in the file")
    header: list[str] | None = Field(None, description="column names of files that have no header line")
    bad_rows: Literal["error", "skip"] = Field("error", description="what a row that cannot be used does")
    filter: bool = Field(False, description="drop the rows that the data report counts as faulty")
    max_length: int = Field(
        256, ge=1, description="longest example that is trained on, in tokens of its longest side; longer ones are counted"
    )
    valid_share: float = Field(
        0.02, gt=0, lt=1, description="share of the training data held out when data.valid is absent (at most 2000 rows)"
    )


class TrainConfig(Settings):
    """How the weights are found."""

    steps: int | None = Field(None, ge=1, description="updates to make")
    epochs: float | None = Field(None, gt=0, description="passes over the training data, when train.steps is not given")
    minutes: float | None = Field(None, gt=0, description="stop after this time; alone, it also sets the number of steps that fits")
    batch_tokens: int = Field(4096, ge=1, description="padded tokens of the longest side in one micro-batch")
    accumulate: int = Field(1, ge=1, description="micro-batches per update")
    lr: float = Field(2e-3, gt=0, description="peak learning rate (for schedule=transformer: a factor on the 2017 formula)")
    schedule: Literal["cosine", "inverse_sqrt", "transformer", "constant"] = Field("cosine", description="shape after the warm-up")
    warmup: int = Field(400, ge=0, description="updates of linear warm-up")
    final_lr: float = Field(0.01, ge=0, le=1, description="cosine: the last rate as a share of the peak")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean gradient")
    beta2: float = Field(0.98, ge=0, lt=1, description="AdamW: decay of the squared gradient")
    weight_decay: float = Field(0.01, ge=0, description="AdamW: decay of matrices; norms, biases and embeddings are not decayed")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability spread over all classes")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 does not clip")
    early_stopping: int = Field(0, ge=0, description="stop after this many evaluations without a better one; 0 never")
    best_metric: str = Field("loss", description="validation figure that chooses the weights: loss, accuracy, or a score of the task")
    evaluate_every: int | None = Field(None, ge=1, description="updates between evaluations; default: once an epoch, at most 20 in a run")
    checkpoint_every: int | None = Field(None, ge=1, description="updates between checkpoints; default: at every evaluation")
    keep: int = Field(2, ge=1, description="checkpoints kept besides the best")
    average: int = Field(1, ge=1, description="final weights are the mean over this many last evaluations")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the hardware is fast at it")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    log_every: int = Field(20, ge=1, description="updates between lines of metrics.jsonl")
    tensorboard: bool | None = Field(None, description="write TensorBoard events; default: when tensorboard is installed")


class DecodeConfig(Settings):
    """How answers are generated."""

    beams: int = Field(5, ge=1, description="hypotheses kept; 1 is greedy")
    length_penalty: float = Field(1.0, description="hypotheses are ranked by log p / length ** this")
    n_best: int = Field(1, ge=1, description="answers returned for each input, best first")
    sample: bool = Field(False, description="draw tokens instead of searching for the best; implied by temperature, top_k or top_p")
    temperature: float = Field(1.0, gt=0, description="sampling: divides the logits")
    top_k: int = Field(0, ge=0, description="sampling: keep the k likeliest tokens; 0 keeps all")
    top_p: float = Field(1.0, gt=0, le=1, description="sampling: keep the likeliest tokens that hold this probability")
    max_length: int = Field(256, ge=1, description="longest answer in tokens")
    seed: int = Field(0, ge=0, description="sampling: same seed, same answers")
    batch_tokens: int = Field(4096, ge=1, description="padded source tokens decoded together")

    @property
    def sampling(self) -> bool:
        """Whether tokens are drawn rather than searched for."""
        return self.sample or self.temperature != 1.0 or self.top_k > 0 or self.top_p < 1.0


class _Loader(yaml.SafeLoader):
    """A safe YAML loader with the scalars of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"),
    list("-+0123456789."),
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _as_float(loader.construct_scalar(node)))


def _as_float(text: str) -> float:
    return float(
        text.replace(".inf", "inf")
        .replace(".Inf", "inf")
        .replace(".INF", "inf")
        .replace(".nan", "nan")
        .replace(".NaN", "nan")
        .replace(".NAN", "nan")
    )


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML document without running anything from it; raises ConfigError naming `where`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{where}{line}: not valid YAML ({problem})") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping; raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a recipe ({error})") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: expected settings as 'name: value' lines at the top level, found {type(content).__name__}")
    return content


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or `parse_yaml` would read as something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Write settings so that `parse_yaml` and any YAML 1.1 reader read the same values back."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `["train.lr=1e-3", "seed=2"]` into nested settings; raises ConfigError."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not all(key.split(".")):
            raise ConfigError(f"{pair!r}: expected key=value with a dotted path, such as train.lr=1e-3")
        place = settings
        *groups, name = key.split(".")
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{pair!r}: {group!r} was already given a plain value")
        place[name] = _override_value(value, pair)
    return settings


def _override_value(value: str, pair: str) -> Any:
    # A path such as data/train.{en,de} or a Windows drive is text, whatever YAML would make of its braces and colons.
    if value.startswith(("[", '"', "'")) or re.fullmatch(r"\{.*\}", value) or re.fullmatch(r"[-+.\w]*", value):
        return parse_yaml(value, pair)
    return value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay nested settings over others; a mapping is merged, anything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, Mapping) else value
    return merged


SettingsType = TypeVar("SettingsType", bound=Settings)


def validate(kind: type[SettingsType], content: Mapping[str, Any], where: str = "") -> SettingsType:
    """Build settings from plain values.

    Raises:
        ConfigError: naming every refused key by its full path, what was found, and the nearest right spelling.
    """
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        problems = "; ".join(_explain(kind, where, problem) for problem in error.errors())
        raise ConfigError(problems) from error


def _explain(kind: type[Settings], where: str, problem: Any) -> str:
    location = [str(step) for step in problem["loc"]]
    path = ".".join([*([where] if where else []), *location])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path, list(_paths(kind, where)), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; known here: {', '.join(_siblings(kind, location))}"
        return f"{path}: unknown setting{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if not location:
        return f"{path}: {message}" if path else message
    return f"{path}: {message}, found {problem['input']!r}"


def _paths(kind: type[Settings], prefix: str) -> Iterator[str]:
    for name, field in kind.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        section = _section(field.annotation)
        if section is None:
            yield path
        else:
            yield from _paths(section, path)


def _section(annotation: Any) -> type[Settings] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Settings):
            return candidate
    return None


def _siblings(kind: type[Settings], location: Sequence[str]) -> list[str]:
    for step in location[:-1]:
        field = kind.model_fields.get(step)
        section = _section(field.annotation) if field else None
        if section is None:
            break
        kind = section
    return list(kind.model_fields)


def recipe_folder() -> Path:
    """Return the folder of the recipes that ship: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).parent
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def find_recipe(name: str) -> Path | None:
    """Return the file of a recipe given by path or by the name of one that ships; None if there is none."""
    if name.endswith((".yaml", ".yml")):
        return Path(name) if Path(name).is_file() else None
    shipped = recipe_folder() / f"{name}.yaml"
    return shipped if shipped.is_file() else None
