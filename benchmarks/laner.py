"""LANER against its baselines, from CoNLL-2003 to other domains: Tables 2 to 4, Figures 2 to 4, and CP-NER's Table 2.

    python benchmarks/laner.py                                         # core: plain+none, plain, crf, laner; CrossNER
    python benchmarks/laner.py --plan table3 figure3 figure4           # ablation, label dimension, 10 to 100 sentences
    python benchmarks/laner.py --plan cpner2                           # no source, a chain of sources, an ensemble
    python benchmarks/laner.py --arms laner plain --targets ai         # arms by name, see tagging/variants.py
    python benchmarks/laner.py --adapted FOLDER                        # each arm also on an encoder of `xdner adapt`
    python benchmarks/laner.py --table                                 # tables and figures from the files of the runs
    python benchmarks/laner.py --speed                                 # sentences of 30 words a second, by head

A source stage is trained once for each source, structure, rate and seed, and shared by all targets. The rate of each arm
on each target is chosen on the first seed by dev and kept for the others. A run whose file is there is not made again:
the same command goes on where it was stopped, a source stage from its last checkpoint.

It needs the data, `xdner backbones pull minilm-l6`, and for figures the extra `plots`. On a core, a pass over CoNLL-2003 takes
nine to twelve minutes, for each rate that is tried and each seed (`--source-rate` is one for all); core about five hours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]

if TYPE_CHECKING:
    from benchmarks.tagging.bench import Bench


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.program import common_options, rate
    from benchmarks.tagging.variants import PLANS

    made = argparse.ArgumentParser(
        prog="laner.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--plan", nargs="+", choices=list(PLANS), default=["core"], metavar="PLAN", help=f"of: {', '.join(PLANS)}")
    add("--arms", nargs="+", default=[], metavar="ARM", help="instead of the plans' own, e.g. laner+none plain+n20")
    add("--targets", nargs="+", default=[], metavar="NAME", help="only these of the plans' targets; of --arms, these")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="the first one chooses the rates")
    add("--rates", nargs="+", type=rate, default=[5e-5, 1e-4, 2e-4], metavar="R", help="tried for every arm")
    add("--encoder", default="minilm-l6", metavar="BACKBONE", help="alias, hub id or folder")
    add("--adapted", metavar="BACKBONE", help="a folder of `xdner adapt`: every arm also on it, as ARM+dapt")
    add("--source", default="conll2003", metavar="NAME", help="of arms with one source")
    add("--sources", nargs="+", default=["conll2003", "politics", "literature", "music"], metavar="NAME",
        help="of chains and ensembles, in this order")  # fmt: skip
    add("--source-epochs", type=int, default=1, metavar="N", help="passes over each source")
    add("--source-rate", type=rate, metavar="R", help="one rate for all source stages (else that of the target's)")
    add("--per-source", type=int, default=0, metavar="N", help="sentences of each source, at most (0: all)")
    add("--train-cap", type=int, default=0, metavar="N", help="training sentences of a target, at most (0: all)")
    add("--dev-cap", type=int, default=600, metavar="N", help="dev sentences of a target, at most; so many are carved "
        "from train where there is no dev file")  # fmt: skip
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of every arm")
    add("--speed", action="store_true", help="train nothing; time the reading of sentences with each head")
    common_options(
        made,
        "runs/laner",
        of_out="folder of the runs' files; source stages go to OUT-stages",
        table="run nothing; tables and figures from the files of the runs",
    )
    return made


def bench(options: argparse.Namespace) -> Bench:
    """What all runs share."""
    from benchmarks.tagging.bench import ALL, Bench

    return Bench(
        options.encoder, options.data, options.out, adapted=options.adapted, source=options.source,
        sources=tuple(options.sources), source_epochs=options.source_epochs, source_rate=options.source_rate,
        per_source=options.per_source or ALL, train_cap=options.train_cap or ALL, dev_cap=options.dev_cap,
        overrides=tuple(options.set), device=options.device, limit=options.limit,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="the next run, or a source stage from its last checkpoint")


def _work(options: argparse.Namespace) -> None:
    from benchmarks.program import tell_drawn
    from benchmarks.tables import load_runs
    from benchmarks.tagging.report import draw, markdown
    from benchmarks.tagging.speed import reading_speeds

    if options.speed:
        print(reading_speeds(bench(options)), end="")
        return
    if not options.table:
        _run(options)
    runs = load_runs(options.out)
    print(markdown(runs), end="")
    tell_drawn(draw(runs, options.out))


def _run(options: argparse.Namespace) -> None:
    from benchmarks.program import budget, say
    from benchmarks.runs import Plan, Runner
    from benchmarks.tagging.bench import TaggingArm
    from benchmarks.tagging.variants import parts_of
    from xdner.training.progress import RichProgress

    shared, began = bench(options), time.monotonic()
    chosen = list(parts_of(options.plan, options.arms, options.targets, options.adapted is not None))
    for variants, targets in chosen:
        left = budget(options, time.monotonic() - began)
        arms = [TaggingArm(variant, tuple(options.rates), shared) for variant in variants]
        plan = Plan(arms, targets, options.seeds, options.out, shared.corpora, left, "laner")
        Runner(plan, say=say, progress=RichProgress).go()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
