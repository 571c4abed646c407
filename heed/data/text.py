"""Text: cleaning, and sub-words learned from data (Sennrich et al. 2016 for BPE; Kudo 2018 for unigram).

Sub-words are made of bytes, so that no text in any language is ever unknown and decoding gives back what was encoded. Left out:
sub-word sampling (BPE-dropout, unigram sampling), because the `tokenizers` library draws it from a generator that takes no seed.
"""

import html
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from html.entities import html5
from itertools import accumulate, chain, islice
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from heed.data.vocabulary import SPECIALS, Vocabulary, for_the_eye
from heed.errors import CheckpointError, ConfigError, DataError

Algorithm = Literal["bpe", "unigram"]

# Scripts and symbols after which a joiner (U+200C, U+200D) or the Mongolian vowel separator changes what is read.
JOINING = (
    "\u0590-\u0dff"  # Hebrew, Arabic (Persian plurals), Syriac ... the Indic scripts (half forms, conjuncts)
    "\u0f00-\u109f\u1780-\u18af\u1a00-\u1cff\ua800-\uabff"  # Tibetan, Myanmar, Khmer, Mongolian, Javanese ...
    "\ufb1d-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff"  # presentation forms; historic and newer Indic scripts
    "\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"  # symbols and emoji: families, professions, flags
)
JOINERS = "\u200c\u200d\u180e"
FLAG_LETTERS = "\U000e0020-\U000e007f"  # spell the region of a flag after U+1F3F4; anywhere else they hide text

# Controls and format characters that carry no meaning; white space among the controls is left to `str.split`. Visible format
# characters (Arabic number signs, end of ayah, hieroglyph joiners) are not in the list.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001]+"
    f"|(?<![{JOINING}])[{JOINERS}]+"
    f"|(?<![\U0001f3f4{FLAG_LETTERS}])[{FLAG_LETTERS}]+"
)
SURROGATE = re.compile("[\ud800-\udfff]")
GIVEN_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)  # a pair of surrogates is one
# What a second pass could still change; without any of these, one pass is a fixed point.
UNSETTLED = re.compile(f"[<&{JOINERS}{FLAG_LETTERS}]")
CLEANING_PASSES = 8  # real text settles in three; only text built to nest markup needs more

BLOCK_TAGS = (
    "address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset figcaption figure footer form "
    "frameset h1 h2 h3 h4 h5 h6 head header hr html li main menu nav ol optgroup option p pre section select summary table tbody td "
    "textarea tfoot th thead title tr ul"
)
INLINE_TAGS = (
    "a abbr acronym applet area audio b base basefont bdi bdo big blink button canvas cite code col colgroup data datalist del dfn em "
    "embed font frame i iframe img input ins kbd label legend link map mark marquee meta meter nobr noframes noscript object output "
    "param picture progress q rp rt ruby s samp script slot small source span strike strong style sub sup svg template time track tt u "
    "var video wbr"
)
BOOLEAN_ATTRIBUTES = (
    "allowfullscreen async autofocus autoplay checked compact controls default defer disabled hidden ismap loop multiple muted nohref "
    "noshade novalidate nowrap open readonly required reversed selected"
)
ATTRIBUTE = (
    r"""\s++(?:[a-z_:@][-\w:.@]*+\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+'|[^\s"'=<>`]++)"""  # name=value
    rf"|(?:{BOOLEAN_ATTRIBUTES.replace(' ', '|')})\b(?!\s*+=))"
)
# Possessive quantifiers and values without "<" bound the work: every "<" is looked at once, up to the next one.
MARKUP = re.compile(
    rf"<(?P<block>(?:{BLOCK_TAGS.replace(' ', '|')})\b)(?:{ATTRIBUTE})*+\s*+/?\s*+>|</(?P<block_end>{BLOCK_TAGS.replace(' ', '|')})\s*+>"
    rf"|</?(?:{INLINE_TAGS.replace(' ', '|')})\b(?:{ATTRIBUTE})*+\s*+/?\s*+>"
    r"|<!--(?:(?!<!--|-->).)*+-->|<!doctype\b[^<>]*+>|<\?xml\b[^<>]*+\?>",
    re.IGNORECASE | re.DOTALL,
)
# "&amp;amp;lt;" is one match, so that escaping repeated any number of times is undone in one pass.
ENTITY = re.compile(r"&(?:(?:amp|AMP|#38|#x26);)*+(#[0-9]{1,7};|#[xX][0-9a-fA-F]{1,6};|[A-Za-z][A-Za-z0-9]{1,31};)?")


