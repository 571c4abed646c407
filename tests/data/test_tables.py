"""Rows of TSV, CSV, JSON lines, parquet and parallel text: what each form allows, and what is said of files that are none."""

import pytest
from toy_files import LABELLED, as_parquet, read, refusal, write

from heed.data.read import ReadLog, read_examples


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_a_header_can_be_given(tmp_path, name):
    mark = "\t" if name == "a.tsv" else ","
    path = write(tmp_path / name, f"a{mark}b\nc{mark}d\n")
    assert read(path, header=["source", "target"]) == [{"source": "a", "target": "b"}, {"source": "c", "target": "d"}]
    assert read(path, header=["x", "y"], rename={"source": "y", "target": "x"})[0] == {"source": "b", "target": "a"}
    assert "names a column twice" in refusal(path, header=["source", "source"])
    assert "lacks target" in refusal(path, header=["source", "x"])
    headed = write(tmp_path / name, f"source{mark}target\nc{mark}d\n")
    assert read(headed, header=["source", "target"]) == [{"source": "c", "target": "d"}]
    three = write(tmp_path / name, f"a{mark}b{mark}c\n")
    assert "data.header=[source,target,column3]" in refusal(three, header=["source", "target"])


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("sorce\ttarget", "name it with data.columns.source=sorce"),
        ("Source\ttarget", "name it with data.columns.source=Source"),
        ("de\ten", "name it with data.columns.source=NAME, or, if the first line is data already, data.header=[source,target]"),
        ("Wir gehen.\tWe go.", "the first line looks like data, so name the columns: data.header=[source,target]"),
        ("你好。\tHi.\tCC-BY 2.0", "data.header=[source,target,column3]"),
        ("source\ttarget\ttarget", "the header names target more than once"),
    ],
)
def test_a_header_without_the_columns_says_how_to_name_them(tmp_path, header, hint):
    message = refusal(write(tmp_path / "a.tsv", f"{header}\na\tb\n"))
    assert "a.tsv:1: " in message
    assert hint in message


def test_a_header_with_a_carriage_return_inside_is_read_as_it_stands(tmp_path):
    path = write(tmp_path / "a.csv", "source,target\r,n\na,b,c\n")
    assert read(path) == [{"source": "a", "target": "b", "n": "c"}]
    broken = write(tmp_path / "b.csv", "sou\rrce,target\na,b\n")
    assert "no column 'source'" in refusal(broken)


def test_blank_lines_at_the_end_are_no_rows(tmp_path):
    for name, text in [
        ("a.tsv", "source\ttarget\na\tb\n\n\r\n"),
        ("a.csv", "source,target\na,b\n\n"),
        ("a.jsonl", '{"source":"a","target":"b"}\n\n'),
    ]:
        assert read(write(tmp_path / name, text)) == [{"source": "a", "target": "b"}]
    for side in "ab":
        write(tmp_path / f"t.{side}", f"{side}\n\n\n")
    assert read(tmp_path / "t.{a,b}") == [{"source": "a", "target": "b"}]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"a ""quoted"" text"', 'a "quoted" text'),
        ('"""Hi!"" she said"', '"Hi!" she said'),
        ('"Hello!"', '"Hello!"'),
        ('"a" and "b"', '"a" and "b"'),
        ('say "hi"', 'say "hi"'),
        ('"', '"'),
        ('""', '""'),
        ('"""', '"""'),
        ('"open', '"open'),
    ],
)
def test_tsv_quoting_is_undone_only_where_it_is_certain(tmp_path, written, meant):
    assert read(write(tmp_path / "a.tsv", f"source\ttarget\n{written}\tx\n"))[0]["source"] == meant


def test_csv_holds_line_breaks_in_quotes_and_counts_lines(tmp_path):
    path = write(tmp_path / "a.csv", 'source,target\r\n"two\r\nlines",b\r\nlonely\r\n')
    assert f"{path}:4: has 1 field, expected 2 (source, target)" in refusal(path)
    assert read(path, bad_rows="skip") == [{"source": "two\nlines", "target": "b"}]


