"""Tags that say which words of a sentence belong together as a span of some type, and what a word is where a text is given whole.

A tag is `O` for a word outside all spans, or a letter, a hyphen and a type (`B-PER`). B begins a span, I goes on, and in BILOU and BIOES
the last word has a letter of its own (L, E), as has a span of one word (U, S). In BIO every span begins with B; in IOB1 only one that
follows another of its type (Ramshaw and Marcus 1995; Tjong Kim Sang and Veenstra 1999; Ratinov and Roth 2009). `plain` tags, such as parts
of speech, mean nothing beyond their word.

Read leniently, as the CoNLL script and seqeval read tags, a word goes on with the span before it if its letter may and the types are one,
and otherwise begins a new one. Read strictly, spans that do not begin and end as their scheme wants are none.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from heed.data.text import SPACELESS

Scheme = Literal["bio", "iob1", "bilou", "bioes", "plain"]

OUTSIDE = "O"
LETTERS: dict[Scheme, str] = {"bio": "BI", "iob1": "BI", "bilou": "BILU", "bioes": "BIES"}  # begin, inside, last, alone
WRITTEN: dict[Scheme, Scheme] = {"iob1": "bio"}  # what tags of a scheme are turned into; others stay
ROLES = "BIES"  # what letters stand for, in the order of LETTERS
NO_TYPE = "_"  # of a tag that is a letter alone
WORD = re.compile(r"\S+")
# A character with what changes it: emoji are written with colours of skin, joiners and others, flags as two letters.
CLUSTER = re.compile(
    "(?:[\U0001f1e6-\U0001f1ff]{2}|.)(?:[\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]|\u200d.)*", re.DOTALL
)
PIECE = re.compile(f"(?!\\s)[{SPACELESS}]|[^\\s{SPACELESS}]+")


class Span(NamedTuple):
    """Words from `start` up to but not `end`, which are of a type together."""

    type: str
    start: int
    end: int


class Tag(NamedTuple):
    """What a tag says: begin, inside, end or single (BIES), or outside; and its type."""

    role: str
    type: str


def parsed(tag: str, scheme: Scheme) -> Tag | None:
    """Return what a tag says in a scheme; None for one that it does not know."""
    if scheme == "plain":
        return Tag("S", tag)
    if tag == OUTSIDE:
        return Tag(OUTSIDE, "")
    letter, hyphen, of = tag[:1], tag[1:2], tag[2:]
    place = LETTERS[scheme].find(letter) if letter else -1
    if place < 0 or (hyphen and (hyphen != "-" or not of)):
        return None
    return Tag(ROLES[place], of or NO_TYPE)


def goes_on(before: Tag, tag: Tag) -> bool:
    """Return whether a word belongs to the span of the word before it."""
    return before.role in "BI" and tag.role in "IE" and before.type == tag.type


def spans_of(tags: Sequence[str], scheme: Scheme, *, strict: bool = False) -> list[Span]:
    """Return the spans of a sentence's tags, in their order.

    Args:
        strict: whether spans that are not as the scheme wants are left out.
    Raises:
        ValueError: a tag that the scheme does not know.
    """
    found: list[tuple[Span, str]] = []
    before = Tag(OUTSIDE, "")
    for place, tag in enumerate(tags):
        one = parsed(tag, scheme)
        if one is None:
            raise ValueError(f"tag {tag!r} is none of {scheme}")
        if one.role != OUTSIDE and goes_on(before, one):
            span, roles = found[-1]
            found[-1] = span._replace(end=place + 1), roles + one.role
        elif one.role != OUTSIDE:
            found.append((Span(one.type, place, place + 1), one.role))
        before = one
    return [span for span, roles in found if not strict or is_whole(roles, scheme)]


def is_whole(roles: str, scheme: Scheme) -> bool:
    """Return whether the words of a span begin and end as its scheme wants."""
    if scheme == "iob1":
        return True
    if scheme == "bio":
        return roles[0] == "B"
    return roles == "S" or (roles[0] == "B" and roles[-1] == "E")


def tags_of(spans: Sequence[Span], n_words: int, scheme: Scheme) -> list[str]:
    """Write spans, which do not overlap, as the tags of a sentence; those of `plain` spans are their types."""
    tags = [OUTSIDE] * n_words
    for span in spans:
        for place in range(span.start, span.end):
            tags[place] = span.type if scheme == "plain" else _written(span, place, WRITTEN.get(scheme, scheme))
    return tags


def _written(span: Span, place: int, scheme: Scheme) -> str:
    role = "B" if place == span.start else "I"
    if len(LETTERS[scheme]) == len(ROLES) and place == span.end - 1:
        role = "S" if role == "B" else "E"
    letter = LETTERS[scheme][ROLES.index(role)]
    return letter if span.type == NO_TYPE else f"{letter}-{span.type}"


def labels_for(types: Sequence[str], scheme: Scheme) -> list[str]:
    """Return all tags of some types: O, then those of each type; of `plain` the types themselves."""
    if scheme == "plain":
        return list(types)
    letters = LETTERS[WRITTEN.get(scheme, scheme)]
    return [OUTSIDE, *(letter if of == NO_TYPE else f"{letter}-{of}" for of in types for letter in letters)]


def tags_fault(tags: Sequence[str], words: Sequence[str], scheme: Scheme, *, strict: bool) -> str | None:
    """Say what is wrong with the tags of a sentence; None for nothing.

    Args:
        strict: whether spans have to begin and end as the scheme wants.
    """
    if len(tags) != len(words):
        return f"has {_counted(len(words), 'token')} but {_counted(len(tags), 'tag')}; give every token its tag"
    odd = next((place for place, tag in enumerate(tags) if parsed(tag, scheme) is None), None)
    if odd is not None:
        letters = " ".join(f"{letter}-TYPE" for letter in LETTERS[scheme])
        return (
            f"{_told(odd, words)} has the tag {tags[odd]!r}, which task.scheme={scheme} does not know; expected O {letters}, or another "
            f"scheme: task.scheme={scheme_of(tags)}"
        )
    if not strict:
        return None
    whole = set(spans_of(tags, scheme, strict=True))
    broken = next((span for span in spans_of(tags, scheme) if span not in whole), None)
    if broken is None:
        return None
    shown = " ".join(tags[broken.start : broken.end])
    guess = scheme_of(tags)
    other = "iob1" if guess == scheme else guess
    return (
        f"{_told(broken.start, words)} begins a span that is not as task.scheme={scheme} wants it ({_shortened(shown)}); mend its tags, "
        f"name the scheme they are of, such as task.scheme={other}, or read them as seqeval does, as a span all the same: task.strict=false"
    )


def scheme_of(tags: Sequence[str]) -> Scheme:
    """Guess the scheme of some tags; BIO and IOB1 cannot be told from each other, nor others where letters do not occur."""
    for scheme in ("bio", "bilou", "bioes"):
        if all(parsed(tag, scheme) is not None for tag in tags):
            return scheme
    return "plain"


def split_words(value: str | Sequence[str]) -> list[str]:
    """Return the words of a sentence that is given as such, or as a text with white space between them."""
    return value.split() if isinstance(value, str) else list(value)


def words_in(text: str, *, apart: bool) -> list[tuple[int, int]]:
    """Return from which to which character the words of a text stand: what is between white space.

    Args:
        apart: whether symbols at the ends of a word, and the characters of scripts without spaces, are words of their own.
    """
    if not apart:
        return [match.span() for match in WORD.finditer(text)]
    return [span for match in PIECE.finditer(text) for span in _without_symbols(text, *match.span())]


def _without_symbols(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the symbols at the start of a piece, what is between, and those at its end."""
    clusters = [match.span() for match in CLUSTER.finditer(text, start, end)]
    first, last = 0, len(clusters)
    while first < last and _is_symbol(text[clusters[first][0]]):
        first += 1
    while last > first and _is_symbol(text[clusters[last - 1][0]]):
        last -= 1
    yield from clusters[:first]
    if first < last:
        yield clusters[first][0], clusters[last - 1][1]
    yield from clusters[last:]


def is_symbols(word: str) -> bool:
    """Return whether a word holds nothing but punctuation and other symbols."""
    return bool(word) and all(map(_is_symbol, word))


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _told(place: int, words: Sequence[str]) -> str:
    return f"token {place + 1} ({_shortened(words[place])!r})"


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
