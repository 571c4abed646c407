import gzip
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy_runs import TINY, TINY_TEXTS, Command, ToyData, Train, as_arguments, toy_pairs, toy_texts, write_pairs, write_rows

import heed
from heed import cli
from heed.data.batch import Batch
from heed.data.parts import Part
from heed.data.rows import Example
from heed.errors import DataError
from heed.files import sha256
from heed.model.losses import LossSum
from heed.model.models import Model
from heed.run import Run, verify, write_manifest
from heed.tasks.live import Event
from heed.tasks.translation import Translation
from heed.training.trainer import Trainer

pytest_plugins = ["toy_runs"]

SETTINGS = as_arguments(TINY)


@pytest.fixture
def folder(toy_run: Run) -> Path:
    """Return the folder of a trained run that no test changes."""
    return toy_run.folder


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Return a function that puts bytes on standard input."""
    return lambda content: monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_help_comes_without_waiting_for_torch() -> None:
    code = "import sys; from heed import cli; sys.argv = ['heed', '--help']\ntry: cli.main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")
    for verb in ("train", "crossvalidate", "tune", "compare-models", "evaluate", "predict", "compare", "inspect", "demo"):
        assert verb in done.stdout


def finished(*arguments: str, out: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with its standard output led to where a shell leads it."""
    module = [sys.executable, "-m", "heed.cli", *arguments]
    return subprocess.run(["bash", "-c", f'"$@" {out}', "bash", *module], capture_output=True, text=True, check=False)


def test_a_reader_that_has_gone_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-m", "heed.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_what_cannot_be_printed_is_one_clear_line(option: str) -> None:
    done = finished(option, out="> /dev/full")
    assert done.returncode == 1
    assert re.fullmatch(r"heed: standard output: .*; what was printed is not whole: free some space, or print elsewhere\n", done.stderr)


def test_closed_streams_swallow_what_is_printed() -> None:
    assert finished("--version", out=">&-").returncode == 0
    done = finished("predict", "nowhere", out="2>&-")
    assert (done.returncode, done.stdout) == (1, "")


def test_the_version_is_the_packages(command: Command) -> None:
    assert command("--version").out == f"heed {heed.__version__}\n"


@pytest.mark.parametrize("arguments", [["fly"], ["train", "--nope"], ["evaluate"], ["predict"]])
def test_a_wrong_command_line_is_one_line_and_exit_code_1(command: Command, arguments: list[str]) -> None:
    assert "heed --help" in command(*arguments).complaint


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "translation"],
        ["train", "--to", "x"],
        ["train", "--resume", "r", "train.steps=5"],
        ["train", "--resume", "r", "--force"],
    ],
)
def test_half_a_training_command_says_what_is_missing(command: Command, arguments: list[str]) -> None:
    complaint = command(*arguments).complaint
    assert "heed train translation data.train=pairs.tsv --to runs/mine" in complaint or "--resume goes on with the settings" in complaint


def test_training_ends_with_scores_and_the_way_to_the_run_on_stdout_and_progress_on_stderr(
    command: Command, toy_data: ToyData, tmp_path: Path
) -> None:
    done = command("train", "translation", *SETTINGS, *as_arguments({"data": toy_data.both}), "--to", tmp_path / "run")
    assert done.code == 0
    assert done.out.splitlines()[-2:] == [f"run folder: {tmp_path / 'run'}", f"report: {tmp_path / 'run' / 'report.html'}"]
    assert "bleu" in done.out
    assert "step 1/12  loss" in done.err
    assert "loss" not in done.out
    assert "200 training and 30 validation examples" in done.err


