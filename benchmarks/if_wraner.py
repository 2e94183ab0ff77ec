"""IF-WRANER with its language model: which examples are shown, how many, from how large a pool, and how it was tuned.

    python benchmarks/if_wraner.py --dtype bfloat16                    # core: word, random, word+plain; CrossNER but the sources
    python benchmarks/if_wraner.py --plan retrievers k pool            # word, sentence, BM25, random, none; k 0 to 10; pools
    python benchmarks/if_wraner.py --plan regularization rules own     # each regularization; rules and poolings; own tuning
    python benchmarks/if_wraner.py --arms word sentence --encoders mpnet=mpnet-base@8      # several embedding models
    python benchmarks/if_wraner.py --table                             # tables and figures from the files of the runs

The language model is tuned on the sources once for each regularization, retriever and k in tuning, rate and seed, and all
arms that read with it share it. Nothing is trained on a target: its train file is the pool, its dev file is read. A run whose
file is there is not made again: the same command goes on where it was stopped, tuning from its last checkpoint.

It needs the data, `xdner backbones pull` of smollm2-135m and minilm-l6, and the extras `instruct`, `retrieval` and `plots`. On a
core in bfloat16, tuning takes 70 to 90 minutes and a sentence two seconds: core is about eleven hours.
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
    from benchmarks.wraner.bench import Bench


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.program import common_options, rate
    from benchmarks.wraner.variants import PLANS, RETRIEVERS

    made = argparse.ArgumentParser(
        prog="if_wraner.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--plan", nargs="+", choices=list(PLANS), default=["core"], metavar="PLAN", help=f"of: {', '.join(PLANS)}")
    add(
        "--arms",
        nargs="+",
        default=[],
        metavar="ARM",
        help="instead of the plans' own, e.g. word+k3 random+own none+raw",
    )
    add("--targets", nargs="+", default=[], metavar="NAME", help="instead of all of CrossNER that are no sources")
    add(
        "--sources",
        nargs="+",
        default=["politics", "music"],
        metavar="NAME",
        help="that the language model is tuned on",
    )
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="the first one chooses among --rates")
    add("--rates", nargs="+", type=rate, default=[5e-4], metavar="R", help="of tuning")
    add(
        "--tune-with",
        choices=RETRIEVERS,
        default="word",
        metavar="M",
        help="retriever in tuning (arms +own: their own)",
    )
    add("--tune-k", type=int, metavar="N", help="examples in a prompt in tuning (else retrieval.k)")
    add("--llm", default="smollm2-135m", metavar="BACKBONE", help="alias, hub id or folder of a causal model")
    add("--dtype", default="float32", help="of its weights: float32, bfloat16 or auto")
    add("--encoders", nargs="+", default=[], metavar="NAME=BACKBONE[@LAYER]",
        help="word and sentence also with these, as ARM+enc-NAME")  # fmt: skip
    add("--dev-cap", type=int, default=200, metavar="N", help="dev sentences of a target, at most")
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of every arm")
    common_options(
        made,
        "runs/if_wraner",
        of_out="folder of the runs' files; adapters go to OUT-adapters",
        table="run nothing; tables and figures from the files of the runs",
    )
    return made


def bench(options: argparse.Namespace) -> Bench:
    """What all runs share."""
    from benchmarks.wraner.bench import Bench, encoders_of

    return Bench(
        options.llm, options.data, options.out, sources=tuple(options.sources), tune_with=options.tune_with,
        tune_k=options.tune_k, encoders=encoders_of(options.encoders), dev_cap=options.dev_cap,
        overrides=tuple(options.set), dtype=options.dtype, device=options.device, limit=options.limit,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="the next run, or tuning from its last checkpoint")


def _work(options: argparse.Namespace) -> None:
    from benchmarks.program import tell_drawn
    from benchmarks.tables import load_runs
    from benchmarks.wraner.report import draw, markdown

    if not options.table:
        _run(options)
    runs = load_runs(options.out)
    print(markdown(runs), end="")
    tell_drawn(draw(runs, options.out))


def _run(options: argparse.Namespace) -> None:
    from benchmarks.program import budget, say
    from benchmarks.runs import Plan, Runner
    from benchmarks.wraner.bench import WranerArm
    from benchmarks.wraner.variants import chosen
    from xdner.training.progress import RichProgress

    shared, began = bench(options), time.monotonic()
    variants, targets = chosen(
        options.plan, options.arms, options.targets, sources=options.sources, encoders=list(shared.encoders)
    )
    for seeded in (False, True):  # where nothing is drawn, one seed says all
        rates, seeds = options.rates, options.seeds if seeded else options.seeds[:1]
        arms = [WranerArm(v, tuple(rates if v.tuning != "raw" else rates[:1]), shared) for v in variants
                if v.seeded == seeded]  # fmt: skip
        left = budget(options, time.monotonic() - began)
        if arms:
            plan = Plan(arms, targets, seeds, options.out, shared.corpora, left, "if_wraner")
            Runner(plan, say=say, progress=RichProgress).go()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
