"""Writing on beyond the context a model was trained with, and never with more of it than that."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heed.decode.generate import Decoder
from heed.model.cache import DecoderState


@dataclass
class WindowedState(DecoderState):
    """What a decoder remembers, and which tokens that is about."""

    ids: Tensor | None = None  # (R, T), all tokens read since the beginning

    def select(self, rows: Tensor) -> None:
        """Continue with the given old rows (R',)."""
        super().select(rows)
        self.ids = None if self.ids is None else self.ids[rows]

    def expand(self, group: int) -> None:
        """Repeat every row `group` times, side by side."""
        super().expand(group)
        self.ids = None if self.ids is None else self.ids.repeat_interleave(group, dim=0)


class Windowed:
    """A decoder-only model that, whenever its context is full, forgets the first half of it and reads the other half again.

    All rows have prefixes of one length, so that they forget at the same step, whichever rows stand beside them.
    """

    def __init__(self, model: Decoder[None], context: int) -> None:
        """Wrap a model trained with `context` tokens at a time."""
        self.model, self.context = model, context
        self.kept = max(1, context // 2)

    def start(self, inputs: None, mask: Tensor | None, prefix: Tensor) -> WindowedState:
        """Read all of the prefix (B, P), 1 <= P <= context, but its last token."""
        assert mask is None, "rows of unequal length would forget at different steps"
        assert prefix.size(1) <= self.context, "what is beyond the context is cut by whoever knows what to say about it"
        state = self.model.start(None, None, prefix)
        return WindowedState(state.layers, length=state.length, ids=prefix[:, :-1])

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Add one token per row (R,) and score the next: (R, V)."""
        assert isinstance(state, WindowedState)
        assert state.ids is not None
        state.ids = torch.cat([state.ids, tokens[:, None]], dim=1)
        if state.length == self.context:
            fresh = self.model.start(None, None, state.ids[:, -self.kept :])
            state.layers, state.length = fresh.layers, fresh.length
        return self.model.step(tokens, state)
