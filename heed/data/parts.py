"""Parts: what stands between raw data and tensors (tokenizer, labels, features), saved as one JSON file each."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from heed.errors import CheckpointError
from heed.files import parse_json, replacing


class Part(Protocol):
    """Anything that is fitted on training data and needed again to answer."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return everything `from_json` needs, as plain JSON values."""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build the part again; raises CheckpointError when the content does not fit."""


def part_kinds() -> dict[str, type[Part]]:
    """Return the classes a part file may name."""
    from heed.data.calibration import Calibration, NoAnswer
    from heed.data.characters import Characters
    from heed.data.features import Features
    from heed.data.foreign import ForeignTokenizer
    from heed.data.labels import Labels
    from heed.data.ngrams import Ngrams
    from heed.data.pieces import PieceTokenizer
    from heed.data.spelling import Spelling
    from heed.data.text import Tokenizer
    from heed.data.whisper import WhisperFeatures
    from heed.data.words import Preparation, Words

    kinds: tuple[type[Part], ...] = (
        Tokenizer,
        ForeignTokenizer,
        PieceTokenizer,
        Words,
        Characters,
        Spelling,
        Preparation,
        Labels,
        Calibration,
        NoAnswer,
        Features,
        WhisperFeatures,
        Ngrams,
    )
    return {part.kind: part for part in kinds}


def save_parts(folder: Path, parts: Mapping[str, Part]) -> None:
    """Write one JSON file per part into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        content = {"kind": part.kind, **part.to_json()}
        with replacing(folder / f"{name}.json") as draft:
            draft.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def load_parts(folder: Path) -> dict[str, Part]:
    """Read back what `save_parts` wrote.

    Raises:
        CheckpointError: a file is no JSON, names a kind this version does not know, or does not hold what its kind needs.
    """
    kinds = part_kinds()
    parts: dict[str, Part] = {}
    for path in sorted(folder.glob("*.json")):
        content = _read_part(path)
        kind = content.pop("kind")
        if kind not in kinds:
            raise CheckpointError(f"{path}: kind {kind!r} is not one of {', '.join(kinds)}; it was written by another version of heed")
        try:
            parts[path.stem] = kinds[kind].from_json(content)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    return parts


def _read_part(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a part file ({error!r}); restore the run folder from a copy") from error
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise CheckpointError(f"{path}: not a part file (no 'kind' that says what it is); restore the run folder from a copy")
    return content
