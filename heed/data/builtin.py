"""The built-in translation data: everyday phrases from English into German and Chinese (Simplified), made without a download.

Every name, pattern, plural and number format is real: it comes from the Unicode Common Locale Data Repository (CLDR, Unicode License v3,
https://cldr.unicode.org) as the Babel package carries it. Only the values inside the phrases (which day, how many kilometers) are drawn,
from a seed alone: the machine's date, time zone and locale play no part.

One data set holds both directions; a tag at the start of the source names the language wanted: ">>de<< 3 days ago" becomes "vor 3 Tagen",
">>zh<< 3 days ago" becomes "3天前". Held-out phrases share no source and no target with training, yet consist of words
that occur there.

Left out, because a source must have exactly one right answer: all-digit dates (3/12/26) and names or abbreviations that CLDR uses for two
things. CLDR's spelled-out numbers and its week and era forms are left out too: Babel lacks them or its languages disagree.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from heed.errors import DataError

TimeUnit = Literal["year", "month", "week", "day", "hour", "minute", "second"]
DateForm = Literal["full", "long", "medium"]
Length = Literal["long", "short"]
ListStyle = Literal["standard", "or", "unit"]


def split_codes(text: str) -> tuple[str, ...]:
    """Split codes that stand in one string, where a list would fill a page."""
    return tuple(text.split())


SOURCE_LOCALE = "en"
TARGET_LOCALES = {"de": "de", "zh": "zh_Hans"}
COLUMNS = ("source", "target", "kind")

# In a hundred phrases this many may only be held out; the others may only be trained on. The choice hangs on the phrase, not on its turn.
RESERVED_PERCENT = 12
# How many draws a phrase may cost before the request counts as impossible: small kinds repeat themselves, few training pairs cover little.
DRAWS_PER_PHRASE = 400
# Among training phrases, every so many is a bare country or language name until all have been used.
NAME_EVERY = 4

YEARS = (1950, 2050)
COUNTRIES = split_codes(
    "AR AT AU BD BE BG BR CA CH CL CN CO CU CZ DE DK EG ES ET FI FR GB GE GH GR HR HU ID IE IN IR IS IT JM JP KE KR KZ LU MA MG MN MT MX "
    "MY NG NL NO NP NZ PE PH PK PL PT RO RS RU SA SE SG SI SK TH TN TR TZ UA US UY UZ VN ZA"
)
# Latin is missing: CLDR translates the language and the script differently.
LANGUAGES = split_codes(
    "af ar az bg bn ca cs da de el en es fa fi fr ga he hi hr hu id is it ja kk ko mn ms nl no pl pt ro ru sr sv sw ta th tr uk ur uz vi zh"
)
SCRIPTS = ("Latn", "Cyrl")
SCRIPT_LANGUAGES = ("az", "kk", "mn", "sr", "uz")
# CLDR's localePattern and localeSeparator, which Babel does not carry.
LOCALE_PATTERNS = {"en": "{} ({})", "de": "{} ({})", "zh": "{}（{}）"}
LOCALE_SEPARATORS = {"en": ", ", "de": ", ", "zh": "，"}
CURRENCIES = split_codes("AUD BRL CAD CHF CNY CZK DKK EGP EUR GBP HUF IDR INR JPY KES KRW MXN NOK NZD PLN SEK SGD THB TRY UAH USD VND ZAR")
SYMBOL_CURRENCIES = split_codes("BRL CAD EUR GBP ILS INR JPY KRW NZD USD")
ZONES = split_codes(
    "Alaska America_Central America_Eastern America_Mountain America_Pacific Argentina Australia_Eastern Brasilia China Europe_Central "
    "Europe_Eastern Europe_Western Japan Korea Moscow New_Zealand"
)
# Not days, hours and the like: as durations they have a kind of their own.
UNITS = split_codes(
    "angle-degree area-hectare area-square-kilometer area-square-meter consumption-liter-per-100-kilometer digital-byte digital-gigabyte "
    "digital-kilobyte digital-megabyte digital-terabyte electric-ampere electric-volt energy-kilocalorie energy-kilojoule "
    "energy-kilowatt-hour frequency-gigahertz frequency-hertz frequency-megahertz graphics-megapixel graphics-pixel length-centimeter "
    "length-foot length-inch length-kilometer length-light-year length-meter length-mile length-millimeter length-nautical-mile "
    "mass-gram mass-kilogram mass-milligram mass-ounce mass-pound power-horsepower power-kilowatt power-watt pressure-bar "
    "pressure-hectopascal speed-kilometer-per-hour speed-knot speed-meter-per-second speed-mile-per-hour temperature-celsius "
    "temperature-fahrenheit volume-cubic-meter volume-cup volume-gallon volume-liter volume-milliliter volume-tablespoon volume-teaspoon"
)
SHORT_UNITS = split_codes(
    "area-square-meter digital-gigabyte digital-megabyte energy-kilowatt-hour length-centimeter length-kilometer length-meter "
    "length-millimeter mass-gram mass-kilogram power-watt speed-kilometer-per-hour speed-mile-per-hour temperature-celsius volume-liter"
)
DATE_FORMS: tuple[DateForm, ...] = ("full", "full", "long", "long", "medium")
DATE_TIME_FORMS: tuple[DateForm, ...] = ("full", "long")
TIME_UNITS: dict[TimeUnit, int] = {
    "year": 31_536_000,
    "month": 2_592_000,
    "week": 604_800,
    "day": 86_400,
    "hour": 3600,
    "minute": 60,
    "second": 1,
}
TIME_UNIT_PAIRS: tuple[tuple[TimeUnit, TimeUnit], ...] = (
    ("year", "month"),
    ("week", "day"),
    ("day", "hour"),
    ("hour", "minute"),
    ("minute", "second"),
)


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


class Voice:
    """One language of the data: writes values down the way CLDR says its readers do. Every answer is plain text (see `plain`)."""

    def __init__(self, tag: str, locale: str) -> None:
        from babel import Locale

        self.tag = tag
        self.locale = Locale.parse(locale)
        self.hour = "h" if tag == "en" else "H"  # the clock its readers use: 12 or 24 hours

    def day(self, day: date, form: DateForm) -> str:
        """Write a date in one of CLDR's lengths."""
        from babel.dates import format_date

        return plain(format_date(day, form, locale=self.locale))

    def skeleton(self, moment: datetime, skeleton: str) -> str:
        """Write the fields a CLDR skeleton names, in the order of the language."""
        from babel.dates import format_skeleton

        return plain(format_skeleton(skeleton, moment, locale=self.locale))

    def clock(self, moment: time) -> str:
        """Write hours and minutes."""
        from babel.dates import format_time

        return plain(format_time(moment, "short", locale=self.locale))

    def date_time(self, moment: datetime, form: DateForm) -> str:
        """Write a day and the time of day."""
        pattern = str(self.locale.datetime_formats[form])
        return plain(pattern.format(self.clock(moment.time()), self.day(moment.date(), form)))

    def zone_time(self, moment: time, zone: str, variant: str) -> str:
        """Write a time of day with the name of a time zone; the name goes in as quoted text, so no zone database is needed."""
        from babel.dates import format_time

        name = str(self.locale.meta_zones[zone]["long"][variant]).replace("'", "''")
        pattern = str(self.locale.datetime_skeletons[f"{self.hour}mv"].pattern)
        return plain(format_time(moment, pattern.replace("v", f"'{name}'"), locale=self.locale))

    def interval(self, first: date, last: date) -> str:
        """Write a span of days, each part that both ends share once."""
        from babel.dates import format_interval

        return plain(format_interval(first, last, "yMMMd", locale=self.locale))

    def day_name(self, weekday: int) -> str:
        """Name a day of the week, 0 for Monday."""
        return plain(self.locale.days["stand-alone"]["wide"][weekday])

    def month_name(self, month: int) -> str:
        """Name a month, 1 for January."""
        return plain(self.locale.months["stand-alone"]["wide"][month])

    def duration(self, count: int, unit: TimeUnit) -> str:
        """Write a length of time in one unit of TIME_UNITS."""
        return self._timedelta(count, unit, direction=False)

    def relative(self, count: int, unit: TimeUnit) -> str:
        """Write how long ago (a negative count) or how far ahead something is."""
        return self._timedelta(count, unit, direction=True)

    def _timedelta(self, count: int, unit: TimeUnit, direction: bool) -> str:
        from babel.dates import format_timedelta

        delta = timedelta(seconds=count * TIME_UNITS[unit])
        # A threshold nothing reaches keeps the unit asked for: 24 hours stay 24 hours.
        return plain(format_timedelta(delta, granularity=unit, threshold=float("inf"), add_direction=direction, locale=self.locale))

    def money(self, amount: Decimal, currency: str, *, symbol: bool) -> str:
        """Write an amount with all its digits and the currency's symbol or its name."""
        from babel.numbers import format_currency

        if symbol:
            return plain(format_currency(amount, currency, locale=self.locale))
        whole = amount == amount.to_integral_value()
        return plain(format_currency(amount, currency, locale=self.locale, format_type="name", currency_digits=not whole))

    def number(self, value: Decimal) -> str:
        """Write a number with its thousands grouped."""
        from babel.numbers import format_decimal

        return plain(format_decimal(value, locale=self.locale))

    def round_number(self, value: int) -> str:
        """Write millions and more with a word for the magnitude."""
        from babel.numbers import format_compact_decimal

        length: Length = "long" if "long" in self.locale.compact_decimal_formats else "short"  # Chinese has one length only
        return plain(format_compact_decimal(value, format_type=length, locale=self.locale, fraction_digits=1))

    def percent(self, value: Decimal) -> str:
        """Write a share (0.5 for a half) as a percentage, keeping its decimals."""
        from babel.numbers import format_percent

        return plain(format_percent(value, locale=self.locale, decimal_quantization=False))

    def measure(self, value: Decimal, unit: str, length: Length) -> str:
        """Write a quantity with its unit."""
        from babel.units import format_unit

        text = str(format_unit(value, unit, length, locale=self.locale))
        if unit in text:  # CLDR gives this language no pattern of its own for the length, and Babel then prints the unit's id
            text = str(format_unit(value, unit, "short", locale=self.locale))
        return plain(text)

    def country(self, code: str) -> str:
        """Name a country."""
        return plain(self.locale.territories[code])

    def language(self, code: str, *details: str) -> str:
        """Name a language, with what sets it apart (names of a script, a country) in brackets."""
        name = plain(self.locale.languages[code])
        if not details:
            return name
        return LOCALE_PATTERNS[self.tag].format(name, LOCALE_SEPARATORS[self.tag].join(details))

    def script(self, code: str) -> str:
        """Name a script."""
        return plain(self.locale.scripts[code])

    def listed(self, items: Sequence[str], style: ListStyle) -> str:
        """Join items into a list: style "standard" for A and B, "or" for A or B, "unit" for parts of one quantity."""
        from babel.lists import format_list

        return plain(format_list(items, style, locale=self.locale))


