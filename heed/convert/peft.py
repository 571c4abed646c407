"""Adapters in the layout of peft, which puts them beside a model of transformers: adapter_config.json and adapter_model.safetensors.

A map of theirs that holds several of ours one below the other (GPT-2's query, key and value) has one adapter for all of them there: the
thin matrices of ours side by side, and zeros where they do not meet. Left out: reading such a folder, which `merge_and_unload` of peft
makes a whole model of.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from heed.adapters import NUMBERS, Adapters
from heed.config import read_yaml
from heed.convert.exporting import check_free, find_form
from heed.convert.table import Entry, Transposed
from heed.convert.writing import write_json
from heed.data.labels import Labels
from heed.errors import ConfigError
from heed.files import explain_full_disk
from heed.model.lora import LoraLinear
from heed.run import Run, distinct, new_folder

INSIDE = "base_model.model."  # what stands before the names of the model that adapters are put into
TASK_TYPES = {"text_generation": "CAUSAL_LM", "text_to_text": "SEQ_2_SEQ_LM", "translation": "SEQ_2_SEQ_LM"}  # for what peft adds to them


class Adapter(NamedTuple):
    """What is added to one map of theirs: factor * up @ down.

    Attributes:
        module: the name of the map.
        down: (r, D); up: (F, r).
        turned: whether they keep the map the other way round.
    """

    module: str
    down: Tensor
    up: Tensor
    turned: bool


def export_peft(source: str | Path, to: str | Path) -> list[str]:
    """Write the adapters of a run as peft's `save_pretrained` does, and return what a person wants to know as lines.

    Raises:
        CheckpointError: the run folder is missing or not whole.
        ConfigError: the run has no adapters that stand apart, no class of transformers holds it, or the folder is there already.
    """
    to = Path(to)
    check_free(to)
    run = Run.load(source, device="cpu")
    if not (run.folder / NUMBERS).is_file():
        raise ConfigError(f"{run.folder}: keeps no adapters apart; train with init=RUN lora.rank=8 lora.merge=false")
    imported = read_yaml(run.folder / "config.yaml").get("imported") or {}
    family, kind, _ = find_form(run, str(imported.get("family", "")))
    adapters = Adapters.read(run.folder)
    table = family.entries(run.config.model, run.task, kind)
    parts = {path: module for path, module in run.model.named_modules() if isinstance(module, LoraLinear)}
    learned = [found for line in table if (found := _joined(line, parts)) is not None]
    new = _new(table, run, adapters.new)
    bare = family.prefix if kind in family.bare else ""
    tensors = {f"{found.module}.lora_A.weight": found.down for found in learned}
    tensors |= {f"{found.module}.lora_B.weight": found.up for found in learned} | new
    with new_folder(to, force=False) as keep, explain_full_disk(to):
        write_json(to / "adapter_config.json", _config(adapters, run, learned, new, bare))
        kept = {f"{INSIDE}{name.removeprefix(bare)}": tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
        safetensors.torch.save_file(kept, to / "adapter_model.safetensors", metadata={"format": "pt"})
        keep()
    return _lines(run, to, kind, len(learned))


def _joined(line: Entry, parts: Mapping[str, LoraLinear]) -> Adapter | None:
    """Return the adapter of a map of theirs; None where none of ours that it holds has one."""
    found = [parts.get(name.removesuffix(".weight")) for name in line.ours]
    if all(part is None for part in found) or not line.theirs.endswith(".weight"):
        return None
    height = next(part.frozen.out_features for part in found if part is not None)
    blocks = [torch.zeros(height, 0) if part is None else part.up.weight.detach() for part in found]
    up: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    turned = any(isinstance(change, Transposed) for change in line.changes)
    for change in reversed(line.changes):
        up = up if isinstance(change, Transposed) else change.give(up)
    down = torch.cat([part.down.weight.detach() for part in found if part is not None])
    return Adapter(line.theirs.removesuffix(".weight"), down, up, turned)


def _new(table: Sequence[Entry], run: Run, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors of theirs that learned in full, because the other run had none; raises ConfigError where peft cannot hold them."""
    ours = distinct(run.model)
    lines = [line for line in table if set(line.ours) & set(names)]
    for line in lines:
        module = line.theirs.rpartition(".")[0]
        if any(other.theirs.startswith(f"{module}.") and other.theirs.rpartition(".")[0] != module for other in table):
            raise ConfigError(f"{line.ours[0]}: is new beside the adapters, and has no place in peft's layout; export with --format hf")
    return {line.theirs: line.give([ours[name].detach() for name in line.ours]) for line in lines}


def _config(adapters: Adapters, run: Run, learned: Sequence[Adapter], new: Mapping[str, Tensor], bare: str) -> dict[str, Any]:
    """Return adapter_config.json; what it leaves out is as usual there."""
    wider = {found.module.rpartition(".")[2]: found.down.size(0) for found in learned if found.down.size(0) != adapters.rank}
    return {
        "peft_type": "LORA",
        "task_type": TASK_TYPES.get(run.task.name),
        "base_model_name_or_path": None,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "rank_pattern": wider,
        "alpha_pattern": {name: adapters.alpha * rank / adapters.rank for name, rank in wider.items()},
        "fan_in_fan_out": any(found.turned for found in learned),
        "target_modules": [found.module.removeprefix(bare) for found in learned],
        "modules_to_save": list(dict.fromkeys(name.rpartition(".")[0].removeprefix(bare) for name in new)) or None,
        "inference_mode": True,
    }


def _lines(run: Run, to: Path, kind: str, n_adapters: int) -> list[str]:
    """Say how peft loads the folder, and which labels a head has, of which it keeps no names."""
    labels = run.task.parts.get("labels")
    named = list(labels.labels) if isinstance(labels, Labels) else []
    base = f"{kind}.from_pretrained(BASE{f', num_labels={len(named)}' if named else ''})"
    lines = [f"{n_adapters} adapters; peft loads them with PeftModel.from_pretrained({base}, {str(to)!r})"]
    lines.append(f"BASE is what {run.config.init} came from, or what heed export {run.config.init} --format hf --to BASE writes")
    return [*lines, *([f"labels, by number: {', '.join(named)}"] if named else [])]
