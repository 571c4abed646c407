"""The tokenizer of a foreign folder: its pipeline, from tokenizer.json or the older files, and the ids of its special tokens."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from heed.convert.folder import Folder
from heed.data.foreign import ForeignTokenizer, Frame
from heed.errors import CheckpointError, ConfigError

Pipeline = dict[str, Any]
Builder = Callable[[Folder], Pipeline | None]  # a pipeline of older files; None where they are not there
PROPERTIES = ("lstrip", "rstrip", "single_word", "normalized", "special")  # of added tokens


class Tokens:
    """A pipeline and what the folder says about its special tokens.

    Raises:
        CheckpointError: there is no pipeline, or one that the `tokenizers` library does not take.
    """

    def __init__(self, folder: Folder, pipeline: Pipeline) -> None:
        self.folder, self.pipeline = folder, pipeline
        try:
            self.backend = Backend.from_str(json.dumps(pipeline))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{folder.path}: its tokenizer cannot be read ({error}); fetch tokenizer.json again") from error
        self._named = {**folder.read("special_tokens_map.json"), **folder.tokenizer_settings}

    def id_of(self, role: str, usual: str | None = None) -> int | None:
        """Return the id of a special token by its role, such as "cls_token"; None where the vocabulary has none.

        Args:
            usual: its text where no file says it.
        """
        text = _text_of(self._named.get(role, usual))
        return None if text is None else self.backend.token_to_id(text)

    def needed(self, role: str, usual: str) -> int:
        """Return the id of a special token that this family cannot do without; raises CheckpointError."""
        found = self.id_of(role, usual)
        if found is None:
            raise CheckpointError(
                f"{self.folder.path}: the tokenizer has no {role} ({self._named.get(role, usual)!r}); fetch its files again"
            )
        return found

    def setting(self, name: str) -> Any:
        """Return what tokenizer_config.json says; None where it says nothing."""
        return self.folder.tokenizer_settings.get(name)

    def begins_with(self, index: int | None) -> bool:
        """Return whether the pipeline puts a token before a text."""
        return index is not None and _first_of(self.pipeline.get("post_processor")) == index

    def build(self, specials: list[int | None], n_foreign: int, frame: Frame) -> ForeignTokenizer:
        """Return the part; raises ConfigError where the pipeline knows ids that the model has no row for.

        Args:
            specials: the foreign ids of padding, begin, end and unknown.
            n_foreign: rows of the model's embedding.
            frame: with the foreign id of the mask, which becomes heed's.
        """
        highest = max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)
        if highest >= n_foreign:
            raise ConfigError(
                f"{self.folder.path}: the tokenizer knows ids up to {highest}, the model those below vocab_size={n_foreign}; "
                "their files do not belong together"
            )
        known = [index for index in specials if index is not None]
        if len(set(known)) < len(known) or not all(0 <= index < n_foreign for index in known):
            raise ConfigError(
                f"{self.folder.path}: padding, begin, end and unknown have the ids {specials}, expected different ones below {n_foreign}"
            )
        built = ForeignTokenizer(self.pipeline, specials, n_foreign, frame=frame, settings=self.folder.tokenizer_settings)
        if frame.mask is None:
            return built
        ours = Frame(**{**vars(frame), "mask": built.ids.index(frame.mask)})
        return ForeignTokenizer(self.pipeline, specials, n_foreign, frame=ours, settings=self.folder.tokenizer_settings)


def _text_of(token: Any) -> str | None:
    """Return the text of a token that a file gives as such or with its properties."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _first_of(stage: Any) -> int | None:
    """Return the id that a stage behind the cutting puts before a text, if it does."""
    kind = stage.get("type") if isinstance(stage, Mapping) else None
    if kind == "Sequence":
        return next((found for inner in stage["processors"] if (found := _first_of(inner)) is not None), None)
    if kind in ("BertProcessing", "RobertaProcessing"):
        return int(stage["cls"][1])
    if kind != "TemplateProcessing" or not stage["single"] or "SpecialToken" not in stage["single"][0]:
        return None
    named = stage["special_tokens"].get(stage["single"][0]["SpecialToken"]["id"])
    return None if not named or not named["ids"] else int(named["ids"][0])


def added_tokens(folder: Folder) -> dict[int, AddedToken]:
    """Return what older files put behind a vocabulary, or mark in it, by id; raises CheckpointError where they are damaged."""
    named = [*folder.read("special_tokens_map.json").values(), *folder.tokenizer_settings.values()]
    texts = {_text_of(value) for value in _spread(named)}
    found = {number: AddedToken(text, special=text in texts, normalized=text not in texts) for text, number in _appended(folder).items()}
    for number, token in dict(folder.tokenizer_settings.get("added_tokens_decoder") or {}).items():
        text = _text_of(token)
        if text is None or not number.isdecimal():
            where = folder.path / "tokenizer_config.json"
            raise CheckpointError(f"{where}: added_tokens_decoder has {number!r}: {token!r}, expected a token; fetch it again")
        found[int(number)] = AddedToken(text, **{name: token[name] is True for name in PROPERTIES if name in token})
    return found


def _spread(values: Iterable[Any]) -> Iterator[Any]:
    """Yield values, and those of lists among them."""
    for value in values:
        yield from value if isinstance(value, list) else [value]


def _appended(folder: Folder) -> dict[str, int]:
    """Return the tokens of added_tokens.json with their ids."""
    found = folder.read("added_tokens.json")
    wrong = next((token for token, number in found.items() if type(number) is not int), None)
    if wrong is not None:
        raise CheckpointError(f"{folder.path / 'added_tokens.json'}: {wrong!r} has the id {found[wrong]!r}; fetch it again")
    return found


def extended(folder: Folder, pipeline: Pipeline, *, special: bool = False) -> Pipeline:
    """Return a pipeline of older files with the tokens that were added to it.

    Args:
        special: whether all of them are left out of texts.
    Raises:
        CheckpointError: one would have another id than the files say.
    """
    backend = Backend.from_str(json.dumps(pipeline))
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for number, token in sorted(added_tokens(folder).items()):
        if token.content not in known:
            add = backend.add_special_tokens if special or token.special else backend.add_tokens
            add([token])
        if backend.token_to_id(token.content) != number:
            raise CheckpointError(
                f"{folder.path}: the token {token.content!r} has the id {number}, which does not follow the vocabulary; fetch "
                "tokenizer.json instead"
            )
    content: Pipeline = json.loads(backend.to_str())
    return content


def read_tokens(folder: Folder, *builders: Builder) -> Tokens:
    """Return the tokenizer of a folder, from tokenizer.json or else from the older files that `builders` know."""
    if folder.has("tokenizer.json"):
        return Tokens(folder, folder.read("tokenizer.json"))
    for build in builders:
        pipeline = build(folder)
        if pipeline is not None:
            return Tokens(folder, extended(folder, pipeline))
    raise CheckpointError(f"{folder.path}: has no tokenizer.json, nor the older files of one that heed reads; fetch tokenizer.json too")
