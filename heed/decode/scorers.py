"""What may be added to the score of a label sequence while it is searched for: language models and hot words (shallow fusion).

A scorer knows ids only, and gives each label a natural log score after the labels before it (Gulcehre et al. 2015; Kannan et al. 2018).
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from heed.decode.filters import log_probabilities
from heed.decode.generate import Decoder
from heed.errors import ConfigError
from heed.model.cache import BranchingCache, DecoderState, LayerCache

BEGIN_WORD, END_WORD, UNKNOWN_WORD = "<s>", "</s>", "<unk>"  # as ARPA files have them
SPACES = (" ", "▁", "<space>", "|")  # how n-gram models of characters write a space
UNKNOWN_LOG_P = math.log(1e-7)  # of a label or word that a language model does not know and has no <unk> for
CONTEXT = 256  # labels before the next one that a model reads
REMEMBERED_ROWS = 128  # beginnings whose keys and values a model scorer keeps; about 1 MB each for three layers of 256 and 100 labels

Array = np.ndarray[Any, Any]
State = Any  # what a scorer remembers of a beginning: immutable, and looked into by none but the scorer that made it


class Scorer(Protocol):
    """What gives labels a score; the end, too."""

    @property
    def highest(self) -> float:
        """A bound on what `advance` returns: 0 where scores are log probabilities."""

    def start(self) -> State:
        """Return the state of the empty sequence."""

    def advance(self, state: State, token: int) -> tuple[float, State]:
        """Score a label after those before it, and return the state behind it."""

    def end(self, state: State) -> float:
        """Score that nothing follows."""

    def prefetch(self, states: Sequence[State]) -> None:
        """Hear which states are going to be asked for, so that their scores can be computed together."""


class WeightedScorer(NamedTuple):
    """A scorer, and the factor on its scores; 0 or more."""

    scorer: Scorer
    weight: float


class NgramModel(Protocol):
    """What the n-gram scorers ask of a model."""

    @property
    def order(self) -> int:
        """Words of its longest n-grams."""

    @property
    def vocabulary(self) -> Collection[str]:
        """The words it knows."""

    def log_p(self, context: Sequence[str], word: str) -> float:
        """Return the natural log of a word's probability after a context."""


class _Chain:
    """The words before the next one, as far back as an n-gram model looks."""

    def __init__(self, model: NgramModel, unknown: float) -> None:
        self.model, self.unknown = model, unknown
        self.start = self.after((), BEGIN_WORD)

    def log_p(self, context: tuple[str, ...], word: str) -> float:
        """Return log p of a word, which is that of <unk> for unknown ones, or `unknown` where the model has no <unk>."""
        known = word in self.model.vocabulary or UNKNOWN_WORD in self.model.vocabulary
        return self.model.log_p(context, word) if known else self.unknown

    def after(self, context: tuple[str, ...], word: str) -> tuple[str, ...]:
        """Return the context of the word that comes next."""
        longer = (*context, word)
        return longer[max(0, len(longer) - self.model.order + 1) :]


class TokenNgrams:
    """Scores labels by an n-gram model whose words are the labels themselves: characters or sub-words.

    Args:
        model: as `heed.data.ngrams.Ngrams`.
        pieces: the text of every id; None for those without text, which cost nothing. Here as in the model a space, alone or before a
            sub-word, may be written as any of SPACES ("|" in the model only).
        unknown: log p of a label that the model does not know, if it has no <unk>.
    """

    highest = 0.0

    def __init__(self, model: NgramModel, pieces: Sequence[str | None], *, unknown: float = UNKNOWN_LOG_P) -> None:
        self._chain = _Chain(model, unknown)
        self._words = [None if piece is None else _spelling(piece, model.vocabulary) for piece in pieces]

    def start(self) -> State:
        """Return the state of the empty sequence."""
        return self._chain.start

    def advance(self, state: State, token: int) -> tuple[float, State]:
        """Score a label after those before it."""
        word = self._words[token]
        return (0.0, state) if word is None else (self._chain.log_p(state, word), self._chain.after(state, word))

    def end(self, state: State) -> float:
        """Score that nothing follows."""
        return self._chain.log_p(state, END_WORD)

    def prefetch(self, states: Sequence[State]) -> None:
        """Do nothing: n-grams need no preparation."""


