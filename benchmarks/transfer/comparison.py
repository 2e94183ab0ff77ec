"""Runs from their files: which belong together, their spread over seeds, and how sure a difference is."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.layout import percent, points
from benchmarks.record import read_json
from benchmarks.transfer.specs import Condition
from xdner.errors import DataError
from xdner.evaluation import SeedSummary, paired_bootstrap_counts, seed_summary

__all__ = [
    "RUNS",
    "Difference",
    "Results",
    "by_seed",
    "difference",
    "load",
    "mean_difference",
    "mean_scores",
    "of_same_seeds",
    "spread",
]

Run = dict[str, Any]
Counts = NDArray[np.int64]
SAMPLES = 10_000
#: The files of runs below the folder of a track.
RUNS = "*/*/*/seed*.json"


@dataclass(frozen=True)
class Difference:
    """How far one method is from another.

    Attributes:
        delta, low, high: a - b and its 95 % interval, from -1 to 1.
        p_value: two-sided, of no difference.
        seeds: that both have.
    """

    delta: float
    low: float
    high: float
    p_value: float
    seeds: tuple[int, ...]

    def cells(self) -> list[str]:
        """Difference, interval and p, as a table has them."""
        return [points(self.delta), f"[{points(self.low)}, {points(self.high)}]", f"{self.p_value:.4f}"]


class Results:
    """Runs by condition and method; only those that have a score.

    Args:
        runs: of one folder.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = list(runs)
        self.failed = [run for run in self.runs if run["dev"] is None]
        self._by: dict[tuple[Condition, str], dict[int, Run]] = {}
        for run in sorted(self.runs, key=lambda r: r["seed"]):
            if run["dev"] is not None:
                self._by.setdefault((condition_of(run), run["method"]), {})[run["seed"]] = run

    @property
    def conditions(self) -> list[Condition]:
        """With all sentences first, then those with few, by name and size."""
        found = {condition for condition, _ in self._by}
        return sorted(found, key=lambda c: (c.k is not None, c.target, c.k or 0))

    def methods(self, condition: Condition | None = None) -> list[str]:
        """All, or those of a condition, in the order of their names."""
        return sorted({method for where, method in self._by if condition in (None, where)})

    def get(self, condition: Condition, method: str) -> dict[int, Run]:
        """Seed → run; empty where there is none."""
        return self._by.get((condition, method), {})

    def best_single(self, condition: Condition) -> str | None:
        """The single source with the highest mean on dev."""
        singles = [m for m in self.methods(condition) if m.startswith("single-")]
        return max(singles, key=lambda m: statistics.fmean(by_seed(self.get(condition, m)).values()), default=None)


def condition_of(run: Run) -> Condition:
    """Where a run belongs."""
    return Condition(run["target"], None if run["k"] == "all" else run["k"])


def _read(path: Path) -> Run:
    run = read_json(path)
    if missing := {"asked", "backbone", "data", "dev", "k", "method", "seed", "target"} - run.keys():
        raise DataError(f"{path} is no run of transfer: it lacks {', '.join(sorted(missing))}",
                        hint="Move it away, or give another folder with --out.")  # fmt: skip
    return run


def of_same_seeds(results: Results, methods: Mapping[Condition, Iterable[str | None]]) -> tuple[Results, list[str]]:
    """Only the seeds that these methods have in common in a condition, if there are any: seeds draw the training sentences, and
    a mean over other seeds is one over other sentences.

    Args:
        results: with all seeds.
        methods: of each condition, those that are shown side by side; without a run, they do not count.

    Returns:
        Results of these conditions and methods, and a sentence on each condition that lost seeds.
    """
    kept: list[Run] = []
    told = []
    for condition, named in methods.items():
        found = [runs for name in named if name and (runs := results.get(condition, name))]
        common = set(found[0]).intersection(*found[1:]) if found else set()
        if common and any(common != set(runs) for runs in found):
            seeds = ", ".join(map(str, sorted(common)))
            told.append(f"{condition}: over seed{'s' if len(common) > 1 else ''} {seeds}, which all rows have.")
        kept += (run for runs in found for seed, run in runs.items() if seed in (common or runs))
    return Results(kept), told


