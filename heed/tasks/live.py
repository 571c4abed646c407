"""Live recognition: sound comes in pieces of any size, partial and final texts go out; memory stays constant for hours of it.

What CTC hears is searched chunk by chunk. An utterance ends with a pause of task.pause_seconds, or after LONGEST_SECONDS without one, and
the search begins anew behind it; a whole recording is searched at once up to task.piece_seconds, and cut at quiet places beyond. So the
texts of a recording that is shorter than these and holds no pause are the same, and those of others may differ where they are cut: there a
word may be halved, and hot words and language models forget what came before. A decoder with attention, where the model has one, is not
asked: it would have to wait for the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from heed.config import DecodeConfig
from heed.data.audio import pcm_samples
from heed.data.features import Features, FeatureStream
from heed.decode.ctc import BestPath
from heed.errors import ConfigError, DataError, MissingExtra
from heed.model.models import Encoder, Seq2Seq
from heed.model.streaming import EncoderStream
from heed.tasks.listening import Heard, Listener, Reading
from heed.tasks.speech_recognition import SpeechRecognition

LONGEST_SECONDS = 30.0  # of an utterance: one without a pause is ended all the same
FILES = {b"RIFF": "a WAV file", b"fLaC": "a FLAC file", b"OggS": "an Ogg file", b"ID3\3": "an MP3 file", b"ID3\4": "an MP3 file"}
BLANK = 0

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Event:
    """What is known of an utterance: for now, or for good."""

    kind: Literal["partial", "final"]
    text: str
    start: float  # seconds since the stream began
    end: float
    words: tuple[dict[str, Any], ...] = ()  # of a final text: word, start and end
    language: str | None = None  # of a run that tells languages apart: the last that was heard

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        content: dict[str, Any] = {"type": self.kind, "text": self.text, "start": round(self.start, 3), "end": round(self.end, 3)}
        content |= {} if self.language is None else {"language": self.language}
        return content | ({"words": list(self.words)} if self.kind == "final" else {})


class LiveRecognizer:
    """Recognises one stream of sound."""

    def __init__(self, task: SpeechRecognition, model: Encoder | Seq2Seq, options: DecodeConfig) -> None:
        """Begin a stream.

        Raises:
            ConfigError: the model was not trained with task.streaming=true.
        """
        if not task.config.streaming:
            raise ConfigError("this run hears whole recordings; train one with task.streaming=true to follow a stream")
        self.task, self.model, self.options = task, model, options
        self.listener = Listener(task, model, options)
        assert isinstance(task.features, Features)  # the settings refuse others for streams
        self.features = FeatureStream(task.features)
        self.encoder = EncoderStream(model)
        self.device = next(model.parameters()).device
        self.place_seconds = model.config.subsampling * task.config.hop_ms / 1000
        self.n_places = 0  # heard since the stream began
        self.language: str | None = None  # the last that was heard: an utterance later in a stream need not begin with its token
        self._begin()

    def _begin(self) -> None:
        """Begin an utterance."""
        self.search = self.listener.begun()
        self.heard: list[NDArray[np.float32]] = []
        self.first = self.n_places
        self.quiet = 0  # places without a label at its end
        self.shown = ""

    @torch.inference_mode()
    def push(self, samples: Samples) -> list[Event]:
        """Hear more samples (n,) at the run's sample rate; returns what changed."""
        return self._hear(self.features.push(torch.from_numpy(samples)), last=False)

    @torch.inference_mode()
    def finish(self) -> list[Event]:
        """Hear that the stream has ended; returns the last text."""
        events = self._hear(self.features.finish(), last=True)
        return [*events, *self._ended()]

    def _hear(self, features: torch.Tensor, *, last: bool) -> list[Event]:
        places = self.encoder.push(features[None].to(self.device), last=last)
        if not places.size(1):
            return []
        log_p = self.model.labels(places)[0].float().log_softmax(-1).cpu().numpy()
        return list(self._follow(log_p))

    def _follow(self, log_p: NDArray[np.float32]) -> Iterator[Event]:
        """Search on, place by place where an utterance may end; yields what changed."""
        pause = max(1, round(self.task.config.pause_seconds / self.place_seconds))
        longest = round(LONGEST_SECONDS / self.place_seconds)
        begin = 0
        for place, label in enumerate(log_p.argmax(-1).tolist(), start=1):
            self.quiet = self.quiet + 1 if label == BLANK else 0
            n_places = len(self.heard) + place - begin
            if (self.quiet >= pause or n_places >= longest) and n_places > 0:
                self._advance(log_p[begin:place])
                begin = place
                yield from self._ended()
        self._advance(log_p[begin:])
        text = self._text()
        if text != self.shown:
            self.shown = text
            yield Event("partial", text, *self._span(), language=self._language())

    def _advance(self, log_p: NDArray[np.float32]) -> None:
        self.search.advance(log_p)
        self.heard.extend(log_p)
        self.n_places += len(log_p)

    def _text(self) -> str:
        return self.listener.pieces.text(self._best())

    def _language(self) -> str | None:
        self.language = next(iter(self.listener.pieces.languages_of(self._best())), self.language)
        return self.language

    def _best(self) -> list[int]:
        return self.search.ids if isinstance(self.search, BestPath) else self.search.results(1)[0].ids

    def _span(self) -> tuple[float, float]:
        return self.first * self.place_seconds, self.n_places * self.place_seconds

    def _ended(self) -> list[Event]:
        """End the utterance; returns its final text, if it has one."""
        if not self.heard:
            return []
        reading = Reading([Heard(self._best(), 0.0)], np.stack(self.heard), 0.0)
        words = tuple(self.listener.words(reading, offset=self.first * self.place_seconds))
        text, (start, end), language = self._text(), self._span(), self._language()
        self._begin()
        if not text:
            return []
        if words:
            start, end = words[0]["start"], words[-1]["end"]
        return [Event("final", text, start, end, words, language)]


