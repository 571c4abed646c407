"""Morse code over a noisy, fading channel: speech recognition's built-in data, generated exactly and without a download.

Timing is that of ITU-R M.1677-1 (a dash is three dots long; one dot between the elements of a letter, three between letters, seven
between words; PARIS and the space behind it are 50 dots, so a dot lasts 1.2 s / words a minute) with a human's unevenness. The noise is
white; its level is stated as the mean power of the message, from its first element to its last, over the power of the noise inside
BAND_HZ around it, the usual filter of a receiver for Morse code. (The key is down for some 45 % of a message, so that at 0 decibels the
tone itself is some 3.5 decibels above that noise.) Left out: several stations at once, chirp, and drifting tones.
"""

import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from heed.errors import MissingExtra
from heed.files import replacing

CODE = {
    "A": ".-", "B": "-...", "C": "-.-.", "D": "-..", "E": ".", "F": "..-.", "G": "--.", "H": "....", "I": "..", "J": ".---", "K": "-.-",
    "L": ".-..", "M": "--", "N": "-.", "O": "---", "P": ".--.", "Q": "--.-", "R": ".-.", "S": "...", "T": "-", "U": "..-", "V": "...-",
    "W": ".--", "X": "-..-", "Y": "-.--", "Z": "--..", "0": "-----", "1": ".----", "2": "..---", "3": "...--", "4": "....-", "5": ".....",
    "6": "-....", "7": "--...", "8": "---..", "9": "----.", "?": "..--..", "/": "-..-.", "=": "-...-", ".": ".-.-.-", ",": "--..--",
}  # fmt: skip
SAMPLE_RATE = 4000  # samples a second: twice the highest tone and more
BAND_HZ = 500.0
WORDS_A_MINUTE = (10.0, 35.0)
TONE_HZ = (450.0, 850.0)
RISE_SECONDS = 0.004  # of a keyed tone, so that it does not click
# CTC has to find out which sound belongs to which label. Where almost every place has one there are few ways to lay them, so that the
# first training messages are sent quickly and evenly, are clear, and the short ones of them come first: the code was learned in some 200
# updates from these, and in some 450 from messages of all speeds (of which the slow ones have several places to a label).
N_QUICK, QUICK_WORDS_A_MINUTE = 1200, (28.0, 35.0)
N_CLEAR, CLEAR_DECIBELS = 700, (15.0, 25.0)
N_DIMMED = 700  # after the clear ones, over which the noise grows
NOISY_DECIBELS, NOISY_SHARE = (-2.0, 3.0), 0.9  # of the others
FAIR_DECIBELS = (6.0, 20.0)  # of the rest; without it, 9 of 100 characters are wrong at 15 decibels
TEST_DECIBELS = 0.0
FADING_DECIBELS = 8.0  # deepest
PAUSE_SECONDS = (0.2, 0.8)  # of noise alone before and behind a message
N_TRAIN, N_VALID, N_TEST = 12_000, 200, 600  # two errors in a hundred of 200 messages have an interval of 1 to 4
LONGEST_CHARACTERS = 12

# What operators say to each other again and again: abbreviations and the Q code (ITU-R M.1172).
PHRASES = (  # noqa: SIM905
    "CQ DE R K AR SK BK 73 88 599 579 559 UR RST NAME QTH RIG ANT PWR WX TNX FER CALL GM GA GE OM HW? CPY AGN PSE ES HR IS QRM QRN QSB "
    "QRP QRT QRZ? QSL QSO QSY QRX QRL? DX SIG TEST NR WATTS DIPOLE VERT YAGI SUNNY RAIN COLD WARM INFO BURO FB HPE CUL VY GUD"
).split()

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Hand:
    """How one operator keys: speed, tone and unevenness."""

    words_a_minute: float
    tone_hz: float
    dash: float  # dots
    letter_gap: float  # dots
    word_gap: float  # dots
    jitter: float  # standard deviation of the logarithm of a length

    @classmethod
    def drawn(cls, draw: np.random.Generator, *, quick: bool = False) -> "Hand":
        """Draw an operator: as many of one speed as of another, or of quick ones so many more that each speed is heard for as long."""
        low, high = WORDS_A_MINUTE
        speed = math.sqrt(draw.uniform(low**2, high**2)) if quick else float(draw.uniform(low, high))
        return cls(
            words_a_minute=speed,
            tone_hz=float(draw.uniform(*TONE_HZ)),
            dash=float(draw.uniform(2.7, 3.4)),
            letter_gap=float(draw.uniform(2.7, 3.8)),
            word_gap=float(draw.uniform(6.3, 9.0)),
            jitter=float(draw.uniform(0.0, 0.12)),
        )

    def even(self, words_a_minute: float) -> "Hand":
        """Return a machine's hand of another speed, whose tone is this one's."""
        return Hand(words_a_minute, self.tone_hz, dash=3.0, letter_gap=3.0, word_gap=7.0, jitter=0.0)

    @property
    def dot_seconds(self) -> float:
        """Length of a dot."""
        return 1.2 / self.words_a_minute


