"""The run folder: everything a trained model is, in one place that can be copied anywhere. Nothing in it is ever executed."""

import functools
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, overload

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import Field, model_validator
from torch import Tensor

import heed
from heed.adapters import DESCRIPTION, NUMBERS, Adapters, adapted_weights, save_adapters
from heed.config import (
    DataConfig,
    DecodeConfig,
    LoraConfig,
    Settings,
    TrainConfig,
    dump_yaml,
    find_recipe,
    merge,
    read_yaml,
    recipe_folder,
    validate,
)
from heed.data.batch import collate
from heed.data.order import Rows, sequential_batches
from heed.data.parts import load_parts, save_parts
from heed.data.read import Example
from heed.device import choose_answering_precision, choose_device, side_by_side
from heed.errors import CheckpointError, ConfigError, DataError
from heed.files import held, parse_json, replacing, sha256
from heed.model.config import ModelConfig, of_chosen_kinds
from heed.model.lora import fold, folded, is_adapted
from heed.model.models import Model, build_model
from heed.model.packed import pack
from heed.tasks import TASKS, Answer, Task, find_task
from heed.tasks.inheritance import check_cutting, check_stack, taken_settings

if TYPE_CHECKING:
    from heed.tasks.live import LiveSound

FORMAT = 2  # of the run folder; 1 turned other pairs of features by rotary positions
MOST_TIMES_APPLIED = 1000  # one block of a stack that shares it
MOST_TIMES_STORED = 4  # the numbers of a file of weights: what a config may ask for before its shapes are compared
LOSS_METRICS = ("loss", "accuracy", "perplexity")  # what validating yields without generating answers
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # of a side, answered together
WINDOW = 2048  # inputs held at a time while predicting; sorted by length inside it


class RunConfig(Settings):
    """Every setting of a run."""

    seed: int = Field(default=1, ge=0, description="governs weights, order, dropout and the split of validation data")
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
    layers = [dict(base or {}), _recipe_content(recipe), _task_mapping(overrides or {})]
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
    return config.replace(task={"name": config.task["name"], **task.config.model_dump()})


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
        return _Origin(taken_settings(kind, task, other.model), other.model)
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
        return _task_mapping({key: value for key, value in recipe.items() if key != "search"})
    path = find_recipe(recipe)
    if path is not None:
        content = read_yaml(path)
        content.pop("search", None)  # for `heed tune`
        if "format" in content:  # config.yaml of a run: how it came about is not a setting
            content = {key: value for key, value in content.items() if key in RunConfig.model_fields}
            content["model"] = of_chosen_kinds(content.get("model", {}))
        return _task_mapping(content)
    if ":" in recipe and not recipe.endswith((".yaml", ".yml")):
        return {"task": {"name": recipe}}
    shipped = sorted(file.stem for file in recipe_folder().glob("*.yaml"))
    raise ConfigError(f"{recipe}: no such recipe file, and not one that ships ({', '.join(shipped)})")


def _task_mapping(content: Mapping[str, Any]) -> dict[str, Any]:
    """Allow `task: translation` for `task: {name: translation}`."""
    content = dict(content)
    if isinstance(content.get("task"), str):
        content["task"] = {"name": content["task"]}
    return content


