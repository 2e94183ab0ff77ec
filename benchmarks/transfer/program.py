"""What the programs do alike: the environment, errors as one message, runs and then tables."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xdner.errors import TrainingInterrupted, XdnerError

if TYPE_CHECKING:
    from benchmarks.transfer.options import Options
    from benchmarks.transfer.specs import Spec

__all__ = ["environment", "figures", "guarded", "make_runs", "say"]


def environment() -> None:
    """As the ``xdner`` command does, and before torch is loaded: spinning threads slow small machines down tenfold."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def say(line: str) -> None:
    """A line for a person, beside the tables on standard output."""
    print(line, file=sys.stderr, flush=True)


def guarded(work: Callable[[], None]) -> int:
    """Do the work.

    Returns:
        The exit code: 1 after an error, 130 after Ctrl-C.
    """
    try:
        work()
    except (TrainingInterrupted, KeyboardInterrupt) as error:
        say(f"{getattr(error, 'message', '') or 'stopped'}\n  → The same command goes on with what is missing.")
        return 130
    except XdnerError as error:
        say(f"error: {error}")
        return 1
    return 0


def make_runs(given: argparse.Namespace, options: Options, specs: Sequence[Spec]) -> None:
    """Make the runs that are missing.

    Raises:
        XdnerError: see :class:`benchmarks.transfer.campaign.Campaign`.
    """
    from benchmarks.transfer.campaign import Campaign
    from benchmarks.transfer.engines import engine

    budget = None if given.budget_minutes is None else 60 * given.budget_minutes
    Campaign(options, specs, engine(given.engine, options, given.workers), say, budget).go()


def figures(drawn: Iterable[Path]) -> None:
    """Name the figures; they come after the tables, which need no matplotlib."""
    for path in drawn:
        say(f"drawn: {path}")
