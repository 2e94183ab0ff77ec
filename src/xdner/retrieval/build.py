"""A retriever by its name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from xdner.backbone.encoder import Encoder, load_encoder
from xdner.retrieval.base import Example, Retriever
from xdner.retrieval.baselines import (
    BM25Retriever,
    DensestRetriever,
    NoRetriever,
    RandomRetriever,
    SentenceRetriever,
    require_bm25,
)
from xdner.retrieval.by_words import WordRetriever
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.pool import Pool
from xdner.retrieval.settings import RetrievalSettings
from xdner.retrieval.stop_words import stop_words

__all__ = ["build_retriever", "embedder_of", "own_settings", "require_packages", "settings_with"]


def embedder_of(
    pool: Pool, encoder: Encoder | None = None, settings: RetrievalSettings | None = None, *, device: str = "cpu"
) -> WordEmbedder:
    """The embedder that a pool was made with.

    Args:
        encoder: already loaded; ``None``: from where the pool's was loaded.
        settings: what they leave at its default is the pool's own (:func:`settings_with`).

    Raises:
        BackboneError: it cannot be loaded.
        IndexMismatchError: its weights are other ones now, or other ones are asked for.
    """
    how = settings_with(pool, settings or RetrievalSettings())
    embedder = WordEmbedder(encoder or load_encoder(how.encoder, device=device), how)
    pool.require(embedder.embedding)
    return embedder


def own_settings(pool: Pool) -> dict[str, Any]:
    """The settings that an index was made with, and goes by: ``encoder``, ``layer``, ``pooling`` and ``stop_words``."""
    made = pool.manifest.embedding
    return {
        "encoder": made.source, "layer": made.layer, "pooling": made.pooling, "stop_words": pool.manifest.stop_words,
    }  # fmt: skip


def settings_with(pool: Pool, settings: RetrievalSettings) -> RetrievalSettings:
    """The settings with an index's own where they are left at their defaults. What they ask for otherwise stays, and is what
    :meth:`~xdner.retrieval.pool.Pool.require` refuses."""
    default = RetrievalSettings()
    own = {k: v for k, v in own_settings(pool).items() if getattr(settings, k) == getattr(default, k)}
    return replace(settings, **own)


def require_packages(settings: RetrievalSettings) -> None:
    """Refuse to go on without the packages that a retriever needs, before models are loaded.

    Raises:
        RetrievalError: one is not installed.
    """
    if settings.k and settings.method in ("word", "bm25"):
        stop_words(settings.stop_words)
    if settings.k and settings.method == "bm25":
        require_bm25()


def build_retriever(
    pool: Pool | Sequence[Example],
    settings: RetrievalSettings | None = None,
    embedder: WordEmbedder | None = None,
) -> Retriever:
    """The retriever that ``settings.method`` names; of no examples, one that shows nothing.

    Args:
        pool: where examples come from; or the examples themselves, which are then embedded and kept in memory.
        settings: see :class:`~xdner.retrieval.settings.RetrievalSettings`; ``encoder``, ``layer`` and ``pooling`` are
            the pool's, or refused.
        embedder: the pool's own; loaded where it is needed and not given.

    Raises:
        RetrievalError: the pool is empty.
        IndexMismatchError: another embedder.
    """
    settings = settings or RetrievalSettings()
    if settings.method == "none":
        return NoRetriever()
    if isinstance(pool, Pool):
        pool.require_examples()
        examples = [e for _, e in sorted(pool.examples.items())]
    else:
        examples = list(pool)
        if not examples:  # nothing to find
            return NoRetriever()
    if settings.method == "bm25":
        return BM25Retriever(examples, settings.stop_words)
    if settings.method == "random":
        return RandomRetriever(examples, settings.seed)
    if settings.method == "densest":
        return DensestRetriever(examples)
    if embedder is None and isinstance(pool, Pool):
        embedder = embedder_of(pool, settings=settings)
    embedder = embedder or WordEmbedder(load_encoder(settings.encoder), settings)
    if settings.method == "sentence":
        return SentenceRetriever(examples, embedder)
    return WordRetriever(pool, embedder, settings)
