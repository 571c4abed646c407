import json
import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from heed.data.parts import load_parts, save_parts
from heed.data.text import MIN_VOCAB_SIZE, Tokenizer, byte_values, clean, is_spaceless
from heed.data.vocabulary import SPECIALS
from heed.errors import CheckpointError, ConfigError, DataError

SENTENCES = [
    "Two dogs run across the field, and 12 dogs sleep.",
    "Zwei Hunde laufen über das Feld, und 12 Hunde schlafen.",
    "两只狗在田野上奔跑，十二只狗在睡觉。",
    "สุนัขสองตัววิ่งข้ามทุ่ง",
    "دو سگ در مزرعه می‌دوند.",
    "दो कुत्ते मैदान में दौड़ते हैं।",
    "Dogs run; dogs sleep; dogs run.",
] * 3
NASTY = (
    "<>&;#/=\"' \t\n\r\x00\x1c\x85\xa0\u3000\u2028abpr好，e\u0301\u0338\u037e\u200b\u200c\u200d\u180e\xad\ufeff"
    "\u0915\u094d👩🚀🏴\U000e0067\U000e007f\ud800\udc00Å\u212b\u2000"
)
PIECES = ["&amp;", "&lt;", "&gt;", "&#38;", "&#824;", "&#894;", "&shy;", "&nbsp;", "<b>", "</b>", "<br>", "<!--", "-->", "<b ", "am", "p;"]
any_text = st.text(st.characters() | st.sampled_from(NASTY))
nasty_text = st.lists(st.sampled_from([*NASTY, *PIECES]), max_size=30).map("".join)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request):
    return Tokenizer.train(SENTENCES, algorithm=request.param, vocab_size=400)


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [
        ("<b>好</b>&amp;  x", "好& x"),
        ("one<br/>two<p>three</P >four", "one two three four"),
        ('<a href="x.html" class=big>here</a>', "here"),
        ("<input type=checkbox checked>", ""),
        ("<!-- note: a > b --><!DOCTYPE html>x", "x"),
        ("&lt;i&gt;deep&lt;/i&gt;", "deep"),
        ("&amp;amp;amp;quot;x&amp;quot;", '"x"'),
        ("caf&eacute; &#20320;&#x597d; &nbsp; ok", "café 你好 ok"),
        ("soft\xadhyphen zero\u200bwidth \ufeffmark \x07bell", "softhyphen zerowidth mark bell"),
        ("a\u3000b\x85c\u2028d\t\r\n", "a b c d"),
        ("e\u0301", "é"),
        ("half \ud800 pair \ud83d\ude00", "half \ufffd pair 😀"),
    ],
)
def test_markup_and_invisible_characters_go(dirty, cleaned):
    assert clean(dirty) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "I <3 you",
        "x<y>z",
        "if a <b and c> d",
        "AT&T, R&D, ?a=1&copy=2 &unknown;",
        "他说：“好的，１２３％！”……（对）",
        "می‌خواهم",
        "क्‍ष and 👩‍🚀 and 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "نص ١٢ \u0600",
    ],
)
def test_meaningful_text_stays_as_it_is(text):
    assert clean(text) == text


def test_joiners_without_a_script_that_needs_them_go():
    assert clean("zero\u200cwidth 好\u200d的 \U000e0068\U000e0069hidden") == "zerowidth 好的 hidden"


def test_no_format_character_survives_but_the_visible_and_the_joining():
    visible = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD, *range(0x13430, 0x13440)}
    formats = [code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in ("Cf", "Cc")]
    survivors = {code for code in formats if clean(f"x{chr(code)}x") not in ("xx", "x x")}
    assert survivors <= visible


