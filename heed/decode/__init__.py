"""From a model's scores to sequences of ids: greedy, beam and sampling, and those of CTC. Never sees a tokenizer."""

from heed.decode.ctc import CTCHypothesis, PrefixBeam
from heed.decode.generate import Watcher, generate, stream
from heed.decode.search import Hypothesis
from heed.decode.windowed import Windowed

__all__ = ["CTCHypothesis", "Hypothesis", "PrefixBeam", "Watcher", "Windowed", "generate", "stream"]
