"""Comparing kinds of model on the same data at equal budgets of parameters: Transformer, CNN, LSTM and two trivial baselines.

The page says first, in plain words, whether the Transformer is worth it here.
"""

import datetime
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heed.config import dump_yaml
from heed.data.labelled import labels_of
from heed.data.rows import Example
from heed.device import describe_machine
from heed.errors import ConfigError, HeedError
from heed.evaluation import evaluate_examples
from heed.experiments.baselines import ASKED_ALONE, judged_on, milliseconds
from heed.experiments.costs import costs
from heed.experiments.recall import DISTANCES, SIZE, VALUES, recall
from heed.experiments.records import Json, check_begin, check_data, experiment, has_begun, record_of
from heed.files import parse_json, read_metrics, replacing
from heed.metrics import bootstrap
from heed.metrics.calibration import decisions
from heed.metrics.classification import ClassificationMetrics
from heed.model.config import OF_ROTARY, ModelConfig, of_chosen_kinds
from heed.model.describe import count_parameters
from heed.model.models import build_model
from heed.report.comparison import comparison_page
from heed.report.wording import SPACELESS
from heed.run import Run, RunConfig, resolve
from heed.tasks.text_classification import TextClassification
from heed.terminal import sayer
from heed.training.folds import USUAL_FOLDS

MIXERS = {"Transformer": "attention", "CNN": "convolution", "LSTM": "lstm"}
NAMES = {**{mixer: name for name, mixer in MIXERS.items()}, "hybrid": "hybrid"}
BASELINES = {"TF-IDF + logistic regression": "tf-idf", "majority": "majority"}
WITH_N_GRAMS = " + n-grams"
WIDTHS = range(16, 1025, 8)  # tried for a model of a given number of parameters
LENGTHS = (5, 10, 20, 50, 100, 200, 500)  # ends of the buckets, in words
UNITS = re.compile(f"[{SPACELESS}]|[^\\s{SPACELESS}]+")  # what those lengths count
SIGNIFICANT = 0.05
SCORES = ("accuracy", "precision_macro", "recall_macro", "f1_macro", "roc_auc", "log_loss")  # of the page; evaluations/ of each run has all
RECALL_WORDS = (
    "How far back a kind of model can look, on a task made for the question, not on the data above: a small Transformer and a small CNN "
    f"(3 tokens wide), both {SIZE['n_layers']} layers deep, learned to name the value of a key that stands so many tokens away."
)
UNFINISHED = "Not all kinds of model are done yet; the verdict comes with the last of them. The same command goes on."

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
    """Train every kind on the recipe's data, score all on rows that chose nothing, and write a page.

    The page is written after each kind; what an earlier call has trained is kept.

    Args:
        synthetic: whether to try recall at a distance and the cost of attention too, which take some minutes.
    Raises:
        ConfigError: the recipe is not one of text classification, or `folder` holds something else.
        DataError: the data changed since an earlier call.
        TrainingError: another process is at work in `folder`.
    """
    say = sayer(quiet)
    asked = resolve(recipe, settings)
    task = asked.build_task()
    if not isinstance(task, TextClassification):
        raise ConfigError(f"compare-models compares text classifiers, found task {asked.task['name']}")
    check_begin(asked)
    config = with_test_data(asked)
    record = record_of(config)
    with experiment(folder, record):
        say(judged_words(asked, config))
        comparison = _Comparison(config, folder, record, recipe if isinstance(recipe, str) else config.task["name"], say)
        comparison.content["notes"].insert(0, judged_words(asked, config))
        comparison.train_all()
        if synthetic:
            comparison.add_synthetic()
    return comparison.content


def with_test_data(config: RunConfig) -> RunConfig:
    """Return the settings with data to judge on that choose nothing: those given, else the validation data, else a fold.

    Validation data that are judged on choose no weights: that is left to rows held out of the training data.
    """
    data = config.data
    if data.test is not None or data.folds is not None:
        return config
    if data.valid is not None:
        return config.replace(data={**data.model_dump(), "valid": None, "test": data.valid})
    return config.replace(data={**data.model_dump(), "folds": USUAL_FOLDS})


