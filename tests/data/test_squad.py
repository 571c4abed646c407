"""Reading questions: SQuAD's JSON of both versions, answers in tables, and what is refused with file and id."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from heed.data.read import ReadLog, hash_files, read_examples
from heed.data.squad import answers_fault, read_answers
from heed.errors import DataError

COLUMNS = {"question": "text", "context": "text", "answers": "answers"}
CONTEXT = "北京 was first. Then came Xi'an; then  北京."
THIRD, LAST = CONTEXT.index("Xi'an"), CONTEXT.rindex("北京")


def read(path: Path, **settings: Any) -> list[dict[str, Any]]:
    return list(read_examples(str(path), required=COLUMNS, check=answers_fault, **settings))


def question(**changes: Any) -> dict[str, Any]:
    return {"id": "q1", "question": "Which was first?", "answers": [{"text": "北京", "answer_start": 0}], **changes}


def written(path: Path, *questions: Any, context: Any = CONTEXT) -> Path:
    content = {"version": "v2.0", "data": [{"title": "Capitals", "paragraphs": [{"context": context, "qas": list(questions)}]}]}
    raw = json.dumps(content, ensure_ascii=False).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["dev.json", "dev.json.gz"])
def test_a_file_in_squads_form_gives_a_row_for_each_question(tmp_path: Path, name: str) -> None:
    impossible = question(id="q2", answers=[], is_impossible=True, plausible_answers=[{"text": "Xi'an", "answer_start": THIRD}])
    unmarked = question(
        id="q3",
        answers=[{"text": "北京", "answer_start": LAST}, {"text": "Xi'an", "answer_start": THIRD}],
    )
    log = ReadLog()
    rows = read(written(tmp_path / name, question(is_impossible=False), impossible, unmarked), log=log)
    about = {"question": "Which was first?", "context": CONTEXT, "title": "Capitals"}
    assert rows == [
        {"id": "q1", **about, "answers": [{"text": "北京", "start": 0}]},
        {"id": "q2", **about, "answers": []},
        {
            "id": "q3",
            **about,
            "answers": [{"text": "北京", "start": LAST}, {"text": "Xi'an", "start": THIRD}],
        },
    ]
    assert all(CONTEXT[one["start"] :].startswith(one["text"]) for row in rows for one in row["answers"])
    assert (log.format, log.encoding, log.rows) == ("json", "utf-8", 3)
    assert list(hash_files(str(tmp_path / name))) == [name]


@pytest.mark.parametrize("start", [1, 2, -39, 1000])
def test_an_answer_that_does_not_stand_where_it_should_is_named_with_file_and_id_and_never_moved(tmp_path: Path, start: int) -> None:
    path = written(tmp_path / "dev.json", question(), question(id="off", answers=[{"text": "北京", "answer_start": start}]))
    with pytest.raises(DataError, match=rf"dev\.json:2: question off: the answer '北京' is not at character {start} of its context"):
        read(path)
    log = ReadLog()
    assert [row["id"] for row in read(path, bad_rows="skip", log=log)] == ["q1"]
    assert log.bad == 1
    assert "question off" in log.bad_examples[0]


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        (question(is_impossible=True), "has answers and is_impossible"),
        (question(answers=[{"text": " ", "answer_start": 2}]), "an answer is empty"),
        (question(answers=[{"text": "北京"}]), "column 'answers' is"),
        (question(answers=[{"text": "北京", "answer_start": "0"}]), "column 'answers' is"),
        (question(answers="北京"), "column 'answers' is"),
        ({"id": "q", "answers": []}, "no column 'question'"),
        ({"id": "q", "question": "Who?"}, "no column 'answers'"),
        ("Who?", "expected an object"),
    ],
)
def test_a_question_that_cannot_be_used_is_an_error_or_is_counted(tmp_path: Path, bad: Any, complaint: str) -> None:
    path = written(tmp_path / "dev.json", bad, question())
    with pytest.raises(DataError, match=rf"dev\.json:1: .*{complaint}"):
        read(path)
    log = ReadLog()
    assert len(read(path, bad_rows="skip", log=log)) == log.bad == 1


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('[{"question": "Who?"}]', "expected a file in SQuAD's form.*found a list"),
        ('{"rows": []}', "found an object with 'rows'"),
        ('{"data": {}}', "found an object with 'data'"),
        ("{", "is not JSON"),
        ('{"data": [{"title": "t"}]}', "article 1 has no list of 'paragraphs'"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', "paragraph 1 of article 1 has no 'context'"),
        ('{"data": []}', "holds no rows"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "dev.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=complaint):
        read(path)


ANSWERS = [[{"text": "北京", "start": 0}], [], [{"text": text, "start": CONTEXT.index(text)} for text in ("Then", "Xi'an")]]


def test_tables_hold_answers_as_lists_as_json_or_as_the_hubs_two_lists(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "context": CONTEXT, "answers": answers} for i, answers in enumerate(ANSWERS)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    cells = [[*list(row.values())[:2], json.dumps(row["answers"], ensure_ascii=False) if row["answers"] else ""] for row in rows]
    (tmp_path / "a.tsv").write_text("".join("\t".join(line) + "\n" for line in [list(COLUMNS), *cells]), encoding="utf-8")
    hub = [{"text": [one["text"] for one in found], "answer_start": [one["start"] for one in found]} for found in ANSWERS]
    schema = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int64()))])
    texts = {name: [row[name] for row in rows] for name in ("question", "context")}
    parquet.write_table(pa.table({**texts, "answers": pa.array(hub, schema)}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.tsv", "a.parquet"):
        assert read(tmp_path / name) == rows


def test_an_answer_and_its_start_may_stand_in_columns_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,context,span,start\nWho?,"Ann, Bob",Bob,5\nWhen?,"Ann, Bob",,\n', encoding="utf-8")
    rows = read(path, rename={"answer": "span"})
    assert [row["answers"] for row in rows] == [[{"text": "Bob", "start": 5}], []]
    path.write_text("question,context,answer,start\nWho?,Ann,Ann,first\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv:2: column 'answers' is .*'first'"):
        read(path)
    path.write_text("question,context,answer\nWho?,Ann,Ann\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column 'answers' among 'question, context, answer'"):
        read(path)


NONE = [3, None, "Ann", [3], [{"text": 3, "start": 0}], [{"text": "a", "start": True}], {"text": ["a"], "start": []}]


@pytest.mark.parametrize("value", NONE)
def test_what_are_no_answers_is_said(value: object) -> None:
    assert str(read_answers(value)).startswith("is ")


def test_every_answer_of_real_files_stands_where_it_says(shared_data: Path) -> None:
    for name, n in (("new_wiki", 7938), ("amazon", 9885)):
        assert len(read(shared_data / "squad_format" / f"{name}.json")) == n
