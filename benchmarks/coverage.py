"""Which of a query's types do the examples shown with it have? Retrieval measured without a language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xdner.backbone.encoder import Encoder
from xdner.corpora.io import read_corpus
from xdner.retrieval.aggregate import choose
from xdner.retrieval.base import Example, Hit, Retriever
from xdner.retrieval.build import build_retriever
from xdner.retrieval.by_words import WordRetriever
from xdner.retrieval.embedder import Vectors, WordEmbedder
from xdner.retrieval.settings import RetrievalSettings
from xdner.retrieval.stop_words import queried_words
from xdner.text import Sentence

__all__ = ["Bench", "Remembered", "bootstrap_difference", "bootstrap_mean", "covered"]

_SAMPLES = 2000
_DEEP = 20  # examples of which as many are taken as a budget has room for
POOLINGS = ("mean", "first", "max")
RULES = ("sum", "types", "cover", "idf", "rank", "count", "max")


class Remembered(WordEmbedder):
    """Reads each sentence once, for all layers and poolings that are wanted."""

    def __init__(self, encoder: Encoder, kinds: Sequence[tuple[int, str]], sentence_pooling: str = "mean") -> None:
        layer, pooling = kinds[0]
        super().__init__(
            encoder, RetrievalSettings(layer=layer, pooling=pooling, sentence_pooling=sentence_pooling)  # type: ignore[arg-type]
        )  # fmt: skip
        self.kinds = kinds
        self._words: dict[tuple[tuple[str, ...], int, str], Vectors] = {}
        self._sentences: dict[tuple[str, ...], Vectors] = {}

    def of(self, layer: int, pooling: str) -> Remembered:
        """The same with another layer and pooling; what was read is shared."""
        made = Remembered(self.encoder, [(layer, pooling)], self.sentence_pooling)
        made.kinds, made._words, made._sentences = self.kinds, self._words, self._sentences
        return made

    def embed(self, sentences: Sequence[Sentence], done: Callable[[int], None] = lambda words: None) -> list[Vectors]:
        keys = [tuple(w.text for w in s.words) for s in sentences]
        new = {key: s for key, s in zip(keys, sentences, strict=True) if key not in self._sentences}
        if new:
            self._read(list(new.items()))
        return [self._words[key, self.embedding.layer, self.embedding.pooling] for key in keys]

    def embed_sentences(self, sentences: Sequence[Sentence]) -> Vectors:
        self.embed(sentences)
        return np.stack([self._sentences[tuple(w.text for w in s.words)] for s in sentences])

    def _read(self, new: Sequence[tuple[tuple[str, ...], Sentence]]) -> None:
        size = self.embedding.dimension
        found = {kind: [np.zeros((len(key), size), np.float32) for key, _ in new] for kind in self.kinds}
        totals = torch.zeros(len(new), size)
        for batch, numbers in self._batches([s for _, s in new]):
            with torch.inference_mode():
                read = self.encoder.model(
                    input_ids=batch.ids, attention_mask=batch.attention, output_hidden_states=True
                ).hidden_states
                sums = self._summed(read[-1], batch)
                for layer, pooling in self.kinds:
                    rows = torch.nn.functional.normalize(batch.pooled(read[layer], pooling), dim=1).numpy()
                    at = 0
                    for number, window in numbers:
                        first, last = window.counted
                        place = slice(window.first + first, window.first + last)
                        found[layer, pooling][number][place] = rows[at + first : at + last]
                        at += len(window.places)
            for row, (number, _) in zip(sums, numbers, strict=True):
                totals[number] += row
        whole = torch.nn.functional.normalize(totals, dim=1).numpy()
        for index, (key, _) in enumerate(new):
            self._sentences[key] = whole[index]
            for layer, pooling in self.kinds:
                self._words[key, layer, pooling] = found[layer, pooling][index]


def covered(query: Sentence, shown: Sequence[Sentence]) -> tuple[float, float]:
    """The share of the query's types, and of its mentions, whose type an example has; the query has mentions."""
    there = {e.label for s in shown for e in s.entities}
    types = {e.label for e in query.entities}
    return len(types & there) / len(types), sum(e.label in there for e in query.entities) / len(query.entities)


def bootstrap_mean(values: Sequence[NDArray[Any]], seed: int = 0) -> tuple[float, float, float]:
    """Mean over domains of the means over queries, and its 95 % percentile interval over drawn queries of each domain.

    Args:
        values: of each domain, one number a query.
    """
    rng = np.random.default_rng(seed)
    drawn = [rng.multinomial(len(v), np.full(len(v), 1 / len(v)), size=_SAMPLES) @ v / len(v) for v in values]
    low, high = np.quantile(np.mean(drawn, 0), (0.025, 0.975))
    return float(np.mean([v.mean() for v in values])), float(low), float(high)


def bootstrap_difference(a: Sequence[NDArray[Any]], b: Sequence[NDArray[Any]]) -> tuple[float, float, float]:
    """The same of ``a - b``, query by query."""
    return bootstrap_mean([x - y for x, y in zip(a, b, strict=True)])


