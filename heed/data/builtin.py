"""The built-in translation data: everyday phrases from English into German and Chinese (Simplified), made without a download.

Every name, pattern, plural and number format is real: it comes from the Unicode Common Locale Data Repository (CLDR, Unicode License v3,
https://cldr.unicode.org) as the Babel package carries it. Only the values inside the phrases (which day, how many kilometers) are drawn,
from a seed alone: the machine's date, time zone and locale play no part.

One data set holds both directions; a tag at the start of the source names the language wanted: ">>de<< 3 days ago" becomes "vor 3 Tagen",
">>zh<< 3 days ago" becomes "3天前". Held-out phrases share no source and no target with training, yet consist of words
that occur there.

What phrases there are, and what is left out, says `heed.data.phrases`; how a language writes them down, `heed.data.voice`.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from heed.data.phrases import COUNTRIES, KINDS, LANGUAGES, Render
from heed.data.voice import Voice
from heed.errors import DataError

SOURCE_LOCALE = "en"
TARGET_LOCALES = {"de": "de", "zh": "zh_Hans"}
COLUMNS = ("source", "target", "kind")

# In a hundred phrases this many may only be held out; the others may only be trained on. The choice hangs on the phrase, not on its turn.
RESERVED_PERCENT = 12
# How many draws a phrase may cost before the request counts as impossible: small kinds repeat themselves, few training pairs cover little.
DRAWS_PER_PHRASE = 400
# Among training phrases, every so many is a bare country or language name until all have been used.
NAME_EVERY = 4


def phrase_pairs(*, seed: int, n_train: int, n_valid: int, n_test: int) -> dict[str, list[dict[str, str]]]:
    """Make the three splits, each a list of {"source", "target", "kind"}; the same seed and sizes give the same pairs.

    A phrase comes twice in a row, once per target language, and is never in two splits. No source (tag aside) and no target of one split
    occurs in another, and every word, symbol and Chinese character of a held-out pair occurs in training for the same target language.

    Raises:
        DataError: a size is negative, or so many different phrases cannot be made.
    """
    for name, size in {"n_train": n_train, "n_valid": n_valid, "n_test": n_test}.items():
        if size < 0:
            raise DataError(f"built-in phrases: {name} is {size}; expected 0 or more, so ask for a size that is not negative")
    voices = {"en": Voice("en", SOURCE_LOCALE)} | {tag: Voice(tag, locale) for tag, locale in TARGET_LOCALES.items()}
    training = _training_phrases(seed, _phrases_for(n_train), voices)
    train = _pairs(training)[:n_train]
    held_out = _held_out_phrases(seed, _phrases_for(n_valid) + _phrases_for(n_test), voices, training, train)
    valid, test = held_out[: _phrases_for(n_valid)], held_out[_phrases_for(n_valid) :]
    return {"train": train, "valid": _pairs(valid)[:n_valid], "test": _pairs(test)[:n_test]}


def write_phrases(folder: Path, *, seed: int = 1, n_train: int = 30_000, n_valid: int = 500, n_test: int = 1_000) -> dict[str, Path]:
    """Write train.tsv, valid.tsv and test.tsv (UTF-8, a header, columns source, target, kind) and return their paths by split.

    Raises:
        DataError: as `phrase_pairs`, or the folder cannot be written.
    """
    splits = phrase_pairs(seed=seed, n_train=n_train, n_valid=n_valid, n_test=n_test)
    paths = {name: folder / f"{name}.tsv" for name in splits}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, pairs in splits.items():
            rows = ["\t".join(COLUMNS), *("\t".join(pair[column] for column in COLUMNS) for pair in pairs)]
            paths[name].write_text("\n".join(rows) + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"{folder}: the built-in phrases cannot be written here ({error}); choose a folder you may write to") from error
    return paths


class Candidate(NamedTuple):
    """A drawn phrase, not yet in words; `bare` says it is a name alone, which only training may hold."""

    kind: str
    render: Render
    bare: bool


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase in English and, by tag, in every target language."""

    kind: str
    source: str
    targets: dict[str, str]


