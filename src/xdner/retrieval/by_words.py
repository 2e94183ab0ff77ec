"""IF-WRANER's retrieval: every word of a query brings words of examples, and words bring their examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from xdner.retrieval.aggregate import Brought, choose
from xdner.retrieval.base import Example, Hit, text_key
from xdner.retrieval.embedder import Vectors, WordEmbedder
from xdner.retrieval.examples import keys_of, stacked, unique, word_labels
from xdner.retrieval.matrix import Matrix
from xdner.retrieval.milvus import SHIFT, MilvusRows
from xdner.retrieval.pool import Pool
from xdner.retrieval.settings import RetrievalSettings
from xdner.retrieval.stop_words import content_words, queried_words
from xdner.text import Sentence

__all__ = ["WordRetriever"]

_MOST = 1024  # rows that Milvus is asked for, for one word
_WORDS = 512  # of queries, in one call to Milvus


class WordRetriever:
    """Finds the examples of a pool whose words are most like a query's.

    Args:
        pool: the examples and their rows; what is written to it later is seen by a new retriever. Or just examples: they
            are embedded now, and kept in memory.
        embedder: the one that the pool was made with.
        settings: ``aggregation``, ``rows``, ``candidates``, ``stop_words``, ``search``, ``nprobe``.

    Raises:
        IndexMismatchError: the pool was made with another embedding.
        RetrievalError: the pool is empty, or its rows cannot be read.
    """

    def __init__(
        self, pool: Pool | Sequence[Example], embedder: WordEmbedder, settings: RetrievalSettings | None = None
    ) -> None:
        self.settings = settings or RetrievalSettings()
        self.embedder = embedder
        self._matrix: Matrix | None = None
        self._rows: MilvusRows | None = None
        if isinstance(pool, Pool):
            pool.require(embedder.embedding)
            pool.require_examples()
            self.examples, self._language = dict(pool.examples), pool.manifest.stop_words
        else:
            self.examples, self._language = dict(enumerate(unique(pool))), self.settings.stop_words
        self._labels = {n: word_labels(e.sentence) for n, e in self.examples.items()}
        self._copies: dict[str, set[int]] = {}
        for number, example in self.examples.items():
            self._copies.setdefault(text_key(example.sentence), set()).add(number)
        self._counts = Counter(w for e in self.examples.values() for w in {w.text.lower() for w in e.sentence.words})
        if not isinstance(pool, Pool):
            vectors = embedder.embed([e.sentence for e in self.examples.values()])
            self._matrix = self._chosen(Matrix(keys_of(self.examples), stacked(vectors, embedder.embedding.dimension)))
        elif self.settings.search == "milvus" or (self.settings.search == "auto" and pool.manifest.uri):
            self._rows = pool.rows()
        else:
            self._matrix = self._chosen(pool.matrix())

    def close(self) -> None:
        """Let go of Milvus, if it is asked."""
        if self._rows is not None:
            self._rows.close()

    def retrieve(self, queries: Sequence[Sentence], k: int) -> list[tuple[Hit, ...]]:
        """See :class:`~xdner.retrieval.base.Retriever`; a hit's matches are the words that brought it."""
        asked = [list(queried_words(q, self.settings.stop_words)) for q in queries]
        vectors = [v[words] for v, words in zip(self.embedder.embed(queries), asked, strict=True)]
        found = []
        for query, words, brought in zip(queries, asked, self._brought(queries, asked, vectors), strict=True):
            idf = {i: self._idf(query.words[i].text) for i in words}
            chosen = choose(brought, k, self.settings.aggregation, idf)
            found.append(tuple(Hit(self.examples[c.example], c.score, c.matches) for c in chosen))
        return found

    def _brought(
        self, queries: Sequence[Sentence], asked: Sequence[Sequence[int]], vectors: Sequence[Vectors]
    ) -> list[list[Brought]]:
        """Of each query, the nearest rows of each of its words, without those of the query's own text."""
        own = [self._copies.get(text_key(q), set()) for q in queries]
        limit = self.settings.candidates
        # Room for the words of the query itself, where the pool holds it.
        spare = max((sum(len(self.examples[n].sentence.words) for n in copies) for copies in own), default=0)
        keys, cosines = self._search(stacked(vectors, self.embedder.embedding.dimension), limit + spare)
        found, at = [], 0
        for copies, words in zip(own, asked, strict=True):
            brought = []
            for row, word in enumerate(words, start=at):
                left = limit
                for key, cosine in zip(keys[row].tolist(), cosines[row].tolist(), strict=True):
                    example, place = key >> SHIFT, key & ((1 << SHIFT) - 1)
                    # Rows that a writer has not swept yet are of no example.
                    if key < 0 or example in copies or example not in self._labels:
                        continue
                    brought.append(Brought(word, example, place, self._labels[example][place], cosine))
                    left -= 1
                    if not left:
                        break
            found.append(brought)
            at += len(words)
        return found

    def _search(self, vectors: Vectors, limit: int) -> tuple[np.ndarray, np.ndarray]:
        if self._matrix is not None:
            return self._matrix.search(vectors, limit)
        assert self._rows is not None
        limit = min(limit, _MOST)
        parts = [
            self._rows.search(vectors[at : at + _WORDS], limit, rows=self.settings.rows, nprobe=self.settings.nprobe)
            for at in range(0, len(vectors), _WORDS)
        ]
        if not parts:
            return np.zeros((0, limit), np.int64), np.zeros((0, limit), np.float32)
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _chosen(self, matrix: Matrix) -> Matrix:
        """The rows that can be found."""
        if self.settings.rows == "all":
            return matrix
        kept: list[bool] = []
        for number in sorted(self.examples):
            example: Example = self.examples[number]
            if self.settings.rows == "entities":
                kept += map(bool, self._labels[number])
            else:
                # As the rows in Milvus were marked, whatever the query's language.
                content = set(content_words(example.sentence, self._language))
                kept += (i in content for i in range(len(example.sentence.words)))
        return matrix.pick(np.array(kept))

    def _idf(self, word: str) -> float:
        """BM25's, over examples: ln(1 + (N - n + ½) / (n + ½))."""
        n = self._counts.get(word.lower(), 0)
        return math.log(1 + (len(self.examples) - n + 0.5) / (n + 0.5))
