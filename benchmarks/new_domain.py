"""What do the domains that ship bring to a new one? Few labelled sentences, from nothing and with their help.

    python benchmarks/new_domain.py                                     # examples that ship, MIT corpora; 20 sentences
    python benchmarks/new_domain.py --targets cooking --sentences 10 20 50 --seeds 1 2 3 4 5
    python benchmarks/new_domain.py --table                             # the table again, from the files of the runs

Targets are the example domains that ship (scored on their test sentences) and folders of the data (on dev; where there is
none, a part carved from train first). Both arms start from the δ₀ that ships and make equally many steps. The sources
are all domains that ship but those that have seen a sentence of the target. Nothing is chosen on the sentences that
are scored. A run whose file is there is not made again.

It needs `xdner backbones pull smollm2-135m-ner`, and for the MIT corpora the data; 30 runs of one to three minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.transfer.comparison import Results
    from xdner.corpora.corpus import Corpus
    from xdner.domain import Domain
    from xdner.recognizers.sources import Source

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("cooking", "gardening", "operations", "mit-movie", "mit-restaurant")
ARMS = {"none": "from nothing", "collaborative": "with the domains that ship"}
CARVED, SCORED = 0, 300  # seed of what is drawn to be scored, and how much of it

Run = dict[str, Any]


def parser() -> argparse.ArgumentParser:
    """The options."""
    from benchmarks.program import common_options

    made = argparse.ArgumentParser(
        prog="new_domain.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--targets", nargs="+", default=list(TARGETS), metavar="NAME", help="example domains, or folders of the data")
    add("--sentences", nargs="+", type=int, default=[20], metavar="N", help="labelled sentences to learn from")
    add("--seeds", nargs="+", type=int, default=[1, 2, 3], metavar="N", help="of the samples and of the training")
    add("--backbone", default="smollm2-135m-ner", help="alias, hub id or folder; domains must ship for it")
    add("--set", nargs="+", action="extend", default=["epochs=14"], metavar="K=V", help="settings (epochs=14)")
    add("--dtype", default="bfloat16")
    common_options(
        made, "runs/new_domain", of_out="folder of the runs' JSON files", table="run nothing; print the table"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit code."""
    from benchmarks.program import run

    return run(parser, _work, arguments)


def _work(options: argparse.Namespace) -> None:
    from benchmarks.transfer.comparison import load

    if not options.table:
        Learner(options).go()
    print(markdown(load(options.out)), end="")


@dataclass(frozen=True)
class Target:
    """A new domain: its types, sentences to sample from, sentences to score, and the files' hashes."""

    domain: Domain
    pool: Corpus
    scored: Corpus
    data: dict[str, str]


