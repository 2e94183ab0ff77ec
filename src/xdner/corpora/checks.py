"""Leaks (the same sentence in two corpora) and conflicts (the same sentence with different entities).

Two texts are the same if they are equal after compatibility decomposition (NFKD), case folding and the removal of all
white space, so that ``Hello , World`` in columns and ``hello, world`` in running text are one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from xdner.corpora.corpus import Corpus
from xdner.text import Sentence

__all__ = ["Conflict", "Leak", "TextIndex", "find_conflicts", "find_leaks", "normalize_text"]

Annotation = frozenset[tuple[int, int, str]]


class _Folding(dict[int, str]):
    """Character by character: the length of a text is the sum of its pieces', and so offsets of entities can be carried over."""

    def __missing__(self, code: int) -> str:
        decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", chr(code)).casefold())
        self[code] = "".join(decomposed.split())
        return self[code]


_FOLDING = _Folding()


def normalize_text(text: str) -> str:
    """What two texts are compared by.

    >>> normalize_text("Hello , World") == normalize_text("hello, world")
    True
    """
    # Marks of one letter have an order that does not depend on how they were written.
    return unicodedata.normalize("NFD", text.translate(_FOLDING))


@dataclass(frozen=True, slots=True)
class Leak:
    """A sentence that is in two corpora.

    Attributes:
        text: as it stands in the first.
        first: ids in the first corpus.
        second: ids in the second.
        differs: whether the second labels it in a way that the first does not, or the other way round.
    """

    text: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class Conflict:
    """A sentence that is labeled in more than one way.

    Attributes:
        text: as it stands where it is first.
        ids: one tuple of ids for each way of labeling.
    """

    text: str
    ids: tuple[tuple[str, ...], ...]


class TextIndex:
    """A corpus by normalized text; made once and used for all comparisons."""

    def __init__(self, sentences: Sequence[Sentence]) -> None:
        self.sentences = sentences

    @cached_property
    def by_text(self) -> dict[str, list[int]]:
        """The positions of the sentences that have a text, in order."""
        found: dict[str, list[int]] = {}
        for index, sentence in enumerate(self.sentences):
            found.setdefault(normalize_text(sentence.text), []).append(index)
        return found

    @property
    def repeated(self) -> int:
        """How many sentences have a text that stood in the corpus before."""
        return len(self.sentences) - len(self.by_text)

    def conflicts(self) -> tuple[Conflict, ...]:
        """The texts that this corpus labels in more than one way, in order."""
        found = []
        for indices in self.by_text.values():
            ways: dict[Annotation, list[str]] = {}
            for index in indices if len(indices) > 1 else ():
                ways.setdefault(_annotation(self.sentences[index]), []).append(self.sentences[index].id)
            if len(ways) > 1:
                found.append(Conflict(self.sentences[indices[0]].text, tuple(map(tuple, ways.values()))))
        return tuple(found)

    def leaks(self, other: TextIndex) -> tuple[Leak, ...]:
        """The texts that are in both corpora, in the order of this one."""
        found = []
        for text, indices in self.by_text.items():
            if text in other.by_text:
                mine = [self.sentences[i] for i in indices]
                theirs = [other.sentences[i] for i in other.by_text[text]]
                differs = {_annotation(s) for s in mine} != {_annotation(s) for s in theirs}
                found.append(Leak(mine[0].text, tuple(s.id for s in mine), tuple(s.id for s in theirs), differs))
        return tuple(found)


def find_leaks(first: Corpus, second: Corpus) -> tuple[Leak, ...]:
    """The sentences of ``first`` that are in ``second`` too, such as training sentences in a test split."""
    return TextIndex(first).leaks(TextIndex(second))


def find_conflicts(*corpora: Iterable[Sentence]) -> tuple[Conflict, ...]:
    """The sentences that are labeled in more than one way, within a corpus or between corpora."""
    return TextIndex([sentence for corpus in corpora for sentence in corpus]).conflicts()


def _annotation(sentence: Sentence) -> Annotation:
    """The entities in offsets of the normalized text, so that spacing and case make no difference."""
    text = sentence.text
    edges = sorted({edge for e in sentence.entities for edge in (e.start, e.end)})
    moved: dict[int, int] = {}
    at = before = 0
    for edge in edges:
        at += len(normalize_text(text[before:edge]))
        before = edge
        moved[edge] = at
    return frozenset((moved[e.start], moved[e.end], e.label) for e in sentence.entities)
