"""What word embeddings are compared with: other ways to choose examples, with the same interface."""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np

from xdner.errors import RetrievalError, install_hint
from xdner.retrieval.base import Example, Hit, Keys, hidden, text_key
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.examples import distinct
from xdner.retrieval.stop_words import queried_words
from xdner.text import Sentence

__all__ = ["BM25Retriever", "DensestRetriever", "NoRetriever", "RandomRetriever", "SentenceRetriever", "require_bm25"]


def _best(examples: Sequence[Example], scores: np.ndarray, kept_out: Container[str], k: int) -> tuple[Hit, ...]:
    """The ``k`` best by score; of equals the first."""
    order = np.argsort(-scores, kind="stable").tolist()
    others = (Hit(examples[i], float(scores[i])) for i in order if text_key(examples[i].sentence) not in kept_out)
    return tuple(islice(others, k))


class SentenceRetriever:
    """By the cosine of sentence embeddings (:meth:`~xdner.retrieval.embedder.WordEmbedder.embed_sentences`)."""

    def __init__(self, examples: Iterable[Example], embedder: WordEmbedder) -> None:
        self.examples, self.embedder = distinct(examples), embedder
        self._vectors = embedder.embed_sentences([e.sentence for e in self.examples])

    def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
        """See :class:`~xdner.retrieval.base.Retriever`."""
        vectors = self.embedder.embed_sentences(queries)
        asked = zip(vectors, hidden(queries, without), strict=True)
        return [_best(self.examples, self._vectors @ vector, kept_out, k) for vector, kept_out in asked]


def require_bm25() -> Any:
    """The package bm25s.

    Raises:
        RetrievalError: it is not installed.
    """
    try:
        import bm25s
    except ImportError:
        raise RetrievalError("BM25 needs the package bm25s", hint=install_hint("retrieval")) from None
    return bm25s


class BM25Retriever:
    """By the words that both have: BM25 as in Lucene (k₁ 1.5, b 0.75), lower-cased, without stop words. Examples that have no
    words at all are not shown.

    Raises:
        RetrievalError: the package bm25s is not installed.
    """

    def __init__(self, examples: Iterable[Example], stop_words: str = "english") -> None:
        bm25s = require_bm25()
        self.examples, self.stop_words = [e for e in distinct(examples) if e.sentence.words], stop_words
        self._index = bm25s.BM25(method="lucene")
        if self.examples:  # it makes no index of nothing
            self._index.index([self._tokens(e.sentence) for e in self.examples], show_progress=False)

    def _tokens(self, sentence: Sentence) -> list[str]:
        return [sentence.words[i].text.lower() for i in queried_words(sentence, self.stop_words)]

    def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
        """See :class:`~xdner.retrieval.base.Retriever`."""
        if not self.examples:
            return [()] * len(queries)
        found = []
        for query, kept_out in zip(queries, hidden(queries, without), strict=True):
            known = [t for t in self._tokens(query) if t in self._index.vocab_dict]
            scores = np.asarray(self._index.get_scores(known)) if known else np.zeros(len(self.examples))
            found.append(_best(self.examples, scores, kept_out, k))
        return found


class RandomRetriever:
    """At random, but always the same for a text and a seed; all scores are 0."""

    def __init__(self, examples: Iterable[Example], seed: int = 1) -> None:
        self.examples, self.seed = distinct(examples), seed
        self._keys = [text_key(e.sentence) for e in self.examples]

    def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
        """See :class:`~xdner.retrieval.base.Retriever`."""
        found = []
        for query, kept_out in zip(queries, hidden(queries, without), strict=True):
            digest = sha256(f"{self.seed}\0{query.text}".encode("utf-8", "surrogatepass")).digest()
            others = [e for e, key in zip(self.examples, self._keys, strict=True) if key not in kept_out]
            chosen = random.Random(digest).sample(others, min(k, len(others)))
            found.append(tuple(Hit(e, 0.0) for e in chosen))
        return found


class DensestRetriever:
    """Those with the most entities, whatever the query; of equals the shortest."""

    def __init__(self, examples: Iterable[Example]) -> None:
        self.examples = sorted(distinct(examples), key=lambda e: (-len(e.sentence.entities), len(e.sentence.words)))
        self._scores = np.array([len(e.sentence.entities) for e in self.examples], dtype=float)

    def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
        """See :class:`~xdner.retrieval.base.Retriever`."""
        return [_best(self.examples, self._scores, kept_out, k) for kept_out in hidden(queries, without)]


class NoRetriever:
    """Shows nothing."""

    def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
        """See :class:`~xdner.retrieval.base.Retriever`."""
        return [()] * len(queries)
