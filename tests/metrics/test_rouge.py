"""ROUGE against the package's own on English, against a definition on Chinese, and by prefix."""

from collections import Counter

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from heed.errors import DataError, MissingExtra
from heed.metrics.rouge import ROUGE, Rouge, rouge_words
from heed.metrics.text_to_text import SCORE_FUNCTIONS, TextToTextMetrics
from heed.metrics.translation import TranslationMetrics

rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")

ENGLISH = [
    ("The cat sat on the mat.", "The cat, sat; on a Mat!"),
    ("Police killed the gunman", "the gunman police killed"),
    ("In 1984 it cost $3.50 -- or less", "it cost 3 50 in 1984"),
    ("snake_case and it's", "snake case and it s"),
    ("", "nothing was answered"),
    ("...", "only marks were"),
    ("a a a b", "a b b a"),
]
CHINESE = [("今天天气很好。", "今天的天气不好！"), ("我在2024年去北京", "2024年 我 去 了 北京"), ("猫", "狗")]


def f1(matched: int, n_hypothesis: int, n_reference: int) -> float:
    return 2 * matched / (n_hypothesis + n_reference) if n_hypothesis and n_reference else 0.0


def overlap(hypothesis: list[str], reference: list[str], n: int) -> float:
    ours, theirs = (Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (hypothesis, reference))
    return f1((ours & theirs).total(), ours.total(), theirs.total())


def common(left: list[str], right: list[str]) -> int:
    if not left or not right:
        return 0
    return max(
        common(left[1:], right[1:]) + 1 if left[0] == right[0] else 0,
        common(left[1:], right) if left[0] != right[0] else 0,
        common(left, right[1:]) if left[0] != right[0] else 0,
    )


@pytest.mark.parametrize(("hypothesis", "reference"), ENGLISH)
def test_english_scores_are_the_packages_own(hypothesis: str, reference: str) -> None:
    own = rouge_scorer.RougeScorer(list(ROUGE)).score(reference, hypothesis)
    assert Rouge(ROUGE).f1(hypothesis, reference) == [own[name].fmeasure for name in ROUGE]


@pytest.mark.parametrize(("hypothesis", "reference"), CHINESE)
def test_chinese_scores_are_those_of_characters(hypothesis: str, reference: str) -> None:
    # Numbers stay whole; every other letter here is a character by itself.
    ours, theirs = (text.replace("2024", " # ").replace("。", "").replace("！", "") for text in (hypothesis, reference))
    cut = [[one for one in text if one != " "] for text in (ours, theirs)]
    expected = [overlap(*cut, 1), overlap(*cut, 2), f1(common(*cut), len(cut[0]), len(cut[1]))]
    assert Rouge(ROUGE).f1(hypothesis, reference) == pytest.approx(expected)


def test_words_are_of_any_script_and_vowel_signs_stay_in_them() -> None:
    assert rouge_words("Größe, naïve Café") == ["größe", "naïve", "café"]
    assert rouge_words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert rouge_words("東京タワー and 서울") == ["東", "京", "タ", "ワ", "ー", "and", "서울"]


def test_the_score_of_a_set_is_the_mean_over_its_texts() -> None:
    metrics = TextToTextMetrics(["rougeL", "rouge1"])
    hypotheses, references = zip(*ENGLISH, strict=True)
    metrics.add([""] * len(ENGLISH), hypotheses, hypotheses, references)
    found = metrics.scores(resamples=50).to_json()
    single = [Rouge(["rougeL", "rouge1"]).f1(*pair) for pair in ENGLISH]
    assert [found["rougeL"]["value"], found["rouge1"]["value"]] == pytest.approx(np.mean(single, axis=0).tolist(), abs=1e-4)
    assert found["rougeL"]["low"] < found["rougeL"]["value"] < found["rougeL"]["high"]
    assert list(metrics.qualities()) == [one[1] for one in single]  # of the last name


