"""Metrics: pure functions over sacreBLEU and numpy, with intervals and paired tests; they never see a model."""

from heed.metrics.calibration import expected_calibration_error, fit_temperature, fit_threshold, rescaled
from heed.metrics.classification import ClassificationMetrics, ClassificationScores, ClassScore
from heed.metrics.intervals import Comparison, Score, ScoreFunction, bootstrap, interval, paired_bootstrap, resampled_sums
from heed.metrics.translation import SCORE_FUNCTIONS, Bucket, TranslationMetrics, TranslationScores, detect_language

LESS_IS_BETTER = frozenset(
    {
        *("loss", "perplexity", "log_loss", "nll", "brier", "bits_per_byte", "bits_per_character"),
        *("ter", "wer", "cer", "calibration_error", "calibration_error_before", "hamming_loss"),
    }
)

__all__ = [
    "LESS_IS_BETTER",
    "SCORE_FUNCTIONS",
    "Bucket",
    "ClassScore",
    "ClassificationMetrics",
    "ClassificationScores",
    "Comparison",
    "Score",
    "ScoreFunction",
    "TranslationMetrics",
    "TranslationScores",
    "bootstrap",
    "detect_language",
    "expected_calibration_error",
    "fit_temperature",
    "fit_threshold",
    "interval",
    "paired_bootstrap",
    "resampled_sums",
    "rescaled",
]
