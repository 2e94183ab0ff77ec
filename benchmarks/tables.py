"""The table and the comparison, as Markdown, from the JSON files of runs and from nothing else."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.layout import cells, flat, header, percent, points
from benchmarks.record import read_json
from benchmarks.runs import Run, chosen_rate, f1_of
from xdner.errors import DataError
from xdner.evaluation import RULE, SeedSummary, paired_bootstrap_counts, seed_summary

__all__ = ["Row", "compared", "load_runs", "markdown", "refuse_mixed", "rows_of"]

# The order of rows; other arms follow by name.
ORDER = (
    "prefix-instructed", "prefix-raw", "lora-instructed", "full-instructed", "lora-raw", "full-raw", "minilm",
    "minilm-sources",
)  # fmt: skip
PREFIXES = ("prefix-instructed", "prefix-raw")
_KEYS = {"benchmark", "arm", "target", "seed", "first_seed", "rate", "rates", "limit", "data", "dev"}


@dataclass(frozen=True)
class Row:
    """One arm on one target, at its chosen rate.

    Attributes:
        arm, target, rate: see :mod:`benchmarks.runs`.
        runs: that succeeded at that rate, by seed.
        scores: dev micro-F1 over the seeds, from 0 to 1.
        missing: what is not there yet or went wrong, in words.
    """

    arm: str
    target: str
    rate: float
    runs: tuple[Run, ...]
    scores: SeedSummary
    missing: tuple[str, ...]

    @property
    def by_seed(self) -> dict[int, float]:
        """Seed → F1."""
        return {run["seed"]: value for run, value in zip(self.runs, self.scores.values, strict=True)}


def load_runs(out: Path) -> list[Run]:
    """All runs of a folder.

    Raises:
        DataError: there are none, one is no run, or they do not belong together: of several programs, trials on a few
            sentences among full runs, other data, or another first seed.
    """
    runs = [_read(path) for path in sorted(out.glob("*/*/seed*-rate*.json"))]
    if not runs:
        raise DataError(f"there are no runs in {out}", hint="Run the benchmark first, or give its folder with --out.")
    programs = sorted({run["benchmark"] for run in runs})
    if len(programs) > 1:
        raise DataError(
            f"{out} mixes runs of {' and '.join(programs)}", hint="Give the folder of one of them with --out."
        )
    limits = {run["limit"] for run in runs}
    if len(limits) > 1:
        counts = ", ".join(
            f"{sum(run['limit'] == limit for run in runs)} {'full' if limit is None else f'with --limit {limit}'}"
            for limit in sorted(limits, key=lambda x: (x is not None, x))
        )
        raise DataError(f"{out} mixes full runs and trials: {counts}", hint="Give trials an --out of their own.")
    for what, belongs in (("data", lambda r: r["data"]), ("first seed", lambda r: r["first_seed"])):
        for target in sorted({run["target"] for run in runs}):
            seen = {str(belongs(run)) for run in runs if run["target"] == target}
            if len(seen) > 1:
                raise DataError(
                    f"the runs on {target} in {out} do not have the same {what}: {' and '.join(sorted(seen))}",
                    hint="Remove the runs of one kind, or give each an --out of its own.",
                )
    return runs


def _read(path: Path) -> Run:
    run = read_json(path)
    if missing := _KEYS - run.keys():
        raise DataError(f"{path} is no run of a benchmark: it lacks {', '.join(sorted(missing))}",
                        hint="Move it away, or give another folder with --out.")  # fmt: skip
    return run


def refuse_mixed(runs: Iterable[Run], options: Callable[[Run], Mapping[str, Any]]) -> None:
    """What stands in one table was made alike, whichever arm it is of.

    Args:
        options: of a run; those that two runs both have must be equal.

    Raises:
        DataError: they are not.
    """
    first: dict[str, tuple[Any, str]] = {}
    for run in runs:
        title = f"{run['arm']} on {run['target']}, seed {run['seed']}"
        for name, value in options(run).items():
            kept, other = first.setdefault(name, (value, title))
            if kept != value:
                raise DataError(
                    f"{other}, and {title} were made with different options: {name} is {kept!r} and {value!r}",
                    hint="Give each an --out of its own, or make the runs of one kind again.",
                )


def rows_of(runs: Iterable[Run]) -> list[Row]:
    """One row for each arm and target, at the rate chosen on the first seed; none for an arm that failed wholly."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run["target"], run["arm"]].append(run)
    rows = []
    for (target, arm), group in sorted(groups.items(), key=lambda item: (item[0][0], _place(item[0][1]))):
        first = [run for run in group if run["seed"] == run["first_seed"]]
        rate = chosen_rate(first)
        if rate is None:
            continue
        kept = sorted((r for r in group if r["rate"] == rate and f1_of(r) is not None), key=lambda r: r["seed"])
        wanted = max((run["rates"] for run in first), key=len)
        missing = []
        if len(first) < len(wanted):
            missing.append(f"{len(first)} of {len(wanted)} rates tried")
        missing += [f"seed {r['seed']} at {r['rate']:g}: {r['error']}" for r in group if f1_of(r) is None]
        others = {run["seed"] for run in group} - {run["seed"] for run in (*kept, *first)}
        missing += [f"seed {seed} was run at other rates only" for seed in sorted(others)]
        scores = seed_summary([f1 for run in kept if (f1 := f1_of(run)) is not None])
        rows.append(Row(arm, target, rate, tuple(kept), scores, tuple(missing)))
    return rows


