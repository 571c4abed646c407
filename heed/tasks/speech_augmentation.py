"""How training recordings are changed before they are heard, and what is hidden of what is heard.

Left out: the disturbances that robustness is measured against, which no training hears.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor

from heed.data.audio import from_hops, to_hops
from heed.data.features import Features
from heed.data.noise import NoiseSource, disturbed
from heed.data.spec_augment import spec_augment
from heed.data.store import Encoded
from heed.data.vocal_tract import stretch_frequencies
from heed.data.whisper import WhisperFeatures
from heed.errors import DataError
from heed.tasks.speech_settings import SpeechRecognitionSettings


def changes_recordings(config: SpeechRecognitionSettings) -> bool:
    """Return whether settings ask for any change of recordings; masks and vocal tracts change what is heard of them."""
    changes = (config.speed, config.volume_db, config.equaliser_db, config.noise_share, config.silence_share, config.quiet_seconds)
    return any(changes)


def noise_source(config: SpeechRecognitionSettings) -> NoiseSource:
    """Read what task.noise names, once task.sample_rate is settled; raises DataError."""
    try:
        return NoiseSource.named(config.noise, cast(int, config.sample_rate))
    except DataError as error:
        raise DataError(f"task.noise: {error}") from error


def changed_recording(encoded: Encoded, draw: np.random.Generator, config: SpeechRecognitionSettings, noise: NoiseSource) -> Encoded:
    """Play a recording at another speed and level, by another microphone, with quiet around it and noise in it; or nothing at all.

    Args:
        encoded: `audio`, hops of 16-bit samples (T, hop), and `text`, its ids (L,), of which none are left where nothing is said.
    """
    rate, hop = cast(int, config.sample_rate), encoded["audio"].size(1)
    wave = from_hops(encoded["audio"].numpy())
    if draw.random() < config.silence_share:
        hushed = noise.alone(len(wave), draw)
        return {"audio": torch.from_numpy(to_hops(hushed, hop)), "text": encoded["text"][:0]}
    changed = disturbed(
        wave,
        draw,
        speed=config.speed,
        volume_db=config.volume_db,
        equaliser_db=config.equaliser_db,
        sample_rate=rate,
        noise=noise if draw.random() < config.noise_share else None,
        noise_db=(config.noise_db[0], config.noise_db[1]),
        quiet=round((config.quiet_seconds or 0.0) * rate),
        room=noise,
    )
    return {**encoded, "audio": torch.from_numpy(to_hops(changed, hop))}


def changed_features(heard: Tensor, mask: Tensor, config: SpeechRecognitionSettings, features: Features | WhisperFeatures) -> Tensor:
    """Return features (B, T, F) of frames (B, T) as training hears them: from other vocal tracts, and with parts hidden."""
    if config.vocal_tract:
        assert isinstance(features, Features)
        heard = stretch_frequencies(heard, config.vocal_tract, features.settings)
    if not (config.frequency_masks or config.time_masks):
        return heard
    width = max(1, round(config.frequency_width * heard.size(-1)))
    return spec_augment(
        heard,
        mask,
        n_frequency_masks=config.frequency_masks,
        frequency_width=width,
        n_time_masks=config.time_masks,
        time_share=config.time_share,
    )
