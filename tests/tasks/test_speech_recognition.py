"""Speech recognition: tones that stand for letters are learned, and answered alike however a recording is given."""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from toy_listeners import EXACT, TRAIN, answers, build, recordings, trained
from toy_recordings import MODEL, RATE, SETTINGS, texts, tones, write_manifest, write_recordings

import heed
from heed.config import DecodeConfig
from heed.data.audio import from_hops
from heed.data.batch import collate
from heed.data.features import Features
from heed.decode.ctc import log_likelihood
from heed.errors import DataError
from heed.run import Run, resolve
from heed.tasks.base import Answer
from heed.tasks.listening import Listener, Pieces, Reading, _spectrogram, decoder_log_p, quiet_cuts
from heed.tasks.speech_recognition import SpeechRecognition

pytest_plugins = ["toy_listeners"]


@pytest.mark.parametrize("which", ["ctc", "joint", "streaming"])
def test_tones_never_heard_before_are_written_down(which: str, request: pytest.FixtureRequest) -> None:
    run, examples = request.getfixturevalue(which), recordings(12)
    right = [answer.text == example["text"] for answer, example in zip(answers(run, examples), examples, strict=True)]
    assert sum(right) >= 9


@pytest.mark.parametrize("which", ["ctc", "joint", "streaming"])
@pytest.mark.parametrize("beams", [1, 4])
def test_a_batch_answers_as_its_members_alone(which: str, beams: int, request: pytest.FixtureRequest) -> None:
    run, examples = request.getfixturevalue(which), recordings()
    together = answers(run, examples, beams=beams)
    for one, example in zip(together, examples, strict=True):
        alone = run.predict(example, beams=beams)
        assert isinstance(alone, Answer)
        assert (one.text, one.details["words"]) == (alone.text, alone.details["words"])
        assert one.score == pytest.approx(alone.score, abs=1e-4)


def test_words_have_the_times_at_which_they_sound(ctc: Run) -> None:
    example = {"audio": tones("a b", seed=1), "sample_rate": RATE}
    words = answers(ctc, [example])[0].details["words"]
    assert [word["word"] for word in words] == ["a", "b"]
    for word, (begin, end) in zip(words, [(0.06, 0.14), (0.34, 0.42)], strict=True):
        assert begin - 0.1 < word["start"] < word["end"] < end + 0.1


def test_a_path_bytes_and_an_array_give_the_same_answer(ctc: Run, tmp_path: Path) -> None:
    row = write_recordings(tmp_path, 1, seed=9)[0]
    raw = Path(row["audio"]).read_bytes()
    array = from_hops(ctc.task.encode({"audio": row["audio"]})["audio"].numpy())
    given = [row["audio"], Path(row["audio"]), raw, bytearray(raw), memoryview(raw), memoryview(array)]
    found = answers(ctc, [{"audio": audio} for audio in given[:-1]] + [{"audio": array, "sample_rate": RATE}])
    assert len({(answer.text, answer.score) for answer in found}) == 1
    with pytest.raises(DataError, match="is no audio that can be read"):  # bytes are those of a file, whatever they are a view of
        answers(ctc, [{"audio": given[-1]}])
    seen = [{"audio": audio, "text": row["text"]} for audio in given[:-1]]
    survey = build([row]).survey(seen[2:], {"test": [{**row, "audio": raw}]})
    assert survey.to_json()["counts"]["duplicates"] == 2
    assert survey.to_json()["leaks"] == {"test": 3}


def test_silence_and_steady_noise_are_nothing_said(tmp_path: Path) -> None:
    run = trained(tmp_path, steps=200, silence_share=0.15)
    draw = np.random.default_rng(4)
    quiet = [np.zeros(RATE, np.float32), 0.02 * draw.standard_normal(RATE).astype(np.float32)]
    assert [answer.text for answer in answers(run, [{"audio": wave, "sample_rate": RATE} for wave in quiet])] == ["", ""]


