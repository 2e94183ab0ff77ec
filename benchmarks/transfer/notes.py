"""Captions and notes: what one must know to read a table of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.layout import flat
from benchmarks.transfer.options import INSTRUCTED_ON
from xdner.evaluation import RULE

__all__ = ["BOOTSTRAP", "caption", "notes"]

Run = dict[str, Any]
BOOTSTRAP = (
    "Comparison: paired bootstrap over dev sentences, 10,000 resamples, two-sided, each sentence's counts summed over the "
    "seeds that both have; for a mean over targets, each target's sentences are drawn by themselves. The interval says "
    "how the difference between these runs varies with the sentences, not how it varies with the seeds."
)


def caption(runs: Sequence[Run]) -> str:
    """Track, backbone and δ₀ in a sentence or two, with what they have seen."""
    first = runs[0]
    text = f"Exact-span micro-F1 on dev in %, mean ± sd over seeds. Track `{first['track']}` ({first['backbone']['name']})."
    adapted = first.get("adapted")
    if adapted:
        text += f" It is {adapted['base']}, which has gone on reading unlabelled text ({adapted['tokens']:,} tokens)."
    if "instructed" in (first["track"], "" if adapted is None else adapted["kind"]):
        seen = ", ".join(INSTRUCTED_ON)
        text += f" **The backbone has seen the sources {seen} in its instruction tuning, so `none` has seen them too.**"
        known = sorted({run["target"] for run in runs} & set(INSTRUCTED_ON))
        if known:
            text += f" **It has also seen the training sentences of the targets {', '.join(known)}.**"
    if first["initial"] == "shared":
        text += " δ₀ was trained on all of a target's sources together, so `none` and `single` have seen them too."
    if first["asked"]["limit"] is not None:
        text = f"**A trial: the first {first['asked']['limit']} sentences of each file only. No results.** {text}"
    return text


def notes(runs: Sequence[Run]) -> list[str]:
    """How the runs were made, and which failed."""
    asked = runs[0]["asked"]
    steps = sorted({(str(run["target"]), str(run["k"]), run["steps"]["planned"]) for run in runs})
    told = "; ".join(
        f"{target}{'' if k == 'all' else ' ' + k} {_range([n for t, s, n in steps if (t, s) == (target, k)])}"
        for target, k in dict.fromkeys((t, k) for t, k, _ in steps)
    )
    made = [
        RULE,
        f"Every strategy makes the same number of optimizer steps on the target, {asked['steps']} or a few more (whole "
        f"epochs, a multiple of the number of sources): {told}. Sources' own training is not counted; it is in the runs' "
        "`seconds.sources`.",
        "The last epoch counts; dev chose nothing but the best single source."
        if asked["epoch"] == "last"
        else "In every run the epoch was chosen on dev, which is thus not unseen.",
        f"Dev: at most {asked['dev_cap']} sentences, the same in all runs of a target; carved from train where there is "
        "no dev file, before anything else is sampled.",
        "k: at least so many mentions of each type; the sample changes with the seed, and its sentences' ids are in the "
        "run's `manifest`. ± thus holds both samples and training. Sources were prepared once, with one seed.",
    ]
    dropped = sorted({f"{run['target']}: {flat(run['dropped'])}" for run in runs if run.get("dropped")})
    if dropped:
        also = ", ".join(asked.get("drop_also", []))
        whose = f"the target has them, or one of {also}" if also else "the target has them"
        made.append(f"Sentences taken out of the sources because {whose}: " + "; ".join(dropped) + ".")
    made += [
        f"{run['method']} on {run['target']} {run['k']}, seed {run['seed']} failed: {run['error']}."
        for run in runs
        if run["error"]
    ]
    for what in ("commit", "machine", "versions"):
        made.append(f"{what}: " + "; ".join(sorted({flat(run[what]) for run in runs})))
    return made


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
