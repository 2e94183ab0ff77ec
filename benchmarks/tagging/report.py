"""The papers' tables and figures from the files of runs, and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.layout import flat, percent, table
from benchmarks.runs import Run
from benchmarks.tables import Row, rows_of
from benchmarks.tagging.variants import CROSSNER, METHODS, Variant
from benchmarks.transfer.comparison import mean_difference, mean_scores, spread
from benchmarks.transfer.figures import Line, Panel, draw_groups, draw_lines
from benchmarks.transfer.notes import BOOTSTRAP
from xdner.errors import DataError
from xdner.evaluation import RULE, SeedSummary, seed_summary

__all__ = ["GOALS", "Grid", "draw", "markdown"]

PLAIN = Variant("plain")
LANER = Variant("laner")
NONE = Variant("plain", "none")
#: a, b, and by how many points a should be better, in the mean over CrossNER.
GOALS = ((LANER, PLAIN, 1.5), (LANER, Variant("crf"), 0.5), (PLAIN, NONE, 5.0))
STARTS = {"none": "no source", "single": "one source", "chain": "chain of sources", "ensemble": "ensemble over sources"}


@dataclass(frozen=True)
class Grid:
    """Runs at their chosen rates by variant and target."""

    rows: Mapping[tuple[Variant, str], Row]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Grid:
        """Raises:
        DataError: no run succeeded.
        """
        rows = {(Variant.parse(row.arm), row.target): row for row in rows_of(runs)}
        if not rows:
            raise DataError("no run succeeded", hint="The files' `error` says why; try lower rates.")
        return cls(rows)

    @property
    def variants(self) -> list[Variant]:
        """In the order of the paper's tables."""
        found = {variant for variant, _ in self.rows}
        return sorted(found, key=lambda v: (v.dapt, list(METHODS).index(v.method), list(STARTS).index(v.start),
                                            v.size or 0, v.few[:1], int(v.few[1:] or 0)))  # fmt: skip

    @property
    def targets(self) -> list[str]:
        """CrossNER in the paper's order, then the others."""
        found = {target for _, target in self.rows}
        return [t for t in CROSSNER if t in found] + sorted(found - set(CROSSNER))

    def runs(self, variant: Variant, target: str) -> dict[int, Run]:
        """Seed → run; empty where there is none."""
        row = self.rows.get((variant, target))
        return {} if row is None else {run["seed"]: run for run in row.runs}

    def scores(self, variant: Variant, target: str) -> SeedSummary | None:
        """F1 over seeds."""
        row = self.rows.get((variant, target))
        return None if row is None else row.scores

    def mean(self, variant: Variant, targets: Sequence[str]) -> SeedSummary | None:
        """The mean over targets of each seed that all of them have."""
        return mean_scores([self.runs(variant, t) for t in targets])


def markdown(runs: Sequence[Run]) -> str:
    """Every table that the runs have something for.

    Raises:
        DataError: no run succeeded.
    """
    grid = Grid.of(runs)
    parts = ["# LANER and its baselines", "", _caption(runs)]
    whole = [v for v in grid.variants if not v.few and v.size is None]
    single = [v for v in whole if v.start == "single"]
    for title, chosen in (
        ("Tables 2 and 3: from one source", single),
        ("Table 4: in the domain alone", [v for v in whole if v.start == "none"]),
    ):
        if chosen:
            parts += ["", f"## {title}", "", *_scores(grid, chosen)]
    several = [v for v in grid.variants if v.start in ("chain", "ensemble")]
    if several:
        parts += ["", "## CP-NER's Table 2: rows of LANER", "", *_starts(grid, several)]
    compared = _comparison(grid)
    if compared:
        parts += ["", "## Paired comparison", "", *compared, "", BOOTSTRAP]
    goals = _goals(grid)
    if goals:
        parts += ["", "## Goals, means over the five domains of CrossNER", "", *goals]
    types = _types(grid)
    if types:
        parts += ["", "## Figure 2: F1 by type, shared and not shared with the source", "", *types]
    for title, column, sweep in (
        ("Figure 3: label dimension", "d₂", _dimensions(grid)),
        ("Figure 4: training sentences", "sentences", _sizes(grid)),
    ):
        if sweep:
            parts += ["", f"## {title}", "", *_sweep(sweep, column)]
    parts += ["", "## Time", "", *_times(grid)]
    return "\n".join([*parts, "", "## Notes", "", *(f"- {note}" for note in _notes(runs, grid))]) + "\n"


