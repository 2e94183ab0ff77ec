"""Words, sentences and entities: text that keeps its characters.

All offsets are counted in characters (Python code points), half-open: ``text[start:end]``.

The rule for words (``split_words``), tested in ``tests/test_text.py``:

1. White space (what ``str.isspace`` says is white space) separates words and belongs to none.
2. A run of letters, marks, digits and underscores is one word. Inside it, a single hyphen, apostrophe, full stop,
   ``&`` or ``/`` between two such characters does not split it (``opinion-based``, ``O'Brien``, ``3.5``, ``AT&T``), nor
   does a comma between digits (``3,000``). An ``'s`` at its end is a word of its own, as in all corpora of the field:
   in ``Google's`` the mention is ``Google``.
3. Single letters each followed by a full stop keep it: ``U.S.``.
4. Scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) give one word a character, with its marks.
5. Every other character is a word of its own, together with the marks that follow it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import regex

from xdner.errors import DataError

__all__ = ["Entity", "Sentence", "Word", "split_words"]

# The prolonged sound mark of kana (two widths) has no script of its own.
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc\uff70"
_WORD_CHAR = rf"[\p{{L}}\p{{M}}\p{{N}}_\u200c\u200d--[{_SPACELESS}]]"
_POSSESSIVE = rf"['’][sS](?!{_WORD_CHAR})"
_WORD = regex.compile(
    rf"""
    (?<!{_WORD_CHAR})(?:[\p{{L}}--[{_SPACELESS}]]\p{{M}}*\.){{2,}}+(?!{_WORD_CHAR})      # U.S.
    | {_WORD_CHAR}+(?:(?!{_POSSESSIVE})(?:[-'’.&/‐‑]|(?<=\p{{N}}),(?=\p{{N}})){_WORD_CHAR}+)*   # words, 3,000, opinion-based
    | (?<={_WORD_CHAR}){_POSSESSIVE}
    | [{_SPACELESS}]\p{{M}}*
    | [^\s\x1c-\x1f]\p{{M}}*                # regex's \s leaves out four separators that str.isspace knows
    """,
    regex.VERBOSE | regex.VERSION1,
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a sentence: ``sentence.text[start:end] == text``."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A mention with its type.

    Attributes:
        start: first character.
        end: one past the last character.
        label: the type's name, as in the corpus (not its verbalization).
        text: the mention's characters.
        score: confidence in [0, 1], or ``None`` where there is none (gold entities).
    """

    start: int
    end: int
    label: str
    text: str = ""
    score: float | None = None

    @property
    def key(self) -> tuple[int, int, str]:
        """What exact-span scoring compares: ``(start, end, label)``."""
        return (self.start, self.end, self.label)


def split_words(text: str) -> tuple[Word, ...]:
    """Split ``text`` by the rule at the top of this file. No character but white space is left out."""
    return tuple(Word(m.group(), m.start(), m.end()) for m in _WORD.finditer(text))


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text, its words with offsets, and its entities, sorted by position.

    Use :meth:`from_text` for running text and :meth:`from_words` for text that is already split: nothing guesses
    which of the two an argument was.
    """

    text: str
    words: tuple[Word, ...]
    entities: tuple[Entity, ...] = ()
    id: str = ""

    @classmethod
    def from_text(cls, text: str, spans: Iterable[tuple[int, int, str] | Entity] = (), *, id: str = "") -> Sentence:
        """A sentence from running text, split by :func:`split_words`.

        Args:
            text: the characters; kept as they are.
            spans: entities, or ``(start, end, label)`` in characters.
            id: a name that survives sampling.

        Raises:
            DataError: a span outside the text, or empty.
        """
        return cls(text, split_words(text), _checked(text, spans, id), id)

    @classmethod
    def from_words(cls, words: Sequence[str], spans: Iterable[tuple[int, int, str]] = (), *, id: str = "") -> Sentence:
        """A sentence from words, joined by single spaces.

        Args:
            words: strings; white space at their ends is cut, as no mention has any.
            spans: ``(first, last, label)`` in words, half-open.
            id: a name that survives sampling.

        Raises:
            DataError: an empty word, or a span outside the sentence.
        """
        made: list[Word] = []
        at = 0
        words = [word.strip() for word in words]
        for index, word in enumerate(words):
            if not word:
                raise DataError(f"word {index} of the sentence is empty", hint="Drop empty words before from_words.")
            made.append(Word(word, at, at + len(word)))
            at += len(word) + 1
        text = " ".join(words)
        entities = []
        for first, last, label in spans:
            if not 0 <= first < last <= len(made):
                raise DataError(
                    f"span ({first}, {last}, {label!r}) does not fit a sentence of {len(made)} words",
                    hint="Spans count words, half-open: (first, one past the last, label).",
                )
            entities.append((made[first].start, made[last - 1].end, label))
        return cls(text, tuple(made), _checked(text, entities, id), id)

    def with_entities(self, entities: Iterable[Entity]) -> Sentence:
        """The same words with other entities, sorted."""
        return replace(self, entities=tuple(sorted(entities, key=lambda e: (e.start, e.end, e.label))))

    def word_span(self, entity: Entity) -> tuple[int, int] | None:
        """The words that an entity covers exactly, half-open, or ``None`` if it begins or ends inside a word."""
        # Words stand in order, so a search by halves keeps long documents with many entities fast.
        first = bisect_left(self.words, entity.start, key=lambda word: word.start)
        last = bisect_left(self.words, entity.end, key=lambda word: word.end)
        if first > last or last == len(self.words):
            return None
        exact = self.words[first].start == entity.start and self.words[last].end == entity.end
        return (first, last + 1) if exact else None

    def entity(self, first: int, last: int, label: str, score: float | None = None) -> Entity:
        """The entity over words ``first`` to ``last`` (half-open), with its exact characters."""
        start, end = self.words[first].start, self.words[last - 1].end
        return Entity(start, end, label, self.text[start:end], score)


def _checked(text: str, spans: Iterable[tuple[int, int, str] | Entity], id: str) -> tuple[Entity, ...]:
    entities = []
    for span in spans:
        start, end, label = (span.start, span.end, span.label) if isinstance(span, Entity) else span
        if not 0 <= start < end <= len(text):
            where = f" in sentence {id!r}" if id else ""
            raise DataError(
                f"span ({start}, {end}, {label!r}) does not fit a text of {len(text)} characters{where}",
                hint="Spans count characters, half-open: text[start:end] is the mention.",
            )
        score = span.score if isinstance(span, Entity) else None
        entities.append(Entity(start, end, label, text[start:end], score))
    return tuple(sorted(entities, key=lambda e: (e.start, e.end, e.label)))
