"""Speech recognition: what is learned is heard, alone as in a batch, in pieces as at once, live as offline."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_recordings import MODEL, RATE, SETTINGS, texts, tones, write_manifest, write_recordings

import heed
from heed.config import DecodeConfig
from heed.data.audio import from_hops
from heed.data.batch import collate
from heed.decode.ctc import log_likelihood
from heed.errors import ConfigError, DataError
from heed.run import Run, resolve
from heed.tasks.base import Answer
from heed.tasks.listening import Listener, decoder_log_p, quiet_cuts
from heed.tasks.live import Event, LiveRecognizer
from heed.tasks.speech_recognition import SpeechRecognition

TRAIN: dict[str, Any] = {
    "lr": 0.01,
    "warmup": 10,
    "precision": "float32",
    "tensorboard": False,
    "batch_tokens": 1500,
    "label_smoothing": 0.0,
}
EXACT = {"beams": 1, "precision": "float32"}


def trained(folder: Path, steps: int = 150, **task: Any) -> Run:
    rows = write_recordings(folder / "recordings", 48)
    train = write_manifest(folder / "train.tsv", rows)
    recipe = {
        "task": {"name": "speech_recognition", **SETTINGS, **task},
        "data": {"train": str(train), "valid": str(train), "allow_leaks": True},
        "model": {**MODEL, **({"chunk": 4, "left_chunks": 2} if task.get("streaming") else {})},
        "train": {**TRAIN, "steps": steps, "evaluate_every": steps},
        "decode": EXACT,
    }
    return heed.train(recipe, to=folder / "run", quiet=True)


@pytest.fixture(scope="module")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("ctc"))


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("joint"), objective="joint")


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("streaming"), streaming=True, silence_share=0.1)


def recordings(n: int = 6) -> list[dict[str, Any]]:
    return [{"audio": tones(text, seed=90 + i), "sample_rate": RATE, "text": text} for i, text in enumerate(texts(n, seed=5))]


def answers(run: Run, examples: Sequence[dict[str, Any]], **options: Any) -> list[Answer]:
    found = run.predict(list(examples), **options)
    assert isinstance(found, list)
    return found


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
    found = answers(ctc, [{"audio": row["audio"]}, {"audio": raw}, {"audio": array, "sample_rate": RATE}])
    assert len({answer.text for answer in found}) == 1


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


def test_hot_words_change_what_is_heard(ctc: Run) -> None:
    example = {"audio": 0.7 * tones("ab", seed=2) + 0.3 * tones("ad", seed=2), "sample_rate": RATE}
    plain = answers(ctc, [example], beams=8)[0].text
    other = "ad" if "ab" in plain else "ab"
    found = [answers(ctc, [example], beams=8, hot_words=[other], hot_word_boost=boost)[0].text for boost in (1.0, 2.0, 4.0, 6.0, 8.0)]
    assert other not in plain
    assert any(text.startswith(other) for text in found)


def live_events(run: Run, wave: np.ndarray[Any, Any], sizes: Sequence[int]) -> list[Event]:
    assert isinstance(run.task, SpeechRecognition)
    live = LiveRecognizer(run.task, run.model, DecodeConfig(**EXACT))
    bounds = itertools.accumulate(itertools.chain([0], itertools.cycle(sizes)))
    events: list[Event] = []
    for begin, end in itertools.pairwise(bounds):
        if begin >= len(wave):
            break
        events += live.push(wave[begin:end])
    return events + live.finish()


@pytest.mark.parametrize("sizes", [(37,), (400, 3, 90), (100_000,)])
def test_live_answers_are_the_offline_ones(streaming: Run, sizes: Sequence[int]) -> None:
    for example in recordings():
        final = [event.text for event in live_events(streaming, example["audio"], sizes) if event.kind == "final"]
        offline = answers(streaming, [example])[0].text
        assert " ".join(final) == offline


def test_live_texts_grow_and_the_last_is_final(streaming: Run) -> None:
    wave = tones("ab cd ab", seed=3)
    events = live_events(streaming, wave, (100,))
    assert events[-1].kind == "final"
    assert sum(event.kind == "partial" for event in events) >= 2
    assert events[-1].words


def test_a_pause_ends_an_utterance_and_memory_does_not_grow(streaming: Run) -> None:
    assert isinstance(streaming.task, SpeechRecognition)
    live = LiveRecognizer(streaming.task, streaming.model, DecodeConfig(**EXACT))
    noise = 0.01 * np.random.default_rng(1).standard_normal(2 * RATE)
    wave = np.concatenate([tones("ab"), noise.astype(np.float32)])
    finals, held = [], []
    for _ in range(6):
        finals += [event for event in live.push(wave) if event.kind == "final"]
        held.append(len(live.heard))
    assert len(finals) >= 5
    assert max(held) <= 20


def test_a_model_that_hears_whole_recordings_follows_no_stream(ctc: Run) -> None:
    assert isinstance(ctc.task, SpeechRecognition)
    with pytest.raises(ConfigError, match="streaming=true"):
        LiveRecognizer(ctc.task, ctc.model, DecodeConfig())


def test_augmentation_changes_training_recordings_only(ctc: Run) -> None:
    task = SpeechRecognition(ctc.task.config.replace(speed=0.2, volume_db=3.0, noise_share=1.0, silence_share=0.0), ctc.task.parts)
    (encoded,) = task.encode_all(recordings(1), training=True)
    changed = task.augmented(encoded, np.random.default_rng(1))
    assert changed["audio"].shape[0] != encoded["audio"].shape[0]
    assert torch.equal(changed["text"], encoded["text"])
    again = task.augmented(encoded, np.random.default_rng(1))
    assert torch.equal(again["audio"], changed["audio"])
    hushed = SpeechRecognition(task.config.replace(silence_share=0.999), task.parts).augmented(encoded, np.random.default_rng(2))
    assert hushed["text"].numel() == 0


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


def test_noise_of_a_stated_level_is_mixed_in_for_robustness(ctc: Run) -> None:
    examples = recordings(3)
    noisy = ctc.task.disturb(examples, {"noise": "white", "snr_db": 10}, np.random.default_rng(0))
    for before, after in zip(examples, noisy, strict=True):
        wave, mixed = before["audio"].astype(np.float64), np.asarray(after["audio"], np.float64)
        scale = float(wave @ mixed / (wave @ wave))
        noise = mixed / scale - wave
        assert 10 * np.log10((wave**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.3)
    assert len(ctc.task.disturbances) == 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"streaming": True, "objective": "attention"}, "whole recording"),
        ({"streaming": True, "normalise": "utterance"}, "whole recording"),
        ({"noise": "street.wav"}, "task.noise_share"),
        ({"noise_db": [20, 5]}, "first is above the second"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve({"task": {"name": "speech_recognition", **settings}})


def test_a_recording_that_cannot_be_heard_is_named(ctc: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound at all")
    with pytest.raises(DataError, match=r"broken\.wav"):
        ctc.predict({"audio": str(broken)})
    assert ctc.task.fault({"audio": str(broken), "text": "a"})
