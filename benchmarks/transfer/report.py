"""Tables 1 and 2, the comparisons and the sweeps, as Markdown, from the files of runs and from nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.layout import table
from benchmarks.transfer.comparison import Results, by_seed, mean_difference, mean_scores, of_same_seeds, spread
from benchmarks.transfer.costs import times, weights
from benchmarks.transfer.figures import Line, Panel, draw_lines
from benchmarks.transfer.notes import BOOTSTRAP, caption, notes
from benchmarks.transfer.specs import Condition
from xdner.evaluation import SeedSummary, seed_summary

__all__ = ["Group", "Row", "always", "compared", "draw", "groups_of", "markdown", "score_table", "scores"]

Run = dict[str, Any]
# The paper's order of targets in Table 1.
TARGETS = ("politics", "science", "music", "literature", "ai")


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, and the method that it shows in a condition."""

    name: str
    method: Callable[[Condition], str | None]


@dataclass(frozen=True)
class Group:
    """Conditions whose mean has a column of its own."""

    name: str
    conditions: tuple[Condition, ...]


def always(name: str, method: str | None = None) -> Row:
    """A row that shows one method everywhere."""
    return Row(name, lambda _: method or name)


def scores(results: Results, condition: Condition, method: str | None) -> SeedSummary | None:
    """Dev micro-F1 over seeds, or nothing where there is no run."""
    runs = results.get(condition, method) if method else {}
    return seed_summary(by_seed(runs).values()) if runs else None


def groups_of(where: Sequence[Condition]) -> list[Group]:
    """Targets of one size: their mean is a column where there are two or more."""
    found = []
    for k in dict.fromkeys(c.k for c in where):
        same = tuple(c for c in where if c.k == k)
        if len(same) > 1:
            size = "" if k is None else f" {k}"
            found.append(Group(f"mean of {', '.join(c.target for c in same)}{size}", same))
    return found


def score_table(
    results: Results, rows: Sequence[Row], where: Sequence[Condition], groups: Sequence[Group], first: str
) -> list[str]:
    """Mean ± sd for each row and condition, the best of each column in bold; rows without any run are left out."""
    columns: list[list[SeedSummary | None]] = [[scores(results, c, row.method(c)) for row in rows] for c in where]
    for group in groups:
        column: list[SeedSummary | None] = []
        for row in rows:
            methods = [(c, row.method(c)) for c in group.conditions]
            column.append(
                mean_scores([results.get(c, m) for c, m in methods if m]) if all(m for _, m in methods) else None
            )
        columns.append(column)
    shown = [i for i in range(len(rows)) if any(column[i] for column in columns)]
    best = [max((s.mean for s in column if s is not None), default=0.0) for column in columns]
    lines = [
        [rows[i].name, *(
            "–" if (value := column[i]) is None else spread(value, bold=value.mean == top)
            for column, top in zip(columns, best, strict=True)
        )]
        for i in shown
    ]  # fmt: skip
    return table([first, *map(str, where), *(g.name for g in groups)], lines, left=1)


def compared(
    results: Results, base: Row, others: Iterable[Row], where: Sequence[Condition], groups: Sequence[Group]
) -> list[str]:
    """``base`` minus each other row, condition by condition and for the means."""
    lines = []
    for place, conditions in [*((str(c), (c,)) for c in where), *((g.name, g.conditions) for g in groups)]:
        for other in others:
            methods = [(c, base.method(c), other.method(c)) for c in conditions]
            if not all(a and b for _, a, b in methods):
                continue
            found = mean_difference([(results.get(c, a or ""), results.get(c, b or "")) for c, a, b in methods])
            if found is not None:
                name = other.name if len(conditions) > 1 else _named(other, conditions[0])
                lines.append([place, base.name, name, *found.cells(), ", ".join(map(str, found.seeds))])
    names = ["target", "a", "b", "a − b, points", "95 % interval", "p", "seeds"]
    return table(names, lines, left=3) if lines else []


def markdown(runs: Sequence[Run]) -> str:
    """The whole report of the program ``cross_domain``."""
    own = [run for run in runs if not run["without"]]
    results, sources = Results(own), list(own[0]["asked"]["sources"])
    parts = ["# Transfer between domains", "", caption(own)]
    one = sorted((c for c in results.conditions if c.k is None), key=_place)
    first = f"single-{sources[0]}"
    if any(results.get(c, first) for c in one):
        rows, groups = [always("none"), always(f"single: {sources[0]}", first)], groups_of(one)
        parts += ["", f"## Table 1: one source, {sources[0]}", "", *score_table(results, rows, one, groups, "strategy")]
        told = compared(results, rows[1], rows[:1], one, groups)
        parts += ["", *told] if told else []
    several = [c for c in results.conditions if c.target not in sources]
    rows = strategies(results, sources)
    groups = groups_of(several)
    if several:
        parts += ["", f"## Table 2: sources {', '.join(sources)}", ""]
        parts += score_table(results, rows, several, groups, "strategy")
        parts += ["", *_bests(results, several)]
        told = compared(results, rows[-1], rows[:-1], several, groups)
        parts += ["", "## Collaborative against each other strategy", "", *told, "", BOOTSTRAP] if told else []
    for title, first_column, sweep in (
        ("The share α of the entity similarity", "α", alpha_rows(own)),
        (f"The number of sources, in the order {', '.join(sources)}", "sources", count_rows(results, sources)),
    ):
        where = _swept(results, several, sweep)
        if where:
            alike, told = _alike(results, where, sweep)
            lines = score_table(alike, [row for _, row in sweep], where, groups_of(where), first_column)
            parts += ["", f"## {title}", "", *lines, *(["", " ".join(told)] if told else [])]
    named = {name: m for name, m in _named_methods(sources).items() if m in results.methods()}
    for title, lines in (
        ("What the selector weighs: mean over seeds", weights(results, several, sources)),
        ("Seconds to a new domain: training on it, mean over seeds", times(results, named)),
    ):
        parts += ["", f"## {title}", "", *lines] if lines else []
    return "\n".join([*parts, "", "## Notes", "", *(f"- {note}" for note in notes(own))]) + "\n"


