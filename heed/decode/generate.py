"""The generation loop: knows ids only. Translation, speech, free text, captions and next items all run through it."""

import hashlib
from typing import Protocol

import torch
from torch import Tensor

from heed.config import DecodeConfig
from heed.decode.filters import allow_only, apply_temperature, forbid, keep_top_k, keep_top_p
from heed.decode.search import BeamSearch, Hypothesis
from heed.errors import ConfigError
from heed.model.cache import DecoderState


class Decoder(Protocol):
    """What the loop asks of a model; see the seam in docs/architecture.md."""

    def start(self, inputs: Tensor, mask: Tensor | None, prefix: Tensor) -> DecoderState:
        """Read the source and all of the prefix but its last token."""

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Add one token per row (R,) and score the next (R, V)."""


@torch.inference_mode()
def generate(
    model: Decoder,
    inputs: Tensor,
    mask: Tensor,
    prefix: Tensor,
    *,
    end: int,
    options: DecodeConfig,
    limits: list[int] | None = None,
    never: tuple[int, ...] = (),
) -> list[list[Hypothesis]]:
    """Answer every source with its n best hypotheses.

    Args:
        inputs: (B, S) source ids (or a stem's input); mask: (B, S), True = real.
        prefix: (B, P) ids that every answer starts with, such as the begin token; not part of the answer.
        end: the id that ends an answer.
        limits: longest answer of each source, the end token included; at most and by default options.max_length.
        never: ids that are never generated, such as padding.
    Returns:
        for each source up to options.n_best hypotheses, best first.
    Raises:
        ConfigError: options that exclude each other.
    """
    check_options(options)
    limits = [min(limit, options.max_length) for limit in limits or [options.max_length] * inputs.size(0)]
    if not options.sampling:
        return _search(model, model.start(inputs, mask, prefix), prefix, limits, end, options, list(never))
    n = options.n_best
    seeds = _source_seeds(inputs, mask, options)
    inputs, mask, prefix = (x.repeat_interleave(n, dim=0) for x in (inputs, mask, prefix))
    state = model.start(inputs, mask, prefix)
    samples = _sample(model, state, prefix, [limit for limit in limits for _ in range(n)], seeds, end, options, list(never))
    groups = [samples[i : i + n] for i in range(0, len(samples), n)]
    return [sorted(group, key=lambda hypothesis: -hypothesis.score) for group in groups]


def check_options(options: DecodeConfig) -> None:
    """Refuse settings that exclude each other; raises ConfigError."""
    if not options.sampling and options.n_best > options.beams:
        raise ConfigError(f"decode.n_best={options.n_best} needs at least as many beams, found decode.beams={options.beams}")


def _search(
    model: Decoder, state: DecoderState, prefix: Tensor, limits: list[int], end: int, options: DecodeConfig, never: list[int]
) -> list[list[Hypothesis]]:
    beams = options.beams
    search = BeamSearch(limits, beams=beams, length_penalty=options.length_penalty, n_best=options.n_best, end=end)
    tokens = prefix[:, -1]
    logits = model.step(tokens, state).repeat_interleave(beams, dim=0)  # all beams of a source begin alike
    state.expand(beams)
    while (step := search.advance(forbid(logits, never))) is not None:
        rows, tokens = step.rows.to(logits.device), step.tokens.to(logits.device)
        if beams > 1 or rows.numel() < state.n_rows:
            state.select(rows)
        logits = model.step(tokens, state)
    return search.results()


def _sample(
    model: Decoder,
    state: DecoderState,
    prefix: Tensor,
    limits: list[int],
    seeds: list[int],
    end: int,
    options: DecodeConfig,
    never: list[int],
) -> list[Hypothesis]:
    """Draw one answer per row; a row leaves the batch when it has drawn the end."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    ids: list[list[int]] = [[] for _ in seeds]
    log_p = [0.0] * len(seeds)
    tokens, open_rows = prefix[:, -1], list(range(len(seeds)))
    while open_rows:
        logits = forbid(model.step(tokens, state).float(), never)
        closing = torch.tensor([len(ids[row]) + 1 >= limits[row] for row in open_rows], device=logits.device)
        logits = torch.where(closing[:, None], allow_only(logits, end), logits)
        tokens = _draw(_shape_distribution(logits, options), [generators[row] for row in open_rows])
        gained = logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0].tolist()
        for row, token, gain in zip(open_rows, tokens.tolist(), gained, strict=True):
            ids[row].append(token)
            log_p[row] += gain
        kept = [i for i, row in enumerate(open_rows) if ids[row][-1] != end]
        if kept and len(kept) < len(open_rows):
            state.select(torch.tensor(kept, device=tokens.device))
        open_rows, tokens = [open_rows[i] for i in kept], tokens[kept]
    return [Hypothesis(row[:-1], p / len(row) ** options.length_penalty, p) for row, p in zip(ids, log_p, strict=True)]


def _shape_distribution(logits: Tensor, options: DecodeConfig) -> Tensor:
    logits = apply_temperature(logits, options.temperature)
    return keep_top_p(keep_top_k(logits, options.top_k), options.top_p)


def _draw(logits: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Draw one token per row by inverting the cumulative distribution at a number of the row's own generator."""
    cumulative = logits.softmax(-1).double().cumsum(-1).cpu()
    points = torch.stack([torch.rand((), generator=generator, dtype=torch.float64) for generator in generators])
    drawn = torch.searchsorted(cumulative, (points * cumulative[:, -1])[:, None], right=True)[:, 0]
    return drawn.clamp(max=logits.size(-1) - 1).to(logits.device)


def _source_seeds(inputs: Tensor, mask: Tensor, options: DecodeConfig) -> list[int]:
    """Seed each sample by options.seed, the source and its number, so that batch-mates change nothing."""
    seeds = []
    for source, real in zip(inputs.cpu(), mask.cpu(), strict=True):
        content = source[real].numpy().tobytes()
        for sample in range(options.n_best):
            digest = hashlib.blake2b(content + f"|{options.seed}|{sample}".encode(), digest_size=8).digest()
            seeds.append(int.from_bytes(digest, "little") >> 1)
    return seeds
