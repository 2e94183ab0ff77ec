"""Settings of retrieval: how words become vectors, and vectors of words become examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from xdner.groups import Count, GroupedSettings, Seed, Use, Within

__all__ = ["EMBEDDED", "INDEXING", "REMOVING", "IndexSettings", "RetrievalSettings"]

#: Methods that need an encoder.
EMBEDDED = ("word", "sentence")
#: Settings that only some methods go by. Vectors of sentences are made of the last layer's states.
_OWN = {
    "word": {"encoder", "layer", "pooling", "aggregation", "rows", "stop_words", "candidates", "search", "nprobe"},
    "sentence": {"encoder", "sentence_pooling"},
    "bm25": {"stop_words"},
    "random": {"seed"},
}


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """How examples are found for a sentence. An index stores ``encoder``, ``layer`` and ``pooling``, and goes by its own.

    Attributes:
        method: ``word`` (IF-WRANER), or as baselines ``sentence``, ``bm25``, ``random``, ``densest`` (most entities) and
            ``none``.
        k: examples of a sentence (the paper's 5); 0 is none.
        encoder: that embeds words: alias, hub id or folder.
        layer: of the encoder, whose states are the vectors; 0 is the embeddings, -1 the last layer. ``auto`` is two thirds of the
            way up (4 of 6, 8 of 12): lower layers know the word, the last ones what the encoder was trained to say.
        pooling: over a word's sub-words.
        sentence_pooling: over a sentence's tokens, for ``sentence``: ``mean`` (MiniLM, MPNet) or ``cls`` (BGE, Arctic).
        aggregation: of a query's words to examples (``retrieval/aggregate.py``).
        rows: the words of examples that can be found: ``all``, ``content`` (no stop words, no punctuation) or
            ``entities`` (words of mentions).
        stop_words: the language whose stop words are dropped from queries (and from ``content``), or ``none``.
        candidates: rows that each word of a query brings, at most; what is farther away counts nothing,
            unless so few rows are of fewer than ``k`` examples.
        search: ``memory`` (the pool's rows in a matrix, exact), ``milvus`` (its own index, approximate where it is an
            IVF), or ``auto``: Milvus where it is a server, memory where it is a file.
        nprobe: clusters of an IVF index that a search looks into.
        seed: of ``random``.
        timeout: seconds that a Milvus server may take for one call.
    """

    method: Literal["word", "sentence", "bm25", "random", "densest", "none"] = "word"
    k: Count = 5
    encoder: str = "minilm-l6"
    layer: int | str = "auto"
    pooling: Literal["mean", "first", "max"] = "mean"
    sentence_pooling: Literal["mean", "cls"] = "mean"
    aggregation: Literal["types", "cover", "sum", "idf", "rank", "count", "max"] = "sum"
    rows: Literal["all", "content", "entities"] = "content"
    stop_words: Literal["none", "english", "german", "dutch", "french", "spanish", "portuguese", "italian"] = "english"
    candidates: Annotated[int, Within(1, 1024)] = 32
    search: Literal["auto", "memory", "milvus"] = "auto"
    nprobe: Annotated[int, Within(1, 65536)] = 16
    seed: Seed = 1
    timeout: Annotated[float, Within(0, 3600, above=True)] = 20.0

    def idle_beside(self) -> Mapping[str, str]:
        """Settings that have no effect beside the method: which one makes no use of each. How an index is held and asked
        (``timeout``) is all methods', and so is ``k``."""
        idle = dict.fromkeys(set[str]().union(*_OWN.values()) - _OWN.get(self.method, set()), f"method={self.method}")
        return {"nprobe": "search=memory"} | idle if self.search == "memory" else idle

    def problems(self) -> Iterable[str]:
        if not self.encoder.strip():
            yield "retrieval.encoder must name an encoder"
        number = type(self.layer) is int and self.layer >= -1
        if not number and self.layer != "auto":
            yield f"retrieval.layer must be a layer's number, -1 for the last, or 'auto', not {self.layer!r}"


@dataclass(frozen=True, slots=True)
class IndexSettings(GroupedSettings):
    """All groups of an index by itself."""

    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)


#: Jobs that use these settings in part: indexing examples, and removing some. To explain uses all.
INDEXING = Use("indexing", {"retrieval": frozenset({"encoder", "layer", "pooling", "stop_words", "timeout"})})
REMOVING = Use("removing examples", {"retrieval": frozenset({"timeout"})})