def plain(text: str) -> str:
    """Compose characters (NFC), turn each run of white space into one plain space, and drop invisible marks such as those for direction."""
    visible = "".join(char for char in unicodedata.normalize("NFC", text) if unicodedata.category(char) != "Cf")
    return " ".join(visible.split())


# A phrase before it is put into words: it keeps the drawn values and is told the language later. The makers that return one draw these
# values, and KINDS says what each is for.
Render = Callable[[Voice], str]


def _day(draw: Random) -> date:
    """Draw a day out of YEARS."""
    first, last = (date(year, 1, 1).toordinal() for year in YEARS)
    return date.fromordinal(draw.randrange(first, last))


def _moment(draw: Random) -> datetime:
    """Draw a day and a minute of it."""
    return datetime.combine(_day(draw), time(draw.randrange(24), draw.randrange(60)))


def _count(draw: Random, highest: int = 99) -> int:
    """Draw a count, one more often than the rest because it takes a form of its own."""
    return 1 if draw.random() < 0.05 else draw.randint(2, highest)


def _whole(draw: Random) -> int:
    """Draw a number of one to four digits."""
    n_digits = draw.choice((1, 2, 2, 3, 3, 4))
    return draw.randrange(10 ** (n_digits - 1), 10**n_digits)


def _tenths(draw: Random) -> Decimal:
    """Draw a number with one decimal that is not zero."""
    return _whole(draw) + Decimal(draw.randint(1, 9)) / 10


