"""Language models that a recogniser learns from its own transcripts: against the same model given to it from outside."""

from pathlib import Path
from typing import Any

import pytest
from toy_listeners import TRAIN, answers, build, recordings, trained
from toy_recordings import MODEL, SETTINGS, write_manifest, write_recordings

import heed
from heed.data.ngrams import Ngrams
from heed.errors import ConfigError
from heed.run import Run, resolve
from heed.training.prepare import prepare

BEAMS = {"beams": 4, "precision": "float32"}


@pytest.fixture(scope="module")
def lent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("lent"), steps=60, ngram_order=3)


def test_n_grams_are_those_of_the_transcripts(tmp_path: Path) -> None:
    rows = write_recordings(tmp_path, 12)
    found = build(rows, ngram_order=3).own_ngrams
    assert found is not None
    assert list(found.lines()) == list(Ngrams.train((row["text"].replace(" ", "▁") for row in rows), order=3).lines())
    assert build(rows).own_ngrams is None


def test_of_spelled_transcripts_n_grams_are_of_characters(tmp_path: Path) -> None:
    rows = write_recordings(tmp_path, 12)
    letters = sorted({letter for row in rows for letter in row["text"]} - {" "})
    table = tmp_path / "table.tsv"
    table.write_text("".join(f"{letter}\t{' '.join('x' * (i + 1))}\n" for i, letter in enumerate(letters)))
    found = build(rows, ngram_order=2, tokens="spelled", spelling=str(table)).own_ngrams
    assert found is not None
    assert found.vocabulary - {"<s>", "</s>", "<unk>", "▁"} == set(letters)


def test_a_run_answers_with_its_own_n_grams_as_with_the_same_from_a_file(lent: Run, tmp_path: Path) -> None:
    own = lent.task.parts["ngrams"]
    assert isinstance(own, Ngrams)
    own.to_arpa(tmp_path / "same.arpa")
    found = [one.score for one in answers(lent, recordings(), **BEAMS)]
    from_file = answers(lent, recordings(), **BEAMS, language_model=str(tmp_path / "same.arpa"))
    without = [one.score for one in answers(lent, recordings(), **BEAMS, language_weight=0.0)]
    assert found == pytest.approx([one.score for one in from_file])
    assert found != pytest.approx(without)
    again = heed.load(lent.folder)
    assert [one.score for one in answers(again, recordings(), **BEAMS)] == pytest.approx(found)


def test_a_run_that_starts_from_another_learns_its_own(lent: Run, tmp_path: Path) -> None:
    rows = [{**row, "text": row["text"][:2].strip()} for row in write_recordings(tmp_path / "r", 12)]
    train = write_manifest(tmp_path / "train.tsv", rows)
    recipe: dict[str, Any] = {
        "init": str(lent.folder),
        "task": {"name": "speech_recognition", **SETTINGS, "ngram_order": 2},
        "data": {"train": str(train), "valid": str(train), "allow_leaks": True},
        "model": MODEL,
        "train": {**TRAIN, "steps": 2},
    }
    run = heed.train(recipe, to=tmp_path / "run", quiet=True)
    found = run.task.parts["ngrams"]
    assert isinstance(found, Ngrams)
    assert found.order == 2
    assert list(found.lines()) == list(Ngrams.train((row["text"].replace(" ", "▁") for row in rows), order=2).lines())


def test_a_weight_of_no_language_model_is_refused() -> None:
    task = {"name": "speech_recognition"}
    with pytest.raises(ConfigError, match=r"decode\.language_weight would be ignored.*task\.ngram_order"):
        resolve({"task": task, "decode": {"language_weight": 0.3}})
    assert resolve({"task": {**task, "ngram_order": 3}, "decode": {"language_weight": 0.3}}).decode.language_weight == 0.3


def test_n_grams_are_not_those_of_extra_recordings(tmp_path: Path) -> None:
    rows = write_recordings(tmp_path / "own", 12)
    extra = [{**row, "text": "zebra"} for row in write_recordings(tmp_path / "extra", 3, seed=9)]
    recipe: dict[str, Any] = {
        "task": {"name": "speech_recognition", **SETTINGS, "ngram_order": 2},
        "model": MODEL,
        "data": {
            "train": str(write_manifest(tmp_path / "train.tsv", rows)),
            "extra": str(write_manifest(tmp_path / "extra.tsv", extra)),
            "folds": 2,
        },
    }
    prepared = prepare(resolve(recipe, {}), tmp_path / "run", lambda _: None)
    own, tokenizer = prepared.run.task.parts["ngrams"], prepared.run.task.parts["tokenizer"]
    assert isinstance(own, Ngrams)
    assert "z" not in own.vocabulary
    assert "z" in tokenizer.to_json()["words"]
    assert int((prepared.train.rows < 0).sum()) == 3
