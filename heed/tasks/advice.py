"""What to try next, where the numbers of an evaluation say so; each line names the number and the setting."""

from collections.abc import Iterator, Mapping
from typing import Any

from heed.config import Settings
from heed.terminal import counted

RARE = 0.4  # a class with fewer rows than this share of an even division is rare
WEAK = 0.75  # a rare class's recall is weak below this share of the average
CONFUSED = 0.15  # share of a class's rows that one other class takes
UNSURE = 0.05  # calibration error from which probabilities mislead
LONG = 0.05  # share of texts beyond the limit that is worth a thought
UNKNOWN = 0.05  # share of words without an id that is worth a thought
FAULTY = 0.01  # share of rows with contradicting labels
FEW = 1000  # rows below which scores hang on the draw


def classification_advice(scores: Mapping[str, Any], data: Mapping[str, Any], settings: Settings) -> list[str]:
    """Return advice on a classifier, most pressing first."""
    of_data = [*_classes(scores, data, settings), *_data(data, settings)]
    found = [*scores.get("remarks", []), *of_data, *_calibration(scores), *_size(scores, data)]
    return found or ["Nothing in these numbers asks for a change; more or other training data is the surest next step."]


def _classes(scores: Mapping[str, Any], data: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    classes = dict(data.get("train", {}).get("classes", {}))
    per_class = scores.get("per_class", {})
    n_rows = data.get("train", {}).get("rows", sum(classes.values()))
    recall = scores.get("recall_macro", {}).get("value", 0.0)
    for name, n in classes.items():
        found = per_class.get(name, {}).get("recall", {}).get("value")
        rare = n * len(classes) < RARE * n_rows
        if found is not None and rare and found < WEAK * recall and getattr(settings, "class_weights", "none") == "none":
            yield f"{name!r} is rare ({n:,} of {n_rows:,} training rows), and {found:.0%} of it is found: try task.class_weights=balanced."
    confusion = scores.get("confusion", {})
    for name, row in zip(confusion.get("labels", []), confusion.get("counts", []), strict=False):
        yield from _confused(str(name), confusion["labels"], row)


def _confused(name: str, labels: list[str], row: list[int]) -> Iterator[str]:
    """Name the class that takes most of another's rows, when it takes many."""
    others = [(n, other) for n, other in zip(row, labels, strict=True) if other != name]
    if others and sum(row) >= 10:
        most, other = max(others)
        if most >= CONFUSED * sum(row):
            yield f"{most:,} of {sum(row):,} {name!r} were taken for {other!r}: read some of them below; their labels may overlap."


def _data(data: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    train = data.get("train", {})
    rows, counts = max(1, train.get("rows", 1)), train.get("counts", {})
    if counts.get("contradictions", 0) >= FAULTY * rows:
        yield (
            f"{counted(counts['contradictions'], 'training text')} with several labels, which no model can get right: "
            "mend them, or leave them out with data.filter=true."
        )
    n_long, limit = data.get("too_long", 0), data.get("max_length")
    if n_long >= LONG * data.get("examples", {}).get("train", rows) and data.get("long_examples") == "cut":
        yield f"{counted(n_long, 'training text')} cut at {limit} tokens: try task.long_texts=windows, or a larger data.max_length."
    vocabulary = data.get("vocabulary", {})
    unknown = vocabulary.get("unknown_share_valid", 0.0)
    if unknown >= UNKNOWN:
        full = vocabulary.get("size", 0) >= getattr(settings, "vocab_size", 0)  # or a larger one would hold no more
        yield (
            f"{unknown:.0%} of the {getattr(settings, 'tokens', 'words')} in the validation texts are not known: try task.tokens=subwords"
            f"{', or a larger task.vocab_size' if full else ''}."
        )


def _calibration(scores: Mapping[str, Any]) -> Iterator[str]:
    error = scores.get("calibration_error", {})
    if error.get("low", 0.0) >= UNSURE:
        yield (
            f"The probabilities mislead (calibration error {error['value']:.1%}): validation data more like these would let "
            "task.calibrate correct them."
        )


def _size(scores: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    rows = data.get("train", {}).get("rows", FEW) + data.get("extra", {}).get("rows", 0)
    loss, accuracy = scores.get("log_loss", {}), scores.get("accuracy", {})
    if rows < FEW:
        yield f"There are only {rows:,} training rows: heed crossvalidate shows how far the scores hang on which rows were held out."
    elif accuracy.get("value", 1.0) < 0.98 and loss:
        yield "heed compare-models shows whether a simple baseline would do as well, and heed tune searches learning rate and size."
