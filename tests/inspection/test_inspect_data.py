"""What inspecting tells of data of every kind."""

import json
import re
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_questions import toy_questions, write_squad
from toy_runs import ToyData, write_pairs

from heed.cli import app
from heed.data.audio import Wave, read_audio
from heed.errors import ConfigError, DataError
from heed.inspection import inspect_data
from heed.inspection.data_lines import _spelt

pytest_plugins = ["toy_runs"]


def as_json(content: dict[str, object]) -> dict[str, object]:
    return dict(json.loads(json.dumps(content, allow_nan=False)))


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_text(text, encoding=encoding)
    return str(path)


def test_faults_of_pairs_are_counted_with_their_lengths(tmp_path: Path) -> None:
    rows = [
        "source\ttarget\tkind",
        "a dog\tein Hund\tx",
        "a dog\tein Hund\ty",
        "Taxi\ttaxi\tx",
        "one\ttwo",
        "\tleer\tx",
        "a cat\teine Katze\tx",
    ]
    found, lines = inspect_data(write(tmp_path / "pairs.tsv", "\n".join(rows)), [])
    assert (found["rows"], found["bad"], found["format"], found["encoding"]) == (4, 2, "tsv", "utf-8")
    assert found["pairs"]["counts"] | {"duplicates": 1, "copies": 1} == found["pairs"]["counts"]
    assert list(found["columns"]) == ["source", "target", "kind"]
    assert found["columns"]["target"]["lengths"]["characters"] == {"min": 4, "p5": 4, "median": 8, "p95": 10, "max": 10}
    assert found["columns"]["target"]["lengths"]["words"]["max"] == 2
    assert lines[0] == f"{tmp_path / 'pairs.tsv'}: 4 rows; 2 bad rows skipped (tsv, utf-8, {(tmp_path / 'pairs.tsv').stat().st_size} bytes)"
    assert any("pairs.tsv:5: has 2 fields" in line for line in lines)
    assert as_json(found) == found


def test_leaks_into_other_splits_are_counted(toy_data: ToyData, tmp_path: Path) -> None:
    pair = {"source": "the dog", "target": "der Hund"}
    train = write_pairs(tmp_path / "train.tsv", [pair, {"source": "a cat", "target": "eine Katze"}])
    valid = write_pairs(tmp_path / "valid.tsv", [pair, {"source": "a cat", "target": "ein Kater"}])
    found, lines = inspect_data(str(train), [f"data.valid={valid}", f"data.test={toy_data.test}"])
    assert found["pairs"]["leaks"] == {"valid": 1, "test": 0}
    assert found["pairs"]["source_overlap"] == {"valid": 2, "test": 0}
    assert any(re.fullmatch(r"  pairs also in valid +1 +50\.00%", line) for line in lines)


@pytest.mark.parametrize("separator", [",", ";"])
def test_columns_and_header_are_honoured(tmp_path: Path, separator: str) -> None:
    rows = [separator.join(row) for row in (("en", "de"), ("a dog", "ein Hund"), ("a cat", "eine Katze"))]
    named = write(tmp_path / "named.csv", "\n".join(rows))
    assert list(inspect_data(named, [])[0]["columns"]) == ["en", "de"]
    renamed, _ = inspect_data(named, ["data.columns.source=en", "data.columns.target=de"])
    assert renamed["pairs"]["rows"] == 2
    bare = write(tmp_path / "bare.tsv", "a dog\tein Hund\n")
    assert inspect_data(bare, ["data.header=[source,target]"])[0]["pairs"]["rows"] == 1


