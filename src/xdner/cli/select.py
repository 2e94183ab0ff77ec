"""``xdner select``: ask the dual-query selector which known domains would help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdner.cli.common import (
    BackboneOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    LibraryOption,
    SetOption,
    guarded,
    print_json,
    say_done,
    say_note,
    split_names,
    stdout,
    transfer_overrides,
)


def select(
    targets: Annotated[list[str], typer.Argument(help="Known domains to ask about.", show_default=False)],
    from_: Annotated[str, typer.Option("--from", help="Known domains to weigh: a,b,c or all.")] = "all",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the heat map (PNG) and the numbers (JSON).")] = Path("."),
    alpha: Annotated[list[str] | None, typer.Option("--alpha", help="Share of the types' similarity: 0.5, or music=0.8 for one source (repeatable).", show_default=False)] = None,
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Weigh known domains as sources for others (CP-NER's dual-query selector); nothing is trained.

    Example: xdner select cooking --from news,science,restaurant
    """
    with guarded():
        import json

        from xdner.cli.render import matches_table, selection_table
        from xdner.errors import XdnerError
        from xdner.files import write_atomically
        from xdner.plots import selection_figure
        from xdner.workflows import select_sources

        alphas, overrides = transfer_overrides(None, alpha, None, set_)
        chosen, warnings = select_sources(
            targets, split_names(from_), backbone=backbone, library=library, config=config, overrides=overrides,
            alphas=alphas, dtype=dtype, device=device,
        )  # fmt: skip
        described = [c.to_dict() for c in chosen]
        stem = "select-" + "-".join(c.target for c in chosen)[:80]
        numbers = out / f"{stem}.json"
        write_atomically(numbers, json.dumps(described, indent=1, ensure_ascii=False) + "\n")
        if json_:
            print_json(described)
        else:
            for selection in chosen:
                stdout.print(selection_table(selection), matches_table(selection))
        for warning in warnings:
            say_note(warning)
        written = str(numbers)
        try:
            written += f" and {selection_figure(described, out / f'{stem}.png')}"
        except XdnerError as error:  # the numbers are there; only the picture is not
            say_note(f"no heat map: {error.message} ({error.hint})")
        say_done(f"wrote {written}")
