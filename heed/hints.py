"""What may have been meant by a name that is not known."""

import difflib
from collections.abc import Sequence


def nearest(path: str, known: Sequence[str]) -> str | None:
    """Return the known path with the same last name, else the one spelled most alike (in the same section, if that is right).

    Where none is spelled alike, it is the first that begins as the path does.
    """
    section, _, name = path.rpartition(".")
    same = [other for other in known if other.rpartition(".")[2] == name]
    beside = [other for other in known if section and other.rpartition(".")[0] == section]
    rivals = {other.removeprefix(f"{section}." if beside else ""): other for other in same or beside or known}
    wanted = name if beside else path
    alike = difflib.get_close_matches(wanted, rivals, n=1, cutoff=0.0 if same else 0.6)
    best = alike or [other for other in rivals if wanted and other.startswith(wanted)]
    return rivals[best[0]] if best else None