def test_an_unclosed_quotation_mark_is_a_bad_row(tmp_path):
    path = write(tmp_path / "a.csv", 'source,target\na,b\n"c,d\ne,f\n')
    assert f"{path}:3: is not CSV" in refusal(path)
    assert read(path, bad_rows="skip") == [{"source": "a", "target": "b"}]


def test_large_csv_fields_are_read(tmp_path):
    long = "x" * 200_000
    assert read(write(tmp_path / "a.csv", f"source,target\n{long},b\n"))[0]["source"] == long


def test_semicolons_separate_where_the_header_says_so(tmp_path):
    assert read(write(tmp_path / "a.csv", "id;source;target\n1;a,b;c\n")) == [{"id": "1", "source": "a,b", "target": "c"}]
    assert read(write(tmp_path / "a.csv", "source,target\na;b,c\n")) == [{"source": "a;b", "target": "c"}]
    assert read(write(tmp_path / "a.csv", "de;en\na;b\n"), rename={"source": "de", "target": "en"}) == [{"source": "a", "target": "b"}]


def test_parallel_sides_of_different_length_are_refused_before_the_first_row(tmp_path):
    write(tmp_path / "t.en", "a\nb\nc\n")
    write(tmp_path / "t.de", "a\nb")
    message = refusal(tmp_path / "t.{en,de}")
    assert "t.en has 3 lines and t.de has 2 lines" in message


def test_parallel_text_may_mix_encodings_and_names_the_line(tmp_path):
    write(tmp_path / "t.zh", "好的\n你好\n", "gb18030")
    write(tmp_path / "t.en", "fine\n \n")
    log = ReadLog()
    assert read(tmp_path / "t.{zh,en}", bad_rows="skip", log=log) == [{"source": "好的", "target": "fine"}]
    assert (log.format, log.encoding, log.bad) == ("parallel", "gb18030, utf-8", 1)
    assert "t.{zh,en}:2: column 'target' is empty" in refusal(tmp_path / "t.{zh,en}")


@pytest.mark.parametrize("spec", ["t.{en,de,fr}", "t.{en}", "t.{en,}", "t.{}"])
def test_parallel_text_has_two_suffixes(tmp_path, spec):
    assert "parallel text has two suffixes" in refusal(tmp_path / spec)


def test_parallel_text_fills_two_columns_only(tmp_path):
    for side in "ab":
        write(tmp_path / f"t.{side}", "x\n")
    assert "fills two columns, this task has text" in refusal(tmp_path / "t.{a,b}", required=["text"])


def test_parallel_text_can_hold_labels(tmp_path):
    write(tmp_path / "t.txt", "x\ny\n")
    write(tmp_path / "t.label", " 1\n0 \n")
    assert read(tmp_path / "t.{txt,label}", required=LABELLED) == [{"text": "x", "label": "1"}, {"text": "y", "label": "0"}]


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = as_parquet(tmp_path / "a.parquet", {"source": ["a"] * 5000, "target": [str(n) for n in range(5000)]})
    assert "no column 'text' among source, target; name it with data.columns.text=" in refusal(path, required=["text"])
    content = path.read_bytes()
    path.write_bytes(content[:500])
    assert "is no parquet file" in refusal(path)
    path.write_bytes(content[:4] + b"\xff" * 2000 + content[2004:])
    assert "is damaged" in refusal(path)


@pytest.mark.parametrize("text", [b"source", b"the dog"])
def test_parquet_with_text_that_is_no_utf8_is_refused(tmp_path, text):
    path = as_parquet(tmp_path / "a.parquet", {"source": ["the dog"], "target": ["der Hund"]})
    path.write_bytes(path.read_bytes().replace(text, bytes([*text[:2], 0xF2, *text[3:]])))
    assert "a.parquet: is" in refusal(path)


def test_parquet_is_read_in_batches(tmp_path):
    path = as_parquet(
        tmp_path / "a.parquet", {"source": [f"s{n}" for n in range(3000)], "target": [f"t{n}" for n in range(3000)], "n": range(3000)}
    )
    rows = read_examples(str(path), required=["source", "target"])
    assert next(rows) == {"source": "s0", "target": "t0", "n": 0}
    assert [row["n"] for row in rows] == list(range(1, 3000))
