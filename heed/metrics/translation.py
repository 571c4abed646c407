"""Scores for translations: BLEU, chrF and TER as sacreBLEU defines them, exact match, and how much of the vocabulary is right.

BLEU: Papineni et al. 2002; chrF: Popović 2015; TER: Snover et al. 2006; all through sacreBLEU (Post 2018) at its defaults, so that a value
can be quoted with its signature and compared with published ones. Two of these defaults surprise: BLEU is 0 where a whole corpus holds no
4-gram, even for a perfect answer (a set of two-token sentences), and TER takes a Chinese or Japanese sentence for a single word.

Only counts are kept, 33 numbers per sentence, never the texts: a test set may be larger than memory.

Left out: learned metrics (COMET and the like), several references per sentence, and tokenizers that download a model (spm, flores200).
"""

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp

from heed.errors import DataError, MissingExtra
from heed.metrics.intervals import Comparison, Floats, Score, ScoreFunction, bootstrap, interval, paired_bootstrap, resampled_sums
from heed.metrics.ratios import divide, f1_score, mean_score

Counts = npt.NDArray[np.int32]

CHRF_ORDERS = CHRF.CHAR_ORDER
CHRF_BETA_SQUARED = CHRF.BETA**2

# Where a sentence's counts stand in its row; each line's order is the one its score function reads.
COLUMNS: dict[str, list[int]] = {
    "bleu": list(range(10)),  # hypothesis length, reference length, matched 1- to 4-grams, hypothesis 1- to 4-grams
    "chrf": list(range(10, 28)),  # hypothesis, reference and matched n-grams, for n = 1 .. 6 characters
    "ter": [28, 29],  # edits, reference length
    "exact_match": [30, 31],  # 1 if equal, 1
    "overlap_precision": [2, 0],  # matched tokens, hypothesis tokens: BLEU's clipped unigrams
    "overlap_recall": [2, 1],  # matched tokens, reference tokens
    "overlap_f1": [2, 0, 1],  # matched, hypothesis and reference tokens
}
SOURCE_LENGTH = 32
N_COLUMNS = 33

BUCKETS = ("0", "1-5", "6-10", "11-20", "21-40", "41+")
BUCKET_ENDS = (0, 5, 10, 20, 40)  # the longest source of each bucket but the last

LANGUAGES = {"zh": "zh", "zho": "zh", "chi": "zh", "cmn": "zh", "yue": "zh", "ja": "ja", "jpn": "ja", "ko": "ko", "kor": "ko"}
TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "char"}

DETECT_ROWS = 200  # references the language is found out from
MIN_CJK = 0.5  # share of Han, Kana and Hangul characters among them and the words of other scripts
MIN_HANGUL = 0.5  # share of Hangul among these characters that makes a text Korean
MIN_KANA = 0.1  # share of Kana that makes it Japanese; running Japanese has about a half, Chinese next to none
CHUNK_ROWS = 256  # sentences whose n-grams are in memory at once

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HANGUL = "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3"
SCRIPT_UNITS = re.compile(f"(?P<han>[{HAN}])|(?P<kana>[{KANA}])|(?P<hangul>[{HANGUL}])|(?P<other>[^\\W\\d_{HAN}{KANA}{HANGUL}]+)")
LENGTH_UNITS = re.compile(f"[{HAN}{KANA}]|[^\\s{HAN}{KANA}]+")


class _Metrics(NamedTuple):
    """SacreBLEU's metrics, in the order of the columns."""

    bleu: BLEU
    chrf: CHRF
    ter: TER


@dataclass(frozen=True)
class Bucket:
    """BLEU over the `n` sentences whose source is `length` long (such as "6-10": words, each Han or Kana character counting as one)."""

    length: str
    n: int
    bleu: Score

    def to_json(self) -> dict[str, Any]:
        """Return the bucket as plain JSON."""
        return {"length": self.length, "n": self.n, "bleu": self.bleu.to_json()}


