"""What the two JSONL readers share: one JSON object a line, checked for what no tokenizer and no file can hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from xdner.corpora.source import Source, clip

__all__ = ["UNWRITABLE", "given_id", "json_objects", "parse_object", "shown"]

_SUSPECT = re.compile(r"\\u(?:d[89a-f]|0000)", re.IGNORECASE)
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_HINT = "JSONL holds one JSON object a line, and nothing else: no array around it, no object over several lines."


def json_objects(source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers; blank lines are passed over.

    Raises:
        CorpusError: a line that is no JSON object, or text with a NUL character or half a surrogate pair.
    """
    for number, line in enumerate(source.lines, 1):
        if line and not line.isspace():
            yield number, parse_object(source, number)


def parse_object(source: Source, number: int) -> dict[str, Any]:
    """The object in line ``number`` (from one). Errors as :func:`json_objects`."""
    line = source.lines[number - 1]
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        place = f"{error.msg} at column {error.colno}"
        raise source.error(f"not JSON ({place}): {clip(line)}", line=number, hint=_HINT) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets nested thousands deep
        raise source.error(f"JSON that cannot be read ({error}): {clip(line)}", line=number, hint=_HINT) from None
    if not isinstance(value, dict):
        kind = "an array" if isinstance(value, list) else "a bare value"
        raise source.error(f"expected a JSON object, found {kind}: {clip(line)}", line=number, hint=_HINT)
    if _SUSPECT.search(line):
        _check_characters(source, number, value)
    return value


def _check_characters(source: Source, number: int, value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str) and (found := UNWRITABLE.search(item)):
            what = "a NUL character" if found[0] == "\0" else f"half a surrogate pair (\\u{ord(found[0]):04x})"
            hint = "Remove the character; text with it has no form in UTF-8 or is cut short by other programs."
            raise source.error(f"the text holds {what}", line=number, hint=hint)


def shown(value: Any) -> str:
    """A JSON value as it may stand in a message."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "something nested very deep"
    return text if len(text) <= 60 else text[:60] + "…"


def given_id(source: Source, number: int, record: Mapping[str, Any]) -> str:
    """The record's ``id`` as text; empty where there is none.

    Raises:
        CorpusError: an id that is neither text nor a whole number.
    """
    value = record.get("id")
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        message = f"'id' must be text or a whole number, not {shown(value)}"
        raise source.error(message, line=number, hint="Give every sentence its own id, or leave 'id' out.")
    return str(value)
