"""The command line, assembled: one command, one file."""

from __future__ import annotations

from typing import Annotated

import typer

from xdner import __version__
from xdner.cli import backbones, domains
from xdner.cli.adapt import adapt
from xdner.cli.demo import demo
from xdner.cli.doctor import doctor
from xdner.cli.evaluate import evaluate
from xdner.cli.explain import explain
from xdner.cli.flags import Group
from xdner.cli.index import index
from xdner.cli.initial import initial
from xdner.cli.inspect import inspect
from xdner.cli.instruct import instruct
from xdner.cli.predict import predict
from xdner.cli.sample import sample
from xdner.cli.select import select
from xdner.cli.serve import serve
from xdner.cli.train import train

__all__ = ["app"]

app = typer.Typer(
    cls=Group,
    help="Cross-domain named-entity recognition: one frozen language model, a small trained prefix for each domain.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xdner {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:  # fmt: skip
    """Cross-domain named-entity recognition: one frozen language model, a small trained prefix for each domain."""


app.command()(train)
app.command()(predict)
app.command()(evaluate)
app.command()(serve)
app.command()(select)
domains.app.command("initial")(initial)
app.add_typer(domains.app, name="domains", cls=Group)
app.add_typer(backbones.app, name="backbones", cls=Group)
app.command()(instruct)
app.command()(adapt)
app.command()(index)
app.command()(explain)
app.command()(inspect)
app.command()(sample)
app.command()(demo)
app.command()(doctor)
