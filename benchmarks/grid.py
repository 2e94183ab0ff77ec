"""Runs by variant and target, with the tables that programs with named variants have alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from benchmarks.layout import percent, table
from benchmarks.runs import Run
from benchmarks.tables import Row, rows_of
from benchmarks.tagging.variants import CROSSNER
from benchmarks.transfer.comparison import Difference, mean_difference, mean_scores, spread
from xdner.errors import DataError
from xdner.evaluation import SeedSummary, seed_summary
from xdner.evaluation.significance import interval_of_counts

__all__ = ["GOAL_NAMES", "Grid", "Named", "Sweep", "best_marked", "failures", "sweep_table"]


class Named(Protocol):
    """A variant: hashable, with a name."""

    @property
    def name(self) -> str:
        """In tables and file names."""
        ...


V = TypeVar("V", bound=Named)
#: Target → variant without what is swept → its value → F1.
Sweep = dict[str, dict[V, dict[float, SeedSummary]]]


@dataclass(frozen=True)
class Grid(Generic[V]):
    """Runs at their chosen rates.

    Attributes:
        rows: by variant and target.
        order: sorts variants.
    """

    rows: Mapping[tuple[V, str], Row]
    order: Callable[[V], Any]

    @classmethod
    def of(cls, runs: Sequence[Run], parse: Callable[[str], V], order: Callable[[V], Any]) -> Grid[V]:
        """Raises:
        DataError: no run succeeded.
        """
        rows = {(parse(row.arm), row.target): row for row in rows_of(runs)}
        if not rows:
            raise DataError("no run succeeded", hint="The files' `error` says why; try lower rates.")
        return cls(rows, order)

    def seen_as(self, part: str) -> Grid[V]:
        """The same runs, scored by another of their reports; without those that have none."""
        rows = {}
        for key, row in self.rows.items():
            runs = tuple({**run, "dev": run[part]} for run in row.runs if run[part] is not None)
            if runs:
                scores = seed_summary([run["dev"]["micro"]["f1"] for run in runs])
                rows[key] = replace(row, runs=runs, scores=scores)
        return Grid(rows, self.order)

    @property
    def variants(self) -> list[V]:
        """In the order of the tables."""
        return sorted({variant for variant, _ in self.rows}, key=self.order)

    @property
    def targets(self) -> list[str]:
        """CrossNER in the paper's order, then the others."""
        found = {target for _, target in self.rows}
        return [t for t in CROSSNER if t in found] + sorted(found - set(CROSSNER))

    def runs(self, variant: V, target: str) -> dict[int, Run]:
        """Seed → run; empty where there is none."""
        row = self.rows.get((variant, target))
        return {} if row is None else {run["seed"]: run for run in row.runs}

    def scores(self, variant: V, target: str) -> SeedSummary | None:
        """F1 over seeds."""
        row = self.rows.get((variant, target))
        return None if row is None else row.scores

    def mean(self, variant: V, targets: Sequence[str]) -> SeedSummary | None:
        """The mean over targets of each seed that all of them have."""
        return mean_scores([self.runs(variant, t) for t in targets])

    def difference(self, a: V, b: V, targets: Sequence[str]) -> Difference | None:
        """Of the means over targets, ``None`` if there is a target without a seed that both have."""
        return mean_difference([(self.runs(a, t), self.runs(b, t)) for t in targets])

    # -- tables ------------------------------------------------------------------------------------------------------

    def score_table(self, variants: Sequence[V]) -> list[str]:
        """A line for each variant, a column for each target, and the mean over those of CrossNER."""
        targets = [t for t in self.targets if any((v, t) in self.rows for v in variants)]
        columns = [[self.scores(v, t) for v in variants] for t in targets]
        five = [t for t in CROSSNER if t in targets]
        names = ["arm", *targets]
        if len(five) > 1:
            columns.insert(len(five), [self.mean(v, five) for v in variants])
            names.insert(len(five) + 1, f"mean of {len(five)}")
        return table(names, best_marked(columns, [self._marked(v) for v in variants]), left=1)

    def interval_table(self, variants: Sequence[V]) -> list[str]:
        """F1 of all seeds together and its 95 % bootstrap interval over dev sentences, a column for each target."""
        targets = [t for t in self.targets if any((v, t) in self.rows for v in variants)]
        rows = [[v.name, *(_interval(list(self.runs(v, t).values())) for t in targets)] for v in variants]
        return table(["arm", *targets], rows, left=1)

    def comparison(self, pairs: Iterable[tuple[V, V]]) -> list[str]:
        """Paired bootstraps of ``a - b`` on each target and on the mean over CrossNER; nothing without pairs."""
        lines = []
        for a, b in pairs:
            both = [t for t in self.targets if (a, t) in self.rows and (b, t) in self.rows]
            five = [t for t in both if t in CROSSNER]
            places = [*((t, [t]) for t in both), *([(f"mean of {len(five)}", five)] if len(five) > 1 else [])]
            for place, targets in places:
                found = self.difference(a, b, targets)
                if found is not None:
                    lines.append([place, a.name, b.name, *found.cells(), ", ".join(map(str, found.seeds))])
        return (
            table(["target", "a", "b", "a − b, points", "95 % interval", "p", "seeds"], lines, left=3) if lines else []
        )

    def goal(self, a: V, b: V, wanted: float, targets: Sequence[str], what: str = "") -> list[str] | None:
        """The line of a goal: by how many points ``a`` should be better. ``None``: not measured on all targets."""
        found = self.difference(a, b, targets)
        if found is None:
            return None
        says = "reached" if 100 * found.delta >= wanted else "**not reached**"
        return [f"{a.name} over {b.name}{what}", f"at least {wanted:+.1f}", *found.cells(), says,
                ", ".join(map(str, found.seeds))]  # fmt: skip

    def swept(self, at: Callable[[V, Row], Iterable[tuple[V, float]]]) -> Sweep[V]:
        """Lines of more than one point, targets and lines in the order of the tables.

        Args:
            at: where a row stands: line and value; several, or nothing, if it is part of several sweeps, or of none.
        """
        found: Sweep[V] = {}
        for (variant, target), row in self.rows.items():
            for line, value in at(variant, row):
                found.setdefault(target, {}).setdefault(line, {})[value] = row.scores
        made = {
            t: {v: found[t][v] for v in sorted(found[t], key=self.order) if len(found[t][v]) > 1}
            for t in self.targets if t in found
        }  # fmt: skip
        return {t: lines for t, lines in made.items() if lines}

    def _marked(self, variant: V) -> str:
        missing = any(row.missing for (v, _), row in self.rows.items() if v == variant)
        return variant.name + (" *" if missing else "")


