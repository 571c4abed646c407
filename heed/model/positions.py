"""How a model knows the order of its tokens: attention alone does not, it would treat them as a set.

Sinusoidal and learned positions are added to the embeddings; rotary ones turn queries and keys; relative ones are added to the scores.
"""

import math

import torch
from torch import Tensor, nn

from heed.errors import DataError


def sinusoid_table(n_positions: int, d_model: int, *, halves: bool = False) -> Tensor:
    """Return PE[p, 2i] = sin(p / 10000^(2i/d)), PE[p, 2i+1] = cos(same) (Vaswani et al. 2017, section 3.5).

    Args:
        halves: all sines stand before all cosines, as in Tensor2Tensor and Marian.
    Returns:
        (n_positions, d_model) in float32; an odd d_model has one sine more.
    """
    pair = torch.arange(0, d_model, 2, dtype=torch.float64)
    angle = torch.arange(n_positions, dtype=torch.float64)[:, None] * torch.exp(-math.log(10000.0) * pair / d_model)
    return laid_out(angle.sin(), angle.cos(), halves=halves)[:, :d_model].float()


def laid_out(sines: Tensor, cosines: Tensor, *, halves: bool) -> Tensor:
    """Join sines and cosines (P, D/2) in turn, or in halves, to (P, D)."""
    return torch.cat([sines, cosines], dim=-1) if halves else torch.stack([sines, cosines], dim=-1).flatten(1)


FIRST_TABLE = 1024  # positions computed beforehand; more when a sequence has more


class SinusoidalPositions(nn.Module):
    """Fixed positions, added; they have no parameters and no longest sequence."""

    def __init__(self, d_model: int, max_length: int, *, halves: bool = False) -> None:
        super().__init__()
        self.d_model = d_model
        self.halves = halves
        self.table: Tensor
        self.register_buffer("table", sinusoid_table(min(max_length, FIRST_TABLE), d_model, halves=halves), persistent=False)

    def forward(self, x: Tensor, first: int = 0, positions: Tensor | None = None) -> Tensor:
        """Add to x (B, T, D) the positions (B, T), all below first + T; by default first, first + 1 ..."""
        end = first + x.size(1)
        table = self.table  # held, because another thread may put a shorter one in its place
        if end > table.size(0):
            self.table = table = sinusoid_table(2 * end, self.d_model, halves=self.halves).to(table)
        return x + (table[first:end] if positions is None else table[positions])


class LearnedPositions(nn.Module):
    """One learned vector per position, added; rows before the first position stand for nothing (RoBERTa has two)."""

    def __init__(self, d_model: int, max_length: int, first_position: int = 0, *, setting: str = "max_length") -> None:
        """Build the table of `model.max_length` rows, or of another setting, and those before the first position."""
        super().__init__()
        self.first_position = first_position
        self.setting = setting
        self.embedding = nn.Embedding(max_length + first_position, d_model)

    @property
    def max_length(self) -> int:
        """The longest sequence."""
        return self.embedding.num_embeddings - self.first_position

    def forward(self, x: Tensor, first: int = 0, positions: Tensor | None = None) -> Tensor:
        """Add to x (B, T, D) the positions (B, T), all below first + T; by default first, first + 1 ...

        Raises:
            DataError: a position is beyond the longest that was trained.
        """
        end = first + x.size(1)
        if end > self.max_length:
            raise DataError(
                f"a sequence of {end} tokens does not fit model.{self.setting}={self.max_length} of learned positions; "
                f"shorten it, or train with a larger model.{self.setting} or another kind of model.positions"
            )
        row = self.first_position
        learned: Tensor = self.embedding.weight[row + first : row + end] if positions is None else self.embedding(positions + row)
        return x + learned


SLOW, FAST = 1.0, 4.0  # turns within the context: pairs that make fewer are slowed in full, those that make more not at all (Llama 3.1)


def turning_rates(d_head: int, base: float = 10000.0, factor: float = 1.0, context: int | None = None) -> Tensor:
    """Return by how much each pair turns from one place to the next, (E/2,) in radians: pair i by base^(-2i/E) (Su et al. 2021, eq. 15).

    Args:
        factor: how much slower they turn, so that more places look like those that were learned (Chen et al. 2023).
        context: how many places were learned: what turns often within so many keeps its rate (Dubey et al. 2024); None: no pair does.
    """
    rates = base ** (-torch.arange(0, d_head, 2, dtype=torch.float64) / d_head)
    if context is None:
        return rates / factor
    kept = ((rates * context / (2 * math.pi) - SLOW) / (FAST - SLOW)).clamp(0, 1)
    return rates * (kept + (1 - kept) / factor)


