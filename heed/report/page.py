"""Composing report.html from what a run folder holds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from heed.files import replacing
from heed.report import classes, curves, examples, facts, probabilities, speech
from heed.report.data import data_report
from heed.report.sources import Json, RunFiles, listed, mapping, mappings, read_run_files
from heed.report.template import fill
from heed.report.wording import POINTS, counted, date, duration, figure, is_number, is_score, label, round_up, shown_score, shown_scores

HEADLINES = 4  # scores in large print
MOST_SPEAKERS = 15
SPLITS = ("test", "valid")  # evaluations that are made at the end of training


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
    evaluations, head = _evaluations(run), _head(run)
    content = {
        "title": head["task"],
        "head": head,
        "panels": curves.panels(run),
        "evaluations": evaluations,
        "compared": any(text.role == "reference" for one in evaluations for example in _shown(one) for text in example.texts),
        "worded": [one for one in evaluations if any(example.words for example in _shown(one))],
        "drawn": [one for one in evaluations if any(example.picture for example in _shown(one))],
        "heard": [one for one in evaluations if any(example.recording for example in _shown(one))],
        "data": data_report(run.data),
        "settings": _settings(run),
    }
    return fill("page.html", content)


def _shown(evaluation: Mapping[str, Any]) -> Iterator[examples.Shown]:
    return (example for group in evaluation["groups"] for example in group.shown)


def _head(run: RunFiles) -> dict[str, Any]:
    """Return what stands at the top: what the run is, and its headline."""
    first = run.evaluations[0] if run.evaluations else {}
    trained = curves.summary(run)
    return {
        "task": label(_task_name(run.config)),
        "model": facts.model_words(run.config, run.n_parameters),
        "origin": facts.origin_words(run.data),
        "scores": shown_scores(first)[:HEADLINES],
        "on": f"{_evaluation_name(first)}: {_about(first)}" if first else "",
        "figures": [(label(name), figure(float(value))) for name, value in trained["figures"].items()],
        "facts": _head_facts(run, first, trained),
    }


def _task_name(config: Json) -> str:
    task = config.get("task", "run")
    return str(task.get("name", "run") if isinstance(task, Mapping) else task)


def _evaluation_name(evaluation: Json) -> str:
    """Return the name of an evaluation as a heading; one that is named after a file stays as it is."""
    name = str(evaluation["name"])
    return label(name) if name in SPLITS else name


def _about(evaluation: Json) -> str:
    """Say how many examples of what were scored."""
    data = figure(evaluation.get("data", ""))
    if not is_number(evaluation.get("n")):
        return data
    return f"{counted(evaluation['n'], 'example')} {data if data.startswith('held out') else f'of {data}'}"


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
    return {
        "name": _evaluation_name(content),
        "about": _about(content),
        "date": date(content.get("date", "")),
        "scores": shown_scores(content),
        "signatures": [(label(name), str(text)) for name, text in mapping(content.get("signatures")).items()],
        "advice": [line for line in listed(content.get("advice")) if isinstance(line, str)],
        "abstention": probabilities.abstention(content),
        "per_class": classes.per_class(content.get("per_class")),
        "per_prefix": classes.per_prefix(content.get("by_prefix")),
        "confusion": classes.confusion(content.get("confusion")),
        "per_label": classes.per_label(content.get("confusion_per_label")),
        "calibration": probabilities.calibration(content),
        "curves": probabilities.threshold_curves(content.get("curves")),
        "buckets": _buckets(content.get("buckets")),
        "about_texts": speech.about_texts(content),
        "errors": speech.errors(content.get("errors")),
        "confused": speech.confused(content.get("confused")),
        "speakers": _buckets(content.get("by_speaker"), MOST_SPEAKERS),
        "noise": speech.noise(content),
        "counts": facts.count_facts(content),
        "cost": facts.cost_facts(content),
        "decode": facts.decode_words(content) if keys.written else "",
        "groups": examples.groups(content, keys),
    }


def _buckets(content: object, most: int | None = None) -> dict[str, Any] | None:
    """Return the bars of a score by bucket, on one scale: the first score that the buckets hold, of the first `most` buckets."""
    buckets = mappings(content)
    name = next((key for bucket in buckets for key, value in bucket.items() if is_score(value)), None)
    if name is None:
        return None
    scored = [bucket for bucket in buckets if is_score(bucket.get(name))]
    found = scored[:most]
    by = next((key for key, value in found[0].items() if isinstance(value, str)), "bucket")
    top = max(shown_score(name, bucket[name]).high for bucket in found)
    bars = [
        {"label": figure(bucket.get(by, "")), "n": figure(bucket.get("n", "")), "score": shown_score(name, bucket[name], round_up(top))}
        for bucket in found
    ]
    measure = "source length" if name in POINTS else "words said" if name in speech.RATES else by
    what = measure if by == "length" else by
    note = f"The first {len(found)} of {len(scored)}." if len(found) < len(scored) else ""
    return {"title": f"{label(name)} by {what}", "bars": bars, "note": note}


def _settings(run: RunFiles) -> dict[str, Any]:
    command = str(run.config.get("command", ""))
    return {
        "command": command if len(command.split()) > 1 else "",
        "facts": facts.settings_facts(run.config),
        "hashes": facts.hash_rows(run.config, run.manifest),
        "text": run.config_text,
    }
