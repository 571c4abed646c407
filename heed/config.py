"""Settings: a recipe in YAML plus `key=value` overrides become validated, frozen objects.

Knows no model and no task: it holds the sections every run has (data, train, decode) and the machinery to read and check any section.
YAML is read with the rules of YAML 1.2 for numbers and booleans, so `5e-4` is a number and `no` is a word.
"""

import re
import reprlib
from collections.abc import Container, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from heed.errors import ConfigError
from heed.hints import nearest


class Settings(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), coerce_numbers_to_str=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and not {bool, Any} & {annotation, *get_args(annotation)}:
            raise ValueError("expected something other than true or false")
        return value

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed; raises ConfigError."""
        return validate(type(self), {**self.model_dump(), **changes})

    def changed(self, name: str) -> bool:
        """Return whether a setting is not at its default."""
        return bool(getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True))


class DataConfig(Settings):
    """Where examples come from and which of them are used."""

    train: str | None = Field(
        default=None, description="training examples: a file, DIR/train.{en,de}, a folder of class folders, imdb.npz, or hf:NAME"
    )
    valid: str | None = Field(default=None, description="examples for choosing weights; without it a seeded share of the training data")
    test: str | None = Field(default=None, description="examples scored once at the end of training; never used to choose anything")
    extra: str | None = Field(
        default=None, description="more training examples, of other people or places: learned from too, but never held out, in no fold"
    )
    columns: dict[str, str] = Field(default_factory=dict, description="our column name -> the name in the file")
    header: list[str] | None = Field(default=None, description="column names of files that have no header line")
    bad_rows: Literal["error", "skip"] = Field(default="error", description="what a row that cannot be used does")
    allow_leaks: bool = Field(default=False, description="train although training examples stand in the validation or test data too")
    folds: int | None = Field(default=None, ge=2, description="divide the training data into this many folds, one of them the test data")
    fold: int = Field(default=1, ge=1, description="which of the folds is the test data, from 1")
    group: str | None = Field(
        default=None, description="column whose equal values are all trained, validated or tested on, such as speaker or author"
    )
    filter: bool = Field(default=False, description="drop the rows that the data report counts as faulty")
    max_length: int = Field(
        default=256, ge=1, description="longest example that is trained on, in tokens of its longest side; longer ones are counted"
    )
    valid_share: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="share of the training data held out when data.valid is absent (about 10 rows at least, 2000 at most)",
    )

    @model_validator(mode="after")
    def _fits_data(self) -> Self:
        if self.folds is None and (self.fold != 1 or self.group is not None):
            raise ValueError("data.fold and data.group would be ignored without data.folds; leave them out, or set data.folds=5")
        if self.folds is not None and self.fold > self.folds:
            raise ValueError(f"data.fold={self.fold} is more than data.folds={self.folds}; folds count from 1")
        for name, given in (("valid", self.valid), ("test", self.test)):
            if self.folds is not None and given is not None:
                raise ValueError(
                    f"data.{name}={given}: data.folds={self.folds} holds out a part of data.train instead; leave one of them out"
                )
        return self


class TrainConfig(Settings):
    """How the weights are found."""

    steps: int | None = Field(
        default=None,
        ge=1,
        description="updates to make; without epochs and minutes either: 10 epochs, but at least 1,000 and at most 20,000 updates",
    )
    epochs: float | None = Field(default=None, gt=0, description="passes over the training data, when train.steps is not given")
    minutes: float | None = Field(default=None, gt=0, description="stop after this time; alone, it also sets the number of steps that fits")
    batch_tokens: int = Field(default=2048, ge=1, description="padded tokens of the longest side in one micro-batch")
    accumulate: int = Field(default=1, ge=1, description="micro-batches per update")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="threads of the CPU that training takes; default: all; fewer where others compute too",
    )
    curriculum: bool = Field(
        default=False, description="the first epoch goes through the examples as they stand in the file: from easy to hard, say"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: fewer steps at the same rate, at batches of thousands of tokens"
    )
    lr: float = Field(default=2e-3, gt=0, description="peak learning rate (for schedule=transformer: a factor on the 2017 formula)")
    schedule: Literal["cosine", "inverse_sqrt", "transformer", "constant"] = Field(default="cosine", description="shape after the warm-up")
    warmup: int = Field(default=200, ge=0, description="updates of linear warm-up")
    final_lr: float = Field(default=0.01, ge=0, le=1, description="cosine: the last rate as a share of the peak")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW: decay of the mean gradient")
    beta2: float = Field(default=0.98, ge=0, lt=1, description="AdamW: decay of the squared gradient")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW: decay of matrices; norms, biases and embeddings are not decayed")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1, description="probability spread over all classes")
    clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0 does not clip")
    skip_bad_steps: int = Field(
        default=0, ge=0, description="updates that may be left out because their loss or gradient is not finite; one more stops the run"
    )
    early_stopping: int = Field(default=0, ge=0, description="stop after this many evaluations without a better one; 0 never")
    best_metric: str = Field(
        default="loss",
        description="validation figure that chooses the weights: loss, accuracy, or a score of the task; of equal ones that of lower loss",
    )
    evaluate_every: int | None = Field(
        default=None, ge=1, description="updates between evaluations; default: once an epoch, at most 20 in a run"
    )
    checkpoint_every: int | None = Field(default=None, ge=1, description="updates between checkpoints; default: at every evaluation")
    keep: int = Field(default=2, ge=1, description="checkpoints kept besides the best")
    average: int = Field(default=1, ge=1, description="final weights are the mean over this many last evaluations")
    precision: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="auto: bfloat16 where the hardware is fast at it")
    recompute: bool = Field(
        default=False,
        description="keep only each block's input for the backward pass, compute the rest again: less memory, slower",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1 ...")
    log_every: int = Field(default=20, ge=1, description="updates between lines of metrics.jsonl")
    tensorboard: bool | None = Field(default=None, description="write TensorBoard events; default: when tensorboard is installed")


class LoraConfig(Settings):
    """Learning thin matrices beside the weights of another run (`init`), which stay as they are (Hu et al. 2021)."""

    rank: int = Field(default=0, ge=0, description="rank of the thin matrices; 0: there are none, and all weights learn")
    alpha: float = Field(default=16.0, gt=0, description="what they add is multiplied by alpha / rank")
    targets: list[Literal["query", "key", "value", "output", "up", "gate", "down"]] = Field(
        default=["query", "value"],
        min_length=1,
        description="maps that have them: query, key, value and output of attention; up, gate and down of the feed-forward",
    )
    merge: bool = Field(default=True, description="add them to the weights when training ends; false keeps them apart, in a small file")

    @model_validator(mode="after")
    def _fits_rank(self) -> Self:
        idle = [name for name in type(self).model_fields if self.changed(name)]
        if not self.rank and idle:
            raise ValueError(f"lora.{idle[0]} would be ignored without lora.rank; leave it out, or set lora.rank=8")
        return self


DRAWING = ("temperature", "top_k", "top_p", "min_p")  # settings that shape what is drawn, and imply decode.sample


class DecodeConfig(Settings):
    """How answers are generated."""

    beams: int = Field(default=5, ge=1, description="hypotheses kept; 1 is greedy")
    length_penalty: float = Field(default=1.0, ge=-10, le=10, description="hypotheses are ranked by log p / length ** this")
    n_best: int = Field(default=1, ge=1, description="answers returned for each input, best first")
    sample: bool = Field(
        default=False, description="draw tokens instead of searching for the best; implied by temperature, top_k, top_p or min_p"
    )
    temperature: float = Field(default=1.0, gt=0, description="sampling: divides the logits")
    top_k: int = Field(default=0, ge=0, description="sampling: keep the k likeliest tokens; 0 keeps all")
    top_p: float = Field(default=1.0, gt=0, le=1, description="sampling: keep the likeliest tokens that hold this probability")
    min_p: float = Field(default=0.0, ge=0, le=1, description="sampling: keep tokens at least this share as likely as the likeliest")
    repetition_penalty: float = Field(
        default=1.0, gt=0, description="divides the scores of tokens that the text already holds (multiplies those below 0); 1 changes none"
    )
    no_repeat_ngram_size: int = Field(default=0, ge=0, description="no run of so many tokens stands in a text twice; 0 forbids none")
    stop: list[str] = Field(default_factory=list, description="texts that end an answer when they are written; not part of it")
    max_length: int = Field(default=256, ge=1, description="longest answer in tokens, its end included")
    seed: int = Field(default=0, ge=0, description="sampling: same seed, same answers")
    batch_tokens: int | None = Field(
        default=None, ge=1, description="padded source tokens decoded together; default 1,024 on a CPU, 16,384 on a GPU"
    )
    language_model: str | None = Field(
        default=None, description="speech: a language model whose score is added, as a run folder or an n-gram file (.arpa, .arpa.gz)"
    )
    language_weight: float = Field(default=0.5, ge=0, description="speech: factor on the language model's log p")
    label_bonus: float = Field(default=0.0, description="speech: added for every label, against the language model's love of brevity")
    hot_words: list[str] = Field(default_factory=list, description="speech: words and phrases to expect")
    hot_word_boost: float = Field(default=2.0, ge=0, description="speech: added for every label of a hot word")
    precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        default="auto", description="type of matrix products; auto is int8 (CPUs only) or bfloat16 where the hardware is fast at it"
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _none_empty(cls, value: list[str]) -> list[str]:
        if "" in value:
            raise ValueError("an empty text would end every answer at once; leave it out")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.hot_words and self.changed("hot_word_boost"):
            raise ValueError("decode.hot_word_boost would be ignored without decode.hot_words; name some, such as decode.hot_words=[Anna]")
        return self

    @property
    def sampling(self) -> bool:
        """Whether tokens are drawn rather than searched for."""
        return self.sample or self.temperature != 1.0 or self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0

    def overlaid(self, given: Mapping[str, Any]) -> Self:
        """Return a validated copy with settings that a person gave laid over.

        Raises:
            ConfigError: one is wrong, or has no effect beside the others.
        """
        options = validate(type(self), merge(self.model_dump(), searching(given)), "decode")
        options.check_given(given)
        return options

    def check_given(self, given: Container[str]) -> None:
        """Raise ConfigError where a setting of a search was given, and answers are drawn."""
        drawing = next((name for name in ("sample", *DRAWING) if self.changed(name)), None)
        if drawing is None:
            return
        why = f"decode.{drawing}={str(getattr(self, drawing)).lower()}, which draws instead of searching"
        if "sample" in given and not self.sample:
            raise ConfigError(f"decode.sample=false contradicts {why}; leave one of them out")
        if "beams" in given and self.beams > 1:
            way_out = "set decode.sample=false" if drawing == "sample" else f"leave out decode.{drawing}"
            raise ConfigError(f"decode.beams={self.beams} would be ignored beside {why}; {way_out} to search, or leave it out to draw")


def searching(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of decoding of which sample=false takes back whatever lies below them and would draw."""
    usual = {name: DecodeConfig.model_fields[name].default for name in DRAWING}
    return {**(usual if given.get("sample") is False else {}), **given}


