"""Which format a file is in, told from its content; its name plays no part."""

from __future__ import annotations

from itertools import islice

from xdner.corpora.columns import column_tag
from xdner.corpora.corpus import FORMATS, Format
from xdner.corpora.jsonl import parse_object
from xdner.corpora.source import Source, clip
from xdner.corpora.tokens import TAG_KEYS
from xdner.errors import CorpusError

__all__ = ["detect_format"]

LINES = 100  # as many are looked at


def detect_format(source: Source) -> Format:
    """The format of a file.

    Any of the first lines that ends in a tag after a word makes it ``columns``; otherwise its first line must be a JSON
    object, with ``tokens`` and tags (``tokens``) or with a ``text`` (``spans``).

    Raises:
        CorpusError: it is none of these.
    """
    filled = ((number, line) for number, line in enumerate(source.lines, 1) if line and not line.isspace())
    lines = list(islice(filled, LINES))
    number, first = lines[0]
    looks_like_json = first.lstrip().startswith(("{", "["))
    if looks_like_json and (format := _json_format(source, number, strict=False)):
        return format
    if any(column_tag(line) for _, line in lines if len(line) < 10_000):
        return "columns"
    if looks_like_json:
        _json_format(source, number, strict=True)
    raise source.error(
        f"the format is none that is known; the file begins {clip(first)}",
        line=number,
        hint="Known are columns (word, tab, tag), spans and tokens (JSONL); or say which: "
        f"format={'|'.join(FORMATS)} (--format on the command line).",
    )


def _json_format(source: Source, number: int, *, strict: bool) -> Format | None:
    """The JSONL format of a line; where it has none, ``None``, or if ``strict`` the error that says why."""
    try:
        record = parse_object(source, number)
    except CorpusError:
        if strict:
            raise
        return None
    if "tokens" in record and any(key in record for key in TAG_KEYS):
        return "tokens"
    if "text" in record:
        return "spans"
    if not strict:
        return None
    keys = ", ".join(clip(key) for key in list(record)[:10]) or "none"
    raise source.error(
        f"a JSON object with neither 'text' nor 'tokens' and 'tags'; its keys: {keys}",
        line=number,
        hint='Spans are {"text": …, "spans": […]}; tokens are {"tokens": […], "tags": […]}.',
    )
