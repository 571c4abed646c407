"""Speech recognition: what is learned is heard, alone as in a batch, in pieces as at once, live as offline."""

import itertools
import json
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from toy_recordings import MODEL, RATE, SETTINGS, texts, tones, write_manifest, write_recordings

import heed
from heed.config import DecodeConfig
from heed.data.audio import Wave, from_hops, read_audio, to_hops
from heed.data.batch import collate
from heed.data.features import Features
from heed.data.read import read_examples
from heed.data.text import Tokenizer
from heed.decode.ctc import log_likelihood
from heed.errors import ConfigError, DataError
from heed.model.config import ModelConfig
from heed.model.models import build_model
from heed.run import Run, resolve
from heed.tasks.base import Answer
from heed.tasks.listening import Listener, Pieces, Reading, _scorers, _spectrogram, decoder_log_p, quiet_cuts
from heed.tasks.live import LONGEST_SECONDS, Event, LiveRecognizer, LiveSound
from heed.tasks.speech_recognition import SpeechRecognition
from heed.training.prepare import prepare

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


def live_sound(run: Run, rate: int | None = None) -> LiveSound:
    return run.live(DecodeConfig(**EXACT), rate=rate)


def test_a_stream_that_ends_within_a_sample_is_heard_and_told_of(streaming: Run) -> None:
    raw = (tones("ab cd", seed=3) * 32767).astype("<i2").tobytes()
    found = []
    for odd in (b"", b"\x01"):
        live = live_sound(streaming)
        events = [event for part in (raw[:301], raw[301:], odd) for event in live.push(part)]
        found.append([event.to_json() for event in [*events, *live.finish()]])
        assert (live.remark is not None) == bool(odd)
    assert found[0] == found[1]
    assert "first byte was left out" in str(live.remark)


@pytest.mark.parametrize(("suffix", "form"), [(".wav", "a WAV"), (".flac", "a FLAC"), (".ogg", "an Ogg")])
@pytest.mark.parametrize("step", [1, 3, 4096])
def test_a_file_is_no_stream_of_samples(streaming: Run, tmp_path: Path, suffix: str, form: str, step: int) -> None:
    path = tmp_path / f"x{suffix}"
    soundfile.write(path, np.zeros(9000), 8000)
    raw, live = path.read_bytes(), live_sound(streaming)
    pushes = map(live.push, (raw[begin : begin + step] for begin in range(0, 12, step)))
    with pytest.raises(DataError, match=f"begins as {form} file does, but raw 16-bit samples"):
        list(pushes)


def test_the_name_of_a_form_inside_a_stream_is_sound(streaming: Run) -> None:
    live = live_sound(streaming)
    for part in (b"\0\0RIFF" * 50, b"RIFF" * 50):
        live.push(part)
    assert live.finish()


def test_live_texts_tell_the_language_that_was_heard_last(streaming: Run) -> None:
    assert isinstance(streaming.task, SpeechRecognition)
    task = SpeechRecognition(streaming.task.config.replace(languages=["xx", "yy"]), streaming.task.parts)
    live = LiveRecognizer(task, streaming.model, DecodeConfig(**EXACT))
    n_tokens, (letter,) = task.tokenizer.vocab_size, task.tokenizer.encode("b")[-1:]
    pause = [0] * (1 + round(task.config.pause_seconds / live.place_seconds))
    heard = [letter, *pause, n_tokens + 1, 0, letter, *pause, letter, *pause, n_tokens, 0, letter, *pause]
    log_p = np.log(np.full((len(heard), n_tokens + 2), 1e-9, np.float32))
    log_p[np.arange(len(heard)), heard] = 0.0
    final = [event for event in live._follow(log_p) if event.kind == "final"]
    assert [(event.text, event.language) for event in final] == [("b", None), ("b", "yy"), ("b", "yy"), ("b", "xx")]
    assert [event.to_json().get("language") for event in final] == [None, "yy", "yy", "xx"]


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


def test_streams_are_learned_with_quiet_around_recordings_and_whole_recordings_without() -> None:
    settled = {}
    for name, settings in {"whole": {}, "live": {"streaming": True}, "set": {"streaming": True, "quiet_seconds": 0.25}}.items():
        task = resolve({"task": {"name": "speech_recognition", **settings}}).build_task()
        task.settle(recordings(1)[0])
        assert isinstance(task, SpeechRecognition)
        settled[name] = (task.config.quiet_seconds, task.config.normalise)
    assert settled == {"whole": (0.0, "utterance"), "live": (0.5, "global"), "set": (0.25, "global")}


