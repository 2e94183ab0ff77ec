"""Markdown tables and numbers as they stand in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["cells", "flat", "header", "percent", "points", "table"]


def percent(value: float) -> str:
    """A share from 0 to 1 in percent, two digits."""
    return f"{100 * value:.2f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * value:+.2f}"


def cells(*values: str) -> str:
    """One line of a table."""
    return "| " + " | ".join(values) + " |"


def header(*names: str, left: int) -> list[str]:
    """The two lines above a table's first row; the first ``left`` columns stand to the left, the others to the right."""
    return [cells(*names), cells(*("---" if i < left else "---:" for i in range(len(names))))]


def table(names: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """A whole table."""
    return [*header(*names, left=left), *(cells(*row) for row in rows)]


def flat(value: Any) -> str:
    """A mapping as one line."""
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