class Learner:
    """Makes the runs that are not there."""

    def __init__(self, options: argparse.Namespace) -> None:
        from benchmarks.record import circumstances
        from xdner.backbone.load import load_backbone
        from xdner.errors import LibraryError
        from xdner.library.bundled import bundled_initial
        from xdner.settings import Settings

        self.options, self.circumstances = options, circumstances()
        self.backbone = load_backbone(options.backbone, device=options.device, dtype=options.dtype)
        plain = Settings.build(None, options.set, self.backbone.recommended)
        initial = bundled_initial(self.backbone.fingerprint, plain.prefix.length)
        if initial is None:
            raise LibraryError(
                f"no domains ship for {self.backbone.name} with prefixes of length {plain.prefix.length}",
                hint="Leave --backbone and prefix.length out.",
            )
        self.initial = initial
        self.asked = {
            "backbone": options.backbone, "set": list(options.set), "dtype": options.dtype, "limit": options.limit,
            "initial": initial.hash(),
        }  # fmt: skip

    def go(self) -> None:
        """Seed by seed, so that an early end leaves every target with some result.

        Raises:
            DataError: a file that is there was made with other options.
        """
        import time
        from itertools import product

        from benchmarks.program import budget, say
        from benchmarks.record import refuse_other_options, write_json

        options, began = self.options, time.monotonic()
        limit = budget(options)
        targets = {name: self._target(name) for name in options.targets}
        made = kept = left = 0
        for seed, size, name, arm in product(options.seeds, options.sentences, targets, ARMS):
            path = options.out / name / f"s{size}" / arm / f"seed{seed}.json"
            if path.is_file():
                refuse_other_options(path, self.asked)
                kept += 1
            elif limit is not None and time.monotonic() - began >= limit:
                left += 1
            else:
                run = self._run(targets[name], size, arm, seed)
                write_json(path, run | self.circumstances)
                made += 1
                say(f"{arm} on {name} {size}, seed {seed}: F1 {100 * run['dev']['micro']['f1']:.2f}")
        say(f"{made} runs made, {kept} were there, {left} not begun (--budget-minutes)")

    def _target(self, name: str) -> Target:
        from xdner.corpora.io import read_corpus
        from xdner.corpora.splits import carve_dev, sample_sentences
        from xdner.domain import Domain
        from xdner.workflows import example_folder

        if not (self.options.data / name).is_dir():
            folder = example_folder(name)
            train, scored = read_corpus(folder / "train.jsonl"), read_corpus(folder / "test.jsonl")
            domain, files = Domain.read(folder / "domain.toml"), {"train.jsonl": train, "test.jsonl": scored}
        else:
            folder = self.options.data / name
            whole = read_corpus(folder / "train.txt")
            files, train = {"train.txt": whole}, whole
            if (folder / "dev.txt").is_file():
                scored = files["dev.txt"] = read_corpus(folder / "dev.txt")
                scored = sample_sentences(scored, SCORED, CARVED) if len(scored) > SCORED else scored
            else:
                train, scored = carve_dev(whole, count=min(SCORED, len(whole) // 2), seed=CARVED)
            domain = Domain.from_corpus(name, [*whole, *scored])
        if self.options.limit is not None:
            scored = scored.pick(range(min(self.options.limit, len(scored))))
        return Target(domain, train, scored, {f"{name}/{file}": corpus.sha256 for file, corpus in files.items()})

    def _sources(self, target: Target) -> list[Source]:
        """What ships for this backbone and knows no sentence of the target."""
        from xdner.library.bundled import known_entries
        from xdner.recognizers.sources import Source, shared_sentences

        entries, _ = known_entries(None, self.backbone.fingerprint, self.initial.hash(), without=[target.domain.name])
        return [Source(e) for e in entries.values() if not shared_sentences(e, target.pool, target.scored)]

    def _run(self, target: Target, size: int, arm: str, seed: int) -> Run:
        from xdner.corpora.splits import sample
        from xdner.evaluation.match import sentence_counts
        from xdner.evaluation.report import evaluate
        from xdner.recognizers.cp_ner import CPNER
        from xdner.settings import Settings
        from xdner.training.progress import RichProgress
        from xdner.training.run import Run as TrainingRun

        name = target.domain.name
        train, manifest = sample(target.pool, "sentences", size, seed)
        own = ["training.patience=0", *self.options.set, f"training.seed={seed}", f"transfer.strategy={arm}"]
        settings = Settings.build(None, own, self.backbone.recommended)
        recognizer = CPNER(self.backbone, settings=settings, initial=self.initial)
        sources = self._sources(target) if arm != "none" else []
        progress = TrainingRun(progress=RichProgress(f"{arm} {name} {size} seed {seed}"))
        made = recognizer.train(target.domain, train, (), sources=sources, settings=settings, run=progress)
        gold = [s.entities for s in target.scored]
        found = [r.entities for r in recognizer.predict(target.scored, domain=name)]
        report = evaluate(gold, found).to_dict() | {"sentence_counts": sentence_counts(gold, found).tolist()}
        selection = made.transfer.selection
        return {
            "benchmark": "new_domain", "target": name, "k": size, "method": arm, "seed": seed, "asked": self.asked,
            "data": target.data, "dev_ids": [s.id for s in target.scored], "train_ids": list(manifest.ids),
            "backbone": {"name": self.backbone.name, "fingerprint": self.backbone.fingerprint}, "error": None,
            "settings": settings.to_dict(), "steps": made.transfer.steps, "seconds": round(made.transfer.seconds, 2),
            "selection": None if selection is None else selection.to_dict(), "dev": report,
        }  # fmt: skip


def markdown(runs: list[Run]) -> str:
    """Scores, differences, which sources weighed most, and how it was measured."""
    from benchmarks.layout import flat
    from benchmarks.transfer.comparison import Results
    from benchmarks.transfer.notes import BOOTSTRAP
    from benchmarks.transfer.report import always, compared, groups_of, score_table

    results = Results(runs)
    where, rows = results.conditions, [always(told, arm) for arm, told in ARMS.items()]
    groups = groups_of(where)
    first = runs[0]
    seconds = sorted(run["seconds"] for run in runs)
    told = [
        "Exact-span micro-F1 in %, mean ± sd over seeds; the sample changes with the seed. Backbone "
        f"{first['backbone']['name']}, settings: {', '.join(first['asked']['set'])}; the last epoch counts, nothing is chosen "
        "on what is scored.",
        "The backbone has seen CoNLL-2003, politics, music and literature, and so has δ₀: both arms start from it.",
        f"Training took {seconds[0]:.0f} to {seconds[-1]:.0f} s, half of the runs at most {seconds[len(seconds) // 2]:.0f} s.",
        *(
            f"{what}: " + "; ".join(sorted({flat(run[what]) for run in runs}))
            for what in ("commit", "machine", "versions")
        ),
    ]
    lines = ["# A new domain, from nothing and with the domains that ship", ""]
    lines += [*score_table(results, rows, where, groups, "learned"), ""]
    if comparison := compared(results, rows[1], rows[:1], where, groups):
        lines += [*comparison, "", BOOTSTRAP, ""]
    lines += [*_weights(results), "", *(f"- {note}" for note in told)]
    return "\n".join(lines) + "\n"


def _weights(results: Results) -> list[str]:
    """The three heaviest sources of each condition, their weights averaged over seeds."""
    from benchmarks.transfer.costs import mean_weights

    lines = []
    for condition in results.conditions:
        found = mean_weights(results.get(condition, "collaborative").values())
        most = sorted(found.items(), key=lambda item: -item[1])[:3]
        if most:
            lines.append(f"- {condition}: helped most by " + ", ".join(f"{name} {weight:.2f}" for name, weight in most))
    return lines


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
