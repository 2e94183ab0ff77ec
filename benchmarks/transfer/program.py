"""What ``cross_domain.py`` and ``ablation.py`` do alike: make the runs, then print tables and draw figures from files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.program import say, tell_drawn

if TYPE_CHECKING:
    from benchmarks.transfer.comparison import Run
    from benchmarks.transfer.options import Options
    from benchmarks.transfer.specs import Spec

__all__ = ["run_and_report"]


def run_and_report(
    given: argparse.Namespace,
    specs: Callable[[argparse.Namespace, Options], Sequence[Spec]],
    markdown: Callable[[list[Run]], str],
    draw: Callable[[list[Run], Path], Iterable[Path]],
) -> None:
    """Make the runs that are missing, unless only the table is asked for; then all tables, then the figures, which come
    last because tables need no matplotlib.

    Args:
        given: the parsed options.
        specs: the runs that they ask for.
        markdown, draw: tables and figures of runs.

    Raises:
        XdnerError: see :class:`benchmarks.transfer.campaign.Campaign`.
    """
    from benchmarks.transfer.comparison import load
    from benchmarks.transfer.options import options_of

    options = options_of(given)
    if not given.table:
        _make_runs(given, options, specs(given, options))
    runs = load(options.folder)
    print(markdown(runs), end="")
    tell_drawn(draw(runs, options.folder))


def _make_runs(given: argparse.Namespace, options: Options, specs: Sequence[Spec]) -> None:
    from benchmarks.transfer.campaign import Campaign
    from benchmarks.transfer.engines import engine

    budget = None if given.budget_minutes is None else 60 * given.budget_minutes
    Campaign(options, specs, engine(given.engine, options, given.workers), say, budget).go()
