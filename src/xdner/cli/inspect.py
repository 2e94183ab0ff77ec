"""``xdner inspect FILE…``: what is in corpus files, as tables or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from xdner.cli.common import JsonOption, guarded, print_json, stdout
from xdner.cli.visible import unstyled
from xdner.corpora import FileReport, Inspection, Lengths, inspect_corpora

__all__ = ["inspect", "print_inspection"]

Rows = list[list[str | int]]

_TEXT = 100  # characters of a sentence that are shown


def inspect(
    files: Annotated[list[Path], typer.Argument(help="Corpus files; each pair is searched for shared sentences.")],
    format: Annotated[
        str | None,
        typer.Option("--format", help="columns, spans or tokens; told from each file's content if not given."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Count sentences, types and lengths; find leaks between files and sentences with conflicting labels."""
    with guarded():
        inspection = inspect_corpora(files, format=format)
        if json_:
            print_json(inspection.to_dict())
        else:
            print_inspection(inspection, stdout)


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print an inspection as tables; a table that would be empty becomes one line that says so."""
    names = _short_names([report.path for report in inspection.files])
    side_by_side = max(1, (console.width - 26) // 18)
    for start in range(0, len(names), side_by_side):
        some = slice(start, start + side_by_side)
        counts, types = _counts(inspection.files[some]), _types(inspection.files[some])
        _print(console, "Files (lengths: shortest / median / longest)", ["", *names[some]], counts, "")
        _print(console, "Entities of each type", ["", *names[some]], types, "Types: no file has entities.")
    of = {report.path: name for report, name in zip(inspection.files, names, strict=True)}
    _print_leaks(inspection, of, console)
    _print_conflicts(inspection, of, console)
    rows: Rows = [[of[x.path], text, count] for x in inspection.files for text, count in x.warnings.items()]
    _print(console, "Warnings: odd, but read", ["file", "what", "times"], rows, "Warnings: nothing was odd.")


def _print(console: Console, title: str, columns: list[str], rows: Rows, otherwise: str) -> None:
    """A table in which numbers stand to the right. Nothing is markup: a label, an id or a path may look like it."""
    if not rows:
        console.print(otherwise)
        return
    table = Table(title=unstyled(title, "bold"), title_justify="left")
    for index, column in enumerate(columns):
        numbers = any(isinstance(row[index], int) for row in rows)
        table.add_column(unstyled(column), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(unstyled(cell) if isinstance(cell, str) else f"{cell:,}" for cell in row))
    console.print(table)


def _short_names(paths: list[str]) -> list[str]:
    """The paths without the folders that all of them share."""
    parts = [Path(path).parts for path in paths]
    shared = 0
    while len({part[shared] for part in parts}) == 1 and all(len(part) > shared + 1 for part in parts):
        shared += 1
    return [str(Path(*part[shared:])) for part in parts]


def _counts(files: Sequence[FileReport]) -> Rows:
    measures: list[tuple[str, Callable[[FileReport], str | int]]] = [
        ("format", lambda x: x.format),
        ("sentences", lambda x: x.sentences),
        ("… without entities", lambda x: x.without_entities),
        ("… repeated", lambda x: x.repeated),
        ("… in conflict", lambda x: x.conflicts),
        ("words", lambda x: x.words),
        ("words per sentence", lambda x: _lengths(x.sentence_lengths)),
        ("entities", lambda x: x.entities),
        ("words per entity", lambda x: _lengths(x.mention_lengths)),
        ("types", lambda x: len(x.types)),
    ]
    return [[name, *(measure(report) for report in files)] for name, measure in measures]


def _types(files: Sequence[FileReport]) -> Rows:
    names = sorted({name for report in files for name in report.types})
    return [[name, *(report.types.get(name, 0) for report in files)] for name in names]


def _lengths(lengths: Lengths | None) -> str:
    return f"{lengths.shortest} / {lengths.median:g} / {lengths.longest}" if lengths else "–"


def _print_leaks(inspection: Inspection, of: dict[str, str], console: Console) -> None:
    # Two columns, as names of files are long and terminals narrow.
    rows: Rows = [
        [
            f"{of[x.first]}\n{of[x.second]}",
            f"{x.in_first:,} of the first, {x.in_second:,} of the second: {x.identical:,} exactly, {x.differing:,} with other "
            f"labels; such as {' and '.join(x.examples[0])}",
        ]
        for x in inspection.leaks
    ]
    many = len(inspection.files) > 1
    none = "Leaks: no sentence is in two files." if many else "Leaks: name more than one file to look for them."
    _print(console, "Leaks: sentences that two files share", ["files", "sentences"], rows, none)


def _print_conflicts(inspection: Inspection, of: dict[str, str], console: Console) -> None:
    rows: Rows = []
    for report in inspection.files:
        for conflict in report.examples:
            text = " ".join(conflict.text[: 2 * _TEXT].split())
            text = text if len(text) <= _TEXT else text[:_TEXT] + "…"
            ways = "\n".join(", ".join(ids[:3]) + (" …" if len(ids) > 3 else "") for ids in conflict.ids)
            rows.append([of[report.path], text, ways])
    title = "Conflicts: one sentence, different entities (the first few of each file)"
    none = "Conflicts: no file labels a sentence in two ways."
    _print(console, title, ["file", "sentence", "ids, a line for each way"], rows, none)
