"""Starting from another run (`init`): what is taken over, what is refused, and that the new run does not need the other afterwards."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy_recordings import MODEL as HEARING
from toy_recordings import SETTINGS as SPOKEN
from toy_recordings import write_recordings
from toy_runs import Command, as_arguments, toy_pairs, toy_texts, write_pairs, write_rows

import heed
from heed.config import merge
from heed.errors import CheckpointError, ConfigError, DataError
from heed.experiments.crossvalidate import crossvalidate
from heed.experiments.models import MIXERS, notes, start_of
from heed.experiments.tune import tune
from heed.files import sha256
from heed.model import ModelConfig
from heed.run import Run, read_config, resolve
from heed.tasks import TASKS, Task
from heed.tasks.inheritance import taken_settings
from heed.training.plan import make_plan
from heed.training.prepare import prepare
from heed.training.train import fit_on, fit_recipe

pytest_plugins = ["toy_runs"]

SIZES: dict[str, Any] = {"d_model": 16, "n_heads": 2, "n_layers": 2, "d_ff": 24, "dropout": 0.0}
QUICK: dict[str, Any] = {"steps": 4, "batch_tokens": 120, "warmup": 2, "precision": "float32", "tensorboard": False, "evaluate_every": 2}


def untrained(folder: Path, settings: dict[str, Any]) -> tuple[Run, str]:
    """Return a run with the weights it would start from, and what was said."""
    said: list[str] = []
    run = prepare(resolve(settings), folder, said.append).run
    run.save()
    return run, "\n".join(said)


def shaken(folder: Path, settings: dict[str, Any]) -> Run:
    """Return a run none of whose weights is as it is drawn."""
    run, _ = untrained(folder, settings)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    run.save()
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with texts, labelled ones and pairs, and a masked language model `bert` with shaken weights."""
    place = tmp_path_factory.mktemp("origin")
    write_rows(place / "texts.tsv", [{"text": row["text"]} for row in toy_texts(60)])
    write_rows(place / "labelled.tsv", toy_texts(60, seed=3))
    write_pairs(place / "pairs.tsv", toy_pairs(60))
    task = {"name": "masked_lm", "vocab_size": 320, "lower": True}
    shaken(place / "bert", {"task": task, "data": {"train": str(place / "texts.tsv"), "max_length": 40}, "model": SIZES, "train": QUICK})
    return place


def classifier(folder: Path, **settings: Any) -> dict[str, Any]:
    """Return settings of a text classifier that starts from `bert`."""
    base = {"task": {"name": "text_classification"}, "data": {"train": str(folder / "labelled.tsv"), "allow_leaks": True}, "train": QUICK}
    return merge({**base, "init": str(folder / "bert")}, settings)


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in run.model.state_dict().items()}


# --- what is taken over


def test_weights_whose_names_match_are_those_of_the_other_run_and_others_are_fresh(folder: Path, tmp_path: Path) -> None:
    bert, (run, said) = heed.load(str(folder / "bert")), untrained(tmp_path / "run", classifier(folder))
    ours, theirs, fresh = tensors(run), tensors(bert), tensors(Run.open(run.folder))
    shared = ours.keys() & theirs.keys()
    assert {name.partition(".")[0] for name in shared} == {"stem", "stack"}
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)
    assert all(torch.equal(ours[name], fresh[name]) for name in ours.keys() - shared)
    assert not any(torch.equal(ours[name], fresh[name]) for name in shared if ours[name].dim() > 1)
    report = json.loads((run.folder / "data_report.json").read_text(encoding="utf-8"))["init"]
    assert report["tensors"] == [len(shared), len(ours)]
    assert report["numbers"] == [sum(ours[name].numel() for name in shared), sum(tensor.numel() for tensor in ours.values())]
    assert (set(report["new"]), set(report["left"])) == (ours.keys() - shared, theirs.keys() - shared - {"masked_head.weight"})
    assert f"took {len(shared)} of {len(ours)} tensors" in said
    assert f"from {folder / 'bert'}; new: head; left: masked_head" in said


def test_texts_are_cut_as_the_other_run_cuts_them_and_nothing_is_fitted(folder: Path, tmp_path: Path) -> None:
    bert, (run, _) = heed.load(str(folder / "bert")), untrained(tmp_path / "run", classifier(folder))
    for name in ("tokenizer", "preparation"):
        assert run.task.parts[name].to_json() == bert.task.parts[name].to_json()
    assert (run.config.task["vocab_size"], run.config.task["lower"], run.config.data.max_length) == (320, True, 40)
    text = "The dog SEES an unheard-of tree"
    assert torch.equal(run.task.encode({"text": text})["text"], bert.task.examiner.encode({"text": text})["text"])
    seen: list[list[int]] = []
    for one in (run, bert):
        one.model.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].tolist()))  # type: ignore[union-attr]
    run.predict({"text": "the dog sees"}, precision="float32")
    bert.predict({"text": "the dog <mask>"}, precision="float32")
    assert seen[0][:3] == seen[1][:3]  # begin, the, dog
    assert len(seen[0]) == len(seen[1])


