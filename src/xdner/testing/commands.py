"""Commands run inside a test: what they print, and how they fail."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from xdner.cli.app import app

__all__ = ["refused", "run"]


def run(*args: str) -> Result:
    """``xdner args…``"""
    return CliRunner().invoke(app, list(args))


def refused(*args: str) -> str:
    """The error message of a command that must fail with one message, a next step and no traceback."""
    result = run(*args)
    assert result.exit_code == 1, (result.stdout, result.stderr, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.count("error:") == 1
    assert "→" in result.stderr
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.split())
