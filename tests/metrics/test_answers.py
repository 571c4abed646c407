"""Exact match and F1 of answers, against the algorithms of SQuAD's scripts, written anew here as their papers and scripts define them."""

import re
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.errors import DataError
from heed.metrics.answers import AnswerMetrics, match_v1, match_v2, words_of
from heed.metrics.intervals import bootstrap, paired_bootstrap
from heed.metrics.ratios import mean_score

WORDS = ["the", "The", "a", "an", "dog", "Dog.", "dogs", "1,000", "-", "“dog”", "naïve", "\u00a0", "then", "U.S."]
texts = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


def official_words(text: str) -> str:
    """Lower-case, drop ASCII punctuation, drop articles, fold white space: in this order, as the scripts do."""
    lowered = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", lowered).split())


def official_f1_v1(answer: str, reference: str) -> float:
    said, right = official_words(answer).split(), official_words(reference).split()
    same = sum((Counter(said) & Counter(right)).values())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(said), 1.0 * same / len(right)
    return (2 * precision * recall) / (precision + recall)


def official_f1_v2(answer: str, reference: str) -> float:
    said, right = official_words(answer).split(), official_words(reference).split()
    if len(said) == 0 or len(right) == 0:
        return int(said == right)
    return official_f1_v1(answer, reference)


def official_v2(answer: str, references: list[str]) -> tuple[float, float]:
    golds = [text for text in references if official_words(text)] or [""]
    exact = max(int(official_words(answer) == official_words(gold)) for gold in golds)
    return exact, max(official_f1_v2(answer, gold) for gold in golds)


@given(texts, st.lists(texts, min_size=1, max_size=4))
def test_matches_equal_those_of_the_script_of_squad_1(answer: str, references: list[str]) -> None:
    exact = max(int(official_words(answer) == official_words(one)) for one in references)
    assert match_v1(answer, references) == (exact, max(official_f1_v1(answer, one) for one in references))


@given(texts, st.lists(texts, max_size=4))
def test_matches_equal_those_of_the_script_of_squad_2(answer: str, references: list[str]) -> None:
    assert match_v2(answer, references) == official_v2(answer, references)


@given(st.lists(st.tuples(texts, st.lists(texts, max_size=3)), min_size=1, max_size=8))
def test_scores_of_a_set_are_the_means_the_scripts_print(rows: list[tuple[str, list[str]]]) -> None:
    metrics = AnswerMetrics()
    for number, (answer, references) in enumerate(rows):
        metrics.add(answer, references, context=number // 2)
    found = {name: score["value"] for name, score in metrics.scores(resamples=2).to_json().items() if isinstance(score, dict)}
    if all(references for _, references in rows):
        values = [match_v1(*row) for row in rows]
        assert found.keys() == {"exact_match", "f1"}
    else:
        values = [official_v2(*row) for row in rows]
        with_answer = [value for value, (_, references) in zip(values, rows, strict=True) if references]
        without = [value for value, (_, references) in zip(values, rows, strict=True) if not references]
        assert ("has_answer_f1" in found) == bool(with_answer)
        if with_answer:
            assert found["has_answer_exact_match"] == pytest.approx(np.mean([one[0] for one in with_answer]), abs=1e-4)
            assert found["has_answer_f1"] == pytest.approx(np.mean([one[1] for one in with_answer]), abs=1e-4)
        assert found["no_answer_exact_match"] == pytest.approx(np.mean([one[0] for one in without]), abs=1e-4)
    assert found["exact_match"] == pytest.approx(np.mean([one[0] for one in values]), abs=1e-4)
    assert found["f1"] == pytest.approx(np.mean([one[1] for one in values]), abs=1e-4)


def test_a_chinese_character_is_a_word_of_its_own_and_its_punctuation_does_not_count() -> None:
    assert words_of("北京 2008年 olympics") == ["北", "京", "2008", "年", "olympics"]
    assert match_v1("「北京」。", ["北京"]) == (1, 1)
    assert match_v1("在北京市", ["北京"]) == (0, pytest.approx(2 * (2 / 4) * 1 / (2 / 4 + 1)))


def test_where_no_question_has_an_answer_nothing_is_said_of_those_that_have() -> None:
    metrics = AnswerMetrics()
    metrics.add("", [], context=1, likeliest="a", lead=1.0, sure=0.5)
    found = metrics.scores(resamples=1).to_json()
    assert found["no_answer_exact_match"]["value"] == 1
    assert not [name for name in found if name.startswith("has_answer")]


def test_intervals_draw_whole_contexts() -> None:
    draw, metrics = np.random.default_rng(1), AnswerMetrics()
    contexts = [int(context) for context in draw.integers(0, 6, size=40)]
    for context in contexts:
        metrics.add("dog" if context % 2 else "cat", ["dog"], context=context)
    expected = bootstrap(metrics.statistics["exact_match"], mean_score, resamples=200, groups=contexts)
    found = metrics.scores(resamples=200)
    assert found.scores["exact_match"] == expected
    assert found.n_contexts == len(set(contexts))
    alone = bootstrap(metrics.statistics["exact_match"], mean_score, resamples=200)
    assert expected.high - expected.low > 1.5 * (alone.high - alone.low)


def test_two_systems_are_compared_by_contexts_that_are_drawn_for_both() -> None:
    systems = [AnswerMetrics(), AnswerMetrics()]
    contexts = [number % 5 for number in range(30)]
    for i, metrics in enumerate(systems):
        for number, context in enumerate(contexts):
            metrics.add("dog" if number % (3 + i) else "cat", ["dog"], context=context)
    found = systems[0].compare(systems[1])
    first, second = (metrics.statistics["f1"] for metrics in systems)
    assert found["f1"] == paired_bootstrap(first, second, mean_score, groups=contexts)
    assert found.keys() == {"exact_match", "f1"}


leads = st.sampled_from([-3.0, -1.0, -1.0, 0.0, 0.5, 2.0])
judged = st.tuples(st.sampled_from(["dog", "old dog", "cat"]), st.booleans(), leads)


@given(st.lists(judged, min_size=1, max_size=9))
def test_no_threshold_scores_better_than_the_fitted_one(rows: list[tuple[str, bool, float]]) -> None:
    metrics = AnswerMetrics()
    references = [["dog"] if has_answer else [] for _, has_answer, _ in rows]
    for (likeliest, _, lead), right in zip(rows, references, strict=True):
        metrics.add("", right, context=0, likeliest=likeliest, lead=lead)

    def f1_at(threshold: float) -> float:
        given = ["" if lead > threshold else likeliest for likeliest, _, lead in rows]
        return sum(official_v2(answer, right)[1] for answer, right in zip(given, references, strict=True))

    fitted = metrics.best_threshold()
    assert f1_at(fitted) == pytest.approx(max(f1_at(lead + step) for _, _, lead in rows for step in (-0.1, 0.1)))
    assert fitted not in {lead for _, _, lead in rows}


def test_mistakes_share_nothing_with_a_reference_and_the_surest_comes_first() -> None:
    metrics = AnswerMetrics()
    for answer, sure in (("cat", 0.2), ("old dog", 0.9), ("cow", 0.7), ("dog", 0.1)):
        metrics.add(answer, ["dog"], context=0, sure=sure)
    assert metrics.mistakes().tolist() == [2, 0]
    assert metrics.qualities().tolist() == [0, pytest.approx(2 / 3), 0, 1]


def test_nothing_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="no questions to score"):
        AnswerMetrics().scores()