def load(folder: Path) -> list[Run]:
    """All runs of a track.

    Raises:
        DataError: there are none, or they were made with different options, backbones or data.
    """
    paths = sorted(folder.glob(RUNS))
    if not paths:
        raise DataError(
            f"there are no runs in {folder}", hint="Run the benchmark first, or give its folder with --out."
        )
    runs = [_read(path) for path in paths]
    first = runs[0]
    for path, run in zip(paths, runs, strict=True):
        asked, other = first["asked"], run["asked"]
        differ = [f"{k} is {asked.get(k)!r} and {other.get(k)!r}" for k in asked if asked.get(k) != other.get(k)]
        if run["backbone"]["fingerprint"] != first["backbone"]["fingerprint"]:
            differ.append("the backbones' weights differ")
        if differ:
            raise DataError(
                f"{paths[0]} and {path} do not belong together: {'; '.join(differ)}",
                hint="Remove the runs of one kind, or give each an --out of its own.",
            )
    files: dict[str, str] = {}
    for path, run in zip(paths, runs, strict=True):
        changed = [name for name, value in run["data"].items() if files.setdefault(name, value) != value]
        if changed:
            raise DataError(
                f"{path} was made from another {', '.join(changed)} than other runs", hint="Remove the older runs."
            )
    ids: dict[str, list[str]] = {}
    for path, run in zip(paths, runs, strict=True):
        if ids.setdefault(run["target"], run["dev_ids"]) != run["dev_ids"]:
            raise DataError(
                f"{path} was scored on other dev sentences than other runs on {run['target']}",
                hint="Remove the older runs: only the same sentences can be compared in pairs.",
            )
    return runs


def by_seed(runs: dict[int, Run]) -> dict[int, float]:
    """Seed → dev micro-F1."""
    return {seed: float(run["dev"]["micro"]["f1"]) for seed, run in runs.items()}


def spread(scores: SeedSummary, *, bold: bool = False) -> str:
    """``57.10 ± 0.40``: mean and standard deviation over seeds, in percent; with one seed, the score alone."""
    deviation = scores.standard_deviation
    text = percent(scores.mean) if deviation is None else f"{percent(scores.mean)} ± {percent(deviation)}"
    return f"**{text}**" if bold else text


def difference(a: dict[int, Run], b: dict[int, Run]) -> Difference | None:
    """Paired bootstrap over dev sentences, each sentence's counts summed over the seeds that both have."""
    return mean_difference([(a, b)])


def mean_difference(pairs: Sequence[tuple[dict[int, Run], dict[int, Run]]]) -> Difference | None:
    """The same for the mean over several targets: each target's sentences are drawn by themselves.

    Args:
        pairs: for each target, the runs of both methods.

    Returns:
        ``None`` if there is a target without a seed that both have.
    """
    shared = [tuple(sorted(a.keys() & b.keys())) for a, b in pairs]
    if not shared or not all(shared):
        return None
    seeds = tuple(sorted(set.intersection(*map(set, shared)))) if len(shared) > 1 else shared[0]
    if not seeds:
        return None
    counts = [tuple([_counts(runs[s]) for s in seeds] for runs in pair) for pair in pairs]
    if len(counts) == 1:
        found = paired_bootstrap_counts(*counts[0], samples=SAMPLES)
        return Difference(found.delta, found.interval.low, found.interval.high, found.p_value, seeds)
    sums = [np.concatenate([np.sum(runs, axis=0) for runs in pair], axis=1) for pair in counts]
    observed = float(np.mean([_deltas(s.sum(axis=0, keepdims=True))[0] for s in sums]))
    drawn = np.mean([_deltas(_drawn(s, number)) for number, s in enumerate(sums)], axis=0)
    low, high = (float(end) for end in np.quantile(drawn, (0.025, 0.975)))
    # A mean of ratios: rounding must not decide about ties.
    p_value = (1 + int(np.count_nonzero(np.abs(drawn - observed) >= abs(observed) - 1e-12))) / (1 + SAMPLES)
    return Difference(observed, min(low, observed), max(high, observed), p_value, seeds)


def mean_scores(parts: Sequence[dict[int, Run]]) -> SeedSummary | None:
    """The mean over targets of each seed that all of them have."""
    seeds = sorted(set.intersection(*(set(runs) for runs in parts))) if parts else []
    if not seeds:
        return None
    return seed_summary(statistics.fmean(by_seed(runs)[seed] for runs in parts) for seed in seeds)


def _counts(run: Run) -> Counts:
    return np.array(run["dev"]["sentence_counts"], dtype=np.int64).reshape(-1, 3)


def _drawn(counts: Counts, seed: int) -> Counts:
    """Counts summed over sentences drawn with replacement: (sentences, 6) gives (samples, 6)."""
    distinct, occurrences = np.unique(counts, axis=0, return_counts=True)
    draw = np.random.default_rng(seed)
    return draw.multinomial(len(counts), occurrences / len(counts), size=SAMPLES) @ distinct


def _deltas(counts: Counts) -> NDArray[np.float64]:
    """Difference of the two micro-F1 of each row: right, predicted and gold of a, then of b."""
    right, predicted, gold = counts[:, 0::3], counts[:, 1::3], counts[:, 2::3]
    both = predicted + gold
    f1 = np.divide(2.0 * right, both, out=np.zeros(both.shape), where=both > 0)
    return f1[:, 0] - f1[:, 1]
