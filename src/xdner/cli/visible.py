"""Text of users and strangers, as a terminal may show it."""

from __future__ import annotations

import regex
from rich.text import Text

__all__ = ["unstyled", "visible"]


#: Control characters and line ends but \n and \t, halves of surrogate pairs, and what puts the rest of a line in another order.
_UNSEEN = regex.compile(r"[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069--\n\t]", regex.VERSION1)


def visible(text: object) -> str:
    """``text`` without control characters, which must not drive the terminal, and without halves of surrogate pairs, which have
    no form in UTF-8. Spaces of all widths, soft hyphens, and joiners of letters and emoji stay."""
    return _UNSEEN.sub("\ufffd", str(text))


def unstyled(text: object, style: str = "") -> Text:
    """The same as text that is no markup: names, paths and messages may hold brackets."""
    return Text(visible(text), style=style)
