"""Intervals, paired differences, tests and reliability: plain arrays in, plain numbers out."""

from personalign.statistics.association import calibration_error, pearson, spearman
from personalign.statistics.measures import cronbach_alpha, distinct_n
from personalign.statistics.proportions import holm, mcnemar, wilson
from personalign.statistics.resampling import (
    Interval,
    bootstrap,
    bootstrap_distribution,
    crossed_bootstrap,
    crossed_distribution,
    paired_difference,
)

__all__ = [
    "Interval",
    "bootstrap",
    "bootstrap_distribution",
    "calibration_error",
    "cronbach_alpha",
    "crossed_bootstrap",
    "crossed_distribution",
    "distinct_n",
    "holm",
    "mcnemar",
    "paired_difference",
    "pearson",
    "spearman",
    "wilson",
]
