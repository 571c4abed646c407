import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.data import builtin, phrases
from heed.data.builtin import phrase_pairs, write_phrases
from heed.data.phrases import KINDS
from heed.data.voice import TIME_UNITS, Voice, plain
from heed.errors import DataError

Pairs = list[dict[str, str]]
TAGS = (">>de<<", ">>zh<<")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_phrases(tmp_path_factory.mktemp("phrases"))


@pytest.fixture(scope="module")
def splits(paths: dict[str, Path]) -> dict[str, Pairs]:
    return {name: read(path) for name, path in paths.items()}


@pytest.fixture(scope="module")
def voices() -> dict[str, Voice]:
    return {"en": Voice("en", "en"), "de": Voice("de", "de"), "zh": Voice("zh", "zh_Hans")}


def read(path: Path) -> Pairs:
    header, *rows = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    return [dict(zip(header.split("\t"), row.split("\t"), strict=True)) for row in rows]


def bare(pair: dict[str, str]) -> str:
    tag, source = pair["source"].split(" ", 1)
    assert tag in TAGS
    return source


def words(text: str) -> set[str]:
    return set(re.split(r"[\d\s]+|(?<=\W)|(?=\W)", text)) - {""}


def assert_disjoint(splits: dict[str, Pairs]) -> None:
    for first, second in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not {bare(pair) for pair in splits[first]} & {bare(pair) for pair in splits[second]}
        assert not {pair["target"] for pair in splits[first]} & {pair["target"] for pair in splits[second]}


def test_the_default_sizes_are_thirty_thousand_five_hundred_and_a_thousand(splits: dict[str, Pairs]) -> None:
    assert {name: len(pairs) for name, pairs in splits.items()} == {"train": 30_000, "valid": 500, "test": 1_000}


def test_files_hold_exactly_the_pairs_made(paths: dict[str, Path], splits: dict[str, Pairs]) -> None:
    assert splits == phrase_pairs(seed=1, n_train=30_000, n_valid=500, n_test=1_000)
    assert {name: path.name for name, path in paths.items()} == {"train": "train.tsv", "valid": "valid.tsv", "test": "test.tsv"}
    assert paths["train"].read_text(encoding="utf-8").startswith("source\ttarget\tkind\n")


def test_every_phrase_comes_in_both_languages(splits: dict[str, Pairs]) -> None:
    for pairs in splits.values():
        for german, chinese in zip(pairs[::2], pairs[1::2], strict=True):
            assert german["source"] == f">>de<< {bare(chinese)}"
            assert chinese["source"] == f">>zh<< {bare(german)}"
            assert german["kind"] == chinese["kind"]


def test_splits_share_no_source_and_no_target(splits: dict[str, Pairs]) -> None:
    assert_disjoint(splits)


@settings(max_examples=5, deadline=None)
@given(st.integers(), st.integers(0, 9), st.integers(0, 9))
def test_splits_share_nothing_under_any_seed_and_have_the_sizes_asked_for(seed: int, n_valid: int, n_test: int) -> None:
    splits = phrase_pairs(seed=seed, n_train=301, n_valid=n_valid, n_test=n_test)
    assert [len(pairs) for pairs in splits.values()] == [301, n_valid, n_test]
    assert_disjoint(splits)


def test_a_source_has_one_target_over_all_splits_and_seeds(splits: dict[str, Pairs]) -> None:
    others = [phrase_pairs(seed=seed, n_train=8_000, n_valid=50, n_test=50) for seed in (2, 3, 4)]
    targets: dict[str, set[str]] = {}
    for data in (splits, *others):
        for pair in (pair for pairs in data.values() for pair in pairs):
            targets.setdefault(pair["source"], set()).add(pair["target"])
    assert [source for source, found in targets.items() if len(found) > 1] == []


def test_no_source_comes_twice(splits: dict[str, Pairs]) -> None:
    sources = [pair["source"] for pairs in splits.values() for pair in pairs]
    assert len(sources) == len(set(sources))


@pytest.mark.parametrize("tag", TAGS)
def test_held_out_phrases_use_only_words_of_the_training_phrases(splits: dict[str, Pairs], tag: str) -> None:
    train = [pair for pair in splits["train"] if pair["source"].startswith(tag)]
    split_target = set if tag == ">>zh<<" else words
    sources = {word for pair in train for word in words(bare(pair))}
    targets = {word for pair in train for word in split_target(pair["target"])} | set("0123456789")
    for pair in (pair for name in ("valid", "test") for pair in splits[name] if pair["source"].startswith(tag)):
        assert words(bare(pair)) <= sources, pair
        assert split_target(pair["target"]) <= targets, pair


