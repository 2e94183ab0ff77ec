"""Does an encoder that has read unlabelled text of a domain recognize its entities better?

    python benchmarks/adaptation.py                             # plain, adapted; five targets, three seeds
    python benchmarks/adaptation.py --text wiki-ai.txt --targets ai
    python benchmarks/adaptation.py --table                     # the table again, from the files of the runs

The same plain tagger (an encoder with one linear layer, all weights tuned) on two encoders: as it came, and after `xdner
adapt` on plain text. Without --text, that text is the words of the train files of --text-from, without their labels: no
new text at all, and very little of it, so this is the least that adaptation can do. Dev files are never read for it.

One encoder is adapted for each seed, on all the text, and kept in OUT-encoders. The rate of the tagger is chosen on the
first seed by dev and kept for the others. A run whose file is there is not made again: the same command goes on where it
was stopped, and an adaptation from its last checkpoint.

It needs the data and `xdner backbones pull minilm-l6`; 50 runs of up to ten minutes of a core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.adapted import Adaptation

ROOT = Path(__file__).resolve().parents[1]
CROSSNER = ("politics", "science", "music", "literature", "ai")


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.program import common_options, rate

    made = argparse.ArgumentParser(
        prog="adaptation.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--targets", nargs="+", default=list(CROSSNER), metavar="NAME", help="folders of the data")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="the first one chooses the rates")
    add("--rates", nargs="+", type=rate, default=[5e-5, 1e-4, 2e-4], metavar="R", help="of the taggers")
    add("--text", nargs="+", type=Path, default=[], metavar="FILE", help="unlabelled text, one document a line")
    add("--text-from", nargs="+", default=list(CROSSNER), metavar="NAME", help="else: the words of these train files")
    add("--encoder", default="minilm-l6", metavar="BACKBONE", help="alias, hub id or folder")
    add("--sources", nargs="+", default=[], metavar="NAME", help="both arms learn these labelled sources first")
    add("--per-source", type=int, default=600, metavar="N", help="sentences of each source, at most (0: all)")
    add("--source-epochs", type=int, default=10, metavar="N", help="epochs on the sources")
    add("--source-rate", type=rate, default=1e-4, metavar="R", help="rate on the sources")
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of the adaptation")
    add("--tagger-set", nargs="+", action="extend", default=[], metavar="K=V", help="training settings of the taggers")
    common_options(
        made,
        "runs/adaptation",
        of_out="folder of the runs' JSON files; encoders go to OUT-encoders",
        table="run nothing; print the table of the runs that are there",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments, left="the next run, or an adaptation from its last checkpoint")


def _work(options: argparse.Namespace) -> None:
    from benchmarks.adapted import markdown
    from benchmarks.tables import load_runs

    if not options.table:
        _run(options)
    print(markdown(load_runs(options.out)), end="")


def _run(options: argparse.Namespace) -> None:
    from benchmarks.adapted import AdaptedArm
    from benchmarks.arms import Arm, Corpora
    from benchmarks.program import budget, say
    from benchmarks.runs import Plan, Runner
    from benchmarks.tagger_baseline import SourceStage, TaggerArm
    from xdner.training.progress import RichProgress

    corpora = Corpora(options.data, options.limit)
    stage = SourceStage(
        corpora, options.out.with_name(options.out.name + "-stages"), tuple(options.sources), options.per_source,
        options.source_epochs, options.source_rate, options.seeds[0], options.device,
    )  # fmt: skip
    plain = TaggerArm(
        "plain", options.encoder, tuple(options.rates), stage if options.sources else None, tuple(options.tagger_set),
        options.device,
    )  # fmt: skip
    arms: list[Arm] = [plain, AdaptedArm("adapted", plain, _adaptation(options))]
    plan = Plan(arms, options.targets, options.seeds, options.out, corpora, budget(options), "adaptation")
    Runner(plan, say=say, progress=RichProgress).go()


def _adaptation(options: argparse.Namespace) -> Adaptation:
    from benchmarks.adapted import Adaptation, words_of
    from benchmarks.arms import Corpora

    folder = options.out.with_name(options.out.name + "-encoders")  # beside the runs: it has JSON files of its own
    texts = tuple(options.text)
    origin = f"unlabelled text ({', '.join(path.name for path in texts)})"
    if not texts:
        texts = (words_of(Corpora(options.data, options.limit), options.text_from, folder / "words.txt"),)
        origin = f"the words of the train files of {', '.join(options.text_from)}, without labels"
    return Adaptation(options.encoder, texts, folder, origin, tuple(options.set), options.device)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
