"""A run folder that was changed, damaged or put together by somebody else is refused, and none is lost where another is to be made."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from toy_runs import Train, edit_config

from heed.errors import CheckpointError, ConfigError, DataError
from heed.files import sha256
from heed.run import Run, new_folder, verify, write_manifest

pytest_plugins = ["toy_runs"]


@pytest.mark.parametrize("name", ["config.yaml", "parts/tokenizer.json", "model.safetensors", "manifest.json"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
@pytest.mark.parametrize("bit", [1, 0x20])
def test_one_flipped_bit_anywhere_is_noticed_and_named(run_copy: Path, name: str, place: float, bit: int) -> None:
    path = run_copy / name
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= bit
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="restore"):
        Run.load(run_copy)


def test_every_bit_of_the_manifest_matters(run_copy: Path) -> None:
    path = run_copy / "manifest.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x01]) + content[place + 1 :])
        with pytest.raises(CheckpointError):
            verify(run_copy)


@pytest.mark.parametrize("name", ["config.yaml", "parts/tokenizer.json", "model.safetensors", "manifest.json"])
def test_a_missing_file_is_named(run_copy: Path, name: str) -> None:
    (run_copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace("parts/", "")):
        Run.load(run_copy)


def test_a_part_that_nobody_bound_is_noticed(run_copy: Path) -> None:
    shutil.copy(run_copy / "parts" / "tokenizer.json", run_copy / "parts" / "second.json")
    with pytest.raises(CheckpointError, match=r"parts/second.json"):
        Run.load(run_copy)


def test_a_vocabulary_that_does_not_fit_the_model_is_refused_even_when_bound(run_copy: Path, train: Train) -> None:
    other = train("other", task={"vocab_size": 310})
    shutil.copy(other.folder / "parts" / "tokenizer.json", run_copy / "parts" / "tokenizer.json")
    write_manifest(run_copy)
    with pytest.raises(CheckpointError, match=r"the vocabulary does not fit the model: by parts/ it is vocab_size=310"):
        Run.load(run_copy)


def test_weights_that_do_not_fit_the_config_are_refused_even_when_bound(run_copy: Path) -> None:
    edit_config(run_copy, model={"d_model": 32})
    with pytest.raises(CheckpointError, match=r"model.safetensors: the weights do not fit config.yaml: .* is \(.*16.*\), expected \(.*32"):
        Run.load(run_copy)


def test_more_layers_than_there_are_weights_for_are_refused(run_copy: Path) -> None:
    edit_config(run_copy, model={"n_layers": 2})
    with pytest.raises(CheckpointError, match=r"is nothing, expected"):
        Run.load(run_copy)


@pytest.mark.parametrize(
    "size", [{"d_model": 2 << 30}, {"d_ff": 1 << 50}, {"n_layers": 10**9}, {"max_length": 1 << 60, "positions": "learned"}]
)
def test_sizes_are_compared_before_memory_is_taken(run_copy: Path, size: dict[str, Any]) -> None:
    edit_config(run_copy, model=size)
    with pytest.raises(CheckpointError, match=r"the weights do not fit config\.yaml"):
        Run.load(run_copy)


def test_a_longest_sequence_beyond_all_memory_is_only_a_number(run_copy: Path) -> None:
    edit_config(run_copy, model={"max_length": 1 << 60, "positions": "sinusoidal"})
    assert Run.load(run_copy).predict({"source": "the dog"}).text is not None


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "manifest.json", "parts/tokenizer.json", "parts"])
def test_symbolic_links_in_a_run_folder_are_refused(run_copy: Path, tmp_path: Path, name: str) -> None:
    (run_copy / name).rename(tmp_path / "elsewhere")
    (run_copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is a symbolic link"):
        Run.load(run_copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "parts/../config.yaml"])
def test_a_manifest_cannot_name_files_elsewhere(run_copy: Path, name: str) -> None:
    (run_copy.parent / "outside").write_text("x")
    path = run_copy / "manifest.json"
    content = json.loads(path.read_text())
    content["sha256"][name] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"manifest\.json lists"):
        Run.load(run_copy)


def test_parts_that_are_no_parts_are_refused_even_when_bound(run_copy: Path) -> None:
    path = run_copy / "parts" / "tokenizer.json"
    content = json.loads(path.read_text())
    for wrong in ({**content, "kind": "pickle"}, {**content, "tokenizer": {}}, [1]):
        path.write_text(json.dumps(wrong))
        write_manifest(run_copy)
        with pytest.raises(CheckpointError):
            Run.load(run_copy)
    path.rename(path.with_name("words.json"))
    path.with_name("words.json").write_text(json.dumps(content))
    write_manifest(run_copy)
    with pytest.raises(CheckpointError, match=r"parts: has no tokenizer.json"):
        Run.load(run_copy)


def test_a_config_of_another_format_is_refused(run_copy: Path) -> None:
    edit_config(run_copy, format=99)
    with pytest.raises(CheckpointError, match="expected format 2"):
        Run.load(run_copy)


def test_a_manifest_of_another_format_is_refused(run_copy: Path) -> None:
    path = run_copy / "manifest.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(CheckpointError, match=r"manifest.json: expected format 2, found 3"):
        verify(run_copy)


def test_a_manifest_nested_beyond_reading_is_refused(run_copy: Path) -> None:
    (run_copy / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match=r"manifest\.json: cannot be read .*nested too deeply"):
        Run.load(run_copy)


def test_no_run_folder_is_told_from_one_that_is_not_trained_yet(tmp_path: Path, run_copy: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        Run.load(tmp_path / "nowhere")
    (run_copy / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="heed train --resume"):
        Run.load(run_copy)


def test_a_run_that_is_there_is_refused_and_left_alone(train: Train, run_copy: Path) -> None:
    before = sha256(run_copy / "model.safetensors")
    with pytest.raises(ConfigError, match=r"exists already and is never overwritten; choose another --to, or say --force"):
        train(run_copy.name)
    assert sha256(run_copy / "model.safetensors") == before


def test_force_replaces_a_run_and_nothing_of_the_old_one_is_left(train: Train, run_copy: Path) -> None:
    (run_copy / "notes.txt").write_text("old")
    run = train(run_copy.name, force=True, seed=3)
    assert run.config.seed == 3
    assert not (run_copy / "notes.txt").exists()
    assert [path.name for path in run_copy.parent.iterdir()] == [run_copy.name]


def test_force_loses_no_run_when_the_new_one_cannot_begin(train: Train, run_copy: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        train(run_copy.name, force=True, data={"train": str(run_copy.parent / "typo.tsv")})
    verify(run_copy)
    assert [path.name for path in run_copy.parent.iterdir()] == [run_copy.name]


def test_force_does_not_delete_what_is_no_run(train: Train, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is not a run folder, so --force does not delete it"):
        train("thesis", force=True)
    (tmp_path / "file").write_text("text")
    with pytest.raises(ConfigError, match="--force does not delete it"):
        train("file", force=True)


@pytest.mark.parametrize(("inside", "named"), [(".", "."), (".", "../copied run"), ("parts", "..")])
def test_force_does_not_pull_away_the_folder_that_one_is_in(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, inside: str, named: str
) -> None:
    monkeypatch.chdir(run_copy / inside)
    with pytest.raises(ConfigError, match="is the folder you are in, or holds it"), new_folder(Path(named), force=True):
        pass
    verify(run_copy)


def test_a_folder_that_cannot_be_made_is_refused(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(ConfigError, match=r"file/run: no folder can be made there \(Not a directory\)"):
        train("file/run")


def test_an_empty_folder_may_be_trained_into(train: Train, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert (train("empty", train={"steps": 1}).folder / "manifest.json").is_file()


def test_a_folder_is_kept_from_the_moment_it_is_worth_it(tmp_path: Path) -> None:
    for name, is_kept in (("kept", True), ("lost", False)):
        with contextlib.suppress(InterruptedError), new_folder(tmp_path / name, force=False) as keep:
            if is_kept:
                keep()
            raise InterruptedError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