def rotation(positions: Tensor, d_head: int, base: float = 10000.0, *, factor: float = 1.0, context: int | None = None) -> Tensor:
    """Return the rotation of each position as complex numbers of length 1, whose pairs turn by `turning_rates`.

    Args:
        positions: (T,) or (B, T).
    Returns:
        (T, E/2), or (B, 1, T, E/2), the same for every head.
    """
    angle = positions[..., None].double() * turning_rates(d_head, base, factor, context).to(positions.device)
    turn = torch.polar(torch.ones_like(angle), angle).to(torch.complex64)
    return turn[:, None] if positions.dim() == 2 else turn


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """Turn the pairs (x[2i], x[2i + 1]) of queries or keys (B, H, T, E), each taken as one complex number (Su et al. 2021, eq. 34)."""
    pairs = torch.unflatten(x.to(torch.promote_types(x.dtype, torch.float32)), -1, (-1, 2))
    return torch.view_as_real(torch.view_as_complex(pairs) * by).flatten(-2).to(x.dtype)


class RotaryPositions(nn.Module):
    """Rotations by position, computed once; they have no parameters and no longest sequence."""

    def __init__(self, d_head: int, base: float = 10000.0, *, factor: float = 1.0, context: int | None = None) -> None:
        """Build them with the base, factor and context of `turning_rates`."""
        super().__init__()
        self.d_head = d_head
        self.base = base
        self.factor = factor
        self.context = context
        self.table = self.at(torch.zeros(0))  # (P, E/2); no buffer, which model.to(dtype) would cut to its real part

    def at(self, positions: Tensor) -> Tensor:
        """Compute the rotations of any positions, as `rotation` does."""
        return rotation(positions, self.d_head, self.base, factor=self.factor, context=self.context)

    def forward(self, first: int, end: int, positions: Tensor | None, device: torch.device) -> Tensor:
        """Return the rotations of positions (T,) or (B, T), all below `end`; by default of first, first + 1 ... end - 1."""
        table = self.table  # held, because another thread may put a shorter one in its place
        if table.size(0) < end or table.device != device:
            with torch.inference_mode(False):  # training may come after answering, and reads the same table
                self.table = table = self.at(torch.arange(max(64, 2 * end), device=device))
        if positions is None:
            return table[first:end]
        turn = table[positions]
        return turn[:, None] if positions.dim() == 2 else turn


class RelativeBias(nn.Module):
    """A learned score per head and distance, distances grouped into buckets (Raffel et al. 2020, section 2.1).

    Half of the buckets are single distances, the other half grow logarithmically up to `max_distance`.
    """

    def __init__(self, n_heads: int, *, causal: bool, n_buckets: int = 32, max_distance: int = 128) -> None:
        super().__init__()
        self.causal = causal
        self.n_buckets = n_buckets
        self.max_distance = max_distance
        self.embedding = nn.Embedding(n_buckets, n_heads)

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """Return the bias (1, H, T, S) for queries at (T,) and keys at (S,)."""
        distance = key_positions[None, :] - query_positions[:, None]
        scores: Tensor = self.embedding(self.bucket(distance))
        return scores.permute(2, 0, 1)[None]  # (T, S, H) -> (1, H, T, S)

    def of_span(self, first: int, end: int, device: torch.device) -> Tensor:
        """Return the bias (1, H, T, S) of the places first, first + 1 ... end - 1 towards 0 ... end - 1.

        Distances do not change when a row is padded on the left.
        """
        places = torch.arange(end, device=device)
        bias: Tensor = self(places[first:], places)
        return bias

    def bucket(self, distance: Tensor) -> Tensor:
        """Map key position - query position to a bucket in [0, n_buckets)."""
        n = self.n_buckets
        if self.causal:
            first, away = torch.zeros_like(distance), (-distance).clamp(min=0)
        else:
            n //= 2
            first, away = (distance > 0).long() * n, distance.abs()
        exact = n // 2
        far = torch.log(away.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (n - exact)
        return first + torch.where(away < exact, away, (exact + far.long()).clamp(max=n - 1))
