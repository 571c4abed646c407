"""The built-in classification data: in which of 40 languages a short text is written, made without a download.

Every name and pattern is real: it comes from the Unicode CLDR as the Babel package carries it (see `heed.data.voice`). Each phrase is drawn
once, from a seed alone, and said in every language, so what a text is about tells nothing of the language it is in. Where two languages
say a phrase alike (but for case), neither keeps it: every text has exactly one right answer.

Each name of a country, language, currency, city or time zone belongs either to training or to the held-out splits, and so does each date,
span of time and quantity. A held-out phrase consists of held-out content alone and no training phrase names any of it. What both sides
share is the words around it (months, units, "ago", "and") and the way a language spells.

Left out: digits other than 0 to 9, and the second script of a language that has two.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache, partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from heed.data.builtin import reserved
from heed.data.phrases import KINDS as VALUES
from heed.data.phrases import UNITS, split_codes
from heed.data.voice import ListStyle, Voice, plain
from heed.errors import DataError
from heed.files import replacing

COLUMNS = ("text", "label", "kind")
LOCALES = split_codes(
    "af ar bg ca cs da de el en es et fa fi fr gl he hi hr hu id it ja ka ko ms nb nl pl pt ro ru sk sl sr sv th tr uk vi zh"
)
UNSPACED = ("ja", "th", "zh")  # no spaces between words, so a name may start anywhere
# Kinds of names, and which of their identifiers are drawn: languages with longer codes are ones that few have heard of.
NAME_KINDS = {"country": "[A-Z]{2}", "language": "[a-z]{2}", "currency": "[A-Z]{3}", "city": "(?!Etc/).+/.+", "zone": ".+"}
LISTED_KINDS = ("country", "country", "language", "city")
# Pseudo-locales that test software, and what stands for an unknown country or currency.
UNREAL = {"XA", "XB", "ZZ", "XXX"}
STYLES: tuple[ListStyle, ...] = ("standard", "standard", "or", "unit")
LENGTHS = (2, 2, 3, 3, 4)  # items of a list or a longer phrase
HIGHEST_COUNT = 999
# Phrases are drawn in rounds until every language has enough of them. Danish and Norwegian say about every other one alike; a language
# that is short of texts after so many rounds would stay short.
MAX_ROUNDS = 20
# Also for few rows so many phrases are drawn at once, for every language to choose from.
SMALLEST_ROUND = 250


def language_rows(*, seed: int, n_train: int, n_valid: int, n_test: int) -> dict[str, list[dict[str, str]]]:
    """Make the three splits, each a list of {"text", "label", "kind"}; the same seed and sizes give the same rows.

    Languages are as frequent as can be; where a size is no multiple of their number, the first have one row more. No text stands in two
    rows, not even in other case.

    Raises:
        DataError: a size is negative, or so many different texts cannot be made.
    """
    sizes = {"train": n_train, "valid": n_valid, "test": n_test}
    for name, size in sizes.items():
        if size < 0:
            raise DataError(f"built-in texts: n_{name} is {size}; expected 0 or more, so ask for a size that is not negative")
    shares = {name: _shares(size) for name, size in sizes.items()}
    pool = _filled(seed, {False: max(shares["train"]), True: max(shares["valid"]) + max(shares["test"])})
    splits: dict[str, list[dict[str, str]]] = {name: [] for name in sizes}
    for at, tongue in enumerate(_tongues()):
        # A choice of its own for each language: with the first phrases, all 40 would be tested on the same 30.
        sides = {side: iter(_shuffled(pool.usable(tongue.label, held_out=side), f"{seed}:{tongue.label}")) for side in (False, True)}
        for name, rows in splits.items():
            rows += islice(sides[name != "train"], shares[name][at])
    return {name: _shuffled(rows, f"{seed}:{name} rows") for name, rows in splits.items()}


def write_languages(folder: Path, *, seed: int = 1, n_train: int = 24_000, n_valid: int = 1_200, n_test: int = 1_200) -> dict[str, Path]:
    """Write train.tsv, valid.tsv and test.tsv (UTF-8, a header, columns text, label, kind) and return their paths by split.

    Raises:
        DataError: as `language_rows`, or the folder cannot be written.
        TrainingError: the disk is full; older files are untouched.
    """
    splits = language_rows(seed=seed, n_train=n_train, n_valid=n_valid, n_test=n_test)
    paths = {name: folder / f"{name}.tsv" for name in splits}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in splits.items():
            lines = ["\t".join(COLUMNS), *("\t".join(row[column] for column in COLUMNS) for row in rows)]
            with replacing(paths[name]) as draft:
                draft.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"{folder}: the built-in texts cannot be written here ({error}); choose a folder you may write to") from error
    return paths


class Tongue(Voice):
    """A language of the data: a voice with tables of what it calls things, for names come up again and again.

    Attributes:
        label: its English name.
        names: kind (NAME_KINDS) -> identifier -> name; all there are, drawn or not.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code, code)
        self.label = str(self.locale.english_name)
        self.names = {
            "country": _plain_names(self.locale.territories),
            "language": _plain_names(self.locale.languages),
            "currency": _plain_names(self.locale.currencies),
            "city": self._cities(),
            "zone": self._zones(),
        }

    def _cities(self) -> dict[str, str]:
        """Name the city that stands for each time zone; CLDR writes it down where it differs from the identifier of the zone."""
        from babel.core import get_global

        defaults = {zone: zone.rsplit("/", 1)[-1].replace("_", " ") for zone in get_global("zone_territories")}
        return {zone: plain(self.locale.time_zones.get(zone, {}).get("city", default)) for zone, default in defaults.items()}

    def _zones(self) -> dict[str, str]:
        """Name the time zones, by their standard time."""
        long = {zone: names.get("long", {}) for zone, names in self.locale.meta_zones.items()}
        return {zone: plain(names["standard"]) for zone, names in long.items() if "standard" in names}

    def local_time(self, place: str) -> str:
        """Write what time it is by: "France Time"."""
        return plain(str(self.locale.zone_formats["region"]) % place)

    def listed(self, items: Sequence[str], style: ListStyle) -> str:
        """Join items as `Voice.listed` does; where Babel's data lack a style, with "and"."""
        return super().listed(items, style if "start" in self.locale.list_patterns.get(style, {}) else "standard")

    def speaks_of(self, unit: str) -> bool:
        """Tell whether there is a pattern for quantities of a unit; without one Babel prints the identifier, or refuses."""
        return unit in self.locale.unit_display_names and unit not in self.measure(Decimal(2), unit, "long")


