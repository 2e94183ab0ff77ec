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
    pairs,
    print_json,
    split_names,
    stderr,
    stdout,
    transfer_overrides,
)


def train(
    name: Annotated[str, typer.Argument(help="Name of the domain.", show_default=False)],
    train_file: Annotated[Path, typer.Option("--train", help="Labelled sentences (CoNLL columns or JSONL).", show_default=False)],
    dev_file: Annotated[Path | None, typer.Option("--dev", help="Labelled sentences for early stopping.", show_default=False)] = None,
    domain_file: Annotated[Path | None, typer.Option("--domain-file", help="TOML or JSON with types and their verbalizations.", show_default=False)] = None,
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    from_: Annotated[str | None, typer.Option("--from", help="Known domains to draw on: a,b,c or all.", show_default=False)] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help="none, single, collaborative, chain or ensemble.", show_default=False)] = None,
    alpha: Annotated[list[str] | None, typer.Option("--alpha", help="Share of the types' similarity: 0.5, or music=0.8 for one source (repeatable).", show_default=False)] = None,
    source_data: Annotated[list[str] | None, typer.Option("--source-data", help="NAME=FILE: a source's training sentences, for --strategy chain (repeatable).", show_default=False)] = None,
    without: Annotated[list[str] | None, typer.Option("--without", help="entity-similarity, prefix-similarity, warm-up or options (repeatable).", show_default=False)] = None,
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

    With known domains' help: xdner train cooking --train train.jsonl --from all
    """
    with guarded():
        from xdner.cli.render import selection_table
        from xdner.training.progress import RichProgress
        from xdner.workflows import train_domain

        alphas, overrides = transfer_overrides(strategy, alpha, without, set_)
        outcome = train_domain(
            name,
            train_file,
            dev_file=dev_file,
            domain_file=domain_file,
            backbone=backbone,
            library=library,
            sources=split_names(from_),
            source_data={k: Path(v) for k, v in pairs(source_data, "--source-data", "NAME=FILE").items()},
            alphas=alphas,
            format=format,
            k_shot=k_shot,
            seed=seed,
            config=config,
            overrides=overrides,
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
        if outcome.selection is not None:
            stdout.print(selection_table(outcome.selection))
        dev = "" if outcome.dev_f1 is None else f", dev F1 {outcome.dev_f1:.3f} (epoch {outcome.best_epoch})"
        stderr.print(f"[green]✓[/] domain [bold]{name}[/] trained in {outcome.seconds:.0f} s{dev}", highlight=False)
        stderr.print(f"  {outcome.folder}  ({outcome.kilobytes:.0f} kB)", highlight=False)
        stderr.print(f'  next: xdner predict --domain {name} "your text"', highlight=False)
