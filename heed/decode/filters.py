"""What may change a model's scores before a token is chosen. Each filter maps logits (R, V) to logits (R, V)."""

import torch
from torch import Tensor

NEVER = float("-inf")


def forbid(logits: Tensor, ids: list[int]) -> Tensor:
    """Make some tokens impossible."""
    logits = logits.clone()
    logits[:, ids] = NEVER
    return logits


def allow_only(logits: Tensor, token: int) -> Tensor:
    """Make every other token impossible; the token keeps its score."""
    only = torch.full_like(logits, NEVER)
    only[:, token] = logits[:, token]
    return only


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Sharpen (below 1) or flatten (above 1) the distribution."""
    return logits / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens of each row (Fan et al. 2018); ties with the k-th stay."""
    if k <= 0 or k >= logits.size(-1):
        return logits
    lowest = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < lowest, NEVER)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens that holds probability p (Holtzman et al. 2020); at least one token."""
    if p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # held by the tokens likelier than this one
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, NEVER)