def _phrases_for(n_pairs: int) -> int:
    """Count the phrases that give so many pairs."""
    return -(-n_pairs // len(TARGET_LOCALES))


def _pairs(phrases: Iterable[Phrase]) -> list[dict[str, str]]:
    """Write each phrase as one pair per target language."""
    return [
        {"source": f">>{tag}<< {phrase.source}", "target": target, "kind": phrase.kind}
        for phrase in phrases
        for tag, target in phrase.targets.items()
    ]


def _country_name(code: str) -> Candidate:
    return Candidate("country", lambda voice: voice.country(code), bare=True)


def _language_name(code: str) -> Candidate:
    return Candidate("language", lambda voice: voice.language(code), bare=True)


def _bare_names(draw: Random) -> list[Candidate]:
    """List every country and language as a phrase of its own, in a drawn order."""
    names = [*map(_country_name, COUNTRIES), *map(_language_name, LANGUAGES)]
    draw.shuffle(names)
    return names


def _candidates(draw: Random, names: Sequence[Candidate] = ()) -> Iterator[Candidate]:
    """Draw phrases without end, the given names first of all in every NAME_EVERY until they are used up."""
    kinds, weights = tuple(KINDS), [weight for weight, _ in KINDS.values()]
    remaining = iter(names)
    while True:
        if name := next(remaining, None):
            yield name
        for kind in draw.choices(kinds, weights, k=NAME_EVERY - 1):
            yield Candidate(kind, KINDS[kind][1](draw), bare=False)


def _training_phrases(seed: int, n_phrases: int, voices: dict[str, Voice]) -> list[Phrase]:
    """Draw the phrases to train on; they differ in their source."""
    draw = Random(f"{seed}:train")
    sources: set[str] = set()

    def accept(candidate: Candidate) -> Phrase | None:
        source = candidate.render(voices["en"])
        if source in sources or (reserved(seed, source) and not candidate.bare):
            return None
        sources.add(source)
        return _phrase(candidate, source, voices)

    return _collect(_candidates(draw, _bare_names(draw)), n_phrases, accept, "for training")


def _held_out_phrases(
    seed: int, n_phrases: int, voices: dict[str, Voice], training: Iterable[Phrase], train: Iterable[dict[str, str]]
) -> list[Phrase]:
    """Draw phrases that share no source and no target with `training` or each other, all of whose words occur in the pairs of `train`."""
    taken = {text for phrase in training for text in _surfaces(phrase)}
    known = {word for pair in train for word in _words(pair)}

    def accept(candidate: Candidate) -> Phrase | None:
        source = candidate.render(voices["en"])
        if source in taken or not reserved(seed, source):
            return None
        phrase = _phrase(candidate, source, voices)
        if not taken.isdisjoint(_surfaces(phrase)) or not all(known.issuperset(_words(pair)) for pair in _pairs([phrase])):
            return None
        taken.update(_surfaces(phrase))
        return phrase

    return _collect(_candidates(Random(f"{seed}:held out")), n_phrases, accept, "to hold out, in words of the training pairs,")


def _collect(candidates: Iterator[Candidate], n_phrases: int, accept: Callable[[Candidate], Phrase | None], purpose: str) -> list[Phrase]:
    """Return the first so many phrases that are accepted; raises DataError when they do not turn up."""
    drawn = islice(candidates, n_phrases * DRAWS_PER_PHRASE)
    phrases = list(islice((phrase for candidate in drawn if (phrase := accept(candidate))), n_phrases))
    if len(phrases) < n_phrases:
        raise DataError(
            f"built-in phrases: {len(phrases)} different ones {purpose} were found and {n_phrases} expected; "
            "ask for fewer, or for more training pairs if these are few"
        )
    return phrases


def _phrase(candidate: Candidate, source: str, voices: dict[str, Voice]) -> Phrase:
    """Put a candidate into words in every target language."""
    return Phrase(candidate.kind, source, {tag: candidate.render(voices[tag]) for tag in TARGET_LOCALES})


def reserved(seed: int, source: str) -> bool:
    """Tell whether a phrase may only be held out, from its text and the seed alone."""
    digest = hashlib.blake2b(f"{seed}:{source}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % 100 < RESERVED_PERCENT


def _surfaces(phrase: Phrase) -> set[str]:
    """Return what a phrase looks like in any language; splits may not share one."""
    return {phrase.source, *phrase.targets.values()}


def _words(pair: dict[str, str]) -> set[tuple[str, str, str]]:
    """List the words and symbols of both sides, digits aside, each with its target language; in Chinese every character is one."""
    tag, source = pair["source"].split(" ", 1)
    pieces = re.findall(r"[^\W\d_]" if tag == ">>zh<<" else r"[^\W\d_]+", pair["target"])
    target = [*pieces, *re.findall(r"[^\w\s]", pair["target"])]
    return {(tag, "source", word) for word in re.findall(r"[^\W\d_]+|[^\w\s]", source)} | {(tag, "target", word) for word in target}
