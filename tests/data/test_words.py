"""What happens to a text before it is cut, and the vocabularies of whole words and of characters."""

import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heed.data import words as module
from heed.data.parts import load_parts, save_parts
from heed.data.stopwords import CHINESE, ENGLISH
from heed.data.text import clean, join_surrogates
from heed.data.vocabulary import SPECIALS
from heed.data.words import HAN_RUN, LONGEST_RUN, Preparation, Words, cut_chinese
from heed.errors import CheckpointError, ConfigError, DataError, MissingExtra

NEGATION_WORDS = (
    "not no nor never none nothing nobody nowhere neither without hardly barely scarcely rarely seldom few little "
    "n't nt cannot can't don't doesn't didn't isn't aren't wasn't weren't won't wouldn't shouldn't couldn't mustn't "
    "mightn't needn't haven't hasn't hadn't ain't shan't cant dont isnt wont but however though although yet too "
    "only "
)
NEGATIONS = NEGATION_WORDS.split()
CHINESE_NEGATIONS = "不没沒别別无無非未莫勿弗毋休甭"
MIXED = "ab Zé1٣.,'’-‐_\t\n\u3000\x1c\u0301\u200dあー使い한ไทย北京𠮷😀\ufe0f\ud842\udfb7\ud800"
any_text = st.text(st.characters() | st.sampled_from(MIXED))

needs_jieba = pytest.mark.skipif(find_spec("jieba") is None, reason="needs jieba (heed's extra 'chinese')")


