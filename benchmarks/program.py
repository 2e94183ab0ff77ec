"""What the programs do alike: the environment, errors as one message, an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from xdner.errors import TrainingInterrupted, XdnerError

__all__ = ["environment", "guarded", "say"]


def environment() -> None:
    """As the ``xdner`` command does, and before torch is loaded: spinning threads slow small machines down tenfold."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def say(line: str) -> None:
    """A line for a person, beside the tables on standard output."""
    print(line, file=sys.stderr, flush=True)


def guarded(work: Callable[[], None], *, left: str = "what is missing") -> int:
    """Do the work.

    Args:
        work: the program.
        left: what the same command goes on with after an interruption.

    Returns:
        The exit code: 1 after an error, 130 after Ctrl-C.
    """
    try:
        work()
    except (TrainingInterrupted, KeyboardInterrupt) as error:
        say(f"{getattr(error, 'message', '') or 'stopped'}\n  → The same command goes on with {left}.")
        return 130
    except XdnerError as error:
        say(f"error: {error}")
        return 1
    return 0
