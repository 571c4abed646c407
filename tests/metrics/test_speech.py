"""Scores of transcripts, held against jiwer, a table of edit distances, and the bootstrap of the exposed counts."""

import gc
import json
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heed.errors import DataError, MissingExtra
from heed.metrics import bootstrap, paired_bootstrap
from heed.metrics import speech as speech_metrics
from heed.metrics.speech import COMPARED, MOST_CONFUSED, MOST_SPEAKERS, SPEECH_FUNCTIONS, SpeechMetrics, SpeechScores, error_rate

sentences = st.lists(st.sampled_from(["on", "of", "the", "light", "a", "é"]), max_size=7).map(" ".join)
pairs = st.lists(st.tuples(sentences, sentences), min_size=1, max_size=9)


def folded(text: str) -> str:
    return " ".join(text.split())


def metrics_of(answers: Sequence[tuple[str, str]], **more: Any) -> SpeechMetrics:
    """Count pairs of a hypothesis and a reference."""
    metrics = SpeechMetrics("none", folded)
    metrics.add([heard for heard, _ in answers], [said for _, said in answers], **more)
    return metrics


def score(answers: Sequence[tuple[str, str]], **more: Any) -> SpeechScores:
    return metrics_of(answers, **more).scores(resamples=20)


def distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Fill the table of edit distances row by row."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def spoken(n: int, n_speakers: int, *, seed: int, wrong: float = 0.2) -> tuple[list[tuple[str, str]], list[str]]:
    """Make n utterances of speakers who are not equally clear: (hypothesis, reference), speaker."""
    draw = random.Random(seed)
    answers, speakers = [], []
    for i in range(n):
        speaker = i % n_speakers
        said = [draw.choice("abcdefgh") * 2 for _ in range(draw.randint(1, 12))]
        heard = [draw.choice("abcdefgh") if draw.random() < wrong * (1 + speaker / 2) else word for word in said]
        answers.append((" ".join(heard), " ".join(said)))
        speakers.append(f"speaker{speaker}")
    return answers, speakers


@settings(deadline=None)
@given(pairs)
def test_error_rates_are_those_of_jiwer(answers: list[tuple[str, str]]) -> None:
    found = score(answers)
    heard, said = [one for one, _ in answers], [other for _, other in answers]
    words, characters = jiwer.process_words(said, heard), jiwer.process_characters(said, heard)
    assert found.scores["wer"].value == pytest.approx(words.wer, abs=1e-12)
    assert found.scores["cer"].value == pytest.approx(characters.cer, abs=1e-12)
    assert found.scores["recognition_accuracy"].value == pytest.approx(1 - words.wer, abs=1e-12)
    assert (found.errors["substitutions"], found.errors["insertions"], found.errors["deletions"]) == (
        words.substitutions,
        words.insertions,
        words.deletions,
    )
    assert found.errors["words"] == sum(len(text.split()) for text in said)


@settings(deadline=None)
@given(pairs)
def test_the_errors_of_every_utterance_are_its_edit_distance(answers: list[tuple[str, str]]) -> None:
    statistics = metrics_of(answers).statistics
    for kind, cut in (("wer", str.split), ("cer", list)):
        expected = [distance(cut(said), cut(heard)) for heard, said in answers]
        assert statistics[kind][:, :3].sum(axis=1).tolist() == expected
    right = sum(heard.split() == said.split() for heard, said in answers)
    assert statistics["sentence_accuracy"].sum(axis=0).tolist() == [right, len(answers)]


def test_two_errors_among_four_words_are_a_rate_of_a_half() -> None:
    found = score([("turn off light", "turn on the light")])
    assert found.scores["wer"].value == 2 / 4
    assert found.errors == {"substitutions": 1, "insertions": 0, "deletions": 1, "words": 4}


def test_more_words_than_were_said_take_the_rate_above_one_and_the_accuracy_below_zero() -> None:
    found = score([("one two three four", "one")])
    assert found.scores["wer"].value == 3
    assert found.scores["recognition_accuracy"].value == -2
    assert found.errors["insertions"] == 3


def test_words_heard_in_silence_count_as_insertions() -> None:
    found = score([("", ""), ("so much", ""), ("a b", "a b")])
    assert found.scores["wer"].value == 2 / 2
    assert found.scores["sentence_accuracy"].value == pytest.approx(2 / 3)
    assert [(bucket.name, bucket.n) for bucket in found.buckets] == [("0", 2), ("1-2", 1)]


def test_without_a_word_in_any_reference_the_rate_is_the_number_of_insertions() -> None:
    assert score([("", "")]).scores["wer"].value == 0
    found = score([("so much", ""), ("", "")])
    assert found.scores["wer"].value == 2
    assert found.scores["cer"].value == len("so much")
    assert found.scores["sentence_accuracy"].value == 0.5
    assert np.isfinite(metrics_of([("so much", ""), ("", "")]).qualities()).all()


