import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heed.config import TrainConfig
from heed.model import Encoder, ModelConfig, build_model
from heed.training.optim import build_optimizer, learning_rate

SETTINGS = TrainConfig(lr=0.01, weight_decay=0.1, beta1=0.8, beta2=0.95)


def small_model() -> nn.Module:
    torch.manual_seed(3)
    return build_model(ModelConfig(vocab_size=11, d_model=8, n_heads=2, n_layers=1, d_ff=10, dropout=0.0))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, n_steps: int = 4) -> list[Tensor]:
    draw = torch.Generator().manual_seed(5)
    for _ in range(n_steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def decayed(model: nn.Module, optimizer: torch.optim.Optimizer) -> set[str]:
    with_decay = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in with_decay}


def test_only_matrices_are_decayed_and_every_parameter_is_in_one_group() -> None:
    model = small_model()
    optimizer = build_optimizer(model, SETTINGS)
    matrices = {name for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name}
    assert matrices
    assert decayed(model, optimizer) == matrices
    in_groups = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(in_groups) == sorted(id(p) for p in model.parameters())


def test_steps_equal_torchs_plain_adamw_with_the_same_groups() -> None:
    model, reference_model = small_model(), small_model()
    by_name = dict(reference_model.named_parameters())
    names = decayed(model, build_optimizer(model, SETTINGS))
    groups = [
        {"params": [by_name[name] for name in by_name if name in names], "weight_decay": 0.1},
        {"params": [by_name[name] for name in by_name if name not in names], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.95), eps=1e-9, fused=False, foreach=False)
    ours, theirs = train(model, build_optimizer(model, SETTINGS)), train(reference_model, reference)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_without_decay_a_step_is_adams_as_kingma_and_ba_define_it() -> None:
    config = SETTINGS.replace(weight_decay=0.0)
    weight = nn.Linear(3, 2, bias=False)
    start, gradients = weight.weight.detach().clone().double(), [torch.randn(2, 3) for _ in range(3)]
    optimizer = build_optimizer(weight, config)
    mean, square = torch.zeros(2, 3).double(), torch.zeros(2, 3).double()
    for t, gradient in enumerate(gradients, start=1):
        weight.weight.grad = gradient.clone()
        optimizer.step()
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        start -= 0.01 * (mean / (1 - 0.8**t)) / ((square / (1 - 0.95**t)).sqrt() + 1e-9)
    torch.testing.assert_close(weight.weight.detach().double(), start, rtol=1e-5, atol=1e-6)


def test_decay_is_decoupled_from_the_gradient() -> None:
    weight = nn.Linear(3, 2, bias=False)
    before = weight.weight.detach().clone()
    weight.weight.grad = torch.zeros(2, 3)
    build_optimizer(weight, SETTINGS).step()
    torch.testing.assert_close(weight.weight.detach(), before * (1 - 0.01 * 0.1))


def test_the_2017_schedule_peaks_at_the_end_of_the_warm_up_with_the_papers_rate() -> None:
    config = TrainConfig(schedule="transformer", lr=1.0, warmup=4000)
    rates = [learning_rate(step, config, d_model=512, total_steps=None) for step in range(1, 9000)]
    assert rates.index(max(rates)) + 1 == 4000
    assert max(rates) == pytest.approx(6.99e-4, rel=1e-3)
    assert max(rates) == pytest.approx((512 * 4000) ** -0.5, rel=1e-12)
    assert rates[1999] == pytest.approx(max(rates) / 2, rel=1e-12)
    assert learning_rate(16000, config, d_model=512, total_steps=None) == pytest.approx(max(rates) / 2, rel=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt", "cosine"])
def test_schedules_rise_linearly_to_the_peak_and_go_on_from_there(schedule: Any) -> None:
    config = TrainConfig(schedule=schedule, lr=0.5, warmup=10, final_lr=0.1)
    rates = [learning_rate(step, config, d_model=8, total_steps=50) for step in range(1, 51)]
    assert rates[:10] == pytest.approx([0.05 * step for step in range(1, 11)])
    assert max(rates) == pytest.approx(0.5)
    last = {"constant": 0.5, "inverse_sqrt": 0.5 * math.sqrt(10 / 50), "cosine": 0.05}[schedule]
    assert rates[-1] == pytest.approx(last)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(rates[9:]))


def test_a_cosine_is_half_way_down_in_the_middle_and_stays_low_beyond_its_end() -> None:
    config = TrainConfig(schedule="cosine", lr=1.0, warmup=0, final_lr=0.0)
    assert learning_rate(50, config, d_model=8, total_steps=100) == pytest.approx(0.5)
    assert learning_rate(130, config, d_model=8, total_steps=100) == pytest.approx(0.0)


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt", "cosine", "transformer"])
def test_a_schedule_without_warm_up_starts_above_zero(schedule: Any) -> None:
    config = TrainConfig(schedule=schedule, lr=1e-3, warmup=0)
    assert 0 < learning_rate(1, config, d_model=8, total_steps=10) <= 1e-3


def classifier(**fields: Any) -> Encoder:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {"vocab_size": 11, "d_model": 8, "n_heads": 2, "n_layers": 1, "d_ff": 10, "dropout": 0.0, "n_classes": 3}
    model = build_model(ModelConfig(architecture="encoder", **sizes, **fields))
    assert isinstance(model, Encoder)
    return model


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_embedding_stays_as_it_is_while_all_else_learns(frozen: bool, optimizer: Any) -> None:
    model = classifier(d_embedding=5, frozen_embedding=frozen)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    stepper = build_optimizer(model, SETTINGS.replace(optimizer=optimizer))
    in_groups = {id(parameter) for group in stepper.param_groups for parameter in group["params"]}
    assert in_groups == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    train(model, stepper, n_steps=2)
    unchanged = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert unchanged == ({"stem.embedding.weight"} if frozen else set())


@pytest.mark.parametrize("mixer", ["convolution", "hybrid"])
def test_under_muon_convolutions_are_adamws(mixer: str) -> None:
    model, reference = classifier(mixer=mixer), classifier(mixer=mixer)
    optimizer = build_optimizer(model, SETTINGS.replace(optimizer="muon"))
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    kinds = {name: bool(groups[id(p)].get("orthogonal")) for name, p in model.named_parameters()}
    assert kinds == {name: p.dim() == 2 and "embedding" not in name for name, p in model.named_parameters()}
    by_name = dict(reference.named_parameters())
    plain = [{"params": [by_name[name]], "weight_decay": groups[id(p)]["weight_decay"]} for name, p in model.named_parameters()]
    train(model, optimizer)
    train(reference, torch.optim.AdamW(plain, lr=0.01, betas=(0.8, 0.95), eps=1e-9))
    convolutions = [name for name, p in model.named_parameters() if p.dim() == 3]
    assert len(convolutions) == (2 if mixer == "convolution" else 1)
    for name in convolutions:
        torch.testing.assert_close(dict(model.named_parameters())[name], by_name[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mixer", ["convolution", "lstm", "hybrid"])
def test_adamw_decays_the_weights_of_convolutions_and_lstms_and_not_their_biases(mixer: str) -> None:
    model = classifier(mixer=mixer)
    weights = {name for name, parameter in model.named_parameters() if parameter.dim() >= 2 and "embedding" not in name}
    assert any(".mixer." in name for name in weights)
    assert decayed(model, build_optimizer(model, SETTINGS)) == weights
