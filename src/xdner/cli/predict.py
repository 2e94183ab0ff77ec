"""``xdner predict``: recognize entities in texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    say_note,
    stderr,
    stdout,
    unread_answer,
)

if TYPE_CHECKING:
    from xdner.recognizers.base import Result


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
        from xdner.errors import DataError, EndpointError
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
        results: list[Result | None] = []
        failure = None
        try:
            with counting("windows read") as done:
                results += recognizer.predict(items, domain=domain[0] if len(domain) == 1 else domain, done=done)
        except EndpointError as error:  # what was answered before is paid for
            results, failure = list(error.finished), error
            if not any(results):
                raise
        names = domain * len(items) if len(domain) == 1 else domain
        if json_:
            missing = None if failure is None else failure.message
            print_json([
                {"text": text, "domain": name, "error": missing} if result is None else result.to_dict()
                for text, name, result in zip(items, names, results, strict=True)
            ])  # fmt: skip
        else:
            read = [result for result in results if result is not None]
            for name in dict.fromkeys(domain):
                if stdout.is_terminal:
                    stderr.print(legend(recognizer.labels(name)))
            for result in read:
                stdout.print(highlighted(result, recognizer.labels(result.domain), scores=scores), soft_wrap=True)
            _tell(read)
        if failure is not None:
            first = results.index(None) + 1
            say_note(
                f"{results.count(None)} of {len(results)} texts were not read, the first of them is number {first}"
            )
            raise failure


def _tell(results: Sequence[Result]) -> None:
    """What the user should know of how texts were read."""
    notes: Counter[str] = Counter()
    for result in results:
        notes.update(result.diagnostics)
    if blank := sum(not r.text.strip() for r in results):
        say_note(f"{blank} text(s) are empty: there is nothing to read")
    if split := sum(r.windows > 1 for r in results):
        say_note(f"{split} long text(s) were read in windows and put together")
    for what, count in notes.items():
        say_note(f"{what.replace('_', ' ')}: {count}")
    if unread := [u for r in results for u in r.unread]:
        say_note(f"the first answer that could not be read: {unread_answer(unread[0].answer, unread[0].why)}")
