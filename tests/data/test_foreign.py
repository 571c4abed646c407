"""Tokenizers of other makers: whatever their ids, heed's special tokens stand first, and texts, places and words are as they should be."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from heed.data.characters import spellings
from heed.data.foreign import ForeignTokenizer, Frame
from heed.data.parts import load_parts, save_parts
from heed.data.text import Tokenizer
from heed.errors import CheckpointError, ConfigError

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Über 42 naïve dogs; 好的，我们走吧 🙂!", "quicker, quickest, unquick"]


def trained(model: Any, trainer: Any, pre_tokenizer: Any, decoder: Any, normalizer: Any = None) -> Backend:
    backend = Backend(model)
    backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoder
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def words() -> ForeignTokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=specials, show_progress=False)
    parts = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(prefix="##"), normalizers.BertNormalizer(lowercase=True)
    backend = trained(models.WordPiece(unk_token="[UNK]"), trainer, *parts)
    return ForeignTokenizer(json.loads(backend.to_str()), [0, 2, 3, 1], backend.get_vocab_size() + 5, frame=Frame(ends_texts=True, mask=4))


def raw_bytes() -> ForeignTokenizer:
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend = trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())
    backend.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    backend.add_tokens([AddedToken("<tag>", normalized=False)])
    n = backend.get_vocab_size()
    frame = Frame(begin=2, begins_texts=False)
    return ForeignTokenizer(json.loads(backend.to_str()), [None, None, n - 2, None], n, frame=frame)


def marks() -> ForeignTokenizer:
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    sentinels = [f"<extra_id_{i}>" for i in range(3)]
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<unk>", "<s>", "</s>", *sentinels, *fallback], show_progress=False)
    space = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    undo = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)])
    backend = trained(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True), trainer, space, undo)
    pipeline = json.loads(backend.to_str())
    pipeline["added_tokens"] = [token for token in pipeline["added_tokens"] if not token["content"].startswith("<0x")]  # as Llama has them
    return ForeignTokenizer(pipeline, [None, 1, 2, 0], backend.get_vocab_size())


MAKERS: dict[str, Callable[[], ForeignTokenizer]] = {"words": words, "bytes": raw_bytes, "marks": marks}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> ForeignTokenizer:
    return MAKERS[request.param]()


def test_special_tokens_stand_first_and_every_foreign_id_once(tokenizer: ForeignTokenizer) -> None:
    known = [index for index in tokenizer.ids if index is not None]
    assert sorted(known) == list(range(len(known)))
    assert tokenizer.ids[:4] == tokenizer.specials
    rest = tokenizer.ids[4:]
    assert rest == sorted(index for index in known if index not in tokenizer.specials)
    assert tokenizer.absent == [i for i, index in enumerate(tokenizer.ids) if index is None]
    assert Tokenizer.train(["any"], algorithm="bpe", vocab_size=260).absent == []


def test_ids_are_those_of_the_pipeline_and_texts_come_back(tokenizer: ForeignTokenizer) -> None:
    plain = Backend.from_str(json.dumps(tokenizer.pipeline))
    for text, ids in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
        expected = plain.encode(text, add_special_tokens=False).ids
        assert [tokenizer.ids[i] for i in ids] == expected
        assert tokenizer.decode(ids) == plain.decode(expected)
        assert tokenizer.encode(text) == ids
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_truncation_and_padding_of_the_file_are_not_obeyed() -> None:
    one = words()
    backend = Backend.from_str(json.dumps(one.pipeline))
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    cutting = ForeignTokenizer(json.loads(backend.to_str()), one.specials, len(one.ids))
    assert cutting.encode_batch([*TEXTS, "a"]) == one.encode_batch([*TEXTS, "a"])


def test_what_ids_write_joined_is_the_text(tokenizer: ForeignTokenizer) -> None:
    written = spellings(tokenizer)
    assert len(written) == tokenizer.vocab_size
    assert written[:3] == [b"", b"", b""]
    for text in TEXTS:
        ids = tokenizer.encode(text)
        joined = b"".join(written[i] for i in ids).decode("utf-8", "replace")
        if isinstance(Backend.from_str(json.dumps(tokenizer.pipeline)).model, models.WordPiece):
            assert joined.split() == " ".join(joined.split()).split()
            assert "".join(joined.split()) == "".join(c for c in tokenizer.decode(ids) if not c.isspace()).replace("[UNK]", "")
        else:
            assert joined.removeprefix(" ") == text


def test_bytes_that_stand_for_unknown_characters_are_spelled_as_bytes() -> None:
    one = marks()
    ids = one.encode("a\né")
    assert b"".join(one.pieces[i] for i in ids) == " a\né".encode()


def test_places_are_those_of_the_text_as_given_without_white_space(tokenizer: ForeignTokenizer) -> None:
    for text in ["the quick dog", "  two  quick\tdogs ", "naïve 🙂 ok", "a \ud83d\ude42 dog", "dog \ud83d quick"]:
        ((ids, places),) = tokenizer.with_places([text])
        assert ids == tokenizer.encode(text)
        assert len(places) == len(ids)
        assert all(0 <= start <= end <= len(text) for start, end in places)
        covered = {place for start, end in places for place in range(start, end)}
        assert {place for place, char in enumerate(text) if not char.isspace() and char < "\u0080"} <= covered
        assert all(text[start:end].strip() == text[start:end] or not text[start:end].strip() for start, end in places)
        starts = [start for start, _ in places]
        assert starts == sorted(starts)


def test_the_places_of_a_word_are_its_own(tokenizer: ForeignTokenizer) -> None:
    text = "the quickest  dog"
    ((ids, places),) = tokenizer.with_places([text])
    written = [(start, end) for start, end in places if text[start:end].strip()]
    for word in text.split():
        start, end = text.index(word), text.index(word) + len(word)
        inside = [place for place in written if start <= place[0] and place[1] <= end]
        assert (inside[0][0], inside[-1][1]) == (start, end)
    assert len(ids) == len(places)


def test_words_begin_where_a_space_stands_before_them(tokenizer: ForeignTokenizer) -> None:
    ids = tokenizer.encode("the quickest dog")
    starts = tokenizer.word_starts(ids).nonzero()[0].tolist()
    words_found = [tokenizer.decode(ids[a:b]).strip() for a, b in zip(starts, [*starts[1:], len(ids)], strict=True)]
    assert words_found == ["the", "quickest", "dog"]


def test_special_tokens_a_text_spells_are_found_but_do_not_end_a_text_of_an_encoder() -> None:
    encoder = words()
    assert encoder.mask_id in encoder.encode("the [MASK] dog")
    assert encoder.encode("a [SEP] b [CLS] [PAD]").count(encoder.unk_id) == 3
    assert not {0, 1, 2} & set(encoder.encode("a [SEP] b [CLS] [PAD]"))
    causal = raw_bytes()
    assert causal.encode("a<|end|>")[-1] == causal.eos_id == causal.bos_id
    assert causal.decode(causal.encode("a<|end|>")) == "a"
    assert causal.decode(causal.encode("a<tag>b")) == "a<tag>b"


def test_every_id_has_a_name_and_ids_beyond_the_vocabulary_are_refused(tokenizer: ForeignTokenizer) -> None:
    assert all(isinstance(tokenizer.token(i), str) for i in range(tokenizer.vocab_size))
    for index in (-1, tokenizer.vocab_size):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            tokenizer.decode([index])


def test_masks_and_sentinels_are_known_where_there_are_any() -> None:
    encoder, spans = words(), marks()
    assert encoder.token(encoder.mask_id) == "[MASK]"
    assert [spans.token(i) for i in spans.sentinels(3)] == ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>"]
    with pytest.raises(ConfigError, match=r"has 3 sentinels .*expected 4"):
        spans.sentinels(4)
    with pytest.raises(ConfigError, match="no token for what is hidden"):
        _ = spans.mask_id


def test_a_tokenizer_survives_its_file(tokenizer: ForeignTokenizer, tmp_path: Path) -> None:
    save_parts(tmp_path, {"tokenizer": tokenizer})
    again = load_parts(tmp_path)["tokenizer"]
    assert isinstance(again, ForeignTokenizer)
    assert again.to_json() == tokenizer.to_json()
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert (again.bos_id, again.ends_texts, again.begins_texts) == (tokenizer.bos_id, tokenizer.ends_texts, tokenizer.begins_texts)


BROKEN: list[dict[str, Any]] = [
    {"specials": [0, 1, 2]},
    {"specials": [0, 0, 2, 3]},
    {"specials": [0, 1, 2, 10**9]},
    {"specials": [True, 1, 2, 3]},
    {"n_foreign": 7},
    {"n_foreign": "many"},
    {"frame": {"begin": 1, "more": 2}},
    {"frame": {"begin": 5}},
    {"frame": {"mask": 10**6}},
    {"tokenizer": {}},
    {"tokenizer": None},
    {"settings": 3},
]


@pytest.mark.parametrize("change", BROKEN)
def test_a_broken_file_is_no_tokenizer(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="not a tokenizer"):
        ForeignTokenizer.from_json({**words().to_json(), **change})


@functools.cache
def kept(name: str) -> ForeignTokenizer:
    return MAKERS[name]()


@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=30))
def test_no_text_is_too_strange(text: str) -> None:
    for name in MAKERS:
        tokenizer = kept(name)
        ids = tokenizer.encode(text)
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        assert tokenizer.with_places([text])[0][0] == ids
