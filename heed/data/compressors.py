"""What general compressors make of texts: the yardstick that needs no training for the bits per byte of a language model."""

import lzma
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

WINDOW = 1 << 26  # bytes that lzma looks back at most: more than the texts of a demonstration


def compressed_bits(texts: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Return bits per byte of texts by name of compressor: each text compressed alone, and by lzma after the known texts.

    The last has read what a model was trained on: it is the size of the known and the new texts less that of the known alone. All new
    texts stand in one stream then, so that it also learns from one about the next.
    """
    new, old = [text.encode() for text in texts], b"".join(text.encode() for text in known)
    with ThreadPoolExecutor() as pool:  # compressors let other threads run
        before = pool.submit(_lzma_size, old)
        after = pool.submit(_lzma_size, old + b"".join(new))
        sizes = {
            "zlib, each file alone": sum(len(zlib.compress(raw, level=9)) for raw in new),
            "lzma, each file alone": sum(map(_lzma_size, new)),
            "lzma, having read the training files": after.result() - before.result(),
        }
    return {name: 8 * size / sum(map(len, new)) for name, size in sizes.items()}


def _lzma_size(raw: bytes) -> int:
    """Return how many bytes the strongest lzma needs, without a container's header and check sum."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": WINDOW}]
    return len(lzma.compress(raw, format=lzma.FORMAT_RAW, filters=filters))
