"""SentencePiece's own files (.spm, spiece.model): pieces with their scores, and the table of replacements that normalises text.

Read through the `sentencepiece` library, at import and export alone: running needs nothing of it. Read are unigram models; left out are
those of BPE, pieces of bytes and symbols a user defined.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from heed.data.pieces import SPACE, PieceTokenizer
from heed.errors import DataError, MissingExtra

UNIGRAM = 1  # of model types
NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # of pieces
HIDDEN = " "  # before a piece that no text may spell: normalised text has no such space
SENTINELS = 100  # that T5's tokenizer puts behind the pieces of its file


@dataclass(frozen=True)
class SentencePieces:
    """What a file holds.

    Attributes:
        pieces: with their log-probabilities.
        unknown: which of them stands for what is unknown.
        controls: those that stand for no text.
        charsmap: the table of replacements as it stands in the file.
        original: the whole file.
    """

    pieces: list[tuple[str, float]]
    unknown: int
    controls: frozenset[int]
    charsmap: bytes
    original: bytes


def read_pieces(path: Path) -> SentencePieces:
    """Read a file of SentencePiece; raises DataError for one that heed cannot follow, MissingExtra without the library."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise MissingExtra("sentencepiece", "convert", f"reading {path}") from error
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined,unused-ignore]
    try:
        original = path.read_bytes()
        proto.ParseFromString(original)
    except Exception as error:  # of a library that raises nothing narrower
        raise DataError(f"{path}: not a file of SentencePiece ({error}); copy it again from where it is from") from error
    _check(proto, path)
    types = [piece.type for piece in proto.pieces]
    return SentencePieces(
        [(piece.piece, piece.score) for piece in proto.pieces],
        types.index(UNKNOWN),
        frozenset(i for i, kind in enumerate(types) if kind == CONTROL),
        proto.normalizer_spec.precompiled_charsmap,
        original,
    )


def _check(proto: Any, path: Path) -> None:
    """Refuse what heed would not cut as SentencePiece does."""
    rules = proto.normalizer_spec
    settings = {
        "trainer_spec.model_type": (proto.trainer_spec.model_type, UNIGRAM),
        "trainer_spec.treat_whitespace_as_suffix": (proto.trainer_spec.treat_whitespace_as_suffix, False),
        "normalizer_spec.add_dummy_prefix": (rules.add_dummy_prefix, True),
        "normalizer_spec.remove_extra_whitespaces": (rules.remove_extra_whitespaces, True),
        "normalizer_spec.escape_whitespaces": (rules.escape_whitespaces, True),
        "denormalizer_spec.precompiled_charsmap": (proto.denormalizer_spec.precompiled_charsmap, b""),
    }
    for name, (found, expected) in settings.items():
        if found != expected:
            raise DataError(f"{path}: {name}={found!r} is not supported, expected {expected!r}")
    types = [piece.type for piece in proto.pieces]
    if types.count(UNKNOWN) != 1:
        raise DataError(f"{path}: {types.count(UNKNOWN)} pieces stand for what is unknown, expected one")
    odd = next((piece for piece in proto.pieces if piece.type not in (NORMAL, UNKNOWN, CONTROL)), None)
    if odd is not None:
        raise DataError(f"{path}: piece {odd.piece!r} is of type {odd.type} (user-defined, unused or a byte), which is not supported")


def piece_tokenizer(found: SentencePieces, numbers: Mapping[str, int], n_foreign: int, specials: Sequence[int | None]) -> PieceTokenizer:
    """Return what cuts text as a file says, and numbers pieces as a vocabulary (vocab.json) of `n_foreign` ids does."""
    names: list[str | None] = [None] * n_foreign
    for piece, number in numbers.items():
        names[number] = piece
    silent = found.controls | {found.unknown}
    return PieceTokenizer(
        [(HIDDEN + piece if i in silent else piece, score) for i, (piece, score) in enumerate(found.pieces)],
        found.unknown,
        charsmap=base64.b64encode(found.charsmap).decode("ascii"),
        names=names,
        specials=specials,
        original=base64.b64encode(found.original).decode("ascii"),
    )


def t5_pipeline(found: SentencePieces) -> Backend:
    """Return the pipeline of a T5 checkpoint that has only spiece.model: its pieces, and the sentinels behind them, the first last."""
    sentinels = [f"<extra_id_{number}>" for number in reversed(range(SENTINELS))]
    backend = Backend(models.Unigram([*found.pieces, *((name, 0.0) for name in sentinels)], unk_id=found.unknown, byte_fallback=False))
    if found.charsmap:
        backend.normalizer = normalizers.Precompiled(found.charsmap)
    words = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always", split=True)
    silent = [found.pieces[i][0] for i in sorted(found.controls | {found.unknown})]
    backend.add_special_tokens([*silent, *sentinels])
    return backend
