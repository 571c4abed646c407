"""What may be set about speech recognition, and which settings would do nothing beside others."""

from collections.abc import Iterator
from typing import Any, Literal, cast

from pydantic import Field, model_validator

from heed.config import Settings
from heed.data.feature_settings import FeatureSettings
from heed.data.ngrams import MAX_ORDER
from heed.data.whisper import WhisperSettings

ENERGIES = ("vocal_tract", "range_db", "without_level")
# What belongs to other features than these.
ONLY_ELSEWHERE = {
    "log_mel": (),
    "mfcc": ENERGIES,
    "whisper": ("n_mfcc", "lowest_hz", "highest_hz", "window", "deltas", "zero_crossings", "spectral_entropy", *ENERGIES),
}


class SpeechRecognitionSettings(Settings):
    """What is particular to speech recognition."""

    sample_rate: int | None = Field(
        default=None, ge=1000, description="samples a second that recordings are brought to; default: that of the first, at most 16,000"
    )
    features: Literal["log_mel", "mfcc", "whisper"] = Field(
        default="log_mel", description="what a frame is described by; whisper: its log-mel energies, of windows of piece_seconds"
    )
    n_mels: int = Field(default=80, ge=1, description="bands of the mel filter bank")
    n_mfcc: int = Field(default=13, ge=1, description="mfcc: coefficients kept")
    lowest_hz: float = Field(default=20.0, ge=0, description="where the mel filter bank begins")
    highest_hz: float | None = Field(default=None, gt=0, description="where it ends; default: half the sample rate")
    frame_ms: float = Field(default=25.0, gt=0, description="milliseconds a frame is long")
    hop_ms: float = Field(
        default=10.0, gt=0, description="milliseconds from one frame to the next; data.max_length and batch_tokens count them"
    )
    window: Literal["hann", "hamming"] = Field(default="hann", description="how the ends of a frame fade")
    deltas: Literal[0, 1, 2] = Field(default=0, description="orders of change over time added to each feature")
    zero_crossings: bool = Field(default=False, description="add how often the wave crosses zero")
    spectral_entropy: bool = Field(default=False, description="add how evenly the energy is spread over frequencies")
    normalise: Literal["none", "utterance", "global", "running"] | None = Field(
        default=None, description="mean and deviation that features are brought to 0 and 1 by; default: utterance, for streams global"
    )
    range_db: float | None = Field(
        default=None,
        ge=1,
        description="log_mel: only so many decibels below a recording's loudest are told apart, so that rooms and levels count for less",
    )
    without_level: bool = Field(
        default=False, description="log_mel: each frame's energies are told from their mean, so that how loud it is counts for nothing"
    )
    tokens: Literal["characters", "subwords", "spelled"] = Field(
        default="characters", description="what a transcript is cut into; spelled: into the units that task.spelling says"
    )
    spelling: str | None = Field(
        default=None, description="a table of characters and their units (a tab between, units apart by spaces), such as dots and dashes"
    )
    vocab_size: int = Field(default=1000, ge=300, description="sub-words to learn, or most frequent characters")
    ngram_order: int = Field(
        default=0,
        ge=0,
        le=MAX_ORDER,
        description="labels of the longest n-grams learned from the transcripts (of characters, where these are spelled), whose score is "
        "added to that of answers, by decode.language_weight; 0 learns none",
    )
    transcripts: Literal["none", "lower", "words"] = Field(
        default="none", description="what is done to transcripts before learning and scoring; words: lower case without punctuation"
    )
    objective: Literal["ctc", "attention", "joint"] = Field(
        default="ctc", description="how labels meet the sound: CTC, a decoder with attention, or both trained together"
    )
    ctc_weight: float = Field(default=0.3, gt=0, lt=1, description="joint: share of CTC in the loss, and in choosing the answer")
    languages: list[str] | None = Field(
        default=None, description="languages, of which each transcript begins with a token; default: those of a column language, if any"
    )
    language: str | None = Field(
        default=None, description="the one of task.languages that is spoken; default: the decoder finds out (imported models only)"
    )
    prefix: list[str] = Field(
        default_factory=list, description="tokens before every transcript, behind that of the language (imported models only)"
    )
    suppressed: list[int] = Field(default_factory=list, description="attention: ids that are never written")
    suppressed_first: list[int] = Field(default_factory=list, description="attention: ids that no transcript begins with")
    streaming: bool = Field(default=False, description="hear in chunks of model.chunk places, so that answers come while somebody speaks")
    speed: float = Field(default=0.1, ge=0, lt=0.5, description="augmentation: recordings are played up to this share faster or slower")
    volume_db: float = Field(default=6.0, ge=0, le=40, description="augmentation: up to so many decibels louder or softer")
    noise_share: float = Field(default=0.0, ge=0, le=1, description="augmentation: share of recordings that noise is mixed into")
    noise_db: list[float] = Field(
        default_factory=lambda: [5.0, 30.0],
        min_length=2,
        max_length=2,
        description="augmentation: decibels of speech over noise, from and to",
    )
    noise: str = Field(default="steady", description="augmentation: steady (white, pink and hum), or a recording of noise")
    silence_share: float = Field(
        default=0.02, ge=0, lt=1, description="augmentation: share replaced by silence or steady noise with nothing said"
    )
    quiet_seconds: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="augmentation: up to so many seconds of quiet before and behind a recording; default: 0.5 for streams, else 0",
    )
    equaliser_db: float = Field(
        default=0.0, ge=0, le=40, description="augmentation: frequencies up to so many decibels louder or softer, as other microphones hear"
    )
    vocal_tract: float = Field(
        default=0.0, ge=0, lt=0.5, description="augmentation: voices are of a vocal tract up to this share longer or shorter (log_mel)"
    )
    frequency_masks: int = Field(default=2, ge=0, description="SpecAugment: bands of frequencies hidden")
    frequency_width: float = Field(default=0.2, gt=0, le=1, description="SpecAugment: widest band, as a share of the features")
    time_masks: int = Field(default=2, ge=0, description="SpecAugment: stretches of time hidden")
    time_share: float = Field(default=0.1, gt=0, le=1, description="SpecAugment: longest stretch, as a share of the recording")
    pause_seconds: float = Field(default=0.6, gt=0, description="live: seconds without a label that end an utterance")
    piece_seconds: float = Field(
        default=30.0, ge=1, description="longer recordings are cut where they are quietest before they are answered"
    )

    def whisper_settings(self) -> WhisperSettings:
        """Return what the features of Whisper are told; raises ConfigError for what they cannot be."""
        rate = self._settled_rate
        n_fft, hop = (round(rate * ms / 1000) for ms in (self.frame_ms, self.hop_ms))
        return WhisperSettings(rate, n_fft, hop, self.n_mels, round(self.piece_seconds))

    def feature_settings(self) -> FeatureSettings:
        """Return what all other features are told; raises ConfigError for what they cannot be."""
        return FeatureSettings(
            sample_rate=self._settled_rate,
            frame_ms=self.frame_ms,
            hop_ms=self.hop_ms,
            window=self.window,
            kind=cast(Any, self.features),
            n_mels=self.n_mels,
            n_mfcc=self.n_mfcc,
            lowest_hz=self.lowest_hz,
            highest_hz=self.highest_hz,
            deltas=self.deltas,
            zero_crossings=self.zero_crossings,
            spectral_entropy=self.spectral_entropy,
            range_db=self.range_db,
            without_level=self.without_level,
            normalise=cast(Any, self.normalise),
        )

    @property
    def _settled_rate(self) -> int:
        assert self.sample_rate is not None
        return self.sample_rate

    @model_validator(mode="after")
    def _fits_task(self) -> "SpeechRecognitionSettings":
        if self.streaming and self.objective == "attention":
            raise ValueError("task.objective=attention needs the whole recording; for task.streaming=true choose ctc or joint")
        if self.streaming and self.normalise == "utterance":
            raise ValueError("task.normalise=utterance needs the whole recording; for task.streaming=true choose global or running")
        if self.streaming and self.range_db is not None:
            raise ValueError(f"task.range_db={self.range_db} needs the whole recording; for task.streaming=true leave it out")
        self._fits_features()
        for name, reason in (*self._without_effect(), *self._of_level()):
            if self.changed(name):
                raise ValueError(f"task.{name} would be ignored {reason}")
        if self.noise_db[0] > self.noise_db[1]:
            raise ValueError(f"task.noise_db={self.noise_db}: the first is above the second; write [from, to] in decibels")
        if (self.tokens == "spelled") != (self.spelling is not None):
            raise ValueError(f"task.tokens={self.tokens} with task.spelling={self.spelling}: tokens=spelled and a table need each other")
        return self

    def _without_effect(self) -> Iterator[tuple[str, str]]:
        """Yield the settings that others leave without effect, with the reason and what to do."""
        if self.objective != "joint":
            yield "ctc_weight", f"by task.objective={self.objective}; leave it out, or choose joint"
        if self.objective == "attention":
            yield "ngram_order", "by task.objective=attention, which has no scores of CTC; leave it out, or choose joint"
        if self.objective != "attention":
            for name in ("language", "prefix", "suppressed", "suppressed_first"):
                yield name, f"by task.objective={self.objective}; leave it out, or choose attention"
        for name in ONLY_ELSEWHERE[self.features]:
            yield name, f"by task.features={self.features}; leave it out"
        if self.tokens == "spelled":
            yield "vocab_size", "by task.tokens=spelled, whose units are those of the table; leave it out"
        if not self.noise_share:
            for name in ("noise", "noise_db"):
                yield name, "without task.noise_share; leave it out, or set the share, such as 0.5"
        if not self.frequency_masks:
            yield "frequency_width", "with task.frequency_masks=0; leave one of them out"
        if not self.time_masks:
            yield "time_share", "with task.time_masks=0; leave one of them out"
        if not self.streaming:
            yield "pause_seconds", "without task.streaming=true: whole recordings are not ended by pauses; leave it out"

    def _of_level(self) -> Iterator[tuple[str, str]]:
        """Yield the settings of how loud things are, where that counts for nothing."""
        if self.without_level and self.volume_db:
            yield "volume_db", "with task.without_level=true, which no volume changes; leave it out"
        if self.without_level:
            yield "range_db", "with task.without_level=true, which knows no loudest; leave one of them out"

    def _fits_features(self) -> None:
        """Refuse what goes with other features than Whisper's alone."""
        if self.features != "whisper":
            return
        if self.normalise not in (None, "none"):
            raise ValueError(f"task.normalise={self.normalise} would be ignored by task.features=whisper; leave it out")
        if self.streaming:
            raise ValueError("task.features=whisper hears whole windows; for task.streaming=true choose log_mel or mfcc")
