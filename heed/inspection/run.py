"""What is in a run folder: its settings, layers, scores and files."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from heed.files import parse_json, read_metrics
from heed.inspection.layout import Findings, aligned, section
from heed.inspection.settings import settings_of, word
from heed.metrics.intervals import scores_in
from heed.model.describe import count_parameters, layer_table, mermaid
from heed.run import Run


def inspect_run(folder: Path, *, graph: bool = False) -> tuple[Findings, list[str]]:
    """Look into a run folder.

    Args:
        graph: whether the lines are the model's Mermaid flow chart, and nothing else.
    Returns:
        the findings (`task`, `settings` with those `changed` and those at their `default`, `layers`, `parameters`, `bytes` of the
        weights, `best` validation so far, `scores` by evaluation, `files`, and `graph` if asked for), and lines for a terminal.
    Raises:
        CheckpointError: the folder is missing, not whole, or was changed.
    """
    run = Run.load(folder, device="cpu")
    changed, default = settings_of(run)
    found: Findings = {
        "folder": str(folder),
        "task": run.task.name,
        "settings": {"changed": changed, "default": default},
        "layers": [row._asdict() for row in layer_table(run.model)],
        "parameters": count_parameters(run.model),
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in run.model.parameters()),
        "best": _best(folder),
        "scores": _scores(folder / "evaluations"),
        "files": {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)},
    }
    if graph:
        found["graph"] = mermaid(run.model)
        return found, found["graph"].splitlines()
    return found, _run_lines(found)


def _best(folder: Path) -> Findings | None:
    """Return the last validation that was the best so far, with its step."""
    best = None
    for line in read_metrics(folder):
        if line.get("best") is True and isinstance(line.get("valid"), dict):
            best = {"step": line["step"], **line["valid"]}
    return best


def _scores(folder: Path) -> Findings:
    """Return the scores of each evaluation, by its name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(ValueError, AttributeError):  # not an evaluation
            content = parse_json(path.read_text(encoding="utf-8"))
            found[path.stem] = scores_in(content)
    return {name: scores for name, scores in found.items() if scores}


def _files(folder: Path) -> list[Path]:
    """Return the files that stand for the run, without its checkpoints, its encoded data and its event files."""
    return sorted(path for place in (folder, folder / "parts", folder / "evaluations") for path in place.glob("[!.]*") if path.is_file())


def _run_lines(found: Findings) -> list[str]:
    changed, default = found["settings"]["changed"], found["settings"]["default"]
    differing = [(path, word(one["value"]), f"default {word(one['default'])}" if "default" in one else "") for path, one in changed.items()]
    layers = [(row["name"], row["kind"], row["shapes"], f"{row['parameters']:,}") for row in found["layers"]]
    scores = [(name, score, *_score_words(one)) for name, scores in found["scores"].items() for score, one in scores.items()]
    return [
        f"{found['folder']}: {found['task']}, {found['parameters']:,} parameters, {found['bytes'] / 1e6:,.2f} MB",
        *section(f"settings that differ from the defaults of {found['task']}", aligned(differing)),
        *section("settings at their defaults", aligned([(path, word(value)) for path, value in default.items()])),
        *section(
            "layers",
            aligned([("name", "kind", "shapes", "parameters"), *layers, ("total", "", "", f"{found['parameters']:,}")], right={3}),
        ),
        *section("best validation so far", aligned([(name, word(value)) for name, value in (found["best"] or {}).items()], right={1})),
        *section("scores", aligned(scores, right={2})),
        *section("files", aligned([(name, f"{n_bytes:,} bytes") for name, n_bytes in found["files"].items()], right={1})),
    ]


def _score_words(score: Mapping[str, float]) -> tuple[str, str]:
    return f"{score['value']:.4g}", f"95 % interval {score['low']:.4g} to {score['high']:.4g}"
