"""A model with its task, parts and settings, opened from a run folder, and how it answers."""

import functools
import shlex
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import torch
from torch import Tensor

import heed
from heed.adapters import Adapters, adapted_weights, save_adapters
from heed.config import DecodeConfig, dump_yaml
from heed.data.batch import collate
from heed.data.order import Rows, sequential_batches
from heed.data.parts import load_parts, save_parts
from heed.data.rows import Example
from heed.device import choose_answering_precision, choose_device, side_by_side
from heed.errors import CheckpointError, ConfigError, DataError
from heed.files import replacing
from heed.model.config import ModelConfig
from heed.model.lora import fold, folded, is_adapted
from heed.model.models import Model, build_model
from heed.model.packed import pack
from heed.run.config import RunConfig, read_config
from heed.run.folder import FORMAT, verify, write_manifest
from heed.run.weights import check_sizes, distinct, fill, load_weights, save_weights
from heed.tasks import Answer, Task

if TYPE_CHECKING:
    from heed.tasks.live import LiveSound

BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}  # of a side, answered together
WINDOW = 2048  # inputs held at a time while predicting; sorted by length inside it


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
    @torch.inference_mode(False)  # of a caller: weights made under it could never change
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
        return cls(folder, config, task, model)

    @classmethod
    @torch.inference_mode(False)
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
    @torch.inference_mode(False)
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

    def decoding(self, given: Mapping[str, Any], below: DecodeConfig | None = None) -> DecodeConfig:
        """Return settings of decoding that were given, laid over others (by default the run's own).

        Raises:
            ConfigError: one is wrong, or would be ignored by the task or beside the others.
        """
        options = (below or self.config.decode).overlaid(given)
        self.task.check_decoding(options, given)
        return options

    @overload
    def predict(self, inputs: Example, **options: Any) -> Answer: ...

    @overload
    def predict(self, inputs: Sequence[Example], **options: Any) -> list[Answer]: ...

    def predict(self, inputs: Example | Sequence[Example], **options: Any) -> Answer | list[Answer]:
        """Answer one example or several; options are those of the decode settings, such as beams=1."""
        decode = self.decoding(options)
        if isinstance(inputs, Mapping | str):  # a text is refused as a whole, not letter by letter
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
        return self.streamed(example, self.decoding(options))

    def streamed(self, example: Example, options: DecodeConfig) -> Generator[str, None, Answer]:
        """Do what `stream` does, with all the settings of decoding."""
        self.task.lend(self._language_model(options.language_model))
        self._check_input(example, 1)
        encoded = self.task.encode_all([example])
        self._check_lengths(encoded, 1)
        model = self._answering_model(choose_answering_precision(options.precision, self.device))
        batch = collate(encoded).to(self.device)

        @torch.inference_mode()
        def pieces() -> Generator[str, None, Answer]:
            return (yield from self.task.stream(model, batch, options))

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
        self._check_mapping(example, number)
        for key, kind in self.task.wanted.items():
            if key not in example:
                found = ", ".join(map(repr, example)) or "nothing"
                raise DataError(f"input {number}: has no {key!r} ({kind}); found {found}{self._hint()}")
            if kind == "audio" and not isinstance(example[key], str | Path | bytes | bytearray | memoryview | np.ndarray):
                found = type(example[key]).__name__
                raise DataError(f"input {number}: {key!r} should be a path, bytes or samples (with their sample_rate), found {found}")
            if kind == "words" and not _is_words(example[key]):
                raise DataError(f"input {number}: {key!r} should be a text or a list of words, found {type(example[key]).__name__}")
            if kind == "text" and not isinstance(example[key], str):
                raise DataError(f"input {number}: {key!r} should be text, found {type(example[key]).__name__}")
        why_not = self.task.unanswerable(example)
        if why_not is not None:
            raise DataError(f"input {number}: {why_not}")

    def _check_mapping(self, example: object, number: int) -> None:
        if not isinstance(example, Mapping):
            wanted = ", ".join(f"{key!r}: ..." for key in self.task.wanted)
            raise DataError(f"input {number}: expected a mapping such as {{{wanted}}}, found {example!r:.60}")

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
