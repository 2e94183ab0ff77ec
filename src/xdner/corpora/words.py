"""What the two word-based writers share: entities as runs of whole words."""

from __future__ import annotations

from xdner.errors import CorpusError
from xdner.text import Sentence

__all__ = ["word_spans"]


def word_spans(sentence: Sentence) -> list[tuple[int, int, str]]:
    """The entities as ``(first, one past the last, label)`` in words.

    Raises:
        CorpusError: an entity begins or ends inside a word, or two overlap.
    """
    spans: list[tuple[int, int, str]] = []
    for entity in sentence.entities:
        covered = sentence.word_span(entity)
        if covered is None:
            raise CorpusError(
                f"sentence {sentence.id!r}: the entity {entity.text!r} begins or ends inside a word",
                hint="Write format='spans', which keeps characters.",
            )
        if spans and covered[0] < spans[-1][1]:
            raise CorpusError(
                f"sentence {sentence.id!r}: the entity {entity.text!r} overlaps another one; a word has one tag",
                hint="Remove one of the two, or write format='spans'.",
            )
        spans.append((*covered, entity.label))
    return spans
