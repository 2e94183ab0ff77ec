"""Evaluation: exact-span scores, intervals, paired tests and an analysis of errors."""

from xdner.evaluation.analysis import Analysis, Case, Confusion, ErrorCounts, SentenceErrors, analyze
from xdner.evaluation.match import SchemeCounts, Score
from xdner.evaluation.report import RULE, Averages, Report, evaluate
from xdner.evaluation.significance import (
    Interval,
    PairedBootstrap,
    SeedSummary,
    bootstrap_interval,
    paired_bootstrap,
    paired_bootstrap_counts,
    paired_bootstrap_seeds,
    seed_summary,
)

__all__ = [
    "RULE",
    "Analysis",
    "Averages",
    "Case",
    "Confusion",
    "ErrorCounts",
    "Interval",
    "PairedBootstrap",
    "Report",
    "SchemeCounts",
    "Score",
    "SeedSummary",
    "SentenceErrors",
    "analyze",
    "bootstrap_interval",
    "evaluate",
    "paired_bootstrap",
    "paired_bootstrap_counts",
    "paired_bootstrap_seeds",
    "seed_summary",
]
