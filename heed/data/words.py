"""Whole words and characters: what happens to a text before it is cut, and vocabularies of what it is cut into.

Chinese is cut by jieba, which the extra "chinese" installs. Left out: stems and base forms, and a dictionary for Japanese and Thai,
where a run of Hiragana, of Katakana or of Thai letters is one word.
"""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import chain, groupby, islice
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from heed.data.stopwords import CHINESE, ENGLISH
from heed.data.text import JOINERS, clean, join_surrogates
from heed.data.vocabulary import SPECIALS, Vocabulary, for_the_eye
from heed.errors import CheckpointError, ConfigError, DataError, MissingExtra

StopWords = Literal["none", "en", "zh", "en+zh"]
Unit = Literal["words", "characters"]

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HIRAGANA = "\u3041-\u309f\u30fc"
KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
APART = re.compile(f"[{HAN}{HIRAGANA}{KATAKANA}]")  # scripts that form words of their own
# jieba's search for words that its dictionary lacks is quadratic in the run it is given; clauses are far shorter than this.
LONGEST_RUN = 256
HAN_RUN = re.compile(f"[{HAN}]{{1,{LONGEST_RUN}}}+")
MIN_HAN_SHARE = 0.2  # of the characters of Chinese texts
JUDGED_TEXTS = 1000  # from which it is found out
CACHED_RUNS = 1 << 16
LARGE_VOCABULARY = 1000  # different words from which those that occur once are left out
CUTTING = "cutting Chinese text into words (task.tokens=characters and task.tokens=subwords need no package)"

APOSTROPHES = "'’"
# What joins a word to the next so that it is no whole word: "me@example.org", "is_open"; "can`t", "can ' t", "can;t".
JOINED_BEFORE = re.compile(r"(?:[@#]|[^\W_]_|\w[`´‘′＇])\Z")
JOINED_AFTER = re.compile(r"_[^\W_]|[@`´‘′＇]\w|\s*+['’`´‘′＇]\s*+t\b|[.,:;\"]t\b", re.IGNORECASE)
# Stops and strokes join single letters alone: "a.m.", "A&E", but neither "good.The" nor "and/or".
INITIAL_BEFORE = re.compile(r"\b\w[.&/+]\Z")
INITIAL_AFTER = re.compile(r"[.&/+]\w\b")


