"""Texts as numbers beside their tokens, so that an answer quotes exactly the characters of the text it was found in.

A tokenizer may lower-case, fold white space or cut characters into bytes, so a part of a text is not written from its ids. Instead the code
points of the text go with them, several to a row: a text then has fewer rows than tokens, and does not count as the longest side of an
example.
"""

import numpy as np
import torch
from torch import Tensor

ROW = 16  # code points in a row; few tokens stand for more characters
NONE = -1  # behind the last one


def as_code_points(text: str) -> Tensor:
    """Return the code points of a text, (L, ROW), filled up with NONE; there is one row at least."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.int32).astype(np.int64)
    filled = np.full(max(1, -(-len(points) // ROW)) * ROW, NONE, dtype=np.int64)
    filled[: len(points)] = points
    return torch.from_numpy(filled).view(-1, ROW)


def excerpt(points: Tensor, start: int, end: int) -> str:
    """Return the characters from `start` to `end` of the text whose code points (L, ROW) are given."""
    return "".join(map(chr, points.flatten()[start:end].tolist()))
