"""Train the domains that ship with the package, and write their cards.

    python benchmarks/prewarm.py                     # everything that is not there yet: an hour or two on two cores
    python benchmarks/prewarm.py --only music movie --out runs/prewarm

For one backbone: δ₀, a prefix trained on the four sources together (CoNLL-2003, politics, music, literature), and from it
one prefix for each domain, on train splits only. MIT's corpora have no dev split: one is carved from train with a fixed
seed. A domain that is there is not made again. The result is a library folder; copied to
``src/xdner/data/<backbone>/domains`` it ships. It needs the data and `xdner backbones pull` of smollm2-135m-ner and minilm-l6.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdner.domain import Domain
    from xdner.text import Sentence

ROOT = Path(__file__).resolve().parents[1]
WEAK = 0.40  # dev F1 below which a card says so in its first line
RIVAL = "A plain tagger"
RIVAL_RATE = 2e-4  # the best of three on ai (docs/LOG.md, the quality table)
DEV_SEED, DEV_SIZE = 1, 300  # dev sentences at most, and the seed where a dev split is carved


@dataclass(frozen=True)
class Recipe:
    """A domain that ships: its name, its folder in the data, and what people should know about the data."""

    name: str
    data: str
    about: str


RECIPES = (
    Recipe("news", "conll2003", "CoNLL-2003 (Reuters news) in CrossNER's copy"),
    Recipe("politics", "politics", "CrossNER politics (Wikipedia)"),
    Recipe("science", "science", "CrossNER natural science (Wikipedia)"),
    Recipe("music", "music", "CrossNER music (Wikipedia)"),
    Recipe("literature", "literature", "CrossNER literature (Wikipedia)"),
    Recipe("ai", "ai", "CrossNER artificial intelligence (Wikipedia)"),
    Recipe("movie", "mit-movie", "MIT Movie, eng (spoken queries, lower case)"),
    Recipe("restaurant", "mit-restaurant", "MIT Restaurant (spoken queries, lower case)"),
)
SOURCES = ("conll2003", "politics", "music", "literature")


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="prewarm.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--backbone", default="smollm2-135m-ner", help="alias, hub id or folder")
    add("--encoder", default="minilm-l6", help="of the plain tagger that a card compares with ('' for none)")
    add("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with NAME/train.txt")
    add("--out", type=Path, default=Path("runs/prewarm"), help="folder of the library that is made")
    add("--only", nargs="+", choices=[r.name for r in RECIPES], metavar="NAME", help="these domains only")
    add("--cap", type=int, default=300, metavar="N", help="training sentences of a domain, at most (seeded sample)")
    add("--per-source", type=int, default=300, metavar="N", help="sentences of each source for the shared start")
    add("--start-epochs", type=int, default=2, metavar="N", help="epochs of the shared start")
    add("--seed", type=int, default=1)
    add("--set", nargs="+", action="extend", default=[], metavar="K=V", help="settings of the domains' training")
    add("--dtype", default="bfloat16")
    add("--device", default="cpu")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns:
        The exit code.
    """
    from benchmarks.program import guarded
    from xdner.__main__ import prepare_environment

    prepare_environment()
    options = parser().parse_args(arguments)
    return guarded(lambda: Maker(options).go())