def test_chinese_and_japanese_characters_are_words() -> None:
    assert score([("你好世间", "你好世界")]).scores["wer"].value == 1 / 4
    assert score([("东 京", "东京")]).scores["sentence_accuracy"].value == 1
    assert score([("東京タワ", "東京タワー")]).errors == {"substitutions": 0, "insertions": 0, "deletions": 1, "words": 5}
    mixed = score([("我们用 GPU 练", "我们用GPU 训练")])
    assert (mixed.errors["words"], mixed.errors["deletions"]) == (6, 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("你好世界", max_size=6), st.text("你好世界", max_size=6)), min_size=1, max_size=5))
def test_chinese_word_error_rates_are_those_of_jiwer_on_parted_characters(answers: list[tuple[str, str]]) -> None:
    expected = jiwer.process_words([" ".join(said) for _, said in answers], [" ".join(heard) for heard, _ in answers])
    assert score(answers).scores["wer"].value == pytest.approx(expected.wer, abs=1e-12)


def test_texts_are_compared_as_the_normalisation_leaves_them() -> None:
    metrics = SpeechMetrics("lower", str.lower)
    metrics.add(["Turn ON"], ["turn on"])
    found = metrics.scores(resamples=5)
    assert (found.normalisation, found.scores["wer"].value, found.scores["cer"].value) == ("lower", 0, 0)
    assert score([("Turn ON", "turn on")]).scores["wer"].value == 1


def test_confused_words_are_counted_with_nothing_in_place_of_what_is_missing() -> None:
    answers = [("turn off light", "turn on the light"), ("turn off the light please", "turn on the light"), ("the light", "the light")]
    assert score(answers).confused == [("on", "off", 2), ("the", "", 1), ("", "please", 1)]


@settings(deadline=None)
@given(pairs)
def test_every_error_stands_in_one_confused_pair(answers: list[tuple[str, str]]) -> None:
    found = score(answers)
    counted = Counter[str]()
    for said, heard, count in found.confused:
        assert said != heard
        counted["substitutions" if said and heard else "deletions" if said else "insertions"] += count
    if len(found.confused) < MOST_CONFUSED:
        assert {name: counted[name] for name in ("substitutions", "insertions", "deletions")} == {
            name: count for name, count in found.errors.items() if name != "words"
        }


def test_the_commonest_confusions_outlive_the_limit_on_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_metrics, "PAIRS_KEPT", 8)
    often = [("off", "on")] * 5
    rare = [(f"x{i}", f"y{i}") for i in range(40)]
    metrics = metrics_of([*often, *rare])
    assert len(metrics._confused) <= 8
    assert metrics.scores(resamples=5).confused[0] == ("on", "off", 5)


def test_any_split_into_batches_gives_the_same_scores() -> None:
    answers, speakers = spoken(23, 6, seed=1)
    seconds = [0.1 * i for i in range(23)]
    whole = metrics_of(answers, groups=speakers, seconds=seconds)
    parts = SpeechMetrics("none", folded)
    for start, end in ((0, 1), (1, 9), (9, 9), (9, 23)):
        heard, said = [one for one, _ in answers[start:end]], [other for _, other in answers[start:end]]
        parts.add(heard, said, groups=speakers[start:end], seconds=seconds[start:end])
    assert parts.scores(resamples=20) == whole.scores(resamples=20)


@pytest.mark.parametrize(("n_speakers", "by"), [(4, "utterances"), (5, "speakers")])
def test_intervals_are_the_bootstrap_over_speakers_where_there_are_enough(n_speakers: int, by: str) -> None:
    answers, speakers = spoken(40, n_speakers, seed=2)
    metrics = metrics_of(answers, groups=speakers)
    found = metrics.scores(resamples=100, seed=7)
    assert found.intervals_by == by
    groups = speakers if by == "speakers" else None
    for name, rows in metrics.statistics.items():
        assert found.scores[name] == bootstrap(rows, SPEECH_FUNCTIONS[name], resamples=100, seed=7, groups=groups)


def test_utterances_of_unknown_speakers_stand_for_themselves() -> None:
    answers, speakers = spoken(30, 5, seed=3)
    speakers[4::6] = [""] * len(speakers[4::6])
    metrics = metrics_of(answers, groups=speakers)
    found = metrics.scores(resamples=100)
    alone = [speaker or f"row {i}" for i, speaker in enumerate(speakers)]
    assert found.intervals_by == "speakers"
    assert found.scores["wer"] == bootstrap(metrics.statistics["wer"], error_rate, resamples=100, groups=alone)
    assert {portion.name for portion in found.by_speaker} == set(speakers) - {""}
    assert metrics_of(answers).scores(resamples=5).intervals_by == "utterances"


