"""Named normalisations of transcripts: what is made alike before one is learned, or two are compared.

An error rate says little without what counted as the same, so each normalisation has a name, which stands beside the scores.

Left out: numbers and abbreviations written as they are spoken, and variants of spelling; both need rules for every language.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from heed.data.words import HAN, HIRAGANA, KATAKANA
from heed.errors import ConfigError

Normalisation = Literal["none", "lower", "words"]

APOSTROPHES = re.compile("[\u2019\u02bc\uff07]")
# Two and more, or one that has no letter on both sides: these quote, or stand for letters that nobody hears at the end of a word.
QUOTING = re.compile(r"'{2,}|(?<!\S)'|'(?!\S)")
SPACELESS = f"[{HAN}{HIRAGANA}{KATAKANA}]"
SPACE_BETWEEN = re.compile(f"(?<={SPACELESS}) (?={SPACELESS})")


def folded(text: str) -> str:
    """Return the text in NFC, with single spaces between its words and none around it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def lowered(text: str) -> str:
    """Return the folded text in lower case."""
    return folded(folded(text).lower())


def bare_words(text: str) -> str:
    """Return the words alone: lower case, without punctuation and symbols.

    - Each punctuation mark and symbol (Unicode's categories P and S) becomes a space, hyphens and decimal points too: "well-known" is two
      words, and so are "3.5", "U.S." and "R&B". "$5" and "5 %" are both "5".
    - An apostrophe inside a word stays, as "'": "don't", "l'eau", "rock'n'roll"; at the end of one it goes: "the dogs' tails".
    - Between two Chinese or Japanese characters no space is left, as none is heard: "你好，世界！" is "你好世界".
    - Letters keep their accents and vowel signs.
    """
    text = APOSTROPHES.sub("'", lowered(text))
    text = "".join(" " if unicodedata.category(char)[0] in "PS" and char != "'" else char for char in text)
    text = " ".join(QUOTING.sub(" ", text).split())
    return folded(SPACE_BETWEEN.sub("", text))  # once more, for a mark may stand behind another letter now


NORMALISATIONS: dict[str, Callable[[str], str]] = {"none": folded, "lower": lowered, "words": bare_words}


def normalised(text: str, name: str) -> str:
    """Return a transcript as the normalisation of this name leaves it; a second time changes nothing.

    - none: NFC and single spaces; what is written otherwise stays.
    - lower: lower case besides.
    - words: no punctuation and symbols besides, as `bare_words` says.

    Raises:
        ConfigError: there is no normalisation of this name.
    """
    if name not in NORMALISATIONS:
        near = difflib.get_close_matches(name, NORMALISATIONS, n=1, cutoff=0.0)[0]
        raise ConfigError(f"normalisation {name!r} is not one of {', '.join(NORMALISATIONS)}; did you mean {near!r}?")
    return NORMALISATIONS[name](text)