def _plain_names(names: Mapping[str, str]) -> dict[str, str]:
    return {code: plain(name) for code, name in names.items()}


@cache
def _tongues() -> tuple[Tongue, ...]:
    """Return every language, in the order of LOCALES; reading them takes longer than drawing phrases."""
    return tuple(map(Tongue, LOCALES))


def _english() -> Tongue:
    return _tongues()[LOCALES.index("en")]


def _shared(kind: str) -> list[str]:
    """List the identifiers of a kind that all languages have a name for."""
    return sorted(set.intersection(*(set(tongue.names[kind]) for tongue in _tongues())) - UNREAL)


@cache
def _identifiers() -> dict[str, list[str]]:
    """List the identifiers that all languages have words for: of names, by kind, and of units under "unit"."""
    codes = {kind: [code for code in _shared(kind) if re.fullmatch(pattern, code)] for kind, pattern in NAME_KINDS.items()}
    # Currencies of the past bear the years in which they were in use.
    codes["currency"] = [code for code in codes["currency"] if not re.search(r"\d", _english().names["currency"][code])]
    return codes | {"unit": [unit for unit in UNITS if all(tongue.speaks_of(unit) for tongue in _tongues())]}


# Says one thing in any language.
Say = Callable[[Tongue], str]


class Phrase(NamedTuple):
    """A drawn phrase, not yet in words: its items are said one by one and joined into a list."""

    kind: str
    items: list[Say]
    style: ListStyle


