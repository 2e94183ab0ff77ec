"""``xdner train``: train a domain on labelled sentences, its prefix (CP-NER) or its tagger (LANER)."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    ablations,
    guarded,
    pairs,
    print_json,
    split_names,
    stderr,
    stdout,
    transfer_overrides,
)
from xdner.errors import SettingsError

if TYPE_CHECKING:
    from xdner.workflows import Outcome


class Recognizer(enum.StrEnum):
    """Which method trains the domain."""

    CP_NER = "cp-ner"
    LANER = "laner"


def train(
    name: Annotated[str, typer.Argument(help="Name of the domain.", show_default=False)],
    train_file: Annotated[Path, typer.Option("--train", help="Labelled sentences (CoNLL columns or JSONL).", show_default=False)],
    dev_file: Annotated[Path | None, typer.Option("--dev", help="Labelled sentences for early stopping.", show_default=False)] = None,
    domain_file: Annotated[Path | None, typer.Option("--domain-file", help="TOML or JSON with types and their verbalizations.", show_default=False)] = None,
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    recognizer: Annotated[Recognizer, typer.Option("--recognizer", help="cp-ner: a prefix on a frozen model; laner: a tuned encoder.")] = Recognizer.CP_NER,
    source: Annotated[list[Path] | None, typer.Option("--source", help="laner: labelled sentences of a source domain, learned first (repeatable).", show_default=False)] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Known domains to draw on: a,b,c or all; laner: one LANER domain to go on from.", show_default=False)] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help="none, single, collaborative, chain or ensemble.", show_default=False)] = None,
    alpha: Annotated[list[str] | None, typer.Option("--alpha", help="Share of the types' similarity: 0.5, or music=0.8 for one source (repeatable).", show_default=False)] = None,
    source_data: Annotated[list[str] | None, typer.Option("--source-data", help="NAME=FILE: a source's training sentences, for --strategy chain (repeatable).", show_default=False)] = None,
    without: Annotated[list[str] | None, typer.Option("--without", help="entity-similarity, prefix-similarity, warm-up or options; laner: label-background or label-context (repeatable).", show_default=False)] = None,
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
    """Train a domain on labelled sentences: a prefix, the backbone frozen, or with --recognizer laner a whole tagger.

    Example: xdner train cooking --train train.jsonl --dev dev.jsonl

    With known domains' help: xdner train cooking --train train.jsonl --from all

    A tagger, after a source: xdner train ai --recognizer laner --source conll2003.txt --train train.txt --dev dev.txt
    """
    with guarded():
        from xdner.training.progress import RichProgress

        common: dict[str, Any] = {
            "dev_file": dev_file, "domain_file": domain_file, "library": library, "format": format, "k_shot": k_shot,
            "seed": seed, "config": config, "device": device, "resume": resume, "progress": RichProgress(name),
        }  # fmt: skip
        if recognizer is Recognizer.LANER:
            from xdner.workflows import TAGGER_ABLATIONS, train_tagger

            given = {"--strategy": strategy, "--alpha": alpha, "--source-data": source_data}
            given["--dtype"] = dtype if dtype != "float32" else None
            _only("cp-ner", given)
            names = split_names(from_)
            if len(names) > 1 or names == ["all"]:
                raise SettingsError([f"--from {from_}: a LANER domain goes on from one domain"], hint="Name one.")
            _tell(
                name,
                train_tagger(
                    name, train_file, encoder=backbone, source_files=source or (), start=names[0] if names else None,
                    overrides=[*ablations(without, TAGGER_ABLATIONS), *(set_ or [])], **common,
                ),
                json_,
            )  # fmt: skip
            return
        from xdner.workflows import train_domain

        _only("laner", {"--source": source})
        alphas, overrides = transfer_overrides(strategy, alpha, without, set_)
        data = {k: Path(v) for k, v in pairs(source_data, "--source-data", "NAME=FILE").items()}
        _tell(
            name,
            train_domain(
                name, train_file, backbone=backbone, sources=split_names(from_), source_data=data, alphas=alphas,
                overrides=overrides, dtype=dtype, **common,
            ),
            json_,
        )  # fmt: skip


def _only(recognizer: str, given: dict[str, Any]) -> None:
    """Options that only one recognizer has are refused for the other."""
    problems = [f"{option} is an option of --recognizer {recognizer}" for option, value in given.items() if value]
    if problems:
        raise SettingsError(problems, hint="Leave it out, or choose the other recognizer.")


def _tell(name: str, outcome: Outcome[Any], json_: bool) -> None:
    from xdner.cli.render import selection_table

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
