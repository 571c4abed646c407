"""Data sets of the Hugging Face hub, through the `datasets` library."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from heed.data.columns import Columns
from heed.data.rows import Example, Row
from heed.errors import DataError, MissingExtra


def hub_rows(source: str, columns: Columns) -> Iterator[Row]:
    """Open a data set of the Hugging Face hub as a stream; recordings come as the bytes of their files."""
    address, _, split = source.removeprefix("hf:").partition(":")
    parts = address.split("/")
    if len(parts) > 3 or not all(parts[1:]) or not address:
        raise DataError(f"{source}: expected hf:NAME, hf:OWNER/NAME, hf:OWNER/NAME/CONFIG or hf:/NAME/CONFIG, and :SPLIT behind it")
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra("datasets", "datasets", f"reading {source}") from error
    name, config = "/".join(filter(None, parts[:2])), parts[2] if len(parts) == 3 else None
    encoded = "audio" in columns.kinds.values()

    def load() -> Iterable[Example]:
        rows: Any = load_dataset(name, config, split=split or "train", streaming=True)
        return cast(Iterable[Example], rows.decode(False) if encoded else rows)

    return _streamed(source, load)


def _streamed(source: str, load: Callable[[], Iterable[Example]]) -> Iterator[Row]:
    try:
        yield from enumerate(load(), 1)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{source}: the datasets library cannot read it ({error}); check the network, the name (one slash is OWNER/NAME, a "
            f"configuration needs hf:OWNER/NAME/CONFIG or hf:/NAME/CONFIG) and the split"
        ) from error
