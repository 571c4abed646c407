import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import TINY, ToyData, Train, toy_pairs

import heed
from heed import run as run_module
from heed.config import DecodeConfig, dump_yaml, merge, read_yaml
from heed.data.read import Example
from heed.errors import CheckpointError, ConfigError, DataError
from heed.files import sha256
from heed.model import build_model
from heed.run import Run, distinct, load_weights, new_folder, read_config, resolve, save_weights, verify, write_manifest
from heed.tasks import TASKS, Answer
from heed.tasks.translation import Translation

pytest_plugins = ["toy_runs"]


class Outsider(Translation):
    """A task that is not part of heed."""


OUTSIDER = f"{__name__}:Outsider"
INPUTS = [{"source": pair["source"]} for pair in toy_pairs(20, seed=77)]


def edit_config(folder: Path, **changes: Any) -> None:
    """Change config.yaml and bind it again, as somebody might by hand."""
    content = merge(read_yaml(folder / "config.yaml"), changes)
    (folder / "config.yaml").write_text(dump_yaml(content), encoding="utf-8")
    write_manifest(folder)


def test_settings_are_laid_over_a_recipe_and_all_are_written_out() -> None:
    config = resolve("translation", {"seed": 7, "model": {"d_model": 32}, "task": {"vocab_size": 400}})
    assert (config.seed, config.model.d_model, config.task["vocab_size"]) == (7, 32, 400)
    assert config.task["algorithm"] == "bpe"
    assert config.model.architecture == "seq2seq"


