"""The errors a user can cause. Every message says where, what was found, what was expected and what to do."""


class HeedError(Exception):
    """A mistake a user can mend; the command line prints it as one line and exits with 1."""


class ConfigError(HeedError):
    """A setting is unknown, has the wrong type, or does not go together with another."""


class DataError(HeedError):
    """A data file is missing, unreadable, or holds a row that cannot be used."""


class CheckpointError(HeedError):
    """A run folder or checkpoint is absent, incomplete, edited, or does not fit its configuration."""


class TrainingError(HeedError):
    """Training cannot go on: a non-finite loss, a full disk, an example that does not fit."""


class MissingExtra(HeedError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}; install it with: pip install {package} (heed's extra {extra!r})")
