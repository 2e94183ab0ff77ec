"""``xdner evaluate``: score a domain on labelled sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xdner.cli.common import (
    BackboneOption,
    BeamOption,
    DeviceOption,
    DtypeOption,
    FormatOption,
    JsonOption,
    LibraryOption,
    counting,
    guarded,
    print_json,
    say_note,
    stdout,
    unread_answer,
)


def evaluate(
    domain: Annotated[str, typer.Option("--domain", "-d", help="A trained domain.", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="Labelled sentences.", show_default=False)],
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    format: FormatOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    beam: BeamOption = None,
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Score a domain's predictions against labelled sentences: exact spans, per type, with intervals and errors.

    Where an endpoint fails in the middle, what was read before is scored, and the exit code is 1; after Ctrl-C it is 130.

    Example: xdner evaluate --domain cooking --data test.jsonl
    """
    with guarded():
        from xdner.cli.render import report_tables
        from xdner.errors import EndpointError, EndpointInterrupted
        from xdner.workflows import evaluate_domain

        failure = None
        try:
            with counting("windows read") as done:
                report = evaluate_domain(
                    domain, data, backbone=backbone, library=library, format=format, dtype=dtype, device=device,
                    beam=beam, done=done,
                )  # fmt: skip
        except EndpointError as error:  # what was answered before is paid for
            if error.report is None:
                raise
            report, failure = error.report, error
        if json_:
            print_json(report.to_dict() | ({} if failure is None else {"error": failure.message}))
        else:
            for table in report_tables(report, width=stdout.width):
                stdout.print(table)
            for what, count in report.notes.items():
                say_note(f"{what.replace('_', ' ')}: {count}")
            for first in report.unread[:1]:
                said = unread_answer(first["answer"], first["why"])
                say_note(f"the first answer that could not be read, of {first['id']}: {said}")
        if failure is not None:
            ended = "the interruption" if isinstance(failure, EndpointInterrupted) else "the endpoint failed"
            say_note(f"these scores are of the {report.sentences} sentences that were read before {ended}")
            raise failure