def test_parallel_text_is_read_as_pairs(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a dog\n\na cat\n")
    write(tmp_path / "t.zh", "一只狗\n空\n一只猫\n", "gb18030")
    found, _ = inspect_data(f"{tmp_path}/t.{{en,zh}}", [])
    assert (found["format"], found["encoding"], found["rows"], found["bad"]) == ("parallel", "utf-8, gb18030", 2, 1)
    assert len(found["files"]) == 2


def test_other_columns_show_what_they_hold(tmp_path: Path) -> None:
    rows = [{"note": "so good", "stars": 5, "tags": ["a"]}, {"note": None, "stars": 2.5, "seen": True}, {"note": "bad", "inner": {"a": 1}}]
    found, lines = inspect_data(write(tmp_path / "r.jsonl", "".join(json.dumps(row) + "\n" for row in rows)), [])
    kinds = {name: column["kinds"] for name, column in found["columns"].items()}
    assert kinds == {
        "note": {"text": 2, "null": 1},
        "stars": {"number": 2},
        "tags": {"list": 1},
        "seen": {"boolean": 1},
        "inner": {"object": 1},
    }
    assert (found["pairs"], found["spoken"], found["labelled"], found["texts"]) == ({}, {}, {}, {})
    assert any(re.match(r"  note +2 text, 1 null +characters +3 ", line) for line in lines)


def test_rows_that_no_faults_are_searched_in_say_how_their_columns_would_be_named(tmp_path: Path) -> None:
    record(tmp_path / "a.wav", 300)
    source = write(tmp_path / "m.tsv", "file\ttranscript\na.wav\tyes\n")
    _, lines = inspect_data(source, [])
    said = " ".join(line.strip() for line in lines[lines.index("no faults were searched for") :])
    assert "neither columns source and target, audio and text," in said
    assert "data.columns.audio=NAME data.columns.text=NAME" in said
    found, lines = inspect_data(source, ["data.columns.audio=file", "data.columns.text=transcript"])
    assert found["spoken"]["rows"] == 1
    assert "no faults were searched for" not in lines


@pytest.mark.parametrize(
    ("hours", "said"),
    [(2.5, "2.5 h"), (1234.56, "1,235 h"), (0.0284, "1 min 42 s"), (0.03333, "2 min 0 s"), (0.0104, "37.4 s"), (0, "0.0 s")],
)
def test_how_long_recordings_are_together_is_said_in_units_that_suit_it(hours: float, said: str) -> None:
    assert _spelt(hours) == said


def test_columns_of_the_terminal_lines_end_at_one_place(tmp_path: Path) -> None:
    _, lines = inspect_data(write(tmp_path / "d.tsv", "a\tlonger_name\n" + "x y z\t" + "w" * 1234 + "\n"), [])
    table = list(takewhile(bool, lines[lines.index("columns") + 1 :]))
    assert len({len(line) for line in table}) == 1
    assert "1,234" in table[3]


def test_terminal_lines_hold_no_control_characters(tmp_path: Path) -> None:
    source = write(tmp_path / "d.tsv", "a\x1b[31m\tb\u202e\nx\ty\n")
    assert not re.search("[\x00-\x1f\u202e]", "".join(inspect_data(source, [])[1]))


@pytest.mark.parametrize(
    "pair", ["train.lr=1", "seed=2", "data.filter=true", "data.train=x.tsv", "data=3", "data.colums.source=de", "data.max_length=9"]
)
def test_settings_without_a_say_are_refused(tmp_path: Path, pair: str) -> None:
    source = write(tmp_path / "d.tsv", "source\ttarget\na\tb\n")
    with pytest.raises(ConfigError, match=re.escape(pair.partition("=")[0].removesuffix(".source"))):
        inspect_data(source, [pair])


def test_other_splits_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "d.tsv", "word\na\n")
    columns = "source and target, audio and text, question, context and answers, tokens and tags, text and label, nor text alone"
    with pytest.raises(ConfigError, match=f"neither columns {columns} among word"):
        inspect_data(source, [f"data.valid={source}"])


def test_unusable_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        inspect_data(str(tmp_path / "absent.tsv"), [])
    with pytest.raises(DataError, match="empty"):
        inspect_data(write(tmp_path / "empty.tsv", ""), [])
    bad = write(tmp_path / "bad.tsv", "source\ttarget\na\tb\nc\n")
    with pytest.raises(DataError, match=r"bad\.tsv:3"):
        inspect_data(bad, ["data.bad_rows=error"])


def test_a_real_data_set_has_the_rows_its_files_have(shared_data: Path) -> None:
    found, _ = inspect_data(f"{shared_data}/multi30k/val.{{en,de}}", [])
    with (shared_data / "multi30k" / "val.en").open(encoding="utf-8") as file:
        assert found["rows"] == len(file.readlines())


RATE = 1000


def record(path: Path, n_samples: int, level: float = 0.25) -> str:
    """Write a recording of one level; return its name."""
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, np.full(n_samples, level), RATE, subtype="PCM_16")
    return path.name


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    """Recordings of two speakers: 0.5 s, the same under another name, 2 s without a word, 1 s, and one that is no audio."""
    names = [record(tmp_path / f"{i}.wav", n) for i, n in enumerate((500, 500, 2000, 1000))]
    (tmp_path / "broken.wav").write_text("no sound", encoding="utf-8")
    said = zip([*names, "broken.wav"], ["go on", "go on", "", "no", "lost"], ["ann", "ann", "bob", "ann", "cid"], strict=True)
    return write(tmp_path / "m.tsv", "".join("\t".join(row) + "\n" for row in [("audio", "text", "speaker"), *said]))


