"""What an evaluation tells about transcripts: what the errors are, which words are confused, and what noise does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from heed.report.bars import Bar
from heed.report.drawing import Drawing, Plot, Point, Series, colour, linear, score_axis
from heed.report.facts import Table
from heed.report.sources import mapping, mappings
from heed.report.wording import counted, duration, figure, in_unit, is_number, is_score, label, percent, score_words, shown_score

RATES = frozenset({"wer", "cer"})
ERRORS = ("substitutions", "insertions", "deletions")
MOST_PAIRS = 20
NOTHING = "–"  # what stands for a word that is not there
NORMALISATIONS = {
    "none": "compared as they are written, case and punctuation too",
    "lower": "compared in lower case",
    "words": "compared word by word in lower case, without punctuation",
}


def about_texts(content: Mapping[str, Any]) -> str:
    """Say what the scores of transcripts rest on: the normalisation of the texts, the audio, and what was resampled; "" without these."""
    lines = []
    name = content.get("normalisation")
    if isinstance(name, str):
        meaning = NORMALISATIONS.get(name)
        lines.append(f"Texts are {meaning} (normalisation: {name})." if meaning else f"Normalisation of the texts: {name}.")
    if is_number(content.get("seconds")):
        lines.append(f"{duration(content['seconds'])} of audio.")
    if isinstance(content.get("intervals_by"), str):
        lines.append(f"The intervals rest on resampled {content['intervals_by']}.")
    return " ".join(lines)


@dataclass(frozen=True)
class Errors:
    """How many errors there are of each kind, and of how many words."""

    bars: list[Bar]
    note: str


def errors(content: object) -> Errors | None:
    """Draw the kinds of errors.

    Args:
        content: {"substitutions", "insertions", "deletions", "words"}; anything else is not drawn.
    """
    found = mapping(content)
    counts: dict[str, float] = {name: found[name] for name in ERRORS if is_number(found.get(name)) and found[name] >= 0}
    if not counts:
        return None
    largest, words = max(*counts.values(), 1), found.get("words")
    n_words = words if is_number(words) and words > 0 else None
    bars = [
        Bar(label(name), figure(n), round(100 * n / largest, 2), "" if n_words is None else f"{percent(n / n_words)} of the words")
        for name, n in counts.items()
    ]
    total = counted(sum(counts.values()), "error")
    return Errors(bars, f"{total}." if n_words is None else f"{total}; the references have {counted(n_words, 'word')}.")


def confused(content: object) -> Table | None:
    """List the words that are confused most often.

    Args:
        content: [{"reference", "hypothesis", "count"}], "" for a word that is not there; anything else is not shown.
    """
    rows = [
        [figure(pair.get("reference", "")) or NOTHING, figure(pair.get("hypothesis", "")) or NOTHING, figure(pair["count"])]
        for pair in mappings(content)
        if is_number(pair.get("count"))
    ]
    if not rows:
        return None
    shown = rows[:MOST_PAIRS]
    note = f"{NOTHING} is no word: one was left out, or put in." if any(NOTHING in row for row in shown) else ""
    return Table(["Said", "Answered", "How often"], shown, note)


def noise(content: Mapping[str, Any]) -> Drawing | None:
    """Draw the word error rate against the ratio of signal to noise, a line for each noise; None without a noise.

    Args:
        content: holds "noise", [{"noise": name, "snr_db": ratio, "wer": score}], and for comparison "wer", the score without noise
            (or among the others one of the noise "none").
    """
    scored = [one for one in mappings(content.get("noise")) if is_score(one.get("wer"))]
    lines = list(_noise_lines([one for one in scored if one.get("noise") != "none" and is_number(one.get("snr_db"))]))
    if not lines:
        return None
    without = next((one["wer"] for one in scored if one.get("noise") == "none"), content.get("wer"))
    clean = in_unit("wer", without["value"]) if is_score(without) else None
    points = [point for line in lines for point in line.points]
    ends = [end for point in points for end in (point.low, point.high) if end is not None]
    across = linear("signal-to-noise ratio, dB", [point.x for point in points])
    plot = Plot(across, score_axis("wer", ends if clean is None else [*ends, clean]))
    guide = [] if clean is None else [plot.line([(across.low, clean), (across.high, clean)], "guide")]
    keys = [*((line.look, line.name) for line in lines), *([] if clean is None else [("guide", f"without noise: {clean:.2f}\u202f%")])]
    about = "Word error rate by noise. " + "; ".join(point.about for point in points)
    note = "To the right, the speech is louder than the noise. Whiskers are 95 % intervals."
    return Drawing("WER in noise", plot.svg([*guide, *plot.series(lines)], about), keys, note)


def _noise_lines(scored: list[Mapping[str, Any]]) -> Iterator[Series]:
    """Yield a line for each noise, in the order they come, each from the lowest ratio to the highest."""
    for number, name in enumerate(dict.fromkeys(figure(one.get("noise", "")) for one in scored)):
        points = [_noise_point(name, one) for one in scored if figure(one.get("noise", "")) == name]
        yield Series(name, colour(number), sorted(points, key=lambda point: point.x))


def _noise_point(name: str, one: Mapping[str, Any]) -> Point:
    value, low, high = (in_unit("wer", one["wer"][end]) for end in ("value", "low", "high"))
    about = (
        f"{name} noise, {figure(one['snr_db'])} dB: {score_words('wer', one['wer']['value'])}, {shown_score('wer', one['wer']).interval}"
    )
    return Point(float(one["snr_db"]), value, low, high, about)
