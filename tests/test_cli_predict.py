"""The command line of predicting: inputs from arguments, files and standard input, and one answer each."""

import gzip
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_runs import Command, Train, write_rows

from heed.run import Run, write_manifest

pytest_plugins = ["toy_runs"]


@pytest.fixture
def folder(toy_run: Run) -> Path:
    """Return the folder of a trained run that no test changes."""
    return toy_run.folder


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Return a function that puts bytes on standard input."""
    return lambda content: monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_a_vocabulary_that_does_not_fit_its_weights_is_refused(command: Command, run_copy: Path, train: Train) -> None:
    other = train("other", task={"vocab_size": 310})
    shutil.copy(other.folder / "parts" / "tokenizer.json", run_copy / "parts" / "tokenizer.json")
    write_manifest(run_copy)
    assert "the vocabulary does not fit the model" in command("predict", run_copy, "the dog").complaint


def test_learned_positions_refuse_a_longer_input(command: Command, train: Train) -> None:
    run = train(model={"positions": "learned", "max_length": 24}, data={"max_length": 24}, train={"steps": 1})
    done = command("predict", run.folder, "zebra " * 20)
    assert re.search(r"input 1: \d+ tokens, but this model takes at most 24; split it", done.complaint)
    assert done.out == ""


def test_answers_are_one_line_each_in_the_order_of_the_inputs(command: Command, toy_run: Run, folder: Path) -> None:
    texts = ["the dog sees the cat", "", "one old man", "the dog"]
    done = command("predict", folder, *texts)
    assert done.out.split("\n") == [*(answer.text for answer in toy_run.predict([{"source": text} for text in texts])), ""]
    assert done.out.split("\n")[1] == ""
    assert done.err == ""


def test_json_answers_are_one_object_per_line(command: Command, toy_run: Run, folder: Path) -> None:
    texts = ["the dog", "", "one cat"]
    done = command("predict", folder, "--json", *texts, "decode.beams=3", "decode.n_best=2")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert found == [answer.to_json() for answer in toy_run.predict([{"source": text} for text in texts], beams=3, n_best=2)]
    assert len(found[0]["others"]) == 1
    assert found[1] == {"text": "", "score": 0.0}


def test_samples_follow_decode_seed(command: Command, folder: Path) -> None:
    outs = [command("predict", folder, "the dog", "one cat", "decode.temperature=5", f"decode.seed={seed}").out for seed in (1, 1, 2)]
    assert outs[0] == outs[1] != outs[2]


@pytest.mark.parametrize("name", ["x.txt", "x.de", "x", "x.tsv", "x.csv", "x.jsonl", "x.txt.gz", "x.tsv.gz"])
def test_inputs_come_from_files_of_all_forms(command: Command, folder: Path, tmp_path: Path, name: str) -> None:
    texts = ["the dog", "one old cat", "a man"]
    if ".tsv" in name or ".csv" in name:
        content = "".join(f"{line}\n" for line in ["source", *texts])
    elif ".jsonl" in name:
        content = "".join(json.dumps({"id": 1, "source": text}) + "\n" for text in texts)
    else:
        content = "".join(f"{text}\n" for text in texts)
    raw = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    assert command("predict", folder, "--file", tmp_path / name).out == command("predict", folder, *texts).out


def test_blank_lines_of_a_file_get_blank_answers(command: Command, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("the dog\n\none cat\n")
    assert command("predict", folder, "--file", tmp_path / "x.txt").out.split("\n")[1] == ""
    (tmp_path / "empty.txt").write_text("")
    nothing = command("predict", folder, "--file", tmp_path / "empty.txt")
    assert (nothing.code, nothing.out) == (0, "")


def test_inputs_come_from_standard_input(command: Command, folder: Path, typed: Callable[[bytes], None]) -> None:
    typed("\ufeffthe dog\r\n\none cat".encode())
    assert command("predict", folder, "--file", "-").out == command("predict", folder, "the dog", "", "one cat").out


def test_bytes_that_are_no_text_on_standard_input_are_refused(command: Command, folder: Path, typed: Callable[[bytes], None]) -> None:
    typed(b"the dog\nk\xe4se\n")
    assert "standard input:2: not UTF-8 text" in command("predict", folder, "--file", "-").complaint


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "nothing to answer"),
        (["--file", "no/such.txt"], "no such file"),
        (["x", "decode.beam=2"], r"decode.beam: unknown setting.*decode.beams"),
        (["x", "decode.beams=two"], r"decode.beams: .*found 'two'"),
        (["x", "decode.n_best=9"], "needs at least as many beams"),
        (["--file", "HERE/columns.tsv"], "no column 'source'"),
    ],
)
def test_a_prediction_that_cannot_be_made_is_one_clear_line(
    command: Command, folder: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "columns.tsv").write_text("english\nhello\n")
    done = command("predict", folder, *(argument.replace("HERE", str(tmp_path)) for argument in arguments))
    assert re.search(expected, done.complaint)
    assert done.out == ""


def test_columns_of_an_input_file_can_be_renamed(command: Command, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("english\nthe dog\n")
    done = command("predict", folder, "--file", tmp_path / "x.tsv", "data.columns.source=english")
    assert done.out == command("predict", folder, "the dog").out


def test_text_with_an_equals_sign_is_an_input_unless_it_is_a_setting(command: Command, folder: Path) -> None:
    assert len(command("predict", folder, "a=b", "x.y=3").out.split("\n")) == 3
    assert "only data.* and decode.* settings can change" in command("predict", folder, "a", "train.lr=3").complaint


def test_a_setting_of_decoding_without_its_group_is_no_input(command: Command, folder: Path) -> None:
    done = command("predict", folder, "the dog", "temperature=0.7")
    assert "'temperature=0.7': write decode.temperature=0.7" in done.complaint
    assert done.out == ""


def test_two_texts_of_an_input_are_separated_by_a_tab(command: Command, pair_run: Run, tmp_path: Path) -> None:
    pairs = [{"text": "the red dog", "text_pair": "one cat"}, {"text": "blue", "text_pair": "the old tree"}]
    expected = [answer.to_json() for answer in pair_run.predict(pairs)]
    lines = [f"{pair['text']}\t{pair['text_pair']}" for pair in pairs]
    done = command("predict", pair_run.folder, "--json", *lines)
    assert [json.loads(line) for line in done.out.splitlines()] == expected
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    assert command("predict", pair_run.folder, "--json", "--file", tmp_path / "pairs.txt").out == done.out
    table = write_rows(tmp_path / "pairs.tsv", pairs)
    assert command("predict", pair_run.folder, "--json", "--file", table).out == done.out


def test_an_input_without_its_second_text_is_one_clear_line(command: Command, pair_run: Run) -> None:
    done = command("predict", pair_run.folder, "the red dog")
    assert "input 1: has no 'text_pair'" in done.complaint
    assert done.out == ""


def test_a_tab_too_many_belongs_to_the_last_text(command: Command, pair_run: Run) -> None:
    (answer,) = pair_run.predict([{"text": "the dog", "text_pair": "one red\tcat"}])
    done = command("predict", pair_run.folder, "--json", "the dog\tone red\tcat")
    assert json.loads(done.out) == answer.to_json()
