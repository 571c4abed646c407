"""Loops over the rows of scores, compiled as those of `heed.model.kernels`."""

import math
from typing import Any

import numpy as np

from heed.model.kernels import F32, I32, NEVER, ZERO, compiled, exponential

Array = np.ndarray[Any, Any]
INFINITY = F32(np.inf)
CHUNK = 64  # scores whose highest is looked at first: most chunks hold nothing that is wanted


@compiled
def _exceeds(chunk: Array, bound: Any) -> Any:
    """Return whether one of CHUNK scores is above the bound; written so that they are compared many at once."""
    n_higher = I32(0)
    for i in range(CHUNK):
        n_higher = I32(n_higher + I32(chunk[i] > bound))
    return n_higher > 0


@compiled
def best_tokens(logits: Array, end: Any, tokens: Array, scores: Array, ends: Array) -> Any:
    """Find the likeliest tokens of each row of logits (R, V).

    Args:
        end: the id that ends an answer.
        tokens, scores: (R, n), filled with the n likeliest tokens, likeliest first and the lower number first among equals, and with
            their log probabilities; NEVER where there is none.
        ends: (R,), filled with the log probability of the end.
    Returns:
        whether all logits are numbers or NEVER: not NaN, not plus infinity.
    """
    n_words, n = logits.shape[1], tokens.shape[1]
    sound = True
    for r in range(logits.shape[0]):
        row, found, score = logits[r], tokens[r], scores[r]
        score[:] = NEVER
        found[:] = end
        for first in range(0, n_words, CHUNK):
            if first + CHUNK <= n_words and not _exceeds(row[first : first + CHUNK], score[n - 1]):
                continue
            for v in range(first, min(first + CHUNK, n_words)):
                if row[v] > score[n - 1]:
                    place = n - 1
                    while place > 0 and row[v] > score[place - 1]:
                        score[place], found[place] = score[place - 1], found[place - 1]
                        place -= 1
                    score[place], found[place] = row[v], v
        top, total = score[0], ZERO
        ends[r] = NEVER
        if top == NEVER:  # all are NEVER, or some are NaN
            for v in range(n_words):
                sound = sound and row[v] == NEVER
            continue
        for v in range(n_words):
            total += exponential(row[v] - top)
        norm = top + F32(math.log(total))
        sound = sound and norm < INFINITY
        ends[r] = row[end] - norm
        for place in range(n):
            score[place] -= norm
    return sound


@compiled
def extend(
    tokens: Array,
    scores: Array,
    ends: Array,
    closing: Array,
    present: Array,
    end: Any,
    ended: Array,
    ended_rows: Array,
    rows: Array,
    next_tokens: Array,
    next_scores: Array,
) -> None:
    """Choose how the k open hypotheses of every source go on.

    Args:
        tokens, scores: the n >= min(2 k, V) likeliest next tokens of every hypothesis, likeliest first, and their log p, (B k, n).
        ends: log p of the end after every hypothesis, (B k,).
        closing: which sources may only end now, (B,).
        present: log p of the hypotheses, (B, k).
        ended, ended_rows: (B, k), filled with the log p of those of the k best continuations that end, best first, then NEVER; and
            with the hypothesis that each ends.
        rows, next_tokens, next_scores: (B, k), filled with the k best that go on: the hypothesis, its token, log p or NEVER.
    """
    B, k = present.shape
    n, m = tokens.shape[1], 2 * k
    best, best_rows, best_tokens = np.empty(m, F32), np.empty(m, np.int64), np.empty(m, np.int64)
    for b in range(B):
        best[:] = NEVER
        for r in range(b * k, b * k + k):
            for i in range(1 if closing[b] else n):
                total = present[b, r - b * k] + (ends[r] if closing[b] else scores[r, i])
                if not total > best[m - 1]:
                    break
                place = m - 1
                while place > 0 and total > best[place - 1]:
                    best[place], best_rows[place], best_tokens[place] = best[place - 1], best_rows[place - 1], best_tokens[place - 1]
                    place -= 1
                best[place], best_rows[place], best_tokens[place] = total, r, end if closing[b] else tokens[r, i]
        ended[b], ended_rows[b], next_scores[b], next_tokens[b] = NEVER, 0, NEVER, end
        n_ended, n_open = 0, 0
        for i in range(m):
            if best[i] == NEVER:
                break
            if best_tokens[i] != end:
                if n_open < k:
                    rows[b, n_open], next_tokens[b, n_open], next_scores[b, n_open] = best_rows[i], best_tokens[i], best[i]
                    n_open += 1
            elif i < k:
                ended[b, n_ended], ended_rows[b, n_ended] = best[i], best_rows[i]
                n_ended += 1
        for i in range(n_open, k):
            rows[b, i] = b * k + i