def compared(a: Row, b: Row) -> dict[str, float]:
    """Paired bootstrap over dev sentences, counts summed over each side's seeds.

    Returns:
        ``delta``, ``low``, ``high`` from 0 to 1, ``p_value``, and ``ratio``: the mean of ``a`` as a share of that of
        ``b`` (not a number where that is 0).
    """
    counts = [[np.array(r["dev"]["sentence_counts"], dtype=np.int64).reshape(-1, 3) for r in x.runs] for x in (a, b)]
    found = paired_bootstrap_counts(*counts)
    ratio = a.scores.mean / b.scores.mean if b.scores.mean else float("nan")
    return {
        "delta": found.delta, "low": found.interval.low, "high": found.interval.high, "p_value": found.p_value,
        "ratio": ratio,
    }  # fmt: skip


def markdown(runs: Sequence[Run]) -> str:
    """The whole report: table, comparison, and what one must know to read them."""
    rows = rows_of(runs)
    if not rows:
        raise DataError("no run succeeded", hint="The files' `error` says why; try lower rates.")
    refuse_mixed((run for run in runs if f1_of(run) is not None), _model_of)
    parts = ["## Exact-span micro-F1 on dev, in %", "", *_table(rows)]
    comparison = _comparison(rows)
    if comparison:
        parts += ["", "## Paired comparison", "", *comparison]
    parts += ["", "## Notes", "", *(f"- {note}" for note in _notes(runs, rows))]
    return "\n".join(parts) + "\n"


def _model_of(run: Run) -> dict[str, Any]:
    """Arms that are called after one backbone must have had the same one, and an arm's runs the same type of weights."""
    which = run["arm"].partition("-")[2] or run["arm"]
    found = {
        f"{which}'s weights": run.get("backbone", {}).get("fingerprint"),
        f"{run['arm']}'s dtype": run.get("dtype"),
    }
    return {what: value for what, value in found.items() if value is not None}


# -- parts ---------------------------------------------------------------------------------------------------------------


def _place(arm: str) -> tuple[int, str]:
    return (ORDER.index(arm) if arm in ORDER else len(ORDER), arm)


def _scores(scores: SeedSummary, by_seed: dict[int, float]) -> list[str]:
    seeds = ", ".join(f"{seed}: {percent(value)}" for seed, value in by_seed.items())
    if scores.standard_deviation is None or scores.interval is None:
        return [seeds, percent(scores.mean), "one seed"]
    low, high = scores.interval
    return [
        seeds,
        f"{percent(scores.mean)} ± {percent(scores.standard_deviation)}",
        f"[{percent(low)}, {percent(high)}]",
    ]


def _table(rows: Sequence[Row]) -> list[str]:
    lines = header(
        "target", "arm", "trained weights", "rate", "F1 of each seed", "mean ± sd", "95 % interval of the mean", left=2
    )
    for row in rows:
        weights = f"{row.runs[0]['trained_weights']:,}"
        mark = " *" if row.missing else ""
        lines.append(
            cells(row.target, row.arm + mark, weights, f"{row.rate:g}", *_scores(row.scores, row.by_seed))
        )  # fmt: skip
    return lines + _means(rows)


def _means(rows: Sequence[Row]) -> list[str]:
    """For arms that ran on all targets: the mean over targets of each seed that they share."""
    targets = sorted({row.target for row in rows})
    lines: list[str] = []
    if len(targets) < 2:
        return lines
    for arm in sorted({row.arm for row in rows}, key=_place):
        own = [row for row in rows if row.arm == arm]
        seeds = set.intersection(*(set(row.by_seed) for row in own))
        if len(own) < len(targets) or not seeds:
            continue
        means = {seed: statistics.fmean(row.by_seed[seed] for row in own) for seed in sorted(seeds)}
        lines.append(cells("mean of " + ", ".join(targets), arm, "", "", *_scores(seed_summary(means.values()), means)))
    return lines


