"""How sure a score is: bootstrap over sentences, paired tests, and the spread over seeds.

Sentences are drawn with replacement, as many as there are (Efron; for paired comparisons Koehn 2004 and
Berg-Kirkpatrick et al. 2012). Micro-F1 depends on a sentence through its counts alone, so sentences with the same
counts are interchangeable: what is drawn is how often each *distinct* row of counts occurs, from one multinomial. That
is the same distribution, and 10,000 resamples of 3,000 sentences take a fraction of a second.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xdner.errors import DataError
from xdner.evaluation.match import sentence_counts
from xdner.text import Entity

__all__ = [
    "Interval",
    "PairedBootstrap",
    "SeedSummary",
    "bootstrap_interval",
    "interval_of_counts",
    "paired_bootstrap",
    "paired_bootstrap_counts",
    "paired_bootstrap_seeds",
    "seed_summary",
]

_TAILS = (0.025, 0.975)  # of a 95 % interval
_CELLS = 2_000_000  # of drawn multiplicities in memory at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % percentile interval, and how it was drawn.

    Attributes:
        low, high: its ends, always on either side of the point estimate (or equal to it).
        samples: how many resamples.
        seed: of the draw.
    """

    low: float
    high: float
    samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class PairedBootstrap:
    """The comparison of two systems on the same sentences.

    Attributes:
        a, b: micro-F1 of each.
        delta: ``a - b``; above zero, the first system is better.
        interval: 95 % interval of ``delta``.
        p_value: two-sided, of the hypothesis that the systems are equally good: the share of resamples whose delta,
            shifted to mean no difference, is at least as far from zero as the one observed; in (0, 1].
        sentences: how many were drawn from.
        seeds_a, seeds_b: how many runs each system's counts were averaged over.
    """

    a: float
    b: float
    delta: float
    interval: Interval
    p_value: float
    sentences: int
    seeds_a: int = 1
    seeds_b: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SeedSummary:
    """Several runs that differ in their seeds alone.

    Attributes:
        mean: of the values.
        standard_deviation: of the sample (n - 1 in the denominator); ``None`` with one value.
        interval: 95 % interval of the mean by Student's t with n - 1 degrees of freedom; ``None`` with one value.
        values: as they were given.
    """

    mean: float
    standard_deviation: float | None
    interval: tuple[float, float] | None
    values: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def bootstrap_interval(
    gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]], *, samples: int = 1000, seed: int = 0
) -> Interval:
    """The 95 % interval of exact-span micro-F1 over resampled sentences.

    Raises:
        DataError: fewer than one sample, or what :func:`~xdner.evaluation.match.align` refuses.
    """
    return interval_of_counts(sentence_counts(gold, predicted), samples=samples, seed=seed)


def interval_of_counts(counts: NDArray[np.int64], *, samples: int = 1000, seed: int = 0) -> Interval:
    """The same from counts.

    Args:
        counts: true positives, predicted and gold entities of each sentence; int64 of shape (sentences, 3).
        samples: how many resamples.
        seed: of the draw.

    Raises:
        DataError: fewer than one sample.
    """
    (f1,) = _f1(counts.sum(axis=0, keepdims=True))
    return _interval(_f1(_resampled(counts, samples, seed)), float(f1), samples, seed)