@dataclass
class Run:
    """A model with its task, parts and settings."""

    folder: Path
    config: RunConfig
    task: Task
    model: Model
    _packed: tuple[tuple[torch.dtype, torch.device, int], Model] | None = field(default=None, repr=False)
    _lent: tuple[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def create(cls, folder: Path, config: RunConfig, task: Task, *, about: Mapping[str, Any]) -> Self:
        """Write config.yaml and the parts, and build the model with fresh weights; the task must be prepared.

        Args:
            about: what else to remember: hashes of the data, versions.
        """
        config = config.replace(model=task.shape(config.model), task={"name": config.task["name"], **task.config.model_dump()})
        folder.mkdir(parents=True, exist_ok=True)
        save_parts(folder / "parts", task.parts)
        command = " ".join(["heed", *map(shlex.quote, sys.argv[1:])])
        content = {"format": FORMAT, "heed": heed.__version__, "command": command, **about, **config.model_dump()}
        with replacing(folder / "config.yaml") as draft:
            draft.write_text(dump_yaml(content), encoding="utf-8")
        torch.manual_seed(config.seed)
        model = build_model(config.model)
        task.start(model)
        return cls(folder, config, task, model)

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto", trust: bool = False) -> Self:
        """Open a run folder and check every file against its manifest.

        Raises:
            CheckpointError: the folder is missing, not whole, or was changed.
        """
        folder = Path(folder)
        verify(folder)
        check_sizes(read_config(folder).model, folder / "model.safetensors")
        run = cls.open(folder, trust=trust)
        run.restore()
        run.model.to(choose_device(device)).eval()
        return run

    @classmethod
    def open(cls, folder: Path, *, trust: bool = False) -> Self:
        """Build the model of a run folder with fresh weights, for training that goes on."""
        config = read_config(folder)
        task = config.build_task(trust=trust)
        task.parts = load_parts(folder / "parts")
        try:
            shaped = task.shape(config.model)
        except KeyError as error:
            raise CheckpointError(f"{folder / 'parts'}: has no {error.args[0]}.json; restore the folder from a copy") from error
        if shaped != config.model:
            raise CheckpointError(
                f"{folder}: the vocabulary does not fit the model: by parts/ it is {_sizes(shaped)}, by config.yaml "
                f"{_sizes(config.model)}; restore the folder from a copy"
            )
        torch.manual_seed(config.seed)
        return cls(folder, config, task, build_model(config.model))

    def save(self) -> None:
        """Write the weights and bind every file together in manifest.json."""
        if self._keeps_adapters:
            save_adapters(self.model, distinct(self.model), self.folder, new=Adapters.read(self.folder).new)
        else:
            save_weights(folded(self.model), self.folder / "model.safetensors")
        write_manifest(self.folder)

    def restore(self) -> None:
        """Fill the model with the weights of the folder; raises CheckpointError."""
        path = self.folder / "model.safetensors"
        if not self._keeps_adapters:
            load_weights(self.model, path)
            return
        if not is_adapted(self.model):
            self.adapt(Adapters.read(self.folder))
        expected = distinct(self.model)
        found = adapted_weights(expected, self.folder)
        fill(expected, found, path)

    def adapt(self, adapters: Adapters) -> None:
        """Freeze the weights and put adapters beside them."""
        adapters.put_into(self.model)
        self.__dict__.pop("_parameters", None)

    def fold(self) -> None:
        """Add adapters to the weights, unless the settings keep them apart."""
        if not self._keeps_adapters:
            fold(self.model)
            self.__dict__.pop("_parameters", None)

    @property
    def _keeps_adapters(self) -> bool:
        return self.config.lora.rank > 0 and not self.config.lora.merge

    def save_parts(self) -> None:
        """Write the parts again, after one of them was fitted anew."""
        save_parts(self.folder / "parts", self.task.parts)
        write_manifest(self.folder)

    @functools.cached_property
    def _parameters(self) -> list[torch.nn.Parameter]:
        return list(self.model.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._parameters[0].device

    @overload
    def predict(self, inputs: Example, **options: Any) -> Answer: ...

    @overload
    def predict(self, inputs: Sequence[Example], **options: Any) -> list[Answer]: ...

    def predict(self, inputs: Example | Sequence[Example], **options: Any) -> Answer | list[Answer]:
        """Answer one example or several; options are those of the decode settings, such as beams=1."""
        decode = validate(DecodeConfig, merge(self.config.decode.model_dump(), options), "decode")
        if isinstance(inputs, Mapping):
            return next(self.answers([inputs], decode))
        return list(self.answers(inputs, decode))

    def answers(self, examples: Iterable[Example], options: DecodeConfig, *, at_once: int | None = None) -> Iterator[Answer]:
        """Answer a stream of examples in its order, holding a window of it at a time and batching it by length."""
        self.task.lend(self._language_model(options.language_model))
        at_once = at_once or self.window
        stream = iter(examples)
        first = 1
        while window := list(islice(stream, at_once)):
            yield from self._answer_window(window, first, options)
            first += len(window)

    def stream(self, example: Example, **options: Any) -> Generator[str, None, Answer]:
        """Yield the text of the answer to one example as it is written, as far as the task can; the generator returns the whole answer.

        Args:
            options: as for `predict`.
        Raises:
            HeedError: at once, a setting or the example is at fault; with the first piece, these options give no text until the end.
        """
        decode = validate(DecodeConfig, merge(self.config.decode.model_dump(), options), "decode")
        self.task.lend(self._language_model(decode.language_model))
        self._check_input(example, 1)
        encoded = self.task.encode_all([example])
        self._check_lengths(encoded, 1)
        model = self._answering_model(choose_answering_precision(decode.precision, self.device))
        batch = collate(encoded).to(self.device)

        @torch.inference_mode()
        def pieces() -> Generator[str, None, Answer]:
            return (yield from self.task.stream(model, batch, decode))

        return pieces()

    def live(self, options: DecodeConfig, *, rate: int | None = None) -> "LiveSound":
        """Begin to follow a stream of sound of so many samples a second (default: the run's); raises ConfigError for other tasks."""
        self.task.lend(self._language_model(options.language_model))
        return self.task.live(self._answering_model(choose_answering_precision(options.precision, self.device)), options, rate)

    @property
    def window(self) -> int:
        """Examples held in memory at a time."""
        return min(WINDOW, self.task.window or WINDOW)

    def _language_model(self, source: str | None) -> Any:
        """Return the language model that a setting names: an n-gram model in ARPA's form, or a run of heed; loaded once."""
        if source is None:
            return None
        if self._lent is None or self._lent[0] != source:
            from heed.data.ngrams import Ngrams  # which only those need who name a language model
            from heed.tasks.listening import LanguageModel

            if source.removesuffix(".gz").endswith(".arpa"):
                self._lent = source, Ngrams.from_arpa(Path(source))
            else:
                other = Run.load(source, device=str(self.device))
                if not other.task.continues:
                    raise ConfigError(f"decode.language_model={source}: is a {other.task.name} run, expected one of text_generation")
                self._lent = source, LanguageModel(other.task, other._answering_model(torch.float32))
        return self._lent[1]

    def _answer_window(self, window: Sequence[Example], first: int, options: DecodeConfig) -> list[Answer]:
        """Answer a window whose first example is number `first` of the stream."""
        for number, example in enumerate(window, start=first):
            self._check_input(example, number)
        encoded = self.task.encode_all(window)
        self._check_lengths(encoded, first)
        lengths = torch.tensor([[value.size(0) for value in one.values() if value.dim()] or [1] for one in encoded]).int().numpy()
        model = self._answering_model(choose_answering_precision(options.precision, self.device))

        @torch.inference_mode()
        def answer(rows: Rows) -> list[Answer]:
            return self.task.predict(model, collate([encoded[row] for row in rows]).to(self.device), options)

        division = sequential_batches(lengths, options.batch_tokens or BATCH_TOKENS[self.device.type])
        at_once = self.device.type == "cpu" and len(division) > 1 and torch.get_num_threads() > 1
        found = side_by_side(answer, division) if at_once else [answer(rows) for rows in division]
        by_row = dict(zip(np.concatenate([*division, []]).tolist(), chain.from_iterable(found), strict=True))
        return [by_row[row] for row in range(len(window))]

    def _answering_model(self, precision: torch.dtype) -> Model:
        """Return the model packed for answering with its weights as they are now."""
        versions = sum(parameter._version for parameter in self._parameters)  # counts the changes made to the weights
        key = (precision, self.device, versions)
        packed = self._packed  # held, because another thread may put another in its place
        if packed is None or packed[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                self._packed = packed = key, pack(self.model, precision)
        return packed[1]

    def _check_input(self, example: Example, number: int) -> None:
        for key, kind in self.task.wanted.items():
            if key not in example:
                found = ", ".join(map(repr, example)) or "nothing"
                raise DataError(f"input {number}: has no {key!r} ({kind}); found {found}{self._hint()}")
            if kind == "audio" and not isinstance(example[key], str | Path | bytes | np.ndarray):
                found = type(example[key]).__name__
                raise DataError(f"input {number}: {key!r} should be a path, bytes or samples (with their sample_rate), found {found}")
            if kind == "words" and not _is_words(example[key]):
                raise DataError(f"input {number}: {key!r} should be a text or a list of words, found {type(example[key]).__name__}")
            if kind == "text" and not isinstance(example[key], str):
                raise DataError(f"input {number}: {key!r} should be text, found {type(example[key]).__name__}")
        why_not = self.task.unanswerable(example)
        if why_not is not None:
            raise DataError(f"input {number}: {why_not}")

    def _hint(self) -> str:
        """Say how several inputs stand in one line, where a task has several."""
        names = list(self.task.wanted)
        return f"; in a line of text, a tab stands between {' and '.join(names)}" if len(names) > 1 else ""

    def _check_lengths(self, encoded: Sequence[Mapping[str, Tensor]], first: int) -> None:
        limit = self.config.model.source_length
        if self.config.model.positions != "learned":
            return
        for number, one in enumerate(encoded, start=first):
            longest = self.task.n_places(one)
            if longest > limit:
                raise DataError(f"input {number}: {longest} tokens, but this model takes at most {limit}; split it into shorter pieces")


def _is_words(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(word, str) for word in value))


def _sizes(model: ModelConfig) -> str:
    return f"vocab_size={model.vocab_size}, source_vocab_size={model.source_vocab_size}, n_classes={model.n_classes}"


def _no_run(folder: Path) -> CheckpointError:
    """Return the error about a folder that is no run."""
    foreign = (folder / "config.json").is_file()
    hint = f"make a run of it first: heed import {folder} --to RUN" if foreign else "expected what heed train --to wrote"
    return CheckpointError(f"{folder}: not a run folder (no config.yaml); {hint}")


def read_config(folder: Path) -> RunConfig:
    """Read config.yaml of a run folder; raises CheckpointError or ConfigError."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise _no_run(folder)
    content = read_yaml(path)
    if content.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}; this run was written by another version of heed")
    if isinstance(content.get("model"), dict):  # runs of earlier versions may hold settings that nothing read
        content["model"] = of_chosen_kinds(content["model"])
    return validate(RunConfig, {key: value for key, value in content.items() if key in RunConfig.model_fields})


def save_weights(model: torch.nn.Module, path: Path) -> None:
    """Write a model's weights; a tensor with several names is stored once."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in distinct(model).items()}
    with replacing(path) as draft:
        safetensors.torch.save_file(tensors, draft)


def distinct(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return a model's tensors by the first name each has."""
    by_identity: dict[int, str] = {}
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if by_identity.setdefault(id(tensor), name) == name}


def check_sizes(config: ModelConfig, path: Path) -> None:
    """Refuse a config whose model is much larger than a file of weights, before memory is taken for either; loading then compares shapes.

    Raises:
        CheckpointError: it is, or the file is shorter than it says.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); restore it from a copy") from error
    check_stored(config, sum(math.prod(shape) for shape in shapes.values()), f"{path}: the weights do not fit config.yaml")


def check_stored(config: ModelConfig, stored: int, complaint: str) -> None:
    """Raise CheckpointError, which begins with the complaint, for a config whose model is much larger than the numbers stored for it."""
    if _least_size(config) > MOST_TIMES_STORED * stored:
        raise CheckpointError(
            f"{complaint}: there are {stored:,} numbers, expected at least {_least_size(config):,}; restore the folder from a copy"
        )


def _least_size(config: ModelConfig) -> int:
    """Return how many numbers a model of this config has at least: all but biases, norms and what is small beside the rest."""
    stacks = [config.n_layers, *([config.n_document_layers] if config.hierarchical else [])]
    blocks = sum(_n_stored(config, n_layers) for n_layers in stacks) * _size_of_block(config, config.mixer)
    n_decoder = _n_stored(config, config.decoder_layers) if config.architecture == "seq2seq" else 0
    blocks += n_decoder * _size_of_block(config, "attention")
    reads_tokens = config.n_features is None
    n_words = (config.vocab_size or 0) if reads_tokens or config.ctc or config.architecture == "seq2seq" else 0
    n_rows = (config.source_vocab_size or 0) + (config.n_classes or 0) + (config.n_tags or 0) + (config.n_segments or 0)
    n_rows += config.first_position + config.max_length + (config.max_source_length or 0) if config.positions == "learned" else 0
    n_rows += 0 if config.n_features is None else -(-config.n_features // config.subsampling)
    n_grams = config.n_gram_rows * (config.n_classes or 0) if config.n_grams else 0
    return blocks + config.d_model * n_rows + (config.d_embedding or config.d_model) * n_words + n_grams


def _n_stored(config: ModelConfig, n_layers: int) -> int:
    """Return how many blocks of a stack are stored; so many that one could not be applied as often are counted."""
    return 1 if config.share_layers and n_layers <= MOST_TIMES_APPLIED else n_layers


def _size_of_block(config: ModelConfig, mixer: str) -> int:
    D, d_query, d_kv = config.d_model, config.n_heads * config.d_head, config.kv_heads * config.d_head
    of_mixers = {"lstm": 6, "convolution": 2 * config.kernel_size, "hybrid": config.kernel_size, "conformer": 3}
    near = of_mixers.get(mixer, 0) * D * D
    if mixer in ("convolution", "lstm"):
        return near
    shapes = [(D, d_query), (D, d_query), (D, d_kv), (D, d_kv), (D, config.d_ff), (D, config.d_ff)]
    thin = [n * m if config.weight_rank is None else min(n * m, config.weight_rank * (n + m)) for n, m in shapes]
    return near + sum(thin)


def _check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], path: Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    wrong = sorted(found.keys() ^ wanted.keys()) or [name for name, shape in wanted.items() if found[name] != shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path}: the weights do not fit config.yaml: {name} is {found.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}"
        )


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Fill a model from a file that must hold exactly its tensors; raises CheckpointError."""
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); restore it from a copy") from error
    fill(distinct(model), tensors, path)


def fill(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    """Copy the tensors of a file into those of a model, which must be the same by name and shape; raises CheckpointError."""
    _check_shapes({name: tuple(tensor.shape) for name, tensor in found.items()}, expected, path)
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(found[name])


def write_manifest(folder: Path) -> None:
    """Write the SHA-256 of every file that answering needs."""
    hashes = {str(path.relative_to(folder)): sha256(path) for path in _bound_files(folder)}
    with replacing(folder / "manifest.json") as draft:
        draft.write_text(json.dumps({"format": FORMAT, "sha256": hashes}, indent=1), encoding="utf-8")


def _bound_files(folder: Path) -> list[Path]:
    adapters = [path for name in (DESCRIPTION, NUMBERS) if (path := folder / name).is_file()]
    return [folder / "config.yaml", *sorted((folder / "parts").glob("*.json")), folder / "model.safetensors", *adapters]


def verify(folder: Path) -> None:
    """Check every file of a run folder against manifest.json; raises CheckpointError naming the first that differs."""
    if not (folder / "config.yaml").is_file():
        raise _no_run(folder)
    manifest = folder / "manifest.json"
    if (folder / NUMBERS).is_file() and not (folder / "model.safetensors").is_file():
        raise CheckpointError(f"{folder}: holds adapters and no weights; make a run of them: heed import {folder} --base OTHER --to RUN")
    if not manifest.is_file():
        raise CheckpointError(
            f"{folder}: training has not written its first weights yet (no manifest.json); try heed train --resume {folder}"
        )
    try:
        content = parse_json(manifest.read_text(encoding="utf-8"))
        hashes, version = dict(content["sha256"]), content["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{manifest}: cannot be read ({error!r}); restore it from a copy") from error
    if version != FORMAT:
        raise CheckpointError(f"{manifest}: expected format {FORMAT}, found {version!r}; restore it from a copy")
    for path in (folder / "parts", manifest, *_bound_files(folder)):
        if path.is_symlink():
            raise CheckpointError(f"{path}: is a symbolic link, which may lead anywhere; put the file itself there")
    present = {str(path.relative_to(folder)) for path in _bound_files(folder)}
    if set(hashes) != present:
        raise CheckpointError(f"{folder}: manifest.json lists {sorted(hashes)}, the folder has {sorted(present)}; restore it from a copy")
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            raise CheckpointError(
                f"{path}: was changed or damaged after training (its SHA-256 differs from manifest.json); restore it from a copy"
            )


def _is_replaceable(folder: Path, *, force: bool) -> bool:
    """Return whether a run is there that may go; raises ConfigError when what is there has to stay."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    is_run = (folder / "config.yaml").is_file()
    if not force:
        way_out = ", or say --force to replace it" if is_run else ""
        raise ConfigError(f"{folder}: exists already and is never overwritten; choose another --to{way_out}")
    if not is_run:
        raise ConfigError(f"{folder}: is not a run folder, so --force does not delete it; choose another --to")
    return True


@contextmanager
def new_folder(folder: Path, *, force: bool) -> Iterator[Callable[[], None]]:
    """Make an empty folder for a run, and yield what to call when it is worth keeping.

    An error before that call removes the folder and brings back the run it was to replace.

    Raises:
        ConfigError: something is there already and may not go, or no folder can be made there.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.replaced") if _is_replaceable(folder, force=force) else None
    if aside is not None:
        with held(folder):  # a run that is being trained is not pulled away from under its process
            os.replace(folder, aside)
    kept = False

    def keep() -> None:
        nonlocal kept
        kept = True
        if aside is not None:
            shutil.rmtree(aside)

    try:
        _make(folder)
        yield keep
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
            if aside is not None:
                os.replace(aside, folder)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: no folder can be made there ({error.strerror}); choose another --to") from error
