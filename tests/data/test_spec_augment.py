"""What SpecAugment hides, where, and what stands there instead."""

from typing import Any

import torch

from heed.data.spec_augment import spec_augment

B, T, F = 64, 50, 12
LENGTHS = torch.tensor([50, 31, 1, 0] * 16)
MASK = torch.arange(T) < LENGTHS[:, None]


def masked(**settings: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and where they are hidden, (B, T, F) each; what is hidden is told by its value."""
    settings = {"n_frequency_masks": 0, "frequency_width": 3, "n_time_masks": 0, "time_share": 0.2, **settings}
    x = torch.randn(B, T, F).masked_fill(~MASK[:, :, None], 0)
    found = spec_augment(x, MASK, **settings)
    return x, found != x


def test_without_masks_nothing_is_hidden() -> None:
    assert not masked()[1].any()


def test_one_frequency_mask_hides_neighbouring_features_over_all_real_frames() -> None:
    _, hidden = masked(n_frequency_masks=1)
    widths = set()
    for row, length in zip(hidden, LENGTHS.tolist(), strict=True):
        if length < 2:
            continue  # a single frame is its own mean
        bands = row[0].nonzero().flatten().tolist()
        assert bands == list(range(bands[0], bands[-1] + 1)) if bands else True
        assert torch.equal(row, row[0].expand(T, F) & (torch.arange(T) < length)[:, None])
        widths.add(len(bands))
    assert widths == {0, 1, 2, 3}
    assert hidden.any(0).any(0).all()  # every feature can be hidden, the first and the last too


def test_one_time_mask_hides_neighbouring_frames_up_to_its_share() -> None:
    _, hidden = masked(n_time_masks=1)
    widths: dict[int, set[int]] = {}
    for row, length in zip(hidden, LENGTHS.tolist(), strict=True):
        times = row[:, 0].nonzero().flatten().tolist()
        assert times == list(range(times[0], times[-1] + 1)) if times else True
        assert torch.equal(row, row[:, :1].expand(T, F))
        assert all(time < length for time in times)
        widths.setdefault(length, set()).add(len(times))
    assert max(widths[50]) <= 10
    assert max(widths[31]) <= 6
    assert len(widths[50]) > 4
    assert widths[1] == widths[0] == {0}


def test_time_masks_reach_all_frames_and_the_widest_width() -> None:
    x, mask = torch.randn(4000, 7, 2), torch.ones(4000, 7, dtype=torch.bool)
    hidden = spec_augment(x, mask, n_frequency_masks=0, frequency_width=1, n_time_masks=1, time_share=0.5) != x
    assert hidden.any(0).all()
    assert set(hidden[:, :, 0].sum(1).tolist()) == {0, 1, 2, 3}


def test_more_masks_hide_more() -> None:
    few, many = (masked(n_time_masks=n, n_frequency_masks=n)[1].float().mean() for n in (1, 4))
    assert many > 1.5 * few


def test_what_is_hidden_becomes_the_mean_of_its_feature_over_the_real_frames() -> None:
    x = torch.randn(B, T, F) + torch.arange(F)
    found = spec_augment(x, MASK, n_frequency_masks=2, frequency_width=4, n_time_masks=2, time_share=0.3)
    hidden = found != x
    assert hidden.any()
    for row, length in enumerate(LENGTHS.tolist()):
        mean = x[row, :length].mean(0).expand(T, F)
        torch.testing.assert_close(found[row][hidden[row]], mean[hidden[row]], rtol=1e-4, atol=1e-4)
        assert not hidden[row, length:].any()


def test_a_generator_decides_what_is_hidden() -> None:
    x = torch.randn(B, T, F)
    settings: dict[str, Any] = {"n_frequency_masks": 1, "frequency_width": 4, "n_time_masks": 1, "time_share": 0.3}
    first, again, other = (spec_augment(x, MASK, **settings, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    spec_augment(x, MASK, **settings, generator=torch.Generator())
    assert torch.equal(state, torch.get_rng_state())


def test_all_of_a_row_can_be_hidden() -> None:
    x = torch.randn(500, 5, 3)
    mask = torch.ones(500, 5, dtype=torch.bool)
    found = spec_augment(x, mask, n_frequency_masks=1, frequency_width=99, n_time_masks=0, time_share=1.0)
    assert set((found != x).all(1).sum(1).tolist()) == {0, 1, 2, 3}
