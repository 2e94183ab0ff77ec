"""Read and write corpora: the two functions that most callers need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

from xdner.corpora.columns import read_columns, write_columns
from xdner.corpora.corpus import FORMATS, LABEL_HINT, Corpus, Format, usable_label
from xdner.corpora.detect import detect_format
from xdner.corpora.jsonl import UNWRITABLE
from xdner.corpora.source import Source, clip, read_source
from xdner.corpora.spans import read_spans, write_spans
from xdner.corpora.tags import Scheme
from xdner.corpora.tokens import read_tokens, write_tokens
from xdner.errors import CorpusError
from xdner.files import write_atomically
from xdner.text import Sentence

__all__ = ["read_corpus", "write_corpus"]

_READERS: dict[str, Callable[[Source], Corpus]] = {
    "columns": read_columns,
    "spans": read_spans,
    "tokens": read_tokens,
}


def read_corpus(path: str | Path, *, format: Format | str | None = None) -> Corpus:
    """Read a corpus.

    Args:
        path: a UTF-8 file.
        format: ``columns`` (word and tag a line), ``spans`` (JSONL, character offsets) or ``tokens`` (JSONL, words and
            tags); told from the content where it is not given.

    Raises:
        CorpusError: the file cannot be read; the error knows the path, the line and the next step.
    """
    if format is not None and format not in FORMATS:
        raise _unknown("format", format, FORMATS)
    source = read_source(path)
    return _READERS[format or detect_format(source)](source)


def write_corpus(
    sentences: Iterable[Sentence], path: str | Path, *, format: Format | str, scheme: Scheme | str = "bio"
) -> None:
    """Write a corpus so that :func:`read_corpus` gives it back.

    Words and entities survive ``columns`` and ``tokens``. ``spans`` keeps all characters and every entity's place among them, and
    words are told anew from the text. Ids survive in JSONL.

    Args:
        sentences: a :class:`Corpus` or any sentences.
        path: the file, replaced in one step.
        format: as for :func:`read_corpus`.
        scheme: ``bio`` or ``bioes``, for ``columns`` and ``tokens``.

    Raises:
        CorpusError: what the format cannot express, or nothing to write.
        StorageError: the file cannot be written.
    """
    if format not in FORMATS:
        raise _unknown("format", format, FORMATS)
    if scheme not in get_args(Scheme):
        raise _unknown("scheme", scheme, get_args(Scheme))
    given = list(sentences)
    if not given:
        raise CorpusError("there is no sentence to write", path=path, hint="Check what was selected.")
    for sentence in given:
        _check(sentence, path)
    tags: Scheme = "bio" if scheme == "bio" else "bioes"
    try:
        if format == "columns":
            text = write_columns(given, tags)
        elif format == "tokens":
            text = write_tokens(given, tags)
        else:
            text = write_spans(given)
    except CorpusError as error:
        raise CorpusError(error.message, path=path, hint=error.hint) from None
    write_atomically(path, text)


def _check(sentence: Sentence, path: str | Path) -> None:
    """Refuse what no format can hold, before anything is written."""
    if not sentence.words:
        message = f"sentence {sentence.id!r} has no words"
        raise CorpusError(message, path=path, hint="Leave out empty texts before writing.")
    if UNWRITABLE.search(sentence.text) or UNWRITABLE.search(sentence.id):
        message = f"sentence {sentence.id!r} holds a NUL character or half a surrogate pair"
        raise CorpusError(message, path=path, hint="Remove the character; no corpus file can hold it.")
    for entity in sentence.entities:
        if not usable_label(entity.label):
            message = f"sentence {sentence.id!r}: the label {clip(entity.label)} is not one visible word"
            raise CorpusError(message, path=path, hint=LABEL_HINT)


def _unknown(what: str, value: object, known: Iterable[str]) -> CorpusError:
    return CorpusError(f"unknown {what} {value!r}", hint=f"Known are: {', '.join(known)}.")
