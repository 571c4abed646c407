"""Pooling by its definitions, and the head that judges what was pooled."""

from collections.abc import Callable
from typing import Literal, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from heed.errors import ConfigError
from heed.model import Encoder, ModelConfig, build_model, cross_entropy, vocabulary_loss
from heed.model.heads import ClassHead, Pooling

Kind = Literal["mean", "attention", "first"]
KINDS = get_args(Kind)
# whole, padded, with a hole, with one real place, and without any
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()


def by_definition(pooling: Pooling, row: Tensor) -> Tensor:
    """Pool the real vectors of one text, (S, D) with S > 0."""
    if pooling.kind == "first":
        return row[0]
    if pooling.inner is None or pooling.query is None:
        return torch.stack([feature.sum() / len(row) for feature in row.T])
    inner = torch.tanh(row @ pooling.inner.weight.T + pooling.inner.bias)
    shares = torch.exp(inner @ pooling.query.weight[0])
    return sum((share * vector for share, vector in zip(shares, row, strict=True)), torch.zeros(row.size(1))) / shares.sum()


@pytest.mark.parametrize("kind", KINDS)
def test_pooling_equals_its_definition_over_the_real_places(kind: Kind) -> None:
    pooling, x = Pooling(7, kind), torch.randn(5, 5, 7)
    found = pooling(x, MASK)
    assert found.shape == (5, 7)
    for row, mask, pooled in zip(x[:4], MASK, found, strict=False):
        torch.testing.assert_close(pooled, by_definition(pooling, row[mask]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_real_places_gives_zeros_and_finite_gradients(kind: Kind) -> None:
    pooling, x = Pooling(7, kind), torch.randn(5, 5, 7, requires_grad=True)
    found = pooling(x, MASK)
    assert bool((found[4] == 0).all())
    torch.autograd.backward(found.square().sum())
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())
    assert bool((x.grad[~MASK] == 0).all())
    assert bool((x.grad[:4, 0] != 0).any(-1).all())


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_not_looked_at(kind: Kind) -> None:
    pooling, x = Pooling(7, kind), torch.randn(5, 5, 7)
    noise = torch.where(MASK[..., None], x, 1e4 * torch.randn(x.shape))
    assert torch.equal(pooling(x, MASK), pooling(noise, MASK))
    torch.testing.assert_close(pooling(x, MASK)[1:2], pooling(x[1:2, :3]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_no_mask_means_that_all_places_are_real(kind: Kind) -> None:
    pooling, x = Pooling(7, kind), torch.randn(2, 5, 7)
    assert torch.equal(pooling(x), pooling(x, torch.ones(2, 5).bool()))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_sum_to_one(kind: Kind) -> None:
    pooling, x = Pooling(7, kind), torch.cat([torch.randn(5, 5, 6), torch.ones(5, 5, 1)], dim=-1)
    torch.testing.assert_close(pooling(x, MASK)[:4, 6], torch.ones(4), rtol=1e-5, atol=1e-6)


def test_attention_pooling_learns_what_to_look_at() -> None:
    pooling, x, mask = Pooling(7, "attention"), torch.randn(5, 5, 7), MASK
    torch.autograd.backward((pooling(x, mask) * torch.randn(5, 7)).sum())
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in pooling.parameters())
    assert [name for name, _ in pooling.named_parameters()] == ["inner.weight", "inner.bias", "query.weight"]
    assert not list(Pooling(7, "mean").parameters()) + list(Pooling(7, "first").parameters())


@pytest.mark.parametrize("kind", ["mean", "attention"])
def test_sums_over_long_texts_are_in_float32(kind: Kind) -> None:
    pooling, x = Pooling(7, kind), torch.randn(2, 1000, 7)
    exact = pooling(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = pooling(x.bfloat16())
    assert low.dtype == torch.float32
    assert (low - exact).norm() < 2e-2 * x.norm() / 1000**0.5  # the size of one of the vectors


@pytest.mark.parametrize(("kind", "activation"), [("tanh", torch.tanh), ("relu", torch.relu)])
def test_a_class_head_may_have_a_layer_before_its_scores(
    kind: str, activation: Callable[[Tensor], Tensor], tiny_config: Callable[..., ModelConfig]
) -> None:
    head, x = ClassHead(tiny_config(architecture="encoder", class_hidden=kind), 5), torch.randn(3, 24)
    assert isinstance(head.hidden, torch.nn.Linear)
    hidden = activation(x @ head.hidden.weight.T + head.hidden.bias)
    torch.testing.assert_close(head(x), hidden @ head.scores.weight.T + head.scores.bias, rtol=1e-5, atol=1e-5)


def encoder(config: ModelConfig) -> Encoder:
    model = build_model(config)
    assert isinstance(model, Encoder)
    return model


def test_tags_are_judged_for_every_token_alone(tiny_config: Callable[..., ModelConfig]) -> None:
    model = encoder(tiny_config(architecture="encoder", n_tags=5, dropout=0.5)).eval()
    ids, mask = torch.randint(3, 13, (2, 7)), torch.arange(7) < torch.tensor([[7], [4]])
    assert model.tag_head is not None
    scores = model.tag_head.scores
    torch.testing.assert_close(model.tag_logits(ids, mask), model(ids, mask) @ scores.weight.T + scores.bias, rtol=1e-5, atol=1e-5)
    assert model.tag_logits(ids, mask).shape == (2, 7, 5)
    vectors = torch.ones(400, 24)
    assert not torch.allclose(model.tag_head.train()(vectors), model.tag_head.eval()(vectors))  # dropout


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("tied", [True, False])
def test_hidden_words_are_scored_by_a_layer_a_norm_and_the_embeddings(
    tied: bool, norm: str, tiny_config: Callable[..., ModelConfig]
) -> None:
    model = encoder(tiny_config(architecture="encoder", masked_lm=True, tied=tied, norm=norm, activation="gelu")).eval()
    head, ids, mask = model.masked_head, torch.randint(3, 13, (2, 7)), torch.arange(7) < torch.tensor([[7], [4]])
    assert head is not None
    assert head.bias is not None
    for parameter in (head.bias, *head.norm.parameters()):
        torch.nn.init.normal_(parameter)
    inner = F.gelu(model(ids, mask) @ head.transform.weight.T + head.transform.bias)
    vectors = (head.norm)(inner)
    matrix = model.get_parameter("stem.embedding.weight")
    assert (head.weight is matrix) == tied
    found = model.word_logits(ids, mask)
    assert found.shape == (2, 7, 13)
    torch.testing.assert_close(found, vectors @ head.weight.T + head.bias, rtol=1e-5, atol=1e-5)
    places = mask & (torch.arange(7) % 3 == 0)
    torch.testing.assert_close(model.word_logits(ids, mask, places), found[places], rtol=1e-5, atol=1e-5)


def test_the_loss_at_hidden_words_is_that_of_their_logits(tiny_config: Callable[..., ModelConfig]) -> None:
    model, ids = encoder(tiny_config(architecture="encoder", masked_lm=True)), torch.randint(3, 13, (2, 7))
    head, places = model.masked_head, torch.arange(7) % 3 == torch.tensor([[0], [1]])
    assert head is not None
    torch.nn.init.normal_(head.get_parameter("bias"))
    expected = cross_entropy(model.word_logits(ids)[places], ids[places])
    found = vocabulary_loss(head.hidden(model(ids)[places]), head.weight, ids[places], bias=head.bias)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-5, atol=1e-5)
    of_found, of_expected = (torch.autograd.grad(one.total, list(model.parameters())) for one in (found, expected))
    torch.testing.assert_close(of_found, of_expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_is_not_there_is_asked_for_by_name(tiny_config: Callable[..., ModelConfig]) -> None:
    model, ids = encoder(tiny_config(architecture="encoder")), torch.randint(3, 13, (2, 7))
    with pytest.raises(ConfigError, match=r"model\.n_tags is not set"):
        model.tag_logits(ids)
    with pytest.raises(ConfigError, match=r"model\.masked_lm is not set"):
        model.word_logits(ids)


def test_the_head_is_one_score_per_class_from_a_linear_map(tiny_config: Callable[..., ModelConfig]) -> None:
    head, x = ClassHead(tiny_config(dropout=0.5), 5).eval(), torch.randn(3, 24)
    torch.testing.assert_close(head(x), x @ head.scores.weight.T + head.scores.bias, rtol=1e-5, atol=1e-6)
    assert head(x).shape == (3, 5)
    head.train()
    assert not torch.allclose(head(x), head(x))
