"""Runs of two folders in one table: where one choice differs, and nothing else does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.transfer.comparison import Results, load
from benchmarks.transfer.notes import BOOTSTRAP
from benchmarks.transfer.report import always, compared, groups_of, score_table, strategies
from xdner.errors import DataError

__all__ = ["beside_instruction", "stand_beside"]

Run = dict[str, Any]
FROM_INSTRUCTION = "from the instruction"


def stand_beside(runs: Sequence[Run], folder: Path, own: Sequence[str], differ: Sequence[str] = ()) -> list[Run]:
    """The runs of another folder, if they can be compared with these.

    Args:
        runs: of one folder.
        folder: of the others.
        own: options that may differ.
        differ: what is known to be wrong already.

    Raises:
        DataError: there is nothing there, or it was made with other options or from other data.
    """
    others = load(folder)
    mine, theirs = runs[0]["asked"], others[0]["asked"]
    told = [f"{k} is {theirs.get(k)!r} there, {mine.get(k)!r} here"
            for k in mine if k not in own and mine.get(k) != theirs.get(k)]  # fmt: skip
    told += differ
    files: dict[str, str] = {}
    for run in (*others, *runs):
        told += [f"{name} is not the same file" for name, value in run["data"].items()
                 if files.setdefault(name, value) != value]  # fmt: skip
    if told:
        raise DataError(f"{folder} cannot stand beside these runs: {'; '.join(dict.fromkeys(told))}",
                        hint="Give the same options to both.")  # fmt: skip
    return others


def beside_instruction(runs: list[Run], folder: Path) -> str:
    """Strategies that start from a δ₀ trained on the sources, against ``none`` that starts from the instruction.

    Only the latter's prefix has seen no sentence of a source.

    Args:
        runs: with ``--initial shared``.
        folder: of the same track with ``--initial instruction``.

    Raises:
        DataError: these runs do not start from a shared δ₀, or see :func:`stand_beside`.
    """
    wrong = [] if runs[0]["initial"] == "shared" else ["these runs do not start from a shared δ₀"]
    others = stand_beside(runs, folder, ("initial", "initial_steps"), wrong)
    unaided = [{**run, "method": FROM_INSTRUCTION} for run in others if run["method"] == "none"]
    results = Results([*runs, *unaided])
    # The instructed backbone has seen them itself.
    seen = "no source was seen" if runs[0]["track"] != "instructed" else "the prefix has seen no source"
    base = always(f"none, δ₀ the instruction: {seen}", FROM_INSTRUCTION)
    sources = list(runs[0]["asked"]["sources"])
    rows = [always("none, δ₀ trained on the sources", "none"), *strategies(results, sources)[1:]]
    where = [c for c in results.conditions if c.target not in sources and results.get(c, FROM_INSTRUCTION)]
    groups = groups_of(where)
    parts = ["## What the sources bring in all", "", *score_table(results, [base, *rows], where, groups, "strategy")]
    told: list[str] = []
    for row in rows:
        lines = compared(results, row, [base], where, groups)
        told += lines[2:] if told else lines
    return "\n".join([*parts, *(["", *told, "", BOOTSTRAP] if told else [])]) + "\n"