class LiveSound:
    """A stream of 16-bit samples of any rate for a recognizer: bytes in, events out.

    Attributes:
        odd: half a sample that has come; what is left of it at the end is heard by nobody.
    """

    def __init__(self, recognizer: LiveRecognizer, rate: int | None = None) -> None:
        wanted = recognizer.task.config.sample_rate
        assert wanted is not None  # settled before training
        self.recognizer = recognizer
        self.resampler = None if rate in (None, wanted) else _resampler(rate, wanted)
        self.odd = b""
        self.head = b""  # what the stream begins with

    def push(self, raw: bytes) -> list[Event]:
        """Hear more bytes; returns what changed. Raises DataError for a stream that begins as a file of sound does."""
        self._check_head(raw)
        raw = self.odd + raw
        whole = len(raw) - len(raw) % 2
        self.odd = raw[whole:]
        return self._push(pcm_samples(raw[:whole]), last=False)

    def finish(self) -> list[Event]:
        """Hear that the stream has ended; returns the last text."""
        events = self._push(np.zeros(0, np.float32), last=True) if self.resampler is not None else []
        return [*events, *self.recognizer.finish()]

    @property
    def remark(self) -> str | None:
        """Say what was wrong with a stream that has ended; None where nothing was."""
        if not self.odd:
            return None
        return "the stream ended within a sample, whose first byte was left out; if texts are wrong too, is it 16-bit PCM of one channel?"

    def _check_head(self, raw: bytes) -> None:
        if len(self.head) == 4:
            return
        self.head += bytes(raw)[: 4 - len(self.head)]
        if self.head in FILES:
            raise DataError(
                f"the stream begins as {FILES[self.head]} does, but raw 16-bit samples of one channel are expected; answer the file itself "
                "(heed predict RUN FILE), or send its samples, as ffmpeg -i FILE -f s16le -ac 1 -ar RATE - does"
            )

    def _push(self, samples: Samples, *, last: bool) -> list[Event]:
        if self.resampler is not None:
            samples = self.resampler.resample_chunk(samples, last=last)
        return self.recognizer.push(samples)


def _resampler(rate: int | None, wanted: int) -> Any:
    try:
        import soxr
    except ImportError as error:
        raise MissingExtra("soxr", "speech", "hearing a stream at another rate than the run's") from error
    return soxr.ResampleStream(rate, wanted, 1, dtype="float32")
