"""The phrases of the built-in translation data: what kinds there are, and how the values inside one are drawn.

Left out, because a source must have exactly one right answer: all-digit dates (3/12/26) and names or abbreviations that CLDR uses for two
things. CLDR's spelled-out numbers and its week and era forms are left out too: Babel lacks them or its languages disagree.
"""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from random import Random

from heed.data.voice import TIME_UNITS, DateForm, ListStyle, TimeUnit, Voice


def split_codes(text: str) -> tuple[str, ...]:
    """Split codes that stand in one string, where a list would fill a page."""
    return tuple(text.split())


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
TIME_UNIT_PAIRS: tuple[tuple[TimeUnit, TimeUnit], ...] = (
    ("year", "month"),
    ("week", "day"),
    ("day", "hour"),
    ("hour", "minute"),
    ("minute", "second"),
)


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