def draw(runs: Sequence[Run], folder: Path) -> Iterator[Path]:
    """The figures that the runs have points for: ``types-TARGET.png``, ``dimension.png``, ``sentences.png``."""
    grid = Grid.of(runs)
    for target, found in _typed(grid).items():
        names = [f"{label}{' (shared)' if shared else ''}" for label, shared in found.labels]
        groups = [(v.name, [found.scores[v, label] for label, _ in found.labels]) for v in found.variants]
        yield draw_groups(names, groups, folder / f"types-{target}.png")
    for name, across, sweep in (
        ("dimension", "dimension of label embeddings", _dimensions(grid)),
        ("sentences", "training sentences", _sizes(grid)),
    ):
        if sweep:
            panels = [
                Panel(t, [Line(v.name, sorted(p.items())) for v, p in lines.items()]) for t, lines in sweep.items()
            ]
            ticks = sorted({x for lines in sweep.values() for p in lines.values() for x in p})
            yield draw_lines(panels, folder / f"{name}.png", across=across, ticks=ticks)


# -- tables ----------------------------------------------------------------------------------------------------------


def _cell(scores: SeedSummary | None, best: float) -> str:
    return "–" if scores is None else spread(scores, bold=scores.mean == best)


def _cells(columns: Sequence[Sequence[SeedSummary | None]], names: Sequence[str]) -> list[list[str]]:
    best = [max((s.mean for s in column if s is not None), default=0.0) for column in columns]
    return [[name, *(_cell(column[i], top) for column, top in zip(columns, best, strict=True))]
            for i, name in enumerate(names)]  # fmt: skip


def _scores(grid: Grid, variants: Sequence[Variant]) -> list[str]:
    targets = [t for t in grid.targets if any((v, t) in grid.rows for v in variants)]
    columns = [[grid.scores(v, t) for v in variants] for t in targets]
    five = [t for t in CROSSNER if t in targets]
    names = ["arm", *targets]
    if len(five) > 1:
        columns.insert(len(five), [grid.mean(v, five) for v in variants])
        names.insert(len(five) + 1, f"mean of {len(five)}")
    rows = _cells(columns, [_marked(grid, v) for v in variants])
    return table(names, rows, left=1)


def _marked(grid: Grid, variant: Variant) -> str:
    missing = any(row.missing for (v, _), row in grid.rows.items() if v == variant)
    return variant.name + (" *" if missing else "")


def _starts(grid: Grid, several: Sequence[Variant]) -> list[str]:
    places = [(v.few, t) for v in several for t in grid.targets if (v, t) in grid.rows]
    places = sorted(set(places), key=lambda p: (p[0] != "", p[1], int(p[0][1:] or 0)))
    methods = list(dict.fromkeys((v.method, v.dapt) for v in several))
    shown = [(m, d, s) for m, d in methods for s in STARTS
             if any((Variant(m, s, None, few, d), t) in grid.rows for few, t in places)]  # fmt: skip
    columns = [[grid.scores(Variant(m, s, None, few, d), t) for m, d, s in shown] for few, t in places]
    names = [f"{m}{' + dapt' if d else ''}, {STARTS[s]}" for m, d, s in shown]
    return table(["arm", *(f"{t} {few}".strip() for few, t in places)], _cells(columns, names), left=1)


def _pairs(grid: Grid) -> Iterator[tuple[Variant, Variant]]:
    """What is worth a comparison: LANER and the other heads, a source and none, several and one, adapted and not."""
    there = set(grid.variants)
    for v in grid.variants:
        if v.method == "laner" and v.size is None:
            others = [replace(v, method=m) for m in METHODS if m != "laner"]
            yield from ((v, other) for other in others if other in there)
        if v.start != "none" and v.size is None and replace(v, start="none") in there:
            yield v, replace(v, start="none")
        if v.start in ("chain", "ensemble") and replace(v, start="single") in there:
            yield v, replace(v, start="single")
        if v.dapt and replace(v, dapt=False) in there:
            yield v, replace(v, dapt=False)


