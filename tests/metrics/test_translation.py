import gc
import json
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from heed.errors import DataError, MissingExtra
from heed.metrics import SCORE_FUNCTIONS, TranslationMetrics, TranslationScores, bootstrap, detect_language, paired_bootstrap
from heed.metrics.translation import DETECT_ROWS

SCALED = ("bleu", "chrf", "ter")

ENGLISH = ["The cat sat on the mat.", "It's 3.5 km, isn't it?", "A dog runs through the park today.", "Yes."]
GERMAN = ["Die Katze saß auf der Matte.", "Es sind 3,5 km, nicht wahr?", "Ein Hund läuft heute durch den Park.", "Ja."]
CHINESE = ["厕所在哪里？", "你昨天发生了什么事？", "我们用 PyTorch 训练 Transformer 模型。", "好。"]
JAPANESE = ["お手洗いはどこですか。", "昨日は何があったのですか?", "東京は日本の首都です。", "はい。"]
KOREAN = ["화장실이 어디예요?", "어제 무슨 일이 있었어요?", "서울은 한국의 수도입니다.", "네."]


def score(hypotheses: Sequence[str], references: Sequence[str], language: str | None = None) -> TranslationScores:
    metrics = TranslationMetrics(language)
    metrics.add(references, hypotheses, references)
    return metrics.scores(resamples=20)


def damaged(lines: Sequence[str], *, seed: int, pieces: str = " ") -> list[str]:
    """Drop, double and move some words, or some characters when `pieces` is empty."""
    draw = random.Random(seed)
    result = []
    for line in lines:
        units = line.split(pieces) if pieces else list(line)
        units = [unit for unit in units for _ in range(draw.choice((0, 1, 1, 1, 1, 1, 2)))]
        if len(units) > 2 and draw.random() < 0.5:
            units.insert(draw.randrange(len(units)), units.pop())
        result.append(pieces.join(units))
    return result


def assert_equal_to_sacrebleu(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str, language: str | None) -> None:
    found = score(hypotheses, references, language).scores
    expected = {
        "bleu": sacrebleu.corpus_bleu(hypotheses, [references], tokenize=tokenizer).score,
        "chrf": sacrebleu.corpus_chrf(hypotheses, [references]).score,
        "ter": sacrebleu.corpus_ter(hypotheses, [references]).score,
    }
    assert {name: found[name].value for name in SCALED} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("references", "tokenizer", "language", "pieces"),
    [
        (GERMAN, "13a", None, " "),
        (GERMAN, "13a", "de", " "),
        (CHINESE, "zh", None, ""),
        (CHINESE, "zh", "zh-CN", ""),
        (JAPANESE, "ja-mecab", None, ""),
        (JAPANESE, "ja-mecab", "jpn", ""),
        (KOREAN, "char", None, ""),
        (KOREAN, "char", "ko_KR", ""),
    ],
)
def test_corpus_scores_equal_sacrebleu(references: list[str], tokenizer: str, language: str | None, pieces: str) -> None:
    for seed in range(5):
        hypotheses = damaged(references, seed=seed, pieces=pieces)
        assert_equal_to_sacrebleu(hypotheses, references, tokenizer, language)


SENTENCES = st.lists(st.sampled_from(["a", "b", "c", "Na ja,", "3.5", "&amp;", "…", "\n", "\x85", "ß", "好"]), max_size=9).map(" ".join)


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_corpus_scores_equal_sacrebleu_on_random_text_with_empty_sides(pairs: list[tuple[str, str]]) -> None:
    assert_equal_to_sacrebleu([pair[0] for pair in pairs], [pair[1] for pair in pairs], "13a", "de")


@pytest.mark.parametrize(
    ("name", "tokenizer", "pieces"), [("multi30k/test_2016_flickr.de", "13a", " "), ("tatoeba_zh_en/val.tsv", "zh", "")]
)
def test_corpus_scores_equal_sacrebleu_on_real_text(shared_data: Path, name: str, tokenizer: str, pieces: str) -> None:
    lines = (shared_data / name).read_text(encoding="utf-8").splitlines()[1:121]
    references = [line.split("\t")[0] for line in lines]
    assert_equal_to_sacrebleu(damaged(references, seed=0, pieces=pieces), references, tokenizer, None)


def test_score_functions_equal_sacrebleu_on_every_row() -> None:
    metrics = TranslationMetrics("de")
    metrics.add(ENGLISH * 5, damaged(GERMAN * 5, seed=1), GERMAN * 5)
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())):
        rows = metrics.statistics[name]
        expected = [metric._compute_score_from_stats(row.tolist()).score for row in rows]
        np.testing.assert_allclose(SCORE_FUNCTIONS[name](rows.astype(np.float64)), expected, rtol=0, atol=1e-9)


