"""``xdner domains``: list, show, verify, export, import and remove trained domains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Column, Table
from rich.text import Text

from xdner.cli.common import JsonOption, LibraryOption, guarded, print_json, say, say_done, say_note, stderr, stdout
from xdner.cli.visible import unstyled
from xdner.errors import LibraryError

if TYPE_CHECKING:
    from xdner.library.kinds import Entry

app = typer.Typer(help="The trained domains of a library.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="A domain's name.", show_default=False)]
_SHOWN = (
    "recognizer",
    "head",
    "instruction",
    "backbone",
    "fingerprint",
    "url",
    "prefix_length",
    "members",
    "adapter",
    "template",
    "retriever",
    "examples",
    "bytes",
    "train_sentences",
    "dev_f1",
    "seed",
    "initial",
    "strategy",
    "sources",
)


@app.command("list")
def list_domains(library: LibraryOption = None, json_: JsonOption = False) -> None:
    """List the domains of a library, and those that ship with xdner."""
    with guarded():
        from xdner.library.bundled import shipped_entries
        from xdner.library.leftovers import is_begun
        from xdner.library.store import Library

        store = Library(library)
        sound, damaged = store.load_all()
        begun = [name for name in store.begun() if is_begun(store.path(name))]
        names = sorted({*sound, *damaged})
        # A damaged domain, too, goes before the one of its name that ships.
        shipped = {name: entry for name, entry in shipped_entries().items() if name not in names}
        if json_:
            own = [_facts(sound[n]) if n in sound else {"name": n, "error": damaged[n].message} for n in names]
            print_json(own + [_facts(entry) | {"shipped": True} for entry in shipped.values()])
            return
        if sound:
            stdout.print(_listing(sound.values(), str(store.folder)))
        for name, error in damaged.items():
            stdout.print(unstyled(f"✗ {name} is damaged: {error.message}", "red"), soft_wrap=True)
        if shipped:
            stdout.print(_listing(shipped.values(), "shipped with xdner"))
        for name in begun:
            say(
                f"{name} is an index of examples so far: `xdner train {name} --recognizer if-wraner` makes a domain of it"
            )
        if not names and not begun:
            say(f"no domains in {store.folder} yet: train one with `xdner train NAME --train FILE`")


def _listing(entries: Iterable[Entry], title: str) -> Table:
    names = {"domain", "backbone"}  # where it is narrow, these are broken: all of a name is there to be read
    table = Table(
        *(Column(n, overflow="fold", no_wrap=n not in names)
          for n in ("domain", "recognizer", "types", "train", "dev F1", "backbone", "kB")),
        title=unstyled(title), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for facts in map(_facts, entries):
        table.add_row(
            unstyled(facts["name"]),
            facts["recognizer"],
            str(len(facts["labels"])),
            _shown("train_sentences", facts),
            _shown("dev_f1", facts),
            unstyled(facts["backbone"]),
            f"{facts['bytes'] / 1000:.0f}" if facts["bytes"] else "–",
        )
    return table


@app.command("show")
def show(name: NameArgument, library: LibraryOption = None, json_: JsonOption = False) -> None:
    """Show a domain: its types, its weights, how it was trained."""
    with guarded():
        from xdner.library.bundled import find_entry
        from xdner.library.store import Library

        entry = find_entry(name, Library(library))
        facts = _facts(entry)
        if json_:
            more = {"domain": entry.domain.to_dict(), "settings": entry.settings.to_dict(), "card": entry.card}
            print_json(facts | more)
            return
        for line in entry.card.strip().splitlines():
            stdout.print(unstyled(line.lstrip("# ") if line.startswith("#") else line), soft_wrap=True)
        table = Table("type", "read as", title=name, title_style="bold")
        for label in entry.domain.labels:
            table.add_row(unstyled(label.name), unstyled(label.verbalization))
        stdout.print(table)
        for key in (k for k in _SHOWN if k in facts):
            stdout.print(unstyled(f"{key.replace('_', ' '):>16}  {_shown(key, facts)}"), soft_wrap=True)


@app.command("verify")
def verify(library: LibraryOption = None, json_: JsonOption = False) -> None:
    """Check every domain: is it whole, unaltered, and of the library's backbone? Exit code 1 if one is not."""
    with guarded():
        from xdner.library.store import Library

        store = Library(library)
        found = store.verify()
        bad = [v for v in found if v.problem is not None]
        if json_:
            print_json([asdict(v) for v in found])
        elif not found:
            say(f"no domains in {store.folder} yet: train one with `xdner train NAME --train FILE`")
        else:
            table = Table("domain", "", "what was found", title=unstyled(str(store.folder)))
            for v in found:
                lines = [unstyled(v.problem, "red")] if v.problem is not None else []
                lines += [unstyled(f"→ {v.hint}", "cyan")] if v.hint else []
                lines += [unstyled(note) for note in v.notes]
                mark = "[bold red]✗[/]" if v.problem is not None else "[yellow]![/]" if v.notes else "[green]✓[/]"
                table.add_row(unstyled(v.name), mark, Text("\n").join(lines) if lines else "in order")
            stdout.print(table)
        if bad:
            stderr.print(unstyled(f"✗ damaged: {', '.join(v.name for v in bad)}", "bold red"), soft_wrap=True)
            raise typer.Exit(1)


