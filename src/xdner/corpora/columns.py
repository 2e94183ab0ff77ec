"""Columns: one word a line, the word in the first column and its tag in the last, a blank line between sentences.

Columns are separated by tabs (a word may then hold spaces) or by spaces. ``-DOCSTART-`` lines end a sentence and are
left out. A line that begins with ``#`` is a comment, unless it has the file's columns: ``#`` and ``#tag`` are words
too. The comment ``# id = …`` or ``# sent_id = …`` before a sentence gives its id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from xdner.corpora.corpus import WHITE_WORDS, Corpus, CorpusBuilder
from xdner.corpora.source import Source, clip
from xdner.corpora.tags import TAG_HINT, Scheme, Tag, decode_tags, encode_tags, is_bioes, parse_tag
from xdner.corpora.words import word_spans
from xdner.errors import CorpusError
from xdner.text import Sentence

__all__ = ["column_tag", "read_columns", "write_columns"]

LONGEST_LINE = 1_000_000

_DOCSTART = "-DOCSTART-"
_ID = re.compile(r"#\s*(?:sent_)?id\s*=\s*(.*\S)")
_HINT = (
    "A line is a word, a tab and a tag, with the same number of columns in every line; a blank line ends a sentence. "
    "Other formats: name them with format= (--format on the command line)."
)


@dataclass
class _Raw:
    words: list[str] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    id: str = ""


def _fields(line: str) -> list[str]:
    line = line.rstrip(" \t\r")
    if "\t" not in line:
        return [part for part in line.split(" ") if part]
    return [part.strip(" ") for part in line.split("\t")]


def column_tag(line: str) -> Tag | None:
    """The tag at the end of a line that looks like columns, or ``None``."""
    fields = _fields(line)
    return parse_tag(fields[-1]) if len(fields) > 1 else None


def read_columns(source: Source) -> Corpus:
    """The corpus in a file of columns; BIO, IOB1 or BIOES is recognized by its tags.

    Raises:
        CorpusError: a line with another number of columns, an unknown tag, or no sentence.
    """
    builder = CorpusBuilder(source, "columns")
    raws = _sentences(source, builder)
    bioes = any(is_bioes(raw.tags) for raw in raws)
    for raw in raws:
        spans = decode_tags(raw.tags, bioes, builder.warnings)
        builder.add(Sentence.from_words(raw.words, spans, id=builder.next_id(raw.id)))
    return builder.build()


def _sentences(source: Source, builder: CorpusBuilder) -> list[_Raw]:
    model, width = _width(source)
    known: dict[str, Tag] = {}
    raws = [_Raw()]
    for number, line in enumerate(source.lines, 1):
        if len(line) > LONGEST_LINE:
            message = f"a line of {len(line):,} characters; a line of columns holds one word and its tag"
            raise source.error(message, line=number, hint=_HINT)
        fields = _fields(line)
        if not fields or fields[0] == _DOCSTART:
            if raws[-1].words:
                raws.append(_Raw())
            continue
        if _is_comment(line, fields, width):
            found = _ID.match(line)
            if found and not raws[-1].words:
                raws[-1].id = found[1]
            continue
        if len(fields) != width:
            expected = f"expected {width} columns, as in line {model}" if width else "expected a word and a tag"
            columns = "one" if len(fields) == 1 else str(len(fields))
            raise source.error(f"{expected}; found {columns}: {clip(line)}", line=number, hint=_HINT)
        tag = known.get(fields[-1])
        if tag is None:
            tag = parse_tag(fields[-1])
            if tag is None:
                raise source.error(f"unknown tag {clip(fields[-1])}", line=number, hint=TAG_HINT)
            known[fields[-1]] = tag
        word = fields[0].strip()
        if not word:
            builder.warnings[WHITE_WORDS] += 1
            continue
        if "\r" in word:
            builder.warnings["carriage returns inside words (read as spaces)"] += 1
            word = word.replace("\r", " ")
        raws[-1].words.append(word)
        raws[-1].tags.append(tag)
    return raws if raws[-1].words else raws[:-1]


def _is_comment(line: str, fields: list[str], width: int) -> bool:
    if not line.startswith("#") or "\t" in line:
        return False
    return len(fields) != width or (fields[0] == "#" and parse_tag(fields[-1]) is None)


def _width(source: Source) -> tuple[int, int]:
    """The number of the first line that has columns, and how many; ``(0, 0)`` where no line has."""
    candidate = (0, 0)
    for number, line in enumerate(source.lines, 1):
        if len(line) > LONGEST_LINE:
            continue
        fields = _fields(line)
        if len(fields) > 1 and fields[0] != _DOCSTART:
            if not line.startswith("#"):
                return number, len(fields)
            if not candidate[0] and parse_tag(fields[-1]):
                candidate = (number, len(fields))
    return candidate


def write_columns(sentences: Iterable[Sentence], scheme: Scheme) -> str:
    """The text of a file of two columns, ``word<TAB>tag``.

    Raises:
        CorpusError: an entity that is no run of words, overlapping entities, or a word that columns cannot hold.
    """
    lines: list[str] = []
    for sentence in sentences:
        tags = encode_tags(len(sentence.words), word_spans(sentence), scheme)
        for word, tag in zip(sentence.words, tags, strict=True):
            text = word.text
            if text == _DOCSTART or text != text.strip(" ") or any(c in text for c in "\t\r\n"):
                raise CorpusError(
                    f"sentence {sentence.id!r}: the word {clip(text)} cannot stand in a column",
                    hint="Write format='tokens' or format='spans', which hold any word.",
                )
            lines.append(f"{text}\t{tag}\n")
        lines.append("\n")
    text = "".join(lines)
    # A file that begins with U+FEFF would lose it as a byte order mark; one more is the mark, and the word stays whole.
    return "\ufeff" + text if text.startswith("\ufeff") else text
