"""N-gram language models with back-off: read from ARPA files, written to them, and trained with Kneser-Ney smoothing.

A model holds the log10 probabilities of the n-grams it has seen and, for every context, the weight by which the probabilities of the
next shorter context are multiplied where it has not (Katz 1987). Training is interpolated modified Kneser-Ney (Chen & Goodman 1998),
whose probabilities over the vocabulary sum to 1 in every context.

Left out: pruning, and the binary formats of other tools. A million 3-grams take about 150 MB of memory.
"""

import gzip
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn, Self, cast

from heed.data.encodings import read_lines
from heed.errors import CheckpointError, ConfigError, DataError
from heed.files import replacing

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
MAX_ORDER = 10
NEVER_LOG10 = -99.0  # how ARPA files write the log of 0, as for the begin of a sentence, which nothing predicts
SMALL_DATA = (0.5, 1.0, 1.5)  # discounts where there are too few n-grams to estimate them from
LN10 = math.log(10)
BLANKS = " \t\r\n"
GAP = re.compile("[ \t]+")
COUNT = re.compile(r"ngram[ \t]+([0-9]{1,3})[ \t]*=[ \t]*([0-9]{1,15})")
MEND = "copy the file again from where it came, or write it again"

Gram = tuple[str, ...]


class Ngrams:
    """How likely a word is after others; a `Part` where it was learned from a run's own transcripts.

    Args:
        log10: log10 probabilities of n-grams, the last word given those before it.
        back_off: log10 of the weights of contexts; 0 for those that are not in it.
        order: words of the longest n-grams.
    """

    kind: ClassVar[str] = "ngrams"

    def __init__(self, log10: Mapping[Gram, float], back_off: Mapping[Gram, float], *, order: int) -> None:
        self.order = order
        self.vocabulary = frozenset(gram[0] for gram in log10 if len(gram) == 1)
        self._log10, self._back_off = log10, back_off

    @classmethod
    def from_arpa(cls, source: str | Path | Iterable[str]) -> Self:
        """Read a model from an ARPA file, plain or .gz, or from its lines.

        A line before `\\data\\` is a comment; a missing back-off weight is 0; <UNK> is read as <unk>.

        Raises:
            DataError: the file is missing or cut off, its counts are not those of its sections, or a line is no n-gram of its section.
        """
        file = _Arpa(f"{source}:", read_lines(source)) if isinstance(source, str | Path) else _Arpa("line ", iter(source))
        order = file.read()
        return cls(file.log10, file.back_off, order=order)

    @classmethod
    def train(cls, sentences: Iterable[Sequence[str]], *, order: int) -> Self:
        """Estimate a model from sentences, each a sequence of words or other units; they are read once.

        The vocabulary is what they hold and <unk>; <unk> may stand in them for rare words. A unit is no space: write it as ▁.

        Raises:
            ConfigError: the order is not from 1 to MAX_ORDER.
            DataError: all sentences are empty, or a word is empty, holds white space, or is <s> or </s>.
        """
        if not 1 <= order <= MAX_ORDER:
            raise ConfigError(f"n-grams of order {order} cannot be trained; expected 1 to {MAX_ORDER}")
        counts = _counts(sentences, order)
        if not counts[0].keys() - {(BEGIN,), (END,)}:
            raise DataError("no words to train n-grams from: every sentence is empty; check the data files and their columns")
        return cls(*_smoothed(_continuations(counts)), order=order)

    def log_p(self, context: Sequence[str], word: str) -> float:
        """Return the natural log of a word's probability after a context.

        Of the context the last order - 1 words count. Words outside the vocabulary are <unk>; -inf where the model has no <unk> either.
        """
        begin = max(0, len(context) - self.order + 1)
        gram = tuple(one if one in self.vocabulary else UNKNOWN for one in (*context[begin:], word))
        weight = 0.0
        while gram:
            found = self._log10.get(gram)
            if found is not None:
                return (weight + found) * LN10
            weight += self._back_off.get(gram[:-1], 0.0)
            gram = gram[1:]
        return float("-inf")

    def to_arpa(self, path: str | Path) -> None:
        """Write the model as an ARPA file, compressed when its name ends in .gz; reading it gives the same model."""
        path = Path(path)
        with replacing(path) as draft:
            packed = path.name.lower().endswith(".gz")
            with cast(BinaryIO, gzip.open(draft, "wb") if packed else draft.open("wb")) as file:
                text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
                text.writelines(f"{line}\n" for line in self.lines())
                text.flush()

    def lines(self) -> Iterator[str]:
        """Return the lines of the ARPA file; the digits of a number are as many as give the same number again."""
        by_order: list[list[Gram]] = [[] for _ in range(self.order)]
        for gram in self._log10:
            by_order[len(gram) - 1].append(gram)
        yield "\\data\\"
        yield from (f"ngram {n}={len(grams)}" for n, grams in enumerate(by_order, start=1))
        for n, grams in enumerate(by_order, start=1):
            yield from ("", f"\\{n}-grams:")
            yield from map(self._line, grams)
        yield from ("", "\\end\\")

    def to_json(self) -> dict[str, Any]:
        """Return the lines of the ARPA file."""
        return {"arpa": list(self.lines())}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build it again; raises CheckpointError."""
        lines = content.get("arpa")
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise CheckpointError("not an n-gram model ('arpa' is no list of lines); restore the run folder from a copy")
        try:
            return cls.from_arpa(lines)
        except DataError as error:
            raise CheckpointError(f"not an n-gram model ({error}); restore the run folder from a copy") from error

    def _line(self, gram: Gram) -> str:
        weight = self._back_off.get(gram)
        return f"{self._log10[gram]!r}\t{' '.join(gram)}" + ("" if weight is None else f"\t{weight!r}")


@dataclass
class _Arpa:
    """An ARPA file that is read line by line."""

    name: str  # what stands before the number of a line
    lines: Iterator[str]
    number: int = 0
    log10: dict[Gram, float] = field(default_factory=dict)
    back_off: dict[Gram, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)  # each word once, so that its n-grams share it

    def read(self) -> int:
        """Read all of the file and return the order of its n-grams."""
        sizes, line = self._counts()
        for n, size in enumerate(sizes, start=1):
            if line != f"\\{n}-grams:":
                self._refuse(f"expected \\{n}-grams:, found {line[:60]!r}")
            line = self._section(n, longest=n == len(sizes))
            found = len(self.log10) - sum(sizes[: n - 1])
            if found != size:
                self._refuse(f"\\data\\ promises {size} {n}-grams, found {found}")
        if line != "\\end\\":
            self._refuse(f"expected \\end\\ after the longest n-grams, found {line[:60]!r}")
        if END not in self.words:
            self._refuse(f"{END} is not among the 1-grams, so that no sentence could end")
        return len(sizes)

    def _counts(self) -> tuple[list[int], str]:
        """Return how many n-grams of each order `\\data\\` promises, and the line behind it."""
        while (line := self._next()) != "\\data\\":
            if line in ("\\1-grams:", "\\end\\"):
                self._refuse(f"{line} stands before \\data\\")
        sizes: list[int] = []
        while not (line := self._next()).startswith("\\"):
            match = COUNT.fullmatch(line)
            if match is None or int(match[1]) != len(sizes) + 1:
                self._refuse(f"expected 'ngram {len(sizes) + 1}=' and a number, found {line[:60]!r}")
            sizes.append(int(match[2]))
        if not 1 <= len(sizes) <= MAX_ORDER:
            self._refuse(f"\\data\\ promises n-grams of {len(sizes)} orders; expected 1 to {MAX_ORDER}")
        return sizes, line

    def _section(self, n: int, *, longest: bool) -> str:
        """Read the n-grams of one order and return the line behind them."""
        while not (line := self._next()).startswith("\\"):
            fields = GAP.split(line)
            if not n + 1 <= len(fields) <= n + 2:
                self._refuse(f"expected log10 p, {n} words and at most one back-off weight, found {len(fields)} fields")
            gram = self._gram(fields[1 : n + 1])
            probability = self._finite(fields[0])
            if probability > 0:
                self._refuse(f"log10 p of {' '.join(gram)!r} is {fields[0]}; expected 0 or less")
            if gram in self.log10:
                self._refuse(f"{' '.join(gram)!r} stands here a second time")
            self.log10[gram] = probability
            weight = self._finite(fields[n + 1]) if len(fields) == n + 2 else 0.0
            if weight and longest:
                self._refuse(f"{' '.join(gram)!r} has a back-off weight, but nothing longer backs off to it; expected none")
            if weight:
                self.back_off[gram] = weight
        return line

    def _gram(self, fields: list[str]) -> Gram:
        """Return words as the strings that stand for them everywhere; single words are new."""
        words = [UNKNOWN if word == UNKNOWN.upper() else word for word in fields]
        if len(words) == 1:
            return (self.words.setdefault(words[0], words[0]),)
        try:
            return tuple([self.words[word] for word in words])
        except KeyError as error:
            self._refuse(f"{error.args[0]!r} is not among the 1-grams")

    def _finite(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self._refuse(f"{text[:60]!r} is no finite number")
        return number

    def _next(self) -> str:
        """Return the next line that is not blank."""
        for line in self.lines:
            self.number += 1
            line = line.strip(BLANKS)
            if line:
                return line
        return self._refuse("the file ends before \\end\\")

    def _refuse(self, what: str) -> NoReturn:
        raise DataError(f"{self.name}{self.number}: {what}; {MEND}")


def _counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Gram]]:
    """Return how often each n-gram occurs, by order; the begin of a sentence counts as a context only."""
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    words: dict[str, str] = {}
    for number, sentence in enumerate(sentences, start=1):
        for word in sentence:
            if word not in words:
                words[word] = _checked(word, number)
        units = [BEGIN, *(words[word] for word in sentence), END]
        for n, grams in enumerate(counts, start=1):
            grams.update(zip(*(units[i:] for i in range(n)), strict=False))
    counts[0].pop((BEGIN,), None)
    return counts


def _checked(word: str, number: int) -> str:
    """Return a word that an ARPA file can hold; raises DataError."""
    if word.split() != [word]:
        raise DataError(f"sentence {number}: {word!r} is empty or holds white space; write a space that is a unit of its own as ▁")
    if word in (BEGIN, END):
        raise DataError(f"sentence {number}: {word!r} stands for its begin or end and is added by itself; leave it out")
    return word


def _continuations(counts: list[Counter[Gram]]) -> list[Counter[Gram]]:
    """Replace the counts of all but the longest n-grams by the number of words they follow; a sentence's begin follows none."""
    adjusted = []
    for grams, longer in pairwise(counts):
        left = Counter(gram[1:] for gram in longer)
        adjusted.append(Counter({gram: count if gram[0] == BEGIN else left[gram] for gram, count in grams.items()}))
    return [*adjusted, counts[-1]]


