"""Parts on disk: one JSON file each, and a clear word when one cannot be used."""

import json
from pathlib import Path

import pytest

from heed.data.parts import load_parts, part_kinds, save_parts
from heed.data.text import Tokenizer
from heed.errors import CheckpointError

TEXTS = ["a naïve café", "好的 🙂", "once upon a time there was a tokenizer"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, algorithm="bpe", vocab_size=300)


def test_parts_come_back_by_name(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_parts(tmp_path / "deep" / "parts", {"source_tokenizer": tokenizer, "target_tokenizer": tokenizer})
    parts = load_parts(tmp_path / "deep" / "parts")
    assert list(parts) == ["source_tokenizer", "target_tokenizer"]
    for part in parts.values():
        assert isinstance(part, Tokenizer)
        assert part.to_json() == tokenizer.to_json()
        assert part.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_every_kind_is_known_by_its_own_name() -> None:
    assert all(part.kind == kind for kind, part in part_kinds().items())


def test_a_part_is_readable_json_that_names_its_kind(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_parts(tmp_path, {"tokenizer": tokenizer})
    text = (tmp_path / "tokenizer.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"kind": "tokenizer", **tokenizer.to_json()}


def test_without_parts_there_is_nothing_to_load(tmp_path: Path) -> None:
    save_parts(tmp_path / "parts", {})
    assert load_parts(tmp_path / "parts") == {}


NO_PARTS = ["", "{", "[]", "null", "7", '"kind"', "{}", '{"kind": null}', '{"kind": ["tokenizer"]}', "[" * 100_000, "\udcff"]


@pytest.mark.parametrize("content", NO_PARTS, ids=range(len(NO_PARTS)))
def test_what_is_no_part_is_refused_by_its_path(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"broken\.json: not a part file.*restore"):
        load_parts(tmp_path)


def test_a_folder_in_place_of_a_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").mkdir()
    with pytest.raises(CheckpointError, match=r"broken\.json: not a part file"):
        load_parts(tmp_path)


def test_an_unknown_kind_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"kind": "crystal_ball"}')
    with pytest.raises(CheckpointError, match=r"x\.json: kind 'crystal_ball' is not one of tokenizer.*another version"):
        load_parts(tmp_path)


def test_a_part_that_does_not_hold_what_it_needs_is_refused_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"kind": "tokenizer", "algorithm": "bpe"}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        load_parts(tmp_path)
