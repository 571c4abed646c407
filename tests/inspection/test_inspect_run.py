"""What inspecting tells of a run and of a recipe."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from toy_runs import TINY, write_pairs

from heed.cli import app
from heed.errors import CheckpointError, ConfigError
from heed.inspection import inspect_recipe, inspect_run
from heed.model import ModelConfig
from heed.run import Run, resolve
from heed.tasks import TASKS

pytest_plugins = ["toy_runs"]


def as_json(content: dict[str, object]) -> dict[str, object]:
    return dict(json.loads(json.dumps(content, allow_nan=False)))


def test_layers_and_total_count_the_weights_that_are_stored(toy_run: Run) -> None:
    found, lines = inspect_run(toy_run.folder)
    with safe_open(toy_run.folder / "model.safetensors", framework="numpy") as file:
        stored = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    assert found["parameters"] == stored == sum(row["parameters"] for row in found["layers"])
    assert found["bytes"] == 4 * stored
    assert lines[0] == f"{toy_run.folder}: translation, {stored:,} parameters, {4 * stored / 1e6:,.2f} MB"
    assert as_json(found) == found


def test_every_setting_is_listed_once_beside_its_default_where_it_differs(toy_run: Run) -> None:
    found, lines = inspect_run(toy_run.folder)
    changed, default = found["settings"]["changed"], found["settings"]["default"]
    sections = {name: value for name, value in toy_run.config.model_dump().items() if isinstance(value, dict)}
    paths = {f"{section}.{name}" for section, content in sections.items() for name in content} | {"seed", "init"}
    assert set(changed) | set(default) == paths - {"task.name"}
    assert not set(changed) & set(default)
    assert changed["model.d_model"] == {"value": TINY["model"]["d_model"], "default": type(toy_run.config.model)().d_model}
    assert default["model.architecture"] == "seq2seq"
    assert default["decode.length_penalty"] == 1.0
    assert re.search(r"model\.d_model +16 +default 256", "\n".join(lines))


def test_defaults_are_those_that_the_recipe_shows(pair_run: Run) -> None:
    changed = inspect_run(pair_run.folder)[0]["settings"]["changed"]
    shown = inspect_recipe("text_classification")[0]["settings"]
    assert {path: one["default"] for path, one in changed.items()} == {path: shown[path]["value"] for path in changed}
    assert changed["model.d_model"]["default"] != ModelConfig().d_model


def test_best_step_scores_and_files_are_those_of_the_folder(toy_run: Run) -> None:
    found, lines = inspect_run(toy_run.folder)
    logged = [json.loads(line) for line in (toy_run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    best = [line for line in logged if line.get("best")][-1]
    assert found["best"] == {"step": best["step"], **best["valid"]}
    written = json.loads((toy_run.folder / "evaluations" / "valid.json").read_text(encoding="utf-8"))
    assert found["scores"]["valid"]["bleu"] == written["bleu"]
    assert found["files"]["model.safetensors"] == (toy_run.folder / "model.safetensors").stat().st_size
    assert not [name for name in found["files"] if "checkpoints" in name]
    assert any(re.match("  valid +bleu ", line) for line in lines)


def test_torn_logs_and_strange_evaluations_are_passed_over(run_copy: Path) -> None:
    (run_copy / "metrics.jsonl").write_text('[]\n{"step": 3, "valid": {"loss": 2.5}, "best": true}\n{"step": 9, "va', encoding="utf-8")
    for name, text in (("torn", '{"bleu'), ("list", "[]"), ("empty", "{}")):
        (run_copy / "evaluations" / f"{name}.json").write_text(text, encoding="utf-8")
    found, _ = inspect_run(run_copy)
    assert found["best"] == {"step": 3, "loss": 2.5}
    assert set(found["scores"]) == {"valid"}


def test_a_run_that_is_still_without_scores_is_inspected(run_copy: Path) -> None:
    (run_copy / "metrics.jsonl").unlink()
    shutil.rmtree(run_copy / "evaluations")
    found, lines = inspect_run(run_copy)
    assert (found["best"], found["scores"]) == (None, {})
    assert "scores" not in lines


def test_graph_lines_are_the_flow_chart_and_nothing_else(toy_run: Run) -> None:
    found, lines = inspect_run(toy_run.folder, graph=True)
    assert lines[0] == "flowchart TD"
    assert "\n".join(lines) == found["graph"]


@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_shows_every_setting_that_training_by_it_would_have_with_its_meaning(task: str) -> None:
    found, lines = inspect_recipe(task, ["train.steps=123"])
    config = resolve(task, {"train": {"steps": 123}}).model_dump()
    groups = {name: value if isinstance(value, dict) else {"": value} for name, value in config.items()}
    expected = {f"{group}.{name}".removesuffix("."): value for group, inner in groups.items() for name, value in inner.items()}
    assert {"task.name": task} | {path: one["value"] for path, one in found["settings"].items()} == expected
    assert not [path for path, one in found["settings"].items() if not one["meaning"]]
    assert found["settings"]["train.schedule"]["choices"] == ["cosine", "inverse_sqrt", "transformer", "constant"]
    assert "choices" not in found["settings"]["train.steps"]
    assert any(re.match(r"  train\.steps +123 +\S", line) for line in lines)
    assert any(re.match(r"  train\.schedule +cosine .*\(cosine \| inverse_sqrt \| transformer \| constant\)$", line) for line in lines)
    assert as_json(found) == found


def test_a_recipe_is_shown_where_nothing_of_its_name_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    app(["inspect", "trec", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == as_json(inspect_recipe("trec")[0])
    (tmp_path / "mine.yaml").write_text("task: translation\nmodel: {d_model: 48}\n", encoding="utf-8")
    app(["inspect", "mine.yaml", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["settings"]["model.d_model"]["value"] == 48
    (tmp_path / "trec").mkdir()
    (tmp_path / "trec" / "rows.csv").write_text("text,label\na,b\n", encoding="utf-8")
    app(["inspect", "trec/rows.csv", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["rows"] == 1


def test_what_would_be_ignored_is_refused(toy_run: Run, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.tsv", [{"source": "a", "target": "b"}])
    with pytest.raises(ConfigError, match=r"--graph would be ignored: .*pairs\.tsv is not a run folder"):
        app(["inspect", str(pairs), "--graph"], standalone_mode=False)
    with pytest.raises(ConfigError, match=r"data\.valid=x\.tsv would be ignored"):
        app(["inspect", str(toy_run.folder), "data.valid=x.tsv"], standalone_mode=False)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        inspect_run(tmp_path)