def test_a_recipe_may_be_a_file_a_shipped_name_a_mapping_or_a_task_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task: translation\ntrain:\n  lr: 5e-4\n")
    assert resolve(str(path)).train.lr == 5e-4
    assert resolve("translation").task["name"] == "translation"
    assert resolve({"task": "translation"}) == resolve({"task": {"name": "translation"}})
    assert resolve(OUTSIDER).task["name"] == OUTSIDER


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("translaton", {}, r"translaton: no such recipe file, and not one that ships \(.*translation.*\)"),
        ("no/such.yaml", {}, r"no/such.yaml: no such recipe file"),
        (
            {"task": "translatoin"},
            {},
            f"task.name: 'translatoin' is not one of {', '.join(TASKS)}, nor a path",
        ),
        ({"train": {"lr": 1}}, {}, f"task.name: expected {' or '.join(TASKS)}, or a path"),
        ({"task": ["translation"]}, {}, f"task.name: expected {' or '.join(TASKS)}, or a path"),
        ({"task": {"name": None}}, {}, f"task.name: expected {' or '.join(TASKS)}, or a path"),
        ("translation", {"task": {"vocabsize": 400}}, r"task.vocabsize: unknown setting.*; did you mean task.vocab_size\?"),
        ("translation", {"train": {"step": 4}}, r"train.step: unknown setting.*; did you mean train.steps\?"),
        ("translation", {"train": {"steps": "many"}}, r"train.steps: .*found 'many'"),
        ("translation", {"train": 5}, r"train: .*found 5"),
        ("translation", {"model": None}, r"model: .*found None"),
        ("translation", {"model": {"d_model": 30, "n_heads": 4}}, r"model.n_heads=4 does not divide model.d_model=30"),
        ("translation", {"model": {"positions": "learned", "max_length": 64}}, r"data.max_length=256 is more than model.max_length=64"),
        (":Nobody", {}, r"task.name: ':Nobody' cannot be imported"),
        ("no.such.module:Task", {}, r"task.name: 'no.such.module:Task' cannot be imported"),
        ("json:loads", {}, r"task.name: 'json:loads' is not a heed.tasks.Task"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_by_name(recipe: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(recipe, settings)


def test_what_is_read_back_from_a_run_folder_is_what_was_trained_with(toy_run: Run) -> None:
    assert read_config(toy_run.folder) == toy_run.config


def test_one_example_gets_an_answer_and_several_get_a_list(toy_run: Run) -> None:
    answer = toy_run.predict({"source": "the big dog"})
    assert isinstance(answer, Answer)
    assert answer.score is not None
    assert answer.score < 0
    assert toy_run.predict([{"source": "the big dog"}]) == [answer]
    assert toy_run.predict([]) == []


def test_answers_are_in_the_order_of_the_inputs_whatever_the_batches(toy_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [toy_run.predict(example) for example in INPUTS]
    assert len({answer.text for answer in alone}) > 5
    for window, budget in ((3, 8), (7, 30), (2048, 4096)):
        monkeypatch.setattr(run_module, "WINDOW", window)
        together = toy_run.predict(INPUTS, batch_tokens=budget)
        assert [answer.text for answer in together] == [answer.text for answer in alone]
        assert [answer.score for answer in together] == pytest.approx([answer.score for answer in alone], abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("beams", [1, 3])
def test_every_precision_answers_alone_as_in_a_batch_and_on_several_threads_as_on_one(toy_run: Run, precision: str, beams: int) -> None:
    examples = [{"source": pair["source"]} for pair in toy_pairs(60, seed=5)]
    options = {"precision": precision, "beams": beams, "batch_tokens": 40}
    together = toy_run.predict(examples, **options)
    assert [toy_run.predict(example, **options).text for example in examples[:20]] == [answer.text for answer in together[:20]]
    try:
        torch.set_num_threads(2)
        assert toy_run.predict(examples, **options) == together
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_int8_answers_are_nearly_always_those_of_float32(toy_run: Run) -> None:
    examples = [{"source": pair["source"]} for pair in toy_pairs(100, seed=6)]
    exact, rounded = (toy_run.predict(examples, precision=precision) for precision in ("float32", "int8"))
    assert sum(one.text == other.text for one, other in zip(exact, rounded, strict=True)) >= 95


def test_nothing_in_gives_nothing_out(toy_run: Run) -> None:
    assert [answer.text for answer in toy_run.predict([{"source": ""}, {"source": " \n\t"}, {"source": "the dog"}])][:2] == ["", ""]
    assert toy_run.predict({"source": ""}).text == ""
    assert toy_run.predict({"source": ""}, sample=True, seed=3).text == ""


@pytest.mark.parametrize("text", ["\x00", "🙂" * 40, "好的", "<eos> <pad>", "\ud83d", "a" * 3000, "&lt;b&gt;"])
def test_any_text_gets_an_answer(toy_run: Run, text: str) -> None:
    assert isinstance(toy_run.predict({"source": text}, beams=1).text, str)


def test_n_best_gives_runners_up_best_first(toy_run: Run) -> None:
    answer = toy_run.predict({"source": "the old tree"}, beams=4, n_best=3)
    scores = [one.score for one in (answer, *answer.others) if one.score is not None]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert answer.to_json().keys() == {"text", "score", "others"}


def test_samples_follow_their_seed(toy_run: Run) -> None:
    def texts(seed: int) -> list[str]:
        return [answer.text for answer in toy_run.predict(INPUTS, temperature=3.0, seed=seed)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 3}, r"decode.beam: unknown setting.*; did you mean decode.beams\?"),
        ({"beams": 0}, "decode.beams: "),
        ({"n_best": 3, "beams": 2}, "decode.n_best=3 needs at least as many beams"),
    ],
)
def test_wrong_decoding_options_are_refused(toy_run: Run, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        toy_run.predict({"source": "the dog"}, **options)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"text": "hello"}, r"input 6: has no 'source' \(text\); found 'text'"),
        ({}, r"input 6: has no 'source' \(text\); found nothing"),
        ({"source": 5}, r"input 6: 'source' should be text, found int"),
        ({"source": None}, r"input 6: 'source' should be text, found NoneType"),
    ],
)
def test_an_input_that_is_none_is_named_by_its_number_in_the_stream(
    toy_run: Run, monkeypatch: pytest.MonkeyPatch, example: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(run_module, "WINDOW", 4)
    with pytest.raises(DataError, match=message):
        toy_run.predict([*INPUTS[:5], example])


def test_answering_a_stream_holds_a_window_of_it(toy_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def stream() -> Iterator[Example]:
        nonlocal taken
        for example in INPUTS:
            taken += 1
            yield example

    ahead = []
    for number, _ in enumerate(toy_run.answers(stream(), DecodeConfig(beams=1, max_length=4), at_once=5), start=1):
        ahead.append(taken - number)
    assert len(ahead) == len(INPUTS)
    assert max(ahead) <= 4


def test_learned_positions_refuse_a_longer_input_and_never_write_a_longer_answer(train: Train) -> None:
    run = train(model={"positions": "learned", "max_length": 24}, data={"max_length": 24}, train={"steps": 1})
    with pytest.raises(DataError, match=r"input 2: \d+ tokens, but this model takes at most 24; split it into shorter pieces"):
        run.predict([{"source": "dog"}, {"source": "zebra " * 30}])
    exactly = next(n for n in range(24) if run.task.encode({"source": "z" * n})["source"].numel() == 24)
    for options in ({"beams": 2}, {"beams": 1}, {"sample": True, "temperature": 9.0}):
        assert isinstance(run.predict({"source": "z" * exactly}, max_length=1000, **options).text, str)


def test_a_folder_copied_elsewhere_answers_the_same_without_the_first(train: Train, tmp_path: Path) -> None:
    run = train()
    expected = run.predict(INPUTS)
    (tmp_path / "far away").mkdir()
    moved = shutil.copytree(run.folder, tmp_path / "far away" / "renamed")
    shutil.rmtree(run.folder)
    for name in ("checkpoints", "store", "evaluations"):
        shutil.rmtree(moved / name, ignore_errors=True)
    assert heed.load(str(moved)).predict(INPUTS) == expected


def test_a_trained_run_and_the_loaded_one_answer_alike(toy_run: Run) -> None:
    assert heed.load(str(toy_run.folder)).predict(INPUTS) == toy_run.predict(INPUTS)


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


def test_loading_never_imports_code_that_a_folder_names_unless_it_is_trusted(run_copy: Path) -> None:
    edit_config(run_copy, task={"name": OUTSIDER})
    with pytest.raises(ConfigError, match=r"would run code that is not part of heed; load the run with trust=True"):
        heed.load(str(run_copy))
    assert isinstance(heed.load(str(run_copy), trust=True).task, Outsider)


def test_a_recipe_may_name_a_task_of_ones_own(train: Train, toy_data: ToyData) -> None:
    settings = merge(TINY, {"task": {"name": OUTSIDER}, "data": {"train": str(toy_data.train)}})
    run = heed.train(settings, to=toy_data.train.parent / "outsider", quiet=True, train={"steps": 2})
    assert isinstance(run.task, Outsider)
    assert heed.load(str(run.folder), trust=True).predict({"source": "the dog"}) == run.predict({"source": "the dog"})


def test_weights_under_several_names_are_stored_once_and_come_back_under_all(toy_run: Run, tmp_path: Path) -> None:
    model = toy_run.model
    assert len(distinct(model)) < len(model.state_dict())
    save_weights(model, tmp_path / "w.safetensors")
    torch.manual_seed(9)
    other = build_model(toy_run.config.model)
    load_weights(other, tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_weight_files_are_readable_for_whoever_may_read_the_others(toy_run: Run) -> None:
    modes = {name: (toy_run.folder / name).stat().st_mode for name in ("model.safetensors", "config.yaml", "manifest.json")}
    assert len(set(modes.values())) == 1, modes


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
