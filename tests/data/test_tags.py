"""Schemes of tags, against seqeval, which reads them leniently and, by its schemes, strictly."""

import random
import warnings
from itertools import pairwise

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB2, IOBES, Entities

from heed.data.tags import (
    LETTERS,
    Scheme,
    Span,
    is_symbols,
    labels_for,
    parsed,
    scheme_of,
    spans_of,
    split_words,
    tags_fault,
    tags_of,
    words_in,
)

STRICT = {"bio": IOB2, "bilou": BILOU, "bioes": IOBES}
TYPES = ["PER", "LOC-X", "a"]


def drawn(scheme: Scheme, n: int, seed: int) -> list[list[str]]:
    """Return sentences of random tags, most of which no scheme allows."""
    draw = random.Random(seed)
    tags = ["O", *(f"{letter}-{of}" for letter in LETTERS[scheme] for of in TYPES)]
    return [draw.choices(tags, weights=[4, *[1] * (len(tags) - 1)], k=draw.randint(1, 9)) for _ in range(n)]


@pytest.mark.parametrize("scheme", ["bio", "bioes", "bilou"])
def test_spans_are_read_leniently_as_seqeval_reads_them(scheme: Scheme) -> None:
    seen = 0
    for tags in drawn(scheme, 400, 1):
        known = [
            tag.replace("L-", "E-", 1).replace("U-", "S-", 1) if scheme == "bilou" and tag[:2] in ("L-", "U-") else tag for tag in tags
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = [Span(of, first, last + 1) for of, first, last in get_entities(known)]
        assert spans_of(tags, scheme) == expected
        seen += len(expected)
    assert seen > 400


@pytest.mark.parametrize("scheme", ["bio", "bioes", "bilou"])
def test_spans_are_read_strictly_as_seqeval_reads_them(scheme: Scheme) -> None:
    sentences = drawn(scheme, 400, 2)
    read = Entities(sentences, STRICT[scheme]).entities
    for tags, expected in zip(sentences, read, strict=True):
        assert spans_of(tags, scheme, strict=True) == [Span(one.tag, one.start, one.end) for one in expected]
    strict = sum(len(spans_of(tags, scheme, strict=True)) for tags in sentences)
    assert 0 < strict < sum(len(spans_of(tags, scheme)) for tags in sentences)


def spans_at_random(n_words: int, draw: random.Random) -> list[Span]:
    ends = sorted(draw.sample(range(n_words + 1), draw.randint(0, n_words // 2) * 2 // 2))
    return [Span(draw.choice(TYPES), first, last) for first, last in pairwise(ends) if draw.random() < 0.7]


@pytest.mark.parametrize("scheme", ["bio", "iob1", "bioes", "bilou"])
def test_spans_come_back_from_the_tags_they_are_written_as(scheme: Scheme) -> None:
    draw = random.Random(3)
    for _ in range(100):
        spans = spans_at_random(9, draw)
        tags = tags_of(spans, 9, scheme)
        written: Scheme = "bio" if scheme == "iob1" else scheme
        assert spans_of(tags, written, strict=True) == spans
        assert set(tags) <= set(labels_for(TYPES, scheme))
        assert tags_fault(tags, ["x"] * 9, written, strict=True) is None


def test_iob1_becomes_bio() -> None:
    tags = ["I-PER", "I-PER", "B-PER", "O", "I-LOC", "I-PER"]
    spans = spans_of(tags, "iob1")
    assert spans == [Span("PER", 0, 2), Span("PER", 2, 3), Span("LOC", 4, 5), Span("PER", 5, 6)]
    assert tags_of(spans, 6, "iob1") == ["B-PER", "I-PER", "B-PER", "O", "B-LOC", "B-PER"]
    assert tags_fault(tags, ["x"] * 6, "iob1", strict=True) is None


def test_plain_tags_stand_for_their_word_alone() -> None:
    tags = ["DET", "NOUN", "NOUN", "O", "B-x"]
    assert tags_of(spans_of(tags, "plain"), 5, "plain") == tags
    assert len(spans_of(tags, "plain")) == 5
    assert labels_for(["DET", "O"], "plain") == ["DET", "O"]


def test_a_letter_alone_is_a_tag_without_type() -> None:
    tags = ["B", "I", "O", "B"]
    assert spans_of(tags, "bio") == [Span("_", 0, 2), Span("_", 3, 4)]
    assert tags_of(spans_of(tags, "bio"), 4, "bio") == tags
    assert labels_for(["_"], "bio") == ["O", "B", "I"]


@pytest.mark.parametrize("tag", ["", "b-PER", "X-PER", "B-", "B_PER", "BPER", "o", "-PER", "E-PER"])
def test_what_is_no_tag_is_none(tag: str) -> None:
    assert parsed(tag, "bio") is None
    with pytest.raises(ValueError, match="is none of bio"):
        spans_of(["O", tag], "bio")


@pytest.mark.parametrize(
    ("tags", "scheme", "strict", "said"),
    [
        (["O", "O"], "bio", True, "has 3 tokens but 2 tags"),
        (["O", "O", "S-PER"], "bio", False, "token 3 ('here') has the tag 'S-PER', which task.scheme=bio does not know"),
        (["O", "O", "S-PER"], "bio", False, "task.scheme=bioes"),
        (["O", "I-PER", "I-PER"], "bio", True, "token 2 ('was') begins a span that is not as task.scheme=bio wants it (I-PER I-PER)"),
        (["B-PER", "I-PER", "O"], "bilou", True, "(B-PER I-PER)"),
    ],
)
def test_faults_are_told_by_token(tags: list[str], scheme: Scheme, strict: bool, said: str) -> None:
    found = tags_fault(tags, ["Ada", "was", "here"], scheme, strict=strict)
    assert found is not None
    assert said in found


def test_what_is_not_strict_is_no_fault_otherwise() -> None:
    assert tags_fault(["O", "I-PER", "I-PER"], ["Ada", "was", "here"], "bio", strict=False) is None


def test_the_scheme_is_guessed_from_its_letters() -> None:
    assert [scheme_of(tags) for tags in (["O", "B-a"], ["U-a", "O"], ["O", "S-a"], ["NOUN", "O"])] == ["bio", "bilou", "bioes", "plain"]


def test_words_are_cut_at_white_space_and_where_asked_at_symbols_and_chinese_characters() -> None:
    text = ' "Ada" (née B.)\tsaw don\'t 北京iPhone，。U.S.\u3000... हिन्दी!'
    assert [text[start:end] for start, end in words_in(text, apart=False)] == split_words(text)
    apart = [
        '"',
        "Ada",
        '"',
        "(",
        "née",
        "B",
        ".",
        ")",
        "saw",
        "don't",
        "北",
        "京",
        "iPhone",
        "，",
        "。",
        "U.S",
        ".",
        ".",
        ".",
        ".",
        "हिन्दी",
        "!",
    ]
    assert [text[start:end] for start, end in words_in(text, apart=True)] == apart
    assert words_in(" \n", apart=True) == []
    assert [is_symbols(word) for word in ("...", "a.", "", "€")] == [True, False, False, True]


@pytest.mark.parametrize(("scheme", "tags", "other"), [("bilou", ["B-PER", "I-PER"], "bio"), ("bio", ["I-PER", "O"], "iob1")])
def test_a_broken_span_names_a_scheme_that_the_tags_may_be_of(scheme: Scheme, tags: list[str], other: Scheme) -> None:
    fault = tags_fault(tags, ["x"] * 2, scheme, strict=True)
    assert fault is not None
    assert f"such as task.scheme={other}," in fault
    assert tags_fault(tags, ["x"] * 2, other, strict=True) is None


@pytest.mark.parametrize("emoji", ["👩🏽‍💻", "🏳️‍🌈", "🇩🇪", "👍🏿", "❤️", "🏴\U000e0067\U000e0062\U000e007f", "1️⃣"])
def test_an_emoji_of_several_characters_is_one_word(emoji: str) -> None:
    text = f"Ada{emoji} ({emoji}{emoji}) ran{emoji}."
    words = [text[start:end] for start, end in words_in(text, apart=True)]
    if emoji[0] == "1":  # a digit is no symbol, whatever is put around it
        assert words == [f"Ada{emoji}", "(", emoji + emoji, ")", f"ran{emoji}", "."]
    else:
        assert words == ["Ada", emoji, "(", emoji, emoji, ")", "ran", emoji, "."]
