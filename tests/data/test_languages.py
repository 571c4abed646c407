import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from datetime import tzinfo
from decimal import Decimal
from pathlib import Path

import pytest
from babel import Locale, localedata
from babel.dates import format_timedelta, get_timezone_location
from babel.numbers import get_currency_name
from babel.units import format_unit

from heed.data import languages
from heed.data.languages import COLUMNS, KINDS, LOCALES, NAME_KINDS, UNSPACED, Stock, Tongue, language_rows, write_languages
from heed.data.phrases import UNITS
from heed.data.voice import TIME_UNITS
from heed.errors import DataError

Rows = list[dict[str, str]]
LABELS = {str(Locale("en").languages[code]): code for code in LOCALES}
JOINERS = "\u200c\u200d"  # which CLDR puts nowhere but between letters
FEW = {"seed": 7, "n_train": 120, "n_valid": 40, "n_test": 80}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_languages(tmp_path_factory.mktemp("languages"))


@pytest.fixture(scope="module")
def splits(paths: dict[str, Path]) -> dict[str, Rows]:
    return {name: read(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def everything(splits: dict[str, Rows]) -> Rows:
    return [row for rows in splits.values() for row in rows]


def read(path: Path) -> Rows:
    header, *rows = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    assert header.split("\t") == list(COLUMNS)
    return [dict(zip(COLUMNS, row.split("\t"), strict=True)) for row in rows]


def same(text: str) -> str:
    """Return what texts have in common that differ in case and composition alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def visible(text: str) -> str:
    """Return text without invisible marks but for joiners, white space folded."""
    composed = unicodedata.normalize("NFC", text)
    return " ".join("".join(char for char in composed if char in JOINERS or unicodedata.category(char) != "Cf").split())


def test_the_default_sizes_are_balanced_over_forty_languages(splits: dict[str, Rows]) -> None:
    assert len(LABELS) == 40
    for name, each in {"train": 600, "valid": 30, "test": 30}.items():
        assert Counter(row["label"] for row in splits[name]) == dict.fromkeys(LABELS, each)


def test_a_size_that_does_not_divide_is_shared_out_as_evenly_as_can_be() -> None:
    rows = language_rows(seed=3, n_train=len(LABELS) + 3, n_valid=0, n_test=5)
    assert [len(found) for found in rows.values()] == [len(LABELS) + 3, 0, 5]
    assert sorted(Counter(row["label"] for row in rows["train"]).values()) == [1] * (len(LABELS) - 3) + [2] * 3


def test_easily_confused_languages_and_scripts_of_their_own_are_among_the_labels() -> None:
    wanted = "da nb sv es pt gl ca cs sk sl hr ru uk bg sr id ms nl af de fi et ja zh ko th el he hi ar fa ka en"
    assert set(wanted.split()) <= set(LOCALES)
    assert {"Portuguese", "Norwegian Bokmål", "Chinese", "Persian"} <= LABELS.keys()


def test_no_text_stands_in_two_rows_splits_or_languages(everything: Rows) -> None:
    counts = Counter(same(row["text"]) for row in everything)
    assert [text for text, count in counts.items() if count > 1] == []


def test_every_text_is_one_visible_line(everything: Rows) -> None:
    for text in (row["text"] for row in everything):
        assert text
        assert text == visible(text)
    assert {char for row in everything for char in row["text"] if char.isspace()} == {" "}
    assert not [char for char in {char for row in everything for char in row["text"]} if unicodedata.category(char) in ("Cc", "Cn", "Co")]


def test_joiners_stand_where_a_language_is_spelt_with_them_and_nowhere_else(everything: Rows) -> None:
    spelt = {row["label"] for row in everything if re.search(f"[{JOINERS}]", row["text"])}
    assert spelt == {"Persian", "Hindi"}
    around = {row["text"][match.start() - 1 : match.end() + 1] for row in everything for match in re.finditer(f"[{JOINERS}]", row["text"])}
    assert all(len(part) == 3 and {unicodedata.category(part[0])[0], unicodedata.category(part[2])[0]} <= {"L", "M"} for part in around)


def test_every_kind_is_in_every_split(splits: dict[str, Rows]) -> None:
    assert all({row["kind"] for row in rows} == set(KINDS) for rows in splits.values())


def test_texts_are_one_word_and_many_and_of_any_length_between(everything: Rows) -> None:
    lengths = Counter(len(row["text"].split()) for row in everything if LABELS[row["label"]] not in UNSPACED)
    assert set(range(1, 16)) <= lengths.keys()
    assert sum(count for length, count in lengths.items() if length > 20) < 0.02 * lengths.total()


def test_languages_are_not_all_tested_on_the_same_phrases(splits: dict[str, Rows]) -> None:
    # One number in three rows; thirty phrases said in forty languages would hold a few dozen.
    assert len({number for row in splits["test"] for number in re.findall(r"\d+", row["text"])}) > 100


def test_held_out_names_stand_in_no_training_row(splits: dict[str, Rows]) -> None:
    names = Stock(1, held_out=True).names
    assert all(len(names[kind]) >= 5 for kind in NAME_KINDS)
    for label, code in LABELS.items():
        tongue = Tongue(code)
        found = "|".join(sorted({re.escape(same(tongue.names[kind][name])) for kind in NAME_KINDS for name in names[kind]}))
        whole = re.compile(found if code in UNSPACED else rf"(?<!\w)({found})(?!\w)")
        assert [row for row in splits["train"] if row["label"] == label and whole.search(same(row["text"]))] == []


def test_held_out_rows_name_only_what_is_held_out(splits: dict[str, Rows]) -> None:
    names, tongues = Stock(1, held_out=True).names, {label: Tongue(code) for label, code in LABELS.items()}
    for row in (row for name in ("valid", "test") for row in splits[name] if row["kind"] in ("country", "language")):
        assert row["text"] in {tongues[row["label"]].names[row["kind"]][code] for code in names[row["kind"]]}, row


def test_each_name_belongs_to_one_side_and_another_seed_divides_otherwise() -> None:
    for kind in NAME_KINDS:
        trained, held_out = (set(Stock(5, held_out=side).names[kind]) for side in (False, True))
        assert not trained & held_out
        assert trained | held_out == set(Stock(6, held_out=False).names[kind]) | set(Stock(6, held_out=True).names[kind])
        assert held_out != set(Stock(6, held_out=True).names[kind])


def test_held_out_texts_are_spelt_with_characters_of_training(splits: dict[str, Rows]) -> None:
    known = {(row["label"], char) for row in splits["train"] for char in row["text"]}
    spelt = [
        all((row["label"], char) in known for char in row["text"])
        for name in ("valid", "test")
        for row in splits[name]
        if LABELS[row["label"]] not in ("ja", "ko", "zh")  # whose names have characters of their own
    ]
    assert sum(spelt) > 0.97 * len(spelt)


def test_a_country_or_language_alone_is_right_in_one_language(everything: Rows) -> None:
    # The raw data files: another path to the names than the one that made the rows.
    tables = {"country": "territories", "language": "languages"}
    for kind, table in tables.items():
        names = {label: {same(visible(name)) for name in localedata.load(code)[table].values()} for label, code in LABELS.items()}
        for row in (row for row in everything if row["kind"] == kind):
            assert [label for label, known in names.items() if same(row["text"]) in known] == [row["label"]], row


def test_english_relative_times_read_as_english(everything: Rows) -> None:
    units = "|".join(TIME_UNITS)
    texts = [row["text"] for row in everything if row["label"] == "English" and row["kind"] == "relative"]
    assert len(texts) > 20
    assert [text for text in texts if not re.fullmatch(rf"in \d+ ({units})s?|\d+ ({units})s? ago", text)] == []


def test_no_text_shows_an_identifier_of_cldr(everything: Rows) -> None:
    hyphened = re.compile("|".join(map(re.escape, UNITS)))
    assert [row for row in everything if hyphened.search(row["text"]) or re.search(r"[{}%]|\w_\w|\w/\w+_", row["text"])] == []


class Paris(tzinfo):
    """A time zone by name alone, so that no zone database is needed."""

    zone = "Europe/Paris"


def test_values_are_written_the_way_babel_writes_them_along_another_path() -> None:
    greek, finnish, czech, croatian, thai = (Tongue(code) for code in ("el", "fi", "cs", "hr", "th"))
    assert greek.names["country"]["FR"] == Locale("fr", "FR").get_territory_name("el")
    assert finnish.names["language"]["ja"] == Locale("ja").get_language_name("fi")
    assert czech.names["currency"]["JPY"] == get_currency_name("JPY", locale="cs_CZ")
    assert thai.names["city"]["Europe/Paris"] == get_timezone_location(Paris(), locale="th", return_city=True)
    assert croatian.local_time(croatian.names["country"]["FR"]) == visible(get_timezone_location(Paris(), locale="hr"))
    ago = format_timedelta(-3 * 86_400, granularity="day", threshold=9, add_direction=True, locale="cs")
    assert czech.relative(-3, "day") == visible(ago)
    assert finnish.measure(Decimal(5), "length-kilometer", "long") == visible(format_unit(5, "kilometer", locale="fi_FI"))
    assert {tongue.label for tongue in (greek, finnish, czech, croatian, thai)} == {"Greek", "Finnish", "Czech", "Croatian", "Thai"}


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    first, second = (write_languages(tmp_path / name, **FEW) for name in ("first", "second"))
    other = write_languages(tmp_path / "other", **FEW | {"seed": 8})
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes()
        assert path.read_bytes() != other[name].read_bytes()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["test.tsv", "train.tsv", "valid.tsv"]


def test_files_hold_exactly_the_rows_made(tmp_path: Path) -> None:
    assert {name: read(path) for name, path in write_languages(tmp_path, **FEW).items()} == language_rows(**FEW)


def test_neither_time_zone_nor_locale_nor_hashing_of_the_machine_matters_and_babel_waits_for_the_call() -> None:
    script = (
        "import sys; from heed.data.languages import language_rows; assert 'babel' not in sys.modules; "
        f"sys.stdout.buffer.write(repr(language_rows(**{FEW!r})).encode())"
    )
    machine = {"TZ": "Asia/Kathmandu", "LANG": "tr_TR.UTF-8", "LC_ALL": "fr_FR.UTF-8", "LANGUAGE": "fr", "PYTHONHASHSEED": "5"}
    root = Path(languages.__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", script], env=os.environ | machine, cwd=root, capture_output=True, check=True).stdout
    assert shown.decode() == repr(language_rows(**FEW))


def test_a_negative_size_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="n_test is -2; expected 0 or more"):
        language_rows(seed=1, n_train=10, n_valid=0, n_test=-2)


def test_more_texts_than_can_be_found_are_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "MAX_ROUNDS", 1)
    monkeypatch.setattr(languages, "SMALLEST_ROUND", 2)
    with pytest.raises(DataError, match=r"different ones for training .* expected 100 and 0, so ask for fewer"):
        language_rows(seed=1, n_train=100 * len(LOCALES), n_valid=0, n_test=0)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(DataError, match=r"taken: the built-in texts cannot be written here"):
        write_languages(tmp_path / "taken", seed=1, n_train=10, n_valid=0, n_test=0)
