"""Does a new domain profit from known ones, and does the collaborative prefix profit most? Tables 1 and 2.

    python benchmarks/cross_domain.py --drop-shared                        # none and collaborative, four targets
    python benchmarks/cross_domain.py --drop-shared --plan full            # all strategies, targets and sizes
    python benchmarks/cross_domain.py --drop-shared --alphas 0 0.25 0.5 0.75 1 --source-counts 1 2 3 4
    python benchmarks/cross_domain.py --drop-shared --plan table1 --track adapted --adapted FOLDER --beside raw   # DAPT
    python benchmarks/cross_domain.py --drop-shared --initial shared --beside instruction     # δ₀ of the sources
    python benchmarks/cross_domain.py --table                              # tables and figures from the files of the runs

Every strategy makes the same number of optimizer steps on the target. δ₀ and the sources' prefixes are made once and
kept. A run whose file is there is not made again, so the same command goes on where it was stopped.

It needs the data, `xdner backbones pull` of the track's backbone, and for figures the extra `plots`. On a core, a run takes four
to six minutes and a source up to half an hour: the core plan (24 runs) three to four hours, the full one (210) most of a day.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]

if TYPE_CHECKING:
    from benchmarks.transfer.comparison import Run
    from benchmarks.transfer.options import Options
    from benchmarks.transfer.specs import Spec

CORE = ("ai", "science", "mit-movie", "mit-restaurant")
TABLE_1 = ("politics", "music", "literature")
STRATEGIES = ("none", "single", "chain", "ensemble", "collaborative")


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.transfer.options import add_options, mentions

    made = argparse.ArgumentParser(
        prog="cross_domain.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--plan", choices=["core", "table1", "full"], default="core", help="core: none and collaborative on the four targets of "
        "Table 2, k = 10; table1: none and the first source alone, on CrossNER; full: all of Tables 1 and 2. --targets, "
        "--strategies and --k say otherwise")  # fmt: skip
    add("--targets", nargs="+", metavar="NAME", help="folders of the data; one that is a source gets none and single")
    add("--strategies", nargs="+", choices=STRATEGIES, metavar="NAME", help=f"of: {', '.join(STRATEGIES)}")
    add("--k", nargs="+", type=mentions, metavar="K", help="mentions per type on the targets of --few-shot, or all")
    add("--alphas", nargs="+", type=float, default=[], metavar="A", help="collaborative with each α (a sweep)")
    add("--source-counts", nargs="+", type=int, default=[], metavar="N", help="the first N of --sources (a sweep)")
    add("--beside", choices=["raw", "instructed", "instruction"], metavar="OTHER", help="runs that were made before with the "
        "same options: for --track adapted, Table 1 of the track raw or instructed; for --initial shared, `none` from the "
        "instruction, which has seen no source")  # fmt: skip
    add_options(made)
    return made


def specs(given: argparse.Namespace, options: Options) -> list[Spec]:
    """The runs that the options ask for."""
    from benchmarks.transfer.specs import alphas, conditions, counts, planned

    full, one = given.plan == "full", given.plan == "table1"
    targets = given.targets or ([*TABLE_1, *CORE[:2]] if one else [*CORE, *(TABLE_1 if full else ())])
    where = conditions(targets, given.few_shot, given.k or ([10, 20, 50] if full else [10]))
    strategies = given.strategies or (STRATEGIES if full else ("none", "single" if one else "collaborative"))
    chosen = planned(options, where, strategies, given.seeds)
    if one:
        chosen = [spec for spec in chosen if spec.sources in ((), options.sources[:1])]
    return [
        *chosen,
        *alphas(options, where, given.alphas, given.seeds),
        *counts(options, where, given.source_counts, given.seeds),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns:
        The exit code: 1 after an error, 130 after Ctrl-C.
    """
    from xdner.__main__ import prepare_environment

    prepare_environment()
    given = parser().parse_args(arguments)
    from benchmarks.program import guarded
    from benchmarks.transfer.program import run_and_report
    from benchmarks.transfer.report import draw

    return guarded(lambda: run_and_report(given, specs, lambda runs: _markdown(runs, given), draw))


def _markdown(runs: list[Run], given: argparse.Namespace) -> str:
    from benchmarks.transfer.adapted import beside
    from benchmarks.transfer.beside import beside_instruction
    from benchmarks.transfer.report import markdown

    if given.beside is None:
        return markdown(runs)
    if given.beside == "instruction":
        return markdown(runs) + "\n" + beside_instruction(runs, given.out / f"{given.track}-instruction")
    return markdown(runs) + "\n" + beside(runs, given.out / f"{given.beside}-{given.initial}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
