"""The generation loop: knows ids only. Translation, speech, free text, captions and next items all run through it."""

import hashlib
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from heed.config import DecodeConfig
from heed.decode.filters import NEVER, apply_temperature, forbid, keep_top_k, keep_top_p, log_probabilities
from heed.decode.search import BeamSearch, Hypothesis
from heed.model.cache import DecoderState

Source = TypeVar("Source", bound=Tensor | None)
Source_contra = TypeVar("Source_contra", bound=Tensor | None, contravariant=True)


class Decoder(Protocol[Source_contra]):
    """What the loop asks of a model; the seam between models and decoding."""

    def start(self, inputs: Source_contra, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        """Read the source and all of the prefix but its last token."""

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Add one token per row (R,) and score the next (R, V); the scores are new, the caller may write into them."""


@torch.inference_mode()
def generate(
    model: Decoder[Source],
    inputs: Source,
    mask: Tensor | None,
    prefix: Tensor,
    *,
    end: int,
    options: DecodeConfig,
    limits: list[int] | None = None,
    never: tuple[int, ...] = (),
) -> list[list[Hypothesis]]:
    """Answer every source with its n best hypotheses.

    Args:
        inputs: (B, S) source ids (or a stem's input); None for a model that only continues its prefix.
        mask: which of the source is real, (B, S); without inputs which of the prefix, (B, P), padded on the left. None: all.
        prefix: (B, P) ids that every answer starts with, such as the begin token; not part of the answer.
        end: the id that ends an answer.
        limits: longest answer of each source, the end token included; at most and by default options.max_length.
        never: ids that are never generated, such as padding.
    Returns:
        for each source up to options.n_best hypotheses, best first; none where every answer has probability 0. Probabilities
        are the model's own over the tokens that are allowed, whatever temperature, top_k and top_p make of them when sampling.
    Raises:
        TrainingError: the model's scores are no numbers.
    """
    if prefix.size(0) == 0:
        return []
    limits = [min(limit, options.max_length) for limit in limits or [options.max_length] * prefix.size(0)]
    state = model.start(inputs, mask, prefix)
    banned = torch.tensor(never, dtype=torch.long, device=prefix.device)
    if not options.sampling:
        return _search(model, state, prefix[:, -1], limits=limits, end=end, options=options, never=banned)
    n = options.n_best
    rows = torch.arange(len(limits)).repeat_interleave(n)
    if n > 1:
        state.select(rows.to(prefix.device))
    limits = [limits[row] for row in rows.tolist()]
    points = _points(_seeds(prefix if inputs is None else inputs, mask, options), limits)
    samples = _sample(model, state, prefix[rows, -1], points, limits=limits, end=end, options=options, never=banned)
    groups = [samples[i : i + n] for i in range(0, len(samples), n)]
    return [sorted((one for one in group if one.score > NEVER), key=lambda one: -one.score) for group in groups]


def _search(
    model: Decoder[Source], state: DecoderState, tokens: Tensor, *, limits: list[int], end: int, options: DecodeConfig, never: Tensor
) -> list[list[Hypothesis]]:
    search = BeamSearch(limits, beams=options.beams, length_penalty=options.length_penalty, n_best=options.n_best, end=end)
    logits = model.step(tokens, state).repeat_interleave(options.beams, dim=0)  # all beams of a source begin alike
    state.expand(options.beams)
    while (step := search.advance(forbid(logits, never))) is not None:
        if step.rows is not None:
            state.select(step.rows.to(logits.device))
        logits = model.step(step.tokens.to(logits.device), state)
    return search.results()


def _sample(
    model: Decoder[Source],
    state: DecoderState,
    tokens: Tensor,
    points: Tensor,
    *,
    limits: list[int],
    end: int,
    options: DecodeConfig,
    never: Tensor,
) -> list[Hypothesis]:
    """Draw one answer per row (R,), at the random numbers `points` (R, T); a row leaves the batch when it has drawn the end."""
    drawn = torch.full(points.shape, end)  # (R, T)
    log_p = torch.zeros(len(limits), dtype=torch.float64)
    rows, last = torch.arange(len(limits)), torch.tensor(limits) - 1
    for t in range(points.size(1)):
        scores = log_probabilities(forbid(model.step(tokens, state), never))
        tokens = _draw(_shape_distribution(scores, options), points[rows, t].to(scores.device))
        tokens = tokens.masked_fill((last[rows] <= t).to(tokens.device), end)
        drawn[rows, t] = tokens.cpu()
        log_p[rows] += scores.gather(1, tokens[:, None])[:, 0].double().cpu()
        going_on = ((drawn[rows, t] != end) & (log_p[rows] > NEVER)).nonzero()[:, 0]
        if going_on.numel() == 0:
            break
        if going_on.numel() < rows.numel():
            rows, kept = rows[going_on], going_on.to(tokens.device)
            tokens = tokens[kept]
            state.select(kept)
    return [_hypothesis(ids, p, end, options) for ids, p in zip(drawn.tolist(), log_p.tolist(), strict=True)]


def _hypothesis(drawn: list[int], log_p: float, end: int, options: DecodeConfig) -> Hypothesis:
    ids = drawn[: drawn.index(end)] if end in drawn else drawn
    return Hypothesis(ids, log_p / (len(ids) + 1) ** options.length_penalty, log_p)


def _shape_distribution(logits: Tensor, options: DecodeConfig) -> Tensor:
    logits = apply_temperature(logits, options.temperature)
    return keep_top_p(keep_top_k(logits, options.top_k), options.top_p)


def _draw(logits: Tensor, points: Tensor) -> Tensor:
    """Draw one token per row of (R, V) by inverting the cumulative distribution at the row's point in [0, 1), (R,)."""
    cumulative = logits.softmax(-1).double().cumsum(-1)
    drawn = torch.searchsorted(cumulative, (points * cumulative[:, -1])[:, None], right=True)[:, 0]
    return drawn.clamp(max=logits.size(-1) - 1)


def _points(seeds: list[int], limits: list[int]) -> Tensor:
    """Return the random numbers of each row, one for each of its tokens: (R, T), from the row's own generator."""
    points = torch.zeros(len(seeds), max(limits), dtype=torch.float64)
    for row, seed, limit in zip(points, seeds, limits, strict=True):
        row[:limit] = torch.rand(limit, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return points


def _seeds(sources: Tensor, mask: Tensor | None, options: DecodeConfig) -> list[int]:
    """Seed each sample by options.seed, the source and its number, so that batch-mates change nothing."""
    seeds = []
    for i, source in enumerate(sources.cpu()):
        real = source if mask is None else source[mask[i].cpu()]
        content = real.contiguous().view(torch.uint8).numpy().tobytes()
        for sample in range(options.n_best):
            digest = hashlib.blake2b(content + f"|{options.seed}|{sample}".encode(), digest_size=8).digest()
            seeds.append(int.from_bytes(digest, "little") >> 1)
    return seeds
