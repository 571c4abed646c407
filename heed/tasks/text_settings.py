"""What may be set about text classification, and which settings would do nothing beside others."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from heed.config import Settings


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
        default=None,
        description="pretrained word vectors: GloVe text, word2vec text or binary; needs tokens=words; a word that no training text holds "
        "stays unknown, vector or not",
    )
    freeze_vectors: bool = Field(default=False, description="word vectors are not trained")
    long_texts: Literal["windows", "truncate"] = Field(
        default="windows",
        description="texts beyond data.max_length: read in overlapping windows whose answers are averaged, or cut; of two texts every "
        "window holds a part, and the longer is cut first",
    )
    overlap: int = Field(default=32, ge=0, description="tokens that neighbouring windows share")
    train_windows: int = Field(default=8, ge=1, description="windows of a text that an update reads; of more, so many are drawn")
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        default="none", description="factors on the loss of each class; balanced: all classes together weigh the same"
    )
    drop_words: float = Field(default=0.0, ge=0, lt=1, description="augmentation: share of words left out of a training text")
    swap_words: float = Field(default=0.0, ge=0, lt=1, description="augmentation: share of words that change places with the next")
    synonyms: str | None = Field(
        default=None, description="augmentation: a file with a group of synonyms on each line, separated by tabs or commas"
    )
    replace_words: float = Field(default=0.1, ge=0, lt=1, description="augmentation: share of words replaced by a synonym, given a file")
    consistency: float = Field(
        default=0.0,
        ge=0,
        description="read every training text twice, with other dropout and augmentation, and add this times how far the answers lie apart "
        "(the mean of KL both ways) to the mean of their losses; 0: read it once; a step takes about twice the time and memory",
    )
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
        if self.synonyms is not None and not self.replace_words:
            raise ValueError("task.synonyms would be ignored with task.replace_words=0; leave one of them out")
        for name, weight in ({} if isinstance(self.class_weights, str) else self.class_weights).items():
            if weight <= 0:
                raise ValueError(f"task.class_weights: that of {name!r} is {weight:g}, expected a number above 0; mend it or leave it out")
        for name, reason in self._without_effect():
            if self.changed(name):
                raise ValueError(f"task.{name} would be ignored {reason}; leave it out")
        return self

    def _without_effect(self) -> Iterator[tuple[str, str]]:
        """Yield the settings that others leave without effect, with the reason."""
        if self.tokens != "subwords":
            yield "algorithm", f"with task.tokens={self.tokens}, which are counted and not learned"
        if self.vectors is None:
            yield "freeze_vectors", "without task.vectors"
        if self.synonyms is None:
            yield "replace_words", "without task.synonyms"
        if self.long_texts == "truncate":
            yield "overlap", "with task.long_texts=truncate"
            yield "train_windows", "with task.long_texts=truncate"
        if self.multi_label:
            yield "abstain_precision", "with task.multi_label, where no label is an answer too"
