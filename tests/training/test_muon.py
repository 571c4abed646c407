"""Muon against its definition and torch's own implementation."""

import pytest
import torch
from torch import nn
from torch.optim._muon import _zeropower_via_newtonschulz

from heed.config import TrainConfig
from heed.training.muon import Muon, orthogonalise
from heed.training.optim import build_optimizer


@pytest.mark.parametrize("shape", [(3, 8, 5), (2, 5, 8), (1, 6, 6)])
def test_orthogonalised_matrices_keep_their_singular_vectors_and_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for before, after in zip(matrices, orthogonalise(matrices, torch.float32), strict=True):
        u, _, v = torch.linalg.svd(before, full_matrices=False)
        turned = u.mT @ after @ v.mT
        assert (turned.diagonal() > 0.7).all()
        assert (turned.diagonal() < 1.28).all()
        torch.testing.assert_close(turned, torch.diag(turned.diagonal()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("spectrum", ["flat", "one", "falling"])
def test_bfloat16_never_leaves_the_band_whatever_the_spectrum(spectrum: str) -> None:
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.linalg.qr(torch.randn(4, 64, 64, generator=generator))[0] for _ in range(2))
    values = {"flat": torch.ones(64), "one": (torch.arange(64) == 0).float(), "falling": torch.logspace(0, -6, 64)}[spectrum]
    after = torch.linalg.svdvals(orthogonalise(1e-9 * (u * values) @ v, torch.bfloat16).float())
    assert after.max() < 1.35
    assert (after[:, 0] > 0.7).all()


def test_steps_on_matrices_equal_torchs_muon_and_other_parameters_follow_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything about the step but its iteration: both use torch's."""

    def theirs_for_each(matrices: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
        return torch.stack([_zeropower_via_newtonschulz(matrix, (3.4445, -4.775, 2.0315), 5, 1e-7).to(precision) for matrix in matrices])

    monkeypatch.setattr("heed.training.muon.orthogonalise", theirs_for_each)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(6, 4), nn.Linear(6, 4)
    theirs.load_state_dict(ours.state_dict())
    config = TrainConfig(optimizer="muon", lr=0.01, weight_decay=0.1)
    optimizer = build_optimizer(ours, config, torch.bfloat16)
    muon = torch.optim.Muon([theirs.weight], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([theirs.bias], lr=0.01, betas=(config.beta1, config.beta2), eps=1e-9, weight_decay=0.0)
    assert isinstance(optimizer, Muon)
    for _ in range(5):
        x = torch.randn(7, 6)
        for model, steppers in ((ours, [optimizer]), (theirs, [muon, adamw])):
            model.zero_grad()
            model(x).square().sum().backward()
            for stepper in steppers:
                stepper.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=2e-3)  # bfloat16 products, batched here and single there
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-5, atol=1e-4)
