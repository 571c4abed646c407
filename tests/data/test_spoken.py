"""What is found in recordings with transcripts, held against definitions that go through all rows again for each of them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data import spoken
from heed.data.quality import MAX_EXAMPLES, FaultSurvey
from heed.data.spoken import MOST_CHARACTERS, MOST_NAMED, MOST_RARE, MOST_SPEAKERS, SpokenSurvey, survey_spoken
from heed.data.transcripts import NORMALISATIONS
from heed.errors import DataError

Row = dict[str, Any]

FAULTS = ["duplicates", "contradictions", "leaks"]
CONTENTS = {"a.wav": b"RIFF one", "again.wav": b"RIFF one", "other.wav": b"RIFF two", "long.wav": b"RIFF three", "empty.wav": b""}
TEXTS = ["turn on", " turn  on", "Turn on", "off", "", " \n"]  # the first two are one transcript, the last two none


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings")
    for name, content in CONTENTS.items():
        (path / name).write_bytes(content)
    return path


Source = tuple[str, str]  # how a recording is given, and which one it is
sources = st.one_of(
    st.tuples(st.sampled_from(["path", "bytes"]), st.sampled_from(sorted(CONTENTS))),
    st.tuples(st.just("samples"), st.sampled_from(["0 1", "0 0"])),
)
rows = st.lists(st.tuples(sources, st.sampled_from(TEXTS)), max_size=9)


def made(content: list[tuple[Source, str]], folder: Path) -> list[Row]:
    makers = {
        "path": lambda name: str(folder / name),
        "bytes": lambda name: CONTENTS[name],
        "samples": lambda numbers: np.array([int(number) for number in numbers.split()], dtype=np.int16),
    }
    return [{"audio": makers[kind](name), "text": text} for (kind, name), text in content]


def recording(source: Source) -> object:
    """Return what two rows have in common when they hold the same recording."""
    kind, name = source
    return name if kind == "samples" else CONTENTS[name]


def transcript(text: str) -> str:
    return " ".join(text.split())


def faults_of(row: int, content: list[tuple[Source, str]], others: list[list[tuple[Source, str]]]) -> set[str]:
    """Look at one row against all others."""
    source, _ = content[row]
    same = [i for i, (other, _) in enumerate(content) if recording(other) == recording(source)]
    texts = {i: transcript(content[i][1]) for i in same}
    found = {
        "duplicates": any(i < row and texts[i] == texts[row] for i in same),
        "contradictions": any(texts[i] != texts[row] for i in same),
        "leaks": any(recording(other) == recording(source) for split in others for other, _ in split),
    }
    return {name for name, holds in found.items() if holds}


def names(survey: FaultSurvey) -> list[set[str]]:
    """Return the faults of each row."""
    return [{name for name, rows in survey.faults.items() if rows[row]} for row in range(len(survey.keep))]


@given(content=rows.filter(bool), valid=rows, test=rows)
def test_every_flag_is_set_by_its_definition(folder: Path, content: Any, valid: Any, test: Any) -> None:
    splits = {"valid": made(valid, folder), "test": made(test, folder)}
    survey = survey_spoken(made(content, folder), splits, seconds=None)
    expected = [faults_of(row, content, [valid, test]) for row in range(len(content))]
    assert names(survey) == expected
    assert survey.keep.tolist() == [not found for found in expected]
    assert survey.nothing_said == sum(not transcript(text) for _, text in content)
    assert survey.counts == {name: sum(name in found for found in expected) for name in FAULTS}
    for name, split in (("valid", valid), ("test", test)):
        assert survey.leaks[name] == sum("leaks" in faults_of(row, content, [split]) for row in range(len(content)))
    assert survey.shared == {"valid and test": sum(recording(source) in {recording(other) for other, _ in valid} for source, _ in test)}


@given(content=rows.filter(bool), valid=rows)
def test_the_first_rows_of_each_flag_are_shown_with_their_numbers(folder: Path, content: Any, valid: Any) -> None:
    survey = survey_spoken(made(content, folder), {"valid": made(valid, folder)}, seconds=None)
    for fault, shown in survey.examples.items():
        flagged = [row for row in range(len(content)) if fault in faults_of(row, content, [valid])]
        assert [one["row"] for one in shown] == [row + 1 for row in flagged[:MAX_EXAMPLES]]
        assert [one["text"] for one in shown] == [transcript(content[row][1]) for row in flagged[:MAX_EXAMPLES]]
        for one, row in zip(shown, flagged, strict=False):
            (kind, name), _ = content[row]
            said = {"path": str(folder / name), "bytes": f"{len(CONTENTS.get(name, b''))} bytes", "samples": "2 samples"}
            assert one["audio"] == said[kind]


def survey_of(*content: tuple[Any, str], speakers: str = "", **others: list[Row]) -> SpokenSurvey:
    """Survey rows of samples (a number stands for a recording) with transcripts, spoken by one letter each."""
    examples: list[Row] = [{"audio": [float(sound)], "text": text} for sound, text in content]
    for example, speaker in zip(examples, speakers, strict=False):
        example["speaker"] = speaker
    return survey_spoken(examples, others, seconds=None)


def test_a_file_is_read_only_where_another_has_its_size_and_then_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    content = spoken._content
    monkeypatch.setattr(spoken, "_content", lambda audio, place: read.append(Path(audio).name) or content(audio, place))
    examples = [{"audio": str(folder / name), "text": "x"} for name in ("a.wav", "long.wav", "a.wav", "other.wav", "empty.wav")]
    survey = survey_spoken(examples, {"test": [{"audio": str(folder / "again.wav"), "text": "x"}]}, seconds=None)
    assert sorted(read) == ["a.wav", "again.wav", "other.wav"]
    assert survey.leaks == {"test": 2}


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.wav: cannot be read \(No such file"):
        survey_spoken([{"audio": str(folder / "gone.wav"), "text": "x"}], {}, seconds=None)


def test_samples_of_another_type_are_the_same_recording() -> None:
    kinds = [[0, 1], [0.0, 1.0], np.array([0, 1], dtype=np.int16), np.array([0, 1], dtype=np.float32), np.array([0, 1.0])]
    examples = [{"audio": samples, "text": "x"} for samples in [*kinds, [1, 0]]]
    assert survey_spoken(examples, {}, seconds=None).counts["duplicates"] == len(kinds) - 1


def test_leaks_are_refused_with_their_number_the_first_row_and_what_to_do(folder: Path) -> None:
    rows = [{"audio": str(folder / name), "text": name} for name in ("long.wav", "a.wav", "other.wav")]
    refused = survey_spoken(rows, {"valid": rows[:1], "test": rows[1:]}, seconds=None).refused
    assert refused is not None
    assert "1 of them stand in data.valid too and 2 of them stand in data.test too" in refused
    assert f"row 1, {folder / 'long.wav'}" in refused
    assert "data.filter=true" in refused
    assert "data.allow_leaks=true" in refused


def test_without_leaks_nothing_is_refused_whatever_else_is_found() -> None:
    survey = survey_of((1, "a"), (1, "b"), (1, "a"), (2, ""), valid=[{"audio": [3.0], "text": "a"}])
    assert survey.refused is None
    assert set(survey.counts.values()) == {0, 1, 3}


def test_speakers_in_several_splits_are_warned_of_and_not_refused() -> None:
    valid, test = (
        [{"audio": [7.0], "text": "x", "speaker": "d"}],
        [{"audio": [8.0 + i], "text": "x", "speaker": s} for i, s in enumerate("bca")],
    )
    survey = survey_of((1, "a"), (2, "b"), (3, "c"), (4, "d"), speakers="abba", valid=valid, test=test)
    assert survey.speakers == {"a": 2, "b": 2}
    assert survey.speakers_others == {"valid": {"d": 1}, "test": {"b": 1, "c": 1, "a": 1}}
    assert survey.speakers_in_common == {"test": ["a", "b"]}
    assert survey.refused is None
    assert survey.keep.all()
    (warning,) = survey.to_json()["warnings"]
    assert warning.startswith("speakers in common with data.test: a, b;")


SPELLINGS = ["Nine!", "nine", "NINE", "nine nine", "six", "six", "...", "", "?"]


def test_transcripts_that_differ_in_case_and_punctuation_alone_are_told_of() -> None:
    survey = survey_of(*enumerate(SPELLINGS))
    assert survey.spelt_apart == survey.to_json()["spelt_apart"] == 3
    (warning,) = [line for line in survey.warnings if "case or punctuation" in line]
    assert "3 of 9 transcripts; task.transcripts=words" in warning
    assert survey.keep.all()


def test_transcripts_are_compared_as_they_are_normalised() -> None:
    examples = [{"audio": [1.0], "text": text} for text in ("Yes.", "yes", "no")]
    plain, words = (survey_spoken(examples, {}, seconds=None, normalise=NORMALISATIONS[name]) for name in ("none", "words"))
    assert (plain.counts["duplicates"], plain.spelt_apart, plain.characters["."]) == (0, 2, 1)
    assert (words.counts["duplicates"], words.spelt_apart, words.characters.get(".")) == (1, 0, None)
    assert not any("case or punctuation" in line for line in words.warnings)


def test_many_speakers_in_common_are_counted() -> None:
    letters = "abcdefghijklmnop"
    rows = [{"audio": [float(i)], "text": "x", "speaker": letter} for i, letter in enumerate(letters)]
    survey = survey_of(*((100 + i, "x") for i in range(len(letters))), speakers=letters, test=rows)
    assert f"{', '.join(letters[:MOST_NAMED])} and {len(letters) - MOST_NAMED} more;" in survey.warnings[0]


def test_without_speakers_there_is_nothing_to_warn_of() -> None:
    survey = survey_of((1, "a"), test=[{"audio": [2.0], "text": "x", "speaker": ""}])
    assert (survey.speakers, survey.warnings) == ({}, [])


@given(st.lists(st.text("ab ß好", max_size=5), min_size=1, max_size=5))
def test_characters_are_counted_the_commonest_first_and_those_that_occur_once_told(texts: list[str]) -> None:
    survey = survey_of(*enumerate(texts))
    expected = Counter(char for text in texts for char in text if char != " ")
    assert survey.characters == dict(expected)
    assert list(survey.characters.values()) == sorted(expected.values(), reverse=True)
    told = survey.to_json()["characters"]
    assert (told["different"], told["counts"]) == (len(expected), dict(expected))
    assert set(told["once"]) == {char for char, count in expected.items() if count == 1}


def test_what_is_told_of_characters_and_speakers_has_an_end() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(MOST_CHARACTERS + 9))
    examples = [{"audio": [float(i)], "text": text if not i else "", "speaker": f"s{i}"} for i in range(MOST_SPEAKERS + 2)]
    content = survey_spoken(examples, {}, seconds=None).to_json()
    assert (content["characters"]["different"], len(content["characters"]["counts"])) == (len(text), MOST_CHARACTERS)
    assert (content["characters"]["n_once"], len(content["characters"]["once"])) == (len(text), MOST_RARE)
    assert (content["speakers"]["different"], len(content["speakers"]["rows"])) == (len(examples), MOST_SPEAKERS)


def test_lengths_are_quantiles_over_rows_and_hours_their_sum() -> None:
    examples = [{"audio": [float(i)], "text": "two words" if i else "", "length": 2.0 * i} for i in range(5)]
    survey = survey_spoken(examples, {}, seconds=lambda example: example["length"])
    assert survey.lengths["audio_seconds"] == {"min": 0, "p5": 0, "median": 4, "p95": 8, "max": 8}
    assert survey.lengths["text_words"]["min"] == 2
    assert survey.seconds == 20
    content = survey.to_json()
    assert content["hours"] == round(20 / 3600, 4)
    unknown = survey_spoken(examples, {}, seconds=None).to_json()
    assert "hours" not in unknown
    assert "audio_seconds" not in unknown["lengths"]


def test_json_survives_a_round_trip() -> None:
    rows = [{"audio": [9.0], "text": "x", "speaker": "a"}]
    content = survey_of((1, "a"), (1, "b"), (9, "c"), speakers="aba", test=rows).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content["counts"]) == list(content["examples"]) == FAULTS
    assert (content["rows"], content["clean"]) == (3, 0)
