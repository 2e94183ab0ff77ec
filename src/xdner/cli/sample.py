"""``xdner sample``: a k-shot training file or a dev split of a labelled file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from xdner.cli.common import FormatOption, JsonOption, guarded, print_json, say_note, stdout
from xdner.cli.visible import unstyled

if TYPE_CHECKING:
    from xdner.workflows.sampling import Part


def sample(
    file: Annotated[Path, typer.Argument(help="Labelled sentences.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for train and dev, and the lists of their sentences.", show_default=False)],
    k: Annotated[int | None, typer.Option("--k", help="Mentions of each type (at least), or sentences; without it, all that dev leaves.", show_default=False)] = None,
    unit: Annotated[Literal["mentions", "sentences"] | None, typer.Option("--unit", help="What --k counts (default: mentions).", show_default=False)] = None,
    dev: Annotated[int, typer.Option("--dev", help="Carve out so many sentences for dev; none of their texts is in train.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.")] = 1,
    format: FormatOption = None,
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Draw a few-shot training file, a dev split, or both, with a list of the sentences drawn.

    Example: xdner sample ai.txt --k 5 --dev 50 --out ai-5-shot
    """
    with guarded():
        from xdner.workflows import sample_file

        made = sample_file(file, out, k=k, unit=unit, dev=dev, seed=seed, format=format)
        if json_:
            print_json(made.to_dict())
            return
        for part in (made.train, made.dev):
            if part is not None:
                _tell(part)
        _print(f"{made.unused} sentences are in neither (seed {seed})")
        more = "" if made.dev is None else f" --dev {shlex.quote(str(made.dev.path))}"
        for warning in made.warnings:
            say_note(warning)
        _print(f"next: xdner train NAME --train {shlex.quote(str(made.train.path))}{more}")


def _tell(part: Part) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in part.mentions.items()) or "none"
    listed = "" if part.manifest is None else f", listed in {part.manifest.name}"
    _print(f"{part.path}: {part.sentences} sentences{listed}; mentions: {counts}")
    if part.scarce:
        _print(f"  no more mentions were left of {', '.join(part.scarce)}")


def _print(text: str) -> None:
    stdout.print(unstyled(text), soft_wrap=True)