def judged_words(asked: RunConfig, config: RunConfig) -> str:
    """Say what models are judged on, and why."""
    data = config.data
    if asked.data.test is not None:
        return f"Judged on data.test={data.test}, which chose nothing."
    if asked.data.valid is not None:
        return (
            f"Judged on {data.test}, as there is no data.test: given as data.valid, it chooses nothing here; weights and temperature are "
            "chosen on rows held out of the training data."
        )
    why = "" if asked.data.folds is not None else f", as there is no data.test (data.folds={data.folds} data.fold={data.fold})"
    return f"Judged on fold {data.fold} of {data.folds} of the training data{why}; it is held out of training and chose nothing."


class _Comparison:
    """A comparison that is under way; `content` is that of comparison.json."""

    def __init__(self, config: RunConfig, folder: Path, record: Json, recipe: str, say: Say) -> None:
        self.config, self.folder, self.record, self.say = config, folder, record, say
        self.networks = networks_of(config.model)
        self.content = {**_head(config), "notes": notes(config, self.networks), "models": [], **_earlier(folder)}
        self.content["settings"] = {"recipe": recipe, "seed": str(config.seed)}

    def train_all(self) -> None:
        """Train and score one kind after the other, and write down what is known after each."""
        candidates: list[Candidate] = []
        for name in self.networks:
            candidates.append(self._network(name))
            self._tell(candidates)
        for name, kind in BASELINES.items():
            self.say(f"{name}: fitting")
            candidates.append(_baseline(name, kind, self.first, self.tested))
            self._tell(candidates)

    @cached_property
    def first(self) -> Run:
        """The Transformer's run."""
        return Run.load(_place(self.folder, "Transformer"))

    @cached_property
    def tested(self) -> list[Example]:
        """The examples that all are judged on."""
        return list(judged_on(self.first))

    def _tell(self, candidates: Sequence[Candidate]) -> None:
        """Write down what is known of those that are done."""
        texts = [" ".join(example[column] for column in self.first.task.wanted) for example in self.tested]
        classes = Counter(label for example in self.tested for label in labels_of(example["label"]))
        self.content["data"] |= {"texts_judged": len(self.tested), "classes": dict(classes)}
        self.content["models"] = [_row(candidate, texts) for candidate in candidates]
        self.content["verdict"] = verdict(candidates) if {*self.networks, *BASELINES} <= {one.name for one in candidates} else [UNFINISHED]
        self._write()

    def add_synthetic(self) -> None:
        """Measure recall at a distance and the costs of attention, where that is not done yet."""
        if self.content["recall"] is None:
            self.say("recall at a distance: training a small Transformer and a small CNN")
            self.content["recall"] = _recall()
            self._write()
        if self.content["costs"] is None:
            self.say("measuring what attention costs")
            self.content["costs"] = costs()
            self._write()

    def _write(self) -> None:
        with replacing(self.folder / "comparison.json") as draft:
            draft.write_text(json.dumps(self.content, ensure_ascii=False, indent=1), encoding="utf-8")
        with replacing(self.folder / "report.html") as draft:
            draft.write_text(comparison_page(self.content), encoding="utf-8")

    def _network(self, name: str) -> Candidate:
        """Train one kind in a process of its own, whose memory is then its alone, unless that is done."""
        place = _place(self.folder, name)
        recipe = self.folder / f"{place.name}.yaml"
        config = self.config.replace(model=(model := self._model(name)).model_dump(), init=start_of(self.config, model.mixer))
        recipe.write_text(dump_yaml(config.model_dump()), encoding="utf-8")
        if not has_begun(place):
            self.say(f"{name}: training in {place}")
            _train(place, str(recipe), "--to", str(place))
        elif not (place / "evaluations" / "test.json").is_file():
            self.say(f"{name}: going on with training in {place}")
            _train(place, "--resume", str(place))
        check_data(place, self.record)
        return _measured(name, Run.load(place))

    def _model(self, name: str) -> ModelConfig:
        """Return the settings of a network; those of others than attention are as large as the Transformer's."""
        if name not in MIXERS:
            return self.config.model
        if MIXERS[name] == "attention":
            return without_n_grams(self.config.model).replace(mixer="attention")
        return matched(self.first.config.model, MIXERS[name]).replace(vocab_size=None, n_classes=None)