def _comparison(rows: Sequence[Row]) -> list[str]:
    lines: list[str] = []
    headlines: list[str] = []
    for target in sorted({row.target for row in rows}):
        here = {row.arm: row for row in rows if row.target == target}
        for name in (n for n in PREFIXES if n in here):
            backbone = name.removeprefix("prefix")
            same = [here[what + backbone] for what in ("full", "lora") if what + backbone in here]
            best = max(same, key=lambda row: row.scores.mean).arm if same else ""
            among = " and ".join(row.arm for row in same)
            for other in here.values():
                if other.arm == name or (other.arm in PREFIXES and name == PREFIXES[1]):
                    continue
                found = compared(here[name], other)
                mark = " (best tuned, same backbone)" if other.arm == best else ""
                interval = f"[{points(found['low'])}, {points(found['high'])}]"
                ratio = "–" if math.isnan(found["ratio"]) else f"{100 * found['ratio']:.1f} %"
                lines.append(
                    cells(target, name, other.arm + mark, points(found["delta"]), interval,
                           f"{found['p_value']:.4f}", ratio)
                )  # fmt: skip
                if other.arm == best and other.scores.mean:
                    headlines.append(
                        f"**{target}: {name} reaches {ratio} of {best}**, the best by mean of {among}: "
                        f"{points(found['delta'])} points {interval}, p = {found['p_value']:.4f}."
                    )
    if not lines:
        return []
    head = header(
        "target", "a", "b", "a − b, points", "95 % interval", "p", "mean of a / mean of b", left=3
    )  # fmt: skip
    return [*(line for headline in headlines for line in (headline, "")), *head, *lines]


def _notes(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    notes = [RULE]
    if runs[0]["limit"] is not None:
        notes.insert(0, f"**A trial: the first {runs[0]['limit']} sentences of each file only. These are no results.**")
    firsts = ", ".join(str(seed) for seed in sorted({run["first_seed"] for run in runs}))
    notes += [
        f"Each arm's rate was chosen on seed {firsts} by dev F1 among those tried and kept for the other seeds; the "
        "epoch was chosen on dev in every run. Dev is thus not unseen, in the same way for every arm.",
        "± is the standard deviation over seeds; the interval of the mean is Student's t over seeds (three seeds: "
        "4.3 standard errors on either side).",
        "Comparison: paired bootstrap over dev sentences, 10,000 resamples, two-sided; each sentence's counts are "
        "summed over the seeds of an arm. Its interval says how the difference varies with the sentences.",
    ]
    best = [f"{row.arm} on {row.target}: {_tried(row, runs)}" for row in rows]
    notes.append("Dev F1 of each rate on the first seed: " + "; ".join(best) + ".")
    notes += _sameness(rows)
    taggers = [row.runs[0] for row in rows if row.arm.startswith("minilm")]
    if taggers:
        epochs = sorted({run["settings"]["training"]["epochs"] for run in taggers})
        notes.append(
            f"The taggers train {' or '.join(map(str, epochs))} epochs, and the best one on dev counts. "
            "MiniLM-L6 lower-cases its input."
        )
    notes += [f"* {row.arm} on {row.target}: {'; '.join(row.missing)}." for row in rows if row.missing]
    succeeded = {(row.arm, row.target) for row in rows}
    failed = sorted({(run["arm"], run["target"]) for run in runs} - succeeded)
    notes += [f"{arm} on {target}: every rate failed, so it has no row." for arm, target in failed]
    for what in ("commit", "machine", "versions"):
        notes.append(f"{what}: " + "; ".join(sorted({flat(run[what]) for run in runs})))
    return notes


def _tried(row: Row, runs: Sequence[Run]) -> str:
    first = [r for r in runs if (r["arm"], r["target"], r["seed"]) == (row.arm, row.target, r["first_seed"])]
    scores = ((run["rate"], f1_of(run)) for run in sorted(first, key=lambda r: r["rate"]))
    return ", ".join(f"{rate:g} → {'failed' if f1 is None else percent(f1)}" for rate, f1 in scores)


def _sameness(rows: Sequence[Row]) -> list[str]:
    """Whether the arms of the language model really had the same codec, decoder and training but for the rate."""
    seen: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for run in row.runs:
            if "codec" not in run["settings"]:
                continue
            for group in ("codec", "decoding", "training"):
                for key, value in run["settings"][group].items():
                    if (group, key) not in (("training", "seed"), ("training", "learning_rate")):
                        seen[f"{group}.{key}"].add(str(value))
    differ = [f"{key} ({' and '.join(sorted(values))})" for key, values in seen.items() if len(values) > 1]
    if not seen:  # taggers only
        return []
    if differ:
        return ["**The arms of the language model differ in more than what is trained: " + ", ".join(differ) + ".**"]
    return [
        "The arms of the language model have the same codec, decoder, loop and stopping rule; only the rates differ."
    ]