@pytest.mark.parametrize("tag", ["de", "zh"])
def test_every_name_of_a_closed_list_is_trained_on_often_enough_to_be_learnt(
    splits: dict[str, Pairs], voices: dict[str, Voice], tag: str
) -> None:
    english = voices["en"]
    names = [
        *map(english.country, phrases.COUNTRIES),
        *map(english.language, phrases.LANGUAGES),
        *(english.money(Decimal(5), code, symbol=False).removeprefix("5 ") for code in phrases.CURRENCIES),
        *(english.measure(Decimal(5), unit, "long").removeprefix("5 ") for unit in phrases.UNITS),
        *(english.measure(Decimal(5), unit, "short").removeprefix("5") for unit in phrases.SHORT_UNITS),
        *(english.zone_time(time(5, 5), zone, variant)[8:] for zone in phrases.ZONES for variant in ("generic", "daylight")),
    ]
    text = "\n".join(bare(pair) for pair in splits["train"] if pair["source"].startswith(f">>{tag}<<")) + "\n"
    seen = {name: len(re.findall(rf"(?<![^\W\d]){re.escape(name)}(?!\w)", text)) for name in names}
    assert {name: count for name, count in seen.items() if count < 15} == {}


def test_bare_names_are_all_trained_on_and_never_held_out(splits: dict[str, Pairs], voices: dict[str, Voice]) -> None:
    names = {*map(voices["en"].country, phrases.COUNTRIES), *map(voices["en"].language, phrases.LANGUAGES)}
    assert names <= {bare(pair) for pair in splits["train"]}
    assert not names & {bare(pair) for pair in (*splits["valid"], *splits["test"])}


def test_every_kind_is_in_every_split_and_trained_on(splits: dict[str, Pairs]) -> None:
    assert all({pair["kind"] for pair in pairs} == set(KINDS) for pairs in splits.values())
    assert min(Counter(pair["kind"] for pair in splits["train"]).values()) >= 300


