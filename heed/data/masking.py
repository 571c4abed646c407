"""Hiding tokens of a text, which a model then foretells from what stands on both sides (Devlin et al. 2019, section 3.1).

Of the tokens that are chosen most are replaced by one that stands for a hidden token, some by a random one and some by nothing, so that a
model may not trust any token blindly. Left out: stretches of tokens (SpanBERT), which `heed.data.spans` has for models with a decoder.
"""

from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np

Ids = np.ndarray[Any, np.dtype[np.int64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

HIDDEN, REPLACED = 0.8, 0.1  # of the chosen tokens: replaced by the mask, and by a random token; the rest stays
NOTHING = 0  # what stands for the truth where no token was chosen: the id of padding, which is never chosen
FIXED_SEED = 0  # of masks that are the same for every run


class Masking:
    """Chooses tokens of texts and hides them.

    Args:
        mask: the id that stands for a hidden token.
        ordinary: (n,), ids that may be chosen, and drawn in place of a chosen one; special tokens are not among them.
        share: of the tokens of a text that are chosen.
        starts: tells of the ids (S,) of a text which start a word, (S,); whole words are chosen then.
    """

    def __init__(self, mask: int, ordinary: Ids, *, share: float, starts: Callable[[Ids], Bools] | None = None) -> None:
        self.mask, self.ordinary, self.share, self.starts = mask, ordinary, share, starts
        self._is_ordinary: Bools = np.zeros(max(int(ordinary.max()), mask) + 1, dtype=np.bool_)
        self._is_ordinary[ordinary] = True

    def __call__(self, ids: Ids, draw: np.random.Generator) -> Ids:
        """Return what is read of a text (S,) and, at each token that was chosen, which it is: (S, 2), NOTHING for the others.

        Chosen are `share` of the tokens, rounded, but at least one; of whole words as many as fit into that number, but at least one word.
        """
        chosen = self._chosen(ids, draw)
        kinds = draw.random(len(chosen))
        drawn = self.ordinary[draw.integers(len(self.ordinary), size=len(chosen))]
        found = np.stack([ids, np.full_like(ids, NOTHING)], axis=1)
        found[chosen, 0] = np.where(kinds < HIDDEN, self.mask, np.where(kinds < HIDDEN + REPLACED, drawn, ids[chosen]))
        found[chosen, 1] = ids[chosen]
        return found

    def fixed(self, ids: Ids) -> Ids:
        """Do the same with draws that follow from the text alone, so that whatever run is scored, the same tokens are hidden."""
        return self(ids, np.random.default_rng([FIXED_SEED, crc32(np.ascontiguousarray(ids).tobytes())]))

    def _chosen(self, ids: Ids, draw: np.random.Generator) -> Ids:
        """Return the places of the tokens that are chosen."""
        places = np.flatnonzero(self._is_ordinary[ids])
        n = max(1, round(len(places) * self.share))
        if self.starts is None or not len(places):
            return draw.permutation(places)[:n]
        words = np.split(places, np.flatnonzero(np.diff(np.cumsum(self.starts(ids))[places])) + 1)
        return _that_fit([words[i] for i in draw.permutation(len(words))], n)


def _that_fit(words: list[Ids], n: int) -> Ids:
    """Return the places of words, in their order, that together are at most n; the first whole if none is so short."""
    chosen: list[Ids] = []
    for word in words:
        if len(word) <= n:
            chosen.append(word)
            n -= len(word)
    return np.concatenate(chosen or words[:1])