def networks_of(model: ModelConfig) -> list[str]:
    """Name the networks to compare: one of each kind, of equal size, and the recipe's own model where it is none of these."""
    own = NAMES.get(model.mixer, model.mixer) + (WITH_N_GRAMS if model.n_grams else "")
    return list(dict.fromkeys([*MIXERS, own]))


def without_n_grams(model: ModelConfig) -> ModelConfig:
    """Return the settings of the network alone, without the linear classifier that model.n_grams puts beside it."""
    return model.replace(n_grams=0, n_gram_rows=ModelConfig.model_fields["n_gram_rows"].default)


def start_of(config: RunConfig, mixer: str) -> str | None:
    """Return the run that a kind of network starts from: the one that was asked for, where its weights are of that kind."""
    return config.init if mixer == config.model.mixer else None


def _head(config: RunConfig) -> dict[str, Any]:
    """Return what there is to tell before anything is trained."""
    data = config.data
    test = data.test or f"fold {data.fold} of {data.folds} of the training data"
    return {
        "title": f"Which kind of model for {named(str(data.train))}?",
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine(),
        "data": {"train": data.train, "test": test, "classes": {}},
        "verdict": [UNFINISHED],
    }


def named(source: str) -> str:
    """Name a data file by its folder, where it is in one that has a name, and itself."""
    return "/".join([part for part in Path(source).parts if part not in ("/", "..")][-2:])


def notes(config: RunConfig, networks: Sequence[str]) -> list[str]:
    """Say how far the comparison goes."""
    n_networks = len(networks)
    found = [
        f"Each network was trained once, with seed {config.seed}: another seed moves its scores too, and the intervals, which are over the "
        "rows that were judged, do not tell how far.",
        f"The best of {n_networks} networks is picked on these same rows, which flatters it. Where it leads, its p-value against the "
        f"baseline is therefore multiplied by {n_networks}, that against the Transformer by {n_networks - 1} (Bonferroni); intervals of "
        "differences are not corrected, and neither is the lead of the baseline over it.",
    ]
    if config.model.n_grams:
        found.append(
            f"The {networks[-1]} is the model of the recipe, with model.n_grams={config.model.n_grams}: beside its network it has a linear "
            "classifier of n-grams, much like the simple baseline. The other networks stand alone."
        )
    start = f"The network of mixer={config.model.mixer} starts from {config.init}, the others from nothing."
    return found if config.init is None else [*found, start]