class Maker:
    """Makes the library, domain by domain."""

    def __init__(self, options: argparse.Namespace) -> None:
        from xdner.backbone.load import load_backbone
        from xdner.library.store import Library
        from xdner.settings import Settings

        self.options = options
        self.store = Library(options.out)
        self.backbone = load_backbone(options.backbone, device=options.device, dtype=options.dtype)
        own = [*options.set, f"training.seed={options.seed}"]
        self.settings = Settings.build(None, own, self.backbone.recommended)

    def go(self) -> None:
        """δ₀, then every domain that is asked for and not there, then what their cards lack."""
        if self.store.initial_prefix() is None:
            self._start()
        wanted = [r for r in RECIPES if self.options.only is None or r.name in self.options.only]
        for recipe in wanted:
            if recipe.name not in self.store:
                self._domain(recipe)
        for recipe in wanted if self.options.encoder else ():
            self._compare(recipe)

    def _start(self) -> None:
        from xdner.corpora.io import read_corpus
        from xdner.domain import Domain
        from xdner.recognizers.reader import Reader
        from xdner.recognizers.shared_start import train_shared_start
        from xdner.training.progress import RichProgress
        from xdner.training.run import Run
        from xdner.training.sources import LabelledSource

        how = self.settings
        how = replace(
            how,
            training=replace(how.training, epochs=self.options.start_epochs, drop_options=0.3, patience=0),
            instruct=replace(how.instruct, per_source=self.options.per_source),
        )
        sources = []
        for name in SOURCES:
            corpus = read_corpus(self.options.data / name / "train.txt")
            sources.append(LabelledSource(Domain.from_corpus(_name_of(name), corpus), corpus))
        run = Run(self.options.out / ".runs" / "initial", progress=RichProgress("shared start")).going_on()
        made, result = train_shared_start(Reader(self.backbone, how.decoding), sources, how, run)
        self.store.set_initial(made)
        print(f"shared start: {result.steps} steps, {result.seconds:.0f} s", flush=True)

    def _domain(self, recipe: Recipe) -> None:
        from xdner.recognizers.cp_ner import CPNER
        from xdner.training.progress import RichProgress
        from xdner.training.run import Run

        domain, chosen, dev = self._data(recipe)
        recognizer = CPNER(self.backbone, settings=self.settings, initial=self.store.initial_prefix())
        run = Run(self.options.out / ".runs" / recipe.name, progress=RichProgress(recipe.name)).going_on()
        trained = recognizer.train(domain, chosen, dev, run=run)
        report = recognizer.evaluate(dev, domain=recipe.name)
        text = card(recipe, report.to_dict(), self._facts(recipe, chosen, dev, trained.result.seconds))
        prefix = trained.entry.prefix.with_notes(dev_f1=report.micro.f1)
        self.store.add(replace(trained.entry, prefix=prefix, card=text))
        print(f"{recipe.name}: dev F1 {report.micro.f1:.3f}, {trained.result.seconds:.0f} s", flush=True)

    def _data(self, recipe: Recipe) -> tuple[Domain, list[Sentence], list[Sentence]]:
        """The domain, its training sentences and its dev sentences."""
        from xdner.domain import Domain
        from xdner.training.sources import limited

        train, dev = splits(self.options.data / recipe.data)
        domain = Domain.from_corpus(recipe.name, [*train, *dev])
        return domain, limited(train, self.options.cap), limited(dev, DEV_SIZE)

    def _compare(self, recipe: Recipe) -> None:
        """Put a plain tagger's score into a domain's card."""
        from benchmarks.arms import Target
        from benchmarks.tagger_baseline import TaggerArm
        from xdner.library.kinds import with_prefix
        from xdner.training.progress import SilentProgress

        entry = with_prefix(self.store.get(recipe.name))
        if RIVAL in entry.card:
            return
        domain, train, dev = self._data(recipe)
        arm = TaggerArm(
            "minilm", self.options.encoder, (RIVAL_RATE,), device=self.options.device,
            overrides=("evaluate_every=2", "dev_limit=100"),
        )  # fmt: skip
        made = arm.run(Target(domain, tuple(train), tuple(dev), {}), self.options.seed, RIVAL_RATE, SilentProgress())
        f1 = float(made.report["micro"]["f1"])
        line = f"{RIVAL} (MiniLM-L6, all weights tuned, best of 40 epochs on dev, the same sentences): {f1:.3f}.\n\n- Data:"
        self.store.add(replace(entry, card=entry.card.replace("\n- Data:", line, 1)))
        print(f"{recipe.name}: plain tagger {f1:.3f}", flush=True)

    def _facts(self, recipe: Recipe, train: Sequence[Any], dev: Sequence[Any], seconds: float) -> dict[str, Any]:
        given = f"--set {' '.join(self.options.set)}" if self.options.set else ""
        return {
            "backbone": f"{self.backbone.name} ({self.backbone.fingerprint[:19]}…)",
            "instructed": self.backbone.name.endswith("-ner"),
            "train": len(train),
            "dev": len(dev),
            "carved": "" if (self.options.data / recipe.data / "dev.txt").is_file() else " set apart from train",
            "scored": min(len(dev), self.settings.training.dev_limit or len(dev)),
            "seed": self.options.seed,
            "seconds": round(seconds),
            "command": " ".join(filter(None, [
                f"python benchmarks/prewarm.py --only {recipe.name} --cap {self.options.cap}", given,
                f"--per-source {self.options.per_source}",
            ])),
        }  # fmt: skip


def splits(folder: Path) -> tuple[list[Any], list[Any]]:
    """Training sentences and dev sentences; where there is no ``dev.txt``, a seeded part of train."""
    from xdner.corpora.io import read_corpus
    from xdner.corpora.splits import carve_dev

    train = read_corpus(folder / "train.txt")
    if (folder / "dev.txt").is_file():
        return list(train), list(read_corpus(folder / "dev.txt"))
    rest, dev = carve_dev(train, count=DEV_SIZE, seed=DEV_SEED)
    return list(rest), list(dev)


def card(recipe: Recipe, report: dict[str, Any], facts: dict[str, Any]) -> str:
    """The domain's card: a weak one says so in its first line."""
    micro, interval = report["micro"], report["interval"]
    f1 = micro["f1"]
    first = f"**Weak: F1 {f1:.2f} on dev.** Use it as a source rather than by itself.\n\n" if f1 < WEAK else ""
    tuned = "; it was instruction-tuned on CoNLL-2003, politics, music and literature" if facts["instructed"] else ""
    ends = "" if interval is None else f", 95 % interval {interval['low']:.3f} to {interval['high']:.3f}"
    return (
        f"{first}# {recipe.name}\n\n"
        f"Exact-span micro-F1 on dev {f1:.3f} (precision {micro['precision']:.3f}, recall {micro['recall']:.3f}{ends}),\n"
        f"{facts['dev']} sentences{facts['carved']}, seed {facts['seed']}; the epoch was chosen on {facts['scored']} of them.\n\n"
        f"- Data: {recipe.about}, {facts['train']} training sentences.\n"
        f"- Backbone: {facts['backbone']}, frozen{tuned}.\n"
        f"- Start: the shared initial prefix, trained on the same four sources.\n"
        f"- Training: {facts['seconds']} s. Command: `{facts['command']}`\n"
    )


def _name_of(data: str) -> str:
    return next((r.name for r in RECIPES if r.data == data), data)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # run as a file, only this folder is on the path
    sys.exit(main())