def keying(text: str, hand: Hand, draw: np.random.Generator) -> Iterator[tuple[bool, float]]:
    """Yield whether the key is down, and for how many seconds, from the first element of a text to its last.

    Args:
        text: characters of CODE, with single spaces between words.
    """

    def lasting(dots: float) -> float:
        return float(dots * hand.dot_seconds * np.exp(hand.jitter * draw.standard_normal()))

    for w, word in enumerate(text.split()):
        if w:
            yield False, lasting(hand.word_gap)
        for c, character in enumerate(word):
            if c:
                yield False, lasting(hand.letter_gap)
            for e, element in enumerate(CODE[character]):
                if e:
                    yield False, lasting(1.0)
                yield True, lasting(hand.dash if element == "-" else 1.0)


def envelope(text: str, hand: Hand, draw: np.random.Generator) -> Wave:
    """Return the loudness of a keyed text over time (n,), from 0 to 1, with rounded edges."""
    parts = [np.full(max(1, round(seconds * SAMPLE_RATE)), float(down), np.float32) for down, seconds in keying(text, hand, draw)]
    steps = max(2, round(RISE_SECONDS * SAMPLE_RATE))
    edge = np.hanning(2 * steps + 1)
    before, behind = (np.zeros(round(draw.uniform(*PAUSE_SECONDS) * SAMPLE_RATE), np.float32) for _ in range(2))
    return np.convolve(np.concatenate([before, *parts, behind]), edge / edge.sum(), mode="same").astype(np.float32)


def fading(n: int, draw: np.random.Generator) -> Wave:
    """Return the factor of a slowly fading path (n,), at most 1."""
    depth, cycles, phase = draw.uniform(0, FADING_DECIBELS), draw.uniform(0.05, 0.4), draw.uniform(0, 2 * np.pi)
    decibels = -depth / 2 * (1 + _sine(cycles, n, phase))
    return np.asarray(np.exp(decibels * np.float32(math.log(10) / 20)), np.float32)


def _sine(hertz: float, n: int, phase: float) -> Wave:
    """Return n samples of a sine, given its phase at the first."""
    turns = np.arange(n) * (hertz / SAMPLE_RATE) + phase / (2 * np.pi)
    turns -= np.floor(turns)
    angles = turns.astype(np.float32) * np.float32(2 * np.pi)  # whose sine takes a fifteenth of float64's time, and is exact to 1e-6
    return np.asarray(np.sin(angles), np.float32)


def transmitted(text: str, hand: Hand, decibels: float, draw: np.random.Generator) -> Wave:
    """Return how a text arrives (n,), float32 below 1: keyed, faded, and with noise.

    Args:
        decibels: mean power of the faded message, from its first element to its last, over that of the noise inside BAND_HZ.
    """
    shape = envelope(text, hand, draw)
    shape = shape * fading(len(shape), draw)
    tone = shape * _sine(hand.tone_hz, len(shape), draw.uniform(0, 2 * np.pi))
    down = np.flatnonzero(shape > 0.1 * shape.max())
    in_band = float(np.square(tone[down[0] : down[-1] + 1]).mean()) / 10 ** (decibels / 10)
    everywhere = in_band * (SAMPLE_RATE / 2) / BAND_HZ  # white noise has equal power in every band
    arrived = tone + np.float32(math.sqrt(everywhere)) * draw.standard_normal(len(tone), dtype=np.float32)
    return np.asarray(arrived * (0.9 * draw.uniform(0.3, 1.0) / np.abs(arrived).max()), np.float32)


