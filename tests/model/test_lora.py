"""Adapters: at the start they change nothing, they alone learn, and folded in they compute the same."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from heed.errors import ConfigError
from heed.model import Model, ModelConfig, Seq2Seq, build_model
from heed.model.lora import LoraLinear, adapt, fold, folded, is_adapted, learned_names, plain_name
from heed.model.packed import pack

Maker = Callable[..., ModelConfig]
ALL = ("query", "key", "value", "output", "up", "gate", "down")
KINDS: dict[str, dict[str, Any]] = {
    "encoder": {"architecture": "encoder", "positions": "relative", "n_kv_heads": 2},
    "causal": {"architecture": "causal", "positions": "rotary", "gated": True, "bias": False},
    "seq2seq": {"architecture": "seq2seq", "norm_place": "after", "share_layers": True},
    "conformer": {"architecture": "encoder", "mixer": "conformer"},
    "hybrid": {"architecture": "encoder", "mixer": "hybrid"},
}


def answers(model: Model, ids: Tensor) -> Tensor:
    found: Tensor = model(ids, None, ids) if isinstance(model, Seq2Seq) else model(ids)
    return found


def shaken(model: Model) -> Model:
    """Let adapters have an effect."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLinear):
                module.up.weight.normal_(std=0.3)
    return model


def test_an_adapted_map_equals_its_definition() -> None:
    linear, x = torch.nn.Linear(5, 7), torch.randn(2, 3, 5)
    before = linear(x).detach()
    lora = LoraLinear(linear, 2, 6.0)
    assert torch.equal(lora(x), before)
    torch.nn.init.normal_(lora.up.weight)
    expected = before + 6.0 / 2 * (x @ lora.down.weight.T) @ lora.up.weight.T
    torch.testing.assert_close(lora(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lora.folded()(x), expected, rtol=1e-5, atol=1e-5)
    assert not linear.weight.requires_grad
    assert lora.folded().weight.requires_grad


@pytest.mark.parametrize("targets", [("query", "value"), ALL])
@pytest.mark.parametrize("kind", KINDS)
def test_at_the_start_an_adapted_model_answers_as_before_and_folded_as_adapted(
    kind: str, targets: tuple[str, ...], tiny_config: Maker
) -> None:
    plain, ids = build_model(tiny_config(**KINDS[kind])).eval(), torch.randint(1, 13, (2, 5))
    model = copy.deepcopy(plain)
    adapt(model, rank=3, alpha=4.0, targets=targets, new=())
    with torch.inference_mode():
        torch.testing.assert_close(answers(model, ids), answers(plain, ids), rtol=1e-6, atol=1e-6)
    shaken(model)
    with torch.inference_mode():
        found = answers(model, ids)
        assert (found - answers(plain, ids)).abs().max() > 1e-3
        torch.testing.assert_close(answers(folded(model), ids), found, rtol=1e-5, atol=1e-5)
        for precision, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.int8, 5e-2)):
            difference = answers(pack(model, precision), ids) - found
            assert difference.abs().max() <= tolerance * max(1.0, float(found.abs().max()))
    assert is_adapted(model)
    fold(model)
    assert not is_adapted(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    with torch.inference_mode():
        torch.testing.assert_close(answers(model, ids), found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "causal", "seq2seq"])
def test_adapters_and_what_is_new_learn_and_nothing_else(kind: str, tiny_config: Maker) -> None:
    heads: dict[str, Any] = {"n_classes": 3} if kind == "encoder" else {}
    model, ids = build_model(tiny_config(**KINDS[kind], **heads)), torch.randint(1, 13, (2, 5))
    names = [name for name, _ in model.named_parameters()]
    new = ["head.scores.weight", "head.scores.bias"] if kind == "encoder" else []
    adapt(model, rank=3, alpha=4.0, targets=("query", "value"), new=new)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == learned_names(model, new)
    assert {name.rpartition(".")[0] for name in learning - set(new)} == {
        f"{name.removesuffix('.weight')}.{part}"
        for name in names
        for part in ("down", "up")
        if name.endswith(("query.weight", "value.weight"))
    }
    assert {plain_name(name) for name, _ in model.named_parameters()} - learning == set(names) - set(new)
    shaken(model)
    scores = model.classify(ids) if kind == "encoder" else answers(model, ids)  # type: ignore[operator]
    torch.autograd.backward(scores.pow(3).sum())
    with_gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradients == learning


def test_a_map_that_is_new_itself_has_no_adapter(tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture="encoder", n_layers=2))
    name = "stack.blocks.1.attention.query.weight"
    adapt(model, rank=3, alpha=4.0, targets=("query",), new=[name])
    assert model.get_parameter(name).requires_grad
    assert isinstance(model.get_submodule("stack.blocks.0.attention.query"), LoraLinear)


@pytest.mark.parametrize(
    ("fields", "message"), [({"mixer": "lstm"}, "this model has none of them"), ({"weight_rank": 2}, "is of low rank already")]
)
def test_models_without_full_maps_to_adapt_are_refused(fields: dict[str, Any], message: str, tiny_config: Maker) -> None:
    model = build_model(tiny_config(architecture="encoder", **fields))
    with pytest.raises(ConfigError, match=message):
        adapt(model, rank=3, alpha=4.0, targets=("query", "value"), new=())
