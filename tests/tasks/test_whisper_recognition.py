"""Speech recognition with the features and tokens of imported Whisper models."""

from typing import Any

import pytest
from toy_listeners import recordings

from heed.data.batch import collate
from heed.errors import ConfigError
from heed.model.config import ModelConfig
from heed.model.models import build_model
from heed.run import resolve
from heed.tasks.speech_recognition import SpeechRecognition


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
