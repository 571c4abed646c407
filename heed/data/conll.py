"""CoNLL files: a token on each line with its columns, a blank line behind each sentence.

Columns stand between tabs where a line has one, else between white space. `-DOCSTART-` lines and comments such as `# sent_id = 3` before a
sentence are left out. Left out as well: ranges of tokens and empty nodes of CoNLL-U, and trees.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from heed.data.rows import Row
from heed.errors import DataError

SUFFIXES = ("conll", "conll2002", "conll2003", "bio", "iob", "iob1", "iob2", "bioes", "bilou")  # of files that are told by their names
TOKENS, TAGS = "tokens", "tags"
BOUNDARY = "-DOCSTART-"
COMMENT = re.compile(r"# .*=")
SHOWN_CHARACTERS = 60


def conll_rows(source: str, lines: Iterable[str], header: Sequence[str] | None, *, tagged: bool = True) -> Iterator[Row]:
    """Yield each sentence under the number of its first line: its columns as lists, or what is wrong with it.

    Without a header the first column is `tokens` and the last `tags`, and others are left out.

    Args:
        header: the name of each column.
        tagged: whether every token needs a tag; otherwise one column is enough.
    Raises:
        DataError: the first token has no tag, or not the columns of the header.
    """
    names: Sequence[str] = ()
    for number, sentence in _sentences(lines):
        if not names:
            names = _named(f"{source}:{number}", sentence[0], header, tagged)
        odd = next((place for place, fields in enumerate(sentence) if len(fields) != len(names)), None)
        if odd is not None:
            yield number + odd, _uneven(sentence[odd], len(names))
        else:
            columns = zip(names, zip(*sentence, strict=True), strict=True)
            yield number, {name: list(values) for name, values in columns if name}


def _sentences(lines: Iterable[str]) -> Iterator[tuple[int, list[list[str]]]]:
    """Yield the fields of each sentence's lines, with the number of the first."""
    sentence: list[list[str]] = []
    first = 1
    for number, line in enumerate(lines, 1):
        ends = not line.strip() or line.startswith(BOUNDARY)
        if ends and sentence:
            yield first, sentence
            sentence = []
        if ends or (not sentence and COMMENT.match(line)):
            continue
        first = first if sentence else number
        sentence.append([field.strip() for field in line.split("\t")] if "\t" in line else line.split())
    if sentence:
        yield first, sentence


def _named(place: str, fields: Sequence[str], header: Sequence[str] | None, tagged: bool) -> Sequence[str]:
    """Return the name of each column, "" for one that has none."""
    if header is not None:
        if len(header) != len(fields):
            raise DataError(f"{place}: has {len(fields)} columns, but data.header names {len(header)}; name every column of the file")
        return header
    if len(fields) == 1 and tagged:
        raise DataError(
            f"{place}: {_shortened(fields[0])!r} has no tag; expected a token and its tag on each line, with a tab or space between, and a "
            "blank line behind each sentence"
        )
    return [TOKENS, *[""] * (len(fields) - 2), *([TAGS] if len(fields) > 1 else [])]


def _uneven(fields: Sequence[str], expected: int) -> str:
    shown = _shortened(" ".join(fields))
    return f"{shown!r} has {len(fields)} column{'' if len(fields) == 1 else 's'}, the first token {expected}; give every token as many"


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
