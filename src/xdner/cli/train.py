"""``xdner train``: train a domain's prefix on labelled sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdner.cli.common import (
    BackboneOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    FormatOption,
    JsonOption,
    LibraryOption,
    ResumeOption,
    SeedOption,
    SetOption,
    guarded,
    print_json,
    stderr,
)


def train(
    name: Annotated[str, typer.Argument(help="Name of the domain.", show_default=False)],
    train_file: Annotated[Path, typer.Option("--train", help="Labelled sentences (CoNLL columns or JSONL).", show_default=False)],
    dev_file: Annotated[Path | None, typer.Option("--dev", help="Labelled sentences for early stopping.", show_default=False)] = None,
    domain_file: Annotated[Path | None, typer.Option("--domain-file", help="TOML or JSON with types and their verbalizations.", show_default=False)] = None,
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    format: FormatOption = None,
    k_shot: Annotated[int | None, typer.Option("--k-shot", help="Train on a seeded sample of so many sentences.", show_default=False)] = None,
    seed: SeedOption = 1,
    config: ConfigOption = None,
    set_: SetOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    resume: ResumeOption = False,
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Train a domain's prefix on labelled sentences; the backbone stays frozen.

    Example: xdner train cooking --train train.jsonl --dev dev.jsonl
    """
    with guarded():
        from xdner.training.progress import RichProgress
        from xdner.workflows import train_domain

        outcome = train_domain(
            name,
            train_file,
            dev_file=dev_file,
            domain_file=domain_file,
            backbone=backbone,
            library=library,
            format=format,
            k_shot=k_shot,
            seed=seed,
            config=config,
            overrides=set_ or [],
            dtype=dtype,
            device=device,
            resume=resume,
            progress=RichProgress(name),
        )
        if json_:
            print_json(outcome.to_dict())
            return
        for warning in outcome.warnings:
            stderr.print(f"[yellow]note:[/] {warning}", highlight=False)
        dev = "" if outcome.dev_f1 is None else f", dev F1 {outcome.dev_f1:.3f} (epoch {outcome.best_epoch})"
        stderr.print(f"[green]✓[/] domain [bold]{name}[/] trained in {outcome.seconds:.0f} s{dev}", highlight=False)
        stderr.print(f"  {outcome.folder}  ({outcome.kilobytes:.0f} kB)", highlight=False)
        stderr.print(f'  next: xdner predict --domain {name} "your text"', highlight=False)
