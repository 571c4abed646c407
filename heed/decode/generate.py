"""The generation loop: knows ids only. Translation, speech, free text, captions and next items all run through it."""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from heed.config import DecodeConfig
from heed.decode.filters import (
    NEVER,
    NO_TOKEN,
    apply_temperature,
    discourage,
    forbid,
    forbid_repeats,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    log_probabilities,
)
from heed.decode.search import BeamSearch, Hypothesis
from heed.errors import ConfigError
from heed.model.cache import DecoderState

Source = TypeVar("Source", bound=Tensor | None)
Source_contra = TypeVar("Source_contra", bound=Tensor | None, contravariant=True)
# Is told the tokens of an answer as they are chosen, and says after each whether the answer ends there.
Watcher = Callable[[int], bool]


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
    never_first: tuple[int, ...] = (),
    watch: Callable[[int], Watcher] | None = None,
) -> list[list[Hypothesis]]:
    """Answer every source with its n best hypotheses.

    Args:
        inputs: (B, S) source ids (or a stem's input); None for a model that only continues its prefix.
        mask: which of the source is real, (B, S); without inputs which of the prefix, (B, P), padded on the left. None: all.
        prefix: (B, P) ids that every answer starts with, such as the begin token; not part of the answer, but what it must not repeat.
        end: the id that ends an answer.
        limits: longest answer of each source, the end token included; at most and by default options.max_length.
        never: ids that are never generated, such as padding; never_first: ids that no answer begins with.
        watch: returns who watches an answer to the source of a number, and may end it early; its last token then stays in it. Searches
            with several beams are not watched.
    Returns:
        for each source up to options.n_best hypotheses, best first; none where every answer has probability 0. Probabilities
        are the model's own over the tokens that are allowed, whatever temperature, top_k and the like make of them when sampling;
        when searching, options.repetition_penalty counts.
    Raises:
        TrainingError: the model's scores are no numbers.
    """
    if prefix.size(0) == 0:
        return []
    limits = [min(limit, options.max_length) for limit in limits or [options.max_length] * prefix.size(0)]
    state = model.start(inputs, mask, prefix)
    banned = _Banned.of(never, never_first, prefix.device)
    past = prefix if inputs is not None or mask is None else prefix.masked_fill(~mask, NO_TOKEN)
    if not options.sampling and (watch is None or options.beams > 1):
        return _search(model, state, past, limits=limits, end=end, options=options, never=banned)
    n = options.n_best
    rows = torch.arange(len(limits)).repeat_interleave(n)
    if n > 1:
        state.select(rows.to(prefix.device))
    limits = [limits[row] for row in rows.tolist()]
    points = _points(_seeds(prefix if inputs is None else inputs, mask, options), limits)
    watchers = None if watch is None else [watch(row) for row in rows.tolist()]
    draws = _draws(model, state, past[rows], points, limits=limits, end=end, options=options, never=banned, watchers=watchers)
    samples = _collected(draws, len(limits), end, options)
    groups = [samples[i : i + n] for i in range(0, len(samples), n)]
    return [sorted((one for one in group if one.score > NEVER), key=lambda one: -one.score) for group in groups]


@torch.inference_mode()
def stream(
    model: Decoder[Source],
    inputs: Source,
    prefix: Tensor,
    *,
    end: int,
    options: DecodeConfig,
    never: tuple[int, ...] = (),
    watch: Callable[[int], Watcher] | None = None,
) -> Iterator[int]:
    """Yield the ids of one answer as they are chosen: those that `generate` returns.

    Args:
        inputs: (1, S); prefix: (1, P); all other arguments as for `generate`.
    Raises:
        ConfigError: the options ask for several answers, or for a search whose answer is known at its end only.
    """
    if options.n_best > 1 or not (options.sampling or options.beams == 1):
        raise ConfigError(
            f"decode.n_best={options.n_best}, decode.beams={options.beams}: what is written token by token is one answer that is sampled "
            "or greedy; set decode.n_best=1, and decode.sample=true or decode.beams=1"
        )
    state, limits = model.start(inputs, None, prefix), [options.max_length]
    points = _points(_seeds(prefix if inputs is None else inputs, None, options), limits)
    banned = _Banned.of(never, (), prefix.device)
    watchers = None if watch is None else [watch(0)]
    for draw in _draws(model, state, prefix, points, limits=limits, end=end, options=options, never=banned, watchers=watchers):
        if draw.tokens[0] != end and draw.log_p[0] > NEVER:
            yield draw.tokens[0]


class _Banned(NamedTuple):
    """Ids (n,) that are never generated, and those, the same included, that no answer begins with."""

    always: Tensor
    first: Tensor

    @classmethod
    def of(cls, never: tuple[int, ...], never_first: tuple[int, ...], device: torch.device) -> "_Banned":
        """Put ids where the scores are."""
        always, first = (torch.tensor(ids, dtype=torch.long, device=device) for ids in (never, (*never, *never_first)))
        return cls(always, first)


