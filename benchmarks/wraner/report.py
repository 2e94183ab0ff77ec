"""Tables and figures from the files of runs, and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.grid import GOAL_NAMES, Grid, Sweep, failures, sweep_table
from benchmarks.layout import flat, table
from benchmarks.runs import Run
from benchmarks.tables import Row, refuse_mixed
from benchmarks.transfer.figures import Line, Panel, draw_lines
from benchmarks.transfer.notes import BOOTSTRAP
from benchmarks.wraner.variants import RETRIEVERS, RULES, TUNINGS, Variant
from xdner.evaluation import RULE

__all__ = ["draw", "grid_of", "markdown"]

WORD, RANDOM, PLAIN = Variant("word"), Variant("random"), Variant("word", tuning="plain")
REGULARIZED = ("", "dup", "shuf", "plain")
#: What all arms of a table have in common; those that are tuned otherwise say so in their names.
ALIKE = ("llm", "dtype", "overrides", "template", "dev_cap", "sources", "tune_with", "tune_k")


def grid_of(runs: Sequence[Run]) -> Grid[Variant]:
    """Retrievers in their order, each with its own variants.

    Raises:
        DataError: no run succeeded, or they were made with different options.
    """
    refuse_mixed(runs, lambda run: {name: value for name, value in run.get("asked", {}).items() if name in ALIKE})
    rules, tunings = ["", *RULES], list(TUNINGS)
    return Grid.of(runs, Variant.parse, lambda v: (
        tunings.index(v.tuning), v.own, RETRIEVERS.index(v.retriever), v.encoder, v.n or 0, -1 if v.k is None else v.k,
        rules.index(v.rule), v.pooling, -1 if v.layer is None else v.layer,
    ))  # fmt: skip


def markdown(runs: Sequence[Run]) -> str:
    """Every table that the runs have something for.

    Raises:
        DataError: no run succeeded, or they were made with different options.
    """
    grid = grid_of(runs)
    unseen = grid.seen_as("unseen")
    parts = ["# IF-WRANER", "", _caption(runs)]
    for title, chosen in _groups(grid):
        parts += ["", f"## {title}", "", *grid.score_table(chosen)]
    chosen = [v for v in grid.variants if v.tuning in REGULARIZED and v == replace(WORD, tuning=v.tuning)]
    lacking = [v for v in chosen if v in unseen.variants]
    if len(chosen) > 1:
        parts += ["", "## With and without each regularization", "", *grid.score_table(chosen)]
        if lacking:
            parts += ["", "On the types that the sources lack:", "", *unseen.score_table(lacking)]
    for title, column, sweep in _sweeps(grid):
        parts += ["", f"## {title}", "", *sweep_table(sweep, column)]
    parts += ["", "## Intervals over sentences", "", *grid.interval_table(grid.variants)]
    compared = grid.comparison(_pairs(grid))
    if compared:
        parts += ["", "## Paired comparison", "", *compared, "", BOOTSTRAP]
    strangers = unseen.comparison((WORD, other) for other in lacking if other != WORD)
    if strangers:
        parts += ["", "On the types that the sources lack:", "", *strangers]
    goals = _goals(grid, unseen)
    if goals:
        parts += ["", "## Goals, means over the targets", "", *goals]
    parts += ["", "## Time", "", *_times(grid)]
    return "\n".join([*parts, "", "## Notes", "", *(f"- {note}" for note in _notes(runs, grid))]) + "\n"


def draw(runs: Sequence[Run], folder: Path) -> Iterator[Path]:
    """The figures that the runs have points for: ``k.png`` and ``pool.png``."""
    grid = grid_of(runs)
    for name, across, sweep in (
        ("k", "examples in the prompt", _by_k(grid)), ("pool", "examples in the pool", _by_pool(grid))
    ):  # fmt: skip
        if sweep:
            panels = [
                Panel(t, [Line(v.name, sorted(p.items())) for v, p in lines.items()]) for t, lines in sweep.items()
            ]
            ticks = sorted({x for lines in sweep.values() for p in lines.values() for x in p})
            yield draw_lines(panels, folder / f"{name}.png", across=across, ticks=ticks)


# -- parts ---------------------------------------------------------------------------------------------------------------


def _groups(grid: Grid[Variant]) -> Iterator[tuple[str, list[Variant]]]:
    """Tables of scores: a title, and the variants in it."""
    plain = [v for v in grid.variants if v == v.plainly]
    for title, chosen in (
        ("Retrievers, read by the same tuned model", [v for v in plain if not v.own and not v.tuning]),
        ("Retrievers, each with a model that was tuned with it", [v for v in plain if v.own and not v.tuning]),
        ("Retrievers, read by the model as it came", [v for v in plain if v.tuning == "raw"]),
        ("From words to examples", _worded(grid)),
        ("Encoders", _encoded(grid)),
    ):
        if chosen and (title[0] == "R" or len(chosen) > 1):
            yield title, chosen


def _worded(grid: Grid[Variant]) -> list[Variant]:
    return [v for v in grid.variants if v == replace(WORD, rule=v.rule, pooling=v.pooling, layer=v.layer)]


def _encoded(grid: Grid[Variant]) -> list[Variant]:
    found = [v for v in grid.variants if v == Variant(v.retriever, encoder=v.encoder)]
    several = {v.retriever for v in found if v.encoder}
    return [v for v in found if v.retriever in several]


def _sweeps(grid: Grid[Variant]) -> Iterator[tuple[str, str, Sweep[Variant]]]:
    for title, column, sweep in (
        ("Examples in the prompt", "k", _by_k(grid)), ("Examples in the pool", "examples", _by_pool(grid))
    ):  # fmt: skip
        if sweep:
            yield title, column, sweep


def _by_k(grid: Grid[Variant]) -> Sweep[Variant]:
    """``none`` is the point 0 of every line of its tuning."""
    lines = {v.plainly for v in grid.variants if v.k is not None and v == replace(v.plainly, k=v.k)}

    def at(variant: Variant, row: Row) -> Iterable[tuple[Variant, float]]:
        if variant.retriever == "none":
            yield from ((line, 0.0) for line in lines if line == replace(variant, retriever=line.retriever))
        elif variant.plainly in lines and variant == replace(variant.plainly, k=variant.k):
            yield variant.plainly, float(row.runs[0]["settings"]["retrieval"]["k"])

    return grid.swept(at)


def _by_pool(grid: Grid[Variant]) -> Sweep[Variant]:
    """The whole pool is the last point of a line."""
    lines = {v.plainly for v in grid.variants if v.n is not None and v == replace(v.plainly, n=v.n)}

    def at(variant: Variant, row: Row) -> Iterable[tuple[Variant, float]]:
        if variant.plainly in lines and variant == replace(variant.plainly, n=variant.n):
            yield variant.plainly, float(max(run["used_examples"] for run in row.runs))

    return grid.swept(at)


def _pairs(grid: Grid[Variant]) -> Iterator[tuple[Variant, Variant]]:
    """What is worth a comparison: words and every other way, and each mark and none."""
    there = set(grid.variants)
    for v in grid.variants:
        if v.retriever == "word" and v == v.plainly:
            yield from ((v, other) for m in RETRIEVERS[1:] if (other := replace(v, retriever=m)) in there)
        if v == v.plainly and v.tuning and replace(v, tuning="") in there:
            yield replace(v, tuning=""), v
        if v.own and replace(v, own=False) in there:
            yield v, replace(v, own=False)
        worded = v == replace(WORD, rule=v.rule, pooling=v.pooling, layer=v.layer)
        if v != WORD and WORD in there and worded:
            yield WORD, v
        if v.encoder and replace(v, encoder="") in there:
            yield v, replace(v, encoder="")


def _goals(grid: Grid[Variant], unseen: Grid[Variant]) -> list[str]:
    """The project's own: retrieval over random examples, and what regularization is for."""
    own = replace(WORD, own=True), replace(RANDOM, own=True)
    found = []
    for where, a, b, wanted, what in (
        (grid, WORD, RANDOM, 3.0, ""), (grid, *own, 3.0, ""), (unseen, WORD, PLAIN, 0.1, ", types that the sources lack"),
    ):  # fmt: skip
        both = [t for t in where.targets if (a, t) in where.rows and (b, t) in where.rows]
        found.append(where.goal(a, b, wanted, both, f"{what} ({', '.join(both)})") if both else None)
    lines = [line for line in found if line is not None]
    return table(GOAL_NAMES, lines, left=1) if lines else []


