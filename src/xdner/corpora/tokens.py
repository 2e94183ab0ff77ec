"""Tokens: JSONL with the words of a sentence and one tag for each.

::

    {"id": "7", "tokens": ["Ada", "went", "home"], "tags": ["B-person", "O", "O"]}

``ner_tags`` in place of ``tags`` is read as well; tags are names, not numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from xdner.corpora.corpus import WHITE_WORDS, Corpus, CorpusBuilder
from xdner.corpora.jsonl import given_id, json_objects, shown
from xdner.corpora.source import Source, clip
from xdner.corpora.tags import TAG_HINT, Scheme, Tag, decode_tags, encode_tags, is_bioes, parse_tag
from xdner.corpora.words import word_spans
from xdner.text import Sentence

__all__ = ["TAG_KEYS", "read_tokens", "write_tokens"]

TAG_KEYS = ("tags", "ner_tags")

_SHAPE = 'A line is {"tokens": ["Ada", "went", "home"], "tags": ["B-person", "O", "O"]}.'
_NUMBERS = "Write the tags' names: in a data set with numbered tags, features['ner_tags'].feature.names[i] is the name."


def read_tokens(source: Source) -> Corpus:
    """The corpus in a JSONL file of words and tags; BIO, IOB1 or BIOES is recognized by its tags.

    Raises:
        CorpusError: a line that is no such object, as many tags as words not given, an unknown tag, or no sentence.
    """
    builder = CorpusBuilder(source, "tokens")
    raws: list[tuple[list[str], list[Tag], str]] = []
    for number, record in json_objects(source):
        words, tags = _columns(builder, number, record)
        if words:
            raws.append((words, tags, given_id(source, number, record)))
        else:
            builder.warnings["sentences without words (left out)"] += 1
    bioes = any(is_bioes(tags) for _, tags, _ in raws)
    for words, tags, given in raws:
        spans = decode_tags(tags, bioes, builder.warnings)
        builder.add(Sentence.from_words(words, spans, id=builder.next_id(given)))
    return builder.build()


def _columns(builder: CorpusBuilder, number: int, record: dict[str, Any]) -> tuple[list[str], list[Tag]]:
    source = builder.source
    key = next((k for k in TAG_KEYS if k in record), "tags")
    tokens, names = _list(source, number, record, "tokens"), _list(source, number, record, key)
    if len(tokens) != len(names):
        raise source.error(f"{len(tokens)} tokens but {len(names)} tags", line=number, hint=_SHAPE)
    words: list[str] = []
    tags: list[Tag] = []
    for token, name in zip(tokens, names, strict=True):
        if not isinstance(token, str):
            raise source.error(f"a token must be text, not {shown(token)}", line=number, hint=_SHAPE)
        if not isinstance(name, str):
            raise source.error(f"a tag must be text, not {shown(name)}", line=number, hint=_NUMBERS)
        tag = parse_tag(name)
        if tag is None:
            raise source.error(f"unknown tag {clip(name)}", line=number, hint=TAG_HINT)
        if not token.strip():
            builder.warnings[WHITE_WORDS] += 1
            continue
        words.append(token)
        tags.append(tag)
    return words, tags


def _list(source: Source, number: int, record: dict[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if isinstance(value, list):
        return value
    came = f"must be a list, not {shown(value)}" if key in record else "is missing"
    raise source.error(f"'{key}' {came}", line=number, hint=_SHAPE)


def write_tokens(sentences: Iterable[Sentence], scheme: Scheme) -> str:
    """The text of a JSONL file with ``id``, ``tokens`` and ``tags``.

    Raises:
        CorpusError: an entity that is no run of words, or overlapping entities.
    """
    lines = []
    for sentence in sentences:
        tags = encode_tags(len(sentence.words), word_spans(sentence), scheme)
        record: dict[str, Any] = {"id": sentence.id} if sentence.id else {}
        record |= {"tokens": [word.text for word in sentence.words], "tags": tags}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    return "".join(lines)