class Preparation:
    """What happens to a text before it is cut; a `Part` that is saved as one JSON file.

    Stop-words are whole words, in any case and whatever marks stand at them; Chinese ones are words as jieba cuts them. A negation is
    never one. Each leaves a space, so that its neighbours do not grow together, and white space is folded afterwards.

    Args:
        cleaning: whether mark-up and invisible characters go (`clean`); otherwise only surrogates are mended.
        lower: whether letters become small ones.
        stop_words: the languages whose stop-words go.
    Raises:
        ConfigError: an unknown choice of stop-words.
        MissingExtra: Chinese stop-words are to go, and jieba is not installed.
    """

    kind: ClassVar[str] = "preparation"

    def __init__(self, *, cleaning: bool, lower: bool, stop_words: StopWords) -> None:
        if stop_words not in get_args(StopWords):
            raise ConfigError(f"task.stop_words={stop_words!r} is not one of {', '.join(get_args(StopWords))}")
        if "zh" in stop_words:
            require_jieba(f"task.stop_words={stop_words}")
        self.cleaning = cleaning
        self.lower = lower
        self.stop_words = stop_words

    def __call__(self, text: str) -> str:
        """Return the prepared text; one of nothing but stop-words becomes ""."""
        text = clean(text) if self.cleaning else join_surrogates(text)
        text = text.lower() if self.lower else text
        if self.stop_words == "none":
            return text
        if "en" in self.stop_words:
            text = _pieces().sub(_without_english, text)
        if "zh" in self.stop_words:
            text = HAN_RUN.sub(_without_chinese, text)
        return " ".join(text.split())

    def to_json(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {"cleaning": self.cleaning, "lower": self.lower, "stop_words": self.stop_words}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build the preparation again.

        Raises:
            CheckpointError: the content does not fit.
            MissingExtra: it needs jieba, which is not installed.
        """
        try:
            cleaning, lower, stop_words = content["cleaning"], content["lower"], content["stop_words"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"not a preparation of texts ({error!r}); restore the run folder from a copy") from error
        if not isinstance(cleaning, bool) or not isinstance(lower, bool) or stop_words not in get_args(StopWords):
            raise CheckpointError(f"not a preparation of texts ({str(content)[:80]}); restore the run folder from a copy")
        return cls(cleaning=cleaning, lower=lower, stop_words=stop_words)


def _without_english(match: re.Match[str]) -> str:
    """Return a space for an English stop-word, any other piece as it is."""
    if match[0].lower().replace("’", "'") not in ENGLISH:
        return match[0]
    text, start, end = match.string, match.start(), match.end()
    before = text[max(0, start - 3) : start]
    joined = JOINED_BEFORE.search(before) or JOINED_AFTER.match(text, end)
    if len(match[0]) == 1:
        joined = joined or INITIAL_BEFORE.search(before) or INITIAL_AFTER.match(text, end)
    return match[0] if joined else " "


def _without_chinese(match: re.Match[str]) -> str:
    """Return a run of Han characters with a space in place of stop-words."""
    groups = groupby(cut_chinese(match[0]), key=CHINESE.__contains__)
    return " ".join("".join(words) for is_stop_word, words in groups if not is_stop_word) or " "


class Words(Vocabulary):
    """A vocabulary of whole words or of characters; a `Part` that is saved as one JSON file.

    A word is letters with their marks, also digits after the first and apostrophes or hyphens inside ("don't", "mp3"); a number with
    its separators ("1,000.5"); what jieba makes of a run of Han characters; or any other symbol alone. Characters are code points,
    where white space is one space between others and none at the ends.

    Args:
        words: by id; the first are the special tokens.
        unit: what a text is cut into.
        chinese: whether Han characters are cut into words; otherwise each stands alone.
    """

    kind: ClassVar[str] = "words"

    def __init__(self, words: Sequence[str], *, unit: Unit, chinese: bool) -> None:
        self.words = list(words)
        self.unit = unit
        self.chinese = chinese
        self._ids = {word: index for index, word in enumerate(self.words) if index >= len(SPECIALS)}

    @classmethod
    def train(cls, texts: Iterable[str], *, unit: Unit, vocab_size: int) -> Self:
        """Take the most frequent words or characters of texts, which are read once; equally frequent ones in the order of text.

        Words that occur once are left out of large vocabularies: they stand for the unknown word, which is learned from them.
        Han characters are cut into words when at least MIN_HAN_SHARE of the first texts' characters are Han.

        Raises:
            ConfigError: an unknown unit, or a size that holds no more than the special tokens.
            DataError: no text has anything in it.
            MissingExtra: the texts are Chinese, words are wanted, and jieba is not installed.
        """
        if unit not in get_args(Unit):
            raise ConfigError(f"task.tokens={unit!r} is not one of {', '.join(get_args(Unit))}")
        if vocab_size <= len(SPECIALS):
            raise ConfigError(f"task.vocab_size={vocab_size} is not above {len(SPECIALS)}, what special tokens need")
        counts, chinese = _count_words(texts) if unit == "words" else (_count_characters(texts), False)
        if not counts:
            raise DataError(f"no text to take {unit} from: every text is empty; check the data files and their columns")
        fewest = 2 if unit == "words" and len(counts) > LARGE_VOCABULARY else 1
        ranked = sorted((word for word in counts if counts[word] >= fewest), key=lambda word: (-counts[word], word))
        return cls([*SPECIALS, *ranked[: vocab_size - len(SPECIALS)]], unit=unit, chinese=chinese)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return len(self.words)

    def split(self, text: str) -> list[str]:
        """Return the words or characters of a text as they stand in it.

        Raises:
            MissingExtra: there are Chinese words to cut, and jieba is not installed.
        """
        if self.unit == "characters":
            return list(_folded(text))
        text = join_surrogates(text)
        pieces: list[str] = _pieces().findall(text)
        if not HAN_RUN.search(text):
            return pieces
        return [word for piece in pieces for word in (_cut(piece, self.chinese) if HAN_RUN.match(piece) else (piece,))]

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without begin and end; what is not in the vocabulary is unknown (id 3)."""
        return [self._ids.get(piece, self.unk_id) for piece in self.split(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return characters as their text, words with spaces between them; <unk> stands for unknown ones, other special tokens go.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        shown = (self.words[self.known(index)] for index in ids if index not in (self.pad_id, self.bos_id, self.eos_id))
        return ("" if self.unit == "characters" else " ").join(shown)

    def token(self, index: int) -> str:
        """Return one word or character for the eye: "▁" is a space."""
        return for_the_eye(self.words[self.known(index)])

    def word_starts(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which ids (S,) start a word: all, for a character counts as a word."""
        return np.ones(len(ids), dtype=np.bool_)

    def to_json(self) -> dict[str, Any]:
        """Return `unit`, `chinese` and `words`, by id."""
        return {"unit": self.unit, "chinese": self.chinese, "words": self.words}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build the vocabulary again.

        Raises:
            CheckpointError: the content is no vocabulary, or one whose entries no text can hold.
        """
        try:
            words, unit, chinese = content["words"], content["unit"], content["chinese"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"not a vocabulary of words ({error!r}); restore the run folder from a copy") from error
        fault = _fault(words, unit, chinese)
        if fault is not None:
            raise CheckpointError(f"not a vocabulary of heed: {fault}; restore the run folder from a copy")
        return cls(words, unit=unit, chinese=chinese)


def _fault(words: object, unit: object, chinese: object) -> str | None:
    """Say what makes loaded content unusable, or return None."""
    if unit not in get_args(Unit) or not isinstance(chinese, bool):
        return f"unit {unit!r} with chinese {chinese!r} is not known"
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return "its words are no list of texts"
    if tuple(words[: len(SPECIALS)]) != SPECIALS or len(words) == len(SPECIALS):
        return f"its words are not {' '.join(SPECIALS)} and more"
    if len(set(words)) < len(words):
        return "it holds a word twice"
    fits = _is_character if unit == "characters" else _is_word
    odd = next((word for word in words[len(SPECIALS) :] if not fits(word)), None)
    return None if odd is None else f"{odd[:60]!r} is none of the {unit}"


def _is_character(text: str) -> bool:
    return len(text) == 1 and (text == " " or not text.isspace())


def _is_word(text: str) -> bool:
    return text.split() == [text]


def _count_words(texts: Iterable[str]) -> tuple[Counter[str], bool]:
    """Return how often each word occurs, and whether the texts are Chinese, as the first of them tell."""
    stream = map(join_surrogates, texts)
    first = list(islice(stream, JUDGED_TEXTS))
    chinese = _is_chinese("".join(first))
    if chinese:
        require_jieba(CUTTING)
    counts: Counter[str] = Counter()
    for text in chain(first, stream):
        for piece in _pieces().findall(text):
            counts.update(_cut(piece, chinese) if HAN_RUN.match(piece) else (piece,))
    return counts, chinese


def _count_characters(texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_folded(text))
    return counts


def _folded(text: str) -> str:
    return " ".join(join_surrogates(text).split())


def _is_chinese(text: str) -> bool:
    n_han = sum(map(len, HAN_RUN.findall(text)))
    return n_han > 0 and n_han >= MIN_HAN_SHARE * len(text)


@cache
def _pieces() -> re.Pattern[str]:
    """Return the pattern of words, numbers, runs and symbols; possessive, so that the work is linear in the text."""
    letters, marks = _characters("LM"), _characters("M")
    inside = f"[{letters}{JOINERS}\\d]"
    word = f"[{letters}]{inside}*+(?:[{APOSTROPHES}‐‑-]{inside}++)*+"
    number = rf"\d++(?:[.,:/{APOSTROPHES}]\d++)*+"
    runs = f"{HAN_RUN.pattern}|[{HIRAGANA}]++|[{KATAKANA}]++"
    return re.compile(f"{word}|{number}|{runs}|\\S[{marks}{JOINERS}]*+")


def _characters(categories: str) -> str:
    """Return the inside of a character class: what is in the Unicode categories, without the scripts that form words of their own."""
    codes = [code for code in range(0x20000) if unicodedata.category(chr(code))[0] in categories and not APART.match(chr(code))]
    ranges = (list(pairs) for _, pairs in groupby(enumerate(codes), key=lambda pair: pair[1] - pair[0]))
    return "".join(f"{chr(pairs[0][1])}-{chr(pairs[-1][1])}" for pairs in ranges)


def require_jieba(purpose: str) -> None:
    """Raise MissingExtra unless jieba can be imported."""
    if find_spec("jieba") is None:
        raise MissingExtra("jieba", "chinese", purpose)


def _cut(run: str, chinese: bool) -> tuple[str, ...]:
    return cut_chinese(run) if chinese else tuple(run)


@lru_cache(maxsize=CACHED_RUNS)
def cut_chinese(run: str) -> tuple[str, ...]:
    """Cut Han characters into words with jieba; raises MissingExtra where it is not installed."""
    return tuple(_segmenter().cut(run))


@cache
def _segmenter() -> Any:
    """Return jieba with its own dictionary and nothing else.

    The dictionary is read here and not by jieba's `initialize`, which would trust and write a cache in the folder for temporary files
    and say so on stderr. An instance of our own is out of reach of words that others add to jieba's shared one.
    """
    require_jieba(CUTTING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its escapes and of pkg_resources; as errors they would forbid the import
        jieba = import_module("jieba")
    segmenter = jieba.Tokenizer()
    segmenter.FREQ, segmenter.total = segmenter.gen_pfdict(segmenter.get_dict_file())
    segmenter.initialized = True
    return segmenter