class Stock:
    """What the phrases of one side are made of: training and the held-out splits have no name and no value in common.

    Attributes:
        held_out: which side it is.
        draw: where all choices come from.
        names: the codes of names that belong to the side, by kind.
        units: those of both sides; with a count they are a value.
    """

    def __init__(self, seed: int, *, held_out: bool) -> None:
        self.seed = seed
        self.held_out = held_out
        self.draw = Random(f"{seed}:{'held out' if held_out else 'train'}")
        self.names = {kind: [code for code in _identifiers()[kind] if self._owns(f"{kind}:{code}")] for kind in NAME_KINDS}
        self.units = _identifiers()["unit"]

    def _owns(self, content: str) -> bool:
        """Tell whether content belongs to this side, from its text and the seed alone."""
        return reserved(self.seed, content) == self.held_out

    def named(self, kind: str, n_names: int = 1) -> list[Say]:
        """Draw different names."""
        codes = self.names[kind]
        return [_name(kind, code) for code in self.draw.sample(codes, min(n_names, len(codes)))]

    def value(self, propose: Callable[[Random], Say]) -> Say:
        """Draw values until one belongs to this side by its English reading."""
        english = _english()
        while not self._owns((say := propose(self.draw))(english)):
            pass
        return say

    def phrase(self) -> Phrase:
        """Draw a phrase of any kind."""
        (kind,) = self.draw.choices(tuple(KINDS), [weight for weight, _ in KINDS.values()])
        return Phrase(kind, KINDS[kind][1](self), self.draw.choice(STYLES))


def _name(kind: str, code: str) -> Say:
    return lambda tongue: tongue.names[kind][code]


def _country(stock: Stock) -> list[Say]:
    return stock.named("country")


def _language(stock: Stock) -> list[Say]:
    return stock.named("language")


def _currency(stock: Stock) -> list[Say]:
    code, count = stock.draw.choice(stock.names["currency"]), Decimal(stock.draw.randint(1, HIGHEST_COUNT))
    if stock.draw.random() < 0.5:
        return [_name("currency", code)]
    return [lambda tongue: tongue.money(count, code, symbol=False)]


def _place(stock: Stock) -> list[Say]:
    kind = stock.draw.choice(("city", "city", "country", "zone"))
    (name,) = stock.named(kind)
    if kind == "zone" or (kind == "city" and stock.draw.random() < 0.5):
        return [name]
    return [lambda tongue: tongue.local_time(name(tongue))]


def _date(stock: Stock) -> list[Say]:
    return [stock.value(VALUES["date"][1])]


def _relative(stock: Stock) -> list[Say]:
    return [stock.value(VALUES["relative"][1])]


def _quantity(stock: Stock) -> list[Say]:
    if stock.draw.random() < 0.3:
        return [stock.value(VALUES["duration"][1])]
    return [stock.value(partial(_measure, stock.units))]


def _measure(units: Sequence[str], draw: Random) -> Say:
    unit, count = draw.choice(units), Decimal(draw.randint(1, HIGHEST_COUNT))
    return lambda tongue: tongue.measure(count, unit, "long")


def _list(stock: Stock) -> list[Say]:
    return stock.named(stock.draw.choice(LISTED_KINDS), stock.draw.choice(LENGTHS))


def _mixed(stock: Stock) -> list[Say]:
    makers = stock.draw.choices((_country, _language, _currency, _place, _date, _relative, _quantity), k=stock.draw.choice(LENGTHS))
    return [say for make in makers for say in make(stock)]


# Kind -> (how often it is drawn, how its items are made). Neighbouring languages share many names and few long phrases.
KINDS: dict[str, tuple[int, Callable[[Stock], list[Say]]]] = {
    "country": (8, _country),
    "language": (8, _language),
    "currency": (9, _currency),
    "place": (10, _place),
    "date": (10, _date),
    "relative": (9, _relative),
    "quantity": (10, _quantity),
    "list": (16, _list),
    "phrase": (20, _mixed),
}


