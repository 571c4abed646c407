import codecs
import gzip
import hashlib
import json
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.data.encodings import CHUNK_BYTES
from heed.data.read import ReadLog, data_files, hash_files, read_examples
from heed.errors import DataError, MissingExtra

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PAIRS = [("他们在跑。", "They run."), ("一只狗，一只猫", 'A dog, "a cat"'), ("　好\u2028的\x85 ", "fine\x0b\x0c ok\rno end")]
ROWS = [{"source": source, "target": target} for source, target in PAIRS]


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


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_every_format_gives_the_same_rows(tmp_path, gz):
    csv_text = (
        'source,target\r\n他们在跑。,They run.\r\n"一只狗，一只猫","A dog, ""a cat"""\r\n　好\u2028的\x85 ,fine\x0b\x0c ok\rno end\r\n'
    )
    tsv_path = write(tmp_path / f"a.tsv{gz}", tsv(PAIRS))
    csv_path = write(tmp_path / f"a.csv{gz}", csv_text)
    jsonl_path = write(tmp_path / f"a.jsonl{gz}", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS) + "\n")
    for side in (0, 1):
        write(tmp_path / f"train.{'zh' if side == 0 else 'en'}{gz}", "\n".join(pair[side] for pair in PAIRS))
    parquet_path = as_parquet(tmp_path / "a.parquet", {"source": [a for a, _ in PAIRS], "target": [b for _, b in PAIRS]})
    for path in [tsv_path, csv_path, jsonl_path, parquet_path, tmp_path / ("train.{zh,en}" + gz)]:
        assert read(path) == ROWS, path


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""),
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("gb18030", b""),
    ],
)
def test_every_encoding_gives_the_same_rows(tmp_path, encoding, mark, gz):
    rows = [*PAIRS, ("一一一一一一", "ĀĀ 一"), ("𠀀😀", "é")]
    path = write(tmp_path / f"a.tsv{gz}", mark + tsv(rows).encode(encoding))
    log = ReadLog()
    assert read(path, log=log) == [{"source": a, "target": b} for a, b in rows]
    assert (log.encoding, log.format, log.rows) == (encoding, "tsv", 5)


def test_other_columns_are_kept_and_columns_renamed(tmp_path):
    path = write(tmp_path / "a.tsv", "id\tde\ten\n1\tHallo \tHi\n")
    assert read(path, rename={"source": "de", "target": "en"}) == [{"id": "1", "source": "Hallo ", "target": "Hi"}]
    swapped = write(tmp_path / "b.tsv", "source\ttarget\na\tb\n")
    assert read(swapped, rename={"source": "target", "target": "source"}) == [{"source": "b", "target": "a"}]
    nested = write(tmp_path / "c.jsonl", '{"translation": {"de": "a", "en": "b"}}\n')
    rename = {"source": "translation.de", "target": "translation.en"}
    assert read(nested, rename=rename) == [{"translation": {"de": "a", "en": "b"}, "source": "a", "target": "b"}]


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


def test_formats_that_name_their_columns_do_not_need_the_settings_of_other_splits(tmp_path):
    jsonl = write(tmp_path / "a.jsonl", '{"de": "a", "en": "b"}\n')
    for side in "ab":
        write(tmp_path / f"t.{side}", f"{side}\n")
    options = {"header": ["de", "en"], "rename": {"source": "de", "target": "en"}}
    assert read(jsonl, **options) == read(tmp_path / "t.{a,b}", **options) == [{"source": "a", "target": "b"}]


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


BAD_ROWS = {
    "a.tsv": ("source\ttarget\n{}\ngood\tgut\n", ["a", "a\tb\tc", "a\t ", "\tb", "", "\t"]),
    "a.csv": ("source,target\n{}\ngood,gut\n", ["a", "a,b,c", "a, ", '"a"x,b', "", ","]),
    "a.jsonl": (
        '{{"source": "s", "target": "t"}}\n{}\n{{"source": "good", "target": "gut"}}\n',
        [
            "{",
            "[1]",
            "3",
            '{"source": "a"}',
            '{"source": "a", "target": null}',
            '{"source": "a", "target": 3}',
            "",
            "[" * 100_000,
            '{"source": "a", "target": ["b"]}',
            '{"source": "a", "target": "　"}',
        ],
    ),
}


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, (_, lines) in BAD_ROWS.items() for line in lines])
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path, name, line):
    path = write(tmp_path / name, BAD_ROWS[name][0].format(line))
    message = refusal(path)
    assert message.startswith(f"{path}:2: ")
    assert "data.bad_rows=skip" in message
    log = ReadLog()
    assert read(path, bad_rows="skip", log=log)[-1] == {"source": "good", "target": "gut"}
    assert log.bad == 1
    assert log.bad_examples[0].startswith(f"{path}:2: ")


