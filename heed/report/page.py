"""Composing report.html from what a run folder holds."""

import re
from collections.abc import Mapping
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from heed.files import replacing
from heed.report import curves, examples, facts
from heed.report.sources import Json, RunFiles, read_run_files
from heed.report.wording import date, duration, figure, is_number, is_score, label, round_up, shown_score, shown_scores

HEADLINES = 4  # scores in large print
# HTML has no place for these: control characters, and halves of surrogate pairs, which no encoding can write.
UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def write_report(folder: Path) -> Path:
    """Write report.html of a run folder, a pure function of the other files in it, and return its path.

    Raises:
        CheckpointError: the folder is no run folder, or a file in it is damaged.
        ConfigError: config.yaml is damaged.
        TrainingError: the disk is full.
    """
    page = render(read_run_files(folder))
    path = folder / "report.html"
    with replacing(path) as draft:
        draft.write_text(page, encoding="utf-8")
    return path


def render(run: RunFiles) -> str:
    """Return the page."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_resource("page.html"))
    evaluations = _evaluations(run)
    page = template.render(
        style=Markup(_resource("style.css")),
        head=_head(run),
        panels=curves.panels(run),
        evaluations=evaluations,
        drawn=[one for one in evaluations if any(shown.picture for group in one["groups"] for shown in group.shown)],
        data=facts.data_report(run.data),
        settings=_settings(run),
    )
    return UNWRITABLE.sub("\ufffd", page)


def _resource(name: str) -> str:
    return package_files("heed.report").joinpath(name).read_text(encoding="utf-8")


def _head(run: RunFiles) -> dict[str, Any]:
    """Return what stands at the top: what the run is, and its headline."""
    first = run.evaluations[0] if run.evaluations else {}
    trained = curves.summary(run)
    return {
        "task": label(_task_name(run.config)),
        "model": facts.model_words(run.config, run.n_parameters),
        "scores": shown_scores(first)[:HEADLINES],
        "on": f"{label(first['name'])}: {_number_of(first)}{figure(first.get('data'))}" if first else "",
        "figures": [(label(name), figure(float(value))) for name, value in trained["figures"].items()],
        "facts": _head_facts(run, first, trained),
    }


def _task_name(config: Json) -> str:
    task = config.get("task", "run")
    return str(task.get("name", "run") if isinstance(task, Mapping) else task)


def _number_of(evaluation: Json) -> str:
    return f"{evaluation['n']:,} examples of " if is_number(evaluation.get("n")) else ""


def _head_facts(run: RunFiles, first: Json, trained: Mapping[str, Any]) -> facts.Facts:
    found = [("Scored on", date(first["date"]))] if "date" in first else []
    if trained["seconds"] is not None:
        found.append(("Training time", duration(trained["seconds"])))
    if trained["steps"] is not None:
        best = "" if trained["best_step"] is None else f", best at {figure(trained['best_step'])}"
        found.append(("Steps", figure(trained["steps"]) + best))
    machine = facts.machine_words(run.config.get("machine"))
    return [*found, *([("Machine", machine)] if machine else [])]


def _evaluations(run: RunFiles) -> list[dict[str, Any]]:
    keys = examples.example_keys(run.config) if run.evaluations else examples.Keys((), ())
    return [_evaluation(content, keys) for content in run.evaluations]


def _evaluation(content: Json, keys: examples.Keys) -> dict[str, Any]:
    signatures = content.get("signatures")
    return {
        "name": label(content["name"]),
        "about": f"{_number_of(content)}{figure(content.get('data', ''))}",
        "date": date(content.get("date", "")),
        "scores": shown_scores(content),
        "signatures": [(label(name), str(text)) for name, text in signatures.items()] if isinstance(signatures, dict) else [],
        "buckets": _buckets(content.get("buckets")),
        "cost": facts.cost_facts(content),
        "decode": facts.decode_words(content),
        "groups": examples.groups(content, keys),
    }


def _buckets(content: object) -> dict[str, Any] | None:
    """Return the bars of a score by bucket, on one scale: the first score that the buckets hold."""
    buckets = [bucket for bucket in content if isinstance(bucket, dict)] if isinstance(content, list) else []
    name = next((key for bucket in buckets for key, value in bucket.items() if is_score(value)), None)
    found = [bucket for bucket in buckets if is_score(bucket.get(name))]
    if name is None or not found:
        return None
    by = next((key for key, value in found[0].items() if isinstance(value, str)), "bucket")
    top = max(shown_score(name, bucket[name]).high for bucket in found)
    bars = [
        {"label": figure(bucket.get(by, "")), "n": figure(bucket.get("n", "")), "score": shown_score(name, bucket[name], round_up(top))}
        for bucket in found
    ]
    return {"title": f"{label(name)} by {'source length' if by == 'length' else by}", "bars": bars}


def _settings(run: RunFiles) -> dict[str, Any]:
    command = str(run.config.get("command", ""))
    return {
        "command": command if len(command.split()) > 1 else "",
        "facts": facts.settings_facts(run.config),
        "hashes": facts.hash_rows(run.config, run.manifest),
        "text": run.config_text,
    }
