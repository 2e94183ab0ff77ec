"""``xdner demo``: train a bundled example domain and look at what it does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from xdner.cli.common import BackboneOption, LibraryOption, guarded, stderr, stdout


def demo(
    domain: Annotated[str, typer.Option("--domain", "-d", help="cooking, gardening or operations.")] = "cooking",
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    sentences: Annotated[int, typer.Option("--sentences", help="Unseen sentences to show.")] = 6,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the training run.")] = 1,
) -> None:
    """Train a bundled example domain, score it before and after, and show it on unseen sentences."""
    with guarded():
        from rich.table import Table

        from xdner.cli.highlight import highlighted, legend
        from xdner.corpora import read_corpus
        from xdner.domain import Domain
        from xdner.recognizers.cp_ner import CPNER
        from xdner.settings import Settings
        from xdner.training.progress import RichProgress
        from xdner.workflows import example_folder, train_domain

        folder = example_folder(domain)
        ready = _pulled(backbone)
        test = read_corpus(folder / "test.jsonl")
        stderr.print(
            f"[bold]1[/] the frozen backbone before training, on {len(test)} test sentences …", highlight=False
        )
        recognizer = CPNER.from_pretrained(ready, dtype="auto")
        recognizer.add_untrained(Domain.read(folder / "domain.toml"))
        before = recognizer.evaluate(test, domain=domain)
        stderr.print(f"  F1 {before.micro.f1:.3f}", highlight=False)

        stderr.print("[bold]2[/] training a prefix, the backbone stays frozen …", highlight=False)
        began = time.monotonic()
        outcome = train_domain(
            domain, folder / "train.jsonl", dev_file=folder / "dev.jsonl", domain_file=folder / "domain.toml",
            backbone=ready, library=library, seed=seed, dtype="auto", overrides=DEMO_SETTINGS, progress=RichProgress(domain),
        )  # fmt: skip
        seconds = time.monotonic() - began

        stderr.print("[bold]3[/] the same test sentences with the prefix …", highlight=False)
        recognizer = CPNER(recognizer.backbone, settings=Settings.build(base=outcome.entry.settings.to_dict()))
        recognizer.add(outcome.entry)
        after = recognizer.evaluate(test, domain=domain)

        table = Table(
            "", "precision", "recall", "F1", "95 % interval", title=f"{domain}: exact-span micro scores on test"
        )
        for name, report in (("before training", before), ("after training", after)):
            micro, interval = report.micro, report.interval
            ends = "" if interval is None else f"{interval.low:.3f} … {interval.high:.3f}"
            table.add_row(name, f"{micro.precision:.3f}", f"{micro.recall:.3f}", f"{micro.f1:.3f}", ends)
        stdout.print(table)
        stdout.print(
            f"prefix: {outcome.kilobytes:.0f} kB, trained in {seconds:.0f} s on {outcome.entry.prefix.notes['train_sentences']} "
            f"sentences (seed {seed}, best epoch {outcome.best_epoch})\n",
            highlight=False,
        )
        labels = outcome.entry.domain.label_names
        stdout.print(legend(labels))
        for result in recognizer.predict(list(test)[:sentences], domain=domain):
            stdout.print("•", highlighted(result, labels), soft_wrap=True)
        stderr.print(f'\nnext: xdner predict --domain {domain} "your text"', highlight=False)
        stderr.print("      xdner train NAME --train your.jsonl --dev your-dev.jsonl", highlight=False)


# Fewer epochs than the default: the example is small, and the demo has to be over in minutes on two cores.
DEMO_SETTINGS = ("epochs=8", "evaluate_from=4")


def _pulled(backbone: str | None) -> str | Path:
    """The backbone, pulled first if it is an alias that has not been."""
    from xdner.backbone.aliases import DEFAULT_BACKBONE, aliases, is_pulled
    from xdner.backbone.pull import pull

    name = backbone or DEFAULT_BACKBONE
    known = aliases()
    if name in known and not is_pulled(known[name]):
        stderr.print(f"[bold]0[/] pulling the embedded backbone {name} …", highlight=False)
        pull(name)
    return name
