"""``xdner domains``: list, show and remove trained domains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from xdner.cli.common import JsonOption, LibraryOption, guarded, print_json, stderr, stdout

if TYPE_CHECKING:
    from xdner.library.entry import DomainEntry

app = typer.Typer(help="The trained domains of a library.", no_args_is_help=True)


@app.command("list")
def list_domains(library: LibraryOption = None, json_: JsonOption = False) -> None:
    """List the domains of a library."""
    with guarded():
        from xdner.library.store import Library

        store = Library(library)
        entries = [store.get(name) for name in store]
        if json_:
            print_json([_facts(e) for e in entries])
            return
        if not entries:
            stderr.print(f"no domains in {store.folder} yet: train one with `xdner train NAME --train FILE`")
            return
        table = Table("domain", "types", "train", "dev F1", "backbone", "kB", title=str(store.folder))
        for entry in entries:
            facts = _facts(entry)
            f1 = "–" if facts["dev_f1"] is None else f"{facts['dev_f1']:.3f}"
            table.add_row(
                facts["name"],
                str(len(facts["labels"])),
                str(facts["train_sentences"]),
                f1,
                facts["backbone"],
                f"{facts['bytes'] / 1000:.0f}",
            )
        stdout.print(table)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A domain's name.", show_default=False)],
    library: LibraryOption = None,
    json_: JsonOption = False,
) -> None:
    """Show a domain: its types, its prefix, how it was trained."""
    with guarded():
        from xdner.library.store import Library

        entry = Library(library).get(name)
        if json_:
            print_json(_facts(entry) | {"domain": entry.domain.to_dict(), "settings": entry.settings.to_dict()})
            return
        facts = _facts(entry)
        table = Table("type", "read as", title=name, title_style="bold")
        for label in entry.domain.labels:
            table.add_row(label.name, label.verbalization)
        stdout.print(table)
        for key in (
            "instruction",
            "backbone",
            "fingerprint",
            "prefix_length",
            "bytes",
            "train_sentences",
            "dev_f1",
            "seed",
            "initial",
        ):
            shown = f"{facts[key]:.3f}" if isinstance(facts[key], float) else facts[key]
            stdout.print(f"{key.replace('_', ' '):>16}  {shown}", highlight=False, soft_wrap=True)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="A domain's name.", show_default=False)],
    library: LibraryOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a domain from a library."""
    with guarded():
        from xdner.library.store import Library

        store = Library(library)
        entry = store.get(name)
        if not yes:
            typer.confirm(f"Delete {store.path(entry.domain.name)}?", abort=True, err=True)
        store.remove(name)
        stderr.print(f"[green]✓[/] removed {name}", highlight=False)


def _facts(entry: DomainEntry) -> dict[str, Any]:
    notes = entry.prefix.notes
    return {
        "name": entry.domain.name,
        "labels": list(entry.domain.label_names),
        "instruction": entry.domain.instruction,
        "backbone": notes.get("backbone_name", ""),
        "fingerprint": entry.prefix.backbone,
        "prefix_length": entry.prefix.length,
        "bytes": entry.prefix.nbytes // 2,
        "train_sentences": notes.get("train_sentences"),
        "dev_f1": notes.get("dev_f1"),
        "seed": notes.get("seed"),
        "initial": entry.prefix.initial,
    }
