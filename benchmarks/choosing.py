"""Which recognizer when? F1, training time, memory and speed of each, side by side on one target and one machine.

    python benchmarks/choosing.py                              # all recognizers on ai, 100 training sentences
    python benchmarks/choosing.py --choices laner plain --limit 8
    python benchmarks/choosing.py --table                      # the table again, from the files of the runs
    python benchmarks/choosing.py --table --write docs/CHOOSING.md   # the page's table

Each recognizer learns the same sentences with the settings that `xdner train` has, in a process of its own; another
process loads what was stored and reads sentences of 30 words. A run whose file is there is not made again, so the same
command goes on where it was stopped. Below the table stands the command that makes its runs. A new kind of recognizer is
one more function in `choices.py`.

It needs the data, `xdner backbones pull` of smollm2-135m-ner, smollm2-135m and minilm-l6 (what is not there is left out), and the
extras `instruct` and `retrieval`. On a core, a recognizer without a source takes five to fifteen minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Recognizers by name, as in ``choices.py``, which loads all that they need.
NAMES = ("cp-ner", "laner", "laner-source", "plain", "plain-source", "if-wraner", "if-wraner-source")


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.program import common_options

    made = argparse.ArgumentParser(
        prog="choosing.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--choices", nargs="+", choices=NAMES, default=list(NAMES), metavar="NAME",
        help=f"of: {', '.join(NAMES)}")  # fmt: skip
    add("--target", default="ai", metavar="NAME", help="folder of the data")
    add("--train-cap", type=int, default=100, metavar="N", help="training sentences, at most")
    add("--dev-cap", type=int, default=200, metavar="N", help="dev sentences, at most")
    add("--seeds", nargs="+", type=int, default=[1], metavar="N")
    add("--source", default="conll2003", metavar="NAME", help="what is learned first, by those with a source")
    add("--per-source", type=int, default=600, metavar="N", help="sentences of it, at most")
    add("--source-epochs", type=int, default=3, metavar="N", help="passes of a tagger over it")
    add("--backbone", default="smollm2-135m-ner", metavar="BACKBONE", help="of prefixes: alias, hub id or folder")
    add("--encoder", default="minilm-l6", metavar="BACKBONE", help="of taggers: alias, hub id or folder")
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of prefixes")
    add("--tagger-set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of taggers")
    add("--llm", default="smollm2-135m", metavar="BACKBONE", help="that is shown examples: alias, hub id or folder")
    add("--wraner-set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of IF-WRANER")
    add("--dtype", default="float32", help="of frozen weights: float32, bfloat16 or auto")
    add("--write", type=Path, metavar="PAGE", help="put the table between the marks of this page, too")
    common_options(
        made,
        "runs/choosing",
        of_out="folder of the runs' files and the stored domains",
        table="run nothing; print the table of the runs that are there",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="the next recognizer")


def _work(options: argparse.Namespace) -> None:
    from benchmarks.choices import Plan, make_runs
    from benchmarks.choices_table import markdown, write_page
    from benchmarks.program import budget, say

    if not options.table:
        plan = Plan(
            options.target, options.data, options.backbone, options.encoder, options.train_cap, options.dev_cap,
            options.source, options.per_source, options.source_epochs, options.llm, tuple(options.set),
            tuple(options.tagger_set), tuple(options.wraner_set), options.dtype, options.device, options.limit,
        )  # fmt: skip
        make_runs(plan, options.choices, options.seeds, options.out, say, budget(options))
    text = markdown(options.out)
    print(text, end="")
    if options.write is not None:
        write_page(options.write, text)
        say(f"written: {options.write}")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
