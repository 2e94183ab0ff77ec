"""The retrievers of a recognizer's domains, each encoder loaded once, and only if a retriever needs it."""

from __future__ import annotations

from collections.abc import Sequence

from xdner.backbone.encoder import Encoder, load_encoder
from xdner.prompting.settings import WranerSettings
from xdner.retrieval.base import Example, Retriever
from xdner.retrieval.build import build_retriever, embedder_of
from xdner.retrieval.pool import Pool
from xdner.retrieval.words import WordEmbedder

__all__ = ["Retrievers"]

_EMBEDDED = ("word", "sentence")  # methods that need an encoder


class Retrievers:
    """Makes retrievers by the settings' ``retrieval.method``: of examples, which are embedded then and kept in memory, or of an
    index, whose words are embedded already.

    Args:
        device: of the encoders.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._encoders: dict[str, Encoder] = {}

    def __call__(self, examples: Sequence[Example], settings: WranerSettings) -> Retriever:
        """Over these examples.

        Raises:
            BackboneNotFoundError: there is no such encoder, or it was not pulled.
        """
        how = settings.retrieval
        needed = how.method in _EMBEDDED and bool(examples)
        embedder = WordEmbedder(self._encoder(how.encoder), how) if needed else None
        if not examples:  # nothing to find, whatever the method
            return build_retriever((), WranerSettings.build(None, ["retrieval.method=none"]).retrieval)
        return build_retriever(examples, how, embedder)

    def of_pool(self, pool: Pool, settings: WranerSettings) -> Retriever:
        """Over an index, with the embedding that it was made with.

        Raises:
            BackboneNotFoundError: its encoder is not there.
            IndexMismatchError: its encoder has other weights now.
            RetrievalError: it is empty, or cannot be read.
        """
        how = settings.retrieval
        pool.timeout = how.timeout
        needed = how.method in _EMBEDDED
        embedder = embedder_of(pool, self._encoder(pool.manifest.embedding.source)) if needed else None
        return build_retriever(pool, how, embedder)

    def _encoder(self, name: str) -> Encoder:
        if name not in self._encoders:
            self._encoders[name] = load_encoder(name, device=self.device)
        return self._encoders[name]
