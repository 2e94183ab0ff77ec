"""``xdner index``: examples of a domain, so that each word of them can be found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from xdner.cli.common import (
    ConfigOption,
    DeviceOption,
    EncoderOption,
    FormatOption,
    JsonOption,
    LibraryOption,
    SetOption,
    guarded,
    print_json,
    say,
    say_done,
    say_note,
    stderr,
)


def index(
    name: Annotated[str, typer.Argument(help="Of the domain.", show_default=False)],
    examples: Annotated[Path | None, typer.Option("--examples", help="Labelled sentences (default: what the domain has).", show_default=False)] = None,
    uri: Annotated[str | None, typer.Option("--index", help="A Milvus server, http://host:19530, for a new index (default: a local file).", show_default=False)] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the sentences of --examples from the index.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Make the index anew, with these sentences only.")] = False,
    skip_empty: Annotated[bool, typer.Option("--skip-empty", help="Leave sentences without entities out.")] = False,
    encoder: EncoderOption = None,
    library: LibraryOption = None,
    format: FormatOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    device: DeviceOption = "cpu",
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Add labelled sentences to a domain's index of examples; what is there already changes nothing.

    Example: xdner index cooking --examples train.jsonl
    """
    with guarded():
        from xdner.workflows import index_examples

        with _bar() as progress:
            done = index_examples(
                name, examples, library=library, uri=uri, encoder=encoder, remove=remove, replace=replace,
                skip_empty=skip_empty, format=format, config=config, overrides=set_ or [], device=device,
                progress=progress,
            )  # fmt: skip
        for warning in done.warnings:
            say_note(warning)
        if done.skipped:
            say_note(f"{done.skipped} sentences without entities were left out")
        if json_:
            print_json(done.to_dict())
            return
        counts = {"added": done.change.added, "updated": done.change.updated, "removed": done.change.removed,
                  "there already": done.change.unchanged}  # fmt: skip
        told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing to do"
        say_done(f"{name}: {told} ({done.seconds:.1f} s)")
        kind = done.kind or "no index"
        say(
            f"  {done.examples:,} examples with {done.words:,} words in {done.place} ({kind}), embedded by {done.embedding}"
        )


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error; silent where that is no terminal."""
    if not stderr.is_terminal:
        yield lambda what, done, of: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as shown:
        tasks = {}

        def tell(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=of)
            shown.update(tasks[what], completed=done)

        yield tell
