"""Examples come out alike whatever the form, the encoding and the compression of their source; what is bad is named by its place."""

import hashlib
import json
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_files import LABELLED, MARKED, as_parquet, read, refusal, tsv, write, write_jsonl

from heed.data.encodings import CHUNK_BYTES
from heed.data.read import ReadLog, data_files, hash_files, read_examples
from heed.errors import DataError

PAIRS = [("他们在跑。", "They run."), ("一只狗，一只猫", 'A dog, "a cat"'), ("　好\u2028的\x85 ", "fine\x0b\x0c ok\rno end")]
ROWS = [{"source": source, "target": target} for source, target in PAIRS]


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
@pytest.mark.parametrize(("encoding", "mark"), MARKED)
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


def test_formats_that_name_their_columns_do_not_need_the_settings_of_other_splits(tmp_path):
    jsonl = write(tmp_path / "a.jsonl", '{"de": "a", "en": "b"}\n')
    for side in "ab":
        write(tmp_path / f"t.{side}", f"{side}\n")
    options = {"header": ["de", "en"], "rename": {"source": "de", "target": "en"}}
    assert read(jsonl, **options) == read(tmp_path / "t.{a,b}", **options) == [{"source": "a", "target": "b"}]


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


def test_shared_translation_data_is_read_whole(shared_data):
    assert sum(1 for _ in read_examples(f"{shared_data}/multi30k/train.{{en,de}}", required=["source", "target"])) == 29_000
    rows = read(shared_data / "tatoeba_zh_en" / "val.tsv")
    assert len(rows) == 1000
    assert rows[0] == {"source": "厕所在哪里？", "target": "Where's the bathroom?", "attribution": rows[0]["attribution"]}


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