def test_recordings_are_told_of_by_their_lengths_and_transcripts(manifest: str) -> None:
    found, lines = inspect_data(manifest, [])
    spoken = found["spoken"]
    assert (found["rows"], spoken["rows"], spoken["clean"], spoken["nothing_said"]) == (4, 4, 3, 1)
    assert spoken["counts"] == {"duplicates": 1, "contradictions": 0, "leaks": 0}
    assert spoken["hours"] == round((0.5 + 0.5 + 2 + 1) / 3600, 4)
    assert (spoken["lengths"]["audio_seconds"]["min"], spoken["lengths"]["audio_seconds"]["max"]) == (0.5, 2.0)
    assert spoken["lengths"]["text_characters"]["max"] == len("go on")
    assert spoken["speakers"] == {"different": 2, "rows": {"ann": 3, "bob": 1}}
    assert spoken["characters"]["counts"] == {"o": 5, "n": 3, "g": 2}
    assert (found["pairs"], found["labelled"], found["texts"]) == ({}, {}, {})
    told = (r"  duplicates +1 +25\.00%", r"  audio seconds +0\.5 .* 2\.0", r"  ann +3 +75\.00%", r"  3 different, .*: o n g")
    for line in (*told, "  empty transcripts: 1 of 4; .*"):
        assert any(re.fullmatch(line, one) for one in lines), line
    assert as_json(found) == found


def test_a_broken_recording_is_a_bad_row_with_its_reason(manifest: str) -> None:
    found, _ = inspect_data(manifest, [])
    assert found["bad"] == 1
    path = Path(manifest).with_name("broken.wav")
    assert found["bad_examples"][0].startswith(f"{manifest}:6: {path}: is no audio that can be read")
    with pytest.raises(DataError, match=r"m\.tsv:6: .*broken\.wav: is no audio .*data\.bad_rows=skip"):
        inspect_data(manifest, ["data.bad_rows=error"])


def test_recordings_that_are_damaged_behind_a_good_header_are_bad_rows(manifest: str) -> None:
    cut, holed = (Path(manifest).with_name(name) for name in ("1.wav", "2.wav"))
    cut.write_bytes(cut.read_bytes()[:-400])
    soundfile.write(holed, np.array([0.25, np.nan, 0.25]), RATE, subtype="FLOAT")
    found, _ = inspect_data(manifest, [])
    assert (found["rows"], found["bad"]) == (2, 3)
    assert found["bad_examples"][0].startswith(f"{manifest}:3: {cut}: is cut off")
    assert found["bad_examples"][1].startswith(f"{manifest}:4: {holed}: 1 of its samples are no finite numbers")


def test_the_column_of_recordings_holds_recordings_and_not_texts(manifest: str) -> None:
    found, _ = inspect_data(manifest, [])
    assert found["columns"]["audio"] == {"kinds": {"recording": 4}, "lengths": {}}
    assert found["columns"]["text"]["kinds"] == {"text": 4}