def _spelling(piece: str, vocabulary: Collection[str]) -> str:
    """Return how a model writes a piece that may hold spaces; the piece itself where it does not know it."""
    plain = _plain(piece)
    spellings = (plain.replace(" ", space) for space in SPACES)
    return next((spelling for spelling in (piece, *spellings) if spelling in vocabulary), piece)


def _plain(piece: str) -> str:
    """Return a piece with its spaces as such."""
    return " " if piece == "<space>" else piece.replace("▁", " ")


class _Spelled(NamedTuple):
    """What a scorer of characters remembers of those that are whole, and the units of the one that is not."""

    state: State
    units: tuple[int, ...]


class SpelledScorer:
    """Scores units by a scorer of the characters that they spell, each when it is complete: at its end, at a space, or at the end of all.

    Args:
        inner: of characters; ids count in `characters`.
        characters: the units of each character.
        space: the character that is a space.
        end_unit, space_unit: the units that end a character: with nothing, and with a space behind it.
        silent: units that stand for no text; they cost nothing.
        unknown: log p of units that spell no character.
    """

    def __init__(
        self,
        inner: Scorer,
        characters: Sequence[Sequence[int]],
        *,
        space: int,
        end_unit: int,
        space_unit: int,
        silent: Collection[int] = (),
        unknown: float = UNKNOWN_LOG_P,
    ) -> None:
        self.inner, self.silent, self._unknown = inner, frozenset(silent), unknown
        self._characters = {tuple(units): index for index, units in enumerate(characters) if units}
        self._space, self._end_unit, self._space_unit = space, end_unit, space_unit

    @property
    def highest(self) -> float:
        """What one unit can gain: a character and a space behind it."""
        return 2 * self.inner.highest

    def start(self) -> State:
        """Return the state of the empty sequence."""
        return _Spelled(self.inner.start(), ())

    def advance(self, state: State, token: int) -> tuple[float, State]:
        """Score the character that a unit completes, which is none inside of one."""
        if token in self.silent:
            return 0.0, state
        if token not in (self._end_unit, self._space_unit):
            return 0.0, _Spelled(state.state, (*state.units, token))
        score, inner = self._whole(state)
        if token == self._space_unit:
            more, inner = self.inner.advance(inner, self._space)
            score += more
        return score, _Spelled(inner, ())

    def end(self, state: State) -> float:
        """Score the last character, and that nothing follows."""
        score, inner = self._whole(state)
        return score + self.inner.end(inner)

    def prefetch(self, states: Sequence[State]) -> None:
        """Tell the scorer of characters."""
        self.inner.prefetch([state.state for state in states])

    def _whole(self, state: _Spelled) -> tuple[float, State]:
        """Score the character that the units so far spell, if there are any."""
        if not state.units:
            return 0.0, state.state
        character = self._characters.get(state.units)
        return (self._unknown, state.state) if character is None else self.inner.advance(state.state, character)


class _Text(NamedTuple):
    """Whole words, and the beginning of one."""

    context: tuple[str, ...]
    word: str


class WordNgrams:
    """Scores words by an n-gram model, each when it is complete: when the next one begins, or at the end.

    Args:
        model: as `heed.data.ngrams.Ngrams`.
        pieces: the text of every id, in which a space begins a word, also written as "▁" or "<space>"; None for those without text, which
            cost nothing.
        unknown: log p of a word that the model does not know, if it has no <unk>.
    """

    highest = 0.0

    def __init__(self, model: NgramModel, pieces: Sequence[str | None], *, unknown: float = UNKNOWN_LOG_P) -> None:
        self._chain = _Chain(model, unknown)
        self._pieces = ["" if piece is None else _plain(piece) for piece in pieces]

    def start(self) -> State:
        """Return the state of the empty sequence."""
        return _Text(self._chain.start, "")

    def advance(self, state: State, token: int) -> tuple[float, State]:
        """Score the words that a label completes, which are none inside a word."""
        *complete, word = (state.word + self._pieces[token]).split(" ")
        score, context = 0.0, state.context
        for one in filter(None, complete):
            score += self._chain.log_p(context, one)
            context = self._chain.after(context, one)
        return score, _Text(context, word)

    def end(self, state: State) -> float:
        """Score the last word, and that nothing follows."""
        if not state.word:
            return self._chain.log_p(state.context, END_WORD)
        last = self._chain.log_p(state.context, state.word)
        return last + self._chain.log_p(self._chain.after(state.context, state.word), END_WORD)

    def prefetch(self, states: Sequence[State]) -> None:
        """Do nothing: n-grams need no preparation."""