def _comparison(grid: Grid) -> list[str]:
    lines = []
    for a, b in _pairs(grid):
        both = [t for t in grid.targets if (a, t) in grid.rows and (b, t) in grid.rows]
        five = [t for t in both if t in CROSSNER]
        places = [*((t, [t]) for t in both), *([(f"mean of {len(five)}", five)] if len(five) > 1 else [])]
        for place, targets in places:
            found = mean_difference([(grid.runs(a, t), grid.runs(b, t)) for t in targets])
            if found is not None:
                lines.append([place, a.name, b.name, *found.cells(), ", ".join(map(str, found.seeds))])
    return table(["target", "a", "b", "a − b, points", "95 % interval", "p", "seeds"], lines, left=3) if lines else []


def _goals(grid: Grid) -> list[str]:
    lines = []
    for a, b, wanted in GOALS:
        found = mean_difference([(grid.runs(a, t), grid.runs(b, t)) for t in CROSSNER])
        if found is not None:
            says = "reached" if 100 * found.delta >= wanted else "**not reached**"
            lines.append([f"{a.name} over {b.name}", f"at least {wanted:+.1f}", *found.cells(), says,
                          ", ".join(map(str, found.seeds))])  # fmt: skip
    names = ["what", "goal, points", "measured", "95 % interval", "p", "", "seeds"]
    return table(names, lines, left=1) if lines else []


# -- figure 2 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Typed:
    """F1 by type on a target: the types with whether the source has them, those it has last, as in the paper."""

    variants: list[Variant]
    labels: list[tuple[str, bool]]
    scores: dict[tuple[Variant, str], SeedSummary]
    gold: dict[str, int]


def _typed(grid: Grid) -> dict[str, Typed]:
    """Where both ``laner`` and ``plain`` went from a source, with what is adapted."""
    made = {}
    for target in grid.targets:
        variants = [v for v in (PLAIN, LANER, replace(PLAIN, dapt=True), replace(LANER, dapt=True))
                    if (v, target) in grid.rows]  # fmt: skip
        if not {PLAIN, LANER} <= set(variants):
            continue
        runs = {v: list(grid.runs(v, target).values()) for v in variants}
        first = runs[LANER][0]
        shared, gold = set(first["shared"]), {t: s["gold"] for t, s in _per_type(first).items()}
        labels = sorted(((t, t in shared) for t in gold if gold[t]), key=lambda pair: (pair[1], pair[0]))
        scores = {
            (v, t): seed_summary([_per_type(run).get(t, {}).get("f1", 0.0) for run in runs[v]])
            for v in variants for t, _ in labels
        }  # fmt: skip
        made[target] = Typed(variants, labels, scores, gold)
    return made


def _per_type(run: Run) -> dict[str, dict[str, float]]:
    return run["dev"]["per_type"]


def _types(grid: Grid) -> list[str]:
    parts: list[str] = []
    for target, found in _typed(grid).items():
        rows = [[t, "yes" if shared else "no", str(found.gold[t]), *(spread(found.scores[v, t]) for v in found.variants)]
                for t, shared in found.labels]  # fmt: skip
        for kind in (False, True):
            labels = [t for t, shared in found.labels if shared == kind]
            if labels:
                means = [statistics.fmean(found.scores[v, t].mean for t in labels) for v in found.variants]
                rows.append([f"**mean of {len(labels)}**", "yes" if kind else "no", "", *(percent(m) for m in means)])
        names = ["type", "shared", "gold", *(v.name for v in found.variants)]
        parts += ([""] if parts else []) + [f"**{target}**", "", *table(names, rows, left=2)]
    return parts


# -- sweeps: figures 3 and 4 -------------------------------------------------------------------------------------------

Sweep = dict[str, dict[Variant, dict[float, SeedSummary]]]


def _dimensions(grid: Grid) -> Sweep:
    """Target → variant without its size → dimension → F1."""

    def at(variant: Variant, row: Row) -> tuple[Variant, float] | None:
        if variant.few or variant.start != "single" or variant.method != "laner":
            return None
        return replace(variant, size=None), float(row.runs[0]["settings"]["tagger"]["label_size"])

    return _swept(grid, at)


def _sizes(grid: Grid) -> Sweep:
    """Target → variant without its number of sentences → that number → F1."""

    def at(variant: Variant, row: Row) -> tuple[Variant, float] | None:
        if not variant.few.startswith("n") or variant.size is not None:
            return None
        return replace(variant, few=""), float(variant.few[1:])

    return _swept(grid, at)


