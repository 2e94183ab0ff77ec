"""Text of users and strangers, as a terminal may show it."""

from __future__ import annotations

from rich.text import Text

__all__ = ["unstyled", "visible"]


def visible(text: object) -> str:
    """``text`` without control characters, which must not drive the terminal, and without halves of surrogate pairs, which have
    no form in UTF-8. Joiners of letters and emoji stay."""
    return "".join(c if c.isprintable() or c in "\n\t\u200c\u200d" else "\ufffd" for c in str(text))


def unstyled(text: object, style: str = "") -> Text:
    """The same as text that is no markup: names, paths and messages may hold brackets."""
    return Text(visible(text), style=style)