def clean(text: str) -> str:
    """Return the text without mark-up and invisible characters, in NFC, with single spaces.

    - HTML tags go where a known tag name is followed by nothing but attributes (`name=value` or a known boolean one), so "a < b",
      "<3" and "x<y>z" stay; block tags (`<br>`, `<p>`, `<li>` ...) leave a space, others nothing. Comments, doctypes and XML
      declarations go; what stands between tags stays, scripts and styles included.
    - Entities that end in ";" are decoded, however often they were escaped; a tag that comes out of it goes too.
    - Controls and format characters go (zero-width space, BOM, soft hyphen, direction marks). ZWJ and ZWNJ stay after scripts and
      emoji where they change what is read: Persian, the Indic scripts, "👩‍🚀".
    - Lone surrogates become U+FFFD. Width and style of characters are kept: NFC, not NFKC.

    `clean(clean(text)) == clean(text)` for every string. The work is linear in the length: text still unsettled after
    CLEANING_PASSES passes was built to nest mark-up, and loses every "<", "&" and joiner instead.
    """
    for _ in range(CLEANING_PASSES):
        cleaned = _clean_once(text)
        if cleaned == text or not UNSETTLED.search(cleaned):
            return cleaned
        text = cleaned
    return _clean_once(UNSETTLED.sub("", text))


def _clean_once(text: str) -> str:
    """Take one pass: entities, invisible characters (entities may stand for some), mark-up, NFC, white space."""
    text = join_surrogates(text)
    if "&" in text:
        text = ENTITY.sub(_decode_entity, text)
    text = INVISIBLE.sub("", text)
    if "<" in text:
        text = MARKUP.sub(lambda match: " " if match["block"] or match["block_end"] else "", text)
    return " ".join(unicodedata.normalize("NFC", text).split())


def _decode_entity(match: re.Match[str]) -> str:
    """Return the characters an entity stands for; a name HTML does not know stays as it is."""
    name = match[1]
    if name is None:
        return "&"
    return html.unescape(f"&{name}") if name[0] == "#" or name in html5 else f"&{name}"


