"""Speech recognition: a recording in, what was said out, with the time of every word.

An encoder hears (convolutions that shorten, then blocks of attention and convolution); CTC, an attention decoder, or both write.
Left out: telling speakers apart, punctuation that nobody spoke, and translation of speech.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.audio import Wave, at_rate, read_audio, to_hops
from heed.data.batch import Batch
from heed.data.features import Features
from heed.data.foreign import ForeignTokenizer
from heed.data.kept_recordings import KeptRecordings
from heed.data.ngrams import Ngrams
from heed.data.noise import NoiseSource, mixed_examples
from heed.data.parts import Part
from heed.data.recordings import Durations, Recordings
from heed.data.rows import Example
from heed.data.spelling import Spelling
from heed.data.spoken import SpokenSurvey, survey_spoken
from heed.data.store import Encoded
from heed.data.text import Tokenizer
from heed.data.transcripts import NORMALISATIONS, normalised
from heed.data.whisper import WhisperFeatures
from heed.data.words import Words
from heed.decode.ctc import n_needed
from heed.errors import ConfigError, DataError
from heed.metrics.speech import SPEECH_FUNCTIONS, SpeechMetrics
from heed.model.config import ModelConfig
from heed.model.losses import LossSum, ctc_loss, vocabulary_loss
from heed.model.models import Encoder, Model, Seq2Seq
from heed.tasks.base import RANKING, WRITING, Answer, Metrics, Task
from heed.tasks.listening import LanguageModel, Listener, Transcriber, recording_picture
from heed.tasks.speech_augmentation import changed_features, changed_recording, changes_recordings, noise_source
from heed.tasks.speech_settings import SpeechRecognitionSettings

if TYPE_CHECKING:
    from heed.tasks.live import LiveSound

HIGHEST_RATE = 16_000  # samples a second; speech has little above half of it
NOISES = ("white", "babble")
NOISE_LEVELS = (20, 10, 5, 0)  # decibels of speech over noise
STATISTICS_ROWS = 600  # recordings whose features are looked at for their mean and deviation, where those are global
LANGUAGE = "<|{}|>"  # how Whisper writes the token of a language
BABBLING = 6  # other utterances that make babble
STREAM_QUIET_SECONDS = 0.5  # before and behind training recordings: more than the chunk that a stream's first words would stand in
KEPT_BYTES = 1 << 27  # of recordings between being checked and being encoded: an hour and ten minutes at 16,000 samples a second

# Settings of decoding that the search over CTC's labels reads.
HEARING = RANKING | {"beams", "language_model", "language_weight", "label_bonus", "hot_words", "hot_word_boost"}


class SpeechRecognition(Task):
    """From sound to text."""

    name: ClassVar[str] = "speech_recognition"
    inputs: ClassVar[dict[str, str]] = {"audio": "audio"}
    outputs: ClassVar[dict[str, str]] = {"text": "transcript"}
    noticed: ClassVar[tuple[str, ...]] = ("speaker", "language", "sample_rate")
    architecture: ClassVar[str] = "encoder"
    reads: frozenset[str] = WRITING | HEARING
    settings: ClassVar[type[Settings]] = SpeechRecognitionSettings
    token_name: ClassVar[str] = "labels"
    heirlooms: ClassVar[tuple[str, ...]] = ("tokenizer", "features")
    cutting: ClassVar[tuple[str, ...]] = (
        *("sample_rate", "features", "n_mels", "n_mfcc", "lowest_hz", "highest_hz", "frame_ms", "hop_ms", "window", "deltas"),
        *("zero_crossings", "spectral_entropy", "range_db", "without_level", "normalise"),
        *("tokens", "spelling", "vocab_size", "transcripts", "objective"),
        *("languages", "language", "prefix", "suppressed", "suppressed_first", "streaming"),
    )
    retold: ClassVar[tuple[str, ...]] = ("language", "prefix")
    window: ClassVar[int] = 64
    group_names: ClassVar[dict[str, str]] = {"best": "Best heard", "median": "In the middle", "worst": "Worst heard"}
    config: SpeechRecognitionSettings
    language_model: Ngrams | LanguageModel | None = None  # lent by whoever answers

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._recordings = Recordings(Durations.of_user(), heard=self._keep)
        self._kept = KeptRecordings(KEPT_BYTES)  # from being checked until they are encoded
        self._voices: list[np.ndarray[Any, Any]] = []
        self._subsampling = 1  # frames of a place, once the model is known
        if self.config.objective != "attention":
            self.reads = HEARING

    @classmethod
    def usual(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what holds where nobody says otherwise, given the settings of the task."""
        model: dict[str, Any] = {
            "architecture": "encoder" if settings.get("objective", "ctc") == "ctc" else "seq2seq",
            "mixer": "conformer",
        }
        model |= {"kernel_size": 15, "d_model": 144, "d_ff": 576, "n_layers": 6, "activation": "silu"}
        model |= {"attention": "chunked"} if settings.get("streaming") is True else {}
        return {"model": model, "data": {"max_length": 2000}, "train": {"batch_tokens": 8000}}

    def settle(self, example: Example) -> None:
        """Take the sample rate of the first recording, and the normalisation that streams allow."""
        changes: dict[str, Any] = {}
        if self.config.sample_rate is None:
            found = read_audio(example["audio"], given_rate=example.get("sample_rate"))
            rate = min(HIGHEST_RATE, found.sample_rate)
            changes["sample_rate"] = rate - rate % 100 if rate >= 1000 else rate  # 11,025 would give no whole number of samples in 10 ms
        if self.config.normalise is None:
            usual = "global" if self.config.streaming else "utterance"  # running ones drift with the pauses of a stream
            changes["normalise"] = "none" if self.config.features == "whisper" else usual
        if self.config.quiet_seconds is None:
            changes["quiet_seconds"] = STREAM_QUIET_SECONDS if self.config.streaming else 0.0
        if changes:
            self.config = self.config.replace(**changes)
        assert self._noise.sample_rate == self.config.sample_rate  # and it is read now: before training, and once

    def fault(self, example: Example) -> str | None:
        """Say what is wrong with a recording that cannot be heard."""
        source = example["audio"]
        return self._recordings.fault(source) if isinstance(source, str) else _fault_of(example)

    def _keep(self, source: str, wave: Wave) -> None:
        """Keep a recording that was decoded to be checked, so that encoding it need not do that again."""
        rate = self.config.sample_rate
        if rate is not None and self._kept.has_room(2 * rate * wave.seconds):
            self._kept.add(source, self._cut(at_rate(wave, rate, source)))

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> SpokenSurvey:
        """Count recordings, speakers and characters, duplicates, contradictions and leaks."""
        return survey_spoken(examples, others, seconds=self._seconds_of, normalise=NORMALISATIONS[self.config.transcripts])

    def _seconds_of(self, example: Example) -> float:
        source = example["audio"]
        if isinstance(source, str):
            return self._recordings.seconds(source)
        return read_audio(source, given_rate=example.get("sample_rate", self.config.sample_rate)).seconds

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the labels and the statistics of global features."""
        texts = [normalised(example["text"], self.config.transcripts) for example in examples]
        spoken = [text for text in texts if text]
        if not spoken:
            raise DataError("every transcript is empty; check the column of the transcripts: data.columns.text=NAME")
        self.parts = dict(self.inherited) or self._fitted(examples, spoken, len(texts))
        return self.parts

    def prepare_own(self, examples: Iterable[Example]) -> None:
        """Learn n-grams of the transcripts where they are asked for."""
        if self.config.ngram_order:
            texts = (normalised(example["text"], self.config.transcripts) for example in examples)
            self.parts["ngrams"] = Ngrams.train((self._units(text) for text in texts if text), order=self.config.ngram_order)

    def _fitted(self, examples: Iterable[Example], spoken: Sequence[str], n_examples: int) -> dict[str, Part]:
        tokenizer: Part
        if self.config.spelling is not None:
            tokenizer = _spelling(self.config.spelling, spoken)
        elif self.config.tokens == "subwords":
            tokenizer = Tokenizer.train(spoken, algorithm="bpe", vocab_size=self.config.vocab_size, cleaning=False)
        else:
            tokenizer = Words.train(spoken, unit="characters", vocab_size=self.config.vocab_size)
        if self.config.languages is None:
            found = Counter(example["language"] for example in examples if example.get("language"))
            self.config = self.config.replace(languages=sorted(map(str, found)))
        return {"tokenizer": tokenizer, "features": self._fitted_features(examples, n_examples)}

    def _units(self, text: str) -> list[str]:
        """Return what n-grams are made of: labels, or the characters that these spell; those that have none are left out."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer, Spelling):
            return [character.replace(" ", "▁") for character in text if character == " " or character in tokenizer.table]
        return [tokenizer.token(i) for i in tokenizer.encode(text) if i > Tokenizer.unk_id]

    def _fitted_features(self, examples: Iterable[Example], n_examples: int) -> Features | WhisperFeatures:
        if self.config.features == "whisper":
            return WhisperFeatures(self.config.whisper_settings())
        step = -(-n_examples // STATISTICS_ROWS)  # evenly over the data, which may be sorted by speaker
        return Features.fit(self.config.feature_settings(), (self._hops(example) for example in islice(examples, 0, None, step)))

    @property
    def tokenizer(self) -> Transcriber:
        """What cuts a transcript."""
        return cast(Transcriber, self.parts["tokenizer"])

    @property
    def own_ngrams(self) -> Ngrams | None:
        """The language model that was learned from the transcripts."""
        return cast(Ngrams | None, self.parts.get("ngrams"))

    @property
    def features(self) -> Features | WhisperFeatures:
        """What describes sound."""
        return cast(Features | WhisperFeatures, self.parts["features"])

    @property
    def languages(self) -> list[str]:
        """The languages that have a token."""
        return self.config.languages or []

    @cached_property
    def language_ids(self) -> dict[str, int]:
        """The id of each language: behind the tokenizer's, or that which an imported one has for it."""
        if isinstance(self.tokenizer, ForeignTokenizer):
            return {name: self.tokenizer.named(LANGUAGE.format(name)) for name in self.languages}
        return {name: self.tokenizer.vocab_size + i for i, name in enumerate(self.languages)}

    @cached_property
    def prefix_ids(self) -> list[int]:
        """The ids of task.prefix."""
        if not isinstance(self.tokenizer, ForeignTokenizer):
            return []
        return [self.tokenizer.named(token) for token in self.config.prefix]

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the sizes of the features and of the labels."""
        wanted = "encoder" if self.config.objective == "ctc" else "seq2seq"
        if model.architecture != wanted:
            raise ConfigError(f"model.architecture: task.objective={self.config.objective} needs {wanted}, found {model.architecture}")
        chunked = model.attention == "chunked"
        if chunked != self.config.streaming:
            needed = (
                "needs model.attention=chunked" if self.config.streaming else "would hear in chunks for nothing; set task.streaming=true"
            )
            raise ConfigError(f"model.attention={model.attention}: task.streaming={str(self.config.streaming).lower()} {needed}")
        self._check_prefix()
        self._check_window()
        self._subsampling = model.subsampling
        ids = self.tokenizer.vocab_size, *(number + 1 for number in self.language_ids.values())
        n_features, absent = self.features.n_features, self.tokenizer.absent
        return model.replace(n_features=n_features, vocab_size=max(ids), absent_ids=absent, ctc=self.config.objective != "attention")

    def _check_window(self) -> None:
        """Refuse pieces that are no window of the features."""
        if isinstance(self.features, WhisperFeatures) and self.config.piece_seconds != self.features.settings.seconds:
            seconds = self.features.settings.seconds
            raise ConfigError(f"task.piece_seconds={self.config.piece_seconds:g}: these features hear windows of {seconds}; set it to that")

    def _check_prefix(self) -> None:
        """Refuse what only the vocabularies of imported models have, and a language that has no token."""
        config = self.config
        foreign = isinstance(self.tokenizer, ForeignTokenizer)
        if not foreign and (config.prefix or config.language):
            raise ConfigError(
                "task.prefix and task.language name tokens of imported vocabularies, and this one is heed's own; leave them out"
            )
        if config.language is not None and config.language not in self.languages:
            raise ConfigError(f"task.language={config.language} is not one of {', '.join(self.languages) or 'no languages'}")
        n_ids = self.tokenizer.vocab_size + (0 if foreign else len(self.languages))
        wrong = [i for i in (*config.suppressed, *config.suppressed_first) if not 0 <= i < n_ids]
        if wrong:
            raise ConfigError(f"task.suppressed and task.suppressed_first: {wrong[0]} is no id, which are 0 to {n_ids - 1}; leave it out")
        if Tokenizer.eos_id in config.suppressed:
            raise ConfigError(f"task.suppressed: {Tokenizer.eos_id} is the end of a transcript, without which none ends; leave it out")

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Return recordings cut into hops of 16-bit samples (T, hop) and, for training, the ids of their transcripts (L,)."""
        encoded: list[Encoded] = [{"audio": self._hops(example)} for example in examples]
        for example in examples:
            self._kept.drop(example["audio"])
        if training:
            texts = self.tokenizer.encode_batch([normalised(example["text"], self.config.transcripts) for example in examples])
            for one, ids, example in zip(encoded, texts, examples, strict=True):
                one["text"] = torch.tensor([*self._language_token(example), *self.prefix_ids, *ids], dtype=torch.long)
        return encoded

    def _hops(self, example: Example) -> Tensor:
        """Return a recording (T, hop)."""
        source = example["audio"]
        if (kept := self._kept.find(source)) is not None:
            return kept
        try:
            return self._cut(read_audio(source, sample_rate=self.config.sample_rate, given_rate=example.get("sample_rate")))
        except DataError:
            if isinstance(source, str):
                self._recordings.forget(source)
            raise

    def _cut(self, wave: Wave) -> Tensor:
        """Return a recording at the rate of the run as hops (T, hop)."""
        return torch.from_numpy(to_hops(wave.samples, round(wave.sample_rate * self.config.hop_ms / 1000)))

    def _language_token(self, example: Example) -> list[int]:
        if not self.languages:
            return []
        language = example.get("language", self.config.language)
        if language is None:
            raise DataError("the row has no language, which this model is told before it writes; say task.language, or give a column of it")
        if language not in self.languages:
            raise DataError(f"language {language!r} is not one of {', '.join(self.languages)}; name it in task.languages, or mend the row")
        return [self.language_ids[language]]

    def unlearnable(self, encoded: Encoded) -> str | None:
        """Say that CTC has fewer places than a transcript takes, and what gives more."""
        config = self.config
        if config.objective == "attention" or n_needed(encoded["text"].tolist()) <= self._n_heard(encoded["audio"].size(0)):
            return None
        more = f"model.subsampling={self._subsampling // 2} or " if self._subsampling > 1 else ""
        return (
            f"have more labels than places of {self._subsampling * config.hop_ms:g} ms, of which each has room for one, so that CTC learns "
            f"nothing from them; set {more}task.hop_ms below {config.hop_ms:g}, or mend transcripts that do not belong to their recordings"
        )

    def _n_heard(self, n_hops: int) -> int:
        """Return how many places a recording of so many hops has."""
        return -(-int(self.features.n_frames(torch.tensor(n_hops))) // self._subsampling)

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many hops the model hears at once: longer recordings are cut."""
        return min(encoded["audio"].size(0), self.longest_piece)

    @property
    def longest_piece(self) -> int:
        """Hops that are heard at once."""
        return round(1000 * self.config.piece_seconds / self.config.hop_ms)

    @property
    def augments(self) -> bool:
        """Whether training recordings are changed."""
        return changes_recordings(self.config)

    def augmented(self, encoded: Encoded, draw: np.random.Generator) -> Encoded:
        """Play a recording at another speed and level, by another microphone, with quiet around it and noise in it; or nothing at all."""
        return changed_recording(encoded, draw, self.config, self._noise)

    @cached_property
    def _noise(self) -> NoiseSource:
        return noise_source(self.config)

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the loss over the labels of every transcript: CTC's, the decoder's, or both weighed."""
        heard, mask = self.features(batch["audio"], batch.mask("audio"))
        heard = changed_features(heard, mask, self.config, self.features) if model.training else heard
        target, real = batch["text"], batch.mask("text")
        if isinstance(model, Encoder):
            logits, places = model.label_logits(heard, mask)
            return ctc_loss(logits, places, target, real)
        assert isinstance(model, Seq2Seq)
        memory, places = model.encode(heard, mask), model.memory_mask(mask)
        written = self._written(model, memory, places, target, real)
        if self.config.objective == "attention":
            return written
        heard_labels = ctc_loss(model.labels(memory), places, target, real)
        share = self.config.ctc_weight
        return LossSum(share * heard_labels.total + (1 - share) * written.total, written.units, written.right)

    def _written(self, model: Seq2Seq, memory: Tensor, places: Tensor, target: Tensor, real: Tensor) -> LossSum:
        """Sum the decoder's cross-entropy of every label and of the end."""
        ended = torch.cat([target * real, target.new_zeros(target.size(0), 1)], dim=1)
        ended = ended.scatter(1, real.sum(1, keepdim=True), Tokenizer.eos_id)  # (B, L + 1)
        begun = torch.cat([ended.new_full((ended.size(0), 1), Tokenizer.bos_id), ended[:, :-1]], dim=1)
        smoothing = self.label_smoothing if model.training else 0.0
        hidden = model.decoded(memory, places, begun)
        head = model.head
        return vocabulary_loss(hidden, head.weight, ended, bias=head.bias, absent=head.absent, smoothing=smoothing, ignore=Tokenizer.pad_id)

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Write down what is said in each recording."""
        assert isinstance(model, Encoder | Seq2Seq)
        return Listener(self, model, options).answers(batch)

    def live(self, model: Model, options: DecodeConfig, rate: int | None = None) -> "LiveSound":
        """Begin to follow a stream of sound; raises ConfigError for a run that was not trained with task.streaming=true."""
        from heed.tasks.live import LiveRecognizer, LiveSound  # which is written in terms of this class

        assert isinstance(model, Encoder | Seq2Seq)
        return LiveSound(LiveRecognizer(self, model, options), rate)

    def check_decoding(self, options: DecodeConfig, given: Iterable[str]) -> None:
        """Refuse what every task does, and the weight of a language model where there is none; raises ConfigError."""
        super().check_decoding(options, given)
        if options.language_model is None and not self.config.ngram_order and options.changed("language_weight"):
            raise ConfigError(
                "decode.language_weight would be ignored without decode.language_model; name a language model, or train with "
                "task.ngram_order, such as 5"
            )

    def lend(self, language_model: Ngrams | LanguageModel | None) -> None:
        """Take a language model whose score is added while searching."""
        self.language_model = language_model

    def metrics(self) -> SpeechMetrics:
        """Return an empty counter of word and character errors."""
        return SpeechMetrics(self.config.transcripts, NORMALISATIONS[self.config.transcripts])

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add answers and what was said; both are normalised alike."""
        assert isinstance(metrics, SpeechMetrics)
        seconds = [float(answer.details.get("seconds", 0.0)) for answer in answers]
        metrics.add(
            [answer.text for answer in answers],
            [example["text"] for example in examples],
            groups=[str(example.get("speaker") or "") for example in examples],
            seconds=seconds,
        )

    def answer_length(self, answer: Answer) -> int:
        """Return how many labels an answer has, which are what the loss counts too."""
        return len(self.tokenizer.encode(answer.text))

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that may choose the weights."""
        return tuple(SPEECH_FUNCTIONS)

    def memory_advice(self, length: int) -> str:
        """Say what to set where a recording of so many hops does not fit into memory."""
        return f"leave longer recordings out (data.max_length={length - 1}, in hops of {self.config.hop_ms:g} ms)"

    @property
    def disturbances(self) -> list[dict[str, Any]]:
        """Return the noises that robustness is measured against."""
        return [{"noise": noise, "snr_db": level} for noise in NOISES for level in NOISE_LEVELS]

    def disturb(self, examples: Sequence[Example], disturbance: Mapping[str, Any], draw: np.random.Generator) -> list[Example]:
        """Return the examples with noise of a stated level mixed in."""
        rate = cast(int, self.config.sample_rate)
        waves = [read_audio(example["audio"], sample_rate=rate, given_rate=example.get("sample_rate")).samples for example in examples]
        noisy = mixed_examples([*waves, *self._voices], disturbance["noise"], disturbance["snr_db"], BABBLING, draw)[: len(waves)]
        self._voices = waves[:BABBLING]  # for a window of one recording, which has no others to babble
        return [{**example, "audio": wave, "sample_rate": rate} for example, wave in zip(examples, noisy, strict=True)]

    def pictures(self, model: Model, example: Example, answer: Answer) -> dict[str, Any] | None:
        """Return the spectrogram of a recording, the times of its words, and what CTC heard where."""
        assert isinstance(model, Encoder | Seq2Seq)
        if not isinstance(example.get("audio"), str):
            return None
        return recording_picture(self, model, self.encode(example), answer)


def _spelling(path: str, texts: Iterable[str]) -> Spelling:
    """Read a table of spellings; raises DataError when it lacks a character of the transcripts."""
    spelling = Spelling.read(path)
    unknown = sorted(spelling.unknown(texts))
    if unknown:
        raise DataError(f"{path}: spells none of {' '.join(unknown[:20])}, which the transcripts hold; add them")
    return spelling


def _fault_of(example: Example) -> str | None:
    try:
        read_audio(example["audio"], given_rate=example.get("sample_rate", HIGHEST_RATE))
    except DataError as error:
        return str(error)
    return None
