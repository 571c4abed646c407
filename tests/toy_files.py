"""Files of a few rows in every form, written and read; imported by the tests of reading."""

import codecs
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from heed.data.read import read_examples
from heed.errors import DataError

# Encodings with the mark that stands ahead of the text.
MARKED = [
    ("utf-8", b""),
    ("utf-8", codecs.BOM_UTF8),
    ("utf-16-le", codecs.BOM_UTF16_LE),
    ("utf-16-be", codecs.BOM_UTF16_BE),
    ("utf-16-le", b""),
    ("utf-16-be", b""),
    ("gb18030", b""),
]
LABELLED = {"text": "text", "label": "label"}
SPOKEN = {"audio": "audio", "text": "transcript"}


def read(path, **options):
    return list(read_examples(str(path), **{"required": ["source", "target"], **options}))


def write(path, text, encoding="utf-8"):
    content = text if isinstance(text, bytes) else text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def refusal(path, **options):
    with pytest.raises(DataError) as caught:
        read(path, **options)
    return str(caught.value)


def tsv(rows):
    return "".join("\t".join(row) + "\n" for row in [("source", "target"), *rows])


def as_parquet(path, columns):
    pq.write_table(pa.table(columns), path)
    return path


def write_jsonl(path, values, column="label"):
    return write(path, "".join(json.dumps({"text": f"t{n}", column: value}) + "\n" for n, value in enumerate(values)))


def recordings(folder, *names):
    """Write files that stand for recordings: reading a manifest looks whether they are there, never into them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"RIFF")
    return [str(folder / name) for name in names]
