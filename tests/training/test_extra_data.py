"""Training examples from elsewhere (data.extra): learned from beside the others, never held out, and kept apart from what is scored."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_runs import TINY_TEXTS, toy_texts, write_rows

import heed
from heed.config import merge
from heed.data.store import Store
from heed.errors import DataError
from heed.experiments.baselines import trained_on
from heed.run import Run, resolve
from heed.training.division import names_of_rows, rows_of
from heed.training.prepare import Prepared, hashes_of, prepare, reopen

ROWS = toy_texts(90)
OWN, EXTRA = ROWS[:60], [{**row, "text": f"far {row['text']}"} for row in ROWS[60:]]


def settings_in(folder: Path, extra: list[dict[str, str]] = EXTRA, **data: Any) -> dict[str, Any]:
    files = {"train": str(write_rows(folder / "train.tsv", OWN)), "extra": str(write_rows(folder / "extra.tsv", extra))}
    return merge(TINY_TEXTS, {"data": {**files, **data}})


def prepared_in(folder: Path, **settings: Any) -> tuple[Prepared, list[str]]:
    said: list[str] = []
    return prepare(resolve(settings_in(folder, **settings), {}), folder / "run", said.append), said


def test_extra_examples_are_trained_on_in_every_fold_and_never_held_out(tmp_path: Path) -> None:
    for fold in (1, 2, 3):
        (tmp_path / str(fold)).mkdir()
        prepared, said = prepared_in(tmp_path / str(fold), folds=3, fold=fold)
        test = Store(prepared.run.folder / "store" / "test")
        assert int((prepared.train.rows < 0).sum()) == len(EXTRA)
        assert min(prepared.valid.rows) >= 0
        assert min(test.rows) >= 0
        own = [rows[rows >= 0].tolist() for rows in (prepared.train.rows, prepared.valid.rows, test.rows)]
        assert sorted(row for rows in own for row in rows) == list(range(len(OWN)))
        assert any(f"training ({len(EXTRA)} of them of data.extra) and" in line for line in said)


def test_words_of_extra_examples_are_known(tmp_path: Path) -> None:
    prepared, _ = prepared_in(tmp_path)
    assert "far" in prepared.run.task.parts["tokenizer"].to_json()["words"]


def test_what_was_trained_on_is_read_again_with_the_extra_examples(tmp_path: Path) -> None:
    prepared, _ = prepared_in(tmp_path)
    found = rows_of(prepared.run, "train")
    assert found is not None
    texts = [row["text"] for row in found]
    n_own = len(texts) - len(EXTRA)
    assert texts[n_own:] == [row["text"] for row in EXTRA]
    assert set(texts[:n_own]) < {row["text"] for row in OWN}
    assert [row["text"] for row in trained_on(prepared.run)] == texts
    held_out = rows_of(prepared.run, "valid")
    assert held_out is not None
    assert {row["text"] for row in held_out} | set(texts[:n_own]) == {row["text"] for row in OWN}


def test_a_store_that_is_gone_is_encoded_again_as_it_was(tmp_path: Path) -> None:
    prepared, _ = prepared_in(tmp_path)
    before = [(row, one["text"].tolist()) for row, one in zip(prepared.train.rows.tolist(), prepared.train, strict=True)]
    shutil.rmtree(prepared.run.folder / "store")
    again = reopen(prepared.run.folder, lambda _: None).train
    assert [(row, one["text"].tolist()) for row, one in zip(again.rows.tolist(), again, strict=True)] == before
    assert set(hashes_of(prepared.run.folder)) == {"train", "extra"}


def test_extra_data_that_changed_are_noticed(tmp_path: Path) -> None:
    prepared, _ = prepared_in(tmp_path)
    write_rows(tmp_path / "extra.tsv", EXTRA[:-1])
    with pytest.raises(DataError, match=r"data\.extra=.*extra\.tsv: changed since this run was started"):
        reopen(prepared.run.folder, lambda _: None)


@pytest.mark.parametrize("data", [{}, {"folds": 3}])
def test_an_extra_example_that_may_be_scored_is_refused_or_dropped(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"extra\.tsv: .*stand in data\.train too"):
        prepared_in(tmp_path, extra=[*EXTRA, OWN[0]], **data)
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    prepared, said = prepared_in(tmp_path, extra=[*EXTRA, OWN[0]], filter=True, **data)
    assert int((prepared.train.rows < 0).sum()) == len(EXTRA)
    assert any(line.startswith("found in data.extra ") and line.endswith("(dropped 1 of them)") for line in said)


def test_an_extra_example_may_stand_in_data_that_is_only_trained_on(tmp_path: Path) -> None:
    valid = str(write_rows(tmp_path / "valid.tsv", [{**row, "text": f"near {row['text']}"} for row in ROWS[60:]]))
    prepared, _ = prepared_in(tmp_path, extra=[*EXTRA, OWN[0]], valid=valid)
    assert int((prepared.train.rows < 0).sum()) == len(EXTRA) + 1


def test_a_run_learns_from_extra_examples(tmp_path: Path) -> None:
    """What only extra examples tell is answered: a word that decides, which no other example holds."""
    told = [{"text": f"north {row['text']}", "label": "northern"} for row in ROWS[60:]]
    settings = settings_in(tmp_path, extra=told, valid_share=0.2)
    run = heed.train(merge(settings, {"train": {"steps": 150, "batch_tokens": 300}}), to=tmp_path / "run", quiet=True)
    answers = Run.load(run.folder, device="cpu").predict([{"text": f"north {row['text']}"} for row in ROWS[:20]])
    assert np.mean([answer.text == "northern" for answer in answers]) > 0.9
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Of these from data.extra" in page


def test_classes_that_extra_examples_alone_have_are_told(tmp_path: Path) -> None:
    _, said = prepared_in(tmp_path, extra=[*EXTRA, {"text": "north wind", "label": "wram"}])
    assert "data.extra alone has 1 more class: wram 1; are they meant to be others?" in said
    (tmp_path / "same").mkdir()
    _, said = prepared_in(tmp_path / "same")
    assert not any("more class" in line for line in said)


def test_rows_are_named_by_their_files() -> None:
    assert names_of_rows([0, 41, -1, -3]) == "1, 42, 1 of data.extra, 3 of data.extra"
