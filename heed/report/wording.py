"""How the report words names, numbers and dates."""

import contextlib
import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from heed.metrics import LESS_IS_BETTER
from heed.terminal import plural

POINTS = frozenset({"bleu", "chrf", "ter"})  # their values are out of 100 already
# No share of anything; every other score is one, but for the coefficients.
PLAIN = frozenset({"loss", "perplexity", "bits_per_byte", "bits_per_character", "log_loss", "nll", "brier"})
COEFFICIENTS = frozenset({"mcc", "kappa", "spearman", "pearson"})  # from -1 to 1
UNSCALED = POINTS | PLAIN | COEFFICIENTS
SPELLED = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "ter": "TER",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "wer": "WER",
    "cer": "CER",
    "f1": "F1",
    "lm": "LM",
    "map": "mAP",
    "mcc": "MCC",
    "roc": "ROC",
    "auc": "AUC",
    "sha256": "SHA-256",
}
# Names that say less than they should when they are spelled as they stand.
NAMED = {
    "has_answer_exact_match": "Exact match, answerable",
    "has_answer_f1": "F1, answerable",
    "no_answer_exact_match": "Exact match, unanswerable",
    "calibration_error_before": "Calibration error before scaling",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
}
LARGEST_DRAWN = 1e30  # beyond it, arithmetic on the ends of an axis may overflow
LEAST_IN_SECONDS = 0.1  # shorter times are told in milliseconds
NARROW = "\u202f"  # the space before a unit
# Scripts that put no spaces between words.
SPACELESS = "\u3005\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"


@dataclass(frozen=True)
class ShownScore:
    """A score in words, and where its interval lies on a bar, in percent of the bar."""

    name: str
    label: str
    value: str
    brief: str  # with one decimal, for large print
    unit: str
    interval: str
    high: float  # in the unit that is shown
    less_is_better: bool
    left: float
    width: float
    dot: float
    end: str


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_DRAWN  # NaN is not less either


def is_score(value: object) -> TypeGuard[Mapping[str, float]]:
    """Return whether a value is a score with its interval."""
    return isinstance(value, Mapping) and all(is_number(value.get(key)) for key in ("value", "low", "high"))


def label(name: object) -> str:
    """Return a name from a file as a heading: `exact_match` as "Exact match", `bleu` as "BLEU"."""
    if str(name) in NAMED:
        return NAMED[str(name)]
    words = str(name).split("_")
    first = SPELLED.get(words[0], words[0][:1].upper() + words[0][1:])
    return " ".join([first, *(SPELLED.get(word, word) for word in words[1:])])


def shown_scores(content: Mapping[str, Any]) -> list[ShownScore]:
    """Return every score of an evaluation (or of a bucket), in the order of the file."""
    return [shown_score(name, value) for name, value in content.items() if is_score(value)]


def shown_score(name: str, score: Mapping[str, float], end: float | None = None) -> ShownScore:
    """Word a score; `end` is the value at the right end of its bar, in the unit that is shown."""
    value, low, high = (in_unit(name, score[key]) for key in ("value", "low", "high"))
    last = end or scale_end(name, high)
    left, right, dot = (100 * min(1.0, max(0.0, number / last)) for number in (low, high, value))
    return ShownScore(
        name=name,
        label=label(name),
        value=_figure(name, value, 2),
        brief=_figure(name, value, 1),
        unit=unit(name),
        interval=f"{_figure(name, low, 2)} – {_figure(name, high, 2)}",
        high=high,
        less_is_better=name in LESS_IS_BETTER,
        left=round(left, 2),
        width=round(right - left, 2),
        dot=round(dot, 2),
        end=f"{last:,g}",
    )


def in_unit(name: str, value: float) -> float:
    """Return the value of a score in the unit it is shown in."""
    return value if name in UNSCALED else 100.0 * value


def unit(name: str) -> str:
    """Return the unit a score is shown in; "" for those that have none."""
    return "" if name in UNSCALED else "%"


def score_words(name: str, value: float) -> str:
    """Return the value of a score with its unit."""
    words = _figure(name, in_unit(name, value), 2)
    return f"{words}{NARROW}{unit(name)}" if unit(name) else words


def score_title(name: str) -> str:
    """Return the heading of a score with its unit, as it stands at an axis."""
    return f"{label(name)}, {unit(name)}" if unit(name) else label(name)


def scale_end(name: str, high: float) -> float:
    """Return where the bar of a score ends: at 100, and further only for scores that pass it; at 1 for coefficients."""
    if name in COEFFICIENTS:
        return 1.0
    return max(100.0, round_up(high)) if name not in PLAIN else round_up(high)


def round_up(value: float) -> float:
    """Return the next of 1, 2, 3, 4, 5, 6, 8 or 10 times a power of ten; 1 for zero and less."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 3, 4, 5, 6, 8) if step * power >= value), 10 * power)


def _figure(name: str, value: float, decimals: int) -> str:
    return f"{value:,.4g}" if name in PLAIN | COEFFICIENTS else f"{value:,.{decimals}f}"


def figure(value: object) -> str:
    """Return a number, a truth value, a text or a list of them as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(figure, value))
    return str(value)


def tick(value: float) -> str:
    """Word a number within the margin beside an axis."""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-").replace("e+0", "e")
    return f"{value / 1000:,g}k" if abs(value) >= 10_000 else f"{value:,.5g}"


def percent(share: float) -> str:
    """Return a share as percent, in three figures."""
    return f"{100 * share:.3g}{NARROW}%"


def counted(number: object, noun: str) -> str:
    """Return a number with the noun it counts: "1 row", "2 rows", "3 classes"."""
    return f"{figure(number)} {plural(number, noun)}"


def shortened(text: object, most: int) -> str:
    """Return a text on one line and of at most so many characters."""
    words = " ".join(figure(text).split())
    return words if len(words) <= most else f"{words[: most - 1]}…"


def duration(seconds: float) -> str:
    """Return a time in its two largest units."""
    if seconds < 60:
        return f"{1000 * seconds:.0f} ms" if 0 < seconds < LEAST_IN_SECONDS else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def size(n_bytes: float) -> str:
    """Return a file size in decimal units."""
    for name in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {name}" if name == "bytes" else f"{n_bytes:.1f} {name}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} GB"


def date(text: object) -> str:
    """Return an ISO date, with its time if it has one, as words; anything else as it is."""
    with contextlib.suppress(ValueError):
        day = datetime.date.fromisoformat(str(text))
        return f"{day.day} {day:%B %Y}"
    try:
        moment = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".rstrip()