def _discounts(grams: Counter[Gram]) -> tuple[float, float, float]:
    """Return what is taken off counts of 1, 2, and 3 or more (Chen & Goodman 1998, eq. 26)."""
    kinds = Counter(grams.values())
    n1, n2, n3, n4 = (kinds[count] for count in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return SMALL_DATA
    share = n1 / (n1 + 2 * n2)
    found = (1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3)
    return found if all(0 < discount <= count for count, discount in enumerate(found, start=1)) else SMALL_DATA


def _smoothed(counts: list[Counter[Gram]]) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """Return log10 probabilities and back-off weights; each order is interpolated with the one below it (their eq. 24)."""
    words = counts[0].keys() | {(UNKNOWN,)}
    lower: dict[Gram, float] = {(): 1 / len(words)}  # of one word less on the left; below single words all are alike
    log10: dict[Gram, float] = {(BEGIN,): NEVER_LOG10}
    back_off: dict[Gram, float] = {}
    for grams in counts:
        weights, discounted = _discounted(grams)
        if () in weights:
            discounted.setdefault((UNKNOWN,), 0.0)
        here = {gram: share + weights[gram[:-1]] * lower[gram[1:]] for gram, share in sorted(discounted.items())}
        log10.update((gram, math.log10(min(p, 1.0))) for gram, p in here.items())
        back_off.update((context, math.log10(weight)) for context, weight in weights.items() if context)
        lower = here
    return log10, back_off


def _discounted(grams: Counter[Gram]) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """Return of each context the share that discounts leave for shorter ones, and of each n-gram its own share of its context."""
    discounts = _discounts(grams)
    totals: Counter[Gram] = Counter()
    taken: dict[Gram, float] = {}
    for gram, count in grams.items():
        totals[gram[:-1]] += count
        taken[gram[:-1]] = taken.get(gram[:-1], 0.0) + discounts[min(count, 3) - 1]
    shares = {gram: (count - discounts[min(count, 3) - 1]) / totals[gram[:-1]] for gram, count in grams.items()}
    return {context: amount / totals[context] for context, amount in taken.items()}, shares