def test_a_long_recording_is_cut_where_it_is_quiet_and_answered_whole(ctc: Run) -> None:
    hop = 20
    loud = torch.full((50, hop), 1000, dtype=torch.int16)
    quiet = torch.zeros(30, hop, dtype=torch.int16)
    hops = torch.cat([loud, quiet, loud, quiet, loud])
    cuts = quiet_cuts(hops, 90)
    assert all(50 <= cut <= 80 or 130 <= cut <= 160 for cut in cuts)
    assert max(np.diff([0, *cuts, len(hops)])) <= 90
    spoken = texts(8, seed=6)
    wave = np.concatenate([tones(text + " ", seed=i) for i, text in enumerate(spoken)])
    long = SpeechRecognition(ctc.task.config.replace(piece_seconds=2.0), ctc.task.parts)
    listener = Listener(long, ctc.model, DecodeConfig(**EXACT))
    with torch.inference_mode():
        found = listener.answers(collate([long.encode({"audio": wave, "sample_rate": RATE})]))[0]
    alone = [answer.text for answer in answers(ctc, [{"audio": tones(text, seed=i), "sample_rate": RATE} for i, text in enumerate(spoken)])]
    hits = sum(word in found.text.split() for word in " ".join(alone).split())
    assert hits >= 0.8 * len(" ".join(alone).split())
    starts = [word["start"] for word in found.details["words"]]
    assert starts == sorted(starts)
    assert starts[-1] > 3


def test_beams_find_what_is_likelier_and_n_best_come_in_order(ctc: Run) -> None:
    for greedy, found in zip(answers(ctc, recordings()), answers(ctc, recordings(), beams=8, n_best=3), strict=True):
        assert found.score >= greedy.score - 0.01 or len(found.text) != len(greedy.text)
        scores = [found.score, *(other.score for other in found.others)]
        assert len(found.others) == 2
        assert len({found.text, *(other.text for other in found.others)}) == 3
        assert len(scores) == 3


def test_the_joint_score_is_the_weighed_sum_of_ctc_and_decoder(joint: Run) -> None:
    task, options = joint.task, DecodeConfig(beams=3, precision="float32")
    assert isinstance(task, SpeechRecognition)
    batch = collate(task.encode_all(recordings(1)))
    with torch.inference_mode():
        reading = Listener(task, joint.model, options)._read(batch)[0]
        memory = joint.model.encode(*task.features(batch["audio"], batch.mask("audio")))
        places = torch.ones(memory.shape[:2], dtype=torch.bool)
        candidates = [one.ids for one in reading.found]
        by_decoder = decoder_log_p(joint.model, memory, places, candidates)
    assert reading.log_p is not None
    by_ctc = [log_likelihood(reading.log_p, ids) for ids in candidates]
    scores = [0.3 * a + 0.7 * b for a, b in zip(by_ctc, by_decoder, strict=True)]
    assert [one.score for one in reading.found] == pytest.approx(scores, abs=1e-3)
    assert scores == sorted(scores, reverse=True)


def test_each_language_has_a_token_in_front_and_is_told(tmp_path: Path) -> None:
    rows = [{**row, "language": "xx" if "a" in row["text"] else "yy"} for row in write_recordings(tmp_path / "r", 32)]
    train = write_manifest(tmp_path / "train.tsv", rows)
    recipe = {
        "task": {"name": "speech_recognition", **SETTINGS},
        "data": {"train": str(train), "valid": str(train), "allow_leaks": True},
        "model": MODEL,
        "train": {**TRAIN, "steps": 120, "evaluate_every": 120},
        "decode": EXACT,
    }
    run = heed.train(recipe, to=tmp_path / "run", quiet=True)
    assert isinstance(run.task, SpeechRecognition)
    assert run.task.languages == ["xx", "yy"]
    found = answers(run, [{"audio": row["audio"]} for row in rows[:12]])
    told = [answer.details.get("language") == row["language"] for answer, row in zip(found, rows, strict=False)]
    assert sum(told) >= 10
    assert not any("xx" in answer.text or "yy" in answer.text for answer in found)


def test_a_picture_shows_energies_whatever_the_model_hears_and_labels_in_the_order_they_come_up(ctc: Run, tmp_path: Path) -> None:
    row = write_recordings(tmp_path, 1, seed=9)[0]
    answer = answers(ctc, [row])[0]
    picture = ctc.task.pictures(ctc.model, row, answer)
    assert picture is not None
    labels, values = picture["posteriors"]["labels"], np.array(picture["posteriors"]["values"])
    assert labels[0] == ""
    peaks = values[1:].argmax(1).tolist()
    assert peaks == sorted(peaks)
    assert len(set(peaks)) > 1
    task = ctc.task
    assert isinstance(task, SpeechRecognition)
    cepstral = SpeechRecognition(task.config.replace(features="mfcc", n_mfcc=5), task.parts)
    cepstral.parts["features"] = Features(replace(task.features.settings, kind="mfcc", n_mfcc=5))
    batch = collate([task.encode(row)])
    np.testing.assert_array_equal(_spectrogram(cepstral, batch), _spectrogram(task, batch))
    assert _spectrogram(task, batch).shape[1] == SETTINGS["n_mels"]