@settings(deadline=None, max_examples=400)
@given(any_text | nasty_text)
def test_cleaning_twice_is_cleaning_once(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert unicodedata.is_normalized("NFC", cleaned)
    assert " ".join(cleaned.split()) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "&" + "amp;" * 20_000,
        "&am" * 20_000 + "p;" * 20_000,
        "&#38;" * 20_000,
        "<" * 20_000 + "b>" * 20_000,
        "<!--" * 20_000,
        "<b " + " a" * 20_000,
        "<b" + " " * 50_000,
        '<a b="' * 20_000,
        "<b a=" * 20_000,
        "a\u200d" * 20_000,
    ],
)
def test_nested_markup_settles(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned


def test_escaping_any_number_of_times_is_undone():
    assert clean("&" + "amp;" * 1000 + "lt;3") == "<3"


@settings(deadline=None, max_examples=200)
@given(text=any_text | nasty_text)
def test_every_text_comes_back_cleaned(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == clean(text)


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["  two  spaces ", "\n", " ", "a\x00b"]))
def test_every_text_comes_back_unchanged_without_cleaning(tokenizer, text):
    raw = Tokenizer(tokenizer.backend, algorithm=tokenizer.algorithm, cleaning=False)
    assert raw.decode(raw.encode(text)) == text


def test_special_tokens_have_fixed_ids_and_never_come_out_of_text(tokenizer):
    assert [tokenizer.token(index) for index in range(4)] == list(SPECIALS)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, 3)
    for text in ["<eos>", "a <pad><bos> b<eos>", "<unk>", "&lt;eos&gt;", *SENTENCES, "\U0010ffff\x00"]:
        assert min(tokenizer.encode(text)) >= 4
    assert tokenizer.decode(tokenizer.encode("a <eos> b")) == "a <eos> b"


def test_decoding_skips_special_tokens_and_survives_any_ids(tokenizer):
    ids = tokenizer.encode("Dogs run.")
    assert tokenizer.decode([1, *ids[:2], 3, *ids[2:], 2, 0, 0]) == "Dogs run."
    assert tokenizer.decode([]) == tokenizer.decode([1, 2]) == ""
    for index in range(tokenizer.vocab_size):
        assert isinstance(tokenizer.decode([index, index]), str)
    half_a_character = next(i for i in range(4, tokenizer.vocab_size) if tokenizer.token(i) == "\\xe5")
    assert tokenizer.decode([half_a_character]) == "\ufffd"


@pytest.mark.parametrize("index", [-1, 100_000, 2**40])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, index):
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.decode([4, index])
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.token(index)


def test_a_batch_answers_as_its_members_alone(tokenizer):
    texts = ["", "Dogs", "两只狗", "<br>", "a b"]
    batch = tokenizer.encode_batch(texts)
    assert batch == [tokenizer.encode(text) for text in texts]
    assert batch[0] == batch[3] == []
    assert tokenizer.decode_batch(batch) == [tokenizer.decode(ids) for ids in batch]


def test_a_word_is_the_same_at_the_start_and_inside(tokenizer):
    once, twice = tokenizer.encode("dogs"), tokenizer.encode("dogs dogs")
    assert twice == once * 2
    assert tokenizer.token(once[0]).startswith("▁")


def test_digits_stand_alone_and_punctuation_apart_from_letters(tokenizer):
    pieces = [tokenizer.token(index) for index in tokenizer.encode("dogs 12, dogs.")]
    assert pieces[-1] == "."
    assert [piece for piece in pieces if any(char.isdigit() for char in piece)] == ["▁1", "2"]


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_text_without_spaces_is_learned_as_any_other(algorithm):
    tokenizer = Tokenizer.train(["两只狗在跑，", "两只狗在睡。"] * 5, algorithm=algorithm, vocab_size=290)
    assert [tokenizer.token(index) for index in tokenizer.encode("两只狗在")] == ["▁两只狗在"]


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_characters_of_scripts_without_spaces_can_be_kept_apart(algorithm):
    texts = ["Two dogs 在田野上奔跑，“睡觉”。12", "สุนัขสองตัว 两只狗在睡觉。", "naïve Hunde，12！dogs"]
    tokenizer = Tokenizer.train(texts * 5, algorithm=algorithm, vocab_size=420, cleaning=False, apart=True)
    again = Tokenizer.from_json(json.loads(json.dumps(tokenizer.to_json())))
    for text in texts:
        ids, places = again.with_places([text])[0]
        assert again.decode(ids) == text
        pieces = [text[start:end] for start, end in places]
        assert all(sum(map(is_spaceless, piece)) <= 1 + sum(unicodedata.category(char)[0] == "M" for char in piece) for piece in pieces)
        assert {"dogs", "Hunde"} & set(text.split()) <= set(pieces)  # words of other scripts stay whole


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_run_of_a_million_letters_is_learned_in_parts(algorithm):
    endless = "xyxz" * 250_000  # as one word it would take hours
    learned = Tokenizer.train([" ".join([*SENTENCES, endless, *SENTENCES])], algorithm=algorithm, vocab_size=330, cleaning=False)
    assert learned.decode(learned.encode(endless)) == endless


