"""Three tasks in one model: write the rows of several data sets into one file, with a prefix that says what is to be done.

    python examples/three_tasks.py DATA OUT
    heed train text_to_text "task.scores=[bleu,chrf,accuracy,rouge1,rouge2,rougeL]" task.long_sources=cut \
        data.train=OUT/train.jsonl data.test=OUT/test.jsonl --to runs/three

OUT/texts.jsonl holds plain text, for span pre-training before that: both sides of the captions, the questions, the paragraphs that training
may see, and reviews in the form of SQuAD. docs/text-to-text.md tells what is reached with and without it.

DATA holds Multi30k (captions in English and German), TREC (questions and what they ask for) and paragraphs in the form of SQuAD. For want
of free summaries, the third task is to write the first sentence of a paragraph: where it stands is easily learned, copying it out is not,
and ROUGE measures it as it would a summary. Its test rows are of articles that training has none of.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

Row = dict[str, str]
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b(?:Dr|Mr|St)\.)\s")  # not behind an initial, U.S. or Dr.
TEST_ARTICLES = 6


def translations(folder: Path, split: str) -> Iterator[Row]:
    """Yield captions with their translations."""
    sides = [(folder / f"{split}.{language}").read_text(encoding="utf-8").splitlines() for language in ("en", "de")]
    for source, target in zip(*sides, strict=True):
        yield {"prefix": "translate English to German:", "source": source.strip(), "target": target.strip()}


def questions(path: Path) -> Iterator[Row]:
    """Yield questions with the class of what they ask for."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield {"prefix": "classify the question:", "source": row["text"], "target": row["label"]}


def first_sentences(path: Path, *, test: bool) -> Iterator[Row]:
    """Yield paragraphs with their first sentences: those of the last articles for the test, of the others for training."""
    chosen = slice(-TEST_ARTICLES, None) if test else slice(-TEST_ARTICLES)
    for text in paragraphs(path, chosen):
        yield {"prefix": "summarize:", "source": text, "target": SENTENCE_END.split(text, maxsplit=1)[0]}


def paragraphs(path: Path, chosen: slice) -> Iterator[str]:
    """Yield the paragraphs of some of the articles of a file in the form of SQuAD."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"][chosen]:
        yield from (paragraph["context"].strip() for paragraph in article["paragraphs"])


def texts(rows: list[Row], reviews: Path) -> Iterator[Row]:
    """Yield plain text: the sources of rows, the targets of translations, and reviews."""
    for row in rows:
        yield {"text": row["source"]}
        if row["prefix"].startswith("translate"):
            yield {"text": row["target"]}
    yield from ({"text": text} for text in paragraphs(reviews, slice(None)))


def write(path: Path, rows: list[Row]) -> None:
    """Write one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows):,} rows: {path}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data, out = map(Path, sys.argv[1:])
    for name, split in (("train", "train"), ("test", "test_2016_flickr")):
        found = [*translations(data / "multi30k", split), *questions(data / "trec" / f"{name}.jsonl")]
        found += first_sentences(data / "squad_format" / "new_wiki.json", test=name == "test")
        write(out / f"{name}.jsonl", found)
        if name == "train":
            write(out / "texts.jsonl", list(texts(found, data / "squad_format" / "amazon.json")))