@dataclass
class Bench:
    """Pools and queries of some domains.

    Attributes:
        pools, queries: of each domain; only queries that have mentions.
        embedder: of words and sentences.
        settings: of word retrieval.
        tokens: how many tokens an example takes in a prompt.
    """

    pools: Mapping[str, list[Example]]
    queries: Mapping[str, list[Sentence]]
    embedder: Remembered
    settings: RetrievalSettings
    tokens: Callable[[Example], int]

    @classmethod
    def read(cls, data: Path, domains: Sequence[str], limit: int | None, **more: Any) -> Bench:
        """From the train and dev files of the domains."""
        pools, queries = {}, {}
        for name in domains:
            train = list(read_corpus(data / name / "train.txt"))[:limit]
            pools[name] = [Example.of(s) for s in train if s.entities]
            queries[name] = [s for s in read_corpus(data / name / "dev.txt") if s.entities][:limit]
        return cls(pools, queries, **more)

    def retriever(self, method: str, pool: Sequence[Example], seed: int = 1) -> Retriever:
        """``word``, ``word/RULE``, or a baseline."""
        name, _, rule = method.partition("/")
        chosen = replace(self.settings, method=name, seed=seed, aggregation=rule or self.settings.aggregation)  # type: ignore[arg-type]
        return build_retriever(pool, chosen, self.embedder)

    def at_k(self, methods: Mapping[str, Sequence[int]], ks: Sequence[int]) -> dict[str, Any]:
        """Shares of types and mentions, by method and k: {"types": [[…] a domain], "mentions": …, "tokens": …}.

        Args:
            methods: with their seeds; a query's value is the mean over them.
        """
        found: dict[str, Any] = {}
        for method, seeds in methods.items():
            hits = {n: [self.retriever(method, self.pools[n], s).retrieve(self.queries[n], max(ks)) for s in seeds]
                    for n in self.pools}  # fmt: skip
            found[method] = {k: self._values(hits, partial(_first, k=k)) for k in ks}
        return found

    def at_budget(self, methods: Mapping[str, Sequence[int]], budgets: Sequence[int]) -> dict[str, Any]:
        """The same by budget: examples are taken best first, each that there is still room for."""
        found: dict[str, Any] = {}
        for method, seeds in methods.items():
            hits = {n: [self.retriever(method, self.pools[n], s).retrieve(self.queries[n], _DEEP) for s in seeds]
                    for n in self.pools}  # fmt: skip
            found[method] = {b: self._values(hits, partial(self._fitting, budget=b)) for b in budgets}
        return found

    def by_pool(
        self, methods: Mapping[str, Sequence[int]], sizes: Sequence[int], seeds: Sequence[int]
    ) -> dict[str, Any]:
        """Shares at the setting's k by the size of the pool: seeded samples, a query's value is the mean over them."""
        found: dict[str, Any] = {method: {} for method in methods}
        for size in sizes:
            for method in methods:
                hits = {}
                for n, pool in self.pools.items():
                    parts = [self._sampled(pool, size, seed) for seed in seeds]
                    hits[n] = [self.retriever(method, p, s).retrieve(self.queries[n], self.settings.k)
                               for p, s in zip(parts, seeds, strict=True)]  # fmt: skip
                found[method][size] = self._values(hits, list)
        return found

    def grid(
        self, kinds: Sequence[tuple[int, str]], rules: Sequence[str], count: int, ks: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Share of types by layer, pooling and rule, on the first ``count`` queries of each domain."""
        rows = []
        for layer, pooling in kinds:
            embedder = self.embedder.of(layer, pooling)
            values: dict[tuple[str, int], list[float]] = {}
            for name, pool in self.pools.items():
                queries = self.queries[name][:count]
                retriever = WordRetriever(pool, embedder, self.settings)
                asked = [list(queried_words(q, self.settings.stop_words)) for q in queries]
                vectors = [v[words] for v, words in zip(embedder.embed(queries), asked, strict=True)]
                shares: dict[tuple[str, int], list[float]] = {}
                brought = retriever._brought(asked, vectors, retriever._kept_out(queries, ()))
                for query, words, found in zip(queries, asked, brought, strict=True):
                    idf = {i: retriever._idf(query.words[i].text) for i in words}
                    for rule in rules:
                        chosen = [retriever.examples[c.example].sentence for c in choose(found, max(ks), rule, idf)]
                        for k in ks:
                            shares.setdefault((rule, k), []).append(covered(query, chosen[:k])[0])
                for key, some in shares.items():
                    values.setdefault(key, []).append(float(np.mean(some)))
            for (rule, k), means in values.items():
                rows.append({"layer": layer, "pooling": pooling, "rule": rule, "k": k, "types": float(np.mean(means))})
        return rows

    def _values(
        self, hits: Mapping[str, Sequence[Sequence[Sequence[Hit]]]], taken: Callable[[Sequence[Hit]], Sequence[Hit]]
    ) -> dict[str, Any]:
        types, mentions, tokens = [], [], []
        for name, runs in hits.items():
            shown = [[taken(h) for h in run] for run in runs]
            pairs = np.array([[covered(q, [h.example.sentence for h in s]) for q, s in zip(self.queries[name], run, strict=True)]
                              for run in shown])  # fmt: skip
            types.append(pairs[..., 0].mean(0).tolist())
            mentions.append(pairs[..., 1].mean(0).tolist())
            tokens.append(float(np.mean([sum(self.tokens(h.example) for h in s) for run in shown for s in run])))
        return {"types": types, "mentions": mentions, "tokens": tokens}

    def _fitting(self, hits: Sequence[Hit], budget: int) -> list[Hit]:
        kept = []
        for hit in hits:
            if (size := self.tokens(hit.example)) <= budget:
                kept.append(hit)
                budget -= size
        return kept

    def _sampled(self, pool: Sequence[Example], size: int, seed: int) -> list[Example]:
        if size >= len(pool):
            return list(pool)
        order = np.random.default_rng(seed).permutation(len(pool))[:size]
        return [pool[i] for i in sorted(order.tolist())]


def _first(hits: Sequence[Hit], k: int) -> Sequence[Hit]:
    return hits[:k]