def strategies(results: Results, sources: Sequence[str]) -> list[Row]:
    """The rows of Table 2; the last one is the method of the paper."""
    named = [always(name, method) for name, method in _named_methods(sources).items()]
    at = 1 + len(sources)
    return [*named[:at], Row("single, the best", results.best_single), *named[at:]]


def alpha_rows(runs: Sequence[Run]) -> list[tuple[float, Row]]:
    """The values of α that were tried with all sources, if there are several."""
    found = {
        float(run["alpha"]): run["method"]
        for run in runs
        if run["strategy"] == "collaborative" and not run["without"] and "-of-" not in run["method"]
    }
    return [(a, always(f"{a:g}", found[a])) for a in sorted(found)] if len(found) > 1 else []


def count_rows(results: Results, sources: Sequence[str]) -> list[tuple[float, Row]]:
    """No source, the first one, the first two, ... if some but not all were tried together."""
    names = ["none", f"single-{sources[0]}"]
    names += ["collaborative-of-" + "-".join(sources[:n]) for n in range(2, len(sources))]
    names += ["collaborative"] if len(sources) > 1 else []
    there = set(results.methods())
    if not there & set(names[2:-1]):
        return []
    return [(float(n), always(str(n), name)) for n, name in enumerate(names) if name in there]


def draw(runs: Sequence[Run], folder: Path) -> Iterator[Path]:
    """The figures that the runs have points for: ``alpha.png``, ``sources.png`` and ``k.png``."""
    own = [run for run in runs if not run["without"]]
    results, sources = Results(own), list(own[0]["asked"]["sources"])
    where = [c for c in results.conditions if c.target not in sources]
    order = ", ".join(sources)
    for name, across, sweep in (
        ("alpha", "α, share of the entity similarity", alpha_rows(own)),
        ("sources", f"number of sources, in the order {order}", count_rows(results, sources)),
    ):
        swept = _swept(results, where, sweep)
        alike, _ = _alike(results, swept, sweep)
        lines = [Line(str(c), [(x, s) for x, row in sweep if (s := scores(alike, c, row.method(c)))]) for c in swept]
        if lines:
            ticks = [x for x, _ in sweep if any(x == p for line in lines for p, _ in line.points)]
            yield draw_lines([Panel("", lines)], folder / f"{name}.png", across=across, ticks=ticks)
    panels, sizes = [], sorted({c.k for c in where if c.k is not None})
    for target in sorted({c.target for c in where if c.k is not None}):
        shown = [row for row in strategies(results, sources) if not row.name.startswith("single: ")]
        points = [
            Line(row.name, [(float(k), s) for k in sizes if (s := scores(results, c := Condition(target, k), row.method(c)))])
            for row in shown
        ]  # fmt: skip
        if any(len(line.points) > 1 for line in points):
            panels.append(Panel(target, [line for line in points if line.points]))
    if panels:
        yield draw_lines(panels, folder / "k.png", across="mentions per type (k)", ticks=[float(k) for k in sizes])


def _named_methods(sources: Sequence[str]) -> dict[str, str]:
    """What a strategy's row is called → its method."""
    several = ("chain", "ensemble", "collaborative")
    return {"none": "none"} | {f"single: {s}": f"single-{s}" for s in sources} | {name: name for name in several}


def _alike(
    results: Results, where: Sequence[Condition], sweep: Sequence[tuple[float, Row]]
) -> tuple[Results, list[str]]:
    """The points of a sweep over the same seeds; see :func:`~benchmarks.transfer.comparison.of_same_seeds`."""
    return of_same_seeds(results, {c: [row.method(c) for _, row in sweep] for c in where})


def _swept(results: Results, where: Sequence[Condition], sweep: Sequence[tuple[float, Row]]) -> list[Condition]:
    """Conditions with a point that only the sweep has: its ends are in the other tables too."""
    return [
        c
        for c in where
        if any("-" in (m := row.method(c) or "") and m.startswith("coll") and results.get(c, m) for _, row in sweep)
    ]


def _place(condition: Condition) -> tuple[int, str]:
    target = condition.target
    return (TARGETS.index(target) if target in TARGETS else len(TARGETS), target)


def _named(row: Row, condition: Condition) -> str:
    """A row's name; the best single source with its own name."""
    method = row.method(condition) or ""
    return f"{row.name} ({method.removeprefix('single-')})" if row.name == "single, the best" else row.name


def _bests(results: Results, where: Sequence[Condition]) -> list[str]:
    """Which single source is the best where; it was chosen on the dev sentences that score it."""
    found = {str(c): best.removeprefix("single-") for c in where if (best := results.best_single(c))}
    if not found:
        return []
    told = ", ".join(f"{place}: {name}" for place, name in found.items())
    return [f"The best single source by its mean on dev, which flatters it: {told}."]