def test_a_bad_row_says_what_was_found(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"source": "a", "target": 3.5}\n')
    assert "column 'target' is 3.5, of type float; expected text" in refusal(path)
    parquet = as_parquet(tmp_path / "a.parquet", {"source": ["a", "b"], "target": [1, 2]})
    assert f"{parquet}:1: column 'target' is 1, of type int" in refusal(parquet)
    missing = write(tmp_path / "b.jsonl", '{"de": "a", "target": "b"}\n')
    assert "no column 'source' among de, target" in refusal(missing)


def test_only_the_first_bad_rows_are_kept_as_examples(tmp_path):
    log = ReadLog()
    path = write(tmp_path / "a.tsv", "source\ttarget\n" + "bad\n" * 25 + "a\tb\n")
    assert len(read(path, bad_rows="skip", log=log)) == 1
    assert (log.rows, log.bad, len(log.bad_examples), log.source) == (1, 25, 10, str(path))


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.tsv", "", "is empty"),
        ("a.csv", "", "is empty"),
        ("a.jsonl", "", "is empty"),
        ("a.tsv.gz", "", "is empty"),
        ("a.jsonl", "\n\n", "holds no rows"),
        ("a.tsv", "source\ttarget\n", "holds no rows"),
        ("a.csv", "source,target\n\n", "holds no rows"),
    ],
)
def test_a_source_without_rows_is_refused(tmp_path, name, content, found):
    assert found in refusal(write(tmp_path / name, content))


def test_a_source_without_any_good_row_is_refused_even_when_skipping(tmp_path):
    path = write(tmp_path / "a.jsonl", "{}\n{}\n")
    assert "none of its 2 rows can be used" in refusal(path, bad_rows="skip")
    assert "holds no rows" in refusal(
        as_parquet(tmp_path / "a.parquet", {"source": pa.array([], "string"), "target": pa.array([], "string")})
    )


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


def test_a_missing_file_names_the_nearest_one(tmp_path):
    write(tmp_path / "train.tsv", tsv(PAIRS))
    assert f"did you mean {tmp_path / 'train.tsv'}?" in refusal(tmp_path / "trian.tsv")
    assert "no folder" in refusal(tmp_path / "absent" / "train.tsv")
    write(tmp_path / "t.en", "x\n")
    with pytest.raises(DataError, match=r"t\.de: no such file; did you mean .*t\.en"):
        data_files(str(tmp_path / "t.{en,de}"))


@pytest.mark.parametrize("name", ["", "a.doc", "a.xlsx", "plain", "a.parquet.gz", "a.zip"])
def test_unknown_forms_are_refused_with_the_known_ones(tmp_path, name):
    if name:
        write(tmp_path / name, "x")
    message = refusal(tmp_path / name)
    for form in (".tsv", ".jsonl", ".parquet", "DIR/train.{en,de}", "hf:NAME"):
        assert form in message


def test_files_are_found_and_hashed(tmp_path):
    files = [write(tmp_path / "t.en.gz", "a\n"), write(tmp_path / "t.de.gz", "b\n")]
    spec = str(tmp_path / "t.{en,de}.gz")
    assert data_files(spec) == files
    assert hash_files(spec) == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert data_files("hf:org/name") == []
    assert hash_files("hf:org/name") == {}


def test_a_damaged_parquet_file_is_refused(tmp_path):
    path = as_parquet(tmp_path / "a.parquet", {"source": ["a"] * 5000, "target": [str(n) for n in range(5000)]})
    assert "no column 'text' among source, target; name it with data.columns.text=" in refusal(path, required=["text"])
    content = path.read_bytes()
    path.write_bytes(content[:500])
    assert "is no parquet file" in refusal(path)
    path.write_bytes(content[:4] + b"\xff" * 2000 + content[2004:])
    assert "is damaged" in refusal(path)


