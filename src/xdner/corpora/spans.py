"""Spans: JSONL with a text and the character offsets of its entities; the only format that keeps every character.

::

    {"id": "7", "text": "Ada went home.", "spans": [{"start": 0, "end": 3, "label": "person"}]}

``entities`` or ``label`` in place of ``spans`` (or beside it, where it is empty), and ``[start, end, label]`` in place of an
object, are read as well. Offsets count characters (Unicode code points), half-open.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from xdner.corpora.corpus import LABEL_HINT, Corpus, CorpusBuilder, flatten, usable_label
from xdner.corpora.jsonl import given_id, json_objects, shown
from xdner.corpora.source import Source, clip
from xdner.text import Sentence

__all__ = ["SPAN_KEYS", "read_spans", "write_spans"]

SPAN_KEYS = ("spans", "entities", "label")

_SHAPE = 'A line is {"text": "Ada went home.", "spans": [{"start": 0, "end": 3, "label": "person"}]}.'
_INSIDE = "spans that begin or end inside a word (kept, but no recognizer can give them)"
_OFFSETS = (
    "Offsets count characters (not bytes, not UTF-16 units, not words), half-open: text[start:end] is the mention."
)


def read_spans(source: Source) -> Corpus:
    """The corpus in a JSONL file of texts and spans. Nested and overlapping spans are flattened to the longest.

    Raises:
        CorpusError: a line that is no such object, a span outside its text, or no sentence.
    """
    builder = CorpusBuilder(source, "spans")
    for number, record in json_objects(source):
        text = record.get("text")
        if not isinstance(text, str):
            came = "is missing" if "text" not in record else f"must be text, not {shown(text)}"
            raise source.error(f"'text' {came}", line=number, hint=_SHAPE)
        there = [k for k in SPAN_KEYS if k in record]
        filled = [k for k in there if record[k] and isinstance(record[k], list)]
        if len(filled) > 1:
            builder.warnings[f"texts with spans under several keys (those under '{filled[0]}' were read)"] += 1
        key = next(iter(filled or there), None)
        items = record[key] if key else []
        if key is None:
            builder.warnings["texts without 'spans' (read as having no entities)"] += 1
        if items is None:
            items = []
        if not isinstance(items, list):
            raise source.error(f"'{key}' must be a list, not {shown(items)}", line=number, hint=_SHAPE)
        spans = [_span(builder, number, text, item) for item in items]
        if not text.strip():
            builder.warnings["texts of white space only (left out)"] += 1
            continue
        flat = flatten([span for span in spans if span], builder.warnings)
        sentence = Sentence.from_text(text, flat, id=builder.next_id(given_id(source, number, record)))
        starts, ends = {word.start for word in sentence.words}, {word.end for word in sentence.words}
        inside = sum(e.start not in starts or e.end not in ends for e in sentence.entities)
        builder.warnings[_INSIDE] += inside
        builder.add(sentence)
    return builder.build()


def _span(builder: CorpusBuilder, number: int, text: str, item: Any) -> tuple[int, int, str] | None:
    """One span, without white space at its ends; ``None`` if nothing is left of it."""
    source = builder.source
    values: list[Any] = [None] * 3
    if isinstance(item, Mapping):
        values = [item.get(key) for key in ("start", "end", "label")]
    elif isinstance(item, list) and len(item) == 3:
        values = item
    start, end, label = values
    if type(start) is not int or type(end) is not int or not isinstance(label, str):  # bool is an int, but no offset
        message = f"expected a span of start, end and label, found {shown(item)}"
        raise source.error(message, line=number, hint=_SHAPE)
    if not usable_label(label):
        raise source.error(f"the label {clip(label)} is not one visible word", line=number, hint=LABEL_HINT)
    if not 0 <= start < end <= len(text):
        message = f"the span {shown(item)} does not fit a text of {len(text)} characters"
        raise source.error(message, line=number, hint=_OFFSETS)
    mention = text[start:end]
    if isinstance(item, Mapping) and item.get("text", mention) != mention:
        builder.warnings["spans whose own 'text' is not what stands at their offsets"] += 1
    left, right = len(mention) - len(mention.lstrip()), len(mention) - len(mention.rstrip())
    if left == len(mention):
        builder.warnings["spans of white space only (left out)"] += 1
        return None
    if left or right:
        builder.warnings["spans with white space at their ends (cut off)"] += 1
    return start + left, end - right, label


def write_spans(sentences: Iterable[Sentence]) -> str:
    """The text of a JSONL file with ``id``, ``text`` and ``spans``."""
    lines = []
    for sentence in sentences:
        spans = [{"start": e.start, "end": e.end, "label": e.label} for e in sentence.entities]
        record: dict[str, Any] = {"id": sentence.id} if sentence.id else {}
        lines.append(json.dumps(record | {"text": sentence.text, "spans": spans}, ensure_ascii=False) + "\n")
    return "".join(lines)
