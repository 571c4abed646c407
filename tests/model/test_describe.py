"""The layer table and the Mermaid flow chart of a model."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from heed.model import Model, ModelConfig, Seq2Seq, build_model, count_parameters, layer_table, mermaid

Maker = Callable[..., ModelConfig]


class Chart(NamedTuple):
    """A flow chart read back: node name -> text, and its edges."""

    nodes: dict[str, str]
    edges: list[tuple[str, str]]


def read_chart(text: str) -> Chart:
    """Read every line of a chart as one node or one edge; refuse any other line."""
    first, *lines = text.split("\n")
    assert first == "flowchart TD"
    nodes: dict[str, str] = {}
    edges = []
    for line in lines:
        if edge := re.fullmatch(r"    (\w+) -->(?:\|[\w ]+\|)? (\w+)", line):
            edges.append((edge[1], edge[2]))
        else:
            node = re.fullmatch(r'    (\w+)(\(\["|\[|\(\(|\(\[)"?([^"\[\]]+)"(\]\)|\]|\)\))', line)
            assert node, line
            assert node[1] not in nodes
            nodes[node[1]] = node[3]
    return Chart(nodes, edges)


@pytest.fixture(params=["encoder", "causal", "seq2seq"])
def model(request: pytest.FixtureRequest, tiny_config: Maker) -> Model:
    return build_model(tiny_config(architecture=request.param, n_layers=3))


def test_the_layer_table_adds_up_to_the_distinct_parameters(model: Model) -> None:
    rows = layer_table(model)
    distinct = {parameter.data_ptr(): parameter.numel() for parameter in model.parameters()}
    assert sum(row.parameters for row in rows) == count_parameters(model) == sum(distinct.values())
    assert len({row.name for row in rows}) == len(rows)


def test_a_tied_matrix_is_counted_once_and_marked_as_shared(tiny_config: Maker) -> None:
    rows = {row.name: row for row in layer_table(build_model(tiny_config()))}
    assert rows["target_stem.embedding"].parameters == 13 * 24
    assert rows["head"].parameters == 0
    assert rows["head"].shapes == "weight (13, 24) (shared)"
    untied = {row.name: row for row in layer_table(build_model(tiny_config(tied=False)))}
    assert untied["head"].parameters == 13 * 24


def test_the_layer_table_names_every_module_that_owns_parameters(model: Model) -> None:
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters(remove_duplicate=False)}
    listed = {row.name for row in layer_table(model)}
    assert listed <= owners
    assert {id(model.get_submodule(name)) for name in owners} == {id(model.get_submodule(name)) for name in listed}


def test_every_edge_of_the_chart_joins_two_declared_nodes(model: Model) -> None:
    chart = read_chart(mermaid(model))
    assert {end for edge in chart.edges for end in edge} == chart.nodes.keys()


def test_the_chart_is_acyclic_and_everything_leads_to_its_last_node(model: Model) -> None:
    chart = read_chart(mermaid(model))
    order = {name: i for i, name in enumerate(chart.nodes)}
    assert all(order[start] < order[end] for start, end in chart.edges)
    inner = {start for start, _ in chart.edges}
    assert [name for name in chart.nodes if name not in inner] == [next(reversed(chart.nodes))]
    entered = {end for _, end in chart.edges}
    roots = [chart.nodes[name] for name in chart.nodes if name not in entered]
    assert roots == (["source", "target"] if isinstance(model, Seq2Seq) else ["ids"])


def test_every_sub_layer_has_a_residual_round_it(model: Model) -> None:
    chart = read_chart(mermaid(model))
    into = {name: [start for start, end in chart.edges if end == name] for name in chart.nodes}
    sums = [name for name, text in chart.nodes.items() if text == "+"]
    assert len(sums) == (3 * 2 + 3 * 3 if isinstance(model, Seq2Seq) else 3 * 2)
    for name in sums:
        layer, skipped = into[name]
        assert into[layer][0] == skipped  # the sum adds the sub-layer and what the sub-layer was given


def test_the_encoders_output_enters_the_cross_attention_of_every_decoder_layer(tiny_config: Maker) -> None:
    chart = read_chart(mermaid(build_model(tiny_config(n_layers=2, n_decoder_layers=4))))
    [memory] = [name for name, text in chart.nodes.items() if text == "encoder: norm"]
    read_by = [chart.nodes[end] for start, end in chart.edges if start == memory]
    assert read_by == [f"decoder {i}: cross-attention" for i in range(1, 5)]


def test_decoder_layers_attend_to_themselves_then_to_the_source_then_feed_forward(tiny_config: Maker) -> None:
    nodes = read_chart(mermaid(build_model(tiny_config(n_layers=1)))).nodes.values()
    decoder = [text for text in nodes if text.startswith("decoder 1")]
    assert decoder == ["decoder 1: causal self-attention", "decoder 1: cross-attention", "decoder 1: feed-forward"]


CLASSIFIERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "convolution": ({"mixer": "convolution"}, ["stack 1: convolution", "stack 2: convolution", "stack: norm", "mean pooling"]),
    "lstm": ({"mixer": "lstm", "pooling": "first"}, ["stack 1: LSTM", "stack 2: LSTM", "stack: norm", "first pooling"]),
    "hybrid": (
        {"mixer": "hybrid", "pooling": "attention", "n_layers": 1, "norm_place": "after"},
        ["stack 1: convolution", "stack 1: self-attention", "stack 1: feed-forward", "attention pooling"],
    ),
    "low rank": (
        {"attention": "low_rank", "weight_rank": 2, "adaptive": True, "n_layers": 1},
        ["stack 1: self-attention", "stack 1: feed-forward", "stack: norm", "mean pooling"],
    ),
    "hierarchical": (
        {"hierarchical": True, "n_layers": 1},
        [
            *["stack 1: self-attention", "stack 1: feed-forward", "stack: norm", "attention pooling over each sentence"],
            *["document 1: self-attention", "document 1: feed-forward", "document: norm", "mean pooling"],
        ],
    ),
    "hierarchical lstm": (
        {"hierarchical": True, "mixer": "lstm", "n_layers": 1, "n_document_layers": 2},
        [
            *["stack 1: LSTM", "stack: norm", "attention pooling over each sentence"],
            *["document 1: LSTM", "document 2: LSTM", "document: norm", "mean pooling"],
        ],
    ),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_chart_of_a_classifier_leads_from_its_ids_through_what_mixes_them_to_class_scores(kind: str, tiny_config: Maker) -> None:
    fields, expected = CLASSIFIERS[kind]
    chart = read_chart(mermaid(build_model(tiny_config(architecture="encoder", n_classes=5, **fields))))
    assert [text for text in chart.nodes.values() if text != "+"] == ["ids", "embedding + positions", *expected, "class scores"]
    order = {name: i for i, name in enumerate(chart.nodes)}
    assert {end for edge in chart.edges for end in edge} == chart.nodes.keys()
    assert all(order[start] < order[end] for start, end in chart.edges)
    inner, entered = {start for start, _ in chart.edges}, {end for _, end in chart.edges}
    assert [chart.nodes[name] for name in chart.nodes if name not in inner] == ["class scores"]
    assert [chart.nodes[name] for name in chart.nodes if name not in entered] == ["ids"]
    for name in [name for name, text in chart.nodes.items() if text == "+"]:
        layer, skipped = [start for start, end in chart.edges if end == name]
        assert [start for start, end in chart.edges if end == layer] == [skipped]


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_the_layer_table_of_a_classifier_adds_up_to_its_parameters(kind: str, tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture="encoder", n_classes=5, d_embedding=7, **CLASSIFIERS[kind][0]))
    rows = {row.name: row for row in layer_table(model)}
    assert sum(row.parameters for row in rows.values()) == count_parameters(model)
    assert {name.rpartition(".")[0] for name, _ in model.named_parameters()} == rows.keys()
    assert rows["head.scores"].parameters == 24 * 5 + 5
    assert rows["stem.widen"].parameters == 24 * 7


HEADS: list[tuple[dict[str, Any], list[str], str]] = [
    (
        {"n_segments": 2, "embedding_norm": True, "masked_lm": True},
        ["linear map + norm", "scores of hidden words"],
        "embedding + segments + positions, normalised",
    ),
    ({"n_tags": 3}, ["tag scores"], "embedding + positions"),
    ({"n_classes": 3, "class_hidden": "tanh"}, ["mean pooling", "hidden layer", "class scores"], "embedding + positions"),
]


@pytest.mark.parametrize(("fields", "expected", "embedding"), HEADS)
def test_the_chart_of_an_encoder_shows_its_embeddings_and_heads(
    fields: dict[str, Any], expected: list[str], embedding: str, tiny_config: Maker
) -> None:
    nodes = list(read_chart(mermaid(build_model(tiny_config(architecture="encoder", **fields)))).nodes.values())
    assert nodes[1] == embedding
    assert nodes[nodes.index("stack: norm") + 1 :] == expected


def test_the_chart_of_a_stem_for_audio_shows_its_strides(tiny_config: Maker) -> None:
    fields: dict[str, Any] = {"architecture": "encoder", "n_features": 7, "subsampling": 2}
    for kind, expected in (
        ("frames2d", ["convolution with stride 2", "linear map + positions"]),
        ("frames1d", ["convolution with stride 1", "convolution with stride 2", "positions"]),
    ):
        nodes = list(read_chart(mermaid(build_model(tiny_config(audio_stem=kind, **fields)))).nodes.values())
        assert nodes[: len(expected) + 1] == ["frames of audio", *expected]


def test_an_encoder_without_a_head_ends_with_its_vectors(tiny_config: Maker) -> None:
    chart = read_chart(mermaid(build_model(tiny_config(architecture="encoder"))))
    assert list(chart.nodes.values())[-1] == "stack: norm"
