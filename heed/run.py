"""The run folder: everything a trained model is, in one place that can be copied anywhere. Nothing in it is ever executed."""

import functools
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import Field, model_validator
from torch import Tensor

import heed
from heed.config import DataConfig, DecodeConfig, Settings, TrainConfig, dump_yaml, find_recipe, merge, read_yaml, recipe_folder, validate
from heed.data.batch import collate
from heed.data.order import Rows, sequential_batches
from heed.data.parts import load_parts, save_parts
from heed.data.read import Example
from heed.device import choose_answering_precision, choose_device, side_by_side
from heed.errors import CheckpointError, ConfigError, DataError
from heed.files import held, parse_json, replacing, sha256
from heed.model.config import ModelConfig
from heed.model.models import Encoder, Model, Seq2Seq, build_model
from heed.model.packed import pack
from heed.tasks import TASKS, Answer, Task, find_task

if TYPE_CHECKING:
    from heed.tasks.live import LiveSound

FORMAT = 2  # of the run folder; 1 turned other pairs of features by rotary positions
MOST_TIMES_STORED = 4  # the numbers of a file of weights: what a config may ask for before its shapes are compared
LOSS_METRICS = ("loss", "accuracy", "perplexity")  # what validating yields without generating answers
BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # of a side, answered together
WINDOW = 2048  # inputs held at a time while predicting; sorted by length inside it


class RunConfig(Settings):
    """Every setting of a run."""

    seed: int = Field(default=1, ge=0, description="governs weights, order, dropout and the split of validation data")
    task: dict[str, Any] = Field(description="name of the task, and its own settings")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    decode: DecodeConfig = DecodeConfig()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.model.positions == "learned" and self.data.max_length > self.model.max_length:
            raise ValueError(
                f"data.max_length={self.data.max_length} is more than model.max_length={self.model.max_length}, the longest sequence "
                f"that learned positions know; lower the one or raise the other"
            )
        return self

    def build_task(self, *, trust: bool = True) -> Task:
        """Return the task without its parts; raises ConfigError when its settings are wrong."""
        kind = find_task(str(self.task.get("name")), trust=trust)
        settings = validate(kind.settings, {key: value for key, value in self.task.items() if key != "name"}, "task")
        return kind(settings, label_smoothing=self.train.label_smoothing, max_length=self.data.max_length)


def resolve(
    recipe: str | Mapping[str, Any], overrides: Mapping[str, Any] | None = None, *, base: Mapping[str, Any] | None = None
) -> RunConfig:
    """Lay overrides over a recipe (a YAML file, the name of one that ships, or plain values) and write out every setting.

    Args:
        base: what holds where neither says anything, instead of the defaults.
    Raises:
        ConfigError: no such recipe, or a setting that is unknown, of the wrong type, or does not fit another.
    """
    content = merge(merge(base or {}, _recipe_content(recipe)), _task_mapping(overrides or {}))
    content = merge(_task_class(content).usual(content["task"]), content)
    config = validate(RunConfig, content)
    task = config.build_task()
    return config.replace(task={"name": config.task["name"], **task.config.model_dump()})


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
        load_weights(run.model, folder / "model.safetensors")
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
        save_weights(self.model, self.folder / "model.safetensors")
        write_manifest(self.folder)

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

    def live(self, options: DecodeConfig, *, rate: int | None = None) -> "LiveSound":
        """Begin to follow a stream of sound of so many samples a second (default: the run's); raises ConfigError for other tasks."""
        from heed.tasks.live import LiveRecognizer, LiveSound
        from heed.tasks.speech_recognition import SpeechRecognition

        if not isinstance(self.task, SpeechRecognition):
            raise ConfigError(f"{self.folder}: a {self.task.name} run hears nothing; a stream needs one of speech_recognition")
        self.task.lend(self._language_model(options.language_model))
        model = self._answering_model(choose_answering_precision(options.precision, self.device))
        assert isinstance(model, Encoder | Seq2Seq)
        return LiveSound(LiveRecognizer(self.task, model, options), rate)

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
                if other.task.name != "text_generation":
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
                raise DataError(f"input {number}: {key!r} should be a path, bytes or an array of samples, found {found}")
            if kind == "text" and not isinstance(example[key], str):
                raise DataError(f"input {number}: {key!r} should be text, found {type(example[key]).__name__}")

    def _hint(self) -> str:
        """Say how several inputs stand in one line, where a task has several."""
        names = list(self.task.wanted)
        return f"; in a line of text, a tab stands between {' and '.join(names)}" if len(names) > 1 else ""

    def _check_lengths(self, encoded: Sequence[Mapping[str, Tensor]], first: int) -> None:
        limit = self.config.model.max_length
        if self.config.model.positions != "learned":
            return
        for number, one in enumerate(encoded, start=first):
            longest = self.task.n_places(one)
            if longest > limit:
                raise DataError(f"input {number}: {longest} tokens, but this model takes at most {limit}; split it into shorter pieces")