def test_text_has_plain_spaces_composed_characters_and_no_invisible_marks(splits: dict[str, Pairs]) -> None:
    text = "".join(pair["source"] + pair["target"] for pairs in splits.values() for pair in pairs)
    assert {char for char in set(text) if char.isspace()} == {" "}
    assert not [char for char in set(text) if unicodedata.category(char) in ("Cc", "Cf", "Cn", "Co")]
    for pair in (pair for pairs in splits.values() for pair in pairs):
        for side in (pair["source"], pair["target"]):
            assert side == " ".join(unicodedata.normalize("NFC", side).split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("می\u200cرود", "می\u200cرود"),  # between letters that it keeps from joining
        ("अलास्\u200dका", "अलास्\u200dका"),  # after a mark that belongs to a letter
        ("می\u200c رود\u200d", "می رود"),
        ("\u200cمی", "می"),
        ("Reyk\u00adja\u200cv\u00edk", "Reykjavík"),  # nothing joins in Latin script
        ("۵\u200f،\u2066 ۶\u2069", "۵، ۶"),
        ("می\u200f\u200cرود", "می\u200cرود"),
        ("e\u0301  5\u202fkm\u200e", "é 5 km"),
    ],
)
def test_plain_text_keeps_joiners_where_they_join_and_no_other_invisible_mark(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert plain(expected) == expected


def test_no_target_shows_the_name_of_a_cldr_unit(splits: dict[str, Pairs]) -> None:
    ids = {*phrases.UNITS, *TIME_UNITS}
    assert not [pair for pairs in splits.values() for pair in pairs if pair["target"].split(" ", 1)[-1] in ids]


@pytest.mark.parametrize(
    ("make", "english", "german", "chinese"),
    [
        (lambda voice: voice.relative(-3, "day"), "3 days ago", "vor 3 Tagen", "3天前"),
        (lambda voice: voice.relative(1, "day"), "in 1 day", "in 1 Tag", "1天后"),
        (lambda voice: voice.duration(24, "hour"), "24 hours", "24 Stunden", "24小时"),
        (
            lambda voice: voice.day(date(2026, 3, 12), "full"),
            "Thursday, March 12, 2026",
            "Donnerstag, 12. März 2026",
            "2026年3月12日星期四",
        ),
        (lambda voice: voice.clock(time(0, 5)), "12:05 AM", "00:05", "00:05"),
        (lambda voice: voice.interval(date(2026, 3, 3), date(2026, 3, 7)), "Mar 3 – 7, 2026", "3.–7. März 2026", "2026年3月3日至7日"),
        (
            lambda voice: voice.zone_time(time(17, 5), "Europe_Central", "generic"),
            "5:05 PM Central European Time",
            "17:05 Mitteleuropäische Zeit",
            "中欧时间 17:05",
        ),
        (
            lambda voice: voice.date_time(datetime(2026, 3, 12, 17, 5), "long"),
            "March 12, 2026, 5:05 PM",
            "12. März 2026, 17:05",
            "2026年3月12日 17:05",
        ),
        (lambda voice: voice.money(Decimal("1234.5"), "EUR", symbol=True), "€1,234.50", "1.234,50 €", "€1,234.50"),
        (lambda voice: voice.money(Decimal(1), "GBP", symbol=False), "1 British pound", "1 Britisches Pfund", "1英镑"),
        (lambda voice: voice.round_number(25_000_000), "25 million", "25 Millionen", "2500万"),
        (lambda voice: voice.percent(Decimal("0.125")), "12.5%", "12,5 %", "12.5%"),
        (lambda voice: voice.measure(Decimal(12), "length-kilometer", "long"), "12 kilometers", "12 Kilometer", "12公里"),
        (
            lambda voice: voice.measure(Decimal(12), "speed-kilometer-per-hour", "long"),
            "12 kilometers per hour",
            "12 Kilometer pro Stunde",
            "每小时12公里",
        ),
        (
            lambda voice: voice.language("sr", voice.script("Latn"), voice.country("CH")),
            "Serbian (Latin, Switzerland)",
            "Serbisch (Lateinisch, Schweiz)",
            "塞尔维亚语（拉丁文，瑞士）",
        ),
        (
            lambda voice: voice.listed([voice.country(code) for code in ("FR", "JP", "KE")], "or"),
            "France, Japan, or Kenya",
            "Frankreich, Japan oder Kenia",
            "法国、日本或肯尼亚",
        ),
        (
            lambda voice: voice.listed([voice.duration(2, "hour"), voice.duration(5, "minute")], "unit"),
            "2 hours, 5 minutes",
            "2 Stunden, 5 Minuten",
            "2小时5分钟",
        ),
    ],
)
def test_values_are_written_the_way_each_language_writes_them(
    voices: dict[str, Voice], make: phrases.Render, english: str, german: str, chinese: str
) -> None:
    assert [make(voice) for voice in voices.values()] == [english, german, chinese]


def test_the_seed_alone_decides(splits: dict[str, Pairs]) -> None:
    assert phrase_pairs(seed=7, n_train=200, n_valid=4, n_test=6) == phrase_pairs(seed=7, n_train=200, n_valid=4, n_test=6)
    assert phrase_pairs(seed=7, n_train=200, n_valid=4, n_test=6) != phrase_pairs(seed=8, n_train=200, n_valid=4, n_test=6)


def test_neither_time_zone_nor_locale_nor_hashing_of_the_machine_matters_and_babel_waits_for_the_call() -> None:
    script = (
        "import sys; from heed.data.builtin import phrase_pairs; assert 'babel' not in sys.modules; "
        "sys.stdout.buffer.write(repr(phrase_pairs(seed=7, n_train=200, n_valid=4, n_test=6)).encode())"
    )
    machine = {"TZ": "Asia/Kathmandu", "LC_ALL": "fr_FR.UTF-8", "LANGUAGE": "fr", "PYTHONHASHSEED": "5"}
    root = Path(builtin.__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", script], env=os.environ | machine, cwd=root, capture_output=True, check=True).stdout
    assert shown.decode() == repr(phrase_pairs(seed=7, n_train=200, n_valid=4, n_test=6))


def test_a_negative_size_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="n_valid is -1; expected 0 or more"):
        phrase_pairs(seed=1, n_train=10, n_valid=-1, n_test=0)


def test_held_out_phrases_without_training_phrases_are_refused() -> None:
    with pytest.raises(DataError, match=r"0 different ones to hold out.* 1 expected; ask for fewer"):
        phrase_pairs(seed=1, n_train=0, n_valid=0, n_test=2)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file", encoding="utf-8")
    with pytest.raises(DataError, match=r"taken: the built-in phrases cannot be written here"):
        write_phrases(tmp_path / "taken", n_train=10, n_valid=0, n_test=0)


def test_missing_folders_are_made(tmp_path: Path) -> None:
    made = write_phrases(tmp_path / "new" / "folder", seed=3, n_train=21, n_valid=0, n_test=0)
    assert [len(read(path)) for path in made.values()] == [21, 0, 0]
