"""Settings of speech recognition: which go together, and what holds where nobody says."""

from typing import Any

import pytest
from toy_listeners import recordings

from heed.errors import ConfigError
from heed.run import resolve
from heed.tasks.speech_recognition import SpeechRecognition


def test_streams_are_learned_with_quiet_around_recordings_and_whole_recordings_without() -> None:
    settled = {}
    for name, settings in {"whole": {}, "live": {"streaming": True}, "set": {"streaming": True, "quiet_seconds": 0.25}}.items():
        task = resolve({"task": {"name": "speech_recognition", **settings}}).build_task()
        task.settle(recordings(1)[0])
        assert isinstance(task, SpeechRecognition)
        settled[name] = (task.config.quiet_seconds, task.config.normalise)
    assert settled == {"whole": (0.0, "utterance"), "live": (0.5, "global"), "set": (0.25, "global")}


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
        ({"volume_db": 3.0, "without_level": True}, "task.volume_db would be ignored with task.without_level=true"),
        ({"range_db": 35.0, "without_level": True}, "task.range_db would be ignored with task.without_level=true"),
        ({"without_level": True, "features": "mfcc"}, "task.without_level would be ignored by task.features=mfcc"),
        ({"ngram_order": 3, "objective": "attention"}, "task.ngram_order would be ignored by task.objective=attention"),
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
        {"ngram_order": 4, "objective": "joint", "without_level": True, "volume_db": 0.0, "streaming": True},
    ],
)
def test_settings_that_have_an_effect_are_kept_when_a_resolved_config_is_read_again(settings: dict[str, Any]) -> None:
    config = resolve({"task": {"name": "speech_recognition", **settings}})
    assert resolve(config.model_dump()) == config
    assert settings.items() <= config.task.items()
