"""Attention in time and memory linear in the length: inside windows, inside chunks, and of low rank through landmarks.

All have the form of `heed.model.attention.Mix`, and answer a sequence alone as they do in a padded batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from heed.model.attention import Mix, attend
from heed.model.config import ModelConfig

# Up to so many keys, a mask over all pairs costs less than cutting out what each chunk sees: 30 against 42 ms, forward and backward, at
# 16 rows of 200 keys, but 49 against 40 ms at 8 rows of 400 (4 heads, chunks of 16, 4 before each).
PAIRS_UP_TO = 256
PSEUDO_INVERSE_STEPS = 6  # of Xiong et al.; more steps would invert what is nearly singular, and blow up its noise


def build_mix(config: ModelConfig) -> Mix | None:
    """Return how the tokens of an encoder look at each other; None for attention over all pairs."""
    if config.attention == "windowed":
        return lambda q, k, v, mask, scale: windowed(q, k, v, mask, scale, window=config.window)
    if config.attention == "chunked":
        return lambda q, k, v, mask, scale: chunked(q, k, v, mask, scale, chunk=config.chunk, left_chunks=config.left_chunks)
    if config.attention == "low_rank":
        return lambda q, k, v, mask, scale: low_rank(q, k, v, mask, scale, n_landmarks=config.landmarks)
    return None


def windowed(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, *, window: int) -> Tensor:
    """Let every query look at the keys no more than `window` places away (Beltagy et al. 2020, section 3.1).

    Blocks of `window` queries look at their own keys, those of the block before and of the block behind, less what is too far.

    Args:
        q: (B, H, T, E); k and v: (B, H', T, E), as for `attend`.
        mask: (B, 1, 1, T), True = real.
    Returns:
        (B, H, T, E).
    """
    B, _, T, _ = q.shape
    window = min(window, T)
    n_blocks = -(-T // window)
    behind = n_blocks * window - T
    real = q.new_ones(B, 1, 1, T, dtype=torch.bool) if mask is None else mask
    keys, values = (_beside(F.pad(x, (0, 0, window, behind + window)), window, 3) for x in (k, v))  # (B n, H, 3w, E)
    queries = _beside(F.pad(q, (0, 0, 0, behind)), window, 1)  # (B n, H, w, E)
    known = F.pad(real[:, 0, 0], (window, behind + window)).unfold(1, 3 * window, window)  # (B, n, 3w)
    place = torch.arange(3 * window, device=q.device) - window
    near = (place - torch.arange(window, device=q.device)[:, None]).abs() <= window  # (w, 3w)
    allowed = (known[:, :, None, None] & near).flatten(0, 1)  # (B n, 1, w, 3w)
    return _in_a_row(attend(queries, keys, values, allowed, scale=scale), B)[:, :, :T]


def _beside(x: Tensor, size: int, n_seen: int) -> Tensor:
    """Lay the blocks of `size` places that stand behind one another beside each other: (B, H, (n + s - 1) w, E) -> (B n, H, s w, E).

    Joined slices: with those of `unfold`, the gradient of 3 rows of 300 places takes 3.7 ms instead of 2.4, attention included.
    """
    blocks = torch.unflatten(x.transpose(1, 2), 1, (-1, size))  # (B, n + s - 1, w, H, E)
    n_blocks = blocks.size(1) - n_seen + 1
    seen = blocks if n_seen == 1 else torch.cat([blocks[:, i : i + n_blocks] for i in range(n_seen)], dim=2)
    return seen.flatten(0, 1).transpose(1, 2)


def _in_a_row(x: Tensor, n_rows: int) -> Tensor:
    """Lay blocks (B n, H, w, E) behind one another: (B, H, n w, E)."""
    return torch.unflatten(x.transpose(1, 2), 0, (n_rows, -1)).flatten(1, 2).transpose(1, 2)


def chunked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, *, chunk: int, left_chunks: int) -> Tensor:
    """Let every query look at all keys of its own chunk and of the `left_chunks` chunks before it (Zhang et al. 2020).

    What a chunk sees has come when its last place has, so that a stream can be answered chunk by chunk.
    Source: https://arxiv.org/abs/2012.05481, with a limited left context as in https://arxiv.org/abs/2010.10759.

    Args:
        q: (B, H, T, E), the last T of S places; the S - T before them are whole chunks.
        k and v: (B, H', S, E), as for `attend`.
        mask: (B, 1, 1, S), True = real.
    Returns:
        (B, H, T, E).
    """
    T, S = q.size(2), k.size(2)
    if S > PAIRS_UP_TO:
        return _chunk_by_chunk(q, k, v, mask, scale, chunk=chunk, left_chunks=left_chunks)
    number = torch.arange(S, device=q.device) // chunk
    back = number[S - T :, None] - number  # (T, S), chunks from the key's to the query's
    seen = (back >= 0) & (back <= left_chunks)
    return attend(q, k, v, seen if mask is None else mask & seen, scale=scale)


def _chunk_by_chunk(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, *, chunk: int, left_chunks: int) -> Tensor:
    """Do what `chunked` does in time and memory linear in the length."""
    (B, _, T, _), S = q.shape, k.size(2)
    n_chunks = -(-T // chunk)
    n_before = min(left_chunks, n_chunks - 1 + (S - T) // chunk)
    width = (n_before + 1) * chunk  # W, keys that a chunk sees
    front, behind = n_before * chunk - (S - T), n_chunks * chunk - T  # padding; a negative one leaves out what no query sees
    real = q.new_ones(B, 1, 1, S, dtype=torch.bool) if mask is None else mask
    known = F.pad(real[:, 0, 0], (front, behind)).unfold(1, width, chunk)  # (B, n, W)
    keys, values = (_beside(F.pad(x, (0, 0, front, behind)), chunk, n_before + 1) for x in (k, v))  # (B n, H, W, E)
    queries = _beside(F.pad(q, (0, 0, 0, behind)), chunk, 1)  # (B n, H, c, E)
    mixed = attend(queries, keys, values, known.flatten(0, 1)[:, None, None], scale=scale)
    return _in_a_row(mixed, B)[:, :, :T]


def low_rank(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, *, n_landmarks: int) -> Tensor:
    """Mix the values with a matrix of weights of rank `n_landmarks` (the Nyström method; Xiong et al. 2021, eq. 13).

    Queries and keys are averaged over as many runs of neighbouring tokens; with a run for each token, it is attention itself.

    Args:
        q: (B, H, T, E); k and v: (B, H', T, E).
        mask: (B, 1, 1, T), True = real.
    Returns:
        (B, H, T, E).
    """
    if k.size(1) != q.size(1):
        k, v = (x.repeat_interleave(q.size(1) // x.size(1), dim=1) for x in (k, v))
    real = q.new_ones(q.size(0), q.size(2), dtype=torch.bool) if mask is None else mask[:, 0, 0]
    runs = _runs(real, min(n_landmarks, q.size(2))).to(q.dtype)  # (B, M, T)
    used = runs.any(-1)[:, None, None]  # (B, 1, 1, M)
    middle_q, middle_k = runs[:, None] @ q, runs[:, None] @ k  # (B, H, M, E)
    towards = _weights(q, middle_k, used, scale)  # (B, H, T, M)
    between = _weights(middle_q, middle_k, used, scale) * used.transpose(-1, -2)  # (B, H, M, M)
    back = _weights(middle_q, k, real[:, None, None], scale)  # (B, H, M, T)
    with torch.autocast(q.device.type, enabled=False):
        return ((towards @ pseudo_inverse(between)) @ (back @ v.float())).to(q.dtype)


def _runs(real: Tensor, n_landmarks: int) -> Tensor:
    """Return the matrix (B, M, T) that averages each row's real tokens (B, T) over runs of like length; spare rows are zero."""
    n_real = real.sum(-1, keepdim=True)
    n_runs = n_real.clamp(min=1, max=n_landmarks)
    run = (real.cumsum(-1) - 1) * n_runs // n_real.clamp(min=1)  # (B, T)
    member = (run[:, None] == torch.arange(n_landmarks, device=real.device)[:, None]) & real[:, None]
    return member.float() / member.sum(-1, keepdim=True).clamp(min=1)


def _weights(q: Tensor, k: Tensor, used: Tensor, scale: float) -> Tensor:
    """Return softmax weights over the used keys in float32, (B, H, T, S)."""
    scores = (q @ k.transpose(-1, -2)).float() * scale
    weights = scores.masked_fill(~used, torch.finfo(torch.float32).min).softmax(-1)
    return weights * used


def pseudo_inverse(matrix: Tensor, steps: int = PSEUDO_INVERSE_STEPS) -> Tensor:
    """Return the Moore-Penrose inverse of matrices (..., M, M) by iterated products (Razavi et al. 2014; Xiong et al. 2021, eq. 11)."""
    identity = torch.eye(matrix.size(-1), dtype=matrix.dtype, device=matrix.device)
    size = matrix.abs().sum(-2).amax(-1) * matrix.abs().sum(-1).amax(-1)
    inverse = matrix.transpose(-1, -2) / size.clamp(min=torch.finfo(matrix.dtype).tiny)[..., None, None]
    for _ in range(steps):
        product = matrix @ inverse
        inverse = 0.25 * inverse @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product)))
    return inverse
