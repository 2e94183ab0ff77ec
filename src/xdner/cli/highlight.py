"""Entities in color, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

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
        line.append(_printable(result.text[at : entity.start]))
        style = _style(entity.label, labels)
        line.append(_printable(entity.text), style=f"{style} underline")
        score = f" {entity.score:.2f}" if scores and entity.score is not None else ""
        line.append(f"⟨{entity.label}{score}⟩", style=style.replace("bold", "dim"))
        at = entity.end
    line.append(_printable(result.text[at:]))
    return line


def legend(labels: Sequence[str]) -> Text:
    """The types in their colors."""
    line = Text()
    for label in labels:
        line.append(label, style=_style(label, labels))
        line.append("  ")
    return line


def _printable(text: str) -> str:
    """Joiners of letters and emoji stay. Control characters must not drive the terminal; lone surrogates cannot be written at all."""
    clean = "".join(c if c.isprintable() or c in "\n\t\u200c\u200d" else "�" for c in text)
    return clean.encode("utf-8", "replace").decode("utf-8")