def join_surrogates(text: str) -> str:
    """Return text that UTF-8 can hold: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    if not SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# Scripts that put no spaces between words, where a sub-word is the nearest thing to a word: Thai, Lao, Tibetan, Myanmar, Khmer; Chinese
# and Japanese with their punctuation and forms of full width.
SPACELESS = "\u0e00-\u109f\u1780-\u17ff\u2e80-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U0003ffff"
_SPACELESS = re.compile(f"[{SPACELESS}]+")

MIN_VOCAB_SIZE = len(SPECIALS) + 256


def word_pattern(apart: str = "") -> str:
    """Return what cuts a text into words, inside which sub-words are learned.

    Words are letters with their marks and joiners, digits stand alone, symbols form runs (an emoji keeps its modifiers); each takes the
    one space before it. Text without spaces is cut like one long word a clause, and only `word_starts` looks closer.

    Args:
        apart: a class of characters, such as SPACELESS, that each stand alone with the marks behind them.
    """
    letters = f"\\p{{L}}\\p{{M}}{JOINERS}"
    return (
        (f" ?[{apart}][\\p{{M}}{JOINERS}]*| ?[{letters}&&[^{apart}]]+" if apart else f" ?[{letters}]+")
        + r"| ?\p{N}"
        + f"| ?[^\\s\\p{{L}}\\p{{M}}\\p{{N}}{JOINERS}][^\\s\\p{{L}}\\p{{N}}{apart}]*"
        + r"|\s+(?!\S)|\s+"
    )


WORDS = word_pattern()
CHARACTERS_APART = word_pattern(SPACELESS)
# Holds every special token, several scripts and control characters; a tokenizer file that changes it is broken.
PROBE = f"{''.join(SPECIALS)} A naïve 好的，１２ 42% 🙂\x00\n {SPECIALS[2]}"

SEED_FACTOR = 4  # a unigram vocabulary is pruned from this many times its size
KEPT_SHARE = 0.75  # pruned in steps of a quarter, as in Kudo 2018, section 3.2
EM_STEPS = 2  # re-estimations between two prunings
MAX_PIECE_BYTES = 24  # longer pieces are memorised phrases
WORD_BATCH = 10_000  # words segmented at a time while counting
LONGEST_RUN = 4_000  # characters without white space learned from as one: merging takes time by the square of a word's length
RUN = re.compile(rf"\s*+\S{{1,{LONGEST_RUN}}}+|\s++")
UNSEEN_COUNT = 0.5  # lets a piece that no segmentation used keep a finite score
NEVER = -1e6  # score of the special tokens: no segmentation prefers one


class Tokenizer(Vocabulary):
    """Sub-words between text and ids; a `Part` that is saved as one JSON file.

    A space is put before the text, so that a word is the same sub-words at the start of a sentence and inside it, and is taken off
    again by `decode`. Special tokens stand in the vocabulary but never come out of text, not even where it spells them.

    Args:
        backend: a `tokenizers` pipeline without normalizer and added tokens.
        algorithm: how the vocabulary was learned.
        cleaning: whether `encode` passes text through `clean` first.
    """

    kind: ClassVar[str] = "tokenizer"
    mask_id: ClassVar[int] = 3  # stands for a hidden token; sub-words of bytes never need one for an unknown

    def __init__(self, backend: Backend, *, algorithm: Algorithm, cleaning: bool = True) -> None:
        self.backend = backend
        self.algorithm = algorithm
        self.cleaning = cleaning
        self.n_ids = int(backend.get_vocab_size())

    @classmethod
    def train(cls, texts: Iterable[str], *, algorithm: Algorithm, vocab_size: int, cleaning: bool = True, apart: bool = False) -> Self:
        """Learn sub-words from texts, which are read once; for a joint vocabulary pass the texts of both sides.

        The same texts give the same vocabulary. It is smaller than `vocab_size` where the texts hold fewer sub-words that repeat.

        Args:
            apart: whether no sub-word holds several characters of a script without spaces, so that any part of a clause can be pointed at.
        Raises:
            ConfigError: an unknown algorithm, or a size that cannot hold the bytes and the special tokens.
            DataError: no text has anything in it.
        """
        if algorithm not in get_args(Algorithm):
            raise ConfigError(f"tokenizer algorithm {algorithm!r} is not one of {', '.join(get_args(Algorithm))}")
        if vocab_size < MIN_VOCAB_SIZE:
            raise ConfigError(f"tokenizer vocabulary size {vocab_size} is below {MIN_VOCAB_SIZE}, what bytes and special tokens need")
        prepared = _without_endless_runs(f" {text}" for text in map(clean if cleaning else join_surrogates, texts) if text)
        first = next(prepared, None)
        if first is None:
            raise DataError("no text to learn sub-words from: none was left for training, or every text is empty; check the data files")
        train, pattern = train_bpe if algorithm == "bpe" else train_unigram, CHARACTERS_APART if apart else WORDS
        return cls(_pipeline(train(chain([first], prepared), vocab_size, pattern), pattern), algorithm=algorithm, cleaning=cleaning)

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.n_ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, as `encode` does."""
        prepare = clean if self.cleaning else join_surrogates
        spaced = [f" {text}" if text else "" for text in map(prepare, texts)]
        return [encoding.ids for encoding in self.backend.encode_batch_fast(spaced, add_special_tokens=False)]

    def encode_inside(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text as it stands inside a clause of a script without spaces: without the space before it."""
        prepare = clean if self.cleaning else join_surrogates
        return [encoding.ids for encoding in self.backend.encode_batch_fast([*map(prepare, texts)], add_special_tokens=False)]

    def with_places(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Return the ids of each text, as `encode` does, and from which to which of its characters each id stands for.

        A space before a word belongs to no sub-word of it, and bytes inside a character stand for all of it.

        Raises:
            ConfigError: this tokenizer cleans texts, so that places in what it cuts are not places in what it was given.
        """
        if self.cleaning:
            raise ConfigError("a tokenizer that cleans texts does not know where its sub-words stood; train one with cleaning=False")
        return [(ids, self._places(text, ids)) for text, ids in zip(texts, self.encode_batch(texts), strict=True)]

    def _places(self, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Return where the characters of each sub-word start and end in a text."""
        raw = np.frombuffer(f" {join_surrogates(text)}".encode(), dtype=np.uint8)
        char_of = np.append(np.cumsum((raw & 0xC0) != 0x80) - 2, -1)  # (n_bytes + 1,), -1 for the space put in front
        ends = np.cumsum([len(self._pieces[index]) for index in ids], dtype=np.int64)
        firsts = np.append(0, ends[:-1])[: len(ends)]
        firsts += (raw[firsts] == ord(" ")) & (ends - firsts > 1)
        starts, stops = np.maximum(char_of[firsts], 0), char_of[ends - 1] + 1
        if len(text) != char_of[-2] + 1:  # pairs of surrogates, which are two characters of the text as it was given
            given = np.array([*(match.start() for match in GIVEN_CHARACTER.finditer(text)), len(text)])
            starts, stops = given[starts], given[stops]
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def decode_batch(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each sequence of ids, special tokens skipped; bytes that are no UTF-8 become U+FFFD.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        pieces = [[self.known(index) for index in ids if index not in range(len(SPECIALS))] for ids in batch]
        return [text.removeprefix(" ") for text in self.backend.decode_batch(pieces, skip_special_tokens=False)]

    def token(self, index: int) -> str:
        """Return one sub-word for the eye: "▁" is a space, "\\xe5" a byte that is no character by itself."""
        if self.known(index) < len(SPECIALS):
            return SPECIALS[index]
        return for_the_eye(self._pieces[index].decode("utf-8", "backslashreplace"))

    def word_starts(self, ids: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which sub-words (S,) of a text start a word.

        These are the first, a special token and what follows it, and each that begins with a space. In scripts without spaces every
        sub-word is a word, and what follows it in another script is one too; but a sub-word that begins inside a character belongs to
        the one before, and a lone space to the one behind.
        """
        chosen = np.asarray(ids, dtype=np.int64)
        return starts_of_words([self._pieces[index] for index in chosen.tolist()], chosen < len(SPECIALS))

    @cached_property
    def _pieces(self) -> list[bytes]:
        """The bytes of each sub-word (V,), none of special tokens."""
        values = byte_values()
        names = (self.backend.id_to_token(index) or "" for index in range(len(SPECIALS), self.n_ids))
        return [b""] * len(SPECIALS) + [bytes(values[char] for char in name) for name in names]

    def to_json(self) -> dict[str, Any]:
        """Return `algorithm`, `cleaning` and `tokenizer`, the pipeline in the format of the `tokenizers` library."""
        return {"algorithm": self.algorithm, "cleaning": self.cleaning, "tokenizer": json.loads(self.backend.to_str())}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build the tokenizer again.

        Raises:
            CheckpointError: the content is no tokenizer, or one that would lose text or let text spell special tokens.
        """
        try:
            algorithm, cleaning = content["algorithm"], content["cleaning"]
            backend = Backend.from_str(json.dumps(content["tokenizer"]))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"not a tokenizer ({error!r}); restore the run folder from a copy") from error
        fault = _fault(backend, algorithm, cleaning)
        if fault:
            raise CheckpointError(f"not a tokenizer of heed: {fault}; restore the run folder from a copy")
        return cls(backend, algorithm=algorithm, cleaning=cleaning)


def is_spaceless(text: str) -> bool:
    """Return whether a text stands in scripts without spaces alone."""
    return _SPACELESS.fullmatch(text) is not None


def starts_of_words(pieces: Sequence[bytes], special: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pieces (S,) of a text, given as bytes, start a word; those that are special, and write nothing, stand alone."""
    places = accumulate(map(len, pieces), initial=0)
    raw = b"".join(pieces)
    starts = np.array([_starts_word(raw, place) for place, _ in zip(places, pieces, strict=False)], dtype=np.bool_)
    starts[:1] = True
    starts[1:] |= special[:-1]
    return starts | special


def _starts_word(raw: bytes, place: int) -> bool:
    """Return whether a word starts at a place of a text's bytes that is not its first and where a sub-word starts."""
    if raw.startswith(b" ", place):
        return True
    if place == len(raw) or raw[place] & 0xC0 == 0x80:  # inside a character
        return False
    char, before = raw[place : place + 4].decode("utf-8", "replace")[0], raw[max(0, place - 4) : place].decode("utf-8", "replace")[-1:]
    belongs = before == " " or char in JOINERS or unicodedata.category(char)[0] == "M"
    return not belongs and (is_spaceless(char) or is_spaceless(before))


def cleans(part: object) -> bool:
    """Tell whether a part is a tokenizer that cleans texts before it cuts them, so that places in them are lost."""
    return isinstance(part, Tokenizer) and part.cleaning


def _fault(backend: Backend, algorithm: object, cleaning: object) -> str | None:
    """Say what makes a loaded pipeline unusable, or return None."""
    model = {"bpe": models.BPE, "unigram": models.Unigram}.get(algorithm) if isinstance(algorithm, str) else None
    if model is None or not isinstance(backend.model, model) or not isinstance(cleaning, bool):
        return f"algorithm {algorithm!r} with cleaning {cleaning!r} does not describe a {type(backend.model).__name__} model"
    if backend.normalizer or backend.truncation or backend.padding or backend.get_added_tokens_decoder():
        return "it normalizes, truncates or pads text, or finds added tokens in it"
    vocab = backend.get_vocab()
    if sorted(vocab.values()) != list(range(len(vocab))) or tuple(map(backend.id_to_token, range(len(SPECIALS)))) != SPECIALS:
        return f"ids do not start with {' '.join(SPECIALS)} and count up without a gap"
    if not byte_values().keys() <= vocab.keys() or any(piece not in SPECIALS and not set(piece) <= byte_values().keys() for piece in vocab):
        return "the vocabulary is not made of all 256 bytes"
    ids = backend.encode(f" {PROBE}", add_special_tokens=False).ids
    if min(ids) < len(SPECIALS) or backend.decode(ids, skip_special_tokens=False) != f" {PROBE}":
        return "a text does not come back from its ids"
    return None


@cache
def byte_values() -> dict[str, int]:
    """Return the byte each character of the library's byte alphabet stands for: printable ones for themselves, others in order."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = {char: ord(char) for char in alphabet if ord(char) < 256}
    others = (char for char in alphabet if ord(char) >= 256)
    return printable | dict(zip(others, sorted(set(range(256)) - set(printable.values())), strict=True))


def _word_splitter(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _pipeline(model: models.Model, pattern: str) -> Backend:
    """Put a model between the word splitter and the byte decoder; added tokens would be found in text, so there are none."""
    backend = Backend(model)
    backend.pre_tokenizer = _word_splitter(pattern)
    backend.decoder = decoders.ByteLevel()
    return backend


def _without_endless_runs(texts: Iterable[str]) -> Iterator[str]:
    """Pass texts on, those that hold a longer run without white space than `LONGEST_RUN` in parts; all other words stay whole."""
    for text in texts:
        if len(text) > LONGEST_RUN and max(map(len, text.split()), default=0) > LONGEST_RUN:
            yield from RUN.findall(text)
        else:
            yield text


def train_bpe(texts: Iterable[str], vocab_size: int, pattern: str) -> models.BPE:
    """Learn byte-pair merges (Sennrich et al. 2016) inside what a pattern takes for words."""
    vocab, merges = _learn_merges(texts, vocab_size, pattern)
    return models.BPE(vocab=vocab, merges=merges)


def _learn_merges(texts: Iterable[str], vocab_size: int, pattern: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return the ids of special tokens, bytes and merges, and the merges in order.

    The library breaks ties by id and sorts the alphabet, so the result depends neither on threads nor on hash seeds.
    """
    backend = _pipeline(models.BPE(), pattern)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        max_token_length=MAX_PIECE_BYTES,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(byte_values()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def train_unigram(texts: Iterable[str], vocab_size: int, pattern: str) -> models.Unigram:
    """Learn a unigram vocabulary by pruning a larger one (Kudo 2018, section 3.2).

    The library's own trainer gives another vocabulary in every process, because it adds up in the order of a randomly seeded hash
    table. Here the seed vocabulary is that of BPE, and the expectation step counts best segmentations (Viterbi training), which
    the library finds.
    """
    words: Counter[str] = Counter()
    vocab, merges = _learn_merges(_counted(texts, words, pattern), SEED_FACTOR * vocab_size, pattern)
    counts = _seed_counts(vocab, merges, words)
    while True:
        for _ in range(EM_STEPS):
            counts = _segment_counts(_unigram(counts), list(counts), words)
        if len(counts) <= vocab_size - len(SPECIALS):
            return _unigram(counts)
        counts = _prune(counts, max(vocab_size - len(SPECIALS), int(KEPT_SHARE * len(counts))))


def _counted(texts: Iterable[str], words: Counter[str], pattern: str) -> Iterator[str]:
    """Pass texts on, counting their words (in byte characters) on the way."""
    splitter = _word_splitter(pattern)
    for text in texts:
        words.update(word for word, _ in splitter.pre_tokenize_str(text))
        yield text


def _seed_counts(vocab: dict[str, int], merges: list[tuple[str, str]], words: Counter[str]) -> dict[str, float]:
    """Return how often each piece is built while BPE segments the words, as a part of longer pieces too."""
    pieces = sorted(vocab, key=vocab.__getitem__)[len(SPECIALS) :]
    counts = _segment_counts(models.BPE(vocab=vocab, merges=merges), pieces, words)
    for left, right in reversed(merges):
        counts[left] += counts[left + right]
        counts[right] += counts[left + right]
    return counts


def _segment_counts(model: models.Model, pieces: list[str], words: Counter[str]) -> dict[str, float]:
    """Return how often each piece stands in the model's segmentation of all words; `pieces` are those behind the special tokens."""
    backend, counts = Backend(model), np.zeros(len(SPECIALS) + len(pieces), dtype=np.int64)
    remaining = iter(words.items())
    while batch := list(islice(remaining, WORD_BATCH)):
        encodings = backend.encode_batch_fast([word for word, _ in batch], add_special_tokens=False)
        ids = np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), dtype=np.int64)
        np.add.at(counts, ids, np.repeat([count for _, count in batch], [len(encoding) for encoding in encodings]))
    return dict(zip(pieces, counts[len(SPECIALS) :].tolist(), strict=True))


def _scores(counts: dict[str, float]) -> dict[str, float]:
    """Return the log-probability of each piece; pieces that were never used get a finite one."""
    total = sum(counts.values())
    return {piece: math.log(max(count, UNSEEN_COUNT) / total) for piece, count in counts.items()}


def _unigram(counts: dict[str, float]) -> models.Unigram:
    """Return the model whose piece probabilities are shares of the counts."""
    specials = [(token, NEVER) for token in SPECIALS]
    return models.Unigram(vocab=specials + list(_scores(counts).items()), unk_id=SPECIALS.index("<unk>"), byte_fallback=False)


def _prune(counts: dict[str, float], n_kept: int) -> dict[str, float]:
    """Keep the bytes and the pieces whose absence would cost the corpus most log-likelihood (Kudo 2018, section 3.2, step 2b)."""
    scores = _scores(counts)
    longer = [piece for piece in counts if len(piece) > 1]
    losses = {piece: counts[piece] * (scores[piece] - _score_without(piece, scores)) for piece in longer}
    kept = set(sorted(longer, key=losses.__getitem__, reverse=True)[: n_kept - (len(counts) - len(longer))])
    return {piece: count for piece, count in counts.items() if len(piece) == 1 or piece in kept}


def _score_without(piece: str, scores: dict[str, float]) -> float:
    """Return the score of the best way to write a piece with others."""
    best = [0.0]
    for end in range(1, len(piece) + 1):
        starts = range(1 if end == len(piece) else 0, end)
        best.append(max(best[start] + scores.get(piece[start:end], NEVER) for start in starts))
    return best[-1]