def call_sign(draw: Random) -> str:
    """Draw a call sign: one or two letters (or a digit and a letter), a digit, one to three letters; sometimes a suffix."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    prefix = draw.choice(
        [draw.choice("BFGIKMNRW"), draw.choice(letters) + draw.choice(letters), draw.choice("23456789") + draw.choice(letters)]
    )
    sign = prefix + draw.choice("0123456789") + "".join(draw.choices(letters, k=draw.choice((1, 2, 2, 3, 3, 3))))
    return sign + draw.choice(("/P", "/M", "/QRP")) if draw.random() < 0.08 else sign


@cache
def names() -> tuple[str, ...]:
    """Return words of names of countries and languages in English, from the Unicode CLDR, that Morse code can write."""
    from babel import Locale

    english = Locale("en")
    found = " ".join([*english.territories.values(), *english.languages.values()]).upper().split()
    return tuple(sorted({word for word in found if word.isascii() and word.isalpha() and 2 < len(word) < 11}))


def message(draw: Random) -> str:
    """Draw something an operator may send, at most LONGEST_CHARACTERS long."""
    words: list[str] = []
    while True:
        kind = draw.random()
        if kind < 0.3:
            word = call_sign(draw)
        elif kind < 0.6:
            word = draw.choice(PHRASES)
        elif kind < 0.85:
            word = draw.choice(names())
        else:
            word = "".join(draw.choices(list(CODE), k=draw.randint(2, 5)))  # serial numbers, grids, and what nobody expects
        if len(" ".join([*words, word])) > LONGEST_CHARACTERS or (words and draw.random() < 0.2):
            return " ".join(words) if words else word
        words.append(word)


def messages(n: int, seed: str, taken: Sequence[str] = ()) -> list[str]:
    """Draw n different messages, none of which is taken."""
    draw, known = Random(seed), set(taken)
    found: list[str] = []
    while len(found) < n:
        text = message(draw)
        if text not in known:
            known.add(text)
            found.append(text)
    return found


def write_morse(folder: Path, *, seed: int = 1, n_train: int = N_TRAIN, n_valid: int = N_VALID, n_test: int = N_TEST) -> dict[str, Path]:
    """Write recordings and the manifests train.tsv, valid.tsv and test.tsv into `folder`; what is there already is kept.

    Returns:
        the path of each split's manifest, with the columns audio, text, speed (words a minute) and level (decibels); beside them stands
        spelling.tsv, the code of each character.
    Raises:
        MissingExtra: soundfile is not installed.
    """
    wanted = {"seed": seed, "train": n_train, "valid": n_valid, "test": n_test, "version": 12}
    paths = {name: folder / f"{name}.tsv" for name in ("train", "valid", "test")}
    mark = folder / "morse.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == wanted:
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "spelling.tsv") as draft:
        draft.write_text("".join(f"{character}\t{' '.join(code)}\n" for character, code in CODE.items()), encoding="utf-8")
    train = messages(n_train, f"{seed}:train")
    train[:N_CLEAR] = sorted(train[:N_CLEAR], key=len)
    held_out = messages(n_valid + n_test, f"{seed}:held out", train)
    texts = {"train": train, "valid": held_out[:n_valid], "test": held_out[n_valid:]}
    for number, (name, path) in enumerate(paths.items()):
        _write_split(path, texts[name], np.random.default_rng([seed, number]), level=None if name == "train" else TEST_DECIBELS)
    with replacing(mark) as draft:
        draft.write_text(json.dumps(wanted), encoding="utf-8")
    return paths


def _write_split(path: Path, texts: Sequence[str], draw: np.random.Generator, *, level: float | None) -> None:
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtra("soundfile", "speech", "writing recordings") from error
    recordings = path.parent / path.stem
    recordings.mkdir(parents=True, exist_ok=True)
    rows = ["audio\ttext\tspeed\tlevel"]
    for number, text in enumerate(texts, start=1):
        hand = Hand.drawn(draw, quick=level is None)
        if level is None and number <= N_QUICK:
            hand = hand.even(float(draw.uniform(*QUICK_WORDS_A_MINUTE)))
        decibels = _training_decibels(number, draw) if level is None else level
        name = f"{number:05}.wav"
        content = io.BytesIO()  # into a file, soundfile waits for the disk: 10 ms a message, three times what drawing it takes
        soundfile.write(content, transmitted(text, hand, decibels, draw), SAMPLE_RATE, format="WAV", subtype="PCM_16")
        (recordings / name).write_bytes(content.getvalue())
        rows.append(f"{path.stem}/{name}\t{text}\t{hand.words_a_minute:.1f}\t{decibels:.1f}")
    with replacing(path) as draft:
        draft.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _training_decibels(number: int, draw: np.random.Generator) -> float:
    """Draw the level of a training message, counted from 1: clear at first, then noisier and noisier, then as noisy as all others are."""
    noisy = NOISY_DECIBELS if draw.random() < NOISY_SHARE else FAIR_DECIBELS
    share = min(1.0, max(0, number - N_CLEAR) / N_DIMMED)
    low, high = (clear + share * (last - clear) for clear, last in zip(CLEAR_DECIBELS, noisy, strict=True))
    return float(draw.uniform(low, high))
