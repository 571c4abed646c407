"""Comparing kinds of model on the same data at equal budgets of parameters: Transformer, CNN, LSTM and two trivial baselines.

The page says first, in plain words, whether the Transformer is worth it here.
"""

import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heed.config import dump_yaml
from heed.data.labelled import labels_of
from heed.data.read import Example
from heed.device import describe_machine
from heed.errors import ConfigError, HeedError
from heed.evaluation import evaluate_examples
from heed.experiments.baselines import ASKED_ALONE, judged_on, milliseconds
from heed.experiments.costs import costs
from heed.experiments.recall import DISTANCES, VALUES, recall
from heed.files import parse_json, replacing
from heed.metrics import bootstrap
from heed.metrics.calibration import decisions
from heed.metrics.classification import ClassificationMetrics
from heed.model.config import ModelConfig
from heed.model.describe import count_parameters
from heed.model.models import build_model
from heed.report.comparison import comparison_page
from heed.run import Run, RunConfig, resolve
from heed.tasks.text_classification import TextClassification

MIXERS = {"Transformer": "attention", "CNN": "convolution", "LSTM": "lstm"}
BASELINES = {"TF-IDF + logistic regression": "tf-idf", "majority": "majority"}
WIDTHS = range(16, 1025, 8)  # tried for a model of a given number of parameters
LENGTHS = (5, 10, 20, 50, 100, 200, 500)  # ends of the buckets, in words
SIGNIFICANT = 0.05
SCORES = ("accuracy", "f1_macro", "roc_auc", "log_loss")  # of the page; evaluations/ of each run has all

Say = Callable[[str], None]


@dataclass
class Candidate:
    """One model with what was measured of it."""

    name: str
    metrics: ClassificationMetrics
    right: np.ndarray[Any, Any]  # (n,) bool
    figures: dict[str, Any]


def compare_models(
    recipe: str | Mapping[str, Any], settings: Mapping[str, Any], folder: Path, *, synthetic: bool = True, quiet: bool = False
) -> dict[str, Any]:
    """Train every kind on the recipe's data, score all on its test data (else its validation data), and write a page.

    Args:
        synthetic: whether to try recall at a distance and the cost of attention too, which take some minutes.
    Raises:
        ConfigError: the recipe is not one of text classification, or `folder` is there already.
    """
    say: Say = (lambda text: None) if quiet else (lambda text: print(text, file=sys.stderr))  # noqa: T201 (progress)
    config = resolve(recipe, settings)
    if not isinstance(config.build_task(), TextClassification):
        raise ConfigError(f"compare-models compares text classifiers, found task {config.task['name']}")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: exists already and is never overwritten; choose another --to")
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {**MIXERS, "hybrid": "hybrid"} if config.model.mixer == "hybrid" else MIXERS
    candidates = [_neural(name, mixer, config, folder, say) for name, mixer in kinds.items()]
    first = Run.load(_place(folder, "Transformer"))
    assert isinstance(first.task, TextClassification)
    tested = list(judged_on(first))
    for name, kind in BASELINES.items():
        say(f"{name}: fitting")
        candidates.append(_baseline(name, kind, first, first.task, tested))
    content = _content(recipe, config, candidates, tested)
    _write(content, folder)
    if synthetic:
        say("recall at a distance: training a small Transformer and a small CNN")
        content["recall"] = _recall()
        say("measuring what attention costs")
        content["costs"] = costs()
        _write(content, folder)
    return content


def _write(content: dict[str, Any], folder: Path) -> None:
    with replacing(folder / "comparison.json") as draft:
        draft.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    with replacing(folder / "report.html") as draft:
        draft.write_text(comparison_page(content), encoding="utf-8")


def _place(folder: Path, name: str) -> Path:
    return folder / name.lower()


def _neural(name: str, mixer: str, config: RunConfig, folder: Path, say: Say) -> Candidate:
    """Train one kind in a process of its own, whose memory is then its alone."""
    place = _place(folder, name)
    model = config.model.replace(mixer=mixer) if mixer in ("attention", "hybrid") else config.model
    if mixer in ("convolution", "lstm"):
        transformer = Run.load(_place(folder, "Transformer"), device="cpu")
        model = matched(transformer.config.model, mixer).replace(vocab_size=None, n_classes=None)
    say(f"{name}: training in {place}")
    recipe = folder / f"{place.name}.yaml"
    recipe.write_text(dump_yaml(config.replace(model=model.model_dump()).model_dump()), encoding="utf-8")
    _trained(recipe, place)
    run = Run.load(place)
    found = evaluate_examples(run, judged_on(run), run.config.decode)
    assert isinstance(found.metrics, ClassificationMetrics)
    figures = {
        "parameters": count_parameters(run.model),
        **_training_figures(place),
        "latency_ms": _latency(run),
        "peak_memory_mib": _peak_memory(place),
        "run": str(place),
        "size": {key: getattr(run.config.model, key) for key in ("mixer", "d_model", "n_layers", "n_heads", "d_ff")},
    }
    return Candidate(name, found.metrics, right_of(found.metrics), figures)


