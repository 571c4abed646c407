"""N-gram models: ARPA files against their own numbers, and Kneser-Ney smoothing against its definition."""

import gzip
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data.ngrams import BEGIN, END, MAX_ORDER, SMALL_DATA, UNKNOWN, Ngrams
from heed.data.parts import load_parts, save_parts
from heed.errors import CheckpointError, ConfigError, DataError

ARPA = """written by hand

\\data\\
ngram 1=5
ngram  2 = 4
ngram 3=1

\\1-grams:
-2.0\t<unk>
-99\t<s>\t-0.5
-0.75\t</s>
-0.5\tred\t-0.25
-1.25 fox -0.125

\\2-grams:
-0.25\t<s> red\t-0.0625
-0.375\tred fox\t-0.03125
-0.1\tfox </s>
-0.875\t<s> <unk>

\\3-grams:
-0.0625\t<s> red fox

\\end\\
what stands behind the end is not read
"""
LN10 = math.log(10)


def model_of(text: str) -> Ngrams:
    return Ngrams.from_arpa(text.splitlines())


@pytest.mark.parametrize(
    ("context", "word", "log10"),
    [
        ((), "red", -0.5),
        ((BEGIN,), "red", -0.25),
        ((BEGIN, "red"), "fox", -0.0625),
        (("fox", BEGIN, "red"), "fox", -0.0625),  # of the context, two words count
        (("fox", "red"), "fox", -0.375),  # "fox red" is no context: its weight is 0
        ((BEGIN, "red"), "red", -0.0625 - 0.25 - 0.5),
        ((BEGIN, "red"), END, -0.0625 - 0.25 - 0.75),
        (("red", "fox"), END, -0.03125 - 0.1),
        (("fox",), "fox", -0.125 - 1.25),
        ((BEGIN,), "cat", -0.875),
        (("red",), "cat", -0.25 - 2.0),
        (("cat", "red"), "fox", -0.375),
        (("red", "cat"), "fox", -1.25),
    ],
)
def test_probabilities_follow_from_the_file(context: tuple[str, ...], word: str, log10: float) -> None:
    model = model_of(ARPA)
    assert model.log_p(context, word) == pytest.approx(log10 * LN10, abs=1e-12)
    assert (model.order, model.vocabulary) == (3, {UNKNOWN, BEGIN, END, "red", "fox"})


def test_without_a_word_for_unknown_ones_they_are_impossible() -> None:
    lines = [line.replace("=5", "=4").replace("= 4", "=3") for line in ARPA.splitlines() if UNKNOWN not in line]
    model = Ngrams.from_arpa(lines)
    assert model.log_p((), "cat") == -math.inf
    assert model.log_p(("cat",), "red") == pytest.approx(-0.5 * LN10)


def test_the_unknown_word_may_be_in_capitals() -> None:
    assert model_of(ARPA.replace("<unk>", "<UNK>")).log_p((BEGIN,), "cat") == model_of(ARPA).log_p((BEGIN,), "cat")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["m.arpa", "m.arpa.gz"])
def test_files_are_read_as_their_lines(tmp_path: Path, encoding: str, end: str, name: str) -> None:
    content = ARPA.replace("red", "röd\u3000\xa0").replace("\n", end).encode(encoding)  # only tabs and spaces separate
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    model = Ngrams.from_arpa(tmp_path / name)
    assert model.log_p((BEGIN, "röd\u3000\xa0"), "fox") == pytest.approx(-0.0625 * LN10)
    assert_same(Ngrams.from_arpa(str(tmp_path / name)), model)