def _times(grid: Grid[Variant]) -> list[str]:
    rows = []
    for variant in grid.variants:
        runs = [run for (v, _), row in grid.rows.items() if v == variant for run in row.runs]
        tuning = [run["seconds"]["tuning"] for run in runs if run["seconds"]["tuning"]]
        read = sum(run["dev_sentences"] for run in runs) / max(1e-9, sum(run["seconds"]["reading"] for run in runs))
        dropped = sum(run["notes"].get("dropped_demonstrations", 0) for run in runs)
        rows.append([variant.name, f"{statistics.fmean(tuning):.0f}" if tuning else "–", f"{read:.2f}", str(dropped)])
    return table(["arm", "tuning, s", "dev sentences/s", "examples without room"], rows, left=1)


def _caption(runs: Sequence[Run]) -> str:
    models = sorted({f"{run['backbone']['name']} ({run['dtype']})" for run in runs if run["dev"] is not None})
    text = f"Exact-span micro-F1 on dev in %, mean ± sd over seeds. Language model: {', '.join(models)}."
    if runs[0]["limit"] is not None:
        text = f"**A trial: the first {runs[0]['limit']} sentences of each file only. No results.** {text}"
    return text


def _notes(runs: Sequence[Run], grid: Grid[Variant]) -> list[str]:
    own = [run for row in grid.rows.values() for run in row.runs]
    made = [
        RULE,
        "Nothing is trained on a target: its training sentences are the examples. Arms without `+own` are read by one model, "
        "tuned with the retriever and k below; so they differ in what is shown, not in what was learned. `+raw` is not tuned; "
        "where nothing is drawn, it has one seed. The last epoch of tuning counts.",
        "Intervals over sentences: 95 % percentile bootstrap over dev sentences, 1,000 resamples, each sentence's counts summed "
        "over seeds.",
    ]
    rates = sorted({f"{row.rate:g}" for row in grid.rows.values()})
    made.append(f"Rates chosen: {', '.join(rates)} (on the first seed by dev, if there were several).")
    for run in {r["tuned"]["key"]: r["tuned"] for r in own if r["tuned"]}.values():
        how, regularization = run["retrieval"], run["tune"]
        method = f"word ({how['aggregation']})" if how["method"] == "word" else how["method"]
        made.append(
            f"Tuned `{run['key']}`: {', '.join(run['sources'])} ({', '.join(map(str, run['sentences']))} sentences), "
            f"{method}, k = {how['k']}, duplicate {regularization['duplicate']:g}, remove "
            f"{regularization['remove']:g}, shuffle {regularization['shuffle']:g}, seed {how['seed']}; {run['steps']} steps, "
            f"{run['seconds']:.0f} s; {run['short'][0]} examples without room."
        )
    for target in grid.targets:
        first = next(run for run in own if run["target"] == target)
        lacking = ", ".join(first["unseen_labels"]) or "none"
        made.append(f"{target}: {first['train_sentences']} examples, {first['dev_sentences']} dev sentences; types that the "
                    f"sources lack: {lacking}.")  # fmt: skip
    made += failures(runs, grid.rows.values())
    for what in ("commit", "machine", "versions"):
        made.append(f"{what}: " + "; ".join(sorted({flat(run[what]) for run in runs})))
    return made