def test_a_perfect_system_has_every_perfect_score() -> None:
    found = score(GERMAN, GERMAN, "de").scores
    perfect = {"bleu": 100, "chrf": 100, "ter": 0, "exact_match": 1, "overlap_precision": 1, "overlap_recall": 1, "overlap_f1": 1}
    assert list(found) == list(perfect)
    assert {name: value.value for name, value in found.items()} == pytest.approx(perfect, abs=1e-9)
    assert all(value.low == value.high for value in found.values())


def test_bleu_of_a_perfect_corpus_without_four_grams_is_what_sacrebleu_says() -> None:
    assert score(["好。"], ["好。"]).scores["bleu"].value == sacrebleu.corpus_bleu(["好。"], [["好。"]], tokenize="zh").score == 0
    assert score(CHINESE, CHINESE).scores["bleu"].value == pytest.approx(100, abs=1e-9)


def test_overlap_is_clipped_and_uses_the_tokens_of_bleu() -> None:
    found = score(["the the the cat.", ""], ["The cat, the cat.", "dog"], "en").scores
    hypothesis = Counter(["the", "the", "the", "cat", "."])
    reference = Counter(["The", "cat", ",", "the", "cat", ".", "dog"])
    matched = (hypothesis & reference).total()
    assert found["overlap_precision"].value == pytest.approx(matched / hypothesis.total())
    assert found["overlap_recall"].value == pytest.approx(matched / reference.total())
    assert found["overlap_f1"].value == pytest.approx(2 * matched / (hypothesis.total() + reference.total()))


def test_exact_match_ignores_white_space_around_but_not_inside() -> None:
    assert score([" a b\n", "a  b", "a B"], ["a b", "a b", "a b"], "en").scores["exact_match"].value == pytest.approx(1 / 3)


@pytest.mark.parametrize(("hypothesis", "reference", "ter"), [("", "a b", 100), ("a b", "", 100), ("", "", 0)])
def test_empty_sides_score_zero_and_never_nan(hypothesis: str, reference: str, ter: float) -> None:
    found = score([hypothesis], [reference])
    values = {name: value.value for name, value in found.scores.items()}
    exact = float(hypothesis == reference)
    assert values == {**dict.fromkeys(values, 0.0), "ter": ter, "exact_match": exact}
    assert [bucket.length for bucket in found.buckets] == (["1-5"] if reference else ["0"])


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="no sentences to score"):
        TranslationMetrics().scores()


def test_statistics_of_nothing_have_no_rows() -> None:
    assert TranslationMetrics().statistics["bleu"].shape == (0, 10)


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(DataError, match="1 sources, 2 hypotheses and 1 references"):
        TranslationMetrics().add(["a"], ["a", "b"], ["a"])


@pytest.mark.parametrize("language", [None, "zh"])
def test_any_split_into_batches_gives_the_same_scores(language: str | None) -> None:
    # Only past the first 200 does Chinese appear, so a language guessed from whole batches would differ between the splits.
    references = ["Dies ist ein Satz ."] * DETECT_ROWS + CHINESE * 100
    hypotheses = damaged(references, seed=2, pieces="")

    def scored(step: int) -> TranslationScores:
        metrics = TranslationMetrics(language)
        for start in range(0, len(references), step):
            part = slice(start, start + step)
            metrics.add(references[part], hypotheses[part], references[part])
        return metrics.scores(resamples=10)

    whole = scored(len(references))
    assert ("tok:zh" if language else "tok:13a") in whole.signatures["bleu"]
    assert scored(7) == whole
    assert scored(DETECT_ROWS + 1) == whole


@pytest.mark.parametrize(
    ("lines", "language"),
    [
        (ENGLISH, None),
        (CHINESE, "zh"),
        (JAPANESE, "ja"),
        (KOREAN, "ko"),
        (["Das Zeichen 好 heißt gut und wird viel benutzt."], None),
        (["用 PyTorch 和 CUDA 训练 Transformer"], "zh"),
        (["カタカナ", "ｶﾀｶﾅ"], "ja"),
        (["Привет, мир", "مرحبا", "สวัสดี"], None),
        (["12 + 5 = 17", "", "…"], None),
        ([], None),
    ],
)
def test_the_language_is_told_by_script(lines: list[str], language: str | None) -> None:
    assert detect_language(lines) == language


@pytest.mark.parametrize("module", ["MeCab", "ipadic"])
def test_japanese_without_mecab_names_the_extra(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"extra 'japanese'"):
        TranslationMetrics("ja")
    waiting = TranslationMetrics()
    waiting.add(JAPANESE, JAPANESE, JAPANESE)
    with pytest.raises(MissingExtra, match=r"extra 'japanese'"):
        waiting.scores()


def test_signatures_are_those_of_sacrebleu() -> None:
    metric = BLEU(tokenize="zh")
    metric.corpus_score(CHINESE, [CHINESE])
    signatures = score(CHINESE, CHINESE).signatures
    assert signatures["bleu"] == str(metric.get_signature())
    assert list(signatures) == list(SCALED)
    assert all(f"version:{sacrebleu.__version__}" in signature for signature in signatures.values())


