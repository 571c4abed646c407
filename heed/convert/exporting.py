"""From a run folder of heed to a folder in Hugging Face's layout, which transformers loads."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from heed.config import read_yaml, typed
from heed.convert.families import families
from heed.convert.family import Family
from heed.convert.folder import Settings
from heed.convert.table import give_all
from heed.convert.writing import write_json, write_sentence_modules, write_weights
from heed.data.calibration import Calibration, NoAnswer
from heed.errors import ConfigError
from heed.files import explain_full_disk
from heed.model.config import ModelConfig
from heed.model.lora import folded
from heed.run import Run, distinct, new_folder
from heed.tasks.base import Task
from heed.tasks.sentence_similarity import SentenceSimilarity

CHANGING_TEXTS = ("cleaning", "lower", "stop_words")  # settings of tasks
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SHARD_BYTES = 5 * 10**9  # as transformers 4 has it
# What does not change what a model computes when it answers, or has its default where it would.
WITHOUT_EFFECT = frozenset(
    {"dropout", "frozen_embedding", "vocab_size", "source_vocab_size", "absent_ids", "n_classes", "n_tags", "masked_lm"}
)


@dataclass(frozen=True)
class Exported:
    """What came of exporting: the folder, the class that loads it, and what of the run has no place there."""

    folder: Path
    kind: str
    n_tensors: int
    left_behind: list[str]

    def lines(self) -> list[str]:
        """Return what a person wants to know, as lines for a terminal."""
        loads = f"{self.n_tensors} tensors; transformers loads them with {self.kind}.from_pretrained({str(self.folder)!r})"
        return [loads, *(f"not exported: {one}" for one in self.left_behind)]


def check_free(to: Path) -> None:
    """Raise ConfigError where something is in the place of a folder that is to be made."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to}: exists already and is never overwritten; choose another --to")


def export_folder(source: str | Path, to: str | Path, *, dtype: str = "float32", shard_bytes: int = SHARD_BYTES) -> Exported:
    """Write a run as a folder in Hugging Face's layout: config.json, model.safetensors and the files of the tokenizer.

    Args:
        source: a run folder; to: the folder to make.
        dtype: type of the numbers, float32, float16 or bfloat16.
        shard_bytes: what is larger is written as several files of at most so many bytes each, with an index of them.
    Raises:
        CheckpointError: the run folder is missing or not whole.
        ConfigError: no class of transformers computes what the run does, or the folder is there already.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}: is not one of {', '.join(DTYPES)}")
    to = Path(to)
    check_free(to)
    run = Run.load(source, device="cpu")
    imported = read_yaml(run.folder / "config.yaml").get("imported") or {}
    family, kind, config = find_form(run, str(imported.get("family", "")))
    ours = {name: tensor.detach() for name, tensor in distinct(folded(run.model)).items()}
    tensors = give_all(family.entries(run.config.model, run.task, kind), ours)
    kept = {name: tensor.to(DTYPES[dtype]).contiguous().clone() for name, tensor in tensors.items()}
    if kind in family.bare:
        kept = {name.removeprefix(family.prefix): tensor for name, tensor in kept.items()}
    with new_folder(to, force=False) as keep, explain_full_disk(to):
        write_json(to / "config.json", {"architectures": [kind], "model_type": family.model_type, **config, "dtype": dtype})
        if generation := imported.get("generation"):
            write_json(to / "generation_config.json", dict(family.generation(run.task, generation)))
        family.write_parts(run.task, to)
        if isinstance(run.task, SentenceSimilarity):
            settings = run.task.config
            longest, width = run.task.max_length, run.config.model.d_model
            write_sentence_modules(to, width=width, pooling=settings.pooling, normalise=settings.normalise, longest=longest)
        write_weights(to, kept, shard_bytes)
        keep()
    return Exported(to, kind, len(kept), left_behind(run.task))


def left_behind(task: Task) -> list[str]:
    """Return what a run does beside its model that the folder cannot say."""
    said = []
    changing = [f"task.{name}" for name in CHANGING_TEXTS if getattr(task.config, name, False) not in (False, "none")]
    if changing:
        said.append(f"what is done to texts before they are cut ({', '.join(changing)})")
    return [*said, *_fitted(task)]


def _fitted(task: Task) -> Iterator[str]:
    """Yield what was fitted on validation answers."""
    calibration, no_answer = task.parts.get("calibration"), task.parts.get("no_answer")
    if isinstance(calibration, Calibration) and calibration.temperature != 1:
        yield f"the temperature {calibration.temperature:.3g} by which logits are divided (task.calibrate)"
    if isinstance(calibration, Calibration) and calibration.threshold is not None:
        yield f"the probability {calibration.threshold:.3g} below which answers are withheld (task.abstain_precision)"
    if isinstance(no_answer, NoAnswer):
        yield f"the threshold {no_answer.threshold:.3g} beyond which a question is given no answer (parts/no_answer.json)"


def find_form(run: Run, first: str) -> tuple[Family, str, dict[str, Any]]:
    """Return the family, the class and config.json that hold a run.

    Args:
        first: the family to try before all others.
    Raises:
        ConfigError: none does; it says of each why.
    """
    if run.config.model.n_grams:
        raise ConfigError(
            f"{run.folder}: model.n_grams={run.config.model.n_grams}, expected 0: no class of transformers has n-grams beside its network; "
            "export a run that was trained with model.n_grams=0"
        )
    refusals = []
    for family in sorted(families(), key=lambda one: one.model_type != first):
        if run.task.name not in family.classes.values():
            continue
        kind = family.class_for(run.task.name)
        try:
            config = family.config(run.config, run.task, kind)
            check(family, kind, config, run.config.model)
        except ConfigError as error:
            refusals.append(f"{family.model_type}: {error}")
            continue
        return family, kind, config
    if not refusals:
        raise ConfigError(f"{run.folder}: no class of transformers that heed writes does {run.task.name}")
    raise ConfigError(f"{run.folder}: no class of transformers computes what this run does. {'; '.join(refusals)}")


def check(family: Family, kind: str, config: dict[str, Any], model: ModelConfig) -> None:
    """Raise ConfigError where importing config.json again would give another model than the run's: it names the first such setting."""
    back = family.settings(Settings(config, "config.json"), kind)["model"]
    again = ModelConfig(**{**back, **{name: getattr(model, name) for name in WITHOUT_EFFECT}})
    for name in ModelConfig.model_fields:
        expected, found = _value(again, name), _value(model, name)
        if expected != found:
            raise ConfigError(f"model.{name}={typed(found)}, expected {typed(expected)}")


def _value(model: ModelConfig, name: str) -> Any:
    """Return a setting as it counts: heads of keys that are not given are those of queries."""
    return model.kv_heads if name == "n_kv_heads" else getattr(model, name)
