"""Recognition of a stream while it sounds: its texts, their ends, and that it is what the whole recording gives."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from toy_listeners import EXACT, answers, recordings
from toy_recordings import RATE, tones

from heed.config import DecodeConfig
from heed.errors import ConfigError, DataError
from heed.run import Run
from heed.tasks.live import LONGEST_SECONDS, Event, LiveRecognizer, LiveSound
from heed.tasks.speech_recognition import SpeechRecognition

pytest_plugins = ["toy_listeners"]


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