def bad_data(kind: str, folder: Path) -> tuple[str, str]:
    """Write data with a fault; return it and what the complaint has to say."""
    good = write_pairs(folder / "pairs.tsv", toy_pairs(30))
    if kind == "missing file":
        return str(folder / "pair.tsv"), rf"pair.tsv: no such file; did you mean {re.escape(str(good))}\?"
    if kind == "missing folder":
        return str(folder / "no" / "pairs.tsv"), "no such file"
    if kind == "unknown column":
        good.write_text(good.read_text().replace("source\ttarget", "english\ttarget"))
        return str(good), "no column 'source'.*data.columns.source="
    if kind == "one side missing":
        good.write_text(good.read_text() + "only english\n")
        return str(good), r"pairs.tsv:32: .*data.bad_rows=skip"
    if kind == "empty side":
        good.write_text(good.read_text() + "only english\t \n")
        return str(good), r"pairs.tsv:32: .*target.* is empty"
    if kind == "sides of different length":
        (folder / "p.en").write_text("a\nb\nc\n")
        (folder / "p.de").write_text("a\nb\n")
        return str(folder / "p.{en,de}"), r"p.{en,de}.* 3 .* 2 "
    if kind == "no text":
        good.write_bytes(bytes(range(256)) * 40)
        return str(good), "pairs.tsv: .*UTF-8"
    if kind == "empty file":
        good.write_bytes(b"")
        return str(good), "pairs.tsv: is empty"
    if kind == "header only":
        good.write_text("source\ttarget\n")
        return str(good), "holds no rows"
    assert kind == "no data format"
    return str(Path(__file__)), "expected .tsv, .csv and .jsonl"


KINDS = ["missing file", "missing folder", "unknown column", "one side missing", "empty side", "sides of different length", "no text"]


@pytest.mark.parametrize("kind", [*KINDS, "empty file", "header only", "no data format"])
def test_faulty_data_is_one_clear_line_and_leaves_no_folder(command: Command, tmp_path: Path, kind: str) -> None:
    source, expected = bad_data(kind, tmp_path)
    done = command("train", "translation", *SETTINGS, f"data.train={source}", "--to", tmp_path / "run")
    assert re.search(expected, done.complaint)
    assert done.out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.stepps=5", r"train.stepps: unknown setting.*; did you mean train.steps\?"),
        ("traln.steps=5", "traln.*: unknown setting"),
        ("task.vocabulary=5", r"task.vocabulary: unknown setting.*task.vocab"),
        ("train.steps=ten", r"train.steps: .*found 'ten'"),
        ("train.steps=0", r"train.steps: .*found 0"),
        ("train.lr=-1", r"train.lr: .*found -1"),
        ("model.n_heads=3", "model.n_heads=3 does not divide model.d_model=16"),
        ("data.bad_rows=ignore", r"data.bad_rows: .*'error' or 'skip'.*found 'ignore'"),
        ("train.device=gpu", "train.device: 'gpu' is not a device"),
        ("to=elsewhere", "to: unknown setting"),
        ("quiet=true", "quiet: unknown setting"),
        ("train.steps", "expected key=value"),
        ("task.name=null", r"task.name: expected .*speech_recognition or .*text_classification or"),
    ],
)
def test_a_wrong_setting_is_one_clear_line_and_leaves_no_folder(
    command: Command, toy_data: ToyData, tmp_path: Path, setting: str, expected: str
) -> None:
    done = command("train", "translation", *SETTINGS, f"data.train={toy_data.train}", setting, "--to", tmp_path / "run")
    assert re.search(expected, done.complaint)
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_names_those_that_ship(command: Command, tmp_path: Path) -> None:
    assert "translation" in command("train", "translate", "--to", tmp_path / "run").complaint


