"""What the report tells about the model, the machine, costs and settings, as facts and tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from heed.report.sources import Json, mapping
from heed.report.wording import counted, duration, figure, is_number, label, size
from heed.training.origin import inheritance_line

Facts = list[tuple[str, str]]
# What evaluations of some tasks count, and how it is called.
COUNTS = {
    "rules": "Rules",
    "without_answer": "Questions without an answer",
    "contexts": "Different contexts",
    "candidates": "Texts to choose from",
    "tokens": "Tokens",
    "hidden_tokens": "Hidden tokens",
    "unknown_tokens": "Unknown tokens",
    "bytes": "Bytes",
    "words": "Words",
    "sources_cut": "Sources cut at data.max_length",
}


@dataclass(frozen=True)
class Table:
    """A table of texts, and what to know about it."""

    head: list[str]
    rows: list[list[str]]
    note: str = ""


def model_words(config: Json, n_parameters: int) -> str:
    """Say in a line what the model is."""
    model = mapping(config.get("model"))
    words = [str(model["architecture"])] if "architecture" in model else []
    words += [f"{n_parameters:,} parameters"] if n_parameters else []
    words += [f"{figure(model['n_layers'])} layers"] if "n_layers" in model else []
    return " · ".join([*words, *(f"{key} {figure(model[key])}" for key in ("d_model", "n_heads", "d_ff", "vocab_size") if key in model)])


def origin_words(data: Json) -> str:
    """Say which run the model started from, and what it took over; "" for one that began with fresh weights."""
    report = mapping(data.get("init"))
    try:
        return f"Not from scratch: {inheritance_line(report)}" if report else ""
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"Not from scratch: started from {figure(report.get('source'))}"


def machine_words(machine: object) -> str:
    """Say in a line what a figure was measured on."""
    machine = mapping(machine)
    threads = machine.get("threads")
    words = [str(machine[key]) for key in ("gpu", "processor") if machine.get(key)]
    return ", ".join([*words, *([counted(threads, "thread")] if threads else [])])


def count_facts(evaluation: Json) -> Facts:
    """Return what scores are counted over, beside examples, and by which rules."""
    told = [(words, evaluation.get(name)) for name, words in COUNTS.items()]
    return [(words, figure(value)) for words, value in told if is_number(value) or isinstance(value, str)]


def cost_facts(evaluation: Json) -> Facts:
    """Return the speed and memory of an evaluation."""
    cost = dict(mapping(evaluation.get("cost")))
    machine = machine_words(cost.pop("machine", None))
    if isinstance(counted := cost.pop("token_name", None), str) and "tokens_per_second" in cost:
        cost[f"{counted}_per_second"] = cost.pop("tokens_per_second")
    facts = [_cost_fact(name, value) for name, value in cost.items()]
    return facts + ([("Machine", machine)] if machine else [])


def _cost_fact(name: str, value: object) -> tuple[str, str]:
    if name == "seconds" and is_number(value):
        return "Time", duration(value)
    if name.endswith("_mib") and is_number(value):
        return label(name.removesuffix("_mib")), size(value * 2**20)
    return label(name), figure(value)


def settings_facts(config: Json) -> Facts:
    """Return versions and the machine."""
    machine = mapping(config.get("machine"))
    facts = [("heed", str(config["heed"]))] if "heed" in config else []
    facts += [(label(name), figure(value)) for name, value in machine.items()]
    return [*facts, *([("Seed", str(config["seed"]))] if "seed" in config else [])]


def hash_rows(config: Json, manifest: Json) -> list[tuple[str, str, str]]:
    """Return (what, file, SHA-256) of the data and of the files of the run."""
    splits = mapping(config.get("data_sha256"))
    data = [(f"{label(split)} data", str(name), str(digest)) for split, files in splits.items() for name, digest in mapping(files).items()]
    return [*data, *(("Run folder", str(name), str(digest)) for name, digest in mapping(manifest.get("sha256")).items())]


def decode_words(evaluation: Json) -> str:
    """Return the options answers were generated with, as they are typed."""
    options: Sequence[str] = [f"{key}={_typed(value)}" for key, value in mapping(evaluation.get("decode")).items()]
    return "  ".join(options)


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
