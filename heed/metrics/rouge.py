"""ROUGE, by how much of a reference summary an answer has (Lin 2004), through the package `rouge-score`, in any script.

F1 of words that both hold (rouge1), of pairs of words (rouge2) and of the longest common subsequence (rougeL); the score of a set is the
mean over its texts, from 0 to 1. Words are cut here, because the package's own tokenizer drops all but a to z and 0 to 9: letters and
digits of any script in lower case, each Chinese or Japanese character being a word. On English without accents both give the same words.

Left out: stemming and rougeLsum, which looks at each sentence by itself; scripts without spaces other than Chinese and Japanese, whose
clauses are taken for words.
"""

import re
import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from heed.errors import MissingExtra
from heed.metrics.translation import HAN, KANA

ROUGE = ("rouge1", "rouge2", "rougeL")
CHARACTERS = re.compile(f"[{HAN}{KANA}]")


def rouge_words(text: str) -> list[str]:
    """Cut a text into the words that ROUGE compares."""
    apart = CHARACTERS.sub(r" \g<0> ", text.lower())
    return "".join(char if _belongs_to_word(char) else " " for char in apart).split()


def _belongs_to_word(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char)[0] == "M"  # marks are vowels in Indic scripts, and accents elsewhere


class _Words:
    """What the package asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return rouge_words(text)


class Rouge:
    """Compares answers with references.

    Args:
        names: of ROUGE, which of them to compute.
    Raises:
        MissingExtra: rouge-score is not installed.
    """

    def __init__(self, names: Sequence[str]) -> None:
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError as error:
            raise MissingExtra("rouge-score", "summarization", "scoring summaries by ROUGE") from error
        self.names = list(names)
        self._scorer: Any = RougeScorer(self.names, tokenizer=_Words())

    def f1(self, hypothesis: str, reference: str) -> list[float]:
        """Return the F1 of one answer by each of the names."""
        found = self._scorer.score(reference, hypothesis)
        return [found[name].fmeasure for name in self.names]

    @property
    def signature(self) -> str:
        """How values come about, to be quoted with them."""
        package = f"rouge-score {version('rouge-score')}"
        return f"F1, mean over texts|words of any script in lower case, zh and ja by character|no stemming|{package}"
