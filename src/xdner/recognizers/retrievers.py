"""The retrievers of a recognizer's domains, each encoder loaded once, and only if a retriever needs it."""

from __future__ import annotations

from collections.abc import Sequence

from xdner.backbone.encoder import Encoder, load_encoder
from xdner.prompting.settings import WranerSettings
from xdner.retrieval.base import Example, Retriever
from xdner.retrieval.baselines import NoRetriever
from xdner.retrieval.build import build_retriever, embedder_of, settings_with
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.pool import Pool
from xdner.retrieval.settings import EMBEDDED

__all__ = ["Retrievers"]


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
        if not examples or not how.k:  # nothing to find, or nobody asks
            return NoRetriever()
        embedder = WordEmbedder(self.encoder(how.encoder), how) if how.method in EMBEDDED else None
        return build_retriever(examples, how, embedder)

    def of_pool(self, pool: Pool, settings: WranerSettings) -> Retriever:
        """Over an index, with the embedding that it was made with.

        Raises:
            BackboneNotFoundError: its encoder is not there.
            IndexMismatchError: its encoder has other weights now, or the settings ask for another encoder, layer or pooling.
            RetrievalError: it is empty, or cannot be read.
        """
        how = settings_with(pool, settings.retrieval)
        if not how.k:
            return NoRetriever()
        pool.timeout = how.timeout
        embedder = embedder_of(pool, self.encoder(how.encoder), how) if how.method in EMBEDDED else None
        return build_retriever(pool, how, embedder)

    def encoder(self, name: str) -> Encoder:
        """Loaded once.

        Raises:
            BackboneNotFoundError: there is no such encoder, or it was not pulled.
        """
        if name not in self._encoders:
            self._encoders[name] = load_encoder(name, device=self.device)
        return self._encoders[name]