@dataclass(eq=False)
class _Read:
    """Beginnings of equal length that a model has read together."""

    state: DecoderState
    log_p: Array  # (R, V) of the next label
    rows: dict[tuple[int, ...], int]


class ModelScorer:
    """Scores labels by a decoder-only model, which reads each beginning once, and those that are new together.

    What it remembers of them is bounded; what was forgotten is read again. Not to be shared between threads.

    Args:
        model: anything with `start` and `step`, whose caches are not those of an int8 model.
        to_model: the model's id for each of ours; None for labels that it does not know, which cost `unknown` and are not read.
        begin, end: the model's ids around a text.
        unknown: log p of a label that the model does not know.
        silent: our ids that stand for no text, such as languages; they cost nothing and are not read.
        context: labels the model reads at most; of a longer beginning it reads the latter half of them.
    """

    highest = 0.0

    def __init__(
        self,
        model: Decoder[None],
        to_model: Sequence[int | None],
        *,
        begin: int,
        end: int,
        unknown: float = UNKNOWN_LOG_P,
        silent: Collection[int] = (),
        context: int = CONTEXT,
    ) -> None:
        assert context >= 4, context
        self.model, self.to_model, self.silent = model, to_model, frozenset(silent)
        self._begin, self._end, self._unknown, self._context = begin, end, unknown, context
        parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        self._device = torch.device("cpu") if parameter is None else parameter.device
        self._reads: OrderedDict[_Read, None] = OrderedDict()  # the latest used last
        self._where: dict[tuple[int, ...], _Read] = {}

    def start(self) -> State:
        """Return the state of the empty sequence: the model's ids so far."""
        return (self._begin,)

    def advance(self, state: State, token: int) -> tuple[float, State]:
        """Score a label after those before it."""
        theirs = self.to_model[token]
        if token in self.silent or theirs is None:
            return 0.0 if token in self.silent else self._unknown, state
        kept = state if len(state) < self._context else (self._begin, *state[-(self._context // 2) :])
        return self._log_p(state, theirs), (*kept, theirs)

    def end(self, state: State) -> float:
        """Score that nothing follows."""
        return self._log_p(state, self._end)

    @torch.inference_mode()
    def prefetch(self, states: Sequence[State]) -> None:
        """Read those beginnings that are new: one step for those whose own beginnings were read together."""
        groups: dict[tuple[_Read | None, int], list[tuple[int, ...]]] = {}
        for state in dict.fromkeys(states):
            if state in self._where:
                self._reads.move_to_end(self._where[state])
            else:
                groups.setdefault((self._where.get(state[:-1]), len(state)), []).append(state)
        for (before, _), beginnings in groups.items():
            self._remember(self._read(before, beginnings))

    def _log_p(self, state: tuple[int, ...], token: int) -> float:
        if state not in self._where:
            self.prefetch([state])
        read = self._where[state]
        return float(read.log_p[read.rows[state], token])

    def _read(self, before: _Read | None, beginnings: list[tuple[int, ...]]) -> _Read:
        """Read beginnings of equal length, each a label longer than one of those read before."""
        ids = torch.tensor(beginnings, device=self._device)
        if before is None:
            state = self.model.start(None, None, ids)
        else:
            state = _branched(before.state, torch.tensor([before.rows[one[:-1]] for one in beginnings], device=self._device))
        log_p = log_probabilities(self.model.step(ids[:, -1], state)).cpu().numpy()
        return _Read(state, log_p, {one: row for row, one in enumerate(beginnings)})

    def _remember(self, read: _Read) -> None:
        self._reads[read] = None
        self._where.update(dict.fromkeys(read.rows, read))
        n_rows = sum(len(one.rows) for one in self._reads)
        while n_rows > REMEMBERED_ROWS and len(self._reads) > 1:
            oldest, _ = self._reads.popitem(last=False)
            n_rows -= len(oldest.rows)
            for beginning in oldest.rows:
                del self._where[beginning]


def _branched(state: DecoderState, rows: Tensor) -> DecoderState:
    """Return a state that continues some rows (R',) of one that stays as it is."""
    # Selecting from a plain cache makes new tensors; a branching one goes on writing into those of the old state.
    assert not any(isinstance(layer.past, BranchingCache) for layer in state.layers), "language models are read in float32 or bfloat16"
    branch = copy.copy(state)
    branch.layers = [LayerCache(copy.copy(layer.past), layer.source) for layer in state.layers]
    branch.select(rows)
    return branch


class _Match(NamedTuple):
    """The longest beginning of a phrase that the labels end with."""

    window: tuple[int, ...] = ()
    covered: tuple[bool, ...] = ()  # which of its labels belong to a whole phrase
    opening: bool = True  # whether a word may begin with the next label


class HotWords:
    """Raises the score of given phrases: by `boost` for each label of a phrase, however many phrases it belongs to.

    A label has its boost as soon as it goes on with the beginning of a phrase, so that a search can follow it, and loses it when the
    phrase does not become whole: in the end, only whole phrases have kept theirs. A phrase begins where a word does; it may end inside
    one, so that endings do no harm.

    Args:
        phrases: each as its ids.
        boost: natural log, 0 or more.
        starts: of every id, whether it begins a word, is the space before one, or stands for no text.
    Raises:
        ConfigError: a phrase is empty.
    """

    def __init__(self, phrases: Sequence[Sequence[int]], boost: float, starts: Sequence[bool]) -> None:
        assert boost >= 0, boost
        empty = next((place for place, phrase in enumerate(phrases) if not phrase), None)
        if empty is not None:
            raise ConfigError(f"hot word {empty + 1} of {len(phrases)} holds no label; write a word or leave it out")
        self.boost, self.starts = boost, starts
        self._whole = frozenset(map(tuple, phrases))
        self._beginnings = frozenset(phrase[:n] for phrase in self._whole for n in range(1, len(phrase) + 1))

    @property
    def highest(self) -> float:
        """What one label can gain."""
        return self.boost

    def start(self) -> State:
        """Return the state of the empty sequence."""
        return _Match()

    def advance(self, state: State, token: int) -> tuple[float, State]:
        """Score a label: the boost of one more that matches, less those of labels whose match has failed."""
        labels, covered = (*state.window, token), (*state.covered, False)
        first = next((i for i in range(len(labels)) if self._opens(state, labels, i) and labels[i:] in self._beginnings), len(labels))
        whole = next((i for i in range(first, len(labels)) if self._opens(state, labels, i) and labels[i:] in self._whole), len(labels))
        covered = (*covered[:whole], *[True] * (len(labels) - whole))
        n_boosted = sum(covered[:first]) + len(labels) - first
        return self.boost * (n_boosted - len(state.window)), _Match(labels[first:], covered[first:], self.starts[token])

    def end(self, state: State) -> float:
        """Take the boost back from a phrase that is not whole."""
        return -self.boost * float(state.covered.count(False))

    def prefetch(self, states: Sequence[State]) -> None:
        """Do nothing: phrases need no preparation."""

    def _opens(self, state: _Match, labels: tuple[int, ...], i: int) -> bool:
        """Return whether a word begins at a place of the labels, the window and one more."""
        if i == 0 and state.window:
            return True  # the window began where a word did
        return self.starts[labels[i]] or (state.opening if i == 0 else self.starts[labels[i - 1]])