def _earlier(folder: Path) -> dict[str, Any]:
    """Return what an earlier call measured that does not depend on the data."""
    try:
        found = parse_json((folder / "comparison.json").read_text(encoding="utf-8"))
        return {"recall": found["recall"], "costs": found["costs"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"recall": None, "costs": None}


def _place(folder: Path, name: str) -> Path:
    return folder / name.lower().replace(" + ", "-")


def _measured(name: str, run: Run) -> Candidate:
    """Score a trained network and gather what it cost."""
    found = evaluate_examples(run, judged_on(run), run.config.decode)
    assert isinstance(found.metrics, ClassificationMetrics)
    figures = {
        "parameters": count_parameters(run.model),
        **_training_figures(run.folder),
        "latency_ms": _latency(run),
        "peak_memory_mib": _peak_memory(run.folder),
        "run": str(run.folder),
        "size": {key: getattr(run.config.model, key) for key in ("mixer", "d_model", "n_layers", "n_heads", "d_ff")},
    }
    return Candidate(name, found.metrics, right_of(found.metrics), figures)


def matched(transformer: ModelConfig, mixer: str) -> ModelConfig:
    """Return a config of another kind, as deep, whose width brings it nearest to as many parameters."""
    plain = {"attention": "full", "adaptive": False, "hierarchical": False, "weight_rank": None, "n_heads": 1, "n_kv_heads": None}
    plain |= {"unbiased": [], "pooling": "mean"}  # the first token of a network without attention sees its neighbours only
    budget = _size(transformer)
    plain |= {name: ModelConfig.model_fields[name].default for name in ("d_kv", *OF_ROTARY, "first_position")}
    settings = of_chosen_kinds({**transformer.model_dump(), **plain, "mixer": mixer, "positions": "none"})
    candidates = [ModelConfig(**{**settings, "d_model": width, "d_ff": width}) for width in WIDTHS]
    return min(candidates, key=lambda config: abs(_size(config) - budget))


def _size(config: ModelConfig) -> int:
    with torch.device("meta"):
        return count_parameters(build_model(config))


def _train(place: Path, *arguments: str) -> None:
    """Train in another process; raises HeedError when that fails."""
    command = [sys.executable, "-m", "heed.cli", "train", *arguments]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
        raise HeedError(f"{place.name} could not be trained; the reason stands above, and the same command goes on from here")


def _peak_memory(place: Path) -> float:
    """Return the most memory, in MiB, of the process that trained a run and then scored it."""
    found = [parse_json(path.read_text(encoding="utf-8")) for path in sorted((place / "evaluations").glob("*.json"))]
    return max(float(one["cost"]["peak_memory_mib"]) for one in found)


def _training_figures(place: Path) -> dict[str, float]:
    """Return how long training took, evaluations included, and the tokens an update reads in a second: the median of those logged."""
    lines = list(read_metrics(place))
    updates = [line for line in lines if "tokens_per_second" in line]
    warm = updates[1:] or updates  # the first waits for memory and for compilers
    speed = float(np.median([line["tokens_per_second"] for line in warm]))
    return {"train_seconds": max(float(line.get("seconds", 0.0)) for line in lines), "train_tokens_per_second": round(speed, 1)}


def _latency(run: Run) -> dict[str, float]:
    """Return milliseconds to answer one text, over some of them."""
    examples = [example for _, example in zip(range(ASKED_ALONE), judged_on(run), strict=False)]
    run.predict(examples[0])
    return milliseconds(run.predict, examples)


def _baseline(name: str, kind: str, run: Run, tested: Sequence[Example]) -> Candidate:
    """Fit a baseline on what the Transformer was trained on, in a process whose memory is its alone, and score it."""
    task = run.task
    assert isinstance(task, TextClassification)
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


def _row(candidate: Candidate, texts: Sequence[str]) -> dict[str, Any]:
    content = candidate.metrics.scores().to_json()
    scores = {name: content[name] for name in SCORES if name in content}
    return {"name": candidate.name, "scores": scores, **candidate.figures, "by_length": list(by_length(texts, candidate.right))}


def by_length(texts: Sequence[str], right: np.ndarray[Any, Any]) -> Iterator[dict[str, Any]]:
    """Yield the accuracy over texts of like length, in words (characters, in scripts that put no spaces between words)."""
    lengths = np.array([len(UNITS.findall(text)) for text in texts])
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
    networks = [one for one in candidates if one.name not in BASELINES]
    best = max(networks, key=lambda one: accuracies[one.name])
    simple = next(one for one in candidates if one.name == "TF-IDF + logistic regression")
    transformer = next(one for one in candidates if one.name == "Transformer")
    lines = [_against_simple(best, simple, accuracies, len(networks))]
    if best.name.endswith(WITH_N_GRAMS):
        alone = max((one for one in networks if one is not best), key=lambda one: accuracies[one.name])
        lines.append(f"Of networks alone, without n-grams: {_against_simple(alone, simple, accuracies, len(networks) - 1, advise=False)}")
    if best is not transformer:
        test = transformer.metrics.compare(best.metrics)["accuracy"]
        p_value = corrected(test.p_value, len(networks) - 1)
        sure = "more than chance" if p_value < SIGNIFICANT else "no more than chance"
        points = 100 * test.difference.value
        ahead = f"the {best.name} is ahead of the Transformer by {points:.1f} points"
        lines.append(f"Among the networks {ahead}, {sure} ({_p_words(p_value)}).")
    if accuracies["majority"] >= max(accuracies[best.name], accuracies[simple.name]):
        return [f"No model is right more often than the majority class, always answered ({accuracies['majority']:.1%}).", *lines]
    return [*lines, f"Always answering with the most frequent class is right {accuracies['majority']:.1%} of the time."]


def _against_simple(best: Candidate, simple: Candidate, accuracies: Mapping[str, float], n_networks: int, *, advise: bool = True) -> str:
    """Say whether the best network is worth it.

    Picking the best network flatters it: its lead is corrected for that, and a lead over even the best of them needs no correction.
    """
    test = simple.metrics.compare(best.metrics)["accuracy"]
    low, value, high = (100 * end for end in (test.difference.low, test.difference.value, test.difference.high))
    p_value = corrected(test.p_value, n_networks) if value > 0 else test.p_value
    p_words = _p_words(p_value) if value > 0 else f"p = {p_value:.3f}"
    ends = (-high, -low) if value < 0 and p_value < SIGNIFICANT else (low, high)  # of the lead of whichever is said to win
    span = f"95 % interval of the difference {ends[0]:+.1f} to {ends[1]:+.1f} points, {p_words}"
    a, b = (f"{name} ({accuracies[name]:.1%})" for name in (best.name, simple.name))
    if p_value >= SIGNIFICANT:
        advice = " The simple one is cheaper: use it." if advise else ""
        return f"No winner: {a} and the simple {b} do not differ by more than chance ({span}).{advice}"
    if value > 0:
        return f"The {a} beats the simple {b} by {value:.1f} points ({span})."
    advice = " Use the simple one here." if advise else ""
    return f"The simple baseline wins: {b} beats the best network, the {a}, by {-value:.1f} points ({span}).{advice}"


def corrected(p_value: float, n_comparisons: int) -> float:
    """Correct a p-value for being that of the best of several comparisons (Bonferroni's inequality)."""
    return min(1.0, n_comparisons * p_value)


def _p_words(p_value: float) -> str:
    return f"corrected p = {p_value:.3f}"


def _recall() -> dict[str, Any]:
    models = {"Transformer": "attention", "CNN": "convolution"}
    found = {name: [{"distance": one.distance, "accuracy": one.accuracy} for one in recall(mixer)] for name, mixer in models.items()}
    return {"about": RECALL_WORDS, "distances": list(DISTANCES), "models": found, "chance": 1 / VALUES}


def comparison_lines(content: Mapping[str, Any]) -> list[str]:
    """Return a comparison as lines for a terminal."""
    width = max(len(model["name"]) for model in content["models"])
    lines = [*content["verdict"], *content["notes"], ""]
    for model in content["models"]:
        accuracy, f1 = model["scores"]["accuracy"], model["scores"]["f1_macro"]
        speed = model["train_tokens_per_second"]
        lines.append(
            f"{model['name']:<{width}}  accuracy {accuracy['value']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}]"
            f"  macro F1 {f1['value']:.1%}  {model['parameters']:>10,} parameters  trained in {model['train_seconds']:.0f} s"
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