def test_debug_shows_where_an_error_comes_from(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["heed", "--debug", "train", "translation", "data.train=no.tsv", "--to", str(tmp_path / "run")])
    with pytest.raises(DataError, match=r"no\.tsv"):
        cli.main()
    done = subprocess.run(
        [sys.executable, "-m", "heed.cli", "predict", "nowhere", "x", "--debug"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "CheckpointError: nowhere" in done.stderr


def test_a_run_that_is_there_is_refused_until_force_replaces_it(command: Command, toy_data: ToyData, run_copy: Path) -> None:
    before = sha256(run_copy / "manifest.json")
    train = ["train", "translation", *SETTINGS, f"data.train={toy_data.train}", "--to", run_copy]
    assert "exists already and is never overwritten" in command(*train).complaint
    assert sha256(run_copy / "manifest.json") == before
    assert "no such file" in command(*train, "data.train=typo.tsv", "--force").complaint
    assert sha256(run_copy / "manifest.json") == before
    assert command(*train, "--force").code == 0
    assert sha256(run_copy / "manifest.json") != before


@pytest.mark.parametrize("name", ["config.yaml", "parts/tokenizer.json", "model.safetensors", "manifest.json"])
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_run_folder_with_a_flipped_byte_is_refused(command: Command, run_copy: Path, toy_data: ToyData, name: str, verb: str) -> None:
    content = bytearray((run_copy / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (run_copy / name).write_bytes(content)
    done = command(verb, run_copy, toy_data.test if verb == "evaluate" else "the dog")
    assert str(run_copy) in done.complaint
    assert "from a copy" in done.complaint
    assert done.out == ""


def test_a_vocabulary_that_does_not_fit_its_weights_is_refused(command: Command, run_copy: Path, train: Train) -> None:
    other = train("other", task={"vocab_size": 310})
    shutil.copy(other.folder / "parts" / "tokenizer.json", run_copy / "parts" / "tokenizer.json")
    write_manifest(run_copy)
    assert "the vocabulary does not fit the model" in command("predict", run_copy, "the dog").complaint


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Return a function after whose call no file may grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_is_one_clear_line_and_the_last_checkpoint_stays(
    command: Command, toy_data: ToyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Callable[[int], None]
) -> None:
    update = Trainer.update

    def fill_disk(trainer: Trainer, group: list[Any]) -> None:
        update(trainer, group)
        if trainer.progress.step == 7:
            small_disk(6000)

    monkeypatch.setattr(Trainer, "update", fill_disk)
    run = tmp_path / "run"
    done = command("train", "translation", *SETTINGS, f"data.train={toy_data.train}", "train.evaluate_every=4", "--to", run)
    assert "the disk is full" in done.complaint
    assert "heed train --resume" in done.complaint
    verify(run)
    assert [path.name for path in run.rglob(".*")] == [".lock"]  # no drafts


@pytest.mark.parametrize("n_bytes", [100, 8000])  # of the parts, and of the encoded examples
def test_a_disk_too_full_to_begin_is_one_clear_line_and_leaves_no_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Callable[[int], None], n_bytes: int
) -> None:
    data = write_pairs(tmp_path / "pairs.tsv", toy_pairs(900))
    learn = Translation.prepare

    def fill_disk(task: Translation, examples: Iterable[Example]) -> dict[str, Part]:
        small_disk(n_bytes)
        return learn(task, examples)

    monkeypatch.setattr(Translation, "prepare", fill_disk)
    assert "the disk is full" in command("train", "translation", *SETTINGS, f"data.train={data}", "--to", tmp_path / "run").complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_says_how_to_go_on_and_goes_on(
    command: Command, toy_data: ToyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    loss = Translation.loss

    def interrupted(task: Translation, model: Model, batch: Batch) -> LossSum:
        if model.training:
            monkeypatch.setattr(Translation, "loss", loss)
            os.kill(os.getpid(), number)
        return loss(task, model, batch)

    monkeypatch.setattr(Translation, "loss", interrupted)
    run = tmp_path / "my run"
    done = command("train", "translation", *SETTINGS, f"data.train={toy_data.train}", "--to", run)
    assert done.code == 128 + number
    assert done.err.splitlines()[-1].endswith(f"heed train --resume {run}")
    assert "Traceback" not in done.err
    assert done.out == ""
    resumed = command("train", "--resume", run)
    assert resumed.code == 0
    assert "resuming after step 1" in resumed.err
    assert "run folder" in resumed.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_preparations_leaves_nothing_behind(
    command: Command, toy_data: ToyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(Translation, "prepare", lambda task, examples: os.kill(os.getpid(), number))
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs deaf to it
    try:
        done = command("train", "translation", *SETTINGS, f"data.train={toy_data.train}", "--to", tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, ours)
    assert done.code == 128 + number
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_too_long_examples_are_counted_and_said(command: Command, toy_data: ToyData, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "p.tsv", [*toy_pairs(40), {"source": "dog " * 99, "target": "Hund"}])
    data = [f"data.train={path}", f"data.valid={toy_data.valid}", "data.max_length=40"]
    done = command("train", "translation", *SETTINGS, *data, "--to", tmp_path / "run")
    assert done.code == 0
    assert "1 training examples longer than data.max_length=40 tokens: left out" in done.err


def test_a_diverging_training_is_one_clear_line(command: Command, toy_data: ToyData, tmp_path: Path) -> None:
    wild = ["train.lr=1e18", "train.warmup=0", "train.clip=0", "train.schedule=constant", "train.steps=100"]
    done = command("train", "translation", *SETTINGS, *wild, f"data.train={toy_data.train}", "--to", tmp_path / "run")
    assert re.search(r"step \d+: the .* is (nan|inf).*training examples \d+.*learning rate", done.complaint)


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


def test_no_run_is_one_clear_line(command: Command, tmp_path: Path, toy_data: ToyData) -> None:
    for arguments in (["predict", tmp_path, "x"], ["evaluate", tmp_path, toy_data.test], ["train", "--resume", tmp_path]):
        assert "not a run folder" in command(*arguments).complaint


def test_json_of_an_evaluation_is_one_object_on_stdout_and_nothing_else(command: Command, run_copy: Path, toy_data: ToyData) -> None:
    done = command("evaluate", run_copy, toy_data.test, "--json", "decode.beams=1")
    assert done.out.count("\n") == 1
    scores = json.loads(done.out)
    for name in ("bleu", "chrf", "ter"):
        assert scores[name].keys() == {"value", "low", "high"}
    assert scores["decode"]["beams"] == 1
    assert scores["cost"]["examples"] == 12


def test_an_evaluation_shows_scores_on_stdout(command: Command, run_copy: Path, toy_data: ToyData) -> None:
    done = command("evaluate", run_copy, toy_data.test)
    assert done.out.startswith("bleu ")
    assert "95 % interval" in done.out
    assert "report.html" in done.err


def test_evaluating_on_faulty_data_or_settings_is_one_clear_line(command: Command, run_copy: Path, toy_data: ToyData) -> None:
    assert "no such file" in command("evaluate", run_copy, "no.tsv").complaint
    assert "only data.* and decode.* settings" in command("evaluate", run_copy, toy_data.test, "train.lr=1").complaint


def test_comparing_prints_differences_or_one_json_object(command: Command, folder: Path, run_copy: Path, toy_data: ToyData) -> None:
    done = command("compare", folder, run_copy, toy_data.test, "--json")
    assert json.loads(done.out)["bleu"]["difference"]["value"] == 0
    assert done.out.count("\n") == 1
    assert "no difference shown" in command("compare", folder, run_copy, toy_data.test).out


def test_a_run_folder_that_may_not_be_written_is_one_clear_line(command: Command, run_copy: Path, toy_data: ToyData) -> None:
    shutil.rmtree(run_copy / "evaluations")
    (run_copy / "evaluations").write_text("in the way")
    assert "evaluations" in command("evaluate", run_copy, toy_data.test).complaint


def test_training_without_validation_data_scores_the_examples_it_held_out(toy_data: ToyData, tmp_path: Path, command: Command) -> None:
    done = command("train", "translation", *as_arguments(TINY), f"data.train={toy_data.train}", "--to", tmp_path / "run")
    assert done.code == 0, done.err
    assert "valid: held out of" in done.out
    assert "bleu" in done.out
    scored = json.loads((tmp_path / "run" / "evaluations" / "valid.json").read_text())
    assert scored["n"] == json.loads((tmp_path / "run" / "data_report.json").read_text())["examples"]["valid"]


def test_evaluating_counts_the_bad_rows_it_skips(run_copy: Path, tmp_path: Path, command: Command) -> None:
    data = tmp_path / "data.tsv"
    data.write_text("source\ttarget\nthe dog\tder Hund\nthe cat\t\n", encoding="utf-8")
    done = command("evaluate", run_copy, data, "data.bad_rows=skip", "--json")
    assert json.loads(done.out)["bad_rows"]["skipped"] == 1


def test_evaluating_refuses_data_settings_that_it_would_ignore(run_copy: Path, toy_data: ToyData, command: Command) -> None:
    assert "data.max_length: would be ignored" in command("evaluate", run_copy, toy_data.test, "data.max_length=3").complaint


@pytest.mark.parametrize("verb", ["crossvalidate", "tune", "compare-models"])
def test_an_experiment_without_a_recipe_or_with_an_unknown_one_is_one_clear_line(command: Command, tmp_path: Path, verb: str) -> None:
    assert "heed --help" in command(verb).complaint
    assert "heed --help" in command(verb, "text_classification", "--nope").complaint
    assert "text_classfication: no such recipe file" in command(verb, "text_classfication", "--to", tmp_path / "x").complaint
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("verb", "arguments", "expected"),
    [
        ("crossvalidate", ["folds=1"], r"data\.folds: .*found 1"),
        ("crossvalidate", ["folds=many"], r"data\.folds: .*found 'many'"),
        ("crossvalidate", ["fold=2"], r"fold: unknown setting.*data\.fold"),
        ("crossvalidate", ["folds"], "expected key=value"),
        ("crossvalidate", ["data.test=test.tsv"], r"data\.test=test\.tsv: data\.folds=5 holds out a part"),
        ("crossvalidate", ["data.valid=valid.tsv"], r"data\.valid=valid\.tsv: data\.folds=5 holds out a part"),
        ("crossvalidate", ["folds=3", "group=author"], r"data\.group=author: row 1 has no such column among text, label"),
        ("crossvalidate", ["folds=12"], r"data\.folds=12: only \d+ different inputs have the label"),
        ("tune", ["trials=0"], "trials=0: expected a whole number from 1"),
        ("tune", ["trials=some"], "trials=some: expected a whole number from 1"),
        ("tune", ["--trials", "0"], "heed --help"),
        ("tune", ["search.train.lrr=[1,2]"], r"train\.lrr: unknown setting.*did you mean train\.lr\?"),
        ("tune", ["search.model.n_layers=2"], r"search\.model\.n_layers: expected a list of values, or low and high, found 2"),
        ("tune", ["search.train.lr={low: 1}"], r"search\.train\.lr\.high: is not given"),
        ("tune", ["search.model.d_model=[16, 17]"], r"model\.d_model=16 and search\.model\.d_model exclude each other"),
        ("tune", ["search.model.n_kv_heads=[2, 3]"], r"model\.n_kv_heads=3"),
        ("compare-models", ["task.tokens=letters"], r"task\.tokens: .*found 'letters'"),
        ("compare-models", ["folds=3"], r"folds: unknown setting.*data\.folds"),
    ],
)
def test_an_experiment_that_cannot_be_made_is_one_clear_line(
    command: Command, tmp_path: Path, verb: str, arguments: list[str], expected: str
) -> None:
    if verb == "tune":
        pytest.importorskip("optuna")
    train = write_rows(tmp_path / "rows.tsv", toy_texts(24))
    settings = [*as_arguments(TINY_TEXTS), f"data.train={train}"]
    done = command(verb, "text_classification", *settings, *arguments, "--to", tmp_path / "experiment")
    assert re.search(expected, done.complaint)
    assert done.out == ""
    assert not (tmp_path / "experiment").exists()


def test_only_text_classifiers_are_compared_and_never_over_what_is_there(command: Command, tmp_path: Path, toy_data: ToyData) -> None:
    data = f"data.train={toy_data.train}"
    compared = command("compare-models", "translation", *SETTINGS, data, "--to", tmp_path / "kinds")
    assert "compares text classifiers, found task translation" in compared.complaint
    (tmp_path / "kinds").mkdir(exist_ok=True)
    (tmp_path / "kinds" / "notes.txt").write_text("mine")
    compared = command("compare-models", "text_classification", data, "--to", tmp_path / "kinds")
    assert "exists already and is never overwritten" in compared.complaint


def test_folds_are_told_on_stdout_and_progress_on_stderr(command: Command, tmp_path: Path) -> None:
    settings = [*as_arguments(TINY_TEXTS), f"data.train={write_rows(tmp_path / 'rows.tsv', toy_texts(24))}", "folds=2"]
    arguments = ["crossvalidate", "text_classification", *settings, "--to", tmp_path / "folds"]
    done = command(*arguments)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].startswith("2 folds of ")
    assert done.out.splitlines()[-1] == f"report: {tmp_path / 'folds' / 'report.html'}"
    assert "fold 1 of 2" in done.err
    found = json.loads(command(*arguments, "--json").out)
    assert [fold["fold"] for fold in found["folds"]] == [1, 2]
    assert {"mean", "sd"} == found["summary"]["accuracy"].keys()


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that judges two texts together."""
    folder, texts = tmp_path_factory.mktemp("pairs"), toy_texts(60)
    rows = [{"text": one["text"], "text_pair": other["text"], "label": one["label"]} for one, other in zip(texts, texts[::-1], strict=True)]
    files = {name: str(write_rows(folder / f"{name}.tsv", some)) for name, some in (("train", rows[:45]), ("valid", rows[45:]))}
    return heed.train({**TINY_TEXTS, "data": files}, to=folder / "run", quiet=True)


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


def test_a_partial_live_text_stays_in_its_line_and_a_final_one_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    for kind, text, shown in (("partial", "one two three", "\r\x1b[K…wo three"), ("final", "one two three", "\r\x1b[Kone two three\n")):
        cli._print_event(Event(kind, text, 0.0, 1.0), as_json=False, on_terminal=True)
        assert capsys.readouterr().out == shown
    cli._print_event(Event("partial", "one two three", 0.0, 1.0), as_json=False, on_terminal=False)
    assert capsys.readouterr().out == "...\tone two three\n"


class Parrot:
    """Stands for a live recogniser: every push is a partial text, and the end the final one."""

    remark: str | None = None

    def __init__(self) -> None:
        self.heard = b""

    def push(self, raw: bytes) -> list[Event]:
        self.heard += raw
        return [Event("partial", self.heard.decode(), 0.0, 1.0)]

    def finish(self) -> list[Event]:
        self.remark = "half a sample" if len(self.heard) % 2 else None
        return [Event("final", self.heard.decode(), 0.0, 1.0)]


@pytest.mark.parametrize(("sound", "noted"), [(b"ab", ""), (b"abc", "note: half a sample\n")])
def test_what_is_wrong_with_a_stream_is_noted_beside_its_texts(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, sound: bytes, noted: str
) -> None:
    reads, writes = os.pipe()
    os.write(writes, sound)
    os.close(writes)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: reads))
    cli._follow(Parrot(), as_json=False)  # type: ignore[arg-type]
    os.close(reads)
    said = sound.decode()
    assert capfd.readouterr() == (f"...\t{said}\n0.00-1.00\t{said}\n", noted)


def test_a_run_that_hears_nothing_follows_no_stream(command: Command, folder: Path) -> None:
    assert "a translation run hears nothing; a stream needs one of speech_recognition" in command("predict", folder, "--stream").complaint
