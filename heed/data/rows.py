"""What every source of examples gives, whatever its form: numbered rows of named columns."""

from collections.abc import Callable
from typing import Any

Example = dict[str, Any]
# A row with its number in the source, from 1, or the path of its own file: its columns, or what is wrong with it.
Row = tuple[int | str, Example | str]
# Says what is wrong with an example; None for nothing.
Check = Callable[[Example], str | None]
