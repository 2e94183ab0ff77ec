"""Commands run inside a test: what they print, and how they fail."""

from __future__ import annotations

import os
import subprocess
import sys

from typer.testing import CliRunner, Result

from xdner.cli.app import app

__all__ = ["interrupted", "refused", "run"]

# From the inside: seen from another process, a short training may have ended before the signal comes.
_CTRL_C = """
import signal, sys

from xdner.__main__ import main, prepare_environment

prepare_environment()
from xdner.training.progress import RichProgress

at, told = int(sys.argv.pop(1)), RichProgress.step

def step(self, done, loss):
    told(self, done, loss)
    if done == at:
        signal.raise_signal(signal.SIGINT)

RichProgress.step = step
main()
"""


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


def interrupted(*args: str, step: int) -> str:
    """The error message of ``xdner args…`` in a process of its own, where Ctrl-C comes right after a step of a training."""
    command = [sys.executable, "-c", _CTRL_C, str(step), *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 1, ended.stderr
    return ended.stderr
