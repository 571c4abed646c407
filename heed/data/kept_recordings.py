"""Recordings that were decoded to be checked, kept until they are encoded."""

from torch import Tensor


class KeptRecordings:
    """Recordings that were decoded once and will be wanted again, (T, hop) each, in a memory of so many bytes."""

    def __init__(self, n_bytes: int) -> None:
        self.n_free = n_bytes
        self._hops: dict[str, Tensor] = {}

    def has_room(self, n_bytes: float) -> bool:
        """Tell whether so much more may be kept."""
        return n_bytes <= self.n_free

    def add(self, path: str, hops: Tensor) -> None:
        """Keep the recording of a path, which is not kept yet."""
        self._hops[path] = hops
        self.n_free -= hops.nbytes

    def find(self, source: object) -> Tensor | None:
        """Return a recording that is kept; None for others."""
        return self._hops.get(source) if isinstance(source, str) else None

    def drop(self, source: object) -> None:
        """Keep a recording no longer, if it was kept."""
        if isinstance(source, str) and (hops := self._hops.pop(source, None)) is not None:
            self.n_free += hops.nbytes