def test_each_prefix_has_the_scores_its_rows_would_have_alone() -> None:
    names = list(SCORE_FUNCTIONS)
    rows = [("sum:", *pair) for pair in ENGLISH] + [("class:", "yes", "yes"), ("class:", "no", "yes"), ("class:", "no", "no")]
    together = TextToTextMetrics(names, "en")
    for start in range(0, len(rows), 4):  # in batches that mix both
        prefixes, hypotheses, references = zip(*rows[start : start + 4], strict=True)
        together.add(prefixes, ["x"] * len(prefixes), hypotheses, references)
    found = {one["prefix"]: one for one in together.scores(resamples=50).to_json()["by_prefix"]}
    assert list(found) == ["sum:", "class:"]
    for prefix, one in found.items():
        alone = TextToTextMetrics(names, "en")
        chosen = [row for row in rows if row[0] == prefix]
        alone.add([prefix] * len(chosen), ["x"] * len(chosen), [row[1] for row in chosen], [row[2] for row in chosen])
        expected = alone.scores(resamples=50).to_json()
        assert one["n"] == len(chosen)
        assert "by_prefix" not in expected  # one prefix is all
        same = [name for name in names if name != "bleu" or prefix == "sum:"]  # which alone has answers of four words
        assert {name: one[name] for name in same} == {name: expected[name] for name in same}
    assert found["class:"]["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        (["yes", "no", "no"], ["yes", "no", "no"]),
        (["yes", "no", "no"], ["yes", "yes", "no"]),
        (["big dog", "a", "one old tree"], ["big dog", "a dog", "an old tree"]),
        (["x", "y z"], ["a", "b"]),
        (["", ""], ["a", "b"]),
        (["a b c d e", "a"], ["a b c d f", "a"]),
    ],
)
def test_the_bleu_of_a_prefix_is_that_of_sacrebleu_with_effective_order_over_all_its_answers(
    hypotheses: list[str], references: list[str]
) -> None:
    metrics = TextToTextMetrics(["bleu"], "en")
    metrics.add(["one:"] * len(hypotheses), hypotheses, hypotheses, references)
    metrics.add(["other:"], ["x"], ["x"], ["x"])
    first, other = metrics.scores(resamples=20).to_json()["by_prefix"]
    expected = BLEU(effective_order=True).corpus_score(hypotheses, [references]).score
    assert first["bleu"]["value"] == pytest.approx(expected, abs=1e-3)
    assert other["bleu"]["value"] == pytest.approx(100, abs=1e-3)


def test_bleu_and_chrf_are_those_of_translations_and_signed() -> None:
    hypotheses, references = zip(*ENGLISH, strict=True)
    ours, theirs = TextToTextMetrics(["chrf", "bleu"], "de"), TranslationMetrics("de")
    ours.add([""] * len(ENGLISH), hypotheses, hypotheses, references)
    theirs.add(hypotheses, hypotheses, references)
    found, expected = ours.scores(resamples=50).to_json(), theirs.scores(resamples=50).to_json()
    assert {name: found[name] for name in ("bleu", "chrf")} == {name: expected[name] for name in ("bleu", "chrf")}
    assert found["signatures"] == {name: expected["signatures"][name] for name in ("bleu", "chrf")}
    assert list(ours.qualities()) == list(theirs.qualities())


def test_only_scores_that_were_asked_for_are_given() -> None:
    metrics = TextToTextMetrics(["accuracy"], "en")
    metrics.add(["", ""], ["x", "y"], ["a", "b"], ["a", "c"])
    found = metrics.scores(resamples=10).to_json()
    assert found["accuracy"]["value"] == 0.5
    assert found.keys() == {"accuracy", "n", "signatures"}


def test_a_comparison_pairs_every_score() -> None:
    a, b = TextToTextMetrics(["rouge2", "accuracy"], "en"), TextToTextMetrics(["rouge2", "accuracy"], "en")
    references = [f"the {n} cat sat" for n in range(40)]
    a.add([""] * 40, references, references, references)
    b.add([""] * 40, references, [text[::-1] for text in references], references)
    tests = a.compare(b, resamples=50)
    assert tests.keys() == {"rouge2", "accuracy"}
    assert all(test.difference.value == -1 and test.p_value < 0.05 for test in tests.values())


def test_nothing_to_score_is_said() -> None:
    with pytest.raises(DataError, match="nothing to score"):
        TextToTextMetrics(["rouge1"]).scores()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(MissingExtra, match="pip install rouge-score"):
        TextToTextMetrics(["rouge1"])
    TextToTextMetrics(["bleu"])
