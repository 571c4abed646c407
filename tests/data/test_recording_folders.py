"""Folders of recordings with what was said beside each."""

from pathlib import Path

import pytest
from toy_files import LABELLED, SPOKEN, read, recordings, refusal, write

from heed.data.read import ReadLog, data_files, hash_files


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
