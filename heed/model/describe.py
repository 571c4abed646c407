"""A model in words and pictures: its layer table and its Mermaid flow chart."""

from typing import NamedTuple

from torch import nn

from heed.model.block import Block, Stack
from heed.model.models import Encoder, Model, Seq2Seq


class Row(NamedTuple):
    """One line of the layer table."""

    name: str
    kind: str
    shapes: str
    parameters: int


def layer_table(model: nn.Module) -> list[Row]:
    """List every module that owns parameters, with their shapes; a shared tensor is counted where it first stands.

    The parameters of all rows add up to the number of distinct parameters.
    """
    seen: set[int] = set()
    rows = []
    for name, module in model.named_modules(remove_duplicate=True):
        own = list(module.named_parameters(recurse=False))
        if not own:
            continue
        shapes = ", ".join(f"{key} {tuple(value.shape)}" + (" (shared)" if id(value) in seen else "") for key, value in own)
        count = sum(value.numel() for _, value in own if id(value) not in seen)
        seen.update(id(value) for _, value in own)
        rows.append(Row(name or "(top)", type(module).__name__, shapes, count))
    return rows


def count_parameters(model: nn.Module) -> int:
    """Count distinct parameters; tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def mermaid(model: Model) -> str:
    """Draw the model as a Mermaid flow chart: stems, every sub-layer of every block, heads, and who looks at whom."""
    chart = _Chart()
    if isinstance(model, Seq2Seq):
        source = chart.node("source ids", chart.start("source"))
        memory = chart.stack(model.encoder, source, "encoder")
        target = chart.node("target ids so far", chart.start("target"))
        last = chart.stack(model.decoder, target, "decoder", memory)
    else:
        last = chart.stack(model.stack, chart.node("ids", chart.start("ids")), "stack")
    if not isinstance(model, Encoder):
        chart.node("vocabulary scores", last)
    return "\n".join(["flowchart TD", *chart.lines])


class _Chart:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def start(self, text: str) -> str:
        return self._add(text, None, ("([", "])"))

    def node(self, text: str, before: str) -> str:
        return self._add("embedding + positions" if text.endswith(("ids", "so far")) else text, before)

    def _add(self, text: str, before: str | None, shape: tuple[str, str] = ("[", "]")) -> str:
        name = f"n{self.count}"
        self.count += 1
        self.lines.append(f'    {name}{shape[0]}"{text}"{shape[1]}')
        if before is not None:
            self.lines.append(f"    {before} --> {name}")
        return name

    def stack(self, stack: Stack, before: str, title: str, memory: str | None = None) -> str:
        for i, block in enumerate(stack.blocks):
            if isinstance(block, Block):
                before = self._block(block, before, f"{title} {i + 1}", memory)
        return before if stack.norm is None else self._add(f"{title}: norm", before)

    def _block(self, block: Block, before: str, title: str, memory: str | None) -> str:
        kind = "causal self-attention" if block.causal else "self-attention"
        before = self._sub_layer(f"{title}: {kind}", before)
        if block.cross_attention is not None and memory is not None:
            before = self._sub_layer(f"{title}: cross-attention", before, memory)
        return self._sub_layer(f"{title}: feed-forward", before)

    def _sub_layer(self, text: str, before: str, memory: str | None = None) -> str:
        layer = self._add(text, before)
        if memory is not None:
            self.lines.append(f"    {memory} -->|keys and values| {layer}")
        added = self._add("+", layer, ("((", "))"))
        self.lines.append(f"    {before} -->|residual| {added}")
        return added
