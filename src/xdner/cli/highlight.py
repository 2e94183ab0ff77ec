"""Entities in color, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from xdner.cli.visible import visible
from xdner.recognizers.base import Result

__all__ = ["highlighted", "legend"]

_COLORS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")


def _style(label: str, labels: Sequence[str]) -> str:
    index = labels.index(label) if label in labels else len(label)
    return f"bold {_COLORS[index % len(_COLORS)]}"


def highlighted(result: Result, labels: Sequence[str], *, scores: bool = False) -> Text:
    """The text with each entity in its type's color, followed by the type: ``Orioles⟨organisation⟩``."""
    line = Text()
    at = 0
    for entity in result.entities:
        line.append(visible(result.text[at : entity.start]))
        style = _style(entity.label, labels)
        line.append(visible(entity.text), style=f"{style} underline")
        score = f" {entity.score:.2f}" if scores and entity.score is not None else ""
        line.append(f"⟨{entity.label}{score}⟩", style=style.replace("bold", "dim"))
        at = entity.end
    line.append(visible(result.text[at:]))
    return line


def legend(labels: Sequence[str]) -> Text:
    """The types in their colors."""
    line = Text()
    for label in labels:
        line.append(label, style=_style(label, labels))
        line.append("  ")
    return line