def test_the_vocabulary_is_as_large_as_asked_where_the_texts_allow(tokenizer):
    assert tokenizer.vocab_size == 400
    assert len({tokenizer.token(index) for index in range(400)}) == 400


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("texts", [["a"], ["Hi.", "Hallo."], ["好"], ["aaaa aaaa"], ["", " ", "x"]])
def test_tiny_data_give_a_smaller_vocabulary(algorithm, texts):
    tokenizer = Tokenizer.train(iter(texts), algorithm=algorithm, vocab_size=5000)
    assert MIN_VOCAB_SIZE <= tokenizer.vocab_size < 300
    assert tokenizer.decode(tokenizer.encode("Anything 好")) == "Anything 好"


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_the_smallest_vocabulary_is_the_bytes(algorithm):
    tokenizer = Tokenizer.train(SENTENCES, algorithm=algorithm, vocab_size=MIN_VOCAB_SIZE)
    assert tokenizer.vocab_size == MIN_VOCAB_SIZE
    assert len(tokenizer.encode("好")) == len(" 好".encode())


def test_wrong_settings_and_empty_data_are_refused():
    with pytest.raises(ConfigError, match="259 is below 260"):
        Tokenizer.train(["a"], algorithm="bpe", vocab_size=259)
    with pytest.raises(ConfigError, match="'wordpiece' is not one of bpe, unigram"):
        Tokenizer.train(["a"], algorithm="wordpiece", vocab_size=300)
    with pytest.raises(DataError, match="every text is empty"):
        Tokenizer.train(["", " ", "<br>"], algorithm="bpe", vocab_size=300)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_the_same_texts_give_the_same_vocabulary_in_every_process(algorithm):
    code = (
        "import sys, json, heed.data.text as t\n"
        "texts = json.load(sys.stdin)\n"
        f"print(json.dumps(t.Tokenizer.train(texts, algorithm='{algorithm}', vocab_size=330).to_json()))"
    )
    texts = json.dumps(SENTENCES + [f"{a}{b} {b}{a}{a}" for a in "abcdefgh" for b in "stuvwxyz"])
    outputs = set()
    for seed, threads in [("0", "1"), ("1", "2")]:
        env = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        run = subprocess.run([sys.executable, "-c", code], input=texts, capture_output=True, text=True, check=True, env=env)
        outputs.add(run.stdout)
    assert len(outputs) == 1


def test_a_saved_tokenizer_answers_the_same(tokenizer, tmp_path):
    raw = Tokenizer(tokenizer.backend, algorithm=tokenizer.algorithm, cleaning=False)
    save_parts(tmp_path, {"source": tokenizer, "target": raw})
    parts = load_parts(tmp_path)
    for text in [*SENTENCES, "<b>new</b>  text <eos> 🙂"]:
        assert parts["source"].encode(text) == tokenizer.encode(text)
        assert parts["target"].encode(text) == raw.encode(text)
    assert parts["source"].to_json() == tokenizer.to_json()
    assert (parts["source"].cleaning, parts["target"].cleaning) == (True, False)