def matched(transformer: ModelConfig, mixer: str) -> ModelConfig:
    """Return a config of another kind, as deep, whose width brings it nearest to as many parameters."""
    plain = {"attention": "full", "adaptive": False, "hierarchical": False, "weight_rank": None, "n_heads": 1, "n_kv_heads": None}
    plain |= {"pooling": "mean"}  # the first token of a network without attention sees its neighbours only
    budget = _size(transformer)
    candidates = [transformer.replace(mixer=mixer, d_model=width, d_ff=width, positions="none", **plain) for width in WIDTHS]
    return min(candidates, key=lambda config: abs(_size(config) - budget))


def _size(config: ModelConfig) -> int:
    with torch.device("meta"):
        return count_parameters(build_model(config))


def _trained(recipe: Path, place: Path) -> None:
    """Train in another process; raises HeedError when that fails."""
    command = [sys.executable, "-m", "heed.cli", "train", str(recipe), "--to", str(place)]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise HeedError(f"{place.name} could not be trained; the reason stands above")


def _peak_memory(place: Path) -> float:
    """Return the most memory, in MiB, of the process that trained a run and then scored it."""
    found = [parse_json(path.read_text(encoding="utf-8")) for path in sorted((place / "evaluations").glob("*.json"))]
    return max(float(one["cost"]["peak_memory_mib"]) for one in found)


