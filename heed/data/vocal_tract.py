"""Vocal tract length perturbation: the frequency axis of each recording is stretched, so that few voices teach many (Jaitly & Hinton 2013).

A longer vocal tract lowers all its resonances by one factor and leaves pitch and pace alone, which a change of speed moves together.
"""

import torch
from torch import Tensor

from heed.data.feature_settings import FeatureSettings, band_edges

STRETCHED_SHARE = 0.6  # of the highest frequency: below it everything is stretched, above it the axis is brought back to end where it did


def stretch_frequencies(x: Tensor, share: float, settings: FeatureSettings, generator: torch.Generator | None = None) -> Tensor:
    """Return log-mel features as from vocal tracts up to `share` longer or shorter, drawn anew for each row.

    Args:
        x: (B, T, F) of `settings`: n_mels log energies, what else a frame holds, and deltas of all of these in the same order. Only the
            energies and their deltas are stretched.
        generator: of the draws; a generator of the CPU draws the same factors on any device.
    Returns:
        (B, T, F), a new tensor; between two bands it is what lies on the line between them.
    """
    drawn = torch.rand(x.size(0), dtype=torch.float64, generator=generator, device=x.device if generator is None else generator.device)
    places = stretched_bands(1 + share * (2 * drawn.to(x.device) - 1), settings)  # (B, n_mels)
    below = places.floor().long().clamp(max=settings.n_mels - 2)
    weight = (places - below).to(x.dtype)[:, None]  # (B, 1, n_mels)
    blocks = []
    for block in x.chunk(1 + settings.deltas, dim=-1):
        bands = block[..., : settings.n_mels]
        index = below[:, None].expand(-1, x.size(1), -1)
        stretched = torch.lerp(bands.gather(-1, index), bands.gather(-1, index + 1), weight)
        blocks.append(torch.cat([stretched, block[..., settings.n_mels :]], dim=-1))
    return torch.cat(blocks, dim=-1)


def stretched_bands(factors: Tensor, settings: FeatureSettings) -> Tensor:
    """Return at which place among the bands, 0 to n_mels - 1, each band of a stretched recording is to be read.

    A frequency f is read at factor * f up to the bend, STRETCHED_SHARE of the top for factors up to 1 and as much less for larger ones as
    brings the bend itself there, and from there on a straight line to the top.

    Args:
        factors: (B,).
    Returns:
        (B, n_mels).
    """
    top = settings.top_hz
    edges = band_edges(settings.lowest_hz, top, settings.n_mels).to(factors.device)
    centres = edges[1:-1]
    factor = factors[:, None]
    bend = STRETCHED_SHARE * top * factor.clamp(max=1) / factor
    straight = top - (top - factor * bend) / (top - bend) * (top - centres)
    read = torch.where(centres <= bend, factor * centres, straight)
    mels, read_mels = torch.log1p(centres / 700), torch.log1p(read.clamp(min=0) / 700)  # of which HTK's mels are multiples
    places = (read_mels - mels[0]) / (mels[1] - mels[0])
    return places.clamp(0, settings.n_mels - 1)
