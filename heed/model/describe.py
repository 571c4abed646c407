"""A model in words and pictures: its layer table and its Mermaid flow chart."""

from typing import NamedTuple

from torch import nn

from heed.model.baselines import BaselineStack, BidirectionalLSTM, HybridBlock, MixingBlock
from heed.model.block import Block, Stack
from heed.model.conformer import ConformerBlock
from heed.model.models import Encoder, HierarchicalEncoder, Model, Reader, Seq2Seq
from heed.model.stems import AudioStem, TokenStem


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
        memory = chart.stack(model.encoder, chart.stem(model.source_stem, "source"), "encoder")
        _label_scores(chart, model, memory)
        last = chart.stack(model.decoder, chart.stem(model.target_stem, "target"), "decoder", memory)
    else:
        last = chart.stack(model.stack, chart.stem(model.stem, "ids"), "stack")
        _label_scores(chart, model, last)
    if isinstance(model, HierarchicalEncoder):
        last = chart.stack(model.document, chart.add("attention pooling over each sentence", last), "document")
    if isinstance(model, Encoder):
        _judgements(chart, model, last)
    else:
        chart.add("vocabulary scores", last)
    return "\n".join(["flowchart TD", *chart.lines])


def _label_scores(chart: "_Chart", model: Model, memory: str) -> None:
    if isinstance(model, Reader) and model.ctc_head is not None:
        chart.add("label scores", memory)


def _judgements(chart: "_Chart", model: Encoder, last: str) -> None:
    """Draw the heads that judge what an encoder has read."""
    if model.masked_head is not None:
        chart.add("scores of hidden words", chart.add("linear map + norm", last))
    if model.tag_head is not None:
        chart.add("tag scores", last)
    if model.pooling is not None and model.head is not None:
        pooled = chart.add(f"{model.pooling.kind} pooling", last)
        chart.add("class scores", pooled if model.head.hidden is None else chart.add("hidden layer", pooled))


def _embedding(stem: TokenStem) -> str:
    """Say what is added up, and whether it is normalised."""
    parts = ["embedding", *(["segments"] if stem.segments is not None else []), "positions"]
    return " + ".join(parts) + (", normalised" if stem.norm is not None else "")


class _Chart:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def start(self, text: str) -> str:
        return self.add(text, None, ("([", "])"))

    def stem(self, stem: TokenStem | AudioStem, text: str) -> str:
        if isinstance(stem, TokenStem):
            return self.add(_embedding(stem), self.start(text))
        before = self.start("frames of audio")
        for layer in stem.layers:
            strides = layer.stride if isinstance(layer, nn.Conv1d | nn.Conv2d) else (1,)
            before = self.add(f"convolution with stride {strides[0]}", before)
        return self.add("positions" if stem.output is None else "linear map + positions", before)

    def add(self, text: str, before: str | None, shape: tuple[str, str] = ("[", "]")) -> str:
        name = f"n{self.count}"
        self.count += 1
        self.lines.append(f'    {name}{shape[0]}"{text}"{shape[1]}')
        if before is not None:
            self.lines.append(f"    {before} --> {name}")
        return name

    def stack(self, stack: Stack | BaselineStack, before: str, title: str, memory: str | None = None) -> str:
        for i, block in enumerate(stack.blocks):
            name = f"{title} {i + 1}"
            if isinstance(block, MixingBlock):
                before = self._mixing(block, before, name)
            elif isinstance(block, HybridBlock):
                before = self._block(block.far, self._mixing(block.near, before, name), name, memory)
            elif isinstance(block, Block):
                before = self._block(block, before, name, memory)
            elif isinstance(block, ConformerBlock):
                before = self._conformer(before, name)
        return before if stack.norm is None else self.add(f"{title}: norm", before)

    def _mixing(self, block: MixingBlock, before: str, title: str) -> str:
        return self._sub_layer(f"{title}: {'LSTM' if isinstance(block.mixer, BidirectionalLSTM) else 'convolution'}", before)

    def _block(self, block: Block, before: str, title: str, memory: str | None) -> str:
        kind = "causal self-attention" if block.causal else "self-attention"
        before = self._sub_layer(f"{title}: {kind}", before)
        if block.cross_attention is not None and memory is not None:
            before = self._sub_layer(f"{title}: cross-attention", before, memory)
        return self._sub_layer(f"{title}: feed-forward", before)

    def _conformer(self, before: str, title: str) -> str:
        for kind in ("half a feed-forward", "self-attention", "convolution", "half a feed-forward"):
            before = self._sub_layer(f"{title}: {kind}", before)
        return before

    def _sub_layer(self, text: str, before: str, memory: str | None = None) -> str:
        layer = self.add(text, before)
        if memory is not None:
            self.lines.append(f"    {memory} -->|keys and values| {layer}")
        added = self.add("+", layer, ("((", "))"))
        self.lines.append(f"    {before} -->|residual| {added}")
        return added
