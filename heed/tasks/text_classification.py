"""Text classification: a text (or two) in, its class out, or all labels that apply."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.augment import Augmenter, read_synonyms
from heed.data.batch import Batch
from heed.data.calibration import Calibration
from heed.data.labelled import LabelSurvey, labels_of, survey_labelled
from heed.data.labels import Labels, in_order
from heed.data.parts import Part
from heed.data.read import Example
from heed.data.store import Encoded
from heed.data.text import Tokenizer
from heed.data.vectors import Vectors, matrix, read_vectors
from heed.data.words import Preparation, Words
from heed.errors import ConfigError, DataError
from heed.metrics.calibration import Targets, fit_temperature, fit_threshold, rescaled
from heed.metrics.classification import ClassificationMetrics
from heed.metrics.intervals import Floats
from heed.model.config import ModelConfig
from heed.model.losses import LossSum, class_loss, decision_loss
from heed.model.models import Encoder, Model
from heed.model.windows import Windows, cut_windows, mean_of_windows
from heed.tasks.advice import classification_advice
from heed.tasks.base import Answer, Metrics, Task

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；\n])")
WINDOW_TOKENS = 1 << 14  # tokens of windows in the model at once when answering
VOCABULARY_ROWS = 2000  # validation texts whose unknown words are counted


class TextClassificationSettings(Settings):
    """What is particular to text classification."""

    multi_label: bool = Field(default=False, description="a text may have any number of labels (sigmoid), not just one (softmax)")
    pair: bool | None = Field(default=None, description="judge text and text_pair together; default: when the data have a column text_pair")
    labels: list[str] | None = Field(default=None, description="all labels, in order; default: those of the training data, sorted")
    tokens: Literal["subwords", "words", "characters"] = Field(default="subwords", description="what a text is cut into")
    vocab_size: int = Field(
        default=16000, ge=300, description="tokens to know: sub-words to learn, or the most frequent words or characters"
    )
    algorithm: Literal["bpe", "unigram"] = Field(default="bpe", description="how sub-words are learned")
    cleaning: bool = Field(default=True, description="remove HTML and control characters, fold white space, NFC")
    lower: bool = Field(default=False, description="lower-case texts")
    stop_words: Literal["none", "en", "zh", "en+zh"] = Field(default="none", description="remove stop-words, but never a negation")
    vectors: str | None = Field(
        default=None, description="pretrained word vectors: GloVe text, word2vec text or binary; needs tokens=words"
    )
    freeze_vectors: bool = Field(default=False, description="word vectors are not trained")
    long_texts: Literal["windows", "truncate"] = Field(
        default="windows", description="texts beyond data.max_length: read in overlapping windows whose answers are averaged, or cut"
    )
    overlap: int = Field(default=32, ge=0, description="tokens that neighbouring windows share")
    train_windows: int = Field(default=8, ge=1, description="windows of a text that an update reads; of more, so many are drawn")
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        default="none", description="factors on the loss of each class; balanced: all classes together weigh the same"
    )
    drop_words: float = Field(default=0.0, ge=0, lt=1, description="augmentation: share of words left out of a training text")
    swap_words: float = Field(default=0.0, ge=0, lt=1, description="augmentation: share of words that change places with the next")
    synonyms: str | None = Field(default=None, description="augmentation: a file with a group of synonyms on each line, separated by tabs")
    replace_words: float = Field(default=0.1, ge=0, lt=1, description="augmentation: share of words replaced by a synonym, given a file")
    calibrate: bool = Field(default=True, description="fit a temperature on the validation data, so that probabilities mean what they say")
    abstain_precision: float | None = Field(
        default=None, gt=0, lt=1, description="withhold answers so unsure that the others would be right less often than this"
    )

    @field_validator("labels", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [str(label).lower() if isinstance(label, bool) else str(label) for label in value]

    @model_validator(mode="after")
    def _fits_task(self) -> "TextClassificationSettings":
        if self.vectors is not None and self.tokens != "words":
            raise ValueError(f"task.vectors={self.vectors} needs task.tokens=words, found {self.tokens}")
        if self.freeze_vectors and self.vectors is None:
            raise ValueError("task.freeze_vectors would be ignored without task.vectors; leave it out, or name a file of vectors")
        if self.multi_label and self.abstain_precision is not None:
            raise ValueError("task.abstain_precision would be ignored with task.multi_label, where no label is an answer too; leave it out")
        return self


class TextClassification(Task):
    """From text to a class."""

    name: ClassVar[str] = "text_classification"
    inputs: ClassVar[dict[str, str]] = {"text": "text"}
    optional: ClassVar[dict[str, str]] = {"text_pair": "text"}
    outputs: ClassVar[dict[str, str]] = {"label": "label"}
    architecture: ClassVar[str] = "encoder"
    counts_tokens: ClassVar[bool] = False
    settings: ClassVar[type[Settings]] = TextClassificationSettings
    group_names: ClassVar[dict[str, str]] = {
        "best": "Most confidently right",
        "median": "In the middle",
        "worst": "Furthest from the right label",
    }
    config: TextClassificationSettings
    by_sentence = False  # whether sentences are marked for a hierarchical model
    vectors: Vectors | None = None
    seen: list[str] | None = None  # the labels of all rows of the source, those that are held out or left out included

    def settle(self, example: Example) -> None:
        """Find out whether texts come in pairs."""
        if self.config.pair is None:
            self.config = self.config.replace(pair="text_pair" in example)

    @property
    def wanted(self) -> dict[str, str]:
        """Return text, and text_pair if texts come in pairs."""
        return {**self.inputs, **self.optional} if self.config.pair else self.inputs

    @property
    def columns(self) -> dict[str, str]:
        """Return the columns an example needs for training, with their kinds."""
        return {**self.wanted, "label": "labels" if self.config.multi_label else "label"}

    def fault(self, example: Example) -> str | None:
        """Say which label is not known."""
        known = self.parts.get("labels") or (Labels(self.config.labels, {}) if self.config.labels else None)
        if not isinstance(known, Labels):
            return None
        return next((known.explain(label) for label in labels_of(example["label"]) if label not in known.labels), None)

    def stratum(self, example: Example) -> str | None:
        """Return the label; None where a row may have several, for hardly two have the same."""
        return None if self.config.multi_label else cast(str, example["label"])

    def survey(self, examples: Iterable[Example], others: Mapping[str, Iterable[Example]]) -> LabelSurvey:
        """Count classes, duplicates, contradicting labels and leaks."""
        found = survey_labelled(examples, others, texts=list(self.wanted))
        self.seen = in_order(found.classes)
        return found

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the labels and the vocabulary, and read word vectors for it."""
        given = self.config.labels if self.config.labels is not None else self.seen
        labels = Labels.fit((example["label"] for example in examples), given=given)
        preparation = Preparation(cleaning=self.config.cleaning, lower=self.config.lower, stop_words=self.config.stop_words)
        texts = (preparation(example[column]) for example in examples for column in self.wanted)
        vocab_size = self.config.vocab_size
        tokenizer: Part
        if self.config.tokens == "subwords":
            tokenizer = Tokenizer.train(texts, algorithm=self.config.algorithm, vocab_size=vocab_size, cleaning=False)
        else:
            tokenizer = Words.train(texts, unit=self.config.tokens, vocab_size=vocab_size)
        self.parts = {"labels": labels, "preparation": preparation, "tokenizer": tokenizer}
        if self.config.synonyms is not None:
            read_synonyms(self.config.synonyms)  # refused now rather than at the first step
        if self.config.vectors is not None:
            self.vectors = read_vectors(self.config.vectors, set(self._vocabulary()))
        return self.parts

    @property
    def labels(self) -> Labels:
        """The classes."""
        return cast(Labels, self.parts["labels"])

    @property
    def preparation(self) -> Preparation:
        """What is done to a text before it is cut."""
        return cast(Preparation, self.parts["preparation"])

    @property
    def tokenizer(self) -> Tokenizer | Words:
        """What cuts a text."""
        return cast(Tokenizer | Words, self.parts["tokenizer"])

    @property
    def calibration(self) -> Calibration:
        """What probabilities are corrected by."""
        return cast(Calibration, self.parts.get("calibration", Calibration()))

    def _vocabulary(self) -> list[str]:
        assert isinstance(self.tokenizer, Words)
        return self.tokenizer.words

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return the size of the vocabulary, how much of the validation text it does not know, and which words have vectors."""
        found: dict[str, Any] = {"vocabulary": {"size": self.tokenizer.vocab_size}}
        if isinstance(self.tokenizer, Words):
            texts = [self.preparation(example["text"]) for _, example in zip(range(VOCABULARY_ROWS), valid, strict=False)]
            found["vocabulary"]["unknown_share_valid"] = round(self.tokenizer.unknown_share(texts), 4)
        if self.vectors is not None:
            found["coverage"] = matrix(self._vocabulary(), self.vectors, seed=0)[1]
        return found

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the sizes of the vocabulary and of the head."""
        if model.architecture != "encoder":
            raise ConfigError(f"model.architecture: text classification needs encoder, found {model.architecture}")
        if model.positions == "learned" and self.max_length >= model.max_length:
            raise ConfigError(
                f"data.max_length={self.max_length} and a begin token do not fit model.max_length={model.max_length}, the places that "
                "learned positions know; raise the one or lower the other"
            )
        weighed = self.config.class_weights if isinstance(self.config.class_weights, dict) else {}
        unknown = next((name for name in weighed if name not in self.labels.labels), None)
        if unknown is not None:
            raise ConfigError(f"task.class_weights: {self.labels.explain(unknown)}")
        self.by_sentence = model.hierarchical
        if not self._cuts and not self.by_sentence and self.config.overlap >= self.max_length:
            raise ConfigError(
                f"task.overlap={self.config.overlap} does not fit data.max_length={self.max_length}, the tokens of a window; lower it"
            )
        sizes: dict[str, Any] = {"vocab_size": self.tokenizer.vocab_size, "n_classes": len(self.labels.labels)}
        if self.vectors is not None:
            sizes |= {"d_embedding": self.vectors.dimension, "embedding_scale": False, "frozen_embedding": self.config.freeze_vectors}
        return model.replace(**sizes)

    def start(self, model: Model) -> None:
        """Copy the word vectors in."""
        if self.vectors is not None:
            assert isinstance(model, Encoder)
            values, _ = matrix(self._vocabulary(), self.vectors, seed=0)
            with torch.no_grad():
                model.stem.embedding.weight.copy_(torch.from_numpy(values))

    def encode(self, example: Example, training: bool = False) -> Encoded:
        """Return the ids of a text and, for training, its label's number, or 0 and 1 for each label."""
        return self.encode_all([example], training)[0]

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Encode many texts at once."""
        sides = [self._ids([self.preparation(example[column]) for example in examples]) for column in self.wanted]
        joined = [
            [*first, *(token for side in others for token in (Tokenizer.eos_id, *side))] for first, *others in zip(*sides, strict=True)
        ]
        encoded: list[Encoded] = [{"text": torch.tensor(ids, dtype=torch.long)} for ids in joined]
        if training:
            for one, example in zip(encoded, examples, strict=True):
                target = self.target(example["label"])
                one["label"] = target[None] if self.config.multi_label else target  # (1, C) or ()
        return encoded

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not self.by_sentence:
            return self.tokenizer.encode_batch(texts)
        return [self._with_ends(text) for text in texts]

    def _with_ends(self, text: str) -> list[int]:
        """Return the ids of a text with an end after each sentence, and in sentences of more than data.max_length tokens after so many."""
        sentences = [sentence for sentence in SENTENCE_END.split(text) if sentence.strip()]
        pieces = (
            ids[start : start + self.max_length]
            for ids in self.tokenizer.encode_batch(sentences)
            for start in range(0, len(ids), self.max_length)
        )
        return [token for piece in pieces for token in (*piece, Tokenizer.eos_id)]

    def target(self, label: str | list[str]) -> Tensor:
        """Return a label's number (), or 0 and 1 for each label (C,) where several may apply."""
        if not self.config.multi_label:
            return torch.tensor(self.labels.index(cast(str, label)))
        applies = torch.zeros(len(self.labels.labels), dtype=torch.long)
        for name in label:
            applies[self.labels.index(name)] = 1
        return applies

    def fitted(self, encoded: Encoded) -> Encoded | None:
        """Cut a long text, where that was asked for."""
        if not self._cuts or encoded["text"].size(0) <= self.max_length:
            return encoded
        return {**encoded, "text": encoded["text"][: self.max_length]}

    @property
    def _cuts(self) -> bool:
        return self.config.long_texts == "truncate" and not self.by_sentence

    @property
    def long_examples(self) -> str:
        """Say what becomes of texts beyond data.max_length."""
        return "cut" if self._cuts else "read by their sentences" if self.by_sentence else "read in windows"

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once."""
        return min(encoded["text"].size(0), self.max_length) + 1

    @property
    def augments(self) -> bool:
        """Whether training texts are changed."""
        return bool(self.config.drop_words or self.config.swap_words or self.config.synonyms)

    def augmented(self, encoded: Encoded, draw: np.random.Generator) -> Encoded:
        """Leave out, swap and replace words."""
        ids = encoded["text"].numpy()
        ends = np.flatnonzero(ids == Tokenizer.eos_id)  # between two texts, and behind sentences; words do not cross them
        parts = np.split(ids, np.sort(np.concatenate([ends, ends + 1])))
        changed = [part if not len(part) or part[0] == Tokenizer.eos_id else self._augmenter(part, draw) for part in parts]
        return {**encoded, "text": torch.from_numpy(np.concatenate(changed))}

    @cached_property
    def _augmenter(self) -> Augmenter:
        groups = [] if self.config.synonyms is None else read_synonyms(self.config.synonyms)
        starts = np.array([self.tokenizer.starts_word(token) for token in range(self.tokenizer.vocab_size)])
        encoded = [self.tokenizer.encode_batch([self.preparation(word) for word in group]) for group in groups]
        synonyms = [[ids for ids in group if ids and Tokenizer.unk_id not in ids] for group in encoded]
        return Augmenter(starts, synonyms, self.config.drop_words, self.config.swap_words, self.config.replace_words if synonyms else 0.0)

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the (binary) cross-entropy of every text."""
        logits = self.logits(model, batch, most=self.config.train_windows if model.training else None)
        smoothing = self.label_smoothing if model.training else 0.0
        weights = self.class_weights(batch["label"]) if model.training else None
        if self.config.multi_label:
            return decision_loss(logits, batch["label"][:, 0], smoothing=smoothing, weights=weights)
        return class_loss(logits, batch["label"], smoothing=smoothing, weights=weights)

    def class_weights(self, like: Tensor) -> Tensor | None:
        """Return a factor for each class (C,), None for none: for balanced ones n / (C n_c), given n rows and n_c of the class."""
        chosen = self.config.class_weights
        if chosen == "none":
            return None
        names = self.labels.labels
        if isinstance(chosen, dict):
            return torch.tensor([chosen.get(name, 1.0) for name in names], device=like.device)
        counts = [max(1, self.labels.counts.get(name, 0)) for name in names]
        return torch.tensor([sum(counts) / (len(counts) * count) for count in counts], device=like.device)

    def logits(self, model: Model, batch: Batch, most: int | None = None) -> Tensor:
        """Judge the texts of a batch: (B, C), the mean over windows for long ones."""
        assert isinstance(model, Encoder)
        if self.by_sentence:
            return model.classify(batch["text"], batch.mask("text")).float()
        windows = self._windows(batch["text"], batch.mask("text"), most)
        if torch.is_grad_enabled():
            found = model.classify(windows.ids, windows.mask)
        else:  # a text of millions of tokens is as many windows as memory would not hold
            at_once = max(1, WINDOW_TOKENS // windows.ids.size(1))
            parts = zip(torch.split(windows.ids, at_once), torch.split(windows.mask, at_once), strict=True)
            found = torch.cat([model.classify(ids, mask) for ids, mask in parts])
        return mean_of_windows(found.float(), windows.rows, len(batch))

    def _windows(self, ids: Tensor, mask: Tensor, most: int | None) -> Windows:
        """Cut texts into windows, each with a begin token."""
        if self._cuts:
            ids, mask = ids[:, : self.max_length], mask[:, : self.max_length]
        cut = cut_windows(ids, mask, size=self.max_length, overlap=self.config.overlap, most=most)
        begin = cut.ids.new_full((len(cut.ids), 1), Tokenizer.bos_id)
        real = torch.ones_like(begin, dtype=torch.bool)
        return Windows(torch.cat([begin, cut.ids], dim=1), torch.cat([real, cut.mask], dim=1), cut.rows, cut.places)

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer with the likeliest class, or all that are likelier than not."""
        logits = self.logits(model, batch).double() / self.calibration.temperature
        shares = (logits.sigmoid() if self.config.multi_label else logits.softmax(-1)).tolist()
        lengths = batch.mask("text").sum(1).tolist()
        return [self._answer(row, length, options.n_best) for row, length in zip(shares, lengths, strict=True)]

    def _answer(self, shares: list[float], length: int, n_best: int) -> Answer:
        names = self.labels.labels
        details: dict[str, Any] = {"probabilities": dict(zip(names, shares, strict=True))}
        if length > self.max_length and not self.by_sentence:
            step = self.max_length - self.config.overlap
            windows = {"windows": -(-(length - self.max_length) // step) + 1}
            details |= {"cut": length - self.max_length} if self._cuts else windows
        if self.config.multi_label:
            chosen = [name for name, share in zip(names, shares, strict=True) if share >= 0.5]
            return Answer(", ".join(chosen), min(max(share, 1 - share) for share in shares), details={"labels": chosen, **details})
        order = sorted(range(len(names)), key=lambda i: -shares[i])
        others = tuple(Answer(names[i], shares[i]) for i in order[1:n_best])
        name, share = names[order[0]], shares[order[0]]
        if self.calibration.threshold is not None and share < self.calibration.threshold:
            return Answer("", share, others, {"abstained": True, "likeliest": name, **details})
        return Answer(name, share, others, details)

    def metrics(self) -> ClassificationMetrics:
        """Return an empty counter of scores."""
        calibration = self.calibration
        return ClassificationMetrics(
            self.labels.labels,
            multi_label=self.config.multi_label,
            temperature=calibration.temperature,
            threshold=calibration.threshold,
            wanted_precision=calibration.wanted_precision,
        )

    def count(self, metrics: Metrics, answers: Sequence[Answer], examples: Sequence[Example]) -> None:
        """Add answers with the labels that were right."""
        assert isinstance(metrics, ClassificationMetrics)
        if not answers:
            return
        names, answered = self.labels.labels, answers[0].details["probabilities"]
        if set(names) != set(answered):
            raise DataError(
                f"answers with {', '.join(answered)} cannot be judged by a run that knows {', '.join(names)}; "
                "compare runs of one set of labels"
            )
        shares = np.array([[answer.details["probabilities"][name] for name in names] for answer in answers])
        metrics.add(shares, torch.stack([self.target(example["label"]) for example in examples]).numpy())

    @property
    def calibrates(self) -> bool:
        """Whether a temperature or a threshold is to be fitted."""
        return self.config.calibrate or self.config.abstain_precision is not None

    def calibrate(self, metrics: Metrics) -> None:
        """Fit the temperature, and the threshold for a wanted precision."""
        assert isinstance(metrics, ClassificationMetrics)
        shares, targets = metrics.uncalibrated, metrics.targets
        temperature = fit_temperature(shares, targets, multi_label=self.config.multi_label) if self.config.calibrate else 1.0
        wanted = self.config.abstain_precision
        threshold = None if wanted is None else self._threshold(rescaled(shares, temperature), targets, wanted)
        self.parts["calibration"] = Calibration(temperature, threshold, wanted)

    def _threshold(self, shares: Floats, targets: Targets, wanted: float) -> float:
        """Return the probability below which answers are withheld: 1, which withholds all, where none keeps what is wanted."""
        found = fit_threshold(shares, targets, wanted)
        # It is the probability of one of these answers, which must not miss it by a rounding error when it is given again.
        return 1.0 if found is None else max(0.0, found - 1e-6)

    def answer_length(self, answer: Answer) -> int:
        """Return 1: an answer is a class."""
        return 1

    def advice(self, scores: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
        """Return what the numbers suggest to try next."""
        return classification_advice(scores, data, self.config)

    def pictures(self, model: Model, example: Example, answer: Answer) -> dict[str, Any] | None:
        """Return how much each word spoke for the answered class: gradient times input (Simonyan et al. 2013; Denil et al. 2014)."""
        assert isinstance(model, Encoder)
        if self.by_sentence or (self.config.multi_label and not answer.details["labels"]):
            return None
        (encoded,) = self.encode_all([example])
        if not 0 < len(encoded["text"]) <= WINDOW_TOKENS:
            return None
        label = answer.details["labels"][0] if self.config.multi_label else answer.text
        weights = self._attribution(model, encoded["text"], self.labels.index(label))
        words = _by_word(self.tokenizer, encoded["text"].tolist(), weights.tolist())
        return {"words": [word for word, _ in words], "weights": [round(weight, 5) for _, weight in words], "label": label}

    def _attribution(self, model: Encoder, ids: Tensor, label: int) -> Tensor:
        """Return gradient times input of one class's logit for each token (S,), summed over windows."""
        device = model.stem.embedding.weight.device
        windows = self._windows(ids[None].to(device), torch.ones(1, len(ids), dtype=torch.bool, device=device), None)
        embedded: list[Tensor] = []

        def keep(module: torch.nn.Module, arguments: Any, out: Tensor) -> Tensor:
            embedded.append(out.detach().requires_grad_())
            return embedded[-1]

        hook = model.stem.embedding.register_forward_hook(keep)
        try:
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # cuDNN's LSTMs have no gradient when answering
                logit = model.eval().classify(windows.ids, windows.mask)[:, label].mean()
        finally:
            hook.remove()
        (gradient,) = torch.autograd.grad(logit, embedded[0])
        told = (gradient * embedded[0]).sum(-1)[:, 1:].detach().cpu()  # (N, W), without the begin token
        cut_mask, places = windows.mask[:, 1:].cpu(), windows.places.cpu()
        return torch.zeros(len(ids)).index_add(0, places[cut_mask], told[cut_mask].float())


def _by_word(tokenizer: Tokenizer | Words, ids: Sequence[int], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Join the tokens of a word and add up their weights."""
    starts = [i for i, token in enumerate(ids) if i == 0 or tokenizer.starts_word(token)]
    ends = [*starts[1:], len(ids)]
    return [(tokenizer.decode(ids[a:b]).strip(), sum(weights[a:b])) for a, b in zip(starts, ends, strict=True)]
