"""Beam search: keep the k likeliest beginnings, extend all of them, keep the k likeliest again.

A hypothesis ends with the end token, which counts as one of its tokens. Hypotheses are ranked by log p / length ** penalty.
A source is done when k hypotheses have ended, or as soon as no open one can still enter the n best; the second rule never changes
the answer, because log p only falls as a hypothesis grows. The last allowed token can only be the end, at the price the model puts
on it: being cut off is not free.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from heed.decode.filters import NEVER, allow_only, log_probabilities

LEAVE_AT = 0.125  # share of finished sources at which the batch is made smaller; copying the rest costs about one step
CHUNK = 64  # scores looked at together when the best of very many are sought


class Hypothesis(NamedTuple):
    """An answer as ids, without begin and end tokens."""

    ids: list[int]
    score: float  # log p / length ** penalty
    log_probability: float  # of the ids and the end token


class Step(NamedTuple):
    """What the decoder does next: the tokens to feed (R,), and which old row each continues (R,)."""

    tokens: Tensor
    rows: Tensor


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
        self.scores = torch.full((n, beams), NEVER)  # log p of the open hypotheses
        self.scores[:, 0] = 0.0
        self.ids = torch.zeros((n * beams, 0), dtype=torch.long)
        self.length = 0

    def advance(self, logits: Tensor) -> Step | None:
        """Extend the open hypotheses by logits (R, V) of the next token; None when every source is done.

        Raises:
            TrainingError: a score is NaN or infinite.
        """
        self.length += 1
        log_p = self._close_at_limit(log_probabilities(logits))
        vocab_size = log_p.size(-1)
        totals = log_p.view(len(self.active), self.beams, vocab_size).add_(self.scores.to(log_p.device)[:, :, None])
        n_candidates = min(2 * self.beams, self.beams * vocab_size)  # at most one end per row: k open ones always remain
        scores, flat = (x.cpu() for x in best(totals.flatten(1), n_candidates))  # (B, 2k)
        beam, token = flat // vocab_size, flat % vocab_size
        self._collect(scores, beam, ended=(token == self.end) & (scores > NEVER))
        return self._continue(scores, beam, token)

    def results(self) -> list[list[Hypothesis]]:
        """Return the n best hypotheses of every source, best first; none where every answer has probability 0."""
        return [sorted(source.finished, key=lambda hypothesis: -hypothesis.score)[: self.n_best] for source in self.sources]

    def _close_at_limit(self, log_p: Tensor) -> Tensor:
        closing = torch.tensor([source.limit <= self.length for source in self.active])
        if not bool(closing.any()):
            return log_p
        rows = closing.repeat_interleave(self.beams).to(log_p.device)
        return torch.where(rows[:, None], allow_only(log_p, self.end), log_p)

    def _collect(self, scores: Tensor, beam: Tensor, *, ended: Tensor) -> None:
        """Store hypotheses that end among the k best candidates."""
        for b, rank in ended[:, : self.beams].nonzero().tolist():
            source = self.active[b]
            if source.done or len(source.finished) >= self.beams:
                continue
            log_p = float(scores[b, rank])
            ids = self.ids[b * self.beams + int(beam[b, rank])].tolist()
            source.finished.append(Hypothesis(ids, self._rank(log_p, self.length), log_p))

    def _continue(self, scores: Tensor, beam: Tensor, token: Tensor) -> Step | None:
        """Keep the k best open candidates of the sources that are not done, and let the others leave."""
        open_scores = scores.masked_fill(token == self.end, NEVER)
        self.scores, order = open_scores.topk(self.beams, dim=1)
        beam, token = beam.gather(1, order), token.gather(1, order)
        for source, best in zip(self.active, self.scores[:, 0].tolist(), strict=True):
            source.done = source.done or self._is_done(source, best)
        n_done = sum(source.done for source in self.active)
        if n_done == len(self.active):
            self.active = []
            return None
        kept = torch.arange(len(self.active))
        if n_done >= LEAVE_AT * len(self.active):
            kept = torch.tensor([b for b, source in enumerate(self.active) if not source.done])
            self.active = [source for source in self.active if not source.done]
        rows = (kept[:, None] * self.beams + beam[kept]).flatten()
        tokens = token[kept].flatten()
        self.scores = self.scores[kept]
        self.ids = torch.cat([self.ids[rows], tokens[:, None]], dim=1)
        return Step(tokens, rows)

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


def best(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the n highest of each row and where they stand, highest first: (B, N) -> (B, n) twice.

    The n highest stand in the n chunks whose maxima are highest, and maxima are found much faster than a full order.
    """
    n_chunks = scores.size(1) // CHUNK
    if n_chunks <= n:
        return scores.topk(n, dim=1)
    whole = n_chunks * CHUNK
    chunks = scores[:, :whole].view(-1, n_chunks, CHUNK)
    chosen = chunks.amax(-1).topk(n, dim=1).indices
    places = (chosen[:, :, None] * CHUNK + torch.arange(CHUNK, device=scores.device)).flatten(1)  # (B, n * CHUNK)
    rest = torch.arange(whole, scores.size(1), device=scores.device).expand(scores.size(0), -1)
    places = torch.cat([places, rest], dim=1)
    values, order = scores.gather(1, places).topk(n, dim=1)
    return values, places.gather(1, order)
