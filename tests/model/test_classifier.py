"""Encoders that judge texts, of every kind: what may change an answer, hierarchies of sentences, and packing."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from heed.errors import ConfigError
from heed.model import Encoder, ModelConfig, Seq2Seq, build_model, count_parameters
from heed.model.losses import class_loss, decision_loss
from heed.model.models import END, HierarchicalEncoder, by_sentence
from heed.model.packed import pack

Maker = Callable[..., ModelConfig]
N_CLASSES = 5
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "modern": {"positions": "rotary", "n_kv_heads": 2, "gated": True, "activation": "silu", "norm": "rms", "bias": False},
    "relative": {"positions": "relative", "norm_place": "after", "pooling": "first"},
    "attention pooling": {"positions": "learned", "max_length": 128, "norm_place": "rezero", "pooling": "attention"},
    "convolution": {"mixer": "convolution", "kernel_size": 5},
    "lstm": {"mixer": "lstm", "pooling": "first"},
    "hybrid": {"mixer": "hybrid", "positions": "rotary"},
    "windowed": {"attention": "windowed", "window": 2, "n_kv_heads": 2},
    "low rank attention": {"attention": "low_rank", "landmarks": 3, "positions": "rotary"},
    "adaptive": {"adaptive": True, "positions": "relative"},
    "adaptive windows": {"adaptive": True, "attention": "windowed", "window": 3, "positions": "rotary"},
    "low rank weights": {"weight_rank": 4, "gated": True, "n_kv_heads": 2},
    "vectors": {"d_embedding": 7, "frozen_embedding": True, "embedding_scale": False},
    "hierarchical": {"hierarchical": True, "positions": "rotary"},
    "hierarchical lstm": {"hierarchical": True, "mixer": "lstm", "pooling": "attention"},
    "hierarchical hybrid": {"hierarchical": True, "mixer": "hybrid", "adaptive": True, "n_document_layers": 2, "weight_rank": 4},
}
# Low-rank attention multiplies rounding by up to 3.25^6, what six steps of its inverse multiply the smallest singular values by.
AMPLIFIED = "low rank attention"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def built(config: ModelConfig) -> Encoder:
    """Build a classifier for answering, whose gates and sharpnesses are not at their neutral start."""
    model = build_model(config).eval()
    assert isinstance(model, Encoder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 0:
                parameter.fill_(0.5)
            elif name.endswith("sharpness"):
                parameter.normal_(std=0.5)
    return model


def config_of(tiny_config: Maker, kind: str, **fields: Any) -> ModelConfig:
    sizes = {"architecture": "encoder", "n_classes": N_CLASSES, "d_model": 32, "d_ff": 40}
    return tiny_config(**{**sizes, **KINDS[kind], **fields})


def texts_of(lengths: list[int], extra: int = 0) -> tuple[Tensor, Tensor]:
    """Return ids (B, S) with an END after about every fifth word, noise where nothing should be read, and the mask."""
    n_places = max(lengths) + extra
    ids = torch.where(torch.rand(len(lengths), n_places) < 0.2, END, torch.randint(3, 13, (len(lengths), n_places)))
    return ids, torch.arange(n_places) < torch.tensor(lengths)[:, None]


def sentences_of(words: list[int]) -> list[list[int]]:
    """Cut a text behind every END."""
    found: list[list[int]] = [[]]
    for i, word in enumerate(words):
        found[-1].append(word)
        if word == END and i + 1 < len(words):
            found.append([])
    return found


def test_a_text_is_judged_in_a_batch_as_alone(kind: str, tiny_config: Maker) -> None:
    model = built(config_of(tiny_config, kind))
    lengths = [9, 4, 1, 7]
    ids, mask = texts_of(lengths, extra=2)
    with torch.inference_mode():
        together = model.classify(ids, mask)
        assert together.shape == (4, N_CLASSES)
        for row, length in enumerate(lengths):
            alone = model.classify(ids[row : row + 1, :length])
            torch.testing.assert_close(together[row], alone[0], rtol=0, atol=1e-3 if kind == AMPLIFIED else 1e-5)


def test_the_words_of_a_text_change_its_answer(kind: str, tiny_config: Maker) -> None:
    model = built(config_of(tiny_config, kind))
    ids, mask = texts_of([9, 9, 9])
    edited = ids.clone()
    edited[1, 4] = 3 + (edited[1, 4] - 2) % 10  # another word
    with torch.inference_mode():
        before, after = model.classify(ids, mask), model.classify(edited, mask)
    torch.testing.assert_close(before[[0, 2]], after[[0, 2]], rtol=0, atol=1e-5)
    assert (before[1] - after[1]).abs().max() > 1e-4


def test_an_empty_text_is_judged_and_has_finite_gradients(kind: str, tiny_config: Maker) -> None:
    model = build_model(config_of(tiny_config, kind))
    assert isinstance(model, Encoder)
    ids, mask = texts_of([6, 0, 1])
    loss = class_loss(model.classify(ids, mask), torch.tensor([1, 0, 4])).total
    torch.autograd.backward(loss)
    assert bool(loss.isfinite())
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in learned)


def test_every_kind_learns_six_texts_by_heart(kind: str, tiny_config: Maker) -> None:
    model = build_model(config_of(tiny_config, kind, n_layers=1)).train()
    assert isinstance(model, Encoder)
    (ids, mask), targets = texts_of([9, 4, 3, 7, 9, 6]), torch.tensor([0, 1, 2, 3, 4, 0])
    ids[:, 0] = torch.arange(3, 9)  # the first word tells them apart
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        torch.autograd.backward(class_loss(model.classify(ids, mask), targets).total / 6)
        optimizer.step()
    assert torch.equal(model.eval().classify(ids, mask).argmax(-1), targets)


def test_an_encoder_without_classes_has_no_head_and_refuses_to_judge(tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture="encoder"))
    assert isinstance(model, Encoder)
    assert model.head is None
    assert model.pooling is None
    with pytest.raises(ConfigError, match=r"model\.n_classes is not set; the task derives it from the data, or give it a number"):
        model.classify(torch.tensor([[3, 4]]))


def test_a_text_is_judged_by_the_head_from_what_the_pooling_makes_of_its_vectors(tiny_config: Maker) -> None:
    model = built(config_of(tiny_config, "attention pooling"))
    ids, mask = texts_of([9, 4])
    assert model.pooling is not None
    assert model.head is not None
    expected = model.head.scores(model.pooling(model(ids, mask), mask))
    torch.testing.assert_close(model.classify(ids, mask), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "attention", "first"])
@pytest.mark.parametrize("n_classes", [2, 20])
def test_the_first_loss_is_near_that_of_guessing(pooling: str, n_classes: int, tiny_config: Maker) -> None:
    """Scores of Xavier weights have a variance of v <= 2 D / (D + C) for vectors of unit features, which costs at most v / 2 nats.

    For a decision it is v / 8, the curvature of the logistic loss; 0.1 is left for the draws of texts and weights.
    """
    config = tiny_config(architecture="encoder", n_classes=n_classes, d_model=64, d_ff=128, vocab_size=1000, pooling=pooling)
    spread, losses, decisions = 2 * 64 / (64 + n_classes), [], []
    for _ in range(5):
        with torch.inference_mode():
            logits = built(config).classify(torch.randint(3, 1000, (200, 12)))
        losses.append(class_loss(logits, torch.randint(0, n_classes, (200,))))
        decisions.append(decision_loss(logits, torch.rand(200, n_classes) < 0.5))
    first, first_decision = (float(sum(loss.total / loss.units for loss in found)) / 5 for found in (losses, decisions))
    assert math.log(n_classes) - 0.1 < first < math.log(n_classes) + spread / 2 + 0.1
    assert math.log(2) - 0.1 < first_decision < math.log(2) + spread / 8 + 0.1


def test_embeddings_of_another_width_are_led_to_that_of_the_model(tiny_config: Maker) -> None:
    model = built(tiny_config(architecture="encoder", d_embedding=7, positions="none"))
    assert model.stem.embedding.weight.shape == (13, 7)
    ids = torch.randint(0, 13, (2, 5))
    assert model.stem.widen is not None
    expected = model.stem.embedding.weight[ids] @ model.stem.widen.weight.T * math.sqrt(24)
    torch.testing.assert_close(model.stem(ids), expected, rtol=1e-5, atol=1e-5)
    same = built(tiny_config(architecture="encoder", d_embedding=24))
    assert same.stem.widen is None
    assert count_parameters(same) == count_parameters(built(tiny_config(architecture="encoder")))


many_texts = st.lists(st.lists(st.sampled_from([END, 3, 4, 5]), max_size=9), min_size=1, max_size=4)


@given(texts=many_texts, extra=st.integers(0, 2))
def test_sentences_laid_below_each_other_are_those_of_the_texts(texts: list[list[int]], extra: int) -> None:
    """Texts with and without END, ending with it, of nothing else, and empty ones, also when all are."""
    ids = torch.full((len(texts), max(map(len, texts)) + extra), 4)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    for i, text in enumerate(texts):
        ids[i, : len(text)], mask[i, : len(text)] = torch.tensor(text, dtype=torch.long), True
    sentences, real, counts = by_sentence(ids, mask)
    expected = [sentences_of(text) for text in texts]
    assert counts.tolist() == [len(found) for found in expected]
    assert [row[there].tolist() for row, there in zip(sentences, real, strict=True)] == [one for found in expected for one in found]
    assert all(there.tolist() == sorted(there.tolist(), reverse=True) for there in real)  # real on the left
    assert not sentences[~real].any()
    assert sentences[real].tolist() == [word for text in texts for word in text]


def test_without_a_mask_every_word_is_real() -> None:
    ids, mask = texts_of([9, 9, 9])
    for one, other in zip(by_sentence(ids, None), by_sentence(ids, mask), strict=True):
        assert torch.equal(one, other)


def hierarchical(config: ModelConfig) -> HierarchicalEncoder:
    model = built(config)
    assert isinstance(model, HierarchicalEncoder)
    return model


@pytest.mark.parametrize("positions", ["rotary", "relative", "none"])
def test_a_hierarchy_pools_words_into_sentences_and_sentences_into_a_text(positions: str, tiny_config: Maker) -> None:
    model = hierarchical(config_of(tiny_config, "hierarchical", positions=positions))
    lengths = [9, 4, 1, 12]
    ids, mask = texts_of(lengths)
    assert model.pooling is not None
    assert model.head is not None
    with torch.inference_mode():
        found = model.classify(ids, mask)
        for row, length in enumerate(lengths):
            vectors = [model.sentence_pooling(model(torch.tensor([one]))) for one in sentences_of(ids[row, :length].tolist())]
            expected = model.head(model.pooling(model.document(torch.stack(vectors, dim=1))))
            torch.testing.assert_close(found[row], expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", ["rotary", "relative", "sinusoidal", "learned"])
def test_a_hierarchy_knows_the_order_of_sentences(positions: str, tiny_config: Maker) -> None:
    model = hierarchical(config_of(tiny_config, "hierarchical", positions=positions))
    ids, exchanged = (torch.tensor([[*one, END, *other, END, 9, END]]) for one, other in (([3, 4], [5, 6, 7]), ([5, 6, 7], [3, 4])))
    with torch.inference_mode():
        assert (model.classify(ids) - model.classify(exchanged)).abs().max() > 1e-4


def test_without_positions_a_hierarchy_is_blind_to_the_order_of_sentences(tiny_config: Maker) -> None:
    model = hierarchical(config_of(tiny_config, "hierarchical", positions="none"))
    ids, exchanged = (torch.tensor([[*one, END, *other, END, 9, END]]) for one, other in (([3, 4], [5, 6, 7]), ([5, 6, 7], [3, 4])))
    with torch.inference_mode():
        torch.testing.assert_close(model.classify(ids), model.classify(exchanged), rtol=0, atol=1e-5)


def test_words_of_one_sentence_do_not_see_those_of_another(tiny_config: Maker) -> None:
    model = hierarchical(config_of(tiny_config, "hierarchical"))
    ids, edited = torch.tensor([[3, 4, END, 5, 6, 7, END]]), torch.tensor([[3, 4, END, 5, 9, 7, END]])
    with torch.inference_mode():
        (before, after) = (model(*by_sentence(text, None)[:2]) for text in (ids, edited))
        torch.testing.assert_close(before[0, :3], after[0, :3], rtol=0, atol=1e-6)
        assert bool((before[1] != after[1]).any(-1).all())
        assert (model.classify(ids) - model.classify(edited)).abs().max() > 1e-3


def test_the_config_chooses_whether_there_is_a_hierarchy(tiny_config: Maker) -> None:
    kinds = [type(build_model(tiny_config(architecture="encoder", hierarchical=nested))) for nested in (False, True)]
    assert kinds == [Encoder, HierarchicalEncoder]


# As shares of how far the logits of a batch lie apart.
PRECISIONS = [(torch.float32, 1e-4), (torch.bfloat16, 2e-2), (torch.int8, 5e-2)]


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_a_packed_classifier_answers_as_the_plain_one(precision: torch.dtype, tolerance: float, kind: str, tiny_config: Maker) -> None:
    model = built(config_of(tiny_config, kind, d_ff=64))
    packed = pack(model, precision)
    for lengths in ([9, 4, 1, 0, 7], [70, 65, 3]):  # the int8 kernels read up to 64 tokens another way than more
        ids, mask = texts_of(lengths, extra=1)
        with torch.inference_mode():
            expected, found = model.classify(ids, mask), packed.classify(ids, mask)
        assert found.dtype == expected.dtype
        assert (found - expected).abs().max() <= tolerance * (expected.max() - expected.min())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.int8])
def test_packing_shares_parameters_and_leaves_the_classifier_as_it_was(precision: torch.dtype, kind: str, tiny_config: Maker) -> None:
    model = built(config_of(tiny_config, kind)).train()
    before, (ids, mask) = {name: tensor.clone() for name, tensor in model.state_dict().items()}, texts_of([9, 4])
    with torch.inference_mode():
        answer = model.classify(ids, mask)
    packed = pack(model, precision)
    assert model.training
    assert not packed.training
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert packed.get_parameter("stem.embedding.weight") is model.get_parameter("stem.embedding.weight")
    with torch.inference_mode():
        assert torch.equal(model.classify(ids, mask), answer)


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_adaptive_translators_are_packed_too(precision: torch.dtype, tolerance: float, tiny_config: Maker) -> None:
    """The int8 stacks do not know them, so that each of their maps is rounded alone."""
    plain = build_model(tiny_config(architecture="seq2seq", adaptive=True, d_model=32, d_ff=64)).eval()
    assert isinstance(plain, Seq2Seq)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name.endswith("sharpness"):
                parameter.normal_(std=0.5)
    packed = pack(plain, precision)
    source, target, mask = torch.randint(3, 13, (3, 5)), torch.randint(3, 13, (3, 4)), torch.arange(5) < torch.tensor([[5], [3], [4]])
    with torch.inference_mode():
        expected = plain(source, mask, target)
        state = packed.start(source, mask, target[:, :2])
        steps = torch.stack([packed.step(target[:, t], state) for t in range(1, 4)], dim=1)
        for found, wanted in ((packed(source, mask, target), expected), (steps, expected[:, 1:])):
            assert (found - wanted).abs().max() <= tolerance * expected.abs().max()
