"""Labelled sentences as examples, and the words of examples as rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from xdner.errors import DataError
from xdner.retrieval.base import Example, text_key
from xdner.retrieval.embedder import Vectors
from xdner.retrieval.milvus import SHIFT, Row
from xdner.retrieval.stop_words import content_words
from xdner.text import Sentence

__all__ = ["checked", "distinct", "keys_of", "rows_of", "stacked", "unique", "word_labels"]

_WORDS = 1 << SHIFT


def checked(sentences: Iterable[Sentence]) -> list[Example]:
    """Sentences as examples, each text once (:func:`unique`).

    Raises:
        DataError: no sentence; one without entities, without words or with too many.
    """
    found: list[Example] = []
    empty: list[Sentence] = []
    for sentence in sentences:
        if not sentence.entities or not sentence.words:
            empty.append(sentence)
            continue
        if len(sentence.words) >= _WORDS:
            raise DataError(
                f"sentence {sentence.id!r} has {len(sentence.words):,} words", hint="Split it: no model reads that."
            )
        found.append(Example.of(sentence))
    if empty:
        raise DataError(
            f"{len(empty)} examples have no entities, the first is {empty[0].id!r}: {empty[0].text[:60]!r}",
            hint="An example shows what is to be found. Leave such sentences out with --skip-empty.",
        )
    if not found:
        raise DataError("there is no example", hint="Give labelled sentences.")
    return unique(found)


def word_labels(sentence: Sentence) -> list[str]:
    """The type of each word's mention, empty outside; mentions that begin or end inside a word count for the whole."""
    labels = [""] * len(sentence.words)
    for entity in sentence.entities:
        for index, word in enumerate(sentence.words):
            if word.start < entity.end and entity.start < word.end:
                labels[index] = entity.label
    return labels


def rows_of(
    examples: Mapping[int, Example], vectors: Sequence[Vectors], language: str
) -> Iterator[tuple[Row, NDArray[np.float32]]]:
    """The rows of examples with their vectors.

    Args:
        examples: by number.
        vectors: of each example's words, [words, d].
        language: whose stop words are no content.
    """
    for (number, example), rows in zip(examples.items(), vectors, strict=True):
        content = set(content_words(example.sentence, language))
        starts = {e.start for e in example.sentence.entities}
        for index, (label, word) in enumerate(zip(word_labels(example.sentence), example.sentence.words, strict=True)):
            tag = f"{'B' if word.start in starts else 'I'}-{label}" if label else "O"
            yield Row(number << SHIFT | index, example.id, index, tag, index in content), rows[index]


def keys_of(examples: Mapping[int, Example]) -> NDArray[np.int64]:
    """Keys of all rows of examples by number, ascending: number · 2²⁰ + index of the word."""
    parts = [np.arange(len(e.sentence.words)) + (n << SHIFT) for n, e in sorted(examples.items())]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)


def stacked(vectors: Sequence[Vectors], dimension: int) -> Vectors:
    """One after another, [n, d]."""
    return np.concatenate(vectors) if vectors else np.zeros((0, dimension), dtype=np.float32)


def unique(examples: Iterable[Example]) -> list[Example]:
    """Each text once, where it first stood; of several labellings of a text the last counts, as a correction does."""
    return list({example.sentence.text: example for example in examples}.values())


def distinct(examples: Iterable[Example]) -> list[Example]:
    """As :func:`unique`, white space and case aside: what a prompt has room for shows no text twice."""
    return list({text_key(example.sentence): example for example in examples}.values())
