"""What every retriever answers, whatever it goes by.

An example is a labelled sentence of a domain. A retriever gives, for each query, the examples that are most worth showing
to a language model before it reads the query, best first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from xdner.text import Sentence

__all__ = ["Example", "Hit", "Match", "Retriever", "let_go", "text_key"]


def text_key(sentence: Sentence) -> str:
    """What a query and its own copies among the examples have in common: all characters but white space, without case."""
    return "".join(sentence.text.split()).casefold()


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled sentence that can be shown.

    Attributes:
        id: a hash of its text and of its entities; the same labelled sentence has the same id in every pool.
        sentence: with its entities.
    """

    id: str
    sentence: Sentence

    @classmethod
    def of(cls, sentence: Sentence) -> Example:
        """With its id."""
        parts = [sentence.text, *(f"{e.start},{e.end},{e.label}" for e in sentence.entities)]
        return cls(sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16], sentence)


@dataclass(frozen=True, slots=True)
class Match:
    """A word of a query and the word of an example that it brought.

    Attributes:
        query: index of the word in the query.
        example: index of the word in the example.
        similarity: cosine of their embeddings.
    """

    query: int
    example: int
    similarity: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An example that was found.

    Attributes:
        example: what was found.
        score: how good it is; larger is better, and only hits of one retriever compare.
        matches: the words that brought it, best first; empty where words did not decide.
    """

    example: Example
    score: float
    matches: tuple[Match, ...] = ()


class Retriever(Protocol):
    """Finds examples for sentences."""

    def retrieve(self, queries: Sequence[Sentence], k: int) -> list[tuple[Hit, ...]]:
        """The best ``k`` examples of each query, best first, at most one of the same text.

        An example whose text is the query's own, white space and case aside, is never among them: training retrieves from
        a pool that holds the query itself. Fewer than ``k`` come back where the pool has no more.
        """
        ...


def let_go(retriever: Retriever) -> None:
    """Close what a retriever has open, if it has something: a local index, which only one process can have open, or a server."""
    close = getattr(retriever, "close", None)
    if callable(close):
        close()