def _training_figures(place: Path) -> dict[str, float]:
    lines = [parse_json(line) for line in (place / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if "epoch" in line]
    data = parse_json((place / "data_report.json").read_text(encoding="utf-8"))
    seconds = max(float(line.get("seconds", 0.0)) for line in lines)
    tokens = sum(data["tokens"].values()) * steps[-1]["epoch"]
    return {"train_seconds": seconds, "train_tokens_per_second": round(tokens / max(seconds, 1e-9), 1)}


def _latency(run: Run) -> dict[str, float]:
    """Return milliseconds to answer one text, over some of them."""
    examples = [example for _, example in zip(range(ASKED_ALONE), judged_on(run), strict=False)]
    run.predict(examples[0])
    return milliseconds(run.predict, examples)


def _baseline(name: str, kind: str, run: Run, task: TextClassification, tested: Sequence[Example]) -> Candidate:
    """Fit a baseline on what the Transformer was trained on, in a process whose memory is its alone, and score it."""
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.npy"
        command = [sys.executable, "-m", "heed.experiments.baselines", kind, str(run.folder), str(answers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise HeedError(f"{name} could not be fitted: {done.stderr.strip()[-300:]}")
        probabilities = np.load(answers)
    metrics = ClassificationMetrics(task.labels.labels, multi_label=task.config.multi_label)
    metrics.add(probabilities, np.stack([task.target(example["label"]).numpy() for example in tested]))
    figures = {"train_tokens_per_second": None, "run": None, **json.loads(done.stdout.splitlines()[-1])}
    return Candidate(name, metrics, right_of(metrics), figures)


def right_of(metrics: ClassificationMetrics) -> np.ndarray[Any, Any]:
    """Return which answers were right, for several labels all of them, (n,) bool."""
    return np.asarray(decisions(metrics.probabilities, metrics.targets, multi_label=metrics.multi_label)[1].all(axis=1))


def _content(
    recipe: str | Mapping[str, Any], config: RunConfig, candidates: Sequence[Candidate], tested: Sequence[Example]
) -> dict[str, Any]:
    task_texts = [example["text"] for example in tested]
    judged = "test" if config.data.test else "valid"
    classes: dict[str, int] = {}
    for example in tested:
        for label in labels_of(example["label"]):
            classes[label] = classes.get(label, 0) + 1
    data = {"train": config.data.train, judged: config.data.test or config.data.valid or "held out of the training data"}
    return {
        "title": f"Which kind of model for {Path(str(config.data.train)).parent.name}/{Path(str(config.data.train)).name}?",
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "data": {**data, "classes": classes},
        "models": [_row(candidate, task_texts) for candidate in candidates],
        "verdict": verdict(candidates),
        "recall": None,
        "costs": None,
        "settings": {"recipe": recipe if isinstance(recipe, str) else config.task["name"], "seed": str(config.seed)},
    }


def _row(candidate: Candidate, texts: Sequence[str]) -> dict[str, Any]:
    content = candidate.metrics.scores().to_json()
    scores = {name: content[name] for name in SCORES if name in content}
    return {"name": candidate.name, "scores": scores, **candidate.figures, "by_length": list(by_length(texts, candidate.right))}


def by_length(texts: Sequence[str], right: np.ndarray[Any, Any]) -> Iterator[dict[str, Any]]:
    """Yield the accuracy over texts of like length, in words (characters, where a text has no spaces)."""
    lengths = np.array([max(len(text.split()), len(text) // 6) for text in texts])
    low = 0
    for high in (*LENGTHS, None):
        chosen = (lengths > low) & (lengths <= high) if high is not None else lengths > low
        if chosen.sum() >= 10:
            counts = np.stack([right[chosen], np.ones(chosen.sum())], axis=1).astype(float)
            score = bootstrap(counts, lambda sums: sums[:, 0] / sums[:, 1])
            yield {"length": f"{low + 1}-{high}" if high else f"{low + 1}+", "n": int(chosen.sum()), "accuracy": score.to_json()}
        low = high or low


def verdict(candidates: Sequence[Candidate]) -> list[str]:
    """Say in plain sentences which kind is best, and whether the difference to the simple baseline is more than chance."""
    accuracies = {one.name: float(one.right.mean()) for one in candidates}
    neural = max((one for one in candidates if one.name not in BASELINES), key=lambda one: accuracies[one.name])
    simple = next(one for one in candidates if one.name == "TF-IDF + logistic regression")
    test = simple.metrics.compare(neural.metrics)["accuracy"]
    points = f"{100 * abs(test.difference.value):.1f} points"
    span = f"95 % interval of the difference {100 * test.difference.low:+.1f} to {100 * test.difference.high:+.1f} points"
    a, b = (f"{name} ({accuracies[name]:.1%})" for name in (neural.name, simple.name))
    if test.p_value >= SIGNIFICANT:
        lines = [f"No winner: {a} and the simple {b} do not differ by more than chance ({span}). The simple one is cheaper: use it."]
    elif test.difference.value > 0:
        lines = [f"The {a} beats the simple {b} by {points} ({span})."]
    else:
        lines = [f"The simple baseline wins: {b} beats the best network, the {a}, by {points} ({span}). Use the simple one here."]
    transformer = next(one for one in candidates if one.name == "Transformer")
    if neural is not transformer:
        difference = transformer.metrics.compare(neural.metrics)["accuracy"]
        sure = "more than chance" if difference.p_value < SIGNIFICANT else "no more than chance"
        lines.append(
            f"Among the networks the {neural.name} is ahead of the Transformer by {100 * difference.difference.value:.1f} points, {sure}."
        )
    majority = accuracies["majority"]
    lines.append(f"Always answering with the most frequent class is right {majority:.1%} of the time.")
    return lines


def _recall() -> dict[str, Any]:
    models = {"Transformer": "attention", "CNN": "convolution"}
    found = {name: [{"distance": one.distance, "accuracy": one.accuracy} for one in recall(mixer)] for name, mixer in models.items()}
    return {"distances": list(DISTANCES), "models": found, "chance": 1 / VALUES}


def comparison_lines(content: Mapping[str, Any]) -> list[str]:
    """Return a comparison as lines for a terminal."""
    width = max(len(model["name"]) for model in content["models"])
    lines = [*content["verdict"], ""]
    for model in content["models"]:
        accuracy = model["scores"]["accuracy"]
        speed = model["train_tokens_per_second"]
        lines.append(
            f"{model['name']:<{width}}  accuracy {accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
            f"  {model['parameters']:>10,} parameters  trained in {model['train_seconds']:.0f} s"
            f"{f' at {speed:,.0f} tokens/s' if speed else ''}  {model['latency_ms']['median']:.2g} ms a text"
        )
    if content["recall"]:
        for name, points in content["recall"]["models"].items():
            shown = "  ".join(f"{point['distance']}: {point['accuracy']['value']:.0%}" for point in points)
            lines.append(f"recall at distance, {name}: {shown} (chance {content['recall']['chance']:.0%})")
    if content["costs"]:
        for kind, found in content["costs"]["kinds"].items():
            lines.append(f"attention, {kind}: time grows with length to the {found['slope_time']}, memory to the {found['slope_memory']}")
    return lines
