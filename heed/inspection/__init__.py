"""What is in a run folder, in data, or in a recipe: for a person at a terminal, and as plain JSON values for programs."""

from heed.inspection.data import inspect_data
from heed.inspection.run import inspect_run
from heed.inspection.settings import inspect_recipe

__all__ = ["inspect_data", "inspect_recipe", "inspect_run"]
