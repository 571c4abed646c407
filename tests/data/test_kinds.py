"""What the values of columns may be, by their kinds, and what they come out as."""

import json

import pyarrow as pa
import pytest
from toy_files import LABELLED, SPOKEN, as_parquet, read, recordings, refusal, write, write_jsonl

from heed.data.read import ReadLog

MULTI_LABELLED = {"text": "text", "label": "labels"}


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


def test_several_labels_are_the_same_list_from_lists_and_from_text(tmp_path):
    values = [["a", "b"], [], "a|b", " a | b ", "", " ", 3, [True, 2.0, " c "], ["b", "a", "b"], ["a|b"]]
    expected = [["a", "b"], [], ["a", "b"], ["a", "b"], [], [], ["3"], ["true", "2", "c"], ["b", "a"], ["a|b"]]
    assert labels(write_jsonl(tmp_path / "a.jsonl", values), MULTI_LABELLED) == expected
    for name, mark in [("a.csv", ","), ("a.tsv", "\t")]:
        rows = "".join(f"t{n}{mark}{' | '.join(found)}\n" for n, found in enumerate(expected))
        assert labels(write(tmp_path / name, f"text{mark}label\n{rows}"), MULTI_LABELLED) == [*expected[:-1], ["a", "b"]]
    parquet = as_parquet(tmp_path / "a.parquet", {"text": ["x", "y", "z"], "label": [[2, 1], [], [0]]})
    assert labels(parquet, MULTI_LABELLED) == [["2", "1"], [], ["0"]]


NO_LABEL = [
    ("null", "is null; expected a label"),
    ("0.5", "is 0.5, of type float; expected a label: text or a whole number"),
    ("NaN", "is nan, of type float; expected a label"),
    ("Infinity", "is inf, of type float; expected a label"),
    ('{"id": 1}', "is {'id': 1}, of type dict; expected a label"),
]
NOT_ONE_LABEL = [
    ('"　 "', "is empty"),
    ('["a", "b"]', "is the list ['a', 'b']; expected one label; if an example can have several, set task.multi_label=true"),
    ("[]", "is the list []; expected one label"),
]
NOT_SEVERAL_LABELS = [
    ('["a", null]', "is ['a', None], of which one is null; expected a label"),
    ('["a", ["b"]]', "is ['a', ['b']], of which one is ['b'], of type list; expected a label"),
    ('["a", ""]', "is ['a', ''], of which one is empty"),
    ('"a||b"', "is 'a||b', of which one is empty"),
]


@pytest.mark.parametrize(
    ("kinds", "value", "fault"),
    [
        *((LABELLED, *fault) for fault in (*NO_LABEL, *NOT_ONE_LABEL)),
        *((MULTI_LABELLED, *fault) for fault in (*NO_LABEL, *NOT_SEVERAL_LABELS)),
    ],
)
def test_what_is_no_label_or_are_none_is_a_fault_that_says_what_was_found(tmp_path, kinds, value, fault):
    path = write(tmp_path / "a.jsonl", f'{{"text": "x", "class": {value}}}\n{{"text": "y", "class": 1}}\n')
    rename = {"label": "class"}
    assert f"{path}:1: column 'class' {fault}" in refusal(path, required=kinds, rename=rename)
    good = "1" if kinds == LABELLED else ["1"]
    assert read(path, required=kinds, rename=rename, bad_rows="skip") == [{"text": "y", "label": good}]


def test_columns_without_kinds_are_text(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "x", "label": " 1 "}\n')
    as_text = read(path, required=["text", "label"])
    assert as_text == read(path, required={"text": "text", "label": "text"}) == [{"text": "x", "label": " 1 "}]
    assert "column 'label' is 1, of type int; expected text" in refusal(write_jsonl(path, [1]), required=["text", "label"])


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
