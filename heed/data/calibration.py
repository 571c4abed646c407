"""What is fitted on validation answers and saved with the run: a classifier's calibration, and when a question has no answer."""

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from heed.errors import CheckpointError

WITHHOLDS_ALL = 1.0  # a threshold that next to no probability reaches


@dataclass(frozen=True)
class Calibration:
    """A temperature that divides the logits, and the probability below which an answer is withheld.

    Attributes:
        temperature: 1 changes nothing.
        threshold: of the likeliest class; None withholds nothing.
        wanted_precision: the share of right answers that the threshold was fitted to.
        best_precision, best_share: where no threshold keeps what is wanted, the highest share of right answers that one keeps, and the
            share of answers that are given then; None where there are too few examples to tell.
    """

    kind: ClassVar[str] = "calibration"
    temperature: float = 1.0
    threshold: float | None = None
    wanted_precision: float | None = None
    best_precision: float | None = None
    best_share: float | None = None

    @property
    def remark(self) -> str | None:
        """Say that the wanted share of right answers cannot be kept, and which can; None where it is kept or nothing was wanted."""
        if self.threshold != WITHHOLDS_ALL or self.wanted_precision is None:
            return None
        wanted = f"task.abstain_precision={self.wanted_precision:g} cannot be kept, so every answer is withheld"
        if self.best_precision is None or self.best_share is None:
            return f"{wanted}: there are too few validation examples to fit a threshold on; give more"
        best = math.floor(1000 * self.best_precision) / 1000  # rounded up it could be what was wanted
        return (
            f"{wanted}: on the validation data at most {best:.1%} of the answers are right, when only the surest {self.best_share:.1%} "
            f"are given; ask for no more than {best:g}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build it again; raises CheckpointError."""
        temperature: Any = content.get("temperature")
        shares = [content.get(name) for name in ("threshold", "wanted_precision", "best_precision", "best_share")]
        if not (_is_number(temperature) and temperature > 0 and all(share is None or _is_number(share) for share in shares)):
            raise CheckpointError(f"not a calibration ({str(content)[:80]}); restore the run folder from a copy")
        return cls(float(temperature), *shares)


@dataclass(frozen=True)
class NoAnswer:
    """When a question is given no answer; there is such a part only where questions without one were learned from.

    Attributes:
        threshold: how far the log p of no answer has to lead that of the likeliest answer.
    """

    kind: ClassVar[str] = "no_answer"
    threshold: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the threshold by its name."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Build it again; raises CheckpointError."""
        threshold: Any = content.get("threshold")
        if not _is_number(threshold):
            raise CheckpointError(f"not a threshold ({str(content)[:80]}); restore the run folder from a copy")
        return cls(float(threshold))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