def test_buckets_score_the_sentences_of_each_source_length() -> None:
    sources = ["w " * n for n in (0, 1, 5, 6, 10, 11, 20, 21, 40, 41, 300)]
    references = [f"Satz {n} ist nicht sehr lang , aber lang genug ." for n in range(len(sources))]
    hypotheses = damaged(references, seed=3)
    metrics = TranslationMetrics("de")
    metrics.add(sources, hypotheses, references)
    buckets = metrics.scores(resamples=50).buckets
    assert [(bucket.length, bucket.n) for bucket in buckets] == [("0", 1), ("1-5", 2), ("6-10", 2), ("11-20", 2), ("21-40", 2), ("41+", 2)]
    assert buckets[2].bleu.value == pytest.approx(sacrebleu.corpus_bleu(hypotheses[3:5], [references[3:5]]).score, abs=1e-9)
    assert all(bucket.bleu.low <= bucket.bleu.value <= bucket.bleu.high for bucket in buckets)


def test_source_length_counts_characters_where_there_are_no_spaces() -> None:
    metrics = TranslationMetrics("en")
    metrics.add(["你好，世界", "你好，世界。", "東京タワーの高さは何メートルですか"], ["x"] * 3, ["x"] * 3)
    assert [(bucket.length, bucket.n) for bucket in metrics.scores(resamples=5).buckets] == [("1-5", 1), ("6-10", 1), ("11-20", 1)]


def test_json_has_every_score_at_the_top_and_survives_a_round_trip() -> None:
    content = score(damaged(GERMAN, seed=4), GERMAN).to_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert list(content) == [*SCORE_FUNCTIONS, "n", "signatures", "buckets"]
    assert set(content["chrf"]) == {"value", "low", "high"}
    assert content["chrf"]["value"] == round(content["chrf"]["value"], 4)
    assert content["n"] == sum(bucket["n"] for bucket in content["buckets"]) == 4
    assert set(content["buckets"][0]) == {"length", "n", "bleu"}


def test_scores_are_the_bootstrap_of_the_exposed_statistics() -> None:
    metrics = TranslationMetrics("de")
    metrics.add(ENGLISH * 4, damaged(GERMAN * 4, seed=5), GERMAN * 4)
    found = metrics.scores(resamples=100, seed=7).scores
    for name, rows in metrics.statistics.items():
        assert bootstrap(rows, SCORE_FUNCTIONS[name], resamples=100, seed=7) == found[name]


def test_the_seed_fixes_the_intervals() -> None:
    metrics = TranslationMetrics("de")
    metrics.add(ENGLISH * 9, damaged(GERMAN * 9, seed=6), GERMAN * 9)
    assert metrics.scores(seed=1) == metrics.scores(seed=1)
    assert metrics.scores(seed=1).scores != metrics.scores(seed=2).scores


def test_the_exposed_statistics_tell_a_better_system_from_a_worse_one_and_two_alike_not() -> None:
    references = [f"Satz Nummer {n} ist etwas länger als der davor ." for n in range(120)]
    systems = []
    for seed, lines in ((7, references), (8, references), (9, damaged(references, seed=10))):
        metrics = TranslationMetrics("de")
        metrics.add(references, damaged(lines, seed=seed), references)
        systems.append(metrics.statistics)
    first, alike, worse = systems
    for name in SCALED:
        assert paired_bootstrap(first[name], worse[name], SCORE_FUNCTIONS[name], resamples=300).p_value < 0.01
        assert paired_bootstrap(first[name], alike[name], SCORE_FUNCTIONS[name], resamples=300).p_value > 0.05


@pytest.mark.parametrize(("language", "letter"), [("de", "x"), ("zh", "好"), ("ja", "文"), ("ko", "말")])
def test_texts_do_not_outlive_their_batch(language: str, letter: str) -> None:
    metrics = TranslationMetrics(language)
    metrics.add(["a"], ["b"], ["c"])  # the first call loads what stays loaded
    tracemalloc.start()
    for n in range(4):
        line = f"{n}{letter * 2000}"
        metrics.add([line], [line], [line])
    del line
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert left < 8000  # bytes, what keeping each line once would take at the least; the counts take 660
    assert metrics.statistics["bleu"].shape == (5, 10)


def test_texts_held_to_find_the_language_are_dropped_once_it_is_known() -> None:
    metrics = TranslationMetrics()
    lines = ["Ein Satz."] * (DETECT_ROWS - 1)
    metrics.add(lines, lines, lines)
    metrics.add(["Noch einer."], ["Noch einer."], ["Noch einer."])
    assert not metrics._waiting
    assert len(metrics.statistics["ter"]) == DETECT_ROWS
