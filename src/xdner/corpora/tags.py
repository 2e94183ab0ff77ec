"""BIO and BIOES tags to spans of words, and back.

Reading is lenient and counts what it forgave: an ``I-`` (or ``E-``) tag that continues nothing begins an entity, which
is also the right reading of IOB1 files; in BIOES files an entity that another tag cuts off ends there. ``L-`` and
``U-`` (BILOU) are read as ``E-`` and ``S-``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from xdner.corpora.corpus import usable_label

__all__ = ["TAG_HINT", "Scheme", "Tag", "decode_tags", "encode_tags", "is_bioes", "parse_tag"]

Scheme = Literal["bio", "bioes"]
Tag = tuple[str, str]  # ("B", "person"); ("O", "") outside

TAG_HINT = "Tags are O, B-type and I-type (BIO), with E-type and S-type too in BIOES; a type's name is one word."

_PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}
_LONELY = "I- or E- tags after O or another type (read as the beginning of an entity)"
_UNCLOSED = "BIOES entities without their E- or S- tag (read as ending there)"


def parse_tag(tag: str) -> Tag | None:
    """A tag's prefix and type, or ``None`` if it is no tag.

    >>> parse_tag("B-person"), parse_tag("O"), parse_tag("U-person"), parse_tag("X-person"), parse_tag("B")
    (('B', 'person'), ('O', ''), ('S', 'person'), None, None)
    """
    if tag == "O":
        return ("O", "")
    prefix, _, label = tag.partition("-")
    return (_PREFIXES[prefix], label) if prefix in _PREFIXES and usable_label(label) else None


def is_bioes(tags: Iterable[Tag]) -> bool:
    """Whether tags that only BIOES has occur."""
    return any(prefix in "ES" for prefix, _ in tags)


def decode_tags(tags: Sequence[Tag], bioes: bool, warnings: Counter[str]) -> list[tuple[int, int, str]]:
    """The entities of a sentence, in words: ``(first, one past the last, label)``.

    Args:
        tags: one per word, parsed.
        bioes: whether the file is in BIOES, so that an entity must end in ``E-`` or ``S-``.
        warnings: impossible transitions are counted here.
    """
    spans: list[tuple[int, int, str]] = []
    begin, label = -1, ""  # the open entity; begin < 0: none
    for at, (prefix, name) in enumerate((*tags, ("O", ""))):
        goes_on = prefix in "IE" and begin >= 0 and name == label
        if begin >= 0 and not goes_on:
            spans.append((begin, at, label))
            begin = -1
            warnings[_UNCLOSED] += bioes
        if prefix in "IE" and not goes_on:
            warnings[_LONELY] += 1
        if prefix != "O" and not goes_on:
            begin, label = at, name
        if prefix in "ES":
            spans.append((begin, at + 1, label))
            begin = -1
    return spans


def encode_tags(length: int, spans: Iterable[tuple[int, int, str]], scheme: Scheme) -> list[str]:
    """The tags of a sentence of ``length`` words from spans that do not overlap: the inverse of :func:`decode_tags`.

    >>> encode_tags(4, [(0, 2, "person"), (3, 4, "city")], "bioes")
    ['B-person', 'E-person', 'O', 'S-city']
    """
    tags = ["O"] * length
    for first, last, label in spans:
        tags[first:last] = [f"B-{label}"] + [f"I-{label}"] * (last - first - 1)
        if scheme == "bioes":
            tags[last - 1] = f"S-{label}" if last - first == 1 else f"E-{label}"
    return tags