def _cents(draw: Random) -> Decimal:
    """Draw an amount with two decimals, at least one of them not zero."""
    return _whole(draw) + Decimal(draw.randint(1, 99)) / 100


def _date(draw: Random) -> Render:
    if draw.random() < 0.4:
        return _part_of_date(draw)
    day, drawn = _day(draw), draw.choice(DATE_FORMS)
    # "May" is its own abbreviation, so its medium and long form could not be told apart.
    form: DateForm = "long" if drawn == "medium" and day.month == 5 else drawn
    return lambda voice: voice.day(day, form)


def _part_of_date(draw: Random) -> Render:
    moment, fields = _moment(draw), draw.choice(("MMMMd", "yMMMM", "MMMEd"))
    return lambda voice: voice.skeleton(moment, fields)


def _quarter(draw: Random) -> Render:
    moment = _moment(draw)
    return lambda voice: voice.skeleton(moment, "yQQQQ")


def _interval(draw: Random) -> Render:
    first = _day(draw)
    last = first + timedelta(days=draw.randint(1, 40))
    return lambda voice: voice.interval(first, last)


def _time(draw: Random) -> Render:
    moment = _moment(draw)
    if draw.random() < 0.5:
        return lambda voice: voice.clock(moment.time())
    return lambda voice: voice.skeleton(moment, "Bhm")


