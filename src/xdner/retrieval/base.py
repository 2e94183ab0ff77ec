"""What every retriever answers, whatever it goes by.

An example is a labelled sentence of a domain. A retriever gives, for each query, the examples that are most worth showing
to a language model before it reads the query, best first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from xdner.corpora.checks import normalize_text
from xdner.text import Sentence

__all__ = ["Example", "Hit", "Keys", "Match", "Retriever", "hidden", "let_go", "text_key"]

#: For each query, the keys (:func:`text_key`) of texts that it is not shown besides its own; nothing: no others.
Keys = Sequence[Collection[str]]


def text_key(sentence: Sentence) -> str:
    """What copies of a text have in common: all characters but white space, without case and however they are composed."""
    return normalize_text(sentence.text)


def hidden(queries: Sequence[Sentence], without: Keys) -> list[set[str]]:
    """The keys of the texts that each query is not shown: its own, and those that it is asked ``without``."""
    return [{text_key(q), *keys} for q, keys in zip(queries, without or [()] * len(queries), strict=True)]


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

    def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
        """The best ``k`` examples of each query, best first, at most one of the same text, white space and case aside.

        An example whose text is the query's own is never among them: training retrieves from a pool that holds the query
        itself. Fewer than ``k`` come back where the pool has no more.

        Args:
            queries: in any order; what one brings does not depend on the others.
            k: how many examples.
            without: more texts that a query is not shown, and that have no part in the choice: a window of a long text is asked
                about without the whole.
        """
        ...


def let_go(retriever: Retriever) -> None:
    """Close what a retriever has open, if it has something: a local index, which only one process can have open, or a server."""
    close = getattr(retriever, "close", None)
    if callable(close):
        close()