def test_a_recording_that_cannot_be_heard_is_named(ctc: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound at all")
    with pytest.raises(DataError, match=r"broken\.wav"):
        ctc.predict({"audio": str(broken)})
    assert ctc.task.fault({"audio": str(broken), "text": "a"})


@pytest.mark.parametrize("rate", [RATE, 2 * RATE, 3000])
def test_an_array_with_its_rate_is_taken_as_the_file_of_the_same_samples(tmp_path: Path, rate: int) -> None:
    samples = tones("ab cd", seed=4)
    path = tmp_path / "x.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    row = write_recordings(tmp_path / "r", 1)[0]
    task = build([row], sample_rate=RATE, noise_share=1.0)
    file, array = ({"audio": audio, "sample_rate": rate, "text": "ab cd"} for audio in (str(path), samples))
    for training in (False, True):
        assert torch.equal(task.encode(file, training)["audio"], task.encode(array, training)["audio"])
    assert task.fault(array) is None
    surveys = [task.survey([one], {"test": [one]}) for one in (file, array)]
    assert surveys[0].to_json()["lengths"] == surveys[1].to_json()["lengths"]
    noisy = [task.disturb([one], {"noise": "white", "snr_db": 5}, np.random.default_rng(3))[0] for one in (file, array)]
    np.testing.assert_array_equal(noisy[0]["audio"], noisy[1]["audio"])
    settled = [resolve({"task": {"name": "speech_recognition"}}).build_task() for _ in range(2)]
    for one, example in zip(settled, (file, array), strict=True):
        one.settle(example)
    assert settled[0].config == settled[1].config


def test_an_array_without_a_rate_has_that_of_the_run_and_a_wrong_rate_is_named(ctc: Run) -> None:
    wave = tones("ab", seed=7)
    assert answers(ctc, [{"audio": wave}])[0] == answers(ctc, [{"audio": wave, "sample_rate": RATE}])[0]
    with pytest.raises(DataError, match="sample rate is '2 kHz'; expected samples a second"):
        ctc.predict({"audio": wave, "sample_rate": "2 kHz"})
    with pytest.raises(DataError, match=r"input 1: 'audio' should be a path, bytes or samples \(with their sample_rate\), found list"):
        ctc.predict({"audio": wave.tolist(), "sample_rate": RATE})


def test_pieces_of_a_script_without_spaces_are_joined_without_any(ctc: Run) -> None:
    assert isinstance(ctc.task, SpeechRecognition)
    assert Pieces(ctc.task).joined(["今天", "", "很好。", "GPT", "works", "well"]) == "今天很好。 GPT works well"


def test_spaces_heard_one_after_the_other_are_written_once(ctc: Run) -> None:
    assert isinstance(ctc.task, SpeechRecognition)
    pieces = Pieces(ctc.task)
    a, space, b = pieces.encode("a b")
    assert pieces.text([a, space, space, b]) == "a b"
    assert [word for word, _, _ in pieces.words([a, space, space, b])] == ["a", "b"]


def test_minutes_of_sound_are_heard_in_pieces_of_bounded_size(ctc: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ctc.task
    assert isinstance(task, SpeechRecognition)
    heard, held = [], []
    read = Listener._read

    def watched(listener: Listener, batch: Any) -> list[Reading]:
        held.append(sum(one() is not None for one in heard))
        heard.extend(map(weakref.ref, found := read(listener, batch)))
        assert batch["audio"].shape[:2] <= (1, task.longest_piece)
        return found

    monkeypatch.setattr(Listener, "_read", watched)
    minutes = 3
    wave = 0.1 * np.random.default_rng(8).standard_normal(60 * minutes * RATE).astype(np.float32)
    answer = answers(ctc, [{"audio": wave, "sample_rate": RATE}])[0]
    assert answer.details["seconds"] == 60 * minutes
    assert len(held) >= 60 * minutes / task.config.piece_seconds
    assert max(held) <= 1  # the posteriors of no piece but the last are kept
