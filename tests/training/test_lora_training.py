"""Training adapters (`lora`) beside the weights of another run: what learns, what is stored, and that a run folder is whole."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from test_origin import classifier, folder, untrained
from toy_runs import toy_texts

from heed.adapters import Adapters
from heed.config import merge
from heed.convert import export_adapters, import_adapters
from heed.errors import CheckpointError, ConfigError
from heed.files import sha256
from heed.model.lora import is_adapted
from heed.run import Run, distinct, resolve
from heed.training.checkpoint import place_of
from heed.training.train import fit_on, fit_recipe

pytest_plugins = ["toy_runs"]
__all__ = ["folder"]
LORA: dict[str, Any] = {"rank": 2, "alpha": 4.0, "targets": ["query", "value", "down"]}
EXAMPLES = [{"text": row["text"]} for row in toy_texts(7, seed=5)]


def adapting(folder: Path, **settings: Any) -> dict[str, Any]:
    return classifier(folder, **merge({"lora": LORA}, settings))


def trained(folder: Path, to: Path, **settings: Any) -> Run:
    return fit_recipe(adapting(folder, **settings), {}, to, force=False, quiet=True)


def answers(run: Run) -> list[str]:
    return [str(answer) for answer in run.predict(EXAMPLES, precision="float32")]


def test_at_the_start_adapters_change_no_answer(folder: Path, tmp_path: Path) -> None:
    with_adapters, _ = untrained(tmp_path / "with", adapting(folder))
    without, _ = untrained(tmp_path / "without", classifier(folder))
    assert is_adapted(with_adapters.model)
    assert answers(with_adapters) == answers(without)


def test_only_adapters_and_the_new_head_learn_and_have_states_of_the_optimizer(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, tmp_path / "run")
    base = safetensors.torch.load_file(folder / "bert" / "model.safetensors")
    first, last = (safetensors.torch.load_file(place_of(tmp_path / "run" / "checkpoints", step) / "model.safetensors") for step in (2, 4))
    learned = {name for name, tensor in last.items() if not torch.equal(tensor, first[name])}
    assert learned == {name for name in last if name.replace(".frozen.", ".") not in base}
    for name, tensor in last.items():
        if name not in learned:
            assert torch.equal(tensor, base[name.replace(".frozen.", ".")])
    states = safetensors.torch.load_file(place_of(tmp_path / "run" / "checkpoints", 4) / "optimizer.safetensors")
    assert sum(state.numel() for name, state in states.items() if name.endswith("exp_avg")) == sum(last[name].numel() for name in learned)
    # two layers: query and value (16, 16), down (24 -> 16), rank 2; a head of 16 x n_classes and its bias
    n_classes = run.model.config.n_classes
    assert n_classes is not None
    assert sum(last[name].numel() for name in learned) == 2 * (2 * 2 * (16 + 16) + 2 * (24 + 16)) + 17 * n_classes


def test_merged_adapters_leave_a_plain_model_that_answers_as_the_adapted_one(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, tmp_path / "run")
    assert not is_adapted(run.model)
    loaded = Run.load(tmp_path / "run", device="cpu")
    assert not is_adapted(loaded.model)
    assert answers(loaded) == answers(run)
    plain, _ = untrained(tmp_path / "plain", classifier(folder))
    assert distinct(loaded.model).keys() == distinct(plain.model).keys()
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


def test_adapters_that_are_kept_apart_stand_beside_the_base_byte_for_byte_and_answer_as_merged_ones(folder: Path, tmp_path: Path) -> None:
    merged = trained(folder, tmp_path / "merged")
    apart = trained(folder, tmp_path / "apart", lora={"merge": False})
    assert is_adapted(apart.model)
    assert sha256(tmp_path / "apart" / "model.safetensors") == sha256(folder / "bert" / "model.safetensors")
    kept = safetensors.torch.load_file(tmp_path / "apart" / "adapter.safetensors")
    assert not [name for name in kept if ".frozen." in name]
    description = json.loads((tmp_path / "apart" / "adapter.json").read_text())
    assert description["base_sha256"] == sha256(folder / "bert" / "model.safetensors")
    assert {"adapter.json", "adapter.safetensors"} <= json.loads((tmp_path / "apart" / "manifest.json").read_text())["sha256"].keys()
    loaded = Run.load(tmp_path / "apart", device="cpu")
    ids = torch.randint(5, 60, (3, 7))
    with torch.inference_mode():
        assert torch.equal(loaded.model.classify(ids), apart.model.classify(ids))  # type: ignore[operator]
        torch.testing.assert_close(loaded.model.classify(ids), merged.model.classify(ids), rtol=1e-5, atol=1e-5)  # type: ignore[operator]


@pytest.mark.parametrize("merge_them", [True, False])
def test_a_run_that_goes_on_ends_at_the_same_bits_and_needs_the_other_no_more(
    folder: Path, tmp_path: Path, merge_them: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = {"lora": {"merge": merge_them}}
    whole = trained(folder, tmp_path / "whole", **lora)
    trained(folder, tmp_path / "parts", **lora)
    shutil.rmtree(place_of(tmp_path / "parts" / "checkpoints", 4))
    monkeypatch.setattr("heed.training.prepare.Origin.open", None)
    again = fit_on(tmp_path / "parts", quiet=True)
    assert all(torch.equal(tensor, distinct(whole.model)[name]) for name, tensor in distinct(again.model).items())
    name = "model.safetensors" if merge_them else "adapter.safetensors"
    assert sha256(tmp_path / "whole" / name) == sha256(tmp_path / "parts" / name)


def test_settings_that_would_be_ignored_and_runs_that_cannot_be_started_from_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora\.alpha would be ignored without lora\.rank"):
        resolve(classifier(folder, lora={"alpha": 3.0}))
    with pytest.raises(ConfigError, match=r"lora\.rank=2 learns beside the weights of another run; name it with init=RUN"):
        resolve({**adapting(folder), "init": None})


@pytest.mark.parametrize("merge_them", [True, False])
def test_a_run_that_keeps_its_adapters_apart_is_started_from_as_if_they_were_merged(folder: Path, tmp_path: Path, merge_them: bool) -> None:
    first = trained(folder, tmp_path / "apart", lora={"merge": False})
    settings = {"init": str(tmp_path / "apart"), "lora": {"merge": merge_them}}
    begun, said = untrained(tmp_path / "begun", adapting(folder, **settings))
    assert answers(begun) == answers(first)
    assert "new: none; left: none" in said
    run = trained(folder, tmp_path / "next", **settings)
    assert answers(run) != answers(first)
    shutil.rmtree(tmp_path / "apart")
    assert answers(Run.load(tmp_path / "next", device="cpu")) == answers(run)
    if not merge_them:
        description = json.loads((tmp_path / "next" / "adapter.json").read_text())
        assert description["base_sha256"] == sha256(tmp_path / "next" / "model.safetensors")


def test_a_changed_adapter_is_noticed(folder: Path, tmp_path: Path) -> None:
    trained(folder, tmp_path / "apart", lora={"merge": False})
    path = tmp_path / "apart" / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"adapter\.safetensors: was changed or damaged"):
        Run.load(tmp_path / "apart")


def test_adapters_travel_alone_and_find_only_the_run_they_were_learned_beside(folder: Path, tmp_path: Path) -> None:
    run = trained(folder, tmp_path / "apart", lora={"merge": False})
    export_adapters(tmp_path / "apart", tmp_path / "alone")
    assert not (tmp_path / "alone" / "model.safetensors").exists()
    found = import_adapters(tmp_path / "alone", tmp_path / "again", base=folder / "bert")
    assert answers(found) == answers(run)
    assert all(torch.equal(tensor, distinct(run.model)[name]) for name, tensor in distinct(found.model).items())
    other, _ = untrained(tmp_path / "other", classifier(folder))
    with pytest.raises(ConfigError, match=r"other: the adapters of .* belong to weights with the SHA-256 \w{12}\.\.\., found"):
        import_adapters(tmp_path / "alone", tmp_path / "never", base=other.folder)
    assert not (tmp_path / "never").exists()
    with pytest.raises(ConfigError, match=r"keeps no adapters apart; train with init=RUN"):
        export_adapters(other.folder, tmp_path / "never")
    with pytest.raises(ConfigError, match=r"alone: exists already and is never overwritten; choose another --to$"):
        export_adapters(tmp_path / "apart", tmp_path / "alone")
    with pytest.raises(CheckpointError, match=r"alone: holds adapters and no weights; .* heed import .*alone --base OTHER --to RUN"):
        Run.load(tmp_path / "alone")


@pytest.mark.parametrize(
    "field", [{"rank": "x"}, {"rank": 0}, {"alpha": None}, {"targets": 7}, {"new": [1]}, {"base_sha256": 7}, {"more": 1}]
)
def test_a_damaged_description_of_adapters_is_refused(field: dict[str, object], tmp_path: Path) -> None:
    Adapters("0" * 64, 2, 16.0, ["query"], ["head.scores.weight"]).write(tmp_path)
    assert Adapters.read(tmp_path).rank == 2
    content = json.loads((tmp_path / "adapter.json").read_text())
    (tmp_path / "adapter.json").write_text(json.dumps(content | field))
    with pytest.raises(CheckpointError, match=r"adapter\.json: cannot be read .*; restore it"):
        Adapters.read(tmp_path)


def test_adapters_that_make_no_run_are_blamed_on_the_folder_they_came_from(folder: Path, tmp_path: Path) -> None:
    trained(folder, tmp_path / "apart", lora={"merge": False})
    export_adapters(tmp_path / "apart", tmp_path / "alone")
    path = tmp_path / "alone" / "adapter.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match=r"alone/adapter\.safetensors: cannot be read"):
        import_adapters(tmp_path / "alone", tmp_path / "never", base=folder / "bert")
    path.unlink()
    with pytest.raises(ConfigError, match=r"alone: has no adapter\.safetensors; expected what heed export"):
        import_adapters(tmp_path / "alone", tmp_path / "never", base=folder / "bert")
    assert not (tmp_path / "never").exists()
