"""IF-WRANER's retrieval: every word of a query brings words of examples, and words bring their examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from xdner.retrieval.aggregate import Brought, choose
from xdner.retrieval.base import Example, Hit, Keys, hidden, text_key
from xdner.retrieval.embedder import Vectors, WordEmbedder
from xdner.retrieval.examples import distinct, keys_of, stacked, word_labels
from xdner.retrieval.matrix import Matrix
from xdner.retrieval.milvus import SHIFT, MilvusRows
from xdner.retrieval.pool import Pool
from xdner.retrieval.settings import RetrievalSettings
from xdner.retrieval.stop_words import content_words, queried_words
from xdner.text import Sentence

__all__ = ["WordRetriever"]

_MOST = 1024  # rows that Milvus is asked for, for one word
_WORDS = 512  # of queries, in one call to Milvus
_WIDER = 8  # times as many rows are looked at where too few examples came


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
            numbered, self._language = dict(sorted(pool.examples.items())), pool.manifest.stop_words
        else:
            numbered, self._language = dict(enumerate(distinct(pool))), self.settings.stop_words
        self._numbers = {text_key(e.sentence): n for n, e in numbered.items()}
        self.examples = {n: numbered[n] for n in self._numbers.values()}  # as ``distinct``
        self._labels = {n: word_labels(e.sentence) for n, e in self.examples.items()}
        self._counts = Counter(w for e in self.examples.values() for w in {w.text.lower() for w in e.sentence.words})
        if not isinstance(pool, Pool):
            vectors = stacked(embedder.embed([e.sentence for e in numbered.values()]), embedder.embedding.dimension)
            self._matrix = self._chosen(Matrix(keys_of(numbered), vectors), numbered)
        elif self.settings.search == "milvus" or (self.settings.search == "auto" and pool.manifest.uri):
            self._rows = pool.rows()
        else:
            self._matrix = self._chosen(pool.matrix(), numbered)

    def close(self) -> None:
        """Let go of Milvus, if it is asked."""
        if self._rows is not None:
            self._rows.close()

    def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
        """See :class:`~xdner.retrieval.base.Retriever`; a hit's matches are the words that brought it."""
        asked = [list(queried_words(q, self.settings.stop_words)) for q in queries]
        vectors = [v[words] for v, words in zip(self.embedder.embed(queries), asked, strict=True)]
        kept_out = self._kept_out(queries, without)
        found = []
        for query, words, brought, out in zip(
            queries, asked, self._brought(asked, vectors, kept_out, k), kept_out, strict=True
        ):
            idf = {i: self._idf(query.words[i].text, out) for i in words}
            chosen = choose(brought, k, self.settings.aggregation, idf)
            found.append(tuple(Hit(self.examples[c.example], c.score, c.matches) for c in chosen))
        return found

    def _brought(
        self,
        asked: Sequence[Sequence[int]],
        vectors: Sequence[Vectors],
        kept_out: Sequence[set[int]],
        k: int = 0,
    ) -> list[list[Brought]]:
        """Of each query, the nearest rows of each of its words, without those of the examples that it is not shown. Where they
        are of fewer than ``k`` examples, such as of one in which a word stands over and over, more rows are looked at."""
        found: list[list[Brought]] = [[] for _ in asked]
        limit, waiting = self.settings.candidates, [n for n, words in enumerate(asked) if words]
        while waiting:
            # Room for the words of the query itself, where the pool holds it.
            spare = max(sum(len(self._labels[e]) for e in kept_out[n]) for n in waiting)
            wide = min(limit + spare, self._most)
            keys, cosines = self._search(np.concatenate([vectors[n] for n in waiting]), wide)
            short, at = [], 0
            for n in waiting:
                rows = slice(at, at + len(asked[n]))
                found[n], more = self._read(asked[n], keys[rows], cosines[rows], kept_out[n], limit)
                at += len(asked[n])
                came = {b.example for b in found[n] if b.similarity > 0}
                if more and len(came) < min(k, len(self.examples) - len(kept_out[n])):
                    short.append(n)
            waiting, limit = short if limit < self._most else [], limit * _WIDER
        return found

    def _read(
        self, words: Sequence[int], keys: np.ndarray, cosines: np.ndarray, kept_out: set[int], limit: int
    ) -> tuple[list[Brought], bool]:
        """What the rows found for a query's words bring, and whether rows behind them might bring more."""
        brought, more = [], False
        for word, row, similar in zip(words, keys.tolist(), cosines.tolist(), strict=True):
            left, key, cosine = limit, -1, 0.0
            for key, cosine in zip(row, similar, strict=True):
                example, place = key >> SHIFT, key & ((1 << SHIFT) - 1)
                # Rows that a writer has not swept yet are of no example, and copies of one in other letters are not shown.
                if key < 0 or example in kept_out or example not in self._labels:
                    continue
                brought.append(Brought(word, example, place, self._labels[example][place], cosine))
                left -= 1
                if not left:
                    break
            more = more or (key >= 0 and cosine > 0)
        return brought, more

    @property
    def _most(self) -> int:
        """Rows that can be had for one word."""
        return _MOST if self._matrix is None else max(1, len(self._matrix))

    def _search(self, vectors: Vectors, limit: int) -> tuple[np.ndarray, np.ndarray]:
        if self._matrix is not None:
            return self._matrix.search(vectors, limit)
        assert self._rows is not None
        parts = [
            self._rows.search(vectors[at : at + _WORDS], limit, rows=self.settings.rows, nprobe=self.settings.nprobe)
            for at in range(0, len(vectors), _WORDS)
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _chosen(self, matrix: Matrix, numbered: Mapping[int, Example]) -> Matrix:
        """The rows that can be found, of those of all examples by number."""
        kept: list[bool] = []
        for number, example in numbered.items():
            words = range(len(example.sentence.words))
            if number not in self.examples:
                kept += (False for _ in words)
            elif self.settings.rows == "all":
                kept += (True for _ in words)
            elif self.settings.rows == "entities":
                kept += map(bool, self._labels[number])
            else:
                # As the rows in Milvus were marked, whatever the query's language.
                content = set(content_words(example.sentence, self._language))
                kept += (i in content for i in words)
        return matrix.pick(np.array(kept, dtype=bool))

    def _kept_out(self, queries: Sequence[Sentence], without: Keys) -> list[set[int]]:
        """The numbers of the examples that each query is not shown."""
        return [{self._numbers[key] for key in keys if key in self._numbers} for keys in hidden(queries, without)]

    def _idf(self, word: str, without: Collection[int] = ()) -> float:
        """BM25's, over the examples that are shown: ln(1 + (N - n + ½) / (n + ½))."""
        own = sum(any(w.text.lower() == word.lower() for w in self.examples[e].sentence.words) for e in without)
        n = self._counts.get(word.lower(), 0) - own
        return math.log(1 + (len(self.examples) - len(without) - n + 0.5) / (n + 0.5))