FAULTS = [
    ("\\data\\", "\\date\\", 8, r"\\1-grams: stands before \\data\\"),
    ("ngram 3=1", "ngram 4=1", 6, "expected 'ngram 3=' and a number, found 'ngram 4=1'"),
    ("ngram 3=1", "ngram 3=many", 6, "expected 'ngram 3='"),
    ("ngram 3=1\n", "", 15, "'<s> red' has a back-off weight"),
    ("\\end\\", "\\4-grams:", 24, r"expected \\end\\ after the longest n-grams, found '\\\\4-grams:'"),
    ("ngram 1=5\nngram  2 = 4\nngram 3=1\n", "", 5, "0 orders; expected 1 to 10"),
    ("\\1-grams:", "\\2-grams:", 8, r"expected \\1-grams:, found '\\\\2-grams:'"),
    ("\\3-grams:", "\\4-grams:", 21, r"expected \\3-grams:, found '\\\\4-grams:'"),
    ("ngram 1=5", "ngram 1=6", 15, r"\\data\\ promises 6 1-grams, found 5"),
    ("ngram  2 = 4", "ngram 2=3", 21, r"\\data\\ promises 3 2-grams, found 4"),
    ("ngram 3=1", "ngram 3=2", 24, r"\\data\\ promises 2 3-grams, found 1"),
    ("-0.1\tfox </s>", "-0.1\tfox </s> red -1", 18, "2 words and at most one back-off weight, found 5 fields"),
    ("-0.1\tfox </s>", "-0.1\tfox", 18, "found 2 fields"),
    ("-0.1\tfox </s>", "0.1\tfox </s>", 18, "log10 p of 'fox </s>' is 0.1; expected 0 or less"),
    ("-0.1\tfox </s>", "fox\tfox </s>", 18, "'fox' is no finite number"),
    ("-0.1\tfox </s>", "nan\tfox </s>", 18, "'nan' is no finite number"),
    ("\t-0.03125", "\tinf", 17, "'inf' is no finite number"),
    ("-0.1\tfox </s>", "-0.1\tfox cat", 18, "'cat' is not among the 1-grams"),
    ("-0.1\tfox </s>", "-0.1\tred fox", 18, "'red fox' stands here a second time"),
    ("-0.0625\t<s> red fox", "-0.0625\t<s> red fox\t-1", 22, "'<s> red fox' has a back-off weight"),
    ("\\end\\\nwhat stands behind the end is not read\n", "", 23, r"the file ends before \\end\\"),
    ("</s>", "</S>", 24, "</s> is not among the 1-grams"),
]


@pytest.mark.parametrize(("old", "new", "line", "what"), FAULTS)
def test_every_fault_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, what: str) -> None:
    assert old in ARPA
    path = tmp_path / "m.arpa"
    path.write_text(ARPA.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=rf"m\.arpa:{line}: .*{what}.*; copy the file again"):
        Ngrams.from_arpa(path)


def test_every_cut_of_a_file_is_refused() -> None:
    lines = ARPA[: ARPA.index("\\end\\")].splitlines()
    for n in range(len(lines)):
        with pytest.raises(DataError, match=f"line {n}: the file ends before"):
            Ngrams.from_arpa(lines[:n])


def test_what_is_no_text_and_what_is_missing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.arpa.gz").write_bytes(gzip.compress(ARPA.encode())[:-20])
    with pytest.raises(DataError, match=r"m\.arpa\.gz: is cut off"):
        Ngrams.from_arpa(tmp_path / "m.arpa.gz")
    with pytest.raises(DataError, match=r"n\.arpa\.gz: no such file; did you mean .*m\.arpa\.gz"):
        Ngrams.from_arpa(tmp_path / "n.arpa.gz")


SENTENCES = [sentence.split() for sentence in ("a b a c", "b a b", "c a b a b a", "a", "", "b c c a b", "d a b", "a b a c e")]


sentences = st.lists(st.lists(st.sampled_from("abcdef"), max_size=7), min_size=1, max_size=25).filter(any)
orders = st.integers(1, 4)


def assert_same(left: Ngrams, right: Ngrams) -> None:
    assert list(left.lines()) == list(right.lines())
    assert (left.order, left.vocabulary) == (right.order, right.vocabulary)
    for context in [(), (BEGIN,), ("a", "b"), (BEGIN, "b", "a"), ("d", "c")]:
        assert [left.log_p(context, word) for word in sorted(left.vocabulary)] == [
            right.log_p(context, word) for word in sorted(right.vocabulary)
        ]


@pytest.mark.parametrize("name", ["m.arpa", "m.ARPA.GZ"])
def test_a_model_comes_back_from_its_file_bit_by_bit(tmp_path: Path, name: str) -> None:
    for model in (Ngrams.train(SENTENCES, order=3), model_of(ARPA)):
        model.to_arpa(tmp_path / name)
        assert_same(Ngrams.from_arpa(tmp_path / name), model)
        assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == name.endswith("GZ")


@given(texts=sentences, order=orders)
def test_probabilities_sum_to_1_in_every_context(texts: list[list[str]], order: int) -> None:
    model = Ngrams.train(texts, order=order)
    predicted = model.vocabulary - {BEGIN}
    assert predicted == {word for text in texts for word in text} | {END, UNKNOWN}
    contexts = {tuple([BEGIN, *text][:n][-order:]) for text in texts for n in range(8)} | {(), ("f", "a"), ("unheard",), (END, "a")}
    for context in contexts:
        assert sum(math.exp(model.log_p(context, word)) for word in predicted) == pytest.approx(1, abs=1e-9)
        assert all(math.exp(model.log_p(context, word)) > 0 for word in predicted)


def counts_of(texts: list[list[str]], n: int) -> Counter[tuple[str, ...]]:
    padded = [[BEGIN, *text, END] for text in texts]
    return Counter(tuple(text[i : i + n]) for text in padded for i in range(len(text) - n + 1))


