"""Experiments of many runs: cross-validation, tuning, and comparing kinds of model. Each leaves run folders, a JSON file and a page."""

from heed.experiments.crossvalidate import crossvalidate
from heed.experiments.models import compare_models
from heed.experiments.tune import tune

__all__ = ["compare_models", "crossvalidate", "tune"]
