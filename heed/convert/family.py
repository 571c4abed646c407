"""What an importer has to know of a family of models (BERT, GPT-2 ...), and nothing else does.

A family is one class with four answers, two of which are read both ways:

* `settings`: config.json -> groups of heed's settings, of which "model" is all that decides what is computed; anything in config.json that
  heed cannot compute is refused there by name and value (`folder.Settings.only`, `.one_of`);
* `config`: ModelConfig -> config.json. Exporting checks it by going back through `settings`: the first field of the run's model that does
  not come back is refused by name, so that a family never has to list what it cannot hold;
* `entries`: the table of names (`table.Entry`), which importing reads from left to right and exporting from right to left;
* `specials`: which foreign ids are padding, begin, end and unknown, and what stands around texts.

`adopt` (which parts the task gets) and `write_parts` (the files beside the weights) have answers that fit families with one tokenizer.
A new family is one file with one class and one line in `families.py`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from heed.convert.folder import Folder, Settings, Weights
from heed.convert.table import Entry, VocabularyRows
from heed.convert.tokens import Builder, Tokens, read_tokens
from heed.convert.writing import write_tokenizer
from heed.data.foreign import ForeignTokenizer, Frame
from heed.data.parts import Part
from heed.data.pieces import PieceTokenizer
from heed.data.text import Tokenizer
from heed.errors import ConfigError
from heed.model.config import ModelConfig
from heed.run import RunConfig
from heed.tasks.base import Task

Groups = dict[str, dict[str, Any]]  # groups of heed's settings, such as {"model": {"d_model": 768 ...}, "data": {...}}


class Family(ABC):
    """One architecture of another maker.

    Class attributes:
        model_type: what config.json calls it.
        classes: names of its classes -> heed's task; the first of a task is what a run of it is exported as.
        prefix: what stands before the names of the body, where there is a head; a file without is read as if it had it.
        bare: classes whose files have no prefix, for exporting.
        buffers: names, by their ends, of tensors that are no weights (tables that code computes again).
        builders: what makes a pipeline of older files where there is no tokenizer.json.
    """

    model_type: ClassVar[str]
    classes: ClassVar[Mapping[str, str]]
    prefix: ClassVar[str] = ""
    bare: ClassVar[frozenset[str]] = frozenset()
    buffers: ClassVar[tuple[str, ...]] = ()
    builders: ClassVar[tuple[Builder, ...]] = ()

    def class_for(self, task: str) -> str:
        """Return the class that holds runs of a task; raises ConfigError where none does."""
        found = next((name for name, known in self.classes.items() if known == task), None)
        if found is None:
            raise ConfigError(
                f"{self.model_type}: has no class for the task {task}; it has {', '.join(sorted(set(self.classes.values())))}"
            )
        return found

    @abstractmethod
    def settings(self, theirs: Settings, kind: str) -> Groups:
        """Return heed's settings from config.json.

        Args:
            kind: the class, one of `classes`.
        Returns:
            "model" without the sizes that the task derives; "data", "decode" and "task" where they say something.
        Raises:
            ConfigError: config.json asks for what heed cannot compute.
        """

    def refined(self, groups: Groups, folder: Folder, weights: Weights) -> Groups:
        """Return what `settings` found, with what other files of a folder say, or the weights themselves."""
        return groups

    @abstractmethod
    def config(self, config: RunConfig, task: Task, kind: str) -> dict[str, Any]:
        """Return config.json for a run, without `architectures`, `model_type` and the type of the numbers."""

    @abstractmethod
    def entries(self, model: ModelConfig, task: Task, kind: str) -> list[Entry]:
        """Return the table of names for a model, heads of its class included."""

    @abstractmethod
    def specials(self, theirs: Settings, tokens: Tokens) -> tuple[list[int | None], Frame]:
        """Return the foreign ids of padding, begin, end and unknown (None for none), and what stands around texts.

        The mask of the frame is a foreign id here.
        """

    def tokenizer(self, folder: Folder) -> ForeignTokenizer:
        """Return the tokenizer of a folder."""
        tokens = read_tokens(folder, *self.builders)
        specials, frame = self.specials(folder.settings, tokens)
        return tokens.build(specials, folder.settings.whole("vocab_size"), frame)

    def adopt(self, folder: Folder, task: Task) -> None:
        """Give a task its parts, from the folder's tokenizer and the labels of config.json."""
        task.adopt({"tokenizer": self.tokenizer(folder)}, labels_of(folder.settings))

    def generation(self, task: Task, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return generation_config.json for a run, given that of the model it came from."""
        return given

    def write_parts(self, task: Task, to: Path) -> None:
        """Write the files of the tokenizer."""
        write_tokenizer(task.parts["tokenizer"], to)


def labels_of(theirs: Settings) -> list[str]:
    """Return the labels of a head for classes or tags, in the order of their numbers."""
    named = theirs.get("id2label", {})
    if not isinstance(named, dict) or sorted(map(str, named)) != sorted(map(str, range(len(named)))):
        raise ConfigError(f"{theirs.where}: id2label={named!r}, expected a name for each number from 0")
    labels = [str({str(number): name for number, name in named.items()}[str(i)]) for i in range(len(named))]
    twice = next((name for name, n in Counter(labels).items() if n > 1), None)
    if twice is not None:
        raise ConfigError(
            f"{theirs.where}: id2label has {twice!r} {labels.count(twice)} times, expected labels that differ; rename them there"
        )
    if named:
        return labels
    return [f"LABEL_{i}" for i in range(theirs.whole("num_labels", 2))]  # what transformers calls them


def label_settings(labels: Sequence[str]) -> dict[str, Any]:
    """Return what config.json says of labels."""
    return {"id2label": {str(i): name for i, name in enumerate(labels)}, "label2id": {name: i for i, name in enumerate(labels)}}


def ids_of(part: Part) -> list[int | None]:
    """Return the foreign id of each heed id; those of heed's own tokenizers are their own."""
    if isinstance(part, ForeignTokenizer | PieceTokenizer):
        return part.ids
    if isinstance(part, Tokenizer):
        return list(range(part.vocab_size))
    raise ConfigError(f"a vocabulary of the kind {part.kind!r} has no form in this format; export a run of sub-words")


def rows_of(task: Task, part: str = "tokenizer") -> VocabularyRows:
    """Return what orders the rows of a vocabulary."""
    return VocabularyRows(ids_of(task.parts[part]))


def foreign_ids(task: Task, part: str = "tokenizer") -> dict[str, int | None]:
    """Return the foreign ids of "pad", "begin", "end", "unknown" and "mask", and "size", for config.json."""
    tokenizer = task.parts[part]
    ids = ids_of(tokenizer)
    found: dict[str, int | None] = dict(zip(("pad", "begin", "end", "unknown"), ids, strict=False))
    if isinstance(tokenizer, ForeignTokenizer):
        found["begin"] = ids[tokenizer.bos_id]
        found["mask"] = None if tokenizer.frame.mask is None else ids[tokenizer.frame.mask]
    return {**found, "size": sum(index is not None for index in ids)}