def test_parquet_is_read_in_batches(tmp_path):
    path = as_parquet(
        tmp_path / "a.parquet", {"source": [f"s{n}" for n in range(3000)], "target": [f"t{n}" for n in range(3000)], "n": range(3000)}
    )
    rows = read_examples(str(path), required=["source", "target"])
    assert next(rows) == {"source": "s0", "target": "t0", "n": 0}
    assert [row["n"] for row in rows] == list(range(1, 3000))


@pytest.fixture
def hub(monkeypatch):
    calls = []

    def load_dataset(name, config=None, *, split, streaming):
        if name == "gone":
            raise FileNotFoundError("no such data set")
        calls.append((name, config, split, streaming))
        return iter([{"translation": {"de": "a", "en": "b"}}, {"translation": {"de": "", "en": "b"}}])

    module = ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return calls


@pytest.mark.parametrize(
    ("spec", "call"),
    [
        ("hf:opus", ("opus", None, "train", True)),
        ("hf:org/name", ("org/name", None, "train", True)),
        ("hf:org/name/de-en:test", ("org/name", "de-en", "test", True)),
        ("hf:/wmt16/de-en:train[:10]", ("wmt16", "de-en", "train[:10]", True)),
    ],
)
def test_hub_names_are_told_from_configurations(hub, spec, call):
    rename = {"source": "translation.de", "target": "translation.en"}
    log = ReadLog()
    rows = read(spec, rename=rename, bad_rows="skip", log=log)
    assert [(row["source"], row["target"]) for row in rows] == [("a", "b")]
    assert hub == [call]
    assert (log.format, log.rows, log.bad) == ("hf", 1, 1)
    assert f"{spec}:2: column 'translation.de' is empty" in refusal(spec, rename=rename)


def test_hub_failures_are_explained(hub):
    assert "one slash is OWNER/NAME" in refusal("hf:gone")
    for spec in ("hf:", "hf:a/b/c/d", "hf:a//c", "hf:a/"):
        assert "expected hf:NAME" in refusal(spec)


def test_the_hub_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"extra 'datasets'"):
        read("hf:org/name")


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='\t\n\r\0\ufeff\ufdd0"'), min_size=1).filter(str.strip)


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_any_text_is_read_back(tmp_path_factory, rows, encoding):
    folder = tmp_path_factory.mktemp("any")
    expected = [{"source": source, "target": target} for source, target in rows]
    assert read(write(folder / "a.tsv", tsv(rows), encoding)) == expected
    quoted = "source,target\n" + "".join(f'"{source}","{target}"\r\n' for source, target in rows)
    assert read(write(folder / "a.csv.gz", quoted, encoding)) == expected


