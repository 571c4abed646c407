"""Questions about passages of text: SQuAD's JSON files, and answers in the cells of tables.

SQuAD 1.1 (Rajpurkar et al. 2016) asks only what its passages answer; SQuAD 2.0 (Rajpurkar et al. 2018) also what they do not
(`is_impossible`). Answers are parts of their passage, named by their text and by the character where it starts. A text that does not stand
where its start says is a fault of the row; it is never looked for elsewhere. Left out: `plausible_answers`, which are wrong ones.

A file is held in memory while its rows are given out, as JSON cannot be read in parts.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heed.data.encodings import read_text
from heed.data.rows import Example
from heed.errors import DataError
from heed.files import parse_json

ANSWER, START = "answer", "start"  # columns of a table that, instead of a list of answers, has one for a row
STARTS = ("start", "answer_start")  # what the place of an answer is called
SHOWN_CHARACTERS = 60
EXPECTED = 'answers as [{"text": ..., "start": character of the context}], [] for none; or columns answer and start'


def squad_rows(path: Path) -> Iterator[tuple[int, Example | str]]:
    """Yield the questions of a SQuAD file with their number, from 1: id, question, context, answers and title, as far as it has them.

    Raises:
        DataError: the file is no JSON, or has not the form of SQuAD's.
    """
    try:
        content = parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); expected a file in SQuAD's form, or .jsonl with one object per line") from error
    articles = content.get("data") if isinstance(content, dict) else None
    if not isinstance(articles, list):
        raise DataError(
            f'{path}: expected a file in SQuAD\'s form, {{"data": [{{"title": ..., "paragraphs": [{{"context": ..., "qas": [...]}}]}}]}}, '
            f"found {_form(content)}; save rows of another form as .jsonl, one object per line"
        )
    yield from enumerate(_questions(articles), start=1)


def _form(content: object) -> str:
    if isinstance(content, dict):
        return f"an object with {', '.join(map(repr, list(content)[:5])) or 'nothing in it'}"
    return f"a {type(content).__name__}"


def _questions(articles: list[Any]) -> Iterator[Example | str]:
    """Yield every question of every paragraph, or what is wrong with a part of the file."""
    for place, article in enumerate(articles):
        paragraphs = _listed(article, "paragraphs")
        if paragraphs is None:
            yield f"article {place + 1} has no list of 'paragraphs'"
            continue
        title = {"title": article["title"]} if isinstance(article.get("title"), str) else {}
        for number, paragraph in enumerate(paragraphs, start=1):
            questions = _listed(paragraph, "qas")
            if questions is None or "context" not in paragraph:
                yield f"paragraph {number} of article {place + 1} has no 'context' or no list of 'qas'"
                continue
            yield from (_question(one, paragraph["context"], title) for one in questions)


def _listed(content: object, key: str) -> list[Any] | None:
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, list) else None


def _question(content: object, context: object, title: Example) -> Example | str:
    """Return a question as a row, or what is wrong with it."""
    if not isinstance(content, dict):
        return f"a question is {_shortened(content)}; expected an object"
    row = {key: content[key] for key in ("id", "question", "answers") if key in content} | {"context": context, **title}
    if content.get("is_impossible") is True:
        if row.get("answers"):
            return f"question {_shortened(content.get('id'))} has answers and is_impossible, which cannot both be"
        row["answers"] = []
    return row


def read_answers(value: object) -> list[dict[str, Any]] | str:
    """Return the answers that a cell holds as {text, start}, or what is wrong with it.

    A cell is a list of objects with a text and a start (or answer_start), an object of two lists (text and answer_start, as data sets of
    the hub have it), or JSON of either; an empty one holds no answer.
    """
    if isinstance(value, str) and not value.strip():
        return []
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            return f"is {_shortened(value)}; expected {EXPECTED}"
    if isinstance(value, dict):
        value = _side_by_side(value)
    found = [_answer(one) for one in value] if isinstance(value, list) else [None]
    answers = [one for one in found if one is not None]
    return answers if len(answers) == len(found) else f"is {_shortened(value)}; expected {EXPECTED}"


def _side_by_side(content: Mapping[str, Any]) -> object:
    """Return answers whose texts and starts stand in two lists as a list of objects; anything else as it is."""
    texts, starts = content.get("text"), next((content[name] for name in STARTS if name in content), None)
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return [content]
    return [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]


def _answer(content: object) -> dict[str, Any] | None:
    """Return an answer as {text, start}; None for what is none."""
    if not isinstance(content, dict):
        return None
    text, start = content.get("text"), next((content[name] for name in STARTS if name in content), None)
    is_place = isinstance(start, int) and not isinstance(start, bool)
    return {"text": text, "start": start} if isinstance(text, str) and is_place else None


def joined_answer(answer: object, start: object) -> object:
    """Return the answers of a row that has an answer and its start in columns of their own; none where both are empty."""
    if answer in (None, "") and start in (None, ""):
        return []
    place = int(start) if isinstance(start, str) and start.strip().isdecimal() else start
    return [{"text": answer, "start": int(place) if isinstance(place, float) and place.is_integer() else place}]


def answers_fault(example: Example) -> str | None:
    """Say which answer does not stand in its context where it should; None where all do."""
    context = example["context"]
    for answer in example.get("answers", []):
        text, start = answer["text"], answer["start"]
        if not text.strip():
            return f"{_named(example)}an answer is empty; leave it out, and give no answers to a question that has none"
        if start < 0 or not context.startswith(text, start):
            inside = 0 <= start < len(context)
            found = f"where {_shortened(context[start : start + len(text)])} stands" if inside else f"which has {len(context):,} of them"
            return f"{_named(example)}the answer {_shortened(text)} is not at character {start} of its context, {found}"
    return None


def _named(example: Example) -> str:
    return f"question {example['id']}: " if "id" in example else ""


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
