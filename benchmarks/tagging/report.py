"""The papers' tables and figures from the files of runs, and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.grid import GOAL_NAMES, Grid, Sweep, best_marked, failures, sweep_table
from benchmarks.layout import flat, percent, table
from benchmarks.runs import Run
from benchmarks.tables import Row, refuse_mixed
from benchmarks.tagging.variants import CROSSNER, METHODS, Variant
from benchmarks.transfer.comparison import spread
from benchmarks.transfer.figures import Line, Panel, draw_groups, draw_lines
from benchmarks.transfer.notes import BOOTSTRAP
from xdner.evaluation import RULE, SeedSummary, seed_summary

__all__ = ["GOALS", "draw", "grid_of", "markdown"]

PLAIN = Variant("plain")
LANER = Variant("laner")
NONE = Variant("plain", "none")
#: a, b, and by how many points a should be better, in the mean over CrossNER.
GOALS = ((LANER, PLAIN, 1.5), (LANER, Variant("crf"), 0.5), (PLAIN, NONE, 5.0))
STARTS = {"none": "no source", "single": "one source", "chain": "chain of sources", "ensemble": "ensemble over sources"}


def grid_of(runs: Sequence[Run]) -> Grid[Variant]:
    """Variants in the order of the paper's tables.

    Raises:
        DataError: no run succeeded, or they were made with different options.
    """
    refuse_mixed(runs, lambda run: dict(_options(run)))
    return Grid.of(runs, Variant.parse, lambda v: (
        v.dapt, list(METHODS).index(v.method), list(STARTS).index(v.start), v.size or 0, v.few[:1], int(v.few[1:] or 0),
    ))  # fmt: skip


def _options(run: Run) -> Iterator[tuple[str, Any]]:
    """What must not differ in one table, if two runs have it."""
    asked = run.get("asked", {})
    for name in ("overrides", "dev_cap", "train_cap"):
        if name in asked:
            yield name, asked[name]
    if "backbone" in run:  # a run that diverged has none
        yield "the adapted encoder" if Variant.parse(run["arm"]).dapt else "the encoder", run["backbone"]["fingerprint"]
    if sources := asked.get("sources"):
        yield from ((f"the file of {name}", value) for name, value in sources["files"].items())
        yield from ((f"sources' {name}", sources[name]) for name in ("per_source", "epochs", "rate"))


def markdown(runs: Sequence[Run]) -> str:
    """Every table that the runs have something for.

    Raises:
        DataError: no run succeeded.
    """
    grid = grid_of(runs)
    parts = ["# LANER and its baselines", "", _caption(runs)]
    whole = [v for v in grid.variants if not v.few and v.size is None]
    single = [v for v in whole if v.start == "single"]
    for title, chosen in (
        ("Tables 2 and 3: from one source", single),
        ("Table 4: in the domain alone", [v for v in whole if v.start == "none"]),
    ):
        if chosen:
            parts += ["", f"## {title}", "", *grid.score_table(chosen)]
    several = [v for v in grid.variants if v.start in ("chain", "ensemble")]
    if several:
        parts += ["", "## CP-NER's Table 2: rows of LANER", "", *_starts(grid, several)]
    compared = grid.comparison(_pairs(grid))
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
            parts += ["", f"## {title}", "", *sweep_table(sweep, column)]
    parts += ["", "## Time", "", *_times(grid)]
    return "\n".join([*parts, "", "## Notes", "", *(f"- {note}" for note in _notes(runs, grid))]) + "\n"


def draw(runs: Sequence[Run], folder: Path) -> Iterator[Path]:
    """The figures that the runs have points for: ``types-TARGET.png``, ``dimension.png``, ``sentences.png``."""
    grid = grid_of(runs)
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


def _starts(grid: Grid[Variant], several: Sequence[Variant]) -> list[str]:
    places = [(v.few, t) for v in several for t in grid.targets if (v, t) in grid.rows]
    places = sorted(set(places), key=lambda p: (p[0] != "", p[1], int(p[0][1:] or 0)))
    methods = list(dict.fromkeys((v.method, v.dapt) for v in several))
    shown = [(m, d, s) for m, d in methods for s in STARTS
             if any((Variant(m, s, None, few, d), t) in grid.rows for few, t in places)]  # fmt: skip
    columns = [[grid.scores(Variant(m, s, None, few, d), t) for m, d, s in shown] for few, t in places]
    names = [f"{m}{' + dapt' if d else ''}, {STARTS[s]}" for m, d, s in shown]
    return table(["arm", *(f"{t} {few}".strip() for few, t in places)], best_marked(columns, names), left=1)


def _pairs(grid: Grid[Variant]) -> Iterator[tuple[Variant, Variant]]:
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


def _goals(grid: Grid[Variant]) -> list[str]:
    lines = [line for a, b, wanted in GOALS if (line := grid.goal(a, b, wanted, CROSSNER)) is not None]
    return table(GOAL_NAMES, lines, left=1) if lines else []


# -- figure 2 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Typed:
    """F1 by type on a target: the types with whether the source has them, those it has last, as in the paper."""

    variants: list[Variant]
    labels: list[tuple[str, bool]]
    scores: dict[tuple[Variant, str], SeedSummary]
    gold: dict[str, int]


def _typed(grid: Grid[Variant]) -> dict[str, Typed]:
    """Where both ``laner`` and ``plain`` went from a source, with what is adapted."""
    made = {}
    for target in grid.targets:
        variants = [v for v in (PLAIN, LANER, replace(PLAIN, dapt=True), replace(LANER, dapt=True))
                    if (v, target) in grid.rows]  # fmt: skip
        if not {PLAIN, LANER} <= set(variants):
            continue
        runs = {v: list(grid.runs(v, target).values()) for v in variants}
        first = runs[LANER][0]
        shared, gold = set(first["shared"]), {t: int(s["gold"]) for t, s in _per_type(first).items()}
        labels = sorted(((t, t in shared) for t in gold if gold[t]), key=lambda pair: (pair[1], pair[0]))
        scores = {
            (v, t): seed_summary([_per_type(run).get(t, {}).get("f1", 0.0) for run in runs[v]])
            for v in variants for t, _ in labels
        }  # fmt: skip
        made[target] = Typed(variants, labels, scores, gold)
    return made


def _per_type(run: Run) -> dict[str, dict[str, float]]:
    return run["dev"]["per_type"]


def _types(grid: Grid[Variant]) -> list[str]:
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


def _dimensions(grid: Grid[Variant]) -> Sweep[Variant]:
    """Target → variant without its size → dimension → F1."""

    def at(variant: Variant, row: Row) -> Iterator[tuple[Variant, float]]:
        if not variant.few and variant.start == "single" and variant.method == "laner":
            yield replace(variant, size=None), float(row.runs[0]["settings"]["tagger"]["label_size"])

    return grid.swept(at)


def _sizes(grid: Grid[Variant]) -> Sweep[Variant]:
    """Target → variant without its number of sentences → that number → F1."""

    def at(variant: Variant, row: Row) -> Iterator[tuple[Variant, float]]:
        if variant.few.startswith("n") and variant.size is None:
            yield replace(variant, few=""), float(variant.few[1:])

    return grid.swept(at)


# -- time and notes --------------------------------------------------------------------------------------------------


def _times(grid: Grid[Variant]) -> list[str]:
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


def _tried(runs: Sequence[Run], grid: Grid[Variant]) -> str:
    """Whether every arm had the same rates to choose from."""
    tried: dict[tuple[str, str], set[float]] = {(row.arm, row.target): set() for row in grid.rows.values()}
    for run in runs:
        if run["seed"] == run["first_seed"] and (run["arm"], run["target"]) in tried:
            tried[run["arm"], run["target"]].add(run["rate"])
    kinds = sorted({tuple(sorted(rates)) for rates in tried.values()})
    told = " or ".join(", ".join(f"{rate:g}" for rate in rates) for rates in kinds)
    return f"Rates tried: {told}." if len(kinds) == 1 else f"**The arms did not try the same rates: {told}.**"


def _seeds(grid: Grid[Variant]) -> str:
    """Whether every row has the same seeds."""
    own = {f"{row.arm} on {row.target}": ", ".join(map(str, row.by_seed)) for row in grid.rows.values()}
    most = max(own.values(), key=lambda seeds: seeds.count(","))
    odd = "; ".join(f"{name} {seeds}" for name, seeds in own.items() if seeds != most)
    if not odd:
        return f"Seeds: {most}."
    return f"**Not every row has the same seeds: {most}, but {odd}.** Comparisons have those of both."


def _notes(runs: Sequence[Run], grid: Grid[Variant]) -> list[str]:
    own = [run for row in grid.rows.values() for run in row.runs]
    sources = sorted({f"{' → '.join(s['sources'])}: {s['sentences']:,} sentences, {s['epochs']} epochs, rate {s['rate']:g}"
                      for run in own for s in run["sources"]})  # fmt: skip
    epochs = sorted({run["settings"]["training"]["epochs"] for run in own})
    chosen = "; ".join(f"{row.arm} on {row.target} {row.rate:g}" for row in grid.rows.values())
    made = [
        RULE,
        "`without-lc`, `without-lb`: LANER without label context, label background; `plain`: without both, the paper's "
        "BERT-tagger; `forward`: label LSTM in one direction; `laner-beam`: reads with a beam of 4; `laner-own`: trained on "
        "30 % of its own labels; `+none`: no source; `+dN`: label dimension; `+nN`: N training sentences; `+kN`: at least N "
        "mentions of each type; `+dapt`: on an adapted encoder.",
        f"Target: {' or '.join(map(str, epochs))} epochs; the epoch was chosen on dev (a sample of it where `dev_limit` says "
        "so), and so was the rate, on the first seed. Dev is thus not unseen, in the same way for every arm.",
        f"{_tried(runs, grid)} Chosen: {chosen}.",
        _seeds(grid),
    ]
    if sources:
        made.append("Source stages (the last epoch counts; shared by targets): " + "; ".join(sources) + ".")
    if any("minilm" in run["backbone"]["name"].lower() for run in own):
        made.append("MiniLM-L6 lower-cases its input; `-shape` gives the shapes of words back.")
    made += failures(runs, grid.rows.values())
    for what in ("commit", "machine", "versions"):
        made.append(f"{what}: " + "; ".join(sorted({flat(run[what]) for run in runs})))
    return made
