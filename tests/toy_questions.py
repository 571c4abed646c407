"""Questions about who has what, for everything that needs data of question answering."""

import json
import random
from pathlib import Path
from typing import Any

Row = dict[str, Any]

OWNERS = ["the dog", "a cat", "old Tom", "my aunt", "三只狗"]
THINGS = ["a red hat", "two blue boats", "naïve ideas", "好的面包", "1,000 tea-cups", "green eyes"]


def toy_questions(n: int, *, seed: int = 0, unanswerable: float = 0.25) -> list[Row]:
    """Return different questions about contexts of unequal length; some ask about an owner that the context does not name."""
    draw = random.Random(seed)
    rows: dict[tuple[str, str], Row] = {}
    while len(rows) < n:
        owners, things = draw.sample(OWNERS, draw.randint(2, 4)), draw.sample(THINGS, 4)
        context = " ".join(f"{owner} has {thing}." for owner, thing in zip(owners, things, strict=False))
        asked = next(owner for owner in OWNERS if owner not in owners) if draw.random() < unanswerable else draw.choice(owners)
        answers = []
        if asked in owners:
            text = things[owners.index(asked)]
            answers = [{"text": text, "start": context.index(f"{asked} has {text}") + len(f"{asked} has ")}]
        rows[asked, context] = {"question": f"what has {asked}?", "context": context, "answers": answers}
    return list(rows.values())


def write_squad(path: Path, rows: list[Row], *, titles: int = 1) -> Path:
    """Write rows in SQuAD's form, each a paragraph of its own, dealt into so many articles."""
    articles: list[Row] = [{"title": f"Article {i}", "paragraphs": []} for i in range(titles)]
    for number, row in enumerate(rows):
        answers = [{"text": one["text"], "answer_start": one["start"]} for one in row["answers"]]
        question = {"id": f"q{number}", "question": row["question"], "answers": answers, "is_impossible": not answers}
        articles[number % titles]["paragraphs"].append({"context": row["context"], "qas": [question]})
    path.write_text(json.dumps({"version": "toy", "data": articles}, ensure_ascii=False), encoding="utf-8")
    return path