def paired_bootstrap(
    gold: Sequence[Sequence[Entity]],
    a: Sequence[Sequence[Entity]],
    b: Sequence[Sequence[Entity]],
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> PairedBootstrap:
    """Compare the micro-F1 of two systems on the same sentences.

    Args:
        gold, a, b: the entities of each sentence: as they should be, and as either system found them.
        samples: how many resamples.
        seed: of the draw.

    Raises:
        DataError: fewer than one sample, or what :func:`~xdner.evaluation.match.align` refuses.

    >>> gold = [[Entity(0, 4, "city")]] * 20
    >>> result = paired_bootstrap(gold, gold, [[Entity(0, 4, "river")]] * 20, samples=999)
    >>> result.delta, result.p_value
    (1.0, 0.001)
    """
    return paired_bootstrap_seeds(gold, [a], [b], samples=samples, seed=seed)


def paired_bootstrap_seeds(
    gold: Sequence[Sequence[Entity]],
    a: Sequence[Sequence[Sequence[Entity]]],
    b: Sequence[Sequence[Sequence[Entity]]],
    *,
    samples: int = 10_000,
    seed: int = 0,
) -> PairedBootstrap:
    """Compare two systems that were each run with several seeds: every sentence's counts are averaged over the runs.

    The F1 of averaged counts is not exactly the average of the runs' F1. The interval says how the difference between
    *these* runs varies with the sentences; how it varies with the seeds is what :func:`seed_summary` says.

    Args:
        gold: the entities of each sentence.
        a, b: for each run, the entities of each sentence; the systems may have different numbers of runs.
        samples: how many resamples.
        seed: of the draw.

    Raises:
        DataError: no runs, fewer than one sample, or what :func:`~xdner.evaluation.match.align` refuses.
    """
    counts_a, counts_b = ([sentence_counts(gold, run) for run in runs] for runs in (a, b))
    return paired_bootstrap_counts(counts_a, counts_b, samples=samples, seed=seed)


def paired_bootstrap_counts(
    a: Sequence[NDArray[np.int64]], b: Sequence[NDArray[np.int64]], *, samples: int = 10_000, seed: int = 0
) -> PairedBootstrap:
    """:func:`paired_bootstrap_seeds` from counts, for runs whose entities were not kept.

    Args:
        a, b: for each run, the counts of each sentence as :func:`~xdner.evaluation.match.sentence_counts` gives them;
            int64 of shape (sentences, 3), the same sentences in the same order.
        samples: how many resamples.
        seed: of the draw.

    Raises:
        DataError: no runs, runs on different sentences, or fewer than one sample.
    """
    if not a or not b:
        raise DataError(
            f"system a has {len(a)} runs, system b has {len(b)}", hint="Give at least one run of each system."
        )
    gold = a[0][:, 2]
    if any(not np.array_equal(run[:, 2], gold) for run in (*a, *b)):
        raise DataError(
            "the runs were scored on different sentences: their gold entities differ",
            hint="Compare runs on one split, in one order of its sentences.",
        )
    # Sums stay whole numbers; as F1 is a ratio, they do the same as means.
    counts = np.concatenate([np.sum(runs, axis=0) for runs in (a, b)], axis=1)
    totals, drawn = counts.sum(axis=0, keepdims=True), _resampled(counts, samples, seed)
    f1_a, f1_b = float(_f1(totals[:, :3])[0]), float(_f1(totals[:, 3:])[0])
    delta, deltas = f1_a - f1_b, _f1(drawn[:, :3]) - _f1(drawn[:, 3:])
    # The one added above and below is the observed sample itself: no finite draw shows that p is zero.
    # Whole numbers often tie, and rounding must not decide that: F1 differs by far more, or not at all.
    p_value = (1 + int(np.count_nonzero(np.abs(deltas - delta) >= abs(delta) - 1e-12))) / (1 + samples)
    return PairedBootstrap(
        f1_a, f1_b, delta, _interval(deltas, delta, samples, seed), p_value, len(gold), len(a), len(b)
    )


def seed_summary(values: Iterable[float]) -> SeedSummary:
    """Mean, standard deviation and 95 % t-interval of one score from several seeds.

    Raises:
        DataError: no values, or one that is not finite.

    >>> summary = seed_summary([0.5, 0.6, 0.7])
    >>> [round(x, 4) for x in (summary.mean, summary.standard_deviation, *summary.interval)]
    [0.6, 0.1, 0.3516, 0.8484]
    """
    given = tuple(float(value) for value in values)
    if not given or not all(math.isfinite(value) for value in given):
        raise DataError(
            f"a summary over seeds needs finite values, not {list(given)}", hint="Leave out the runs that failed."
        )
    mean = statistics.fmean(given)
    if len(given) == 1:
        return SeedSummary(mean, None, None, given)
    deviation = statistics.stdev(given)
    half = _t_quantile(len(given) - 1) * deviation / math.sqrt(len(given))
    return SeedSummary(mean, deviation, (mean - half, mean + half), given)


def _resampled(counts: NDArray[np.int64], samples: int, seed: int) -> NDArray[np.int64]:
    """Counts summed over drawn sentences: (sentences, n) gives (samples, n)."""
    if samples < 1:
        raise DataError(f"a bootstrap needs at least 1 sample, not {samples}", hint="Use 1,000 or more.")
    if not len(counts):
        return np.zeros((samples, counts.shape[1]), dtype=np.int64)
    distinct, occurrences = np.unique(counts, axis=0, return_counts=True)
    draw = np.random.default_rng(seed)
    block = max(1, _CELLS // len(distinct))
    return np.concatenate(
        [
            draw.multinomial(len(counts), occurrences / len(counts), size=min(block, samples - done)) @ distinct
            for done in range(0, samples, block)
        ]
    )


def _f1(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Micro-F1 of each row of (true positives, predicted, gold), with the roundings of :class:`Score`."""
    hits, predicted, gold = (counts[:, i].astype(np.float64) for i in range(3))
    precision = np.divide(hits, predicted, out=np.zeros_like(hits), where=predicted > 0)
    recall = np.divide(hits, gold, out=np.zeros_like(hits), where=gold > 0)
    both = precision + recall
    return np.divide(2 * precision * recall, both, out=np.zeros_like(hits), where=both > 0)


def _interval(drawn: NDArray[np.float64], estimate: float, samples: int, seed: int) -> Interval:
    low, high = (float(end) for end in np.quantile(drawn, _TAILS))
    # With few samples or very uneven sentences, percentiles may miss the estimate; a wider interval is no less sure.
    return Interval(min(low, estimate), max(high, estimate), samples, seed)


def _t_quantile(freedom: int) -> float:
    """The t with P(|T| <= t) = 0.95, from the finite series for whole degrees of freedom.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """

    def inside(angle: float) -> float:
        sine, square = math.sin(angle), math.cos(angle) ** 2
        total = term = math.cos(angle) if freedom % 2 else 1.0
        for n in range(2 + freedom % 2, freedom, 2):
            term *= square * (n - 1) / n
            total += term
        if freedom % 2 == 0:
            return sine * total
        return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))

    low, high = 0.0, math.pi / 2
    for _ in range(60):  # halves the bracket to less than a float can tell apart
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < 0.95 else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)