def _sizes(model: ModelConfig) -> str:
    return f"vocab_size={model.vocab_size}, source_vocab_size={model.source_vocab_size}, n_classes={model.n_classes}"


def read_config(folder: Path) -> RunConfig:
    """Read config.yaml of a run folder; raises CheckpointError or ConfigError."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise CheckpointError(f"{folder}: not a run folder (no config.yaml); expected what heed train --to wrote")
    content = read_yaml(path)
    if content.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path}: expected format {FORMAT}; this run was written by another version of heed")
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
    stored = sum(math.prod(shape) for shape in shapes.values())
    if _least_size(config) > MOST_TIMES_STORED * stored:
        raise CheckpointError(
            f"{path}: the weights do not fit config.yaml: it holds {stored:,} numbers, expected at least {_least_size(config):,}; "
            "restore the folder from a copy"
        )


def _least_size(config: ModelConfig) -> int:
    """Return how many numbers a model of this config has at least: all but biases, norms and what is small beside the rest."""
    blocks = (config.n_layers + (config.n_document_layers if config.hierarchical else 0)) * _size_of_block(config, config.mixer)
    blocks += config.decoder_layers * _size_of_block(config, "attention") if config.architecture == "seq2seq" else 0
    reads_tokens = config.n_features is None
    n_words = (config.vocab_size or 0) if reads_tokens or config.ctc or config.architecture == "seq2seq" else 0
    n_rows = (config.source_vocab_size or 0) + (config.n_classes or 0) + (config.max_length if config.positions == "learned" else 0)
    n_rows += 0 if config.n_features is None else -(-config.n_features // config.subsampling)
    return blocks + config.d_model * n_rows + (config.d_embedding or config.d_model) * n_words


def _size_of_block(config: ModelConfig, mixer: str) -> int:
    D, d_kv = config.d_model, config.kv_heads * config.d_head
    of_mixers = {"lstm": 6, "convolution": 2 * config.kernel_size, "hybrid": config.kernel_size, "conformer": 3}
    near = of_mixers.get(mixer, 0) * D * D
    if mixer in ("convolution", "lstm"):
        return near
    shapes = [(D, D), (D, D), (D, d_kv), (D, d_kv), (D, config.d_ff), (D, config.d_ff)]
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
    expected = distinct(model)
    _check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, expected, path)
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])


def write_manifest(folder: Path) -> None:
    """Write the SHA-256 of every file that answering needs."""
    hashes = {str(path.relative_to(folder)): sha256(path) for path in _bound_files(folder)}
    with replacing(folder / "manifest.json") as draft:
        draft.write_text(json.dumps({"format": FORMAT, "sha256": hashes}, indent=1), encoding="utf-8")


def _bound_files(folder: Path) -> list[Path]:
    return [folder / "config.yaml", *sorted((folder / "parts").glob("*.json")), folder / "model.safetensors"]


def verify(folder: Path) -> None:
    """Check every file of a run folder against manifest.json; raises CheckpointError naming the first that differs."""
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(f"{folder}: not a run folder (no config.yaml); expected what heed train --to wrote")
    manifest = folder / "manifest.json"
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
    if not force:
        raise ConfigError(f"{folder}: exists already and is never overwritten; choose another --to, or say --force to replace it")
    if not (folder / "config.yaml").is_file():
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
