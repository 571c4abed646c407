"""Experiments of many runs: cross-validation, tuning, and comparing kinds of model. Each leaves run folders, a JSON file and a page."""