def _date_time(draw: Random) -> Render:
    moment = _moment(draw)
    if draw.random() < 0.3:
        return lambda voice: voice.skeleton(moment, f"E{voice.hour}m")
    form = draw.choice(DATE_TIME_FORMS)
    return lambda voice: voice.date_time(moment, form)


def _zone_time(draw: Random) -> Render:
    moment, zone, variant = _moment(draw).time(), draw.choice(ZONES), draw.choice(("generic", "daylight"))
    return lambda voice: voice.zone_time(moment, zone, variant)


def _duration(draw: Random) -> Render:
    if draw.random() < 0.5:
        return _single_duration(draw)
    (larger, smaller), many, few = draw.choice(TIME_UNIT_PAIRS), _count(draw, 30), _count(draw, 11)
    return lambda voice: voice.listed([voice.duration(many, larger), voice.duration(few, smaller)], "unit")


def _single_duration(draw: Random) -> Render:
    count, unit = _count(draw), draw.choice(tuple(TIME_UNITS))
    return lambda voice: voice.duration(count, unit)


def _relative(draw: Random) -> Render:
    count, unit = draw.choice((-1, 1)) * _count(draw, 199), draw.choice(tuple(TIME_UNITS))
    return lambda voice: voice.relative(count, unit)


def _money(draw: Random) -> Render:
    if draw.random() < 0.65:
        return _named_money(draw)
    currency = draw.choice(SYMBOL_CURRENCIES)
    amount = _amount(draw, currency)
    return lambda voice: voice.money(amount, currency, symbol=True)


def _named_money(draw: Random) -> Render:
    currency = draw.choice(CURRENCIES)
    amount = Decimal(_count(draw)) if draw.random() < 0.3 else _amount(draw, currency)
    return lambda voice: voice.money(amount, currency, symbol=False)


def _amount(draw: Random, currency: str) -> Decimal:
    """Draw an amount of money, with decimals half the time where the currency has them."""
    from babel.numbers import get_currency_precision

    return _cents(draw) if get_currency_precision(currency) and draw.random() < 0.5 else Decimal(_whole(draw))


