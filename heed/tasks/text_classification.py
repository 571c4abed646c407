"""Text classification: a text (or two) in, its class out, or all labels that apply."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from heed.config import DecodeConfig, Settings
from heed.data.augment import Augmenter, read_synonyms
from heed.data.batch import Batch, collate
from heed.data.calibration import WITHHOLDS_ALL, Calibration
from heed.data.foreign import ForeignTokenizer
from heed.data.labelled import LabelSurvey, labels_of, survey_labelled
from heed.data.labels import Labels, in_order
from heed.data.layout import Layout, TextLayout
from heed.data.parts import Part
from heed.data.rows import Example
from heed.data.store import Encoded, Store
from heed.data.text import Tokenizer
from heed.data.vectors import Vectors, matrix, read_vectors
from heed.data.words import Preparation, Words
from heed.errors import ConfigError, DataError
from heed.files import sha256
from heed.metrics.calibration import Targets, best_precision, fit_temperature, fit_threshold, rescaled
from heed.metrics.classification import SCORE_NAMES, ClassificationMetrics
from heed.metrics.intervals import Floats
from heed.model.config import ModelConfig
from heed.model.losses import LossSum, class_divergence, class_loss, decision_divergence, decision_loss
from heed.model.models import Encoder, HierarchicalEncoder, Model
from heed.model.stems import TokenStem
from heed.model.windows import WINDOW_TOKENS, in_parts, mean_of_windows
from heed.tasks.advice import classification_advice
from heed.tasks.attribution import token_weights, word_weights
from heed.tasks.base import RANKING, Answer, Metrics, Task
from heed.tasks.long_texts import LongTexts, texts_of, with_ends
from heed.tasks.text_augmentation import changed_text, changes_texts, text_augmenter
from heed.tasks.text_settings import TextClassificationSettings

CALIBRATED_SCORES = ("calibration_error_before", "coverage", "accuracy_when_answered")  # of a temperature or a threshold
VOCABULARY_ROWS = 2000  # validation rows whose unknown words are counted
ROUNDING = 1e-6  # within which a probability comes out again


class TextClassification(Task):
    """From text to a class."""

    name: ClassVar[str] = "text_classification"
    inputs: ClassVar[dict[str, str]] = {"text": "text"}
    optional: ClassVar[dict[str, str]] = {"text_pair": "text"}
    outputs: ClassVar[dict[str, str]] = {"label": "label"}
    architecture: ClassVar[str] = "encoder"
    counts_tokens: ClassVar[bool] = False
    reads: frozenset[str] = RANKING
    settings: ClassVar[type[Settings]] = TextClassificationSettings
    heirlooms: ClassVar[tuple[str, ...]] = ("tokenizer", "preparation")
    cutting: ClassVar[tuple[str, ...]] = ("tokens", "vocab_size", "algorithm", "cleaning", "lower", "stop_words")
    group_names: ClassVar[dict[str, str]] = {
        "best": "Most confidently right",
        "median": "In the middle",
        "worst": "Most confidently wrong",
    }
    config: TextClassificationSettings
    by_sentence = False  # whether sentences are marked for a hierarchical model
    reads_n_grams = False  # whether n-grams stand beside the network
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
        self.seen = in_order({*(self.seen or ()), *found.classes})  # of data.train, and of data.extra
        return found

    def inherit(self, other: Task) -> None:
        """Take over what cuts a text, and what is done to it before."""
        super().inherit(other)
        if self.config.vectors is not None:
            raise ConfigError(f"task.vectors={self.config.vectors} would be ignored: embeddings are those of init; leave one of them out")

    def adopt(self, parts: Mapping[str, Part], labels: Sequence[str]) -> None:
        """Take over a tokenizer, which reads texts as they are, and the names of classes."""
        super().adopt(parts, labels)
        self.parts |= {"labels": Labels(list(labels), {}), "preparation": Preparation(cleaning=False, lower=False, stop_words="none")}

    def prepare(self, examples: Iterable[Example]) -> dict[str, Part]:
        """Learn the labels and the vocabulary, and read word vectors for it."""
        given = self.config.labels if self.config.labels is not None else self.seen
        labels = Labels.fit((example["label"] for example in examples), given=given)
        preparation = Preparation(cleaning=self.config.cleaning, lower=self.config.lower, stop_words=self.config.stop_words)
        self.parts = {"labels": labels, "preparation": preparation, **self.inherited}
        if "tokenizer" not in self.parts:
            self.parts["tokenizer"] = self._learned(preparation(example[column]) for example in examples for column in self.wanted)
        if self.config.synonyms is not None:
            read_synonyms(self.config.synonyms)  # refused now rather than at the first step
        if self.config.vectors is not None:
            self.vectors = read_vectors(self.config.vectors, set(self._vocabulary()))
        return self.parts

    def _learned(self, texts: Iterable[str]) -> Tokenizer | Words:
        """Learn from prepared texts what cuts them."""
        if self.config.tokens == "subwords":
            return Tokenizer.train(texts, algorithm=self.config.algorithm, vocab_size=self.config.vocab_size, cleaning=False)
        return Words.train(texts, unit=self.config.tokens, vocab_size=self.config.vocab_size)

    @property
    def labels(self) -> Labels:
        """The classes."""
        return cast(Labels, self.parts["labels"])

    @property
    def preparation(self) -> Preparation:
        """What is done to a text before it is cut."""
        return cast(Preparation, self.parts["preparation"])

    @property
    def tokenizer(self) -> Tokenizer | Words | ForeignTokenizer:
        """What cuts a text."""
        return cast(Tokenizer | Words | ForeignTokenizer, self.parts["tokenizer"])

    @property
    def calibration(self) -> Calibration:
        """What probabilities are corrected by."""
        return cast(Calibration, self.parts.get("calibration", Calibration()))

    def _vocabulary(self) -> list[str]:
        assert isinstance(self.tokenizer, Words)
        return self.tokenizer.words

    def findings(self, valid: Iterable[Example]) -> dict[str, Any]:
        """Return what there is to tell of the vocabulary and of the files that settings name.

        That is the size of the vocabulary; of whole words and characters how much of the validation texts it does not know, and how many
        of its words, and of theirs, have vectors; and the files' SHA-256, by setting.
        """
        found: dict[str, Any] = {"vocabulary": {"size": self.tokenizer.vocab_size}}
        if isinstance(self.tokenizer, Words):
            texts = [self.preparation(example[column]) for example in islice(valid, VOCABULARY_ROWS) for column in self.wanted]
            found["vocabulary"]["unknown_share_valid"] = round(self.tokenizer.unknown_share(texts), 4)
            if self.vectors is not None:
                counts = Counter(word for text in texts for word in self.tokenizer.split(text))
                found["coverage"] = matrix(self._vocabulary(), self.vectors, seed=0, counts=counts)[1]
        if self.files:
            found["task_sha256"] = {name: sha256(path) for name, path in self.files.items()}
        return found

    @property
    def files(self) -> dict[str, Path]:
        """The files that settings name, by setting; training reads them, answering does not."""
        named = {name: getattr(self.config, name) for name in ("vectors", "synonyms")}
        return {name: Path(path).expanduser() for name, path in named.items() if path is not None}

    def shape(self, model: ModelConfig) -> ModelConfig:
        """Set the sizes of the vocabulary and of the head."""
        if model.architecture != "encoder":
            raise ConfigError(f"model.architecture: text classification needs encoder, found {model.architecture}")
        n_framing = self._long_texts.n_framing
        if model.positions == "learned" and self.max_length + n_framing > model.max_length:
            frame = "a begin token" if n_framing == 1 else f"the {n_framing} tokens that stand around a text"
            raise ConfigError(
                f"data.max_length={self.max_length} and {frame} do not fit model.max_length={model.max_length}, the places that "
                "learned positions know; raise the one or lower the other"
            )
        weighed = self.config.class_weights if isinstance(self.config.class_weights, dict) else {}
        unknown = next((name for name in weighed if name not in self.labels.labels), None)
        if unknown is not None:
            raise ConfigError(f"task.class_weights: {self.labels.explain(unknown)}")
        if self.config.consistency and not model.dropout and not self.augments:
            raise ConfigError(
                f"task.consistency={self.config.consistency:g} would be ignored: without dropout and augmentation a text is read in the "
                "same way both times; set model.dropout=0.2 or task.drop_words=0.1, or leave it out"
            )
        self.by_sentence, self.reads_n_grams = model.hierarchical, bool(model.n_grams)
        self._long_texts.check(self.config)
        sizes: dict[str, Any] = {"vocab_size": self.tokenizer.vocab_size, "n_classes": len(self.labels.labels)}
        if self.vectors is not None:
            sizes |= {"d_embedding": self.vectors.dimension, "embedding_scale": False, "frozen_embedding": self.config.freeze_vectors}
        return model.replace(**sizes)

    def start(self, model: Model, store: Store) -> None:
        """Copy the word vectors in, and count in how many training texts each n-gram stands."""
        if isinstance(model, Encoder) and model.n_grams is not None:
            model.n_grams.learn_rarity(texts_of(store))
        if self.vectors is not None:
            assert isinstance(model, Encoder)
            assert isinstance(model.stem, TokenStem)
            values, _ = matrix(self._vocabulary(), self.vectors, seed=0)
            with torch.no_grad():
                model.stem.embedding.weight.copy_(torch.from_numpy(values))

    def encode_all(self, examples: Sequence[Example], training: bool = False) -> list[Encoded]:
        """Return the ids of texts and, for training, the number of each one's label, or 0 and 1 for each label."""
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
        return [with_ends(text, self.tokenizer, self.max_length) for text in texts]

    def target(self, label: str | list[str]) -> Tensor:
        """Return a label's number (), or 0 and 1 for each label (C,) where several may apply."""
        if not self.config.multi_label:
            return torch.tensor(self.labels.index(cast(str, label)))
        applies = torch.zeros(len(self.labels.labels), dtype=torch.long)
        for name in label:
            applies[self.labels.index(name)] = 1
        return applies

    def fitted(self, encoded: Encoded) -> Encoded | None:
        """Cut a long text, where that was asked for; of two texts the longer first."""
        ids = self._long_texts.fitted(encoded["text"])
        return encoded if ids is encoded["text"] else {**encoded, "text": ids}

    @property
    def long_examples(self) -> str:
        """Say what becomes of texts beyond data.max_length."""
        return self._long_texts.fate

    def n_places(self, encoded: Mapping[str, Tensor]) -> int:
        """Return how many tokens the model sees at once."""
        return min(encoded["text"].size(0), self.max_length) + self._long_texts.n_framing

    @property
    def _long_texts(self) -> LongTexts:
        """How texts are read that are longer than the model sees at once."""
        return LongTexts.of(self.config, self.tokenizer, self.max_length, by_sentence=self.by_sentence)

    @property
    def augments(self) -> bool:
        """Whether training texts are changed."""
        return changes_texts(self.config)

    def augmented(self, encoded: Encoded, draw: np.random.Generator) -> Encoded:
        """Leave out, swap and replace words; n-grams are those of the text as it is."""
        changed = changed_text(encoded["text"], draw, self._augmenter)
        return {**encoded, "text": changed, **({"as_it_is": encoded["text"] + 1} if self.reads_n_grams else {})}

    @property
    def layout(self) -> Layout:
        """Texts side by side."""
        return TextLayout()

    @cached_property
    def _augmenter(self) -> Augmenter:
        return text_augmenter(self.config, self.tokenizer, self.preparation)

    @property
    def passes(self) -> int:
        """How many times an update reads a text: twice where task.consistency compares the answers."""
        return 2 if self.config.consistency else 1

    def loss(self, model: Model, batch: Batch) -> LossSum:
        """Sum the (binary) cross-entropy of every text; of texts that are read twice (`passes`), its mean, and how far these lie apart.

        In training a network and the n-grams beside it (model.n_grams) each learn the answer for themselves: the mean of their losses.
        """
        if not model.training:
            return self._loss_of(self.judge(model, batch)[0], batch)
        halves, _ = self.judge_apart(model, batch, self.config.train_windows)
        logits = _mean(halves)
        weights = self.class_weights(batch["label"])
        smoothing = [self.label_smoothing, 0.0]  # small weights of many n-grams are not sure of themselves as it is
        learned = [self._loss_of(half, batch, share, weights) for half, share in zip(halves, smoothing, strict=False)]
        found = learned[0]._replace(total=torch.stack([one.total for one in learned]).mean(0), right=self._loss_of(logits, batch).right)
        return self._consistent(found, halves, batch) if self.passes > 1 else found

    def _loss_of(self, logits: Tensor, batch: Batch, smoothing: float = 0.0, weights: Tensor | None = None) -> LossSum:
        if self.config.multi_label:
            return decision_loss(logits, batch["label"][:, 0], smoothing=smoothing, weights=weights)
        return class_loss(logits, batch["label"], smoothing=smoothing, weights=weights)

    def _consistent(self, found: LossSum, halves: Sequence[Tensor], batch: Batch) -> LossSum:
        """Return the loss of texts that stand in a batch twice, given that of all rows and the logits (2B, C) of each half (R-Drop).

        It is half of what Liang et al. 2021 minimise, and task.consistency half of their alpha: where both answers are alike, it is the
        usual loss of one.
        """
        half = len(batch) // 2
        assert batch.rows[:half] == batch.rows[half:]
        divergence = decision_divergence if self.config.multi_label else class_divergence
        apart = torch.stack([divergence(logits[:half], logits[half:]) for logits in halves]).mean(0)
        return LossSum(found.total / 2 + self.config.consistency * apart, found.units // 2, found.right / 2)

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

    def judge(self, model: Model, batch: Batch, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Judge the texts of a batch.

        Args:
            most: windows of a text that are read; of more, so many are drawn. None reads all.
        Returns:
            logits (B, C), the mean over windows for long texts; and how many windows each text was read in (B,).
        """
        halves, n_windows = self.judge_apart(model, batch, most)
        return _mean(halves), n_windows

    def judge_apart(self, model: Model, batch: Batch, most: int | None = None) -> tuple[list[Tensor], Tensor]:
        """Do what `judge` does, but return the logits of what learns to judge for itself: the network, and the n-grams of whole texts."""
        ids, mask = batch["text"], batch.mask("text")
        if isinstance(model, HierarchicalEncoder):
            found = model.classify(ids, mask, at_once=None if torch.is_grad_enabled() else WINDOW_TOKENS)
            return [found.float()], torch.ones(len(batch), dtype=torch.long)
        assert isinstance(model, Encoder)
        windows = self._long_texts.windows(ids, mask, most)
        found = torch.cat([model.classify(part.ids, part.mask) for part in in_parts(windows)])
        n_windows = torch.bincount(windows.rows, minlength=len(batch))
        halves = [mean_of_windows(found.float(), windows.rows, len(batch))]
        if model.n_grams is not None:
            whole = batch["as_it_is"] if "as_it_is" in batch else self._long_texts.read(ids, mask)
            halves.append(model.n_grams(whole - 1, whole > 0).float())
        return halves, n_windows

    def predict(self, model: Model, batch: Batch, options: DecodeConfig) -> list[Answer]:
        """Answer with the likeliest class, or all that are likelier than not."""
        logits, n_windows = self.judge(model, batch)
        logits = logits.double() / self.calibration.temperature
        shares = (logits.sigmoid() if self.config.multi_label else logits.softmax(-1)).tolist()
        lengths = batch.mask("text").sum(1).tolist()
        ways = [self._long_texts.way(length, n) for length, n in zip(lengths, n_windows.tolist(), strict=True)]
        return [self._answer(row, way, options.n_best) for row, way in zip(shares, ways, strict=True)]

    def _answer(self, shares: list[float], way: Mapping[str, int], n_best: int) -> Answer:
        names = self.labels.labels
        details: dict[str, Any] = {"probabilities": dict(zip(names, shares, strict=True)), **way}
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

    @property
    def score_names(self) -> Sequence[str]:
        """The scores that there are before anything is calibrated."""
        return [name for name in SCORE_NAMES if name not in CALIBRATED_SCORES]

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
        abstaining = () if wanted is None else _abstaining(rescaled(shares, temperature), targets, wanted)
        self.parts["calibration"] = Calibration(temperature, *abstaining)

    @property
    def remarks(self) -> list[str]:
        """Return that the wanted share of right answers cannot be kept, if so."""
        return [] if self.calibration.remark is None else [self.calibration.remark]

    def mistakes(self, metrics: Metrics) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Return which answers are wrong, the most confident first."""
        assert isinstance(metrics, ClassificationMetrics)
        return metrics.mistakes()

    def memory_advice(self, length: int) -> str:
        """Say what makes a training text smaller: it is read once, in windows, cut, or by its sentences."""
        if self.passes > 1:
            return "read it once (task.consistency=0)"
        if self.by_sentence:
            return "read texts in windows instead (model.hierarchical=false)"
        if length > self.max_length and self.config.train_windows > 1:
            return f"read fewer of its windows at once (task.train_windows={self.config.train_windows // 2})"
        return f"read less of it at once (data.max_length={min(length, self.max_length) // 2})"

    def answer_length(self, answer: Answer) -> int:
        """Return 1: an answer is a class."""
        return 1

    def advice(self, scores: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
        """Return what the numbers suggest to try next."""
        return classification_advice(scores, data, self.config)

    def pictures(self, model: Model, example: Example, answer: Answer) -> dict[str, Any] | None:
        """Return how much each word spoke for the answered class: integrated gradients (Sundararajan et al. 2017)."""
        assert isinstance(model, Encoder)
        if self.by_sentence or (self.config.multi_label and not answer.details["labels"]):
            return None
        encoded = self.encode(example)
        if not 0 < len(encoded["text"]) <= WINDOW_TOKENS:
            return None
        label = answer.details["labels"][0] if self.config.multi_label else answer.text
        ids = encoded["text"]
        asked = collate([encoded]).to(next(model.parameters()).device)
        windows = self._long_texts.windows(asked["text"], asked.mask("text"))
        alone = self.config.multi_label
        read = self._long_texts.read(asked["text"], asked.mask("text")) - 1
        weights = token_weights(model, windows, read, n_tokens=len(ids), label=self.labels.index(label), alone=alone)
        texts = [self.preparation(example[column]) for column in self.wanted]
        words = list(word_weights(self.tokenizer, texts, ids.tolist(), weights.tolist()))
        return {"words": [word for word, _ in words], "weights": [round(weight, 5) for _, weight in words], "label": label}


def _mean(halves: Sequence[Tensor]) -> Tensor:
    """Return the mean of the logits (B, C) of a network, and of n-grams if there are any."""
    return halves[0] if len(halves) == 1 else torch.stack(tuple(halves)).mean(0)


def _abstaining(shares: Floats, targets: Targets, wanted: float) -> tuple[float | None, ...]:
    """Return what a `Calibration` says of withheld answers: threshold, wanted precision and, where none keeps it, the best one."""
    found = fit_threshold(shares, targets, wanted)
    if found is None:
        return WITHHOLDS_ALL, wanted, *(best_precision(shares, targets) or ())
    # It is the probability of one of these answers, which must not miss it by a rounding error when it is given again.
    return max(0.0, found - ROUNDING), wanted