def test_answers_are_as_precise_as_those_of_the_other_run_unless_that_is_said_otherwise(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bert", tmp_path / "exact")
    path = tmp_path / "exact" / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("precision: auto\n", "precision: float32\n"), encoding="utf-8")
    started = classifier(folder, init=str(tmp_path / "exact"))
    assert resolve(started).decode.precision == "float32"
    assert resolve(started, {"decode": {"precision": "auto"}}).decode.precision == "auto"
    assert resolve(classifier(folder)).decode.precision == "auto"


def test_config_yaml_says_what_it_started_from(folder: Path, tmp_path: Path) -> None:
    run, _ = untrained(tmp_path / "run", classifier(folder))
    content = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    assert content["init"] == str(folder / "bert")
    assert content["init_sha256"] == sha256(folder / "bert" / "model.safetensors")
    assert "init_sha256" not in (folder / "bert" / "config.yaml").read_text(encoding="utf-8")


def test_model_settings_are_those_of_the_other_run_below_what_names_it(folder: Path) -> None:
    init = str(folder / "bert")
    shape = {name: value for name, value in SIZES.items() if name != "dropout"}
    said_later = resolve("text_classification", {"init": init, "model": {"dropout": 0.3}})  # whose recipe has sizes of its own
    assert {name: getattr(said_later.model, name) for name in shape} == shape
    assert said_later.model.dropout == 0.3
    assert resolve("text_classification", {"init": init}).model.dropout == 0.0
    in_recipe = resolve({"task": "text_classification", "init": init, "model": {"dropout": 0.4}}, {"train": {"steps": 3}})
    assert in_recipe.model.dropout == 0.4
    assert resolve(in_recipe.model_dump()) == in_recipe
    assert resolve(in_recipe.model_dump(), {"init": None}).init is None
    assert not in_recipe.model.masked_lm


@pytest.mark.parametrize(("labels", "taken"), [(["warm", "cold", "plain"], True), (["a", "b", "c"], False)])
def test_a_head_is_taken_over_for_the_same_labels_only(folder: Path, tmp_path: Path, labels: list[str], taken: bool) -> None:
    first = shaken(tmp_path / "first", classifier(folder))
    names = dict(zip(["warm", "cold", "plain"], labels, strict=True))
    rows = [{"text": row["text"], "label": names[row["label"]]} for row in toy_texts(60, seed=3)]
    data = {"data": {"train": str(write_rows(tmp_path / "other.tsv", rows))}}
    second, said = untrained(tmp_path / "second", classifier(folder, init=str(first.folder), **data))
    assert torch.equal(tensors(second)["head.scores.weight"], tensors(first)["head.scores.weight"]) is taken
    assert ("new: none; left: none" in said) is taken


# --- every task whose parts fit


def spoken(place: Path) -> dict[str, Any]:
    rows = write_rows(place / "spoken.tsv", write_recordings(place / "spoken", 16))
    return {"task": {"name": "speech_recognition", **SPOKEN}, "data": {"train": str(rows), "allow_leaks": True}, "model": HEARING}


