"""Settings of retrieval: how words become vectors, and vectors of words become examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from xdner.settings import GroupedSettings

__all__ = ["IndexSettings", "RetrievalSettings"]


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """How examples are found for a sentence. An index stores ``encoder``, ``layer`` and ``pooling``, and goes by its own.

    Attributes:
        method: ``word`` (IF-WRANER), or as baselines ``sentence``, ``bm25``, ``random``, ``densest`` (most entities) and
            ``none``.
        k: examples of a sentence (the paper's 5); 0 is none.
        encoder: that embeds words: alias, hub id or folder.
        layer: of the encoder, whose states are the vectors; 0 is the embeddings, -1 the last layer.
        pooling: over a word's sub-words.
        aggregation: of a query's words to examples (``retrieval/aggregate.py``).
        rows: the words of examples that can be found: ``all``, ``content`` (no stop words, no punctuation) or
            ``entities`` (words of mentions).
        stop_words: the language whose stop words are dropped from queries (and from ``content``), or ``none``.
        candidates: rows that each word of a query brings, at most; what is farther away counts nothing.
        search: ``memory`` (the pool's rows in a matrix, exact), ``milvus`` (its own index, approximate where it is an
            IVF), or ``auto``: Milvus where it is a server, memory where it is a file.
        nprobe: clusters of an IVF index that a search looks into.
        seed: of ``random``.
        timeout: seconds that a Milvus server may take for one call.
    """

    method: Literal["word", "sentence", "bm25", "random", "densest", "none"] = "word"
    k: int = 5
    encoder: str = "minilm-l6"
    layer: int = 4
    pooling: Literal["mean", "first", "max"] = "mean"
    aggregation: Literal["types", "cover", "sum", "idf", "rank", "count", "max"] = "types"
    rows: Literal["all", "content", "entities"] = "content"
    stop_words: Literal["none", "english", "german", "dutch", "french", "spanish", "portuguese", "italian"] = "english"
    candidates: int = 32
    search: Literal["auto", "memory", "milvus"] = "auto"
    nprobe: int = 16
    seed: int = 1
    timeout: float = 20.0

    def problems(self) -> Iterable[str]:
        """What is wrong with the values, in words."""
        for name in ("k", "seed"):
            if getattr(self, name) < 0:
                yield f"retrieval.{name} must not be negative, not {getattr(self, name)}"
        if not 1 <= self.candidates <= 1024:
            yield f"retrieval.candidates must be from 1 to 1024, not {self.candidates}"
        if not self.encoder.strip():
            yield "retrieval.encoder must name an encoder"
        if self.layer < -1:
            yield f"retrieval.layer must be a layer's number, or -1 for the last, not {self.layer}"
        if not 1 <= self.nprobe <= 65536:
            yield f"retrieval.nprobe must be from 1 to 65536, not {self.nprobe}"
        if not 0 < self.timeout <= 3600:
            yield f"retrieval.timeout must be above 0 and at most 3600 seconds, not {self.timeout}"


@dataclass(frozen=True, slots=True)
class IndexSettings(GroupedSettings):
    """All groups of an index by itself."""

    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
