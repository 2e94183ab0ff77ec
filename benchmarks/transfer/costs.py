"""What a new domain costs, and what its prefix drew on: seconds, and the selector's weights, from the files of runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.layout import table
from benchmarks.transfer.comparison import Results
from benchmarks.transfer.specs import Condition

__all__ = ["mean_weights", "times", "weights"]

Run = dict[str, Any]


def mean_weights(runs: Iterable[Run]) -> dict[str, float]:
    """Source → its weight in the collaborative prefix, mean over runs."""
    found: dict[str, list[float]] = {}
    for run in runs:
        for source in run["selection"]["sources"]:
            found.setdefault(source["name"], []).append(source["weight"])
    return {name: statistics.fmean(values) for name, values in found.items()}


def times(results: Results, named: Mapping[str, str]) -> list[str]:
    """Seconds to a new domain, mean over seeds: a line for each method that has runs, a column for each target.

    Args:
        results: of one folder.
        named: what a row is called → its method.
    """
    rows = []
    for name, method in named.items():
        runs = {c: [r for r in results.get(c, method).values() if r.get("seconds")] for c in results.conditions}
        before = [sum(run["seconds"]["sources"].values()) for found in runs.values() for run in found]
        if not before:
            continue
        target = [[run["seconds"]["target"] for run in found] for found in runs.values()]
        rows.append(
            [name, *(f"{statistics.fmean(t):,.0f}" if t else "–" for t in target), f"{statistics.fmean(before):,.0f}"]
        )
    names = ["strategy", *map(str, results.conditions), "δ₀ and sources, once"]
    return table(names, rows, left=1) if rows else []


def weights(results: Results, where: Sequence[Condition], sources: Sequence[str]) -> list[str]:
    """The weight of each source, mean over seeds, and the effective number of sources, where all were weighed."""
    rows = []
    for condition in where:
        runs = [run for run in results.get(condition, "collaborative").values() if run.get("selection")]
        if runs:
            found = mean_weights(runs)
            effective = statistics.fmean(run["selection"]["effective_sources"] for run in runs)
            rows.append([str(condition), *(f"{found.get(s, 0.0):.2f}" for s in sources), f"{effective:.2f}"])
    return table(["target", *sources, "effective number"], rows, left=1) if rows else []
