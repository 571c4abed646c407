"""What a person should know about the data before training, in a few lines."""

from collections.abc import Iterator, Mapping
from typing import Any

from heed.terminal import counted, unit_of
from heed.training.origin import inheritance_line

SHOWN_CLASSES = 8
SPLIT_WORDS = {"train": "training", "valid": "validation"}


def summary(report: dict[str, Any]) -> list[str]:
    """Say in a few lines what a person should know about the data before training."""
    lines = [] if "init" not in report else [inheritance_line(report["init"])]
    n_train, n_valid = (report["examples"][name] for name in SPLIT_WORDS)
    more = f" ({n_extra:,} of them of data.extra)" if (n_extra := report["examples"].get("extra")) else ""
    lines.append(f"{n_train:,} training{more} and {counted(n_valid, 'validation example')}; {_sizes(report['tokens'])}")
    classes = list(report["train"].get("classes", {}).items())
    if classes:
        shown = ", ".join(f"{name} {count:,}" for name, count in classes[:SHOWN_CLASSES])
        more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
        lines.append(f"{counted(len(classes), 'class')}: {shown}{more}")
    others = {name: n for name, n in report.get("extra", {}).get("classes", {}).items() if name not in dict(classes)}
    if others:
        shown = ", ".join(f"{name} {count:,}" for name, count in list(others.items())[:SHOWN_CLASSES])
        lines.append(f"data.extra alone has {counted(len(others), 'more class')}: {shown}; are they meant to be others?")
    for name, quantiles in report["train"].get("lengths", {}).items():
        if "text" in name and quantiles:
            lines.append(f"{' in '.join(name.rsplit('_', 1))}: " + ", ".join(f"{point} {value:,}" for point, value in quantiles.items()))
    lines += [*_fault_lines(report["train"], report["filtered"], ""), *report["train"].get("warnings", [])]
    extra = report.get("extra", {})
    lines += [*_fault_lines(extra, report.get("filtered_extra", 0), " in data.extra"), *report.get("warnings", [])]
    lines += [f"data.extra: {warning}" for warning in extra.get("warnings", [])]
    for names, n in report["train"].get("shared", {}).items():
        if n:
            of_both = f"{n:,} example{' stands' if n == 1 else 's stand'}"
            lines.append(f"{of_both} both in the {names} data: what chooses the weights is then scored again, a little too well")
    lines += _useless_lines(report)
    if "held_out" in report:
        lines.append(f"held out {report['held_out']}")
    if "coverage" in report:
        found = report["coverage"]
        lines.append(f"word vectors for {found['found']:,} of {found['words']:,} words ({found['share']:.1%})")
    lines.append(f"{counted(report['batches'], 'batch')} an epoch, {report['padding']:.1%} padding")
    return lines


def _fault_lines(survey: Mapping[str, Any], n_dropped: int, place: str) -> Iterator[str]:
    """Say which faults were found, and what became of the rows that have them."""
    counts = {name: count for name, count in survey.get("counts", {}).items() if count}
    if counts:
        found = ", ".join(f"{name}: {count:,}" for name, count in counts.items())
        what = f"dropped {n_dropped:,} of them" if n_dropped else "kept; data.filter=true drops them"
        yield f"found{place} {found} ({what})"


def _sizes(counts: Mapping[str, int]) -> str:
    """Say how long the training examples are together; beside what a task itself calls tokens, the others are none, nor is sound."""
    sizes = [f"{count:,} {name}{' hops' if unit_of(name) == 'hops' else ''}" for name, count in counts.items()]
    told = "tokens" in counts or unit_of(list(counts)[-1]) == "hops"
    return ", ".join(sizes) + ("" if told else " tokens")


def _length_unit(report: dict[str, Any]) -> str:
    """Return what data.max_length counts: hops where there is sound."""
    return "hops" if "hops" in map(unit_of, report["tokens"]) else "tokens"


def _useless_lines(report: dict[str, Any]) -> Iterator[str]:
    """Say which rows are skipped, or too long, or teach nothing."""
    for reading in (report["reading"], *report["reading_others"].values()):
        if reading["bad"]:
            yield f"skipped {counted(reading['bad'], 'bad row')} of {reading['source']}, first: {reading['bad_examples'][0]}"
    for what, n_long in (("training", report["too_long"]), ("validation", report["too_long_valid"])):
        if n_long:
            longer = f"{counted(n_long, f'{what} example')} longer than data.max_length={report['max_length']} {_length_unit(report)}"
            yield f"{longer}: {report['long_examples']}"
    for name, key in (("train", "unlearnable"), ("valid", "unlearnable_valid")):
        for why, n in report[key].items():
            yield f"{n:,} of {report['examples'][name]:,} {SPLIT_WORDS[name]} examples {why}"
