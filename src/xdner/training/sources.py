"""Source domains as trainings take them: types, labelled sentences, and how many of these are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xdner.domain import Domain
from xdner.text import Sentence
from xdner.training.augmentation import mention_pool

__all__ = ["LabelledSource", "limited", "pools", "used"]


@dataclass(frozen=True)
class LabelledSource:
    """A source domain: its types and sentences."""

    domain: Domain
    sentences: Sequence[Sentence]


def pools(sources: Sequence[LabelledSource], per_source: int) -> dict[str, dict[str, tuple[tuple[str, ...], ...]]]:
    """The mentions of each source's training sentences, by domain and label."""
    return {s.domain.name: mention_pool(limited(s.sentences, per_source)) for s in sources}


def limited(sentences: Sequence[Sentence], limit: int) -> list[Sentence]:
    """A seeded sample of at most ``limit`` sentences (0 = all), in their order."""
    if not limit or len(sentences) <= limit:
        return list(sentences)
    chosen = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0))[:limit].tolist()
    return [sentences[i] for i in sorted(chosen)]


def used(sources: Sequence[LabelledSource], per_source: int) -> list[dict[str, Any]]:
    """How many sentences of each source are trained on, for the record."""
    return [{"domain": s.domain.name, "sentences": len(limited(s.sentences, per_source))} for s in sources]
