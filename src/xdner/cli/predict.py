"""``xdner predict``: recognize entities in texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdner.cli.common import (
    BackboneOption,
    BeamOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    LibraryOption,
    counting,
    guarded,
    print_json,
    read_lines,
    stderr,
    stdout,
)


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; quote each.", show_default=False)] = None,
    domain: Annotated[list[str], typer.Option("--domain", "-d", help="A trained domain: one for all texts, or repeated, one a text.", show_default=False)] = ...,  # type: ignore[assignment]
    file: Annotated[Path | None, typer.Option("--file", "-f", help="A file with one text a line ('-': standard input).", show_default=False)] = None,
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    scores: Annotated[bool, typer.Option("--scores", help="Show each entity's score.")] = False,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    beam: BeamOption = None,
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Recognize entities in texts with a trained domain, or each text with its own.

    Example: xdner predict --domain cooking "Whisk the egg whites in a copper bowl."

    Two domains in one batch: xdner predict -d music -d ai "Liszt in Weimar" "BERT by Google"
    """
    with guarded():
        from xdner.cli.highlight import highlighted, legend
        from xdner.errors import DataError
        from xdner.workflows import open_domain

        items = [*(texts or []), *(read_lines(file) if file is not None else [])]
        if not items:
            raise DataError(
                "there is no text to read", hint='Give texts in quotes, or a file with --file ("-": stdin).'
            )
        if len(domain) not in (1, len(items)):
            raise DataError(
                f"{len(items)} texts came with {len(domain)} domains",
                hint="Give --domain once for all texts, or once for each.",
            )
        recognizer = open_domain(domain, backbone=backbone, library=library, dtype=dtype, device=device, beam=beam)
        with counting("windows read") as done:
            results = recognizer.predict(items, domain=domain[0] if len(domain) == 1 else domain, done=done)
        if json_:
            print_json([r.to_dict() for r in results])
            return
        for name in dict.fromkeys(domain):
            if stdout.is_terminal:
                stderr.print(legend(recognizer.labels(name)))
        for result in results:
            stdout.print(highlighted(result, recognizer.labels(result.domain), scores=scores), soft_wrap=True)
        notes: dict[str, int] = {}
        for result in results:
            for what, count in result.diagnostics.items():
                notes[what] = notes.get(what, 0) + count
        if blank := sum(not r.text.strip() for r in results):
            stderr.print(f"[yellow]note:[/] {blank} text(s) are empty: there is nothing to read", highlight=False)
        split = sum(r.windows > 1 for r in results)
        if split:
            stderr.print(
                f"[yellow]note:[/] {split} long text(s) were read in windows and put together", highlight=False
            )
        for what, count in notes.items():
            stderr.print(f"[yellow]note:[/] {what.replace('_', ' ')}: {count}", highlight=False)
