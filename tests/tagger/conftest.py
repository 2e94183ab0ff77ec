from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from xdner.backbone.encoder import load_encoder
from xdner.backbone.words import Encoded, WordPieces
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.settings import TaggerSettings
from xdner.testing.taggers import letter_tokenizer, save_letter_encoder

TAGS = ("O", "B-x", "I-x", "B-y", "I-y")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_letter_encoder(tmp_path_factory.mktemp("tagger") / "encoder")


@pytest.fixture
def network(folder: Path) -> Callable[..., TaggerNetwork]:
    """Makes a tagger on the tiny encoder; its scores are far apart, so that errors show."""

    def make(tags: Sequence[str] = TAGS, *, seed: int = 1, louder: float = 20.0, **settings: Any) -> TaggerNetwork:
        settings = {"label_size": 6, **settings}
        made = TaggerNetwork(load_encoder(folder).model, tags, TaggerSettings(**settings), seed=seed).eval()
        with torch.no_grad():
            made.head.weight.mul_(louder)
        return made

    return make


@pytest.fixture
def pieces() -> WordPieces:
    return WordPieces(letter_tokenizer(), 16)


def _windows(counts: Sequence[int], seed: int = 0, tags: int = len(TAGS)) -> list[Encoded]:
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, count: int) -> tuple[int, ...]:
        return tuple(torch.randint(low, high, (count,), generator=generator).tolist())

    made = []
    for count in counts:
        sizes = draw(1, 3, count)
        places = tuple(1 + sum(sizes[:w]) for w in range(count))
        ids = (2, *draw(4, 60, sum(sizes)), 3)
        made.append(Encoded(ids, places, tags=draw(0, tags, count), shapes=draw(0, 8, count)))
    return made


@pytest.fixture
def windows() -> Callable[..., list[Encoded]]:
    """Random windows of so many words each, of one or two sub-words, with random tags."""
    return _windows