def test_speakers_come_worst_first_each_with_the_scores_of_its_own_utterances() -> None:
    answers, speakers = spoken(60, MOST_SPEAKERS + 4, seed=4)
    found = metrics_of(answers, groups=speakers).scores(resamples=30, seed=5)
    alone = {}
    for name in set(speakers):
        own = [answer for answer, speaker in zip(answers, speakers, strict=True) if speaker == name]
        alone[name] = (len(own), metrics_of(own).scores(resamples=30, seed=5).scores["wer"])
    assert {portion.name: (portion.n, portion.wer) for portion in found.by_speaker}.items() <= alone.items()
    rates = [portion.wer.value for portion in found.by_speaker]
    assert rates == sorted((wer.value for _, wer in alone.values()), reverse=True)[:MOST_SPEAKERS]


def test_buckets_go_by_the_words_of_the_reference() -> None:
    lengths = [0, 1, 2, 3, 5, 6, 10, 11, 20, 21, 40]
    found = score([("a", " ".join(["a"] * n)) for n in lengths])
    assert [(bucket.name, bucket.n) for bucket in found.buckets] == [
        ("0", 1),
        ("1-2", 2),
        ("3-5", 2),
        ("6-10", 2),
        ("11-20", 2),
        ("21+", 2),
    ]
    assert [bucket.wer.value for bucket in found.buckets] == [1, 1 / 3, 6 / 8, 14 / 16, 29 / 31, 59 / 61]
    assert [bucket.name for bucket in score([("x", "你好你好")]).buckets] == ["3-5"]


def test_qualities_rank_utterances_by_their_own_error_rate() -> None:
    qualities = metrics_of([("a b", "a b"), ("a", "a b"), ("x y z", "a"), ("", ""), ("x", "")]).qualities()
    assert qualities.tolist() == [100, 50, -200, 100, 0]


def test_systems_are_compared_on_the_same_resamples_of_speakers() -> None:
    answers, speakers = spoken(50, 6, seed=6)
    worse = [(f"{heard} oh", said) for heard, said in answers]
    a, b = metrics_of(answers, groups=speakers), metrics_of(worse, groups=speakers)
    found = a.compare(b, resamples=100, seed=3)
    assert list(found) == list(COMPARED)
    for name, test in found.items():
        rows_a, rows_b = a.statistics[name], b.statistics[name]
        assert test == paired_bootstrap(rows_a, rows_b, SPEECH_FUNCTIONS[name], resamples=100, seed=3, groups=speakers)
    assert found["wer"].difference.value > 0 > found["sentence_accuracy"].difference.value
    assert a.compare(a, resamples=20)["wer"].p_value == 1


def test_systems_with_other_texts_or_normalisations_are_not_compared() -> None:
    metrics = metrics_of([("a", "a")])
    with pytest.raises(DataError, match="normalise both alike"):
        metrics.compare(SpeechMetrics("lower", str.lower))
    with pytest.raises(DataError, match="same examples"):
        metrics.compare(metrics_of([("a", "a"), ("b", "b")]))


def test_json_has_every_score_at_the_top_and_survives_a_round_trip() -> None:
    answers, speakers = spoken(12, 5, seed=8)
    content = score(answers, groups=speakers, seconds=[1.5] * 12).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content)[:4] == ["wer", "cer", "recognition_accuracy", "sentence_accuracy"] == list(SPEECH_FUNCTIONS)
    assert content["seconds"] == 18
    assert content["n"] == sum(bucket["n"] for bucket in content["buckets"]) == 12
    assert set(content["buckets"][0]) == {"length", "n", "wer"}
    assert set(content["by_speaker"][0]) == {"speaker", "n", "wer"}
    assert set(content["confused"][0]) == {"reference", "hypothesis", "count"}
    assert "seconds" not in score(answers).to_json()


def test_the_seed_fixes_the_intervals() -> None:
    metrics = metrics_of(spoken(40, 1, seed=9)[0])
    assert metrics.scores(seed=1) == metrics.scores(seed=1)
    assert metrics.scores(seed=1).scores != metrics.scores(seed=2).scores


def test_nothing_to_score_is_refused() -> None:
    metrics = SpeechMetrics("none", folded)
    metrics.add([], [])
    with pytest.raises(DataError, match="no utterances"):
        metrics.scores()


@pytest.mark.parametrize("more", [{"groups": ["a"]}, {"seconds": [1.0, 2.0, 3.0]}, {}])
def test_batches_of_unequal_length_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="one of each per utterance"):
        SpeechMetrics("none", folded).add(["a", "b"] if more else ["a"], ["a", "b"], **more)


def test_without_jiwer_the_extra_is_named_before_anything_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingExtra, match=r"jiwer.*extra 'speech'"):
        SpeechMetrics("none", folded)


def test_texts_do_not_outlive_their_batch() -> None:
    metrics = metrics_of([("a", "b")])  # the first call loads what stays loaded
    tracemalloc.start()
    for n in range(4):
        line = f"{n} " + "long " * 2000
        metrics.add([line], [line])
    del line
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 8000  # bytes, less than one of the lines
    assert metrics.statistics["wer"].shape == (5, 4)
