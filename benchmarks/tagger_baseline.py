"""The plain rival: an encoder with one linear layer that gives each word a BIO tag, all weights tuned. It is LANER's plain
head, driven without LANER's own settings: windows as long as the encoder allows, no overlap.

A word's tag is read at its first sub-word. A sentence longer than the encoder's positions is split into windows between
words, and no word is dropped. MiniLM-L6, the embedded encoder, lower-cases its input.

With sources, the same network first learns the source domains' tags; the rows of the layer whose tags the target has
too (``O``, and types of the same name) are carried over, the others start anew.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from benchmarks.arms import Corpora, Measured, Target, measured, resolved
from xdner.backbone.encoder import load_encoder
from xdner.backbone.words import WordPieces
from xdner.settings import TrainingSettings
from xdner.tagger.carry import carry_over
from xdner.tagger.network import TaggerNetwork
from xdner.tagger.settings import TaggerSettings
from xdner.tagger.tags import tags_for
from xdner.training.loop import TrainingResult, train
from xdner.training.progress import Progress
from xdner.training.run import Run
from xdner.training.tagger_task import TaggerTask

#: The source domains that the instructed backbone has seen.
SOURCES = ("conll2003", "politics", "music", "literature")

# An epoch costs next to nothing and F1 is 0 in the first ones, so patience would end the run: all epochs are run, and
# the best one on dev counts.
DEFAULTS = (
    "training.epochs=40", "training.batch_size=16", "training.patience=0", "training.evaluate_from=1",
)  # fmt: skip

_PLAIN = TaggerSettings(head="plain")


# -- the arm -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaggerArm:
    """An encoder tuned on the target, after the sources if there are any.

    Attributes:
        name, rates: see :class:`benchmarks.arms.Arm`; both stages have one rate.
        encoder: alias, hub id or folder.
        corpora: where sources come from.
        sources: names of source domains.
        per_source: at most so many sentences of each, the sample of instruction tuning.
        source_epochs: passes over the sources.
        overrides: of the group ``training``, for the target.
        device: ``cpu``, ``cuda``, ...
    """

    name: str
    encoder: str
    rates: tuple[float, ...]
    corpora: Corpora
    sources: tuple[str, ...] = ()
    per_source: int = 600
    source_epochs: int = 10
    overrides: tuple[str, ...] = ()
    device: str = "cpu"

    def asked(self) -> dict[str, Any]:
        own = {"backbone": self.encoder, "overrides": list(self.overrides), "dtype": "float32"}
        stage = {"names": list(self.sources), "per_source": self.per_source, "epochs": self.source_epochs}
        return own | ({"sources": stage} if self.sources else {})

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        began = time.monotonic()
        settings = resolved(DEFAULTS, self.overrides, seed, rate).training
        sources = [self.corpora.source(name, self.per_source) for name in self.sources]
        loaded = load_encoder(self.encoder, device=self.device)
        encoder, pieces = loaded.model, WordPieces(loaded.tokenizer, loaded.positions)
        tagger = TaggerNetwork(encoder, tags_of([target]), _PLAIN, seed=seed).to(self.device)
        if sources:
            carry_over(tagger, self._learn_sources(encoder, pieces, sources, settings))
        task = TaggerTask(tagger, pieces, target.train, target.dev, recompute=settings.gradient_checkpointing)
        result = train(task, settings, Run(progress=progress))
        return measured(
            target.dev, task.found(), result, began, settings={"training": _plain(settings)},
            backbone={"name": loaded.name, "fingerprint": loaded.fingerprint}, dtype="float32",
            trained_weights=sum(p.numel() for p in tagger.parameters()), labels=list(target.domain.label_names),
            sources=[{"domain": s.domain.name, "sentences": len(s.train), "data": dict(s.data)} for s in sources],
        )  # fmt: skip

    def _learn_sources(
        self, encoder: nn.Module, pieces: WordPieces, sources: Sequence[Target], settings: TrainingSettings
    ) -> TaggerNetwork:
        """The sources' tagger; ``encoder`` is trained in place. There is no dev split here: the last epoch counts."""
        tagger = TaggerNetwork(encoder, tags_of(sources), _PLAIN, seed=settings.seed).to(self.device)
        learned = [s for source in sources for s in source.train]
        task = TaggerTask(tagger, pieces, learned, (), recompute=settings.gradient_checkpointing)
        stage = replace(settings, epochs=self.source_epochs, patience=0)
        _: TrainingResult = train(task, stage)
        return tagger


def tags_of(targets: Sequence[Target]) -> list[str]:
    """``O``, then ``B-`` and ``I-`` of every type of these domains."""
    return list(tags_for(label for target in targets for label in target.domain.label_names))


def _plain(settings: TrainingSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in TrainingSettings.__slots__}
