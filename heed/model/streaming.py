"""An encoder that follows a stream: frames come in pieces of any size, and every chunk is encoded once all of it is there.

Answers equal those for the whole utterance under chunked attention. What is remembered does not grow with the stream: a few frames for
the stem's convolutions, the keys and values of model.left_chunks chunks, and a few places for the convolutions of Conformer blocks.
"""

import torch
from torch import Tensor

from heed.errors import ConfigError, DataError
from heed.model.block import Stack
from heed.model.cache import KVCache
from heed.model.conformer import ConformerCache
from heed.model.models import Encoder, Seq2Seq
from heed.model.positions import RotaryPositions, SinusoidalPositions, laid_out, rotate, rotation
from heed.model.stems import AudioStem

STEM_PLACES = 2  # before a place, whose frames it sees: layers of stride 2 reach back 2 (subsampling - 1) frames, less than two places


class RollingCache(KVCache):
    """Keys and values of no more than the last `size` places.

    Rotary positions count from the oldest key that is remembered: only differences matter, and numbers stay small. When keys are
    forgotten, the others are turned back; none is remembered long enough for roundings to add up.
    """

    def __init__(self, size: int, rotary: RotaryPositions | None) -> None:
        super().__init__()
        self.size = size
        self.rotary = rotary

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (R, H, T, E) of new places and return them behind all that were remembered, (R, H, S, E)."""
        keys, values = (_wide(x) for x in (k, v))
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)
        n_gone = max(0, keys.size(2) - self.size)
        self.keys, self.values = self._turned_back(keys[:, :, n_gone:], n_gone), values[:, :, n_gone:].clone()
        self.length = keys.size(2) - n_gone
        return keys, values

    def _turned_back(self, keys: Tensor, n_places: int) -> Tensor:
        if self.rotary is None or not n_places:
            return keys.clone()
        return rotate(keys, self.rotary.at(torch.tensor([-n_places], device=keys.device)))


def _wide(x: Tensor) -> Tensor:
    """Return keys or values in the type they are remembered in, which is that of `KVCache`."""
    return x.float() if x.dtype == torch.bfloat16 and x.device.type == "cpu" else x


class EncoderStream:
    """Encodes one utterance while it is being spoken; a plain model or a packed one, in its evaluation mode."""

    def __init__(self, model: Encoder | Seq2Seq) -> None:
        """Begin a stream.

        Raises:
            ConfigError: the model does not hear audio, or not in chunks.
        """
        stem, stack = (model.stem, model.stack) if isinstance(model, Encoder) else (model.source_stem, model.encoder)
        config = model.config
        if config.attention != "chunked":
            raise ConfigError(f"model.attention={config.attention}: a stream needs chunked; train with task.streaming=true")
        if not isinstance(stem, AudioStem):
            raise ConfigError("model.n_features is not set: a stream is of frames of audio, this model reads tokens")
        assert isinstance(stack, Stack)  # no other kind goes with chunked attention
        self.stem, self.stack, self.config = stem, stack, config
        size = config.left_chunks * config.chunk
        self.caches = [ConformerCache(RollingCache(size, stack.rotary)) for _ in stack.blocks]
        self.frames: Tensor | None = None  # (1, T, F), those of places yet to come and of the STEM_PLACES places before them
        self.n_places = 0  # encoded so far
        self.ended = False

    @torch.inference_mode()
    def push(self, features: Tensor, last: bool = False) -> Tensor:
        """Take more frames (1, T, F) and return the places of all chunks that are now complete, (1, S, D); with the last, all others too.

        Raises:
            DataError: the frames are not of this model, or come after the last.
        """
        self._check(features)
        self.ended = last
        earlier = features[:, :0] if self.frames is None else self.frames
        self.frames = frames = torch.cat([earlier, features], dim=1)
        n_before = min(self.n_places, STEM_PLACES)
        n_new = -(-frames.size(1) // self.config.subsampling) - n_before
        n_new = n_new if last else n_new // self.config.chunk * self.config.chunk
        if n_new <= 0:
            return features.new_zeros(1, 0, self.config.d_model)
        n_read = (n_before + n_new - 1) * self.config.subsampling + 1  # frames up to the last that the last new place sees
        x = self._placed(self.stem.heard(frames[:, :n_read])[:, n_before:])
        self.n_places += n_new
        n_done = (n_before + n_new - min(self.n_places, STEM_PLACES)) * self.config.subsampling
        self.frames = frames[:, n_done:].clone()
        encoded: Tensor = self.stack(x, caches=self.caches)
        return encoded

    def _check(self, features: Tensor) -> None:
        if self.ended:
            raise DataError("the stream has ended: nothing can follow its last frames; begin another EncoderStream")
        if features.dim() != 3 or features.size(0) != 1 or features.size(2) != self.config.n_features:
            expected = f"(1, T, {self.config.n_features}): one utterance, model.n_features"
            raise DataError(f"frames of a stream have the shape {tuple(features.shape)}, expected {expected}")

    def _placed(self, x: Tensor) -> Tensor:
        """Add the positions of the next places to x (1, S, D)."""
        positions = self.stem.positions
        if not isinstance(positions, SinusoidalPositions):
            return x if positions is None else positions(x, self.n_places)
        # the same numbers as in a table, which would grow with the stream: sines and cosines are the parts of a rotation
        places = torch.arange(self.n_places, self.n_places + x.size(1), device=x.device)
        turn = rotation(places, x.size(2))  # (S, D / 2)
        return x + laid_out(turn.imag, turn.real, halves=positions.halves)[:, : x.size(2)]
