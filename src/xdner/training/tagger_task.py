"""Training a tagger: windows of sentences with gold tags, and dev F1."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from xdner.backbone.recompute import recomputed
from xdner.backbone.words import Encoded, WordPieces
from xdner.evaluation.report import evaluate
from xdner.settings import DecodingSettings
from xdner.tagger.decoding import read
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.tags import bio_entities, bio_tags
from xdner.text import Entity, Sentence

__all__ = ["TaggerTask"]


class TaggerTask:
    """Fulfils :class:`xdner.training.loop.TrainingTask`: Eq. 1 over the words' tags, all weights trained.

    Args:
        network: all of it is trained.
        pieces: of its encoder's tokenizer.
        train: labelled sentences.
        dev: what chooses the best epoch; without any, the last one counts.
        decoding: windows and batch of reading; training has the same windows. ``None``: windows are as long as the
            encoder's positions allow, without overlap.
        recompute: ``training.gradient_checkpointing``.
    """

    def __init__(
        self,
        network: TaggerNetwork,
        pieces: WordPieces,
        train: Sequence[Sentence],
        dev: Sequence[Sentence],
        decoding: DecodingSettings | None = None,
        *,
        recompute: bool = False,
    ) -> None:
        self.network, self.dev, self.recompute = network, dev, recompute
        windows = {"window": decoding.window, "overlap": decoding.overlap} if decoding is not None else {}
        self.batch_size = decoding.batch_size if decoding is not None else 64
        self.encoded_dev = pieces.encode(dev, **windows)
        index = {tag: i for i, tag in enumerate(network.tags)}
        self.items: list[Encoded] = []
        for sentence, encoded in zip(train, pieces.encode(train, **windows), strict=True):
            tags = [index[tag] for tag in bio_tags(sentence)]
            for item in encoded:
                gold = tuple(tags[item.first : item.first + len(item.places)])
                self.items.append(replace(item, tags=gold))

    def parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())

    def lengths(self) -> list[int]:
        return [len(item.ids) for item in self.items]

    def groups(self) -> None:
        return None

    def loss(self, indices: Sequence[int], rng: random.Random) -> Tensor:
        self.network.train()
        with recomputed(self.network.encoder, self.recompute):
            return self.network.loss([self.items[i] for i in indices])

    def evaluate(self) -> float | None:
        if not self.dev:
            return None
        return evaluate([s.entities for s in self.dev], self.found(), samples=0).micro.f1

    def found(self) -> list[tuple[Entity, ...]]:
        """The entities of dev, with scores."""
        tagged = read(self.network, self.encoded_dev, batch_size=self.batch_size)
        return [bio_entities(s, t.tags, t.probabilities) for s, t in zip(self.dev, tagged, strict=True)]