def with_special_token_found_in_text(content):
    backend = Backend.from_str(json.dumps(content["tokenizer"]))
    backend.add_special_tokens(["<eos>"])
    return {**content, "tokenizer": json.loads(backend.to_str())}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: {},
        lambda content: [],
        lambda content: {**content, "tokenizer": {}},
        lambda content: {**content, "tokenizer": "x"},
        lambda content: {**content, "algorithm": "wordpiece"},
        lambda content: {**content, "algorithm": ["bpe"]},
        lambda content: {**content, "cleaning": "yes"},
        lambda content: {**content, "tokenizer": {**content["tokenizer"], "decoder": None}},
        lambda content: {**content, "tokenizer": {**content["tokenizer"], "pre_tokenizer": None}},
        lambda content: {**content, "tokenizer": {**content["tokenizer"], "normalizer": {"type": "Lowercase"}}},
        lambda content: {**content, "tokenizer": {**content["tokenizer"], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}},
        lambda content: {
            **content,
            "tokenizer": {
                **content["tokenizer"],
                "truncation": {"max_length": 99, "direction": "Right", "strategy": "LongestFirst", "stride": 0},
            },
        },
        lambda content: {**content, "algorithm": "unigram" if content["algorithm"] == "bpe" else "bpe"},
        with_special_token_found_in_text,
    ],
)
def test_a_spoiled_file_is_refused(tokenizer, spoil):
    with pytest.raises(CheckpointError, match="restore the run folder"):
        Tokenizer.from_json(spoil(tokenizer.to_json()))


SPACELESS_TEXTS = [
    "我爱北京，你呢？",
    "今日はsushiを食べた。",
    "iPhone很好用 12元",
    "สุนัข dog",
    "two dogs, 好 don't",
    "good 🙂 film",
    "𠀀字 x",
]


def is_of_a_script_without_spaces(char):
    return unicodedata.name(char, "").split()[0] in ("CJK", "HIRAGANA", "KATAKANA", "THAI", "IDEOGRAPHIC", "FULLWIDTH")


def starts_by_definition(tokenizer, text):
    """Return which sub-words of a text start a word, from the characters at their borders."""
    whole, starts, place = f" {text}".encode(), [], 0
    for index in tokenizer.encode(text):
        piece = bytes(byte_values()[char] for char in tokenizer.backend.id_to_token(index))
        inside = whole[place] & 0xC0 == 0x80
        char, before = ("", "") if inside else (whole[place:].decode()[0], whole[:place].decode()[-1:])
        apart = not inside and unicodedata.category(char)[0] != "M" and any(map(is_of_a_script_without_spaces, (char, *before)))
        starts.append(place == 0 or char == " " or (apart and before != " "))
        place += len(piece)
    return starts


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("text", SPACELESS_TEXTS)
def test_sub_words_start_words_at_spaces_and_in_scripts_without_spaces_everywhere(text, algorithm):
    for texts in (SPACELESS_TEXTS * 3, [*"我爱北京你呢今日はを食べた很好用元สนข字", "sushi dog"] * 3, ["bytes alone"]):
        tokenizer = Tokenizer.train(texts, algorithm=algorithm, vocab_size=700)
        assert tokenizer.word_starts(tokenizer.encode(text)).tolist() == starts_by_definition(tokenizer, text)


def test_special_tokens_start_words_and_so_does_what_follows_them():
    tokenizer = Tokenizer.train(SENTENCES, algorithm="bpe", vocab_size=400)
    ids = [tokenizer.bos_id, *tokenizer.encode_inside(["Hun"])[0], tokenizer.eos_id, *tokenizer.encode_inside(["de"])[0]]
    place = ids.index(tokenizer.eos_id)
    assert set(tokenizer.word_starts(ids).nonzero()[0]) == {0, 1, place, place + 1}
    assert tokenizer.word_starts([]).tolist() == []


@given(st.text())
def test_what_stands_inside_a_clause_is_encoded_without_the_space_before_it(tokenizer, text):
    (ids,) = tokenizer.encode_inside([text])
    assert tokenizer.decode([*tokenizer.encode("x"), *ids]) == "x" + clean(text)


@pytest.mark.parametrize(("text", "expected"), [("北京。", True), ("すし", True), ("北京x", False), ("北 京", False), ("dog", False)])
def test_a_text_is_spaceless_when_all_of_it_is(text, expected):
    assert is_spaceless(text) is expected
