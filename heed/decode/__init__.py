"""From a model's scores to sequences of ids: greedy, beam and sampling. Never sees a tokenizer."""

from heed.decode.generate import generate
from heed.decode.search import Hypothesis

__all__ = ["Hypothesis", "generate"]