def test_quiet_is_put_around_training_recordings_and_leaves_what_is_said(ctc: Run) -> None:
    task = SpeechRecognition(ctc.task.config.replace(quiet_seconds=0.5), ctc.task.parts)
    assert task.augments
    (encoded,) = task.encode_all(recordings(1), training=True)
    n_hops = [task.augmented(encoded, np.random.default_rng(seed))["audio"].size(0) - encoded["audio"].size(0) for seed in range(40)]
    assert min(n_hops) >= 0
    assert 60 < max(n_hops) <= 101
    changed = task.augmented(encoded, np.random.default_rng(3))
    assert torch.equal(changed["text"], encoded["text"])
    heard, said = (one["audio"].reshape(-1).numpy() for one in (changed, encoded))
    assert np.all(np.lib.stride_tricks.sliding_window_view(heard, 300) == said[:300], axis=1).any()


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
        ({"noise": "street.wav"}, "task.noise would be ignored without task.noise_share"),
        ({"noise_db": [0, 20]}, "task.noise_db would be ignored without task.noise_share"),
        ({"ctc_weight": 0.5}, "task.ctc_weight would be ignored by task.objective=ctc"),
        ({"ctc_weight": 0.5, "objective": "attention"}, "task.ctc_weight would be ignored by task.objective=attention"),
        ({"frequency_width": 0.5, "frequency_masks": 0}, "task.frequency_width would be ignored with task.frequency_masks=0"),
        ({"time_share": 0.5, "time_masks": 0}, "task.time_share would be ignored with task.time_masks=0"),
        ({"vocab_size": 500, "tokens": "spelled", "spelling": "table.tsv"}, "task.vocab_size would be ignored by task.tokens=spelled"),
        ({"pause_seconds": 1.0}, "task.pause_seconds would be ignored without task.streaming"),
        ({"deltas": 1, "features": "whisper"}, "task.deltas would be ignored by task.features=whisper"),
        ({"language": "de", "objective": "joint"}, "task.language would be ignored by task.objective=joint"),
        ({"noise_db": [20, 5], "noise_share": 0.5}, "first is above the second"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve({"task": {"name": "speech_recognition", **settings}})


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": "street.wav", "noise_db": [0, 20], "noise_share": 0.5},
        {"ctc_weight": 0.5, "objective": "joint"},
        {"frequency_width": 0.5, "time_share": 0.5},
        {"vocab_size": 5000},  # of characters the most frequent: Chinese has more than the usual 1000
        {"pause_seconds": 1.0, "streaming": True},
    ],
)
def test_settings_that_have_an_effect_are_kept_when_a_resolved_config_is_read_again(settings: dict[str, Any]) -> None:
    config = resolve({"task": {"name": "speech_recognition", **settings}})
    assert resolve(config.model_dump()) == config
    assert settings.items() <= config.task.items()


def test_a_recording_that_cannot_be_heard_is_named(ctc: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF no sound at all")
    with pytest.raises(DataError, match=r"broken\.wav"):
        ctc.predict({"audio": str(broken)})
    assert ctc.task.fault({"audio": str(broken), "text": "a"})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"features": "whisper", "lowest_hz": 50}, r"task\.lowest_hz\S* would be ignored"),
        ({"features": "whisper", "deltas": 1}, r"task\.deltas\S* would be ignored"),
        ({"features": "whisper", "normalise": "global"}, r"task\.normalise\S* would be ignored"),
        ({"features": "whisper", "streaming": True}, "hears whole windows"),
        ({"prefix": ["<|en|>"]}, r"task\.prefix would be ignored by task\.objective=ctc"),
        ({"suppressed": [7], "objective": "joint"}, r"task\.suppressed would be ignored by task\.objective=joint"),
    ],
)
def test_settings_of_whisper_that_would_be_ignored_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        resolve({"task": {"name": "speech_recognition", **settings}})


def whisper_like(**settings: Any) -> SpeechRecognition:
    """Return a prepared task with Whisper's features of windows of two seconds."""
    content = {"name": "speech_recognition", "features": "whisper", "sample_rate": 16_000, "n_mels": 20, "piece_seconds": 2, **settings}
    task = resolve({"task": content}).build_task()
    assert isinstance(task, SpeechRecognition)
    task.settle(recordings(1)[0])
    task.prepare(recordings(2))
    return task


def test_a_model_with_features_like_whisper_learns_from_whole_windows() -> None:
    task = whisper_like(objective="attention")
    config = task.shape(ModelConfig(d_model=16, n_heads=2, n_layers=1, d_ff=24, subsampling=2, audio_stem="frames1d"))
    model = build_model(config)
    batch = collate(task.encode_all(recordings(3), training=True))
    loss = task.loss(model, batch)
    assert loss.units == sum(len(one["text"]) + 1 for one in recordings(3))
    heard, mask = task.features(batch["audio"], batch.mask("audio"))
    assert heard.shape == (3, 200, 20)
    assert mask.all()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"prefix": ["<|en|>"]}, "name tokens of imported vocabularies"),
        ({"language": "en", "languages": ["en"]}, "name tokens of imported vocabularies"),
        ({"suppressed": [5, 4000]}, "4000 is no id"),
        ({"suppressed_first": [-1]}, "-1 is no id"),
        ({"suppressed": [2]}, "2 is the end of a transcript"),
    ],
)
def test_tokens_that_a_vocabulary_lacks_are_refused(settings: dict[str, Any], named: str) -> None:
    task = whisper_like(objective="attention", **settings)
    with pytest.raises(ConfigError, match=named):
        task.shape(ModelConfig())