def test_a_recording_is_heard_once_in_all_readings(manifest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def heard(audio: str) -> Wave:
        opened.append(Path(audio).name)
        return read_audio(audio)

    monkeypatch.setattr("heed.data.recordings.read_audio", heard)
    found, _ = inspect_data(manifest, [])
    assert found["spoken"]["examples"]["duplicates"]  # for which the rows are read again
    assert sorted(opened) == ["0.wav", "1.wav", "2.wav", "3.wav", "broken.wav"]


def test_recordings_and_speakers_in_other_splits_are_told(manifest: str, tmp_path: Path) -> None:
    record(tmp_path / "other" / "same.wav", 1000)
    record(tmp_path / "other" / "new.wav", 1000, level=-0.5)
    rows = "audio\ttext\tspeaker\nsame.wav\tno\tbob\nnew.wav\tno\tdee\n"
    valid = write(tmp_path / "other" / "valid.tsv", rows)
    found, lines = inspect_data(manifest, [f"data.valid={valid}"])
    assert found["spoken"]["leaks"] == {"valid": 1}
    assert found["spoken"]["speakers_others"]["valid"] == {"different": 2, "rows": {"bob": 1, "dee": 1}}
    assert any(re.fullmatch(r"  recordings also in valid +1 +25\.00%", line) for line in lines)
    assert any(line.startswith("  speakers in common with data.valid: bob;") for line in lines)
    assert "  2 in valid" in lines


def test_a_folder_of_recordings_is_no_folder_of_classes(tmp_path: Path) -> None:
    for name, n_samples, said in (("a/1", 300, "one"), ("a/2", 400, "two"), ("b", 500, "three")):
        record(tmp_path / f"{name}.wav", n_samples)
        write(tmp_path / f"{name}.txt", f"{said}\n")
    (tmp_path / "a" / "3.wav").write_bytes(b"")
    write(tmp_path / "a" / "3.txt", "nothing")
    found, lines = inspect_data(str(tmp_path), [])
    assert (found["format"], found["rows"], found["bad"], found["labelled"]) == ("folder", 3, 1, {})
    assert found["bad_examples"][0].startswith(f"{tmp_path / 'a' / '3.wav'}: is empty")
    assert found["spoken"]["lengths"]["audio_seconds"]["median"] == 0.4
    assert sum(found["files"].values()) == sum(path.stat().st_size for path in tmp_path.rglob("*.*"))
    assert "speakers" not in lines


def test_class_folders_of_texts_are_labelled(tmp_path: Path) -> None:
    for name in ("bad/1", "good/1", "good/2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / f"{name}.txt", name)
    found, lines = inspect_data(str(tmp_path), [])
    assert found["labelled"]["classes"] == {"good": 2, "bad": 1}
    assert found["spoken"] == {}
    assert any(re.fullmatch(r"  good +2 +66\.67%", line) for line in lines)


def test_texts_without_labels_are_searched_for_duplicates_and_leaks(tmp_path: Path) -> None:
    rows = [{"text": text, "url": "x"} for text in ("a song\nof two lines", "once", "a song\nof two lines ", "and more")]
    train = write(tmp_path / "train.jsonl", "".join(json.dumps(row) + "\n" for row in [*rows, {"text": " "}]))
    test = write(tmp_path / "test.jsonl", json.dumps({"text": "and more"}))
    found, lines = inspect_data(train, [f"data.test={test}"])
    texts = found["texts"]
    assert (found["rows"], found["bad"], texts["rows"], texts["clean"]) == (4, 1, 4, 2)
    assert texts["counts"] == {"duplicates": 1, "leaks": 1}
    assert texts["leaks"] == {"test": 1}
    assert (found["pairs"], found["spoken"], found["labelled"]) == ({}, {}, {})
    assert any(re.fullmatch(r"  texts also in test +1 +25\.00%", line) for line in lines)
    assert "  row 3  a song of two lines" in lines


@pytest.mark.parametrize("form", ["file", "folder", "pattern"])
def test_plain_text_is_texts(tmp_path: Path, form: str) -> None:
    write(tmp_path / "a.txt", "To be, or not to be\n")
    if form != "file":
        write(tmp_path / "b.txt", "To be, or not to be")
    source = {"file": tmp_path / "a.txt", "folder": tmp_path, "pattern": tmp_path / "*.txt"}[form]
    found, lines = inspect_data(str(source), [])
    n_files = 1 if form == "file" else 2
    assert (found["texts"]["rows"], found["texts"]["counts"]["duplicates"]) == (n_files, n_files - 1)
    assert found["columns"]["text"]["lengths"]["words"]["max"] == 6
    assert sum(found["files"].values()) == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert "texts" in lines


def test_questions_are_told_of_with_their_contexts_and_answers(tmp_path: Path) -> None:
    rows = toy_questions(12)
    n_without = sum(not row["answers"] for row in rows)
    path, valid = write_squad(tmp_path / "train.json", [*rows, rows[0]], titles=3), write_squad(tmp_path / "valid.json", rows[:2])
    found, lines = inspect_data(str(path), [f"data.valid={valid}"])
    questions = found["questions"]
    assert (found["rows"], found["bad"], found["format"]) == (13, 0, "json")
    assert questions["counts"] == {"duplicates": 1, "leaks": questions["leaks"]["valid"]}
    assert questions["leaks"]["valid"] == sum(row["context"] in {one["context"] for one in rows[:2]} for row in [*rows, rows[0]])
    assert questions["without_answer"] == n_without + (not rows[0]["answers"])
    assert questions["lengths"]["context_characters"]["max"] == max(len(row["context"]) for row in rows)
    for line in (
        r"  without an answer +\d+ .*%",
        r"  contexts also in valid +\d+ .*%",
        r"  answer characters .*",
        r"  \d+ contexts of 3 articles",
    ):
        assert any(re.fullmatch(line, one) for one in lines), line
    assert as_json(found) == found


def test_an_answer_in_the_wrong_place_is_a_bad_row(tmp_path: Path) -> None:
    rows = toy_questions(4, unanswerable=0.0)
    rows[1]["answers"][0]["start"] += 1
    found, _ = inspect_data(str(write_squad(tmp_path / "train.json", rows)), [])
    assert (found["rows"], found["bad"]) == (3, 1)
    assert "question q1: the answer" in found["bad_examples"][0]
    table = tmp_path / "one.csv"
    table.write_text("question,context,answer,start\nWho?,Ann sings,Ann,0\nWhen?,Ann sings,,\n", encoding="utf-8")
    assert inspect_data(str(table), [])[0]["questions"]["without_answer"] == 1


def test_json_of_recordings_can_be_parsed(manifest: str, capsys: pytest.CaptureFixture[str]) -> None:
    app(["inspect", manifest, "--json"], standalone_mode=False)
    printed = json.loads(capsys.readouterr().out)
    assert printed == inspect_data(manifest, [])[0]
    assert printed["spoken"]["rows"] == 4