def _number(draw: Random) -> Render:
    if draw.random() < 0.5:
        tenths, magnitude = draw.choice((draw.randint(1, 99), draw.randint(1, 99) * 10)), draw.choice((10**6, 10**9, 10**12))
        value = max(10, tenths) * magnitude // 10
        return lambda voice: voice.round_number(value)
    number = draw.choice((_tenths, _cents))(draw) + 1000 * draw.randrange(100)
    return lambda voice: voice.number(number)


def _percent(draw: Random) -> Render:
    share = draw.choice((Decimal(draw.randint(1, 150)) / 100, Decimal(draw.randint(1, 999)) / 1000))
    return lambda voice: voice.percent(share)


def _measure(draw: Random) -> Render:
    if draw.random() < 0.2:
        value, unit = draw.choice((Decimal(draw.randint(2, 999)), _tenths(draw))), draw.choice(SHORT_UNITS)
        return lambda voice: voice.measure(value, unit, "short")
    return _long_measure(draw)


def _long_measure(draw: Random) -> Render:
    unit = draw.choice(UNITS)
    value = _tenths(draw) if draw.random() < 0.3 else Decimal(_count(draw, 999))
    return lambda voice: voice.measure(value, unit, "long")


def _style(draw: Random) -> ListStyle:
    """Draw how a list ends: "and" three times as often as "or"."""
    return "or" if draw.random() < 0.25 else "standard"


def _countries(draw: Random) -> Render:
    codes, style = draw.sample(COUNTRIES, draw.choice((2, 2, 3, 3, 4))), _style(draw)
    return lambda voice: voice.listed([voice.country(code) for code in codes], style)


def _languages(draw: Random) -> Render:
    codes, style = draw.sample(LANGUAGES, draw.choice((2, 3))), _style(draw)
    return lambda voice: voice.listed([voice.language(code) for code in codes], style)


def _variant(draw: Random) -> Render:
    country = draw.choice(COUNTRIES)
    if draw.random() < 0.7:
        language = draw.choice(LANGUAGES)
        return lambda voice: voice.language(language, voice.country(country))
    language, script = draw.choice(SCRIPT_LANGUAGES), draw.choice(SCRIPTS)
    return lambda voice: voice.language(language, voice.script(script), voice.country(country))


def _language(draw: Random) -> Render:
    return draw.choice((_languages, _variant))(draw)


def _calendar_names(draw: Random) -> Render:
    style, n_names = _style(draw), draw.choice((2, 3))
    if draw.random() < 0.5:
        days = draw.sample(range(7), n_names)
        return lambda voice: voice.listed([voice.day_name(day) for day in days], style)
    months = draw.sample(range(1, 13), n_names)
    return lambda voice: voice.listed([voice.month_name(month) for month in months], style)


def _mixed(draw: Random) -> Render:
    makers = draw.choices((_single_duration, _named_money, _long_measure, _percent), k=draw.choice((2, 2, 3)))
    items, style = [maker(draw) for maker in makers], _style(draw)
    return lambda voice: voice.listed([item(voice) for item in items], style)


def _list(draw: Random) -> Render:
    return draw.choice((_calendar_names, _mixed))(draw)


# Kind -> (how often it is drawn, how it is made). The larger the closed list behind a kind, the oftener it is drawn.
KINDS: dict[str, tuple[int, Callable[[Random], Render]]] = {
    "date": (14, _date),
    "datetime": (9, _date_time),
    "interval": (6, _interval),
    "quarter": (2, _quarter),
    "time": (7, _time),
    "zone": (8, _zone_time),
    "duration": (7, _duration),
    "relative": (7, _relative),
    "money": (13, _money),
    "number": (5, _number),
    "percent": (3, _percent),
    "unit": (17, _measure),
    "country": (9, _countries),
    "language": (10, _language),
    "list": (8, _list),
}


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