def test_pieces_that_are_no_window_are_refused() -> None:
    task = whisper_like(objective="attention")
    task.config = task.config.replace(piece_seconds=3)
    with pytest.raises(ConfigError, match="these features hear windows of 2"):
        task.shape(ModelConfig())


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


def build(rows: Sequence[dict[str, Any]], **settings: Any) -> SpeechRecognition:
    """Return a task whose parts are fitted to rows."""
    task = resolve({"task": {"name": "speech_recognition", **SETTINGS, **settings}}).build_task()
    assert isinstance(task, SpeechRecognition)
    task.settle(rows[0])
    task.prepare(rows)
    return task


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


@pytest.mark.parametrize(("content", "said"), [(None, "no such file"), (b"no sound", "no audio"), (np.zeros(500), "but silence")])
def test_noise_that_cannot_be_heard_is_refused_before_training(tmp_path: Path, content: Any, said: str) -> None:
    rows, noise = write_recordings(tmp_path, 2), tmp_path / "street.wav"
    if isinstance(content, bytes):
        noise.write_bytes(content)
    elif content is not None:
        soundfile.write(noise, content, RATE)
    with pytest.raises(DataError, match=rf"task\.noise: .*street\.wav: .*{said}"):
        build(rows, noise=str(noise), noise_share=0.5)


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


NEIGHBOURS = "我你他们今天很好聊用也说"
CHINESE = [*(f"{before}微信{behind}" for before in NEIGHBOURS for behind in NEIGHBOURS), "微信很好", "今天很好", "用 GPT 聊天"]


def gained(task: SpeechRecognition, hot_words: list[str], text: str) -> float:
    """Return what hot words add to a transcript."""
    (weighted,) = _scorers(task, DecodeConfig(hot_words=hot_words, hot_word_boost=1.0), Pieces(task))
    state, total = weighted.scorer.start(), 0.0
    for label in task.tokenizer.encode(text):
        score, state = weighted.scorer.advance(state, label)
        total += score
    return total + weighted.scorer.end(state)


@pytest.mark.parametrize("tokens", ["characters", "subwords"])
def test_hot_words_are_found_inside_a_script_without_spaces(tmp_path: Path, tokens: str) -> None:
    row = write_recordings(tmp_path, 1)[0]
    task = build([{**row, "text": text} for text in CHINESE], tokens=tokens, vocab_size=300)
    tokenizer = task.tokenizer
    inside = tokenizer.encode_inside(["微信"])[0] if isinstance(tokenizer, Tokenizer) else tokenizer.encode("微信")
    found = [text for text in CHINESE if contains(tokenizer.encode(text), inside)]
    assert any(not text.startswith("微信") for text in found)
    for text in found:
        assert gained(task, ["微信"], text) >= len(inside)
        assert gained(task, [" 微信 "], text) == gained(task, ["微信"], text)
    assert gained(task, ["微信"], "今天很好") == 0
    assert gained(task, ["PT"], "用 GPT 聊天") == 0  # in scripts with spaces words begin behind them


def contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(ids[i : i + len(part)]) == list(part) for i in range(len(ids)))


def test_pieces_of_a_script_without_spaces_are_joined_without_any(ctc: Run) -> None:
    assert isinstance(ctc.task, SpeechRecognition)
    assert Pieces(ctc.task).joined(["今天", "", "很好。", "GPT", "works", "well"]) == "今天很好。 GPT works well"


@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 4}, {"beams": 4, "hot_words": ["dab"]}])
def test_live_and_offline_agree_on_a_recording_without_a_pause_that_is_shorter_than_a_piece(streaming: Run, options: Any) -> None:
    assert isinstance(streaming.task, SpeechRecognition)
    config = streaming.task.config
    for seed in range(4):
        wave = tones("".join(np.random.default_rng(seed).choice(list("abcd "), 40)).strip(), seed=seed)
        assert len(wave) / RATE < min(config.piece_seconds, LONGEST_SECONDS)
        live = LiveRecognizer(streaming.task, streaming.model, DecodeConfig(**{**EXACT, **options}))
        final = [event.text for event in [*live.push(wave), *live.finish()] if event.kind == "final"]
        assert final == [answers(streaming, [{"audio": wave, "sample_rate": RATE}], **options)[0].text]


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


def test_hops_are_the_same_however_many_are_rounded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.random.default_rng(1).uniform(-1.2, 1.2, 1003).astype(np.float32)
    whole = to_hops(wave, 7)
    monkeypatch.setattr("heed.data.audio.BLOCK_SAMPLES", 10)
    np.testing.assert_array_equal(to_hops(wave, 7), whole)
    expected = np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)
    np.testing.assert_array_equal(whole.reshape(-1)[: len(wave)], expected)
