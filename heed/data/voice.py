"""How a language writes values down: dates, amounts, quantities, names and lists, by the Unicode CLDR as the Babel package carries it.

The machine's date, time zone and locale play no part.
"""

import re
import unicodedata
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal

from heed.data.text import JOINERS, JOINING

TimeUnit = Literal["year", "month", "week", "day", "hour", "minute", "second"]
DateForm = Literal["full", "long", "medium"]
Length = Literal["long", "short"]
ListStyle = Literal["standard", "or", "unit"]

TIME_UNITS: dict[TimeUnit, int] = {
    "year": 31_536_000,
    "month": 2_592_000,
    "week": 604_800,
    "day": 86_400,
    "hour": 3600,
    "minute": 60,
    "second": 1,
}
# CLDR's localePattern and localeSeparator, which Babel does not carry.
LOCALE_PATTERNS = {"en": "{} ({})", "de": "{} ({})", "zh": "{}（{}）"}
LOCALE_SEPARATORS = {"en": ", ", "de": ", ", "zh": "，"}
# A joiner that stands between no two characters of a script that it changes.
LOOSE_JOINER = re.compile(f"(?<![{JOINING}])[{JOINERS}]+|[{JOINERS}]+(?![{JOINING}])")


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


class _Seen(dict[int, str | None]):
    """Maps a character's number to itself, or to nothing for marks nobody sees; each is looked up once, as `str.translate` asks for it."""

    def __missing__(self, number: int) -> str | None:
        char = chr(number)
        self[number] = seen = None if unicodedata.category(char) == "Cf" and char not in JOINERS else char
        return seen


_SEEN = _Seen()


def plain(text: str) -> str:
    """Compose characters (NFC), turn each run of white space into one plain space, and drop invisible marks such as those for direction.

    Joiners stay between characters whose look they change: Persian "می\u200cرود" is spelt with one.
    """
    if text.isascii() and text.isprintable():  # most are: a fifth of the time
        return " ".join(text.split())
    visible = unicodedata.normalize("NFC", text).translate(_SEEN)
    return " ".join(LOOSE_JOINER.sub("", visible).split())