def _search(
    model: Decoder[Source], state: DecoderState, past: Tensor, *, limits: list[int], end: int, options: DecodeConfig, never: _Banned
) -> list[list[Hypothesis]]:
    """Search on from `past` (B, P), NO_TOKEN before its first, of which the state has read all but the last token."""
    search = BeamSearch(limits, beams=options.beams, length_penalty=options.length_penalty, n_best=options.n_best, end=end)
    logits = model.step(past[:, -1], state).repeat_interleave(options.beams, dim=0)  # all beams of a source begin alike
    state.expand(options.beams)

    def allowed() -> Tensor:
        forbid(logits, never.always if search.length else never.first)
        if not _looks_back(options):
            return logits
        sources = torch.tensor([source.index for source in search.active]).repeat_interleave(options.beams)
        held = torch.cat([past[sources], torch.from_numpy(search.ids).to(past.device)], dim=1)
        return discourage(forbid_repeats(logits, held, options.no_repeat_ngram_size, end=end), held, options.repetition_penalty)

    while (step := search.advance(allowed())) is not None:
        if step.rows is not None:
            state.select(step.rows.to(logits.device))
        logits = model.step(step.tokens.to(logits.device), state)
    return search.results()


class _Draw(NamedTuple):
    """One step: the rows that go on, the token each chose, and its log p by the model."""

    rows: list[int]
    tokens: list[int]
    log_p: list[float]


def _draws(
    model: Decoder[Source],
    state: DecoderState,
    past: Tensor,
    points: Tensor,
    *,
    limits: list[int],
    end: int,
    options: DecodeConfig,
    never: _Banned,
    watchers: list[Watcher] | None,
) -> Iterator[_Draw]:
    """Choose one token per row of `past` (R, P) at a time, at the random numbers `points` (R, T), until every row has left.

    A past holds NO_TOKEN before its first. A row leaves when it has chosen the end, when its watcher says so, or when it cannot go on.
    """
    rows, last, tokens = torch.arange(len(limits)), torch.tensor(limits) - 1, past[:, -1]
    for t in range(points.size(1)):
        logits = forbid(model.step(tokens, state), never.always if t else never.first)
        logits = forbid_repeats(logits, past, options.no_repeat_ngram_size, end=end)
        scores = log_probabilities(logits)
        tokens = _choice(logits, scores, past, points[rows, t], options)
        tokens = tokens.masked_fill((last[rows] <= t).to(tokens.device), end)
        draw = _Draw(rows.tolist(), tokens.tolist(), scores.gather(1, tokens[:, None])[:, 0].tolist())
        yield draw
        going_on = torch.tensor([i for i in range(len(draw.rows)) if _goes_on(draw, i, end, watchers)], dtype=torch.long)
        if going_on.numel() == 0:
            return
        if going_on.numel() < rows.numel():
            rows, kept = rows[going_on], going_on.to(tokens.device)
            tokens, past = tokens[kept], past[kept]
            state.select(kept)
        if _looks_back(options):
            past = torch.cat([past, tokens[:, None]], dim=1)


def _looks_back(options: DecodeConfig) -> bool:
    """Return whether what may be written depends on what has been."""
    return options.repetition_penalty != 1 or options.no_repeat_ngram_size > 0


def _goes_on(draw: _Draw, i: int, end: int, watchers: list[Watcher] | None) -> bool:
    if draw.tokens[i] == end or draw.log_p[i] == NEVER:
        return False
    return watchers is None or not watchers[draw.rows[i]](draw.tokens[i])


def _collected(draws: Iterator[_Draw], n_rows: int, end: int, options: DecodeConfig) -> list[Hypothesis]:
    """Return the answer of each row."""
    ids: list[list[int]] = [[] for _ in range(n_rows)]
    log_p = [0.0] * n_rows
    for draw in draws:
        for row, token, p in zip(*draw, strict=True):
            log_p[row] += p
            if token != end:
                ids[row].append(token)
    return [Hypothesis(one, p / (len(one) + 1) ** options.length_penalty, p) for one, p in zip(ids, log_p, strict=True)]


def _choice(logits: Tensor, scores: Tensor, past: Tensor, points: Tensor, options: DecodeConfig) -> Tensor:
    """Choose a token per row (R,), from logits (R, V) and the same as log p."""
    scores = scores if options.repetition_penalty == 1 else discourage(logits, past, options.repetition_penalty)
    if not options.sampling:
        return scores.argmax(-1)
    return _draw(_shape_distribution(scores, options), points.to(scores.device))


def _shape_distribution(logits: Tensor, options: DecodeConfig) -> Tensor:
    logits = apply_temperature(logits, options.temperature)
    return keep_min_p(keep_top_p(keep_top_k(logits, options.top_k), options.top_p), options.min_p)


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
