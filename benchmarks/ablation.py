"""What does the collaborative prefix lose without each of its parts, and without each source? The paper's Figure 4.

    python benchmarks/ablation.py --drop-shared
    python benchmarks/ablation.py --drop-shared --without options warm-up --targets ai
    python benchmarks/ablation.py --table              # table and figure from the files of the runs

Runs lie where ``cross_domain.py`` has its own: what it made (the full method, the ends of the sweep over α) is not made
again. Without options, δ₀ and the sources are prepared anew, as their prompts have no options either.

It needs what ``cross_domain.py`` needs; 108 runs of four to six minutes of a core, less what is there already.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]

if TYPE_CHECKING:
    from benchmarks.transfer.options import Options
    from benchmarks.transfer.specs import Spec

Run = dict[str, Any]
PARTS = ("entity-similarity", "prefix-similarity", "warm-up", "options")
EACH_SOURCE = "sources"
FULL = "collaborative"


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.transfer.options import add_options, mentions

    made = argparse.ArgumentParser(
        prog="ablation.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--targets", nargs="+", default=["ai", "science", "mit-movie", "mit-restaurant"], metavar="NAME",
        help="folders of the data")  # fmt: skip
    add("--k", nargs="+", type=mentions, default=[10], metavar="K", help="mentions per type on --few-shot, or all")
    add("--without", nargs="+", default=[*PARTS, EACH_SOURCE], metavar="PART",
        help=f"of: {', '.join(PARTS)}, the name of a source, or {EACH_SOURCE} for each of them in turn")  # fmt: skip
    add_options(made)
    return made


def specs(given: argparse.Namespace, options: Options) -> list[Spec]:
    """The runs that the options ask for, the full method included."""
    from benchmarks.transfer.specs import ablated, conditions

    parts = [p for part in given.without for p in (options.sources if part == EACH_SOURCE else (part,))]
    return ablated(options, conditions(given.targets, given.few_shot, given.k), parts, given.seeds)


def variants(runs: Sequence[Run]) -> dict[str, str]:
    """What a row is called → its method: the full one, and the same without each part that there are runs for."""
    from benchmarks.transfer.options import Options
    from benchmarks.transfer.specs import Spec, without

    options = Options.from_asked(runs[0]["asked"], Path(), Path())
    there = {run["method"] for run in runs}
    full = Spec("", None, FULL, options.sources, 0, options.alpha)
    parts = [*PARTS, *(options.sources if len(options.sources) > 1 else ())]
    named = {f"without {part}": without(full, part).method(options) for part in parts}
    return {"full method": FULL} | {name: method for name, method in named.items() if method in there - {FULL}}


def markdown(runs: Sequence[Run]) -> str:
    """Table, comparison and notes.

    Raises:
        DataError: there is no run of the full method.
    """
    from benchmarks.layout import table
    from benchmarks.transfer.comparison import Results, difference, of_same_seeds
    from benchmarks.transfer.notes import BOOTSTRAP, caption, notes
    from benchmarks.transfer.report import always, groups_of, score_table
    from xdner.errors import DataError

    named = variants(runs)
    own = [run for run in runs if run["method"] in named.values()]
    results, shown = Results(own), [always(name, method) for name, method in named.items()]
    where = [c for c in results.conditions if results.get(c, FULL) and len(results.methods(c)) > 1]
    if not where:
        raise DataError(
            "no target has runs of the full method and of a variant", hint="Run benchmarks/ablation.py without --table."
        )
    lines = []
    for condition in where:
        full = results.get(condition, FULL)
        for name, method in [*named.items()][1:]:
            found = difference(results.get(condition, method), full)
            if found is not None:
                lines.append([str(condition), name, *found.cells(), ", ".join(map(str, found.seeds))])
    names = ["target", "", "minus the full method, points", "95 % interval", "p", "seeds"]
    parts = ["# What the collaborative prefix loses without its parts", "", caption(own), ""]
    alike, told = of_same_seeds(results, {c: named.values() for c in where})
    parts += score_table(alike, shown, where, groups_of(where), "")
    parts += ["", " ".join(told)] if told else []
    parts += ["", "## Against the full method", "", *table(names, lines, left=2), "", BOOTSTRAP] if lines else []
    noted = [
        "Without entity similarity, α = 0: the prefixes alone choose; without prefix similarity, α = 1: the types' names "
        "alone do.",
        "Without warm-up, the target's prefix is δ₀ when sources are mixed in, the names alone choose, and all steps come "
        "afterwards.",
        "Without options, no prompt names the domain's types: neither the target's nor the sources'.",
    ]
    if own[0]["initial"] == "shared":
        noted.append("δ₀ was trained on all sources; a source that is left out is still in it.")
    return "\n".join([*parts, "", "## Notes", "", *(f"- {note}" for note in [*noted, *notes(own)])]) + "\n"


def draw(runs: Sequence[Run], folder: Path) -> Iterator[Path]:
    """``ablation.png``: bars for what is left out, a dashed line at the full method."""
    from benchmarks.transfer.comparison import Results, of_same_seeds
    from benchmarks.transfer.figures import Bars, draw_bars
    from benchmarks.transfer.report import scores

    whole, named = Results(runs), variants(runs)
    results, _ = of_same_seeds(whole, {c: named.values() for c in whole.conditions})
    groups = []
    for condition in results.conditions:
        level = scores(results, condition, FULL)
        bars = [(name.replace("without ", "– "), scores(results, condition, m)) for name, m in [*named.items()][1:]]
        known = [(name, value) for name, value in bars if value is not None]
        if level is not None and known:
            groups.append(Bars(str(condition), known, level))
    if groups:
        yield draw_bars(groups, folder / "ablation.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns:
        The exit code: 1 after an error, 130 after Ctrl-C.
    """
    from benchmarks.program import guarded
    from benchmarks.transfer.program import run_and_report
    from xdner.__main__ import prepare_environment

    prepare_environment()
    given = parser().parse_args(arguments)
    return guarded(lambda: run_and_report(given, specs, markdown, draw))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