GOAL_NAMES = ("what", "goal, points", "measured", "95 % interval", "p", "", "seeds")


def best_marked(columns: Sequence[Sequence[SeedSummary | None]], names: Sequence[str]) -> list[list[str]]:
    """Lines of a table from its columns; the best mean of each is bold."""
    best = [max((s.mean for s in column if s is not None), default=0.0) for column in columns]
    return [[name, *(_cell(column[i], top) for column, top in zip(columns, best, strict=True))]
            for i, name in enumerate(names)]  # fmt: skip


def sweep_table(sweep: Sweep[V], column: str) -> list[str]:
    """A line for each target and value, a column for each line of the sweep."""
    variants = list(dict.fromkeys(v for lines in sweep.values() for v in lines))
    rows = []
    for target, lines in sweep.items():
        for x in sorted({x for points in lines.values() for x in points}):
            found = [lines.get(v, {}).get(x) for v in variants]
            rows.append([target, f"{x:g}", *("–" if s is None else spread(s) for s in found)])
    return table(["target", column, *(v.name for v in variants)], rows, left=1)


def failures(runs: Sequence[Run], rows: Iterable[Row]) -> Iterator[str]:
    """Notes on what is missing or went wrong."""
    rows = list(rows)
    yield from (f"* {row.arm} on {row.target}: {'; '.join(row.missing)}." for row in rows if row.missing)
    failed = sorted({(run["arm"], run["target"]) for run in runs} - {(r.arm, r.target) for r in rows})
    yield from (f"{arm} on {target}: every rate failed, so it has no row." for arm, target in failed)


def _interval(runs: Sequence[Run]) -> str:
    if not runs:
        return "–"
    counts = np.sum([np.array(run["dev"]["sentence_counts"], dtype=np.int64).reshape(-1, 3) for run in runs], axis=0)
    right, predicted, gold = counts.sum(axis=0)
    found = interval_of_counts(counts)
    f1 = 2 * right / (predicted + gold) if predicted + gold else 0.0
    return f"{percent(f1)} [{percent(found.low)}, {percent(found.high)}]"


def _cell(scores: SeedSummary | None, best: float) -> str:
    return "–" if scores is None else spread(scores, bold=scores.mean == best)
