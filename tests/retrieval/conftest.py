"""A tiny random encoder, towns that can be found, and a real Milvus Lite file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xdner.backbone.encoder import Encoder, load_encoder
from xdner.retrieval.embedder import WordEmbedder
from xdner.retrieval.pool import Pool
from xdner.retrieval.settings import RetrievalSettings
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.pools import SENTENCES


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return load_encoder(save_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture
def embedder(encoder: Encoder) -> Callable[..., WordEmbedder]:
    def make(**settings: Any) -> WordEmbedder:
        return WordEmbedder(encoder, RetrievalSettings(**{"layer": 1, **settings}))

    return make


@pytest.fixture
def pool(tmp_path: Path, embedder: Callable[..., WordEmbedder]) -> Pool:
    """With all sentences, in a file."""
    made = Pool.create(tmp_path / "index", embedder().embedding)
    made.add(SENTENCES, embedder())
    return made
