"""What is done with recordings and transcripts before training: decoding, checking, counting, refusing."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from toy_listeners import build
from toy_recordings import MODEL, RATE, SETTINGS, write_manifest, write_recordings

from heed.data.audio import Wave, read_audio
from heed.data.read import read_examples
from heed.decode.ctc import log_likelihood
from heed.errors import DataError
from heed.model.config import ModelConfig
from heed.run import resolve
from heed.tasks.base import Answer
from heed.training.prepare import prepare


def squeezed(rows: list[dict[str, str]], n: int) -> list[dict[str, str]]:
    """Give the first rows transcripts with more letters than their recordings have places of 20 ms."""
    return [{**row, "text": "abcd" * 60} if i < n else row for i, row in enumerate(rows)]


def prepared(tmp_path: Path, rows: list[dict[str, str]], **settings: Any) -> tuple[dict[str, Any], list[str]]:
    """Prepare a run with half of the rows twice as validation data; return its data report and what was said."""
    train, valid = write_manifest(tmp_path / "train.tsv", rows), write_manifest(tmp_path / "valid.tsv", rows[-6:])
    recipe = {
        "task": {"name": "speech_recognition", **SETTINGS, **settings},
        "data": {"train": str(train), "valid": str(valid), "allow_leaks": True},
        "model": {**MODEL, **({"architecture": "seq2seq"} if "objective" in settings else {})},
    }
    said: list[str] = []
    prepare(resolve(recipe), tmp_path / "run", said.append)
    return json.loads((tmp_path / "run" / "data_report.json").read_text()), said


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return a list that is given every file that is decoded; nothing is remembered from before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    paths: list[str] = []

    def counted(source: Any, **more: Any) -> Wave:
        paths.append(source)
        return read_audio(source, **more)

    for place in ("heed.data.recordings", "heed.tasks.speech_recognition"):
        monkeypatch.setattr(f"{place}.read_audio", counted)
    return paths


def test_a_recording_is_decoded_once_to_be_checked_and_encoded_and_in_later_runs_too(tmp_path: Path, decoded: list[str]) -> None:
    rows = write_recordings(tmp_path / "r", 12)
    stores = []
    for settings in ({"sample_rate": RATE}, {"sample_rate": RATE}, {"sample_rate": 3000}):
        decoded.clear()
        prepared(tmp_path, rows, **settings)
        assert Counter(decoded) == Counter(row["audio"] for row in [*rows, *rows[-6:]])  # those of both splits are encoded twice
        stores.append((tmp_path / "run/store/train/audio.values").read_bytes())
    assert stores[0] == stores[1] != stores[2]


def test_more_recordings_than_are_kept_are_decoded_again_to_the_same_samples(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_recordings(tmp_path / "r", 12)
    sizes = [2 * soundfile.info(row["audio"]).frames for row in rows]
    found = {}
    for n_bytes in (0, max(sizes) + 40, sum(sizes) + 12 * 40):
        decoded.clear()
        monkeypatch.setattr("heed.tasks.speech_recognition.KEPT_BYTES", n_bytes)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{n_bytes}"))
        task = build(rows, sample_rate=RATE, normalise="global")
        decoded.clear()
        assert [task.fault(row) for row in rows] == [None] * 12
        encoded = task.encode_all(rows, training=True)
        found[len(decoded)] = [one["audio"] for one in encoded]
        assert task._kept.n_free == n_bytes
    assert len(found) == 3
    assert {12, 24} < set(found)
    for one in found.values():
        assert all(torch.equal(a, b) for a, b in zip(one, found[24], strict=True))


def test_a_recording_that_was_good_once_and_is_damaged_now_is_an_error_that_names_it(tmp_path: Path) -> None:
    row = write_recordings(tmp_path, 1)[0]
    task = build([row])
    assert task.fault(row) is None
    task.encode(row)  # which takes what was kept
    Path(row["audio"]).write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"0\.wav: is no audio"):
        task.encode(row)


def test_a_bad_row_of_a_table_names_line_and_file_and_one_of_a_folder_its_file_once(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    rows = write_recordings(folder, 2)
    for row in rows:
        Path(row["audio"]).with_suffix(".txt").write_text(row["text"], encoding="utf-8")
    broken = folder / "1.wav"
    broken.write_bytes(b"no sound")
    table = write_manifest(tmp_path / "train.tsv", rows)
    for source, place in ((str(table), f"{table}:3: {broken}"), (str(folder), str(broken))):
        task = resolve({"task": {"name": "speech_recognition", **SETTINGS}}).build_task()
        with pytest.raises(DataError) as error:
            list(read_examples(source, required=task.columns, check=task.fault))
        assert str(error.value).startswith(f"{place}: is no audio")


def test_transcripts_with_more_labels_than_places_are_counted_and_said_with_what_to_do(tmp_path: Path) -> None:
    rows = squeezed(write_recordings(tmp_path / "r", 20), 3)
    report, said = prepared(tmp_path, rows)
    ((why, n),) = report["unlearnable"].items()
    assert (n, report["unlearnable_valid"]) == (3, {})
    (line,) = [line for line in said if "more labels than places" in line]
    assert line == f"3 of 20 training examples {why}"
    assert "model.subsampling=1 or task.hop_ms below 10" in line


def test_what_is_counted_of_sound_is_hops_and_of_answers_labels(tmp_path: Path) -> None:
    rows = write_recordings(tmp_path / "r", 20)
    report, said = prepared(tmp_path, rows)
    sizes = ", ".join(f"{n:,} audio hops" if name == "audio" else f"{n:,} {name} tokens" for name, n in report["tokens"].items())
    assert any(line.endswith(f"; {sizes}") for line in said)
    task = build(rows)
    encoded = task.encode_all(rows, training=True)
    assert [task.answer_length(Answer(row["text"])) for row in rows] == [len(one["text"]) for one in encoded]
    assert task.token_name == "labels"


def test_what_does_not_fit_is_what_ctc_gives_no_probability(tmp_path: Path) -> None:
    rows = write_recordings(tmp_path, 1)
    task = build(rows)
    model = task.shape(ModelConfig(**MODEL, architecture="encoder", mixer="conformer"))
    (encoded,) = task.encode_all([{**rows[0], "text": "ab"}], training=True)
    n_places = -(-int(task.features.n_frames(torch.tensor(encoded["audio"].size(0)))) // model.subsampling)
    log_p = np.log(np.full((n_places, model.vocab_size), 1 / model.vocab_size))
    for labels in ([4, 5], [4] * (n_places // 2), [4] * (n_places // 2 + 2), [4, 5] * n_places, [4, 5] * (n_places // 2), []):
        fits = np.isfinite(log_likelihood(log_p, labels))
        assert (task.unlearnable({**encoded, "text": torch.tensor(labels, dtype=torch.long)}) is None) == fits


def test_mostly_unlearnable_transcripts_are_refused_but_not_where_a_decoder_alone_writes(tmp_path: Path) -> None:
    rows = squeezed(write_recordings(tmp_path / "r", 20), 11)
    with pytest.raises(DataError, match=r"train\.tsv: 11 of 20 training examples have more labels than places .* set model\.subsampling=1"):
        prepared(tmp_path, rows)
    report, _ = prepared(tmp_path, rows, objective="attention")
    assert report["unlearnable"] == {}


def test_rows_in_which_nothing_is_said_are_learned_and_told_of_and_never_filtered(tmp_path: Path) -> None:
    rows = [{**row, "text": "" if i < 4 else row["text"]} for i, row in enumerate(write_recordings(tmp_path / "r", 12))]
    survey = build(rows).survey(rows, {})
    assert survey.keep.all()
    assert survey.to_json()["nothing_said"] == 4
    assert any(line.startswith("empty transcripts: 4 of 12;") for line in survey.to_json()["warnings"])


@pytest.mark.parametrize("inherits", [False, True])
def test_transcripts_that_are_all_empty_are_refused(tmp_path: Path, inherits: bool) -> None:
    rows = write_recordings(tmp_path, 2)
    task = build(rows)
    task.inherited = dict(task.parts) if inherits else {}
    with pytest.raises(DataError, match="every transcript is empty"):
        task.prepare([{**row, "text": " "} for row in rows])