@pytest.fixture
def no_jieba(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    module._segmenter.cache_clear()
    cut_chinese.cache_clear()


@pytest.fixture(scope="module")
def jieba_cut(tmp_path_factory):
    """Return jieba's own way to cut, set up by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jieba = import_module("jieba")
    tokenizer = jieba.Tokenizer()
    tokenizer.tmp_dir = str(tmp_path_factory.mktemp("jieba"))
    return tokenizer.lcut


def prepared(text, *, stop_words="none", cleaning=False, lower=False):
    return Preparation(cleaning=cleaning, lower=lower, stop_words=stop_words)(text)


def trained(*texts, unit="words", vocab_size=100):
    return Words.train(texts, unit=unit, vocab_size=vocab_size)


def words_of(text):
    return Words(SPECIALS, unit="words", chinese=False).split(text)


def test_no_negation_is_a_stop_word():
    assert not ENGLISH & set(NEGATIONS)
    assert not [word for word in ENGLISH if word.endswith(("n't", "nt")) or "’" in word]
    assert not [word for word in CHINESE if set(word) & set(CHINESE_NEGATIONS)]
    assert all(word == word.lower() for word in ENGLISH)
    assert all(HAN_RUN.fullmatch(word) for word in CHINESE)


@pytest.mark.parametrize("word", NEGATIONS)
def test_a_negation_stays_whatever_its_apostrophe_and_case(word):
    for form in (word, word.upper(), *(word.replace("'", mark) for mark in ("’", "`", "´", " ' ", ";", ".", '"'))):
        assert prepared(f"This is {form} of the", stop_words="en") == form
    for left, right in ('""', "()", "./", "/.", ">…"):
        assert prepared(f"The{left}{word}{right}the of", stop_words="en") == f"{left}{word}{right}"


@given(st.lists(st.sampled_from([*sorted(ENGLISH), *NEGATIONS, "theory", "isle", "Ünder", "dog's", "at-home", "!"])))
def test_just_the_stop_words_go(words):
    kept = " ".join(word for word in words if word not in ENGLISH)
    assert prepared(" ".join(words), stop_words="en") == kept
    shouted = [word.upper() for word in words]
    assert prepared("  \n".join(shouted), stop_words="en").split() == kept.upper().split()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The Theory of Theresa", "Theory Theresa"),
        ("I’m here, it's there", "here, there"),
        ("THE of\tand\n", ""),
        ("", ""),
        ("  two  spaces ", "two spaces"),
        ("it is n't the one", "n't one"),
        ("at 5 a.m. mail me@it.com or @us, #the is_it and/or", "5 a.m. mail me@it.com @us, #the is_it /"),
        ("Good.The \"The (THE -the 'the' *the* <br />the the… the", "Good. \" ( - ' ' * * <br /> …"),
        ("his/her view.It is U.S.A., T&A and i.e. up.I went", "/ view. U.S.A., T&A i.e. up. went"),
        ("_The Matrix_ is _his_ film, not is_a", "_ Matrix_ _ _ film, not is_a"),
        ("it.isn't the.not you/never can;t", ".isn't .not /never can;t"),
        ("北京the天气", "北京 天气"),
        ("a\u0301 cafe\u0301", "a\u0301 cafe\u0301"),
        ("ana na\u0131ve", "ana na\u0131ve"),
    ],
)
def test_english_stop_words_are_whole_words(text, left):
    assert prepared(text, stop_words="en") == left
    assert prepared(left, stop_words="en") == left


@needs_jieba
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("学习的目的是快乐", "学习 目的 快乐"),
        ("这不是我们的电影", "不是 电影"),
        ("我没有车，我们的。", "没有车， 。"),
        ("iPhone的Mac", "iPhone Mac"),
        ("我们的", ""),
        ("The 书 of 我", "The 书 of"),
    ],
)
def test_chinese_stop_words_are_words(text, left):
    assert prepared(text, stop_words="zh") == left


@needs_jieba
def test_both_languages_go_together():
    assert prepared("The 书 of 我", stop_words="en+zh") == "书"


@needs_jieba
@given(st.lists(st.sampled_from([*sorted(CHINESE), *CHINESE_NEGATIONS, "目的", "中国", "好吃", "，"])).map("".join))
def test_stop_words_go_where_jieba_finds_them_and_negations_stay(jieba_cut, text):
    runs = [part if "，" in part else " ".join(kept_groups(jieba_cut(part))) or " " for part in re.split("(，+)", text) if part]
    left = prepared(text, stop_words="zh")
    if len(text) < LONGEST_RUN:
        assert left == " ".join("".join(runs).split())
    assert [char for char in left if char in CHINESE_NEGATIONS] == [char for char in text if char in CHINESE_NEGATIONS]


def kept_groups(words):
    return ["".join(group) for stop_word, group in groupby(words, key=CHINESE.__contains__) if not stop_word]


@given(any_text)
def test_preparation_cleans_and_lowers_as_asked(text):
    assert prepared(text, cleaning=True) == clean(text)
    assert prepared(text) == join_surrogates(text)
    assert prepared(text, cleaning=True, lower=True) == clean(text).lower()


def test_small_letters_are_not_folded():
    assert prepared("Straße ΣΑΣ", lower=True) == "straße σας"


def test_preparation_comes_back_from_its_file(tmp_path: Path):
    save_parts(tmp_path, {"preparation": Preparation(cleaning=True, lower=False, stop_words="en")})
    loaded = load_parts(tmp_path)["preparation"]
    assert isinstance(loaded, Preparation)
    assert loaded("<b>The</b> Dog") == "Dog"
    assert loaded.to_json() == {"cleaning": True, "lower": False, "stop_words": "en"}


GOOD = {"cleaning": True, "lower": False, "stop_words": "none"}


@pytest.mark.parametrize(
    "content", [[], {}, {**GOOD, "cleaning": 1}, {**GOOD, "lower": "no"}, {**GOOD, "stop_words": "de"}, {**GOOD, "stop_words": ["en"]}]
)
def test_a_spoiled_preparation_is_refused(content):
    with pytest.raises(CheckpointError, match=r"not a preparation.*restore the run folder"):
        Preparation.from_json(content)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"task.stop_words='de' is not one of none, en, zh, en\+zh"):
        prepared("", stop_words="de")
    with pytest.raises(ConfigError, match=r"task\.tokens='subwords' is not one of words, characters"):
        trained("a", unit="subwords")
    with pytest.raises(ConfigError, match=r"task\.vocab_size=4 is not above 4"):
        trained("a", vocab_size=4)
    for unit in ("words", "characters"):
        with pytest.raises(DataError, match=f"no text to take {unit} from: every text is empty"):
            trained("", " \n", unit=unit)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("I don't like well-known mp3s, at 1,000.50!", ["I", "don't", "like", "well-known", "mp3s", ",", "at", "1,000.50", "!"]),
        ("rock’n’roll ‘quoted’ -dash- 'tis", ["rock’n’roll", "‘", "quoted", "’", "-", "dash", "-", "'", "tis"]),
        ("3pm 42nd 10:30 1/2 2. covid-19", ["3", "pm", "42", "nd", "10:30", "1/2", "2", ".", "covid-19"]),
        ("is_open ... a--b", ["is", "_", "open", ".", ".", ".", "a", "-", "-", "b"]),
        ("naïve cafe\u0301 Ünder", ["naïve", "cafe\u0301", "Ünder"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("کتاب‌ها را می‌خواهم", ["کتاب‌ها", "را", "می‌خواهم"]),
        ("สวัสดีครับ 한국어는 좋다", ["สวัสดีครับ", "한국어는", "좋다"]),
        ("らーめんとカメラを使う", ["らーめんと", "カメラ", "を", "使", "う"]),
        ("北京iPhone好", ["北", "京", "iPhone", "好"]),
        ("❤️👍🏽 ok", ["❤️", "👍", "🏽", "ok"]),
        (" \t\n", []),
    ],
)
def test_words_are_cut_as_they_stand(text, pieces):
    assert words_of(text) == pieces


@given(any_text)
def test_no_piece_of_a_text_is_lost(text):
    assert "".join(words_of(text)) == "".join(join_surrogates(text).split())


@needs_jieba
@given(any_text | st.text("我们在北京天安门吃饭龘。 a", max_size=600))
def test_runs_of_chinese_are_cut_by_jieba(jieba_cut, text):
    pieces = Words(SPECIALS, unit="words", chinese=True).split(text)
    assert "".join(pieces) == "".join(join_surrogates(text).split())
    parts = re.split(f"({HAN_RUN.pattern})", join_surrogates(text))
    assert pieces == [word for part in parts for word in (jieba_cut(part) if HAN_RUN.match(part) else words_of(part))]


LONG = ["a'", "a-", "1.", "1'", "a1", "a\u0301", "\u0301", "\u200d", " ", "'", "_", "あカ", "北", "😀\ufe0f"]


@pytest.mark.parametrize("piece", LONG)
def test_the_work_is_linear_in_the_text(piece):
    assert len("".join(words_of(piece * 300_000))) == len(piece.strip()) * 300_000


@needs_jieba
def test_long_runs_of_rare_characters_take_no_quadratic_time():
    text = "龘靐" * 20_000
    assert "".join(Words(SPECIALS, unit="words", chinese=True).split(text)) == text


@given(st.lists(st.text("abc ", max_size=9)), st.integers(5, 12), st.sampled_from(["words", "characters"]))
def test_the_most_frequent_are_kept_and_ties_are_broken_by_text(texts, vocab_size, unit):
    counts = Counter(piece for text in texts for piece in (text.split() if unit == "words" else " ".join(text.split())))
    if not counts:
        return
    vocabulary = Words.train(iter(texts), unit=unit, vocab_size=vocab_size)
    ranked = sorted(counts)
    ranked.sort(key=counts.__getitem__, reverse=True)
    assert vocabulary.words == [*SPECIALS, *ranked][:vocab_size]
    assert vocabulary.vocab_size == len(vocabulary.words) <= vocab_size
    for text in texts:
        pieces = vocabulary.split(text)
        assert vocabulary.encode(text) == [vocabulary.words.index(piece) if piece in vocabulary.words else 3 for piece in pieces]
    assert vocabulary.encode_batch(texts) == [vocabulary.encode(text) for text in texts]
    unknown = sum(piece not in vocabulary.words for text in texts for piece in vocabulary.split(text))
    assert vocabulary.unknown_share(iter(texts)) == unknown / sum(counts.values())


def test_no_text_has_no_unknown_share():
    assert trained("a").unknown_share([]) == trained("a").unknown_share(["", " "]) == 0


@given(any_text)
def test_known_characters_come_back_with_folded_white_space(text):
    folded = " ".join(join_surrogates(text).split())
    if folded:
        vocabulary = trained(text, unit="characters", vocab_size=10_000)
        assert vocabulary.decode([1, *vocabulary.encode(text), 2, 0]) == folded


def test_words_are_decoded_with_spaces_and_unknown_ones_shown():
    vocabulary = trained("Dogs run, dogs sleep")
    assert vocabulary.decode([1, *vocabulary.encode("dogs  run, cats"), 2, 0]) == "dogs run , <unk>"
    assert vocabulary.decode([]) == ""
    assert trained("ab", unit="characters").decode([3]) == "<unk>"


def test_special_tokens_have_fixed_ids_and_never_come_out_of_text():
    for unit in ("words", "characters"):
        vocabulary = trained("<pad> <bos> <eos> <unk>", unit=unit)
        assert [vocabulary.token(index) for index in range(4)] == list(SPECIALS)
        assert (vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2, 3)
        assert min(vocabulary.encode("<pad> <bos> <eos> <unk>")) >= 4


def test_tokens_are_shown_for_the_eye_and_all_start_words():
    vocabulary = trained("a \u200d", unit="characters")
    assert {vocabulary.token(index) for index in range(4, vocabulary.vocab_size)} == {"a", "▁", "\\u200d"}
    assert vocabulary.word_starts(range(vocabulary.vocab_size)).tolist() == [True] * vocabulary.vocab_size


@pytest.mark.parametrize("index", [-1, 100_000, 2**40])
def test_an_id_outside_the_vocabulary_is_refused(index):
    vocabulary = trained("a b")
    for ask in (vocabulary.token, lambda index: vocabulary.decode([4, index])):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            ask(index)


ENGLISH_TEXT = "once upon a time there was a long sentence with 北京 and 北京 in it"


def test_few_chinese_characters_need_no_package(no_jieba):
    vocabulary = trained(ENGLISH_TEXT)
    assert {"北", "京"} < set(vocabulary.words)
    assert vocabulary.decode(vocabulary.encode("我在北京")) == "<unk> <unk> 北 京"


def test_chinese_words_need_jieba(no_jieba):
    with pytest.raises(MissingExtra, match=r"task.tokens=characters.*no package\) needs the package 'jieba'.*extra 'chinese'"):
        trained("我在北京")
    with pytest.raises(MissingExtra, match=r"extra 'chinese'"):
        Words([*SPECIALS, "北京"], unit="words", chinese=True).encode("我在北京")
    for stop_words in ("zh", "en+zh"):
        with pytest.raises(MissingExtra, match=rf"task.stop_words={re.escape(stop_words)} needs the package 'jieba'"):
            prepared("", stop_words=stop_words)
    assert trained("我在北京", unit="characters").decode([4, 5, 6, 7]) == "京北在我"


@needs_jieba
def test_the_order_of_texts_changes_no_vocabulary():
    texts = [ENGLISH_TEXT, "我在北京。", "我们去北京天安门"]
    vocabulary = trained(*texts)
    assert vocabulary.to_json() == trained(*reversed(texts)).to_json()
    assert vocabulary.chinese
    assert vocabulary.words[4:6] == ["北京", "a"]


def test_a_vocabulary_comes_back_from_its_file(tmp_path: Path):
    parts = {unit: trained("don't stop, 北 😀 don't", "once upon a time it was", unit=unit) for unit in ("words", "characters")}
    save_parts(tmp_path, parts)
    for unit, loaded in load_parts(tmp_path).items():
        assert isinstance(loaded, Words)
        assert loaded.to_json() == parts[unit].to_json()
        assert loaded.encode("stop it, 京") == parts[unit].encode("stop it, 京")


CONTENT = {"unit": "words", "chinese": False, "words": [*SPECIALS, "dog", "don't"]}


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {**CONTENT, "unit": "bytes"},
        {**CONTENT, "unit": ["words"]},
        {**CONTENT, "chinese": 1},
        {**CONTENT, "words": "dog"},
        {**CONTENT, "words": [*SPECIALS, 7]},
        {**CONTENT, "words": list(SPECIALS)},
        {**CONTENT, "words": ["dog", "cat", "cow", "hen", "pig"]},
        {**CONTENT, "words": [*SPECIALS, "dog", "dog"]},
        {**CONTENT, "words": [*SPECIALS, "<eos>"]},
        {**CONTENT, "words": [*SPECIALS, "two dogs"]},
        {**CONTENT, "words": [*SPECIALS, ""]},
        {**CONTENT, "unit": "characters"},
        {**CONTENT, "unit": "characters", "words": [*SPECIALS, "\n"]},
    ],
)
def test_a_spoiled_vocabulary_is_refused(content):
    with pytest.raises(CheckpointError, match=r"not a vocabulary.*restore the run folder"):
        Words.from_json(content)


def run_python(program: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env={**os.environ, **environment},
        check=False,
    )


CUT = "from heed.data.words import cut_chinese; print(*cut_chinese('我爱北京'))"


@needs_jieba
def test_jieba_says_nothing_and_writes_nothing(tmp_path: Path):
    done = run_python(CUT, tmp_path, TMPDIR=str(tmp_path), PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["我", "爱", "北京"], "")
    assert list(tmp_path.iterdir()) == []


def test_warnings_of_jieba_do_not_keep_it_out(tmp_path: Path):
    (tmp_path / "jieba.py").write_text(
        "import warnings\n"
        "warnings.warn('pkg_resources is deprecated', UserWarning)\n"
        "ESCAPE = '\\.'\n"
        "class Tokenizer:\n"
        "    def get_dict_file(self): return None\n"
        "    def gen_pfdict(self, file): return {}, 0\n"
        "    def cut(self, run): return iter(run)\n"
    )
    done = run_python(CUT, tmp_path, PYTHONIOENCODING="utf-8")
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["我", "爱", "北", "京"], "")
