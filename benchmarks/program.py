"""What the programs do alike: options, errors as one message, an exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from math import inf
from pathlib import Path

from xdner.__main__ import prepare_environment
from xdner.errors import TrainingInterrupted, XdnerError

__all__ = ["budget", "common_options", "guarded", "rate", "run", "say", "tell_drawn"]

ROOT = Path(__file__).resolve().parents[1]


def say(line: str) -> None:
    """A line for a person, beside the tables on standard output."""
    print(line, file=sys.stderr, flush=True)


def tell_drawn(figures: Iterable[Path]) -> None:
    """Draw figures, and say where they are. The tables are there already: without matplotlib, that is all that is said."""
    try:
        for path in figures:
            say(f"drawn: {path}")
    except XdnerError as error:
        say(f"no figure: {error}")


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


def common_options(made: argparse.ArgumentParser, out: str, *, of_out: str, table: str) -> None:
    """What every grid of runs has: ``--data``, ``--out``, ``--table``, ``--budget-minutes``, ``--limit``, ``--device``.

    Args:
        made: gets the options.
        out: folder by default.
        of_out, table: what ``--out`` and ``--table`` say.
    """
    add = made.add_argument
    add("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with NAME/train.txt, NAME/dev.txt")
    add("--out", type=Path, default=Path(out), help=of_out)
    add("--table", action="store_true", help=table)
    add("--budget-minutes", type=float, metavar="M", help="begin no new run after so many minutes")
    add("--limit", type=positive, metavar="N", help="a trial: only the first N sentences of each file")
    add("--device", default="cpu", help="cpu, cuda, ...")


def positive(text: str) -> int:
    """A count of an option."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return count


def rate(text: str) -> float:
    """A learning rate of an option, within the bounds of settings: a wrong one would else be told by the first run."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no learning rate, that is a number above 0 such as 2e-4")
    return found


def budget(options: argparse.Namespace, spent: float = 0.0) -> float | None:
    """Seconds that are left of ``--budget-minutes`` after so many, ``None`` if there is no end."""
    return None if options.budget_minutes is None else max(0.0, 60 * options.budget_minutes - spent)


def run(
    parser: Callable[[], argparse.ArgumentParser],
    work: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
    *,
    left: str = "what is missing",
) -> int:
    """A whole program: options, environment, work.

    Args:
        parser: makes the options.
        work: does what they ask for.
        arguments: of the command line.
        left: see :func:`guarded`.

    Returns:
        The exit code: 1 after an error, 130 after Ctrl-C.
    """
    prepare_environment()
    options = parser().parse_args(arguments)
    return guarded(lambda: work(options), left=left)
