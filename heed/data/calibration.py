"""Calibration: what a classifier's probabilities are corrected by, fitted on validation data and saved with the run."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from heed.errors import CheckpointError


@dataclass(frozen=True)
class Calibration:
    """A temperature that divides the logits, and the probability below which an answer is withheld.

    Attributes:
        temperature: 1 changes nothing.
        threshold: of the likeliest class; None withholds nothing.
        wanted_precision: the share of right answers that the threshold was fitted to.
    """

    kind: ClassVar[str] = "calibration"
    temperature: float = 1.0
    threshold: float | None = None
    wanted_precision: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return {"temperature": self.temperature, "threshold": self.threshold, "wanted_precision": self.wanted_precision}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build it again; raises CheckpointError."""
        temperature: Any = content.get("temperature")
        shares = (content.get("threshold"), content.get("wanted_precision"))
        if not (_is_number(temperature) and temperature > 0 and all(share is None or _is_number(share) for share in shares)):
            raise CheckpointError(f"not a calibration ({str(content)[:80]}); restore the run folder from a copy")
        return cls(float(temperature), *shares)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