@dataclass(frozen=True)
class TranslationScores:
    """The scores of one system on one set of `n` sentences.

    `scores` has the keys of `SCORE_FUNCTIONS`: bleu, chrf and ter from 0 to 100 (ter may pass 100, and less is better), the others from
    0 to 1. `signatures` are sacreBLEU's, for bleu, chrf and ter. `buckets` are in order of length; empty ones are left out.
    """

    scores: Mapping[str, Score]
    signatures: Mapping[str, str]
    buckets: Sequence[Bucket]
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return every score by its name as {"value", "low", "high"}, and n, signatures and buckets, as plain JSON."""
        return {
            **{name: score.to_json() for name, score in self.scores.items()},
            "n": self.n,
            "signatures": dict(self.signatures),
            "buckets": [bucket.to_json() for bucket in self.buckets],
        }


class TranslationMetrics:
    """Gather translations batch by batch, keeping counts only; any split into batches gives the same scores.

    Args:
        language: code of the target language ("de", "zh-CN", "jpn", …). It picks BLEU's tokenizer: "zh" for Chinese, "ja-mecab" for
            Japanese, "char" for Korean (sacreBLEU's "ko-mecab" needs a package of its own, and a tokenizer that depends on what is
            installed would make scores incomparable), "13a" for all others. None finds the language out from the first 200 references,
            which are held until then, or until scores are first asked for.
        ter: whether TER is counted, which takes seconds for texts of hundreds of words; without it, it is 0.
    Raises:
        MissingExtra: the language is Japanese and MeCab is not installed.
    """

    def __init__(self, language: str | None = None, *, ter: bool = True) -> None:
        self._ter = ter
        self._metrics = None if language is None else _sacrebleu_metrics(language)
        self._waiting: list[tuple[str, str, str]] = []
        self._rows = array("i")

    def add(self, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Count a batch: one source, one hypothesis and one reference per sentence.

        Raises:
            DataError: the three do not have the same length.
            MissingExtra: the language was to be found out, is Japanese, and MeCab is not installed.
        """
        if not len(sources) == len(hypotheses) == len(references):
            found = f"{len(sources)} sources, {len(hypotheses)} hypotheses and {len(references)} references"
            raise DataError(f"translation metrics: {found}; give one of each per sentence")
        if self._metrics is None:
            self._waiting.extend(zip(sources, hypotheses, references, strict=True))
            if len(self._waiting) >= DETECT_ROWS:
                self._settle()
        else:
            self._count(self._metrics, sources, hypotheses, references)

    @property
    def statistics(self) -> dict[str, Counts]:
        """The counts behind every score, name -> (N, K): what `bootstrap` and `paired_bootstrap` take with `SCORE_FUNCTIONS[name]`."""
        table = self._table()
        return {name: table[:, columns] for name, columns in COLUMNS.items()}

    def scores(self, *, resamples: int = 1000, seed: int = 0) -> TranslationScores:
        """Score what was added, each score with its 95 % bootstrap interval.

        Raises:
            DataError: nothing was added.
        """
        table = self._table()
        if not len(table):
            raise DataError(
                "translation metrics: there are no sentences to score; expected at least one; check the data file and its filters"
            )
        sums = resampled_sums(table, resamples=resamples, seed=seed)
        scores = {name: interval(function(sums[:, COLUMNS[name]])) for name, function in SCORE_FUNCTIONS.items()}
        return TranslationScores(scores, self.signatures, _bucket_scores(table, resamples, seed), len(table))

    def compare(self, other: "TranslationMetrics", *, resamples: int = 1000, seed: int = 0) -> dict[str, Comparison]:
        """Test on the same sentences whether another system (b) differs from this one (a), score by score."""
        ours, theirs = self.statistics, other.statistics
        return {
            name: paired_bootstrap(ours[name], theirs[name], function, resamples=resamples, seed=seed)
            for name, function in SCORE_FUNCTIONS.items()
        }

    def qualities(self) -> Floats:
        """Return the chrF of every sentence (N,), by which a report finds the best and the worst."""
        return chrf_score(self.statistics["chrf"].astype(np.float64))

    def _table(self) -> Counts:
        """Return the counts so far, (N, N_COLUMNS)."""
        if self._waiting:
            self._settle()
        return np.array(self._rows, dtype=np.int32).reshape(-1, N_COLUMNS)

    def _settle(self) -> None:
        """Decide on the language and count what waited for it."""
        # Exactly the first rows, so that the size of the batches has no say.
        language = detect_language(reference for _, _, reference in self._waiting[:DETECT_ROWS])
        self._metrics = _sacrebleu_metrics(language)
        waiting, self._waiting = self._waiting, []
        sources, hypotheses, references = zip(*waiting, strict=True)
        self._count(self._metrics, sources, hypotheses, references)

    def _count(self, metrics: _Metrics, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Append one row of counts per sentence."""
        for start in range(0, len(sources), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            rows = _sentence_rows(metrics, sources[part], hypotheses[part], references[part], ter=self._ter)
            self._rows.frombytes(rows.tobytes())
        _forget_lines(metrics)

    @property
    def signatures(self) -> dict[str, str]:
        """sacreBLEU's signatures; only a metric that has counted something has one."""
        named = self._metrics._asdict() if self._metrics else {}
        return {name: str(metric.get_signature()) for name, metric in named.items() if self._ter or name != "ter"}


def detect_language(texts: Iterable[str]) -> str | None:
    """Tell Chinese ("zh"), Japanese ("ja") and Korean ("ko") from everything else (None) by the script of the texts.

    A Han, Kana or Hangul character weighs as much as a whole word of another script, so Chinese full of English terms is Chinese.
    """
    counts = {"han": 0, "kana": 0, "hangul": 0, "other": 0}
    for text in texts:
        for unit in SCRIPT_UNITS.finditer(text):
            counts[unit.lastgroup or "other"] += 1
    cjk = sum(counts.values()) - counts["other"]
    if not cjk or cjk < MIN_CJK * sum(counts.values()):
        return None
    if counts["hangul"] >= MIN_HANGUL * cjk:
        return "ko"
    return "ja" if counts["kana"] >= MIN_KANA * cjk else "zh"


def bleu_score(sums: Floats) -> Floats:
    """Compute corpus BLEU from 0 to 100 with sacreBLEU's exponential smoothing; (..., 10) -> (...)."""
    return np.where(sums[..., 6:].all(axis=-1), effective_bleu_score(sums), 0.0)


def effective_bleu_score(sums: Floats) -> Floats:
    """Compute corpus BLEU from 0 to 100 over those n-gram orders that the hypotheses have (effective order); (..., 10) -> (...)."""
    lengths, matched, total = sums[..., :2], sums[..., 2:6], sums[..., 6:]
    # The k-th n-gram order without a match counts as 1 / 2^k matches (Chen and Cherry 2014, method 3).
    smoothed = np.where(matched == 0, 0.5 ** np.cumsum(matched == 0, axis=-1), matched)
    log_precisions = np.where(total > 0, np.log(smoothed / np.maximum(total, 1)), 0.0)
    log_precision = log_precisions.sum(axis=-1) / np.maximum((total > 0).sum(axis=-1), 1)
    log_brevity = np.minimum(0.0, 1 - lengths[..., 1] / np.maximum(lengths[..., 0], 1))
    return np.where(matched.any(axis=-1), 100 * np.exp(log_brevity + log_precision), 0.0)


def chrf_score(sums: Floats) -> Floats:
    """Compute corpus chrF2 from 0 to 100: precision and recall averaged over the orders both sides have, then F; (..., 18) -> (...)."""
    hypothesis, reference, matched = np.moveaxis(sums.reshape(*sums.shape[:-1], CHRF_ORDERS, 3), -1, 0)
    counted = (hypothesis > 0) & (reference > 0)
    n_orders = np.maximum(counted.sum(axis=-1), 1)
    precision = np.where(counted, divide(matched, hypothesis, nothing=0.0), 0).sum(axis=-1) / n_orders
    recall = np.where(counted, divide(matched, reference, nothing=0.0), 0).sum(axis=-1) / n_orders
    return 100 * divide((1 + CHRF_BETA_SQUARED) * precision * recall, CHRF_BETA_SQUARED * precision + recall, nothing=0.0)


def ter_score(sums: Floats) -> Floats:
    """Compute corpus TER, 0 for perfect and 100 for one edit per reference word; edits against nothing are 100; (..., 2) -> (...)."""
    edits, length = sums[..., 0], sums[..., 1]
    return 100 * np.where(length > 0, divide(edits, length, nothing=0.0), edits > 0)


SCORE_FUNCTIONS: dict[str, ScoreFunction] = {
    "bleu": bleu_score,
    "chrf": chrf_score,
    "ter": ter_score,
    "exact_match": mean_score,
    "overlap_precision": mean_score,
    "overlap_recall": mean_score,
    "overlap_f1": f1_score,
}


def _bucket_scores(table: Counts, resamples: int, seed: int) -> list[Bucket]:
    """Score BLEU per length of the source."""
    place = np.searchsorted(BUCKET_ENDS, table[:, SOURCE_LENGTH])
    buckets = []
    for index in np.unique(place):
        rows = table[place == index][:, COLUMNS["bleu"]]
        buckets.append(Bucket(BUCKETS[index], len(rows), bootstrap(rows, bleu_score, resamples=resamples, seed=seed)))
    return buckets


def _sentence_rows(metrics: _Metrics, sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str], *, ter: bool) -> Counts:
    """Count a few sentences, (n, N_COLUMNS)."""
    counted = [_sentence_statistics(metric, hypotheses, references) for metric in metrics[: len(metrics) - (not ter)]]
    counted += [] if ter else [np.zeros((len(sources), len(COLUMNS["ter"])))]
    exact = [[hypothesis.strip() == reference.strip(), 1] for hypothesis, reference in zip(hypotheses, references, strict=True)]
    lengths = [[len(LENGTH_UNITS.findall(source))] for source in sources]
    return np.concatenate([*counted, np.array(exact), np.array(lengths)], axis=1).astype(np.int32)


