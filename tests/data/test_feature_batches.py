"""Features of many rows: how many frames each has, and that none depends on what it is computed beside, or where."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy_waves import FITTED, PLAIN, RATE, RICH, SMALL, close, noise, raw, streamed

from heed.data import features as module
from heed.data.feature_settings import FeatureSettings
from heed.data.features import Features


def test_a_second_has_98_frames() -> None:
    assert raw(PLAIN, np.zeros(RATE)).shape == (98, 80)


@pytest.mark.parametrize("settings", [SMALL, replace(SMALL, frame_ms=20), replace(SMALL, frame_ms=10), replace(SMALL, hop_ms=20)], ids=str)
def test_the_number_of_frames_is_that_of_windows_that_fit(settings: FeatureSettings) -> None:
    part = Features(settings)
    for T in range(1, 9):
        x, mask = part(torch.zeros(2, T, settings.hop))
        fitting = len(range(0, T * settings.hop - settings.window_length + 1, settings.hop))
        assert x.shape == (2, max(1, fitting), 8)
        assert mask.all()
        assert part.n_frames(torch.tensor([[0, T]])).tolist() == [[0, max(1, fitting)]]


def test_nothing_has_no_frames() -> None:
    x, mask = Features(RICH)(torch.zeros(2, 0, RICH.hop, dtype=torch.int16))
    assert x.shape == (2, 0, 21)
    assert mask.shape == (2, 0)
    x, mask = Features(RICH)(torch.ones(2, 6, RICH.hop), torch.tensor([[True] * 6, [False] * 6]))
    assert mask.sum(1).tolist() == [4, 0]
    assert not x[1].any()
    assert x.isfinite().all()


def test_a_row_shorter_than_a_window_is_filled_up_with_zeros() -> None:
    wave = noise(SMALL.hop)
    close(raw(SMALL, wave), raw(SMALL, np.concatenate([wave, np.zeros(2 * SMALL.hop)])), 1e-6)


@pytest.mark.parametrize("normalise", ["none", "utterance", "global", "running"])
@pytest.mark.parametrize("base", [SMALL, RICH], ids=["plain", "rich"])
def test_a_row_answers_in_a_batch_as_alone(normalise: Any, base: FeatureSettings) -> None:
    part = Features.fit(replace(base, normalise=normalise), [noise(4000, seed=9)])
    lengths = [1, 2, 3, 7, 20, 33]
    waves = [torch.tensor(noise(n * base.hop, seed=n)).view(n, base.hop) for n in lengths]
    hops = torch.full((len(lengths), 35, base.hop), torch.nan, dtype=torch.float64)
    for row, wave in enumerate(waves):
        hops[row, : len(wave)] = wave
    x, mask = part(hops, torch.arange(35) < torch.tensor(lengths)[:, None])
    raw_x, raw_mask = part.raw(hops, torch.arange(35) < torch.tensor(lengths)[:, None])
    assert x.shape == (len(lengths), 33, part.n_features)
    for row, wave in enumerate(waves):
        for found, found_mask, alone in [(x, mask, part(wave[None])[0][0]), (raw_x, raw_mask, part.raw(wave[None])[0][0])]:
            assert found_mask[row].tolist() == [True] * len(alone) + [False] * (33 - len(alone))
            close(found[row, : len(alone)], alone, 1e-5)
            assert not found[row, len(alone) :].any()


def test_how_many_spectra_are_computed_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hops = torch.tensor(noise(3 * 17 * SMALL.hop)).view(3, 17, SMALL.hop)
    whole = Features(RICH)(hops)[0]
    for at_once in (1, 6, 12, 44, 45, 46):
        monkeypatch.setattr(module, "FRAMES_AT_ONCE", {"cpu": at_once})
        close(Features(RICH)(hops)[0], whole, 1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("part", FITTED, ids=range(len(FITTED)))
def test_a_gpu_gives_what_the_cpu_gives(part: Features) -> None:
    hops, mask = torch.tensor(noise(2 * 30 * SMALL.hop)).view(2, 30, SMALL.hop), torch.arange(30) < torch.tensor([[30], [11]])
    found, found_mask = part(hops.cuda(), mask.cuda())
    assert found.is_cuda
    close(found.cpu(), part(hops, mask)[0], 1e-5)
    assert torch.equal(found_mask.cpu(), part(hops, mask)[1])
    close(torch.cat(streamed(part, hops[0].flatten().cuda(), [50, 333])).cpu(), part(hops[:1])[0][0], 1e-5)
