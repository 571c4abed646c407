"""The simple classifiers that a Transformer has to beat, by scikit-learn: the majority class, and TF-IDF with logistic regression.

Run as a program (`python -m heed.experiments.baselines KIND RUN ANSWERS`) it fits one on what a run was trained on, writes its
probabilities for what the run is judged on, and says what that took; a process of its own has a peak of memory of its own.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline

from heed.data.rows import Example
from heed.device import peak_memory_mib
from heed.errors import DataError
from heed.run import Run
from heed.tasks.split import Split
from heed.tasks.text_classification import TextClassification
from heed.training.division import rows_of, tested_rows

SPACELESS = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")  # scripts that put no spaces between words
ASKED_ALONE = 100  # texts answered one by one for latency
REGULARISATION = 10.0  # scikit-learn's C; texts have more words than rows, and 10 is better than its default of 1 on all sets tried

Floats = np.ndarray[Any, np.dtype[np.float64]]


def build_baseline(kind: str, texts: Sequence[str]) -> Pipeline:
    """Return an untrained baseline, "majority" or "tf-idf", for texts like these."""
    if kind == "majority":
        return Pipeline(
            [("words", TfidfVectorizer(max_features=1, token_pattern=r"\S+")), ("classifier", DummyClassifier(strategy="prior"))]
        )
    spaceless = sum(len(SPACELESS.findall(text)) for text in texts) > 0.3 * sum(map(len, texts))
    words = (
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3))
        if spaceless
        else TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]")
    )
    words.set_params(sublinear_tf=True, min_df=2 if len(texts) > 100 else 1, lowercase=True)
    return Pipeline([("words", words), ("classifier", LogisticRegression(C=REGULARISATION, max_iter=1000))])


class Baseline:
    """A baseline that answers with the probabilities of a task's labels, in their order."""

    def __init__(self, kind: str, task: TextClassification) -> None:
        self.kind, self.task = kind, task
        self.model: Any = None

    def fit(self, examples: Sequence[Example]) -> None:
        """Learn from training examples."""
        texts = self.texts(examples)
        self.model = build_baseline(self.kind, texts)
        if self.task.config.multi_label:
            self.model.steps[-1] = ("classifier", OneVsRestClassifier(self.model.steps[-1][1]))
        self.model.fit(texts, self.targets(examples))

    def probabilities(self, examples: Sequence[Example]) -> Floats:
        """Return the probability of every label, (n, C); 0 for labels that training never saw."""
        found = np.zeros((len(examples), len(self.task.labels.labels)))
        answered: Floats = self.model.predict_proba(self.texts(examples))
        if self.task.config.multi_label:
            return answered
        found[:, self.model.classes_] = answered
        return found

    def texts(self, examples: Sequence[Example]) -> list[str]:
        """Return the texts, prepared as the task prepares them, two joined."""
        return [" ".join(self.task.preparation(example[column]) for column in self.task.wanted) for example in examples]

    def targets(self, examples: Sequence[Example]) -> np.ndarray[Any, Any]:
        """Return the labels' numbers (n,), or 0 and 1 for each label (n, C)."""
        return np.stack([self.task.target(example["label"]).numpy() for example in examples])

    @property
    def n_parameters(self) -> int:
        """Numbers that were learned, word weights included."""
        classifier = self.model.steps[-1][1]
        parts = getattr(classifier, "estimators_", [classifier])
        return sum(part.coef_.size + part.intercept_.size for part in parts if hasattr(part, "coef_"))


def judged_on(run: Run) -> Iterable[Example]:
    """Return the examples that models are judged on, which chose nothing: the test data, or the fold that is held out as such."""
    data = run.config.data
    if data.test is not None:
        return Split(data.test, data, run.task)
    held_out = tested_rows(run)
    assert held_out is not None
    return held_out


def trained_on(run: Run) -> Iterator[Example]:
    """Yield the examples whose rows are in the run's training store."""
    rows = rows_of(run, "train")
    if rows is None:
        raise DataError(f"{run.folder / 'store'}: is gone, and with it which examples were trained on; train again")
    return rows


def milliseconds(answer: Callable[[Example], object], examples: Sequence[Example]) -> dict[str, float]:
    """Return the median and the 95th percentile of the time an answer takes."""
    times = []
    for example in examples:
        begun = time.perf_counter()
        answer(example)
        times.append(1000 * (time.perf_counter() - begun))
    return {"median": round(float(np.median(times)), 3), "p95": round(float(np.percentile(times, 95)), 3)}


def measure(kind: str, folder: Path, out: Path) -> dict[str, Any]:
    """Fit a baseline on what a run was trained on, and write its probabilities for what the run is judged on."""
    run = Run.load(folder, device="cpu")
    assert isinstance(run.task, TextClassification)
    baseline, tested = Baseline(kind, run.task), list(judged_on(run))
    begun = time.perf_counter()
    baseline.fit(list(trained_on(run)))
    seconds = time.perf_counter() - begun
    np.save(out, baseline.probabilities(tested))
    latency = milliseconds(lambda example: baseline.probabilities([example]), tested[:ASKED_ALONE])
    found = {"parameters": baseline.n_parameters, "train_seconds": seconds, "latency_ms": latency}
    return {**found, "peak_memory_mib": round(peak_memory_mib(), 1)}


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201 (for the process that asked)
