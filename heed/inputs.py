"""What `heed predict` is given to answer: texts on the command line, lines of text, rows of a table, standard input."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from heed.config import DataConfig, DecodeConfig
from heed.data.conll import SUFFIXES
from heed.data.encodings import read_lines
from heed.data.read import FORMATS, read_examples
from heed.data.rows import Example
from heed.errors import ConfigError, DataError

SETTING = re.compile(r"(data|decode|lora|model|task|train)\.[\w.]*")  # the path of one; few of them can change after training
STANDARD_INPUT = "-"


def split_settings(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tell inputs from decode.key=value and its like; raises ConfigError for what would be a setting, had it its group."""
    texts: list[str] = []
    pairs: list[str] = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if equals and name in DecodeConfig.model_fields:
            raise ConfigError(f"{argument!r}: write decode.{argument} for the setting; an input that begins so is read from a --file")
        (pairs if equals and SETTING.fullmatch(name) else texts).append(argument)
    return texts, pairs


def given_examples(
    wanted: Mapping[str, str], in_line: Sequence[str], texts: Iterable[str], file: str | None, data: DataConfig
) -> Iterator[Example]:
    """Yield the inputs of the command line, then those of a file: rows of a table with what is wanted, or lines that hold `in_line`."""
    yield from (from_line(in_line, text) for text in texts)
    if file is None:
        return
    if file.lower().removesuffix(".gz").rpartition(".")[2] in (*FORMATS, *SUFFIXES):
        renamed = {name: data.columns[name] for name in in_line if name in data.columns}
        # A row without an answer would shift all answers after it, so bad rows are an error here, whatever training did with them.
        yield from read_examples(file, required=wanted, rename=renamed, header=data.header)
    else:
        yield from (from_line(in_line, line) for line in (_standard_input() if file == STANDARD_INPUT else read_lines(file)))


def from_line(names: Sequence[str], text: str) -> Example:
    """Return the inputs of these names that one text holds, with tabs between them; those that it lacks are left out."""
    return dict(zip(names, text.split("\t", len(names) - 1), strict=False))


def _standard_input() -> Iterator[str]:
    """Yield the lines of standard input; raises DataError where they are not UTF-8."""
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DataError(f"standard input:{number}: not UTF-8 text ({error.reason} at byte {error.start}); convert it first") from error