def _swept(grid: Grid, at: Callable[[Variant, Row], tuple[Variant, float] | None]) -> Sweep:
    found: Sweep = {}
    for (variant, target), row in grid.rows.items():
        place = at(variant, row)
        if place is not None:
            found.setdefault(target, {}).setdefault(place[0], {})[place[1]] = row.scores
    return {t: lines for t, lines in found.items() if any(len(p) > 1 for p in lines.values())}


def _sweep(sweep: Sweep, column: str) -> list[str]:
    rows = []
    for target, lines in sweep.items():
        ticks = sorted({x for p in lines.values() for x in p})
        columns = [[p.get(x) for x in ticks] for p in lines.values()]
        for i, x in enumerate(ticks):
            rows.append([target, f"{x:g}", *("–" if c[i] is None else spread(c[i]) for c in columns)])
    names = list(dict.fromkeys(v.name for lines in sweep.values() for v in lines))
    return table(["target", column, *names], rows, left=1)


# -- time and notes --------------------------------------------------------------------------------------------------


def _times(grid: Grid) -> list[str]:
    rows = []
    for variant in grid.variants:
        own = [row for (v, _), row in grid.rows.items() if v == variant]
        runs = [run for row in own for run in row.runs]
        seconds = [run["seconds"] for run in runs]
        longest = max(seconds, key=lambda s: s["training"])["training"]
        sources = [s["sources"] for s in seconds if s["sources"]]
        rate = sum(run["dev_sentences"] for run in runs) / max(1e-9, sum(s["reading"] for s in seconds))
        rows.append([
            variant.name, f"{statistics.fmean(s['training'] for s in seconds):.0f}", f"{longest:.0f}",
            f"{statistics.fmean(sources):.0f}" if sources else "–", f"{rate:.1f}",
        ])  # fmt: skip
    names = ["arm", "training from a ready source, s", "the longest", "source stages, s", "dev sentences/s"]
    return table(names, rows, left=1)


def _caption(runs: Sequence[Run]) -> str:
    encoders = sorted({run["backbone"]["name"] for run in runs if run["dev"] is not None})
    text = f"Exact-span micro-F1 on dev in %, mean ± sd over seeds. Encoder: {', '.join(encoders)}."
    if runs[0]["limit"] is not None:
        text = f"**A trial: the first {runs[0]['limit']} sentences of each file only. No results.** {text}"
    return text


def _notes(runs: Sequence[Run], grid: Grid) -> list[str]:
    own = [run for row in grid.rows.values() for run in row.runs]
    sources = sorted({f"{' → '.join(s['sources'])}: {s['sentences']:,} sentences, {s['epochs']} epochs, rate {s['rate']:g}"
                      for run in own for s in run["sources"]})  # fmt: skip
    epochs = sorted({run["settings"]["training"]["epochs"] for run in own})
    chosen = "; ".join(f"{row.arm} on {row.target} {row.rate:g}" for row in grid.rows.values())
    made = [
        RULE,
        "`without-lc`, `without-lb`: LANER without label context, label background; `plain`: without both, the paper's "
        "BERT-tagger; `forward`: label LSTM in one direction; `+none`: no source; `+dN`: label dimension; `+nN`: N training "
        "sentences; `+kN`: at least N mentions of each type; `+dapt`: on an adapted encoder.",
        f"Target: {' or '.join(map(str, epochs))} epochs; the epoch was chosen on dev (a sample of it where `dev_limit` says "
        "so), and so was the rate, on the first seed among three. Dev is thus not unseen, in the same way for every arm.",
        f"Rates chosen: {chosen}.",
    ]
    if sources:
        made.append("Source stages (the last epoch counts; shared by targets): " + "; ".join(sources) + ".")
    if any("minilm" in run["backbone"]["name"].lower() for run in own):
        made.append("MiniLM-L6 lower-cases its input; `-shape` gives the shapes of words back.")
    made += [f"* {row.arm} on {row.target}: {'; '.join(row.missing)}." for row in grid.rows.values() if row.missing]
    failed = sorted({(run["arm"], run["target"]) for run in runs} - {(r.arm, r.target) for r in grid.rows.values()})
    made += [f"{arm} on {target}: every rate failed, so it has no row." for arm, target in failed]
    for what in ("commit", "machine", "versions"):
        made.append(f"{what}: " + "; ".join(sorted({flat(run[what]) for run in runs})))
    return made