@pytest.mark.parametrize("name", ["a.tsv.gz", "a.csv", "a.jsonl.gz"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    rows = [{"source": f"{n} " + "s" * 20_000, "target": "t" * 20_000} for n in range(800)]
    if name.startswith("a.jsonl"):
        path = write(tmp_path / name, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "," if name == "a.csv" else "\t"
        path = write(tmp_path / name, f"source{mark}target\n" + "".join(f"{row['source']}{mark}{row['target']}\n" for row in rows))
    n_rows = len(rows)
    del rows
    tracemalloc.start()
    n_read = sum(1 for _ in read_examples(str(path), required=["source", "target"]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_read == n_rows
    assert peak < 6 * CHUNK_BYTES


def test_shared_translation_data_is_read_whole():
    if not SHARED.is_dir():
        pytest.skip("the shared data sets are not beside this repository")
    assert sum(1 for _ in read_examples(f"{SHARED}/multi30k/train.{{en,de}}", required=["source", "target"])) == 29_000
    rows = read(SHARED / "tatoeba_zh_en" / "val.tsv")
    assert len(rows) == 1000
    assert rows[0] == {"source": "厕所在哪里？", "target": "Where's the bathroom?", "attribution": rows[0]["attribution"]}


@pytest.mark.parametrize("text", [b"source", b"the dog"])
def test_parquet_with_text_that_is_no_utf8_is_refused(tmp_path, text):
    path = as_parquet(tmp_path / "a.parquet", {"source": ["the dog"], "target": ["der Hund"]})
    path.write_bytes(path.read_bytes().replace(text, bytes([*text[:2], 0xF2, *text[3:]])))
    assert "a.parquet: is" in refusal(path)


def test_a_header_with_a_carriage_return_inside_is_read_as_it_stands(tmp_path):
    path = write(tmp_path / "a.csv", "source,target\r,n\na,b,c\n")
    assert read(path) == [{"source": "a", "target": "b", "n": "c"}]
    broken = write(tmp_path / "b.csv", "sou\rrce,target\na,b\n")
    assert "no column 'source'" in refusal(broken)


LABELLED = {"text": "text", "label": "label"}
MULTI_LABELLED = {"text": "text", "label": "labels"}


def write_jsonl(path, values, column="label"):
    return write(path, "".join(json.dumps({"text": f"t{n}", column: value}) + "\n" for n, value in enumerate(values)))


def labels(path, kinds=LABELLED):
    return [row["label"] for row in read(path, required=kinds)]


def test_labels_are_the_same_text_from_numbers_and_from_text(tmp_path):
    values = [1, 1.0, "1", " 1 ", 0, -3, 2.0**60, True, False, "pos", "　pos\n", "a|b", "1.5"]
    expected = ["1", "1", "1", "1", "0", "-3", str(2**60), "true", "false", "pos", "pos", "a|b", "1.5"]
    assert labels(write_jsonl(tmp_path / "a.jsonl", values)) == expected
    spaced = [(f"t{n}", f" {text}") for n, text in enumerate(expected)]
    for name, mark in [("a.csv", ","), ("a.tsv", "\t")]:
        path = write(tmp_path / name, f"text{mark}label\n" + "".join(f"{text}{mark}{label}\n" for text, label in spaced))
        assert labels(path) == expected
    for column, kind in [([1, 0, -3], "int8"), ([1.0, 0.0, -3.0], "float32"), (["1", "0", " -3"], "string")]:
        parquet = as_parquet(tmp_path / "a.parquet", {"text": ["x", "y", "z"], "label": pa.array(column, kind)})
        assert labels(parquet) == ["1", "0", "-3"]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("null", "is null; expected a label"),
        ("0.5", "is 0.5, of type float; expected a label: text or a whole number"),
        ("NaN", "is nan, of type float; expected a label"),
        ("Infinity", "is inf, of type float; expected a label"),
        ('{"id": 1}', "is {'id': 1}, of type dict; expected a label"),
        ('"　 "', "is empty"),
        ('["a", "b"]', "is the list ['a', 'b']; expected one label; if an example can have several, set task.multi_label=true"),
        ("[]", "is the list []; expected one label"),
    ],
)
def test_what_is_no_label_is_a_fault_that_says_what_was_found(tmp_path, value, fault):
    path = write(tmp_path / "a.jsonl", f'{{"text": "x", "class": {value}}}\n{{"text": "y", "class": 1}}\n')
    rename = {"label": "class"}
    assert f"{path}:1: column 'class' {fault}" in refusal(path, required=LABELLED, rename=rename)
    assert read(path, required=LABELLED, rename=rename, bad_rows="skip") == [{"text": "y", "label": "1"}]


def test_several_labels_are_the_same_list_from_lists_and_from_text(tmp_path):
    values = [["a", "b"], [], "a|b", " a | b ", "", " ", 3, [True, 2.0, " c "], ["b", "a", "b"], ["a|b"]]
    expected = [["a", "b"], [], ["a", "b"], ["a", "b"], [], [], ["3"], ["true", "2", "c"], ["b", "a"], ["a|b"]]
    assert labels(write_jsonl(tmp_path / "a.jsonl", values), MULTI_LABELLED) == expected
    for name, mark in [("a.csv", ","), ("a.tsv", "\t")]:
        rows = "".join(f"t{n}{mark}{' | '.join(found)}\n" for n, found in enumerate(expected))
        assert labels(write(tmp_path / name, f"text{mark}label\n{rows}"), MULTI_LABELLED) == [*expected[:-1], ["a", "b"]]
    parquet = as_parquet(tmp_path / "a.parquet", {"text": ["x", "y", "z"], "label": [[2, 1], [], [0]]})
    assert labels(parquet, MULTI_LABELLED) == [["2", "1"], [], ["0"]]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("null", "is null; expected a label"),
        ("0.5", "is 0.5, of type float; expected a label"),
        ('["a", null]', "is ['a', None], of which one is null; expected a label"),
        ('["a", ["b"]]', "is ['a', ['b']], of which one is ['b'], of type list; expected a label"),
        ('["a", ""]', "is ['a', ''], of which one is empty"),
        ('"a||b"', "is 'a||b', of which one is empty"),
    ],
)
def test_what_are_no_labels_is_a_fault_that_says_what_was_found(tmp_path, value, fault):
    path = write(tmp_path / "a.jsonl", f'{{"text": "x", "label": {value}}}\n')
    assert f"{path}:1: column 'label' {fault}" in refusal(path, required=MULTI_LABELLED)


def test_columns_without_kinds_are_text(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "label": " 1 "}\n')
    as_text = read(path, required=["text", "label"])
    assert as_text == read(path, required={"text": "text", "label": "text"}) == [{"text": "x", "label": " 1 "}]
    assert "column 'label' is 1, of type int; expected text" in refusal(write_jsonl(path, [1]), required=["text", "label"])


def test_parallel_text_can_hold_labels(tmp_path):
    write(tmp_path / "t.txt", "x\ny\n")
    write(tmp_path / "t.label", " 1\n0 \n")
    assert read(tmp_path / "t.{txt,label}", required=LABELLED) == [{"text": "x", "label": "1"}, {"text": "y", "label": "0"}]


def write_odd_rows(folder, name):
    """Write four rows whose third is odd and whose second is bad anyway; returns the source and the places of these two."""
    if name == "classes":
        for path, text in [("classes/ok/1.txt", "a"), ("classes/ok/3.txt", " "), ("classes/odd/2.txt", "b"), ("classes/ok/10.txt", "c")]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write(folder / path, text)
        return folder / name, {"bad": folder / "classes/ok/3.txt", "odd": folder / "classes/odd/2.txt"}
    text, bad, odd = {
        "a.tsv": ("text\tlabel\na\tok\nlonely\nb\todd\nc\tok\n", 3, 4),
        "a.csv": ('text,label\r\n"a,\r\na",ok\r\nlonely\r\n"b\n\nb",odd\r\nc,ok\r\n', 4, 5),
        "a.jsonl": ('{"text":"a","label":"ok"}\n[]\n{"text":"b","label":"odd"}\n{"text":"c","label":"ok"}\n', 2, 3),
    }[name]
    path = write(folder / name, text)
    return path, {"bad": f"{path}:{bad}", "odd": f"{path}:{odd}"}


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl", "classes"])
def test_a_check_refuses_or_skips_rows_by_their_place(tmp_path, name):
    source, places = write_odd_rows(tmp_path, name)
    asked = []

    def check(example):
        asked.append(example["label"])
        return "label 'odd' is not known" if example["label"] == "odd" else None

    log = ReadLog()
    rows = read(source, required=LABELLED, bad_rows="skip", log=log, check=check)
    assert [row["text"][0] for row in rows] == ["a", "c"]
    assert sorted(asked) == ["odd", "ok", "ok"]
    assert (log.rows, log.bad) == (2, 2)
    assert f"{places['odd']}: label 'odd' is not known" in log.bad_examples
    assert any(line.startswith(f"{places['bad']}: ") for line in log.bad_examples)
    message = refusal(source, required=LABELLED, check=check)
    assert message.startswith(f"{log.bad_examples[0]}; mend the ")
    assert "data.bad_rows=skip" in message


def test_a_check_is_asked_about_values_as_they_come_out(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [1, 2.0, "3"])
    seen = []
    assert len(read(path, required=LABELLED, check=lambda example: seen.append(dict(example)))) == 3
    assert seen == [{"text": "t0", "label": "1"}, {"text": "t1", "label": "2"}, {"text": "t2", "label": "3"}]
    message = refusal(path, required=LABELLED, check=lambda _: "no", bad_rows="skip")
    assert f"none of its 3 rows can be used; the first: {path}:1: no" in message


def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    (tmp_path / "train").mkdir()
    assert f"no such file; did you mean {tmp_path / 'train'}?" in refusal(tmp_path / "trian")


SPOKEN = {"audio": "audio", "text": "transcript"}


def recordings(folder, *names):
    """Write files that stand for recordings: reading a manifest looks whether they are there, never into them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"RIFF")
    return [str(folder / name) for name in names]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_recordings_are_found_from_the_folder_of_the_manifest(tmp_path, monkeypatch, name):
    paths = recordings(tmp_path, "data/wav/1.wav", "other/2.flac", "home/3.ogg")
    named = ["wav/1.wav", paths[1], "~/3.ogg"]
    columns = {"audio": named, "text": ["one", "", " three "], "speaker": ["a", "b", ""], "language": ["en", "de", "en"]}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if name == "a.parquet":
        as_parquet(tmp_path / "data" / name, columns)
    elif name == "a.jsonl":
        write(tmp_path / "data" / name, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = "\t" if name == "a.tsv" else ","
        write(tmp_path / "data" / name, "".join(mark.join(line) + "\n" for line in [columns, *(row.values() for row in rows)]))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "data")
    expected = [{**row, "audio": path} for row, path in zip(rows, paths, strict=True)]
    assert read(tmp_path / "data" / name, required=SPOKEN) == read(name, required=SPOKEN) == expected
    renamed = {"sound": "audio", "said": "transcript"}
    found = read(name, required=renamed, rename={"sound": "audio", "said": "text"})
    assert [(row["sound"], row["said"]) for row in found] == [(row["audio"], row["text"]) for row in expected]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("gone.wav", "names '{}/gone.wav', which is not there"),
        ("/gone.wav", "names '/gone.wav', which is not there"),
        ("wav", "names '{}/wav', which is a folder"),
        ("x" * 5000, "which is not there"),
        ("a\0.wav", "which is not there"),
        (" ", "is empty; expected the path of a recording"),
        (None, "is null; expected the path of a recording"),
        (3, "is 3, of type int; expected the path of a recording"),
        (["1.wav"], "is ['1.wav'], of type list; expected the path of a recording"),
        ({"bytes": None, "path": None}, "is null; expected the path of a recording"),
        ({"array": [0.5]}, "is {{'array': [0.5]}}, of type dict; expected the path of a recording"),
    ],
)
def test_a_recording_that_is_not_there_is_a_fault_of_its_row(tmp_path, value, fault):
    recordings(tmp_path, "wav/1.wav")
    rows = [{"audio": "wav/1.wav", "text": "one"}, {"audio": value, "text": "two"}]
    path = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    message = refusal(path, required=SPOKEN)
    assert message.startswith(f"{path}:2: column 'audio' ")
    assert fault.format(tmp_path) in message
    assert [row["text"] for row in read(path, required=SPOKEN, bad_rows="skip")] == ["one"]


def test_a_transcript_may_be_empty_and_is_text(tmp_path):
    recordings(tmp_path, "1.wav")
    path = write(tmp_path / "a.jsonl", "".join(f'{{"audio": "1.wav", "text": {text}}}\n' for text in ('""', '" "', '"a"', "null", "7")))
    log = ReadLog()
    assert [row["text"] for row in read(path, required=SPOKEN, bad_rows="skip", log=log)] == ["", " ", "a"]
    assert log.bad_examples == [
        f"{path}:4: column 'text' is null; expected text, which may be empty",
        f"{path}:5: column 'text' is 7, of type int; expected text, which may be empty",
    ]


def test_the_bytes_of_recordings_stay_as_they_are(tmp_path):
    (inside,) = recordings(tmp_path, "2.wav")
    audio = [{"bytes": b"RIFF1", "path": "1.wav"}, {"bytes": None, "path": "2.wav"}]
    path = as_parquet(tmp_path / "a.parquet", {"audio": audio, "text": ["one", "two"]})
    assert [row["audio"] for row in read(path, required=SPOKEN)] == [b"RIFF1", inside]
    plain = as_parquet(tmp_path / "b.parquet", {"audio": [b"RIFF1"], "text": ["one"]})
    assert read(plain, required=SPOKEN) == [{"audio": b"RIFF1", "text": "one"}]


def test_recordings_of_the_hub_come_undecoded_and_need_their_content(monkeypatch, tmp_path):
    recordings(tmp_path, "1.wav")
    monkeypatch.chdir(tmp_path)

    class Stream:
        def decode(self, enable):
            return self if enable else iter(rows)

        def __iter__(self):
            pytest.fail("the hub's library decodes the recordings")

    rows = [{"audio": {"bytes": b"RIFF", "path": "1.wav"}, "text": "one"}, {"audio": {"bytes": None, "path": "1.wav"}, "text": "two"}]
    module = ModuleType("datasets")
    module.load_dataset = lambda *_, **__: Stream()
    monkeypatch.setitem(sys.modules, "datasets", module)
    log = ReadLog()
    assert read("hf:org/name", required=SPOKEN, bad_rows="skip", log=log) == [{"audio": b"RIFF", "text": "one"}]
    assert "hf:org/name:2: column 'audio' names '1.wav', but this source lies in no folder" in log.bad_examples[0]


def spoken_folder(folder, files):
    """Write texts, and recordings where a text is None."""
    for name, text in reversed(files.items()):
        recordings(folder, name)
        if text is not None:
            write(folder / name, text)
    return folder


PAIRED = {
    "a/1.wav": None,
    "a/1.txt": "one\n",
    "a/2.FLAC": None,
    "a/2.txt": "",
    "a/10.ogg": None,
    "a/10.txt": " ten  é\r\n",
    "b/c/x.y.mp3": None,
    "b/c/x.y.txt": "deep",
    "z.wav": None,
    "z.txt": "last",
}
SAID = {"a/1.wav": "one", "a/2.FLAC": "", "a/10.ogg": "ten  é", "b/c/x.y.mp3": "deep", "z.wav": "last"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_recordings_with_their_texts_beside_them_are_rows_in_natural_order(tmp_path, monkeypatch, encoding):
    folder = spoken_folder(tmp_path / "said", PAIRED)
    for name in [name for name, text in PAIRED.items() if text]:
        write(folder / name, PAIRED[name], encoding)
    spoken_folder(folder, {"a/notes.md": "x", "a/.hidden.wav": None, ".git/3.wav": None})
    expected = [{"audio": str(folder / name), "text": text, "file": name} for name, text in SAID.items()]
    log = ReadLog()
    assert read(folder, required=SPOKEN, log=log) == expected
    assert (log.format, log.rows, log.bad, log.ignored) == ("folder", 5, 0, 1)
    monkeypatch.chdir(tmp_path)
    assert read("said", required=SPOKEN) == read("said/", required=()) == expected
    renamed = read(folder, required={"sound": "audio", "said": "transcript"}, rename={"said": "text"})
    assert [(row["sound"], row["said"]) for row in renamed] == [(row["audio"], row["text"]) for row in expected]


def test_a_recording_without_its_text_and_a_text_without_its_recording_are_bad_rows(tmp_path):
    folder = spoken_folder(tmp_path, {"a/1.wav": None, "a/1.txt": "one", "a/2.wav": None, "b/1.txt": "lonely", "b/3.wav": None})
    write(folder / "b" / "3.txt", b"M\xe4rchen\xff")
    log = ReadLog()
    assert [row["text"] for row in read(folder, required=SPOKEN, bad_rows="skip", log=log)] == ["one"]
    assert log.bad_examples[0] == f"{folder / 'a/2.wav'}: has no text beside it; expected 2.txt with what is said"
    assert log.bad_examples[1].startswith(f"{folder / 'b/1.txt'}: has no recording beside it; expected 1.wav or 1.flac")
    assert log.bad_examples[2].startswith(f"{folder / 'b/3.txt'}: ")
    assert log.bad_examples[2].count("3.txt") == 1
    message = refusal(folder, required=SPOKEN)
    assert message == f"{log.bad_examples[0]}; mend the file, or set data.bad_rows=skip to leave such files out"


def test_in_folders_of_recordings_without_texts_the_folder_says_what_was_said(tmp_path):
    files = dict.fromkeys(["one/2.wav", "one/10.wav", "two/1.flac"])
    folder = spoken_folder(tmp_path, {**files, "README.txt": "about", "one/notes.md": "x"})
    expected = [{"audio": str(folder / name), "text": name[:3], "file": name} for name in files]
    log = ReadLog()
    assert read(folder, required=SPOKEN, log=log) == read(folder, required=()) == expected
    assert log.ignored == 1
    spoken_folder(folder, {"two/1.txt": "zwei"})
    assert [row["text"] for row in read(folder, required=SPOKEN, bad_rows="skip")] == ["zwei"]


@pytest.mark.parametrize("name", ["1.wav", "a/b/1.wav"])
def test_recordings_that_lie_in_no_class_folder_have_no_transcript(tmp_path, name):
    spoken_folder(tmp_path, {name: None, "c/2.wav": None})
    assert f"{tmp_path / name}: has no text beside it; expected 1.txt" in refusal(tmp_path, required=SPOKEN)


def test_a_folder_without_recordings_says_what_it_holds(tmp_path):
    spoken_folder(tmp_path, {"pos/1.txt": "good", "neg/2.txt": "bad"})
    message = refusal(tmp_path, required=SPOKEN)
    assert message.startswith(f"{tmp_path}: is a folder that holds neg/, pos/; expected .tsv, ")
    assert "a folder of recordings with a .txt file beside each" in message


def test_folders_fill_the_columns_of_tasks_of_their_kind_only(tmp_path):
    folder = spoken_folder(tmp_path, PAIRED)
    for kinds in ({"audio": "audio"}, {"audio": "audio", "label": "label"}, {**SPOKEN, "speaker": "text"}):
        assert "a folder of recordings fills one recording and its transcript, but this task asks for audio (audio)" in refusal(
            folder, required=kinds
        )
    flat = spoken_folder(tmp_path / "flat", {"1.wav": None, "1.txt": "one"})
    assert f"{flat}: is a folder that holds 1.txt, 1.wav; expected .tsv, " in refusal(flat, required=LABELLED)


def test_recordings_among_the_texts_of_classes_are_ignored_when_texts_are_asked_for(tmp_path):
    spoken_folder(tmp_path, {"pos/1.txt": "good", "neg/2.txt": "bad", "neg/1.wav": None})
    assert [row["label"] for row in read(tmp_path, required=LABELLED)] == ["neg", "pos"]
    assert data_files(str(tmp_path)) == [tmp_path / "neg/2.txt", tmp_path / "pos/1.txt"]


def test_a_folder_of_recordings_is_listed_and_hashed_with_everything_in_it(tmp_path, monkeypatch):
    folder = spoken_folder(tmp_path / "said", PAIRED)
    names = ["a/1.txt", "a/1.wav", "a/2.FLAC", "a/2.txt", "a/10.ogg", "a/10.txt", "b/c/x.y.mp3", "b/c/x.y.txt", "z.txt", "z.wav"]
    assert data_files(str(folder)) == [folder / name for name in names]
    first = hash_files(str(folder))
    assert first.keys() == {"said"}
    monkeypatch.chdir(folder)
    assert hash_files(".") == first
    spoken_folder(folder, {"notes.md": "x"})
    assert hash_files(str(folder)) == first
    found = {str(first)}
    for change in (
        lambda: write(folder / "a/1.txt", "uno"),
        lambda: write(folder / "b/c/x.y.mp3", b"ID3"),
        lambda: (folder / "b").rename(folder / "d"),
    ):
        change()
        found.add(str(hash_files(str(folder))))
    assert len(found) == 4


def test_of_a_manifest_only_the_manifest_is_listed_and_hashed(tmp_path):
    recordings(tmp_path, "1.wav")
    path = write(tmp_path / "a.tsv", "audio\ttext\n1.wav\tone\n")
    assert data_files(str(path)) == [path]
    assert hash_files(str(path)).keys() == {"a.tsv"}


def test_shared_recordings_are_found_from_their_manifests(shared_data):
    for name, n_rows, n_speakers in (("fsdd/test.tsv", 250, 5), ("an4/dev.tsv", 103, 8)):
        rows = read(shared_data / name, required=SPOKEN)
        assert len(rows) == n_rows
        assert len({row["speaker"] for row in rows}) == n_speakers
        assert all(Path(row["audio"]).is_relative_to(shared_data) for row in rows)