def of(name: str, file: str, **task: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda place: {"task": {"name": name, **task}, "data": {"train": str(place / file)}, "model": SIZES}


@pytest.mark.parametrize(
    "settings",
    [
        of("masked_lm", "texts.tsv", vocab_size=310),
        of("text_generation", "texts.tsv", tokens="characters"),
        of("translation", "pairs.tsv", vocab_size=310),
        of("translation", "pairs.tsv", vocab_size=310, vocab="separate"),
        of("text_to_text", "pairs.tsv", vocab_size=310),
        spoken,
    ],
    ids=["masked_lm", "text_generation", "translation", "translation, two vocabularies", "text_to_text", "speech_recognition"],
)
def test_a_run_of_the_same_task_takes_everything_over(folder: Path, tmp_path: Path, settings: Callable[[Path], dict[str, Any]]) -> None:
    first = shaken(tmp_path / "first", settings(folder))
    content = {"task": {"name": first.task.name}, "data": {"train": first.config.data.train, "allow_leaks": True}}
    second, said = untrained(tmp_path / "second", {**content, "init": str(first.folder)})
    assert {name: part.to_json() for name, part in second.task.parts.items()} == {
        name: part.to_json() for name, part in first.task.parts.items()
    }
    assert second.config.model == first.config.model
    assert all(torch.equal(tensor, tensors(first)[name]) for name, tensor in tensors(second).items())
    assert "new: none; left: none" in said


# --- what does not fit


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": {"n_layers": 3}}, r"model.n_layers=3 does not fit init=.*bert, whose weights are of model.n_layers=2; leave it out"),
        ({"model": {"norm": "rms"}}, "model.norm=rms does not fit"),
        ({"task": {"vocab_size": 400}}, r"task.vocab_size=400 would be ignored: .*init=.*bert, where it is 320"),
        ({"task": {"tokens": "words"}}, "task.tokens=words would be ignored: .* where it is subwords"),
        ({"task": {"name": "text_generation"}}, "its model is of architecture=encoder, and text_generation needs causal"),
        ({"task": {"name": "speech_recognition"}}, "a masked_lm run reads text, and speech_recognition audio"),
        ({"init": "nowhere"}, "init=nowhere: nowhere: not a run folder"),
        ({"init": "."}, r"init=.: .: not a run folder \(no config.yaml\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        resolve(classifier(folder, **settings))


def test_what_is_equal_may_be_said_again(folder: Path) -> None:
    said = classifier(folder, task={"vocab_size": 320, "tokens": "subwords"}, model={"n_layers": 2, "activation": "relu"})
    assert resolve(said).model == resolve(classifier(folder)).model


def test_learned_positions_have_the_length_of_the_other_run(tmp_path: Path, folder: Path) -> None:
    model = {**SIZES, "positions": "learned", "max_length": 44}
    data = {"train": str(folder / "texts.tsv"), "max_length": 40}
    first, _ = untrained(tmp_path / "first", {"task": "masked_lm", "data": data, "model": model})
    init = {"init": str(first.folder)}
    assert resolve(classifier(folder, **init)).model.max_length == 44
    with pytest.raises(ConfigError, match=r"model.max_length=60 does not fit init"):
        resolve(classifier(folder, **init, model={"max_length": 60}))


def test_word_vectors_beside_embeddings_that_are_taken_over_are_refused(folder: Path, tmp_path: Path) -> None:
    words = classifier(folder, task={"tokens": "words", "vocab_size": 310}, model=SIZES, init=None)
    first, _ = untrained(tmp_path / "first", words)
    with pytest.raises(ConfigError, match=r"task.vectors=glove.txt would be ignored: embeddings are those of init"):
        untrained(tmp_path / "second", classifier(folder, init=str(first.folder), task={"vectors": "glove.txt"}))
    with pytest.raises(ConfigError, match="cuts texts into words, and masked_lm needs sub-words"):
        untrained(tmp_path / "third", {"task": "masked_lm", "data": {"train": str(folder / "texts.tsv")}, "init": str(first.folder)})


def test_a_run_that_never_wrote_weights_or_was_changed_is_refused_before_the_data_are_read(folder: Path, tmp_path: Path) -> None:
    config = resolve(classifier(folder))
    shutil.copytree(folder / "bert", tmp_path / "bert")
    moved = config.replace(init=str(tmp_path / "bert"), data={**config.data.model_dump(), "train": str(tmp_path / "nowhere.tsv")})
    (tmp_path / "bert" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"init=.*bert: .*training has not written its first weights yet"):
        prepare(moved, tmp_path / "run", lambda line: None)
    shutil.rmtree(tmp_path / "bert")
    shutil.copytree(folder / "bert", tmp_path / "bert")
    with (tmp_path / "bert" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    with pytest.raises(CheckpointError, match=r"init=.*was changed or damaged"):
        prepare(moved, tmp_path / "run", lambda line: None)


def test_no_code_of_a_run_that_is_started_from_is_imported(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bert", tmp_path / "bert")
    path = tmp_path / "bert" / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("name: masked_lm", "name: antigravity:Fly"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"init=.*would run code that is not part of heed"):
        resolve(classifier(folder, init=str(tmp_path / "bert")))


def reads(kind: type[Task]) -> set[str]:
    """Return what a task reads; words are cut as texts are."""
    return {"text" if form == "words" else form for form in kind.inputs.values()}


def test_tasks_of_different_inputs_or_architectures_do_not_start_from_each_other() -> None:
    for name, kind in TASKS.items():
        task = kind(kind.settings())
        model = ModelConfig(architecture=task.architecture)
        assert taken_settings(kind, task, model)["data"] == {"max_length": task.max_length}
        assert set(kind.cutting) <= kind.settings.model_fields.keys(), name
        for other in TASKS.values():
            if other.architecture != kind.architecture or reads(other) != reads(kind):
                with pytest.raises(ConfigError, match=r"start from (another run|one that reads the same)"):
                    taken_settings(other, task, model)


def test_texts_that_a_task_read_as_they_are_are_not_cleaned_by_one_that_starts_from_it() -> None:
    tagging = TASKS["tagging"](TASKS["tagging"].settings())
    assert taken_settings(TASKS["text_classification"], tagging, ModelConfig(architecture="encoder"))["task"]["cleaning"] is False


def test_a_task_that_reads_texts_as_they_are_does_not_start_from_lower_case(folder: Path, tmp_path: Path) -> None:
    bert = heed.load(str(folder / "bert"))
    with pytest.raises(ConfigError, match="init: a run that lower-cases texts knows no other, and tagging reads texts as they are"):
        TASKS["tagging"](TASKS["tagging"].settings()).inherit(bert.task)


# --- afterwards


def test_a_run_that_was_started_from_another_does_not_need_it_to_answer_or_to_go_on(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bert", tmp_path / "bert")
    settings = classifier(folder, init=str(tmp_path / "bert"))
    straight = heed.train(settings, to=tmp_path / "straight", quiet=True)
    fit_recipe(settings, {}, tmp_path / "broken", force=False, quiet=True, stop=lambda n, value: True)
    shutil.rmtree(tmp_path / "bert")
    resumed = fit_on(tmp_path / "broken", quiet=True)
    for name, tensor in tensors(straight).items():
        assert torch.equal(tensors(resumed)[name], tensor), name
    assert heed.load(str(straight.folder)).predict({"text": "the red dog"}).text in {"warm", "cold", "plain"}


def test_crossvalidation_starts_every_fold_from_the_run_and_notices_when_it_changes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "bert", tmp_path / "bert")
    settings = classifier(folder, init=str(tmp_path / "bert"), data={"folds": 2})
    crossvalidate(settings, {}, tmp_path / "folds", quiet=True)
    for number in (1, 2):
        fold = read_config(tmp_path / "folds" / f"fold-{number}")
        assert (fold.init, fold.model.d_model) == (str(tmp_path / "bert"), SIZES["d_model"])
    other = heed.load(tmp_path / "bert", device="cpu")
    with torch.no_grad():
        other.model.stem.get_parameter("embedding.weight").add_(1)
    other.save()
    with pytest.raises(ConfigError, match="was made with init_sha256="):
        crossvalidate(settings, {}, tmp_path / "folds", quiet=True)


def test_every_trial_of_a_search_starts_from_the_run(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    content = tune(classifier(folder), {"search": {"train.lr": [1e-3, 2e-3]}}, tmp_path / "tuning", trials=1, quiet=True)
    found = read_config(Path(content["best_run"]))
    assert (found.init, found.model.d_model) == (str(folder / "bert"), SIZES["d_model"])


def test_a_plan_is_made_of_a_run_that_starts_from_another(folder: Path) -> None:
    bert = heed.load(str(folder / "bert")).model
    shared = sum(tensor.numel() for name, tensor in bert.named_parameters() if not name.startswith("masked_head"))
    assert make_plan(classifier(folder), {}).parameters == shared + 3 * (SIZES["d_model"] + 1)


def test_a_comparison_starts_the_kind_that_the_weights_are_of(folder: Path) -> None:
    config = resolve(classifier(folder))
    assert start_of(config, "attention") == str(folder / "bert")
    assert start_of(config, "lstm") is None
    assert "starts from" in notes(config, list(MIXERS))[-1]
    assert "starts from" not in notes(config.replace(init=None), list(MIXERS))[-1]


def test_the_command_line_takes_init_and_says_errors_in_one_line(folder: Path, tmp_path: Path, command: Command) -> None:
    arguments = [
        "text_classification",
        *as_arguments({"data": {"train": str(folder / "labelled.tsv"), "allow_leaks": True}, "train": QUICK}),
    ]
    done = command("train", *arguments, f"init={folder / 'bert'}", "--to", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"from {folder / 'bert'}; new: head; left: masked_head" in done.err
    failed = command("train", *arguments, "init=nowhere", "--to", tmp_path / "other")
    assert failed.complaint == "heed: init=nowhere: nowhere: not a run folder (no config.yaml); expected what heed train --to wrote"


def test_masks_in_the_data_of_a_plan_are_not_needed(folder: Path) -> None:
    settings = {**of("masked_lm", "texts.tsv", vocab_size=310)(folder), "train": QUICK}
    assert make_plan(settings, {}).steps == QUICK["steps"]
    with pytest.raises(DataError, match="has no <mask>"):
        heed.load(str(folder / "bert")).predict({"text": "the dog"})
