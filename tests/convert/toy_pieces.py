"""Tiny models of SentencePiece, trained in the test."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from toy_checkpoints import SENTENCES


def train_pieces(path: Path, texts: Iterable[str] = SENTENCES, **options: Any) -> sentencepiece.SentencePieceProcessor:
    """Write a unigram model for texts, whose rarest characters it does not cover, and return what cuts as it says."""
    written = io.BytesIO()
    settings = {
        "vocab_size": 80,
        "hard_vocab_limit": False,
        "character_coverage": 0.98,
        "minloglevel": 2,
        "num_threads": 1,
        "model_type": "unigram",
    }
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=written, **{**settings, **options})
    path.write_bytes(written.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
