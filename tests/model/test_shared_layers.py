"""model.share_layers: one block applied again and again, which is stored, counted and trained once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from heed.model import Causal, Encoder, Model, ModelConfig, Seq2Seq, Stack, build_model, count_parameters, layer_table, mermaid
from heed.run import distinct, load_weights, save_weights

Maker = Callable[..., ModelConfig]
KINDS: dict[str, dict[str, Any]] = {
    "encoder": {"architecture": "encoder", "positions": "relative"},
    "convolution": {"architecture": "encoder", "mixer": "convolution"},
    "lstm": {"architecture": "encoder", "mixer": "lstm"},
    "hybrid": {"architecture": "encoder", "mixer": "hybrid"},
    "conformer": {"architecture": "encoder", "mixer": "conformer"},
    "causal": {"architecture": "causal", "positions": "rotary"},
    "seq2seq": {"architecture": "seq2seq", "n_decoder_layers": 2, "norm_place": "after"},
}


def answers(model: Model, ids: Tensor) -> Tensor:
    found: Tensor = model(ids, None, ids) if isinstance(model, Seq2Seq) else model(ids)
    return found


def with_copies(model: Model, config: ModelConfig) -> Model:
    """Return a model of separate blocks, all of which have the weights of the one."""
    other = build_model(config.replace(share_layers=False))
    other.load_state_dict(model.state_dict())  # which names the one block as often as it is applied
    return other


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_block_answers_as_that_many_blocks_with_its_weights_and_learns_from_all_of_them(kind: str, tiny_config: Maker) -> None:
    config = tiny_config(share_layers=True, n_layers=3, **KINDS[kind])
    one, ids = build_model(config), torch.randint(1, 13, (2, 5))
    many = with_copies(one, config)
    found, expected = answers(one, ids), answers(many, ids)
    assert torch.equal(found, expected)
    for out in (found, expected):
        torch.autograd.backward(out.pow(3).sum())
    by_name = dict(many.named_parameters())
    for name, parameter in one.named_parameters():
        stack, _, rest = name.partition("blocks.0.")
        alike = [
            other for path, other in by_name.items() if path == name or (rest and path.startswith(stack) and path.endswith("." + rest))
        ]
        alike = [other for other in alike if other.shape == parameter.shape]
        assert parameter.grad is not None
        summed = sum((other.grad for other in alike if other.grad is not None), torch.zeros_like(parameter))
        torch.testing.assert_close(parameter.grad, summed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_block_is_counted_and_stored_once_however_often_it_is_applied(kind: str, tmp_path: Path, tiny_config: Maker) -> None:
    config = tiny_config(share_layers=True, n_layers=3, **KINDS[kind])
    model, single = build_model(config), build_model(config.replace(n_layers=1, share_layers=False))
    if kind != "seq2seq":
        assert count_parameters(model) == count_parameters(single)
        assert {name: tensor.shape for name, tensor in distinct(model).items()} == {n: t.shape for n, t in distinct(single).items()}
    assert not [name for name in distinct(model) if "blocks.1." in name]
    assert sum(row.parameters for row in layer_table(model)) == count_parameters(model)
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    assert path.stat().st_size < 4 * count_parameters(model) + 10_000
    torch.manual_seed(7)
    other, ids = build_model(config), torch.randint(1, 13, (2, 5))
    assert not torch.equal(answers(other, ids), answers(model, ids))
    load_weights(other, path)
    assert torch.equal(answers(other, ids), answers(model, ids))


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_every_application_remembers_its_own_keys_and_values(kind: str, tiny_config: Maker) -> None:
    model, ids = build_model(tiny_config(share_layers=True, n_layers=3, **KINDS[kind])).eval(), torch.randint(1, 13, (2, 5))
    assert isinstance(model, Causal | Seq2Seq)
    with torch.inference_mode():
        expected = answers(model, ids)
        state = model.start(ids if kind == "seq2seq" else None, None, ids[:, :2])
        assert len(state.layers) == (2 if kind == "seq2seq" else 3)
        steps = torch.stack([model.step(ids[:, t], state) for t in range(1, 5)], dim=1)
    torch.testing.assert_close(steps, expected[:, 1:], rtol=1e-5, atol=1e-5)


def test_recomputing_a_shared_block_gives_the_same_gradients_to_the_bit(tiny_config: Maker) -> None:
    model, ids = build_model(tiny_config(share_layers=True, n_layers=3, architecture="encoder")), torch.randint(1, 13, (2, 5))
    assert isinstance(model, Encoder)
    assert isinstance(model.stack, Stack)
    found = []
    for model.stack.recompute in (False, True):
        found.append(torch.autograd.grad(model(ids).pow(3).sum(), list(model.parameters())))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_the_chart_shows_every_application(tiny_config: Maker) -> None:
    config = tiny_config(share_layers=True, n_layers=3, architecture="encoder")
    assert mermaid(build_model(config)) == mermaid(build_model(config.replace(share_layers=False)))
