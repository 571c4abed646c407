"""SpecAugment: bands of frequencies and spans of time are hidden, so that no single cue is relied on (Park et al. 2019).

Left out: time warping, which the paper finds to be no major factor.
"""

import torch
from torch import Tensor


def spec_augment(
    x: Tensor,
    mask: Tensor,
    *,
    n_frequency_masks: int,
    frequency_width: int,
    n_time_masks: int,
    time_share: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide bands of frequencies and spans of time, drawn anew for each row (SpecAugment, Park et al. 2019, without time warping).

    What is hidden becomes the feature's mean over the row's real frames, so that no edge stands out from the row; this is 0, the
    paper's value, for features that are normalised over the utterance. Masks may overlap.

    Args:
        x: (B, T, F); frames at padding stay as they are.
        mask: (B, T), True = real.
        n_frequency_masks: bands per row, each of 0 to `frequency_width` neighbouring features.
        n_time_masks: spans per row, each of no frame up to `time_share` of the row's real frames.
        generator: of the draws; a generator of the CPU draws the same masks on any device.
    Returns:
        (B, T, F), a new tensor.
    """
    _, T, F = x.shape
    n_real = mask.sum(1, keepdim=True)  # (B, 1)
    widest = torch.full_like(n_real, min(frequency_width, F))
    bands = _spans(n_frequency_masks, widest, torch.full_like(n_real, F), F, generator)
    spans = _spans(n_time_masks, (n_real.double() * time_share).long(), n_real, T, generator)
    hidden = (bands[:, None, :] | spans[:, :, None]) & mask[:, :, None]
    mean = x.masked_fill(~mask[:, :, None], 0).sum(1, keepdim=True) / n_real.clamp(min=1)[:, :, None]
    return torch.where(hidden, mean.to(x.dtype), x)


def _spans(n: int, widest: Tensor, lengths: Tensor, size: int, generator: torch.Generator | None) -> Tensor:
    """Draw `n` spans per row, 0 to `widest` (B, 1) long, somewhere in its `lengths` (B, 1); return where any of them is, (B, size)."""
    device = lengths.device if generator is None else generator.device
    draws = torch.rand(2, lengths.size(0), n, dtype=torch.float64, generator=generator, device=device).to(lengths.device)
    widths = (draws[0] * (widest + 1)).long()  # (B, n)
    begins = (draws[1] * (lengths - widths + 1)).long()
    places = torch.arange(size, device=lengths.device)
    return ((places >= begins[:, :, None]) & (places < (begins + widths)[:, :, None])).any(1)
