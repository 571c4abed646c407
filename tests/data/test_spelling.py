"""Spelling: texts come back from their units; tables that cannot be read back are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.morse import CODE
from heed.data.spelling import Spelling
from heed.errors import CheckpointError, DataError

MORSE = Spelling({character: list(code) for character, code in CODE.items()})


@given(st.text(alphabet=[*CODE, " "], max_size=30))
def test_a_text_comes_back_with_single_spaces(text: str) -> None:
    assert MORSE.decode(MORSE.encode(text)) == " ".join(text.split())


def test_a_space_stands_instead_of_the_end_of_a_character() -> None:
    assert [MORSE.token(index) for index in MORSE.encode("EA T")] == [".", "|", ".", "-", "▁", "-"]


def test_units_that_spell_nothing_are_left_out() -> None:
    ids = [*MORSE.encode("E"), MORSE.encode("EE")[1], *[MORSE.encode("E")[0]] * 9, MORSE.encode("EE")[1], *MORSE.encode("T")]
    assert MORSE.decode(ids) == "ET"


def test_unknown_characters_are_unknown_and_named() -> None:
    assert Spelling.unk_id in MORSE.encode("Aä")
    assert MORSE.unknown(["A ä", "B"]) == {"ä"}


def test_a_table_is_read_from_a_file_and_survives_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "morse.tsv"
    path.write_text("".join(f"{character}\t{' '.join(code)}\n" for character, code in CODE.items()), encoding="utf-8")
    read = Spelling.read(path)
    assert read.to_json() == MORSE.to_json()
    assert Spelling.from_json(read.to_json()).encode("SOS 73") == MORSE.encode("SOS 73")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("A\t. -\nA\t-", "2: spells 'A' a second time"),
        ("A\t. -\nB\t. -", "2: spells 'B' as 'A' is spelled"),
        ("A . -", "1: has no tab"),
        ("A\t", "1: spells 'A' with ''"),
        ("AB\t.", "1: spells 'AB', which is not one character"),
        ("A\t. |", "1: spells 'A' with"),
    ],
)
def test_a_table_that_cannot_be_read_back_is_refused(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "table.tsv"
    path.write_text(lines + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="table.tsv:" + said.replace("|", r"\|")):
        Spelling.read(path)


@pytest.mark.parametrize("content", [{}, {"table": []}, {"table": {"A": "."}}, {"table": {"A": ["."], "B": ["."]}}, {"table": {"A": []}}])
def test_a_broken_part_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="not a spelling"):
        Spelling.from_json(content)