@app.command("export")
def export(
    name: NameArgument,
    library: LibraryOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file, or its folder (default: NAME.xdner here).", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:  # fmt: skip
    """Write a domain, of the library or shipped, as one file, to copy or to send."""
    with guarded():
        from xdner.library.bundled import find_store
        from xdner.library.store import Library

        store, file = find_store(name, Library(library)), out if out is not None else Path(f"{name}.xdner")
        file = file / f"{name}.xdner" if file.is_dir() else file
        if file.exists() and not force:
            raise LibraryError(
                f"there is a {file} already", hint="Replace it with --force, or name another with --out."
            )
        store.export(name, file)
        say_done(f"wrote {file} ({file.stat().st_size / 1000:.0f} kB)")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What `xdner domains export` wrote.", show_default=False)],
    library: LibraryOption = None,
    name: Annotated[str | None, typer.Option("--name", help="Another name for the domain.", show_default=False)] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Take the place of a domain of that name.")] = False,
) -> None:
    """Add a domain from an exported file; everything in it is checked first.

    What it replaces goes with its rows on a Milvus server.
    """
    with guarded():
        from xdner.workflows import import_domain

        folder, left = import_domain(file, library, name=name, replace=replace)
        if left:
            say_note(left)
        say_done(f"{folder.name} is in {folder.parent}")


@app.command("remove")
def remove(
    name: NameArgument,
    library: LibraryOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a domain from a library, or an index of examples that is no domain yet, with its rows on a Milvus server."""
    with guarded():
        from xdner.library.bundled import shipped_entries
        from xdner.library.store import Library
        from xdner.workflows.removing import remove_domain, server_rows

        store = Library(library)
        here = name in store or name in store.begun()
        if not here and name in shipped_entries():
            raise LibraryError(
                f"{name!r} ships with xdner and is not in {store.folder}: it stays",
                hint="A domain of your own with this name goes before it.",
            )
        if here and not yes:
            rows = server_rows(name, library)
            typer.confirm(f"Delete {store.path(name)}{f' and {rows}' if rows else ''}?", abort=True, err=True)
        if left := remove_domain(name, library):
            say_note(left)
        say_done(f"removed {name}")


def _facts(entry: Entry) -> dict[str, Any]:
    from xdner.library.examples_entry import ExamplesEntry
    from xdner.library.kinds import RECOGNIZERS
    from xdner.library.tagger_entry import TaggerEntry

    common = {
        "name": entry.domain.name,
        "labels": list(entry.domain.label_names),
        "instruction": entry.domain.instruction,
        "recognizer": RECOGNIZERS[type(entry)],
    }
    if isinstance(entry, TaggerEntry):
        sources = {"sources": _sources(entry.notes["sources"])} if "sources" in entry.notes else {}
        return common | {
            "head": entry.settings.tagger.head,
            "backbone": entry.encoder["name"],
            "fingerprint": entry.encoder["fingerprint"],
            "bytes": entry.nbytes,
        } | {key: entry.notes.get(key) for key in ("train_sentences", "dev_f1", "seed")} | sources  # fmt: skip
    if isinstance(entry, ExamplesEntry):
        sources = {"sources": _sources(entry.notes["sources"])} if "sources" in entry.notes else {}
        return common | {
            "backbone": entry.llm["name"],
            **{key: entry.llm[key] for key in ("fingerprint", "url") if entry.llm.get(key)},
            "bytes": entry.nbytes,
            "adapter": None if entry.adapter is None else entry.adapter.hash,
            "template": entry.template.title,
            "retriever": f"{entry.settings.retrieval.method}, k = {entry.settings.retrieval.k}",
            "examples": len(entry.examples),
        } | {key: entry.notes.get(key) for key in ("train_sentences", "dev_f1", "seed")} | sources  # fmt: skip
    notes = entry.prefix.notes
    return (
        common
        | {
            "backbone": notes.get("backbone_name", ""),
            "fingerprint": entry.prefix.backbone,
            "prefix_length": entry.prefix.length,
            "members": len(entry.prefixes),
            "bytes": sum(p.nbytes for p in entry.prefixes) // 2,
            "train_sentences": notes.get("train_sentences"),
            "dev_f1": notes.get("dev_f1"),
            "seed": notes.get("seed"),
            "initial": entry.prefix.initial,
        }
        | _transfer(notes.get("transfer"))
    )


def _transfer(facts: Any) -> dict[str, Any]:
    """Strategy and sources of a domain that drew on others; nothing for one that did not."""
    if not isinstance(facts, Mapping):
        return {}
    return {"strategy": facts.get("strategy"), "sources": _sources(facts.get("sources"))}


def _sources(sources: Any) -> list[dict[str, Any]]:
    """Names and weights, of what a manifest says about sources."""
    kept = [s for s in sources if isinstance(s, Mapping) and "name" in s] if isinstance(sources, list) else []
    return [{"name": s["name"], "weight": s.get("weight")} for s in kept]


def _shown(key: str, facts: Mapping[str, Any]) -> str:
    """A fact for people."""
    value = facts[key]
    if key == "sources":
        return ", ".join(f"{s['name']} {_number(s['weight'])}".strip() for s in value) or "–"
    return "–" if value is None else _number(value) or str(value)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else ""
