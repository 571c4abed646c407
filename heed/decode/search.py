"""Beam search: keep the k likeliest beginnings, extend all of them, keep the k likeliest again.

A hypothesis ends with the end token, which counts as one of its tokens. Hypotheses are ranked by log p / length ** penalty.
A source is done when k hypotheses have ended, or as soon as no open one can still enter the n best; the second rule never changes
the answer, because log p only falls as a hypothesis grows. The last allowed token can only be the end, at the price the model puts
on it: being cut off is not free.
"""

import functools
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from heed.decode.filters import NEVER, check_scores, log_probabilities

LEAVE_AT = 0.125  # share of finished sources at which the batch is made smaller; copying the rest costs about one step

Array = np.ndarray[Any, Any]


class Hypothesis(NamedTuple):
    """An answer as ids, without begin and end tokens."""

    ids: list[int]
    score: float  # log p / length ** penalty
    log_probability: float  # of the ids and the end token


class Step(NamedTuple):
    """What the decoder does next: the tokens to feed (R,), and which old row each continues (R,); None: each its own."""

    tokens: Tensor
    rows: Tensor | None


@dataclass
class _Source:
    """One source's finished hypotheses."""

    index: int
    limit: int
    finished: list[Hypothesis] = field(default_factory=list)
    done: bool = False


class BeamSearch:
    """The search over a batch of sources, `beams` rows each, fed one step of logits at a time."""

    def __init__(self, limits: list[int], *, beams: int, length_penalty: float, n_best: int, end: int, early: bool = True) -> None:
        """Start with one open hypothesis per source.

        Args:
            limits: longest answer of each source in tokens, the end token included.
            early: leave off when no open hypothesis can enter the n best; False searches on, to the same answer.
        """
        self.beams, self.penalty, self.n_best, self.end, self.early = beams, length_penalty, n_best, end, early
        self.sources = [_Source(i, limit) for i, limit in enumerate(limits)]
        self.active = list(self.sources)
        n = len(limits)
        self.scores: Array = np.full((n, beams), NEVER, np.float32)  # log p of the open hypotheses
        self.scores[:, 0] = 0.0
        self.ids: Array = np.zeros((n * beams, 0), np.int64)
        self.length = 0

    def advance(self, logits: Tensor) -> Step | None:
        """Extend the open hypotheses by logits (R, V) of the next token; None when every source is done.

        Raises:
            TrainingError: a score is NaN or infinite.
        """
        self.length += 1
        found = continuations(logits, min(2 * self.beams, logits.size(-1)), self.end)  # one end a row at most: k open ones remain
        closing = np.array([source.limit <= self.length for source in self.active])
        shape = self.scores.shape
        ended, scores = np.empty(shape, np.float32), np.empty(shape, np.float32)
        ended_rows, rows, tokens = (np.empty(shape, np.int64) for _ in range(3))
        kernels().extend(*found, closing, self.scores, self.end, ended, ended_rows, rows, tokens, scores)
        self._collect(ended, ended_rows)
        return self._continue(rows, tokens, scores)

    def results(self) -> list[list[Hypothesis]]:
        """Return the n best hypotheses of every source, best first; none where every answer has probability 0."""
        return [sorted(source.finished, key=lambda hypothesis: -hypothesis.score)[: self.n_best] for source in self.sources]

    def _collect(self, ended: Array, rows: Array) -> None:
        """Store hypotheses that ended, of each source the likeliest first."""
        for b, rank in np.argwhere(ended > NEVER).tolist():
            source = self.active[b]
            if source.done or len(source.finished) >= self.beams:
                continue
            log_p = float(ended[b, rank])
            source.finished.append(Hypothesis(self.ids[rows[b, rank]].tolist(), self._rank(log_p, self.length), log_p))

    def _continue(self, rows: Array, tokens: Array, scores: Array) -> Step | None:
        """Go on with the open hypotheses (B, k) of the sources that are not done, and let the others leave."""
        for source, best in zip(self.active, scores[:, 0].tolist(), strict=True):
            source.done = source.done or self._is_done(source, best)
        n_done = sum(source.done for source in self.active)
        if n_done == len(self.active):
            self.active = []
            return None
        if n_done >= LEAVE_AT * len(self.active):
            kept = [b for b, source in enumerate(self.active) if not source.done]
            self.active = [self.active[b] for b in kept]
            rows, tokens, scores = rows[kept], tokens[kept], scores[kept]
        flat = rows.ravel()
        stay = flat.size == len(self.ids) and bool((flat == np.arange(flat.size)).all())
        self.scores = scores
        self.ids = np.concatenate([self.ids[flat], tokens.reshape(-1, 1)], axis=1)
        return Step(torch.from_numpy(tokens.ravel()), None if stay else torch.from_numpy(flat))

    def _is_done(self, source: _Source, best_open: float) -> bool:
        if best_open == NEVER or len(source.finished) >= self.beams or source.limit <= self.length:
            return True
        if not self.early or len(source.finished) < self.n_best:
            return False
        worst_kept = sorted((hypothesis.score for hypothesis in source.finished), reverse=True)[self.n_best - 1]
        # log p only falls, so the best an open one can reach is its present log p at the most favourable length.
        return max(self._rank(best_open, self.length + 1), self._rank(best_open, source.limit)) < worst_kept

    def _rank(self, log_probability: float, length: int) -> float:
        return float(log_probability / length**self.penalty)


def continuations(logits: Tensor, n: int, end: int) -> tuple[Array, Array, Array]:
    """Return the n likeliest tokens of each row of logits (R, V), likeliest first.

    Returns:
        their ids (R, n), their log probabilities (R, n) and that of the end token (R,), all on the CPU.
    Raises:
        TrainingError: a score is NaN or infinite.
    """
    if logits.device.type != "cpu":
        log_p = log_probabilities(logits)
        best = log_p.topk(n, dim=-1)
        return best.indices.cpu().numpy(), best.values.cpu().numpy(), log_p[:, end].cpu().numpy()
    R = logits.size(0)
    tokens, scores, ends = np.empty((R, n), np.int64), np.empty((R, n), np.float32), np.empty(R, np.float32)
    check_scores(bool(kernels().best_tokens(logits.float().contiguous().numpy(), end, tokens, scores, ends)))
    return tokens, scores, ends


@functools.cache
def kernels() -> ModuleType:
    """Return the compiled loops; with numba, which only those need who answer."""
    from heed.decode import kernels

    return kernels
