"""How training recordings are changed, and how recordings are disturbed to measure robustness."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from toy_listeners import build, recordings
from toy_recordings import RATE, write_recordings

from heed.errors import DataError
from heed.run import Run
from heed.tasks.speech_recognition import SpeechRecognition

pytest_plugins = ["toy_listeners"]


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


def test_noise_of_a_stated_level_is_mixed_in_for_robustness(ctc: Run) -> None:
    examples = recordings(3)
    noisy = ctc.task.disturb(examples, {"noise": "white", "snr_db": 10}, np.random.default_rng(0))
    for before, after in zip(examples, noisy, strict=True):
        wave, mixed = before["audio"].astype(np.float64), np.asarray(after["audio"], np.float64)
        scale = float(wave @ mixed / (wave @ wave))
        noise = mixed / scale - wave
        assert 10 * np.log10((wave**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.3)
    assert len(ctc.task.disturbances) == 8


@pytest.mark.parametrize(("content", "said"), [(None, "no such file"), (b"no sound", "no audio"), (np.zeros(500), "but silence")])
def test_noise_that_cannot_be_heard_is_refused_before_training(tmp_path: Path, content: Any, said: str) -> None:
    rows, noise = write_recordings(tmp_path, 2), tmp_path / "street.wav"
    if isinstance(content, bytes):
        noise.write_bytes(content)
    elif content is not None:
        soundfile.write(noise, content, RATE)
    with pytest.raises(DataError, match=rf"task\.noise: .*street\.wav: .*{said}"):
        build(rows, noise=str(noise), noise_share=0.5)