def _sentence_statistics(metric: BLEU | CHRF | TER, hypotheses: Sequence[str], references: Sequence[str]) -> Floats:
    """Return sacreBLEU's sufficient statistics, one row per sentence."""
    # Private, but the only way to the counts; sacrebleu.significance builds on it too, and the tests compare the sums with corpus scores.
    return np.array(metric._extract_corpus_statistics(hypotheses, [references]), dtype=np.float64)


def _sacrebleu_metrics(language: str | None) -> _Metrics:
    """Make sacreBLEU's metrics with the tokenizer of the language; raises MissingExtra for Japanese without MeCab."""
    primary = re.split("[-_]", language.lower())[0] if language else ""
    tokenizer = TOKENIZERS.get(LANGUAGES.get(primary, ""), BLEU.TOKENIZER_DEFAULT)
    if tokenizer == "ja-mecab":
        _require_mecab()
    # `force` only silences a log line about text that looks tokenized; it changes no count.
    return _Metrics(BLEU(tokenize=tokenizer, force=True), CHRF(), TER())


def _require_mecab() -> None:
    """Raise MissingExtra unless the Japanese tokenizer and its dictionary can be imported."""
    for package, module in (("mecab-python3", "MeCab"), ("ipadic", "ipadic")):
        if find_spec(module) is None:
            raise MissingExtra(package, "japanese", "BLEU on Japanese text")


def _forget_lines(metrics: _Metrics) -> None:
    """Empty sacreBLEU's caches: each of its tokenizer classes holds the last 65 536 lines for as long as the process lives."""
    for kind in (type(metrics.bleu.tokenizer), type(metrics.ter.tokenizer), TokenizerRegexp):
        call = kind.__call__
        if hasattr(call, "cache_clear"):
            call.cache_clear()
