"""Bits per byte of general compressors."""

import random
import zlib

import pytest

from heed.data.compressors import compressed_bits


def prose(n: int, seed: int) -> str:
    """Return n words of a vocabulary of a thousand, which differ from seed to seed in their order only."""
    words = ["".join(random.Random(i).choices("abcdefghij", k=6)) for i in range(1000)]
    return " ".join(random.Random(seed).choices(words, k=n))


def test_a_compressor_that_has_read_like_texts_needs_less() -> None:
    texts = [prose(300, 1), prose(200, 2), "好的"]
    n_bytes = sum(len(text.encode()) for text in texts)
    by_zlib, by_lzma, knowing = compressed_bits(texts, [prose(4000, 3)]).values()
    assert by_zlib == pytest.approx(8 * sum(len(zlib.compress(text.encode(), 9)) for text in texts) / n_bytes)
    assert knowing < 0.8 * min(by_zlib, by_lzma)
    assert knowing > 500 * 9.9 / n_bytes  # each word is one of a thousand


def test_what_was_read_before_costs_nothing() -> None:
    text = prose(500, 1)
    known, unknown = (compressed_bits([text], old)["lzma, having read the training files"] for old in ([text], []))
    assert known < 0.2
    assert unknown == pytest.approx(compressed_bits([text], [])["lzma, each file alone"], rel=0.02)