_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")  # 007 is text, such as the name of a column
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?\Z|[-+]?[0-9]+[eE][-+]?[0-9]+\Z"
    r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
)
_TAG = "tag:yaml.org,2002:"
_RESOLVERS = [  # how a scalar without quotes is read, first match first; anything else is text
    (_TAG + "null", re.compile(r"(?:~|null|Null|NULL|)\Z")),
    (_TAG + "bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
    (_TAG + "int", _INT),
    (_TAG + "float", _FLOAT),
]


class _Loader(yaml.SafeLoader):
    """YAML for settings: the scalars of YAML 1.2, each key once, and neither tags nor aliases."""

    yaml_implicit_resolvers: dict[Any, Any] = {None: _RESOLVERS}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if refusal := _refused_syntax(event):
            raise ComposerError(None, None, refusal, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise ConstructorError(None, None, f"{key.value!r} is given twice; keep one", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def _construct_int(self, node: yaml.ScalarNode) -> int:
        return int(self.construct_scalar(node))

    def _construct_float(self, node: yaml.ScalarNode) -> float:
        return float(self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))

    yaml_constructors: ClassVar[dict[Any, Any]] = {
        **yaml.SafeLoader.yaml_constructors,
        _TAG + "int": _construct_int,
        _TAG + "float": _construct_float,
    }


def _refused_syntax(event: Any) -> str | None:
    if isinstance(event, yaml.AliasEvent):
        return f"alias *{event.anchor}; write the value out instead"
    if getattr(event, "tag", None) is not None:
        return f"tag {event.tag!r}; leave it out, and quote what should be text"
    return None


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML document without running anything from it; raises ConfigError naming `where`."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        known = [getattr(error, part, None) for part in ("context", "problem")]
        problem = ", ".join(part for part in known if part) or " ".join(str(error).split())
        raise ConfigError(f"{where}{line}: cannot be read as YAML settings: {problem}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file whose top level is a mapping; raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a recipe ({error})") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: expected settings as 'name: value' lines at the top level, found {_shown(content)}")
    return content


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or `parse_yaml` would read as something else."""

    yaml_implicit_resolvers: dict[Any, Any] = {**yaml.SafeDumper.yaml_implicit_resolvers, None: _RESOLVERS}  # noqa: RUF012

    def represent_text(self, text: str) -> yaml.ScalarNode:
        broken = re.search("[\n\r\x85\u2028\u2029]", text)  # PyYAML writes some of these so that it reads them as spaces
        return self.represent_scalar(_TAG + "str", text, style='"' if broken else None)

    yaml_representers: ClassVar[dict[Any, Any]] = {**yaml.SafeDumper.yaml_representers, str: represent_text}

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Write settings so that `parse_yaml` and any YAML 1.1 reader read the same values back."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def typed(value: object) -> str:
    """Write a plain value as it is typed in a setting: true and null, not True and None."""
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `["train.lr=1e-3", "seed=2"]` into nested settings; raises ConfigError."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not all(key.split(".")):
            raise ConfigError(f"{pair!r}: expected key=value with a dotted path, such as train.lr=1e-3")
        if not value.strip():
            raise ConfigError(f"{pair!r}: has no value; give one, or write {key}=null for none and {key}='\"\"' for an empty text")
        place = settings
        *groups, name = key.split(".")
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{pair!r}: {group!r} was already given a plain value")
        if isinstance(place.get(name), dict):
            raise ConfigError(f"{pair!r}: settings inside {key!r} were already given")
        place[name] = _override_value(value, pair)
    return settings


def _override_value(value: str, pair: str) -> Any:
    # A path such as data/train.{en,de} or a Windows drive is text, whatever YAML would make of its braces and colons; so is a dash.
    if value.startswith(("[", '"', "'")) or re.fullmatch(r"\{.*\}", value) or re.fullmatch(r"(?![-.]+\Z)[-+.\w]*", value):
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
    found = problem["input"]
    match problem["type"]:
        case "extra_forbidden":
            return "; ".join(_unknown(kind, where, leaf, value) for leaf, value in _leaves(path, found))
        case "missing":
            return f"{path}: is not given, and has no default"
        case "model_type":
            return f"{path}: expected settings inside it, such as {path}.{_siblings(kind, [*location, ''])[0]}, found {_shown(found)}"
        case "value_error" if isinstance(found, Mapping | BaseModel):  # a rule over several settings, which it names itself
            return str(problem["ctx"]["error"])
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    return f"{path}: {message}, found {_shown(found)}"


def _unknown(kind: type[Settings], where: str, path: str, found: Any) -> str:
    near = nearest(path, list(_paths(kind, where)))
    hint = f"did you mean {near}?" if near else f"known here: {', '.join(_siblings(kind, path.removeprefix(where).split('.')))}"
    return f"{path}: unknown setting, found {_shown(found)}; {hint}"


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the full path of every setting inside a value."""
    if not isinstance(value, Mapping) or not value:
        yield path, value
    else:
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}", inner)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | float) else reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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