def discounts_of(counts: Iterable[int]) -> tuple[float, float, float]:
    n1, n2, n3, n4 = (list(counts).count(k) for k in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return SMALL_DATA
    y = n1 / (n1 + 2 * n2)
    estimated = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return estimated if all(0 < d <= k for k, d in enumerate(estimated, start=1)) else SMALL_DATA


def smoothed(texts: list[list[str]], order: int, context: tuple[str, ...], word: str) -> float:
    """Write interpolated modified Kneser-Ney down as Chen & Goodman do, eq. 24 to 27, counting anew each time."""
    n = len(context) + 1
    vocabulary = {one for text in texts for one in text} | {END, UNKNOWN}

    def count(gram: tuple[str, ...]) -> int:
        if n == order or gram[0] == BEGIN:
            return counts_of(texts, n)[gram]
        return len({longer[0] for longer in counts_of(texts, n + 1) if longer[1:] == gram})

    grams = {gram: count(gram) for gram in counts_of(texts, n) if gram != (BEGIN,)}
    discounts = discounts_of(grams.values())
    after = {gram: c for gram, c in grams.items() if gram[:-1] == context}
    lower = smoothed(texts, order, context[1:], word) if context else 1 / len(vocabulary)
    if not after:
        return lower
    total = sum(after.values())
    gamma = sum(discounts[min(c, 3) - 1] for c in after.values()) / total
    c = after.get((*context, word), 0)
    return (max(c - discounts[min(c, 3) - 1], 0) if c else 0) / total + gamma * lower


CONTEXTS = [(), (BEGIN,), ("a",), ("e",), (BEGIN, "a"), ("a", "b"), ("c", "c"), ("e", "e"), ("b", "d")]


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("estimated", [True, False])
def test_training_is_modified_kneser_ney(order: int, estimated: bool) -> None:
    texts = SENTENCES if estimated else SENTENCES * 2  # twice the same: no 2-gram occurs once, so nothing can be estimated
    assert (discounts_of(counts_of(texts, 2).values()) != SMALL_DATA) == estimated
    model = Ngrams.train(texts, order=order)
    for context in CONTEXTS:
        for word in sorted(model.vocabulary - {BEGIN}):
            expected = smoothed(texts, order, context[max(0, len(context) - order + 1) :], word)
            assert math.exp(model.log_p(context, word)) == pytest.approx(expected, rel=1e-9)


def test_a_word_seen_after_many_others_is_likelier_in_a_new_context_than_one_seen_as_often_after_one() -> None:
    model = Ngrams.train([text.split() for text in ("x1 of", "x2 of", "x3 of", "san diego", "san diego", "san diego")], order=2)
    assert model.log_p(("x9",), "of") > model.log_p(("x9",), "diego")
    assert model.log_p(("san",), "diego") > model.log_p(("san",), "of")


def test_unknown_words_may_be_trained_on() -> None:
    rare, plain = Ngrams.train([["a", UNKNOWN, "b"]] * 3, order=2), Ngrams.train([["a", "c", "b"]] * 3, order=2)
    assert rare.log_p(("a",), "unheard") > plain.log_p(("a",), "unheard")


def test_sentences_are_read_once_and_their_order_does_not_matter() -> None:
    assert_same(Ngrams.train(iter(SENTENCES), order=3), Ngrams.train(SENTENCES[::-1], order=3))


@pytest.mark.parametrize("word", ["", " ", "a b", "a\n", "\u3000", BEGIN, END])
def test_words_that_no_file_can_hold_are_refused(word: str) -> None:
    with pytest.raises(DataError, match="sentence 2: "):
        Ngrams.train([["a"], ["b", word]], order=2)


def test_nothing_to_train_from_and_orders_that_make_no_sense_are_refused() -> None:
    for nothing in ([], [[]], [[], []]):
        with pytest.raises(DataError, match="every sentence is empty"):
            Ngrams.train(nothing, order=2)
    for order in (0, -1, MAX_ORDER + 1):
        with pytest.raises(ConfigError, match=f"order {order} cannot be trained; expected 1 to {MAX_ORDER}"):
            Ngrams.train([["a"]], order=order)


def test_a_model_saved_as_a_part_is_the_same(tmp_path: Path) -> None:
    model = Ngrams.train([list("abba"), list("cab"), ["a", "▁", "b"]], order=3)
    save_parts(tmp_path, {"ngrams": model})
    found = load_parts(tmp_path)["ngrams"]
    assert isinstance(found, Ngrams)
    assert list(found.lines()) == list(model.lines())


@pytest.mark.parametrize("content", [{}, {"arpa": "text"}, {"arpa": [1]}, {"arpa": []}, {"arpa": ARPA.splitlines()[:9]}])
def test_a_part_that_is_no_model_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"not an n-gram model .*restore the run folder"):
        Ngrams.from_json(content)
