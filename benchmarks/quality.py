"""Is a small prefix as good as tuning the whole model? One table in one metric.

    python benchmarks/quality.py                       # everything: hours on a small machine
    python benchmarks/quality.py --arms prefix-instructed full-instructed --budget-minutes 60
    python benchmarks/quality.py --table               # the table again, from the files of the runs

Exact-span micro-F1, train → dev: a prefix on the raw and on the instructed backbone; LoRA and all weights of each, with
the same codec, decoder and stopping rule; and a plain MiniLM-L6 tagger with and without the sources that the instructed
backbone has seen. The rate of each arm is chosen on the first seed by dev and kept for the others.

A run whose file is there is not made again, so the same command goes on where it was stopped.

It needs the data, `xdner backbones pull` of smollm2-135m-ner and minilm-l6, and the extra `instruct`. On a core, a run takes ten
minutes (taggers) to fifty (all weights); everything is 80 runs, more than a day.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.arms import Arm

ROOT = Path(__file__).resolve().parents[1]
RATES: dict[str, tuple[float, ...]] = {
    "prefix": (3e-3, 1e-2, 2e-2),
    "lora": (2e-4, 5e-4, 1e-3),
    "full": (1e-5, 3e-5, 1e-4),
    "minilm": (3e-5, 5e-5, 1e-4),
}
ARMS = (
    "prefix-raw", "prefix-instructed", "lora-raw", "lora-instructed", "full-raw", "full-instructed", "minilm",
    "minilm-sources",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.program import common_options

    made = argparse.ArgumentParser(
        prog="quality.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=f"of: {', '.join(ARMS)}")
    add("--targets", nargs="+", default=["ai", "science"], metavar="NAME", help="folders of the data")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="the first one chooses the rates")
    add("--rates", nargs="+", type=_rates, default=[], metavar="KIND=R,R,R", help="e.g. prefix=3e-3,1e-2 full=3e-5 "
        "(defaults: " + " ".join(f"{k}={','.join(f'{r:g}' for r in v)}" for k, v in RATES.items()) + ")")  # fmt: skip
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of the language model's arms")
    add("--tagger-set", nargs="+", action="extend", default=[], metavar="K=V", help="training settings of the taggers")
    add("--raw", default="smollm2-135m", metavar="BACKBONE", help="alias, hub id or folder")
    add("--instructed", default="smollm2-135m-ner", metavar="BACKBONE", help="alias, hub id or folder")
    add("--encoder", default="minilm-l6", metavar="BACKBONE", help="of the taggers")
    add("--per-source", type=int, default=1000, metavar="N", help="sentences of each source, at most (0: all)")
    add("--source-epochs", type=int, default=10, metavar="N", help="epochs of minilm-sources on the sources")
    add("--source-rate", type=float, default=1e-4, metavar="R", help="its rate on the sources")
    add("--dtype", default="float32", help="of frozen weights: float32, bfloat16 or auto")
    common_options(
        made,
        "runs/quality",
        of_out="folder of the runs' JSON files",
        table="run nothing; print the table of the runs that are there",
    )
    return made


def arms(options: argparse.Namespace) -> list[Arm]:
    """The arms that the options ask for."""
    from benchmarks.arms import Corpora, LanguageModelArm
    from benchmarks.tagger_baseline import SourceStage, TaggerArm

    rates, corpora = RATES | dict(options.rates), Corpora(options.data, options.limit)
    stage = SourceStage(
        corpora, options.out.with_name(options.out.name + "-stages"), per_source=options.per_source,
        epochs=options.source_epochs, rate=options.source_rate, seed=options.seeds[0], device=options.device,
    )  # fmt: skip
    made: list[Arm] = []
    for name in options.arms:
        kind, _, variant = name.partition("-")
        tried = rates[kind]
        if kind == "minilm":
            made.append(
                TaggerArm(
                    name, options.encoder, tried, stage if variant else None, tuple(options.tagger_set), options.device
                )
            )  # fmt: skip
        else:
            backbone = options.raw if variant == "raw" else options.instructed
            made.append(
                LanguageModelArm(
                    name, kind, backbone, tried, tuple(options.set), dtype=options.dtype, device=options.device
                )
            )  # fmt: skip
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="the next run")


def _work(options: argparse.Namespace) -> None:
    from benchmarks.tables import load_runs, markdown

    if not options.table:
        _run(options)
    print(markdown(load_runs(options.out)), end="")


def _run(options: argparse.Namespace) -> None:
    from benchmarks.arms import Corpora
    from benchmarks.program import budget, say
    from benchmarks.runs import Plan, Runner
    from xdner.training.progress import RichProgress

    plan = Plan(
        arms(options), options.targets, options.seeds, options.out, Corpora(options.data, options.limit),
        budget(options),
    )  # fmt: skip
    Runner(plan, say=say, progress=RichProgress).go()


def _rates(text: str) -> tuple[str, tuple[float, ...]]:
    kind, _, values = text.partition("=")
    if kind not in RATES:
        raise argparse.ArgumentTypeError(f"{text!r} should be KIND=R,R,R with KIND one of {', '.join(RATES)}")
    from benchmarks.program import rate

    try:
        return kind, tuple(rate(value) for value in values.split(","))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
