"""The run folder: everything a trained model is, in one place that can be copied anywhere. Nothing in it is ever executed.

Its settings and how a recipe becomes them (`config`), what binds its files together (`folder`), the numbers of its model (`weights`),
and what answers (`run`).
"""

from heed.run.config import RunConfig, read_config, resolve, usual_settings
from heed.run.folder import FORMAT, new_folder, verify, write_manifest
from heed.run.run import WINDOW, Run
from heed.run.weights import check_sizes, check_stored, distinct, fill, load_weights, save_weights

__all__ = [
    "FORMAT",
    "WINDOW",
    "Run",
    "RunConfig",
    "check_sizes",
    "check_stored",
    "distinct",
    "fill",
    "load_weights",
    "new_folder",
    "read_config",
    "resolve",
    "save_weights",
    "usual_settings",
    "verify",
    "write_manifest",
]