class Pool:
    """The texts made so far, and for which languages and sides each would do.

    Args:
        held_out: what training texts must not name.
    """

    def __init__(self, held_out: Stock) -> None:
        self.reserved = {tongue.label: _finder(tongue, held_out.names) for tongue in _tongues()}
        self.rows: dict[tuple[str, bool], dict[str, dict[str, str]]] = {
            (tongue.label, side): {} for tongue in _tongues() for side in (False, True)
        }
        self.sides: defaultdict[str, set[bool]] = defaultdict(set)
        self.labels: defaultdict[str, set[str]] = defaultdict(set)
        for tongue in _tongues():
            for name in (name for names in tongue.names.values() for name in names.values()):
                self.labels[folded(name)].add(tongue.label)

    def add(self, phrase: Phrase, *, held_out: bool) -> None:
        """Say a phrase in every language."""
        for tongue in _tongues():
            items = [say(tongue) for say in phrase.items]
            text = tongue.listed(items, phrase.style)
            key = folded(text)
            self.labels[key].add(tongue.label)
            if held_out or not any(self.reserved[tongue.label].search(folded(item)) for item in items):
                self.sides[key].add(held_out)
                self.rows[tongue.label, held_out].setdefault(key, {"text": text, "label": tongue.label, "kind": phrase.kind})

    def usable(self, label: str, *, held_out: bool) -> list[dict[str, str]]:
        """Return the rows of a language and side whose text no other one has, in the order they were drawn."""
        return [row for key, row in self.rows[label, held_out].items() if len(self.labels[key]) == 1 and len(self.sides[key]) == 1]

    def fewest(self, *, held_out: bool) -> int:
        """Count the usable rows of the language that has fewest."""
        return min(len(self.usable(tongue.label, held_out=held_out)) for tongue in _tongues())


def _finder(tongue: Tongue, codes: Mapping[str, Iterable[str]]) -> re.Pattern[str]:
    """Compile what finds the names of so many things in folded text: as whole words, where there are spaces between words."""
    names = sorted({folded(tongue.names[kind][code]) for kind in NAME_KINDS for code in codes[kind]})
    pattern = "|".join(map(re.escape, names)) or r"(?!)"  # which finds nothing
    return re.compile(pattern if tongue.tag in UNSPACED else rf"(?<!\w)(?:{pattern})(?!\w)")


def folded(text: str) -> str:
    """Return what two texts have in common that are the same but for case."""
    return unicodedata.normalize("NFC", text.casefold())


def _filled(seed: int, wanted: Mapping[bool, int]) -> Pool:
    """Draw phrases until every language has as many texts as wanted of each side (True: held out); raises DataError when it gets none."""
    stocks = [Stock(seed, held_out=held_out) for held_out in wanted]
    pool = Pool(next(stock for stock in stocks if stock.held_out))
    for _ in range(MAX_ROUNDS):
        short = [stock for stock in stocks if pool.fewest(held_out=stock.held_out) < wanted[stock.held_out]]
        if not short:
            return pool
        for stock in short:
            for _ in range(wanted[stock.held_out] // 2 + SMALLEST_ROUND):
                pool.add(stock.phrase(), held_out=stock.held_out)
    found = {stock.held_out: pool.fewest(held_out=stock.held_out) for stock in stocks}
    raise DataError(
        f"built-in texts: {found[False]} different ones for training and {found[True]} to hold out were found in every language; "
        f"expected {wanted[False]} and {wanted[True]}, so ask for fewer"
    )


def _shuffled(rows: list[dict[str, str]], seed: str) -> list[dict[str, str]]:
    """Return rows in an order drawn from a seed."""
    return Random(seed).sample(rows, len(rows))


def _shares(n_rows: int) -> list[int]:
    """Divide rows over the languages, the first of which get what is left over."""
    each, over = divmod(n_rows, len(LOCALES))
    return [each + (at < over) for at in range(len(LOCALES))]
