"""The families of models that heed reads and writes."""

from heed.convert.bert import Bert, DistilBert, Roberta
from heed.convert.family import Family
from heed.convert.folder import Settings
from heed.convert.gpt2 import Gpt2
from heed.convert.llama import Llama, Mistral, Qwen2
from heed.convert.marian import Marian
from heed.convert.t5 import T5
from heed.convert.whisper import Whisper
from heed.errors import ConfigError


def families() -> list[Family]:
    """Return all families; of several that can hold a run, an export takes the first."""
    return [Bert(), Roberta(), DistilBert(), Gpt2(), Llama(), Mistral(), Qwen2(), T5(), Marian(), Whisper()]


def known_classes() -> dict[str, Family]:
    """Return the family of each class that config.json may name."""
    return {name: family for family in families() for name in family.classes}


def find_family(theirs: Settings, task: str | None = None) -> tuple[Family, str]:
    """Return the family and the class that config.json names.

    Args:
        task: what the model is to be used for, where that was said: of a class that heed does not know it takes the body, then.
    Raises:
        ConfigError: it names none, or one that heed does not know.
    """
    named = theirs.get("architectures", [])
    known = known_classes()
    found = next((name for name in named if isinstance(name, str) and name in known), None) if isinstance(named, list) else None
    if found is not None:
        return known[found], found
    model_type = theirs.get("model_type", None)
    family = next((one for one in families() if one.model_type == model_type), None)
    if family is not None and task is not None:
        return family, family.class_for(task)
    what = f"architectures={named!r}" if named else f"no architectures, with model_type={model_type!r}"
    hint = "" if family is None else f"; or use its body with --task {' or '.join(sorted(set(family.classes.values())))}"
    raise ConfigError(f"{theirs.where}: {what}, expected one of {', '.join(known)}{hint}")
